"""F10, F11, F15: connections to the database that are reset, answers that are lost, and locks in any order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import httpx
import pytest

from tests.application import serving, settings_for
from tests.faults.load import assert_held, posting, watching
from tests.faults.oracles import assert_exact, connected
from tests.live.proxy import Proxy, through, upstream_of
from tests.servers import Database

SYMBOLS = ("PEPE", "WIF")
LENGTHS = [pytest.param(80, id="short"), pytest.param(3000, id="long", marks=pytest.mark.slow)]
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'klines%'"
)
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
# The pools of readers and writers, turns, probe, listener and the works of one process.
MOST_SESSIONS = 5 + 4 + 5


@pytest.mark.fault("F10")
@pytest.mark.parametrize("batches", LENGTHS)
async def test_connections_that_are_reset_lose_and_repeat_nothing(
    plain: Database, batches: int, figures: Callable[..., None]
) -> None:
    chance = random.Random(5)  # noqa: S311 - the moments of the resets
    resets = 0

    def flaky(*_: object) -> bool:
        nonlocal resets
        reset = chance.random() < 0.01
        resets += reset
        return reset

    with Proxy(upstream_of(plain.url)) as proxy:
        settings = settings_for(Database(through(proxy, plain.url), "plain"))
        async with (
            serving(settings) as url,
            posting(url, *SYMBOLS) as load,
            watching(url, SYMBOLS) as pairs,
        ):
            load.begin(4)
            await load.more(20)
            proxy.reset_when(flaky)
            reads = {200: 0, 503: 0}
            wanted = load.batches + batches
            while load.batches < wanted:
                for path in ("/api/v1/klines/PEPE", "/api/v1/trades/WIF"):
                    reads[(await load.client.get(path)).status_code] += 1
            proxy.reset_when(None)
            account = await assert_held(plain.url, load, pairs)
            assert load.ledger.answers.keys() <= {200, 503}
            async with connected(plain.url) as connection:
                sessions = await connection.fetchval(SESSIONS)
            assert sessions <= MOST_SESSIONS
            assert resets > batches / 20
    codes = {f"http_{code}": count for code, count in load.ledger.answers.items()}
    told = {f"http_{code}": count for code, count in reads.items()}
    figures("F10", resets=resets, **account.figures, gaps=0, sessions=sessions, ingest=codes, reads=told)


class LostReplies:
    """Resets a connection when the answer to its COMMIT comes, some times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self._committing: set[int] = set()

    def __call__(self, link: object, piece: bytes, upward: bool) -> bool:
        if upward and b"COMMIT;" in piece:
            self._committing.add(id(link))
        elif not upward and id(link) in self._committing and self.left:
            self._committing.discard(id(link))
            self.left -= 1
            return True
        return False


@pytest.mark.fault("F11")
async def test_a_batch_whose_answer_was_lost_is_stored_once(plain: Database, figures: Callable[..., None]) -> None:
    rounds = 10
    with Proxy(upstream_of(plain.url)) as proxy:
        settings = settings_for(Database(through(proxy, plain.url), "plain"))
        async with serving(settings) as url, posting(url, "PEPE") as load:
            for _ in range(rounds):
                batch = [load.trade() for _ in range(5)]
                proxy.reset_when(LostReplies(1))
                lost = await load.ledger.post(load.client, *batch)
                assert lost is not None and (lost.status_code, lost.headers["retry-after"]) == (503, "1")
                again = await load.ledger.post(load.client, *batch)
                assert again is not None and again.status_code == 200
                assert again.json() == {"received": 5, "inserted": 0, "duplicates": 5, "conflicts": 0}
            proxy.reset_when(None)
            account = await assert_exact(plain.url, load.client, load.ledger)
    figures("F11", lost_answers=rounds, **account.figures)


@pytest.mark.fault("F15")
@pytest.mark.parametrize("rounds", [pytest.param(40, id="40"), pytest.param(500, id="500", marks=pytest.mark.slow)])
async def test_batches_in_opposite_order_do_not_deadlock(
    plain: Database, rounds: int, figures: Callable[..., None]
) -> None:
    symbols = [f"LOCK{number}" for number in range(8)]
    async with serving(settings_for(plain)) as url, posting(url, *symbols) as load:

        async def send(order: list[str]) -> httpx.Response | None:
            return await load.ledger.post(load.client, *(load.trade(symbol) for symbol in order))

        for _ in range(rounds):
            answers = await asyncio.gather(send(symbols), send(symbols[::-1]), send(symbols), send(symbols[::-1]))
            assert {answer and answer.status_code for answer in answers} == {200}
        account = await assert_exact(plain.url, load.client, load.ledger)
    async with connected(plain.url) as connection:
        deadlocks = await connection.fetchval(DEADLOCKS)
    assert deadlocks == 0
    figures("F15", batches=4 * rounds, deadlocks=deadlocks, http_5xx=0, **account.figures)
