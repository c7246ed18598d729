"""F05: PostgreSQL is stopped at once while batches are stored. Each is there as a whole or not at all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence

import httpx
import pytest

from klines.models import Trade
from tests.application import serving, settings_for
from tests.faults.load import register
from tests.faults.oracles import Ledger, assert_exact, connected, identity, taped
from tests.live.followers import paired
from tests.live.power import Power, powered
from tests.servers import Database
from tests.storage.bars import stored_trades

SYMBOL = "PEPE"
BATCH = 500
US = 1_000_000
ROUNDS = [pytest.param(2, id="2"), pytest.param(50, id="50", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@pytest.fixture
async def own() -> AsyncIterator[tuple[Power, Database]]:
    """A server of the test's own."""
    async with powered() as opened:
        yield opened


def batch(number: int) -> list[Trade]:
    """One batch, spread over more than a minute, so that many bars change with it."""
    now_us = time.time_ns() // 1000
    return [
        Trade(SYMBOL, number * BATCH + n, now_us - n * US // 6, f"0.{n + 1}1", f"{n % 7 + 1}.25", "buy")
        for n in range(BATCH)
    ]


async def posts(client: httpx.AsyncClient, ledger: Ledger, numbers: Sequence[int]) -> None:
    """Send batches, each once, until the database has gone."""
    for number in numbers:
        answer = await ledger.post(client, *batch(number))
        if answer is None or answer.status_code != 200:
            assert answer is not None and answer.status_code == 503, answer
            assert int(answer.headers["Retry-After"]) > 0
            return


async def partial(url: str) -> list[int]:
    """The batches of which only a part is stored."""
    async with connected(url) as connection:
        stored = {trade.trade_id for trade in await stored_trades(connection, SYMBOL)}
    counts: dict[int, int] = {}
    for trade_id in stored:
        counts[trade_id // BATCH] = counts.get(trade_id // BATCH, 0) + 1
    return [number for number, count in counts.items() if count != BATCH]


@pytest.mark.fault("F05")
@pytest.mark.parametrize("rounds", ROUNDS)
async def test_a_batch_is_stored_as_a_whole_or_not_at_all(
    own: tuple[Power, Database], rounds: int, figures: Callable[..., None]
) -> None:
    power, database = own
    chance = random.Random(5)  # noqa: S311 - the moments of the stops
    ledger, outages = Ledger(), []
    async with (
        serving(settings_for(database)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        await register(client, SYMBOL)
        async with paired(url, "1s", "1m", symbol=SYMBOL) as pair:
            for turn in range(rounds):
                first = 1 + turn * 1000
                senders = [
                    asyncio.create_task(posts(client, ledger, range(first + part * 100, first + part * 100 + 100)))
                    for part in range(2)
                ]
                await asyncio.sleep(chance.uniform(0.02, 0.15))
                await power.immediate()
                await asyncio.gather(*senders)
                assert await power.on() == database.url
                accepts = time.monotonic()
                await ledger.persist(client, *batch(first + 999), pause=0.02)
                outages.append(time.monotonic() - accepts)
                assert await partial(database.url) == []
            account = await assert_exact(database.url, client, ledger)
            tape = await taped(database.url, SYMBOL)
            assert len({identity(trade) for trade in tape}) == len(tape)
            await pair.told(tape)
            pair.stayed()
            assert ledger.answers.keys() <= {200, 503}
    assert account.unknown > 0, "no batch was under way"
    figures("F05", stops=rounds, rto_s=max(outages), partial=0, **account.figures, gaps=0)
