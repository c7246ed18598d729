"""Streams over faults: no trade lost, repeated or out of order, every bar right, every bar closed once.

Clients follow a writer that commits straight into the database, while connections are cut, blackholed and terminated
and the database restarts. Clients stay connected unless the fault is in their own connection.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from klines import listener
from tests.application import serving, settings_for
from tests.faults.oracles import assert_bars, connected, identity, taped
from tests.live.followers import (
    LISTENERS,
    POLLED,
    PROMISED,
    TERMINATE,
    WATCHED,
    Pair,
    Writer,
    address_of,
    before,
    charted,
    paired,
    poll,
    running,
    writer_of,
)
from tests.live.power import powered
from tests.live.proxy import Proxy, through, upstream_of
from tests.servers import Database


@pytest.fixture
async def psql(plain: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of someone who may do anything."""
    connection = await asyncpg.connect(plain.url)
    yield connection
    await connection.close()


async def refused(url: str) -> Response:
    """How a new socket is refused."""
    with pytest.raises(InvalidStatus) as found:
        async with connect(f"{url.replace('http', 'ws', 1)}/ws/transactions/{WATCHED}", proxy=None):
            pass
    return found.value.response


async def test_twenty_cuts_of_the_clients_lose_and_repeat_nothing(plain: Database) -> None:
    chance = random.Random(11)  # noqa: S311 - the moments of the cuts
    async with serving(settings_for(plain)) as url, writer_of(plain.url) as writer:
        with before(url) as proxy:
            async with paired(address_of(proxy)) as pair:
                async with running(writer):
                    for number in range(20):
                        accepted, heard = proxy.count, [len(follower.heard) for follower in pair.all]
                        if number:
                            await proxy.connected(accepted + 1)
                        for follower, already in zip(pair.all, heard, strict=True):
                            wanted = already + chance.choice([0, 0, 1, 2, 5, 20])
                            await follower.until(lambda _, one=follower, to=wanted: len(one.heard) >= to)  # type: ignore[misc]
                        proxy.cut()
                await pair.holds(writer)
                assert proxy.count >= 20
                assert all(len(follower.codes) > 5 for follower in pair.all)


@pytest.mark.fault("F03")
async def test_twenty_terminated_listeners_lose_nothing(
    plain: Database, psql: asyncpg.Connection[Any], figures: Callable[..., None]
) -> None:
    waits = []

    async def listeners() -> set[int]:
        return {row[0] for row in await psql.fetch(LISTENERS)}

    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(settings_for(plain))) for _ in range(4)]
        writer = await stack.enter_async_context(writer_of(plain.url))
        pairs = [await stack.enter_async_context(paired(url)) for url in urls]
        async with running(writer):
            for _ in range(5):
                ended = await listeners()
                assert len(ended) == 4
                assert [row[0] for row in await psql.fetch(TERMINATE, "klines listener")] == [True] * 4
                begun, count = time.monotonic(), writer.count
                for pair in pairs:
                    await pair.has(count + 1, deadline=PROMISED)
                waits.append(time.monotonic() - begun)

                async def back(ended: set[int] = ended) -> bool:
                    return len(await listeners() - ended) == 4

                await poll(back, PROMISED - (time.monotonic() - begun))
        for pair in pairs:
            await pair.holds(writer)
            pair.stayed()
        figures("F03", faults=20, rto_s=max(waits), **(await assert_told(plain.url, writer)))


@pytest.fixture
def away(plain: Database) -> Iterator[Proxy]:
    """A proxy before the database."""
    with Proxy(upstream_of(plain.url)) as proxy:
        yield proxy


async def test_a_broken_network_to_the_database_is_told_and_recovered_from(plain: Database, away: Proxy) -> None:
    settings = settings_for(Database(through(away, plain.url), "plain"))
    async with serving(settings) as url, writer_of(plain.url) as writer, paired(url) as pair:
        async with running(writer):
            await pair.has(10)
            away.cut()
            await pair.has(writer.count + 1, deadline=PROMISED)
            away.delay(0.1)
            await pair.has(writer.count + 20, deadline=PROMISED)
            away.delay(0)
            away.refuse()
            away.cut()
            await is_away(url, pair)
            away.restore()
            await is_back(pair, writer)
            away.blackhole()
            await pair.tells("stale")
            away.restore()
            await is_back(pair, writer)
            tries = away.count
            away.blackhole()
            await is_away(url, pair)
            # Connections that were opened into the hole, too.
            await away.connected(tries + 2)
            away.restore()
            await is_back(pair, writer)
        await pair.holds(writer)
        pair.stayed()


async def assert_told(url: str, writer: Writer) -> dict[str, int]:
    """O1 and O2 for what a writer committed, which the streams were held against already; for the figures."""
    lost = duplicated = 0
    for symbol, committed in writer.committed.items():
        stored = [identity(trade) for trade in await taped(url, symbol)]
        lost += len({identity(trade) for trade in committed} - {*stored})
        duplicated += len(stored) - len({*stored})
        assert stored == [identity(trade) for trade in committed]
        await assert_bars(url, None, symbol)
    return {"committed": sum(map(len, writer.committed.values())), "lost": lost, "duplicated": duplicated}


async def is_away(url: str, pair: Pair) -> None:
    """`stale` is told in time, and new sockets are refused."""
    await pair.tells("stale")
    response = await refused(url)
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


async def is_back(pair: Pair, writer: Writer) -> None:
    """Everything that is committed by now comes in time, and `live` is told."""
    begun, count = time.monotonic(), writer.count
    await pair.tells("live")
    await pair.has(count, deadline=PROMISED - (time.monotonic() - begun))


async def test_restarts_of_the_database_are_told_and_recovered_from() -> None:
    async with AsyncExitStack() as stack:
        power, database = await stack.enter_async_context(powered())
        url = await stack.enter_async_context(serving(settings_for(database)))
        writer = await stack.enter_async_context(writer_of(database.url))
        pair = await stack.enter_async_context(paired(url))
        async with running(writer):
            for stop in (power.off, power.crash):
                await pair.has(writer.count + 20)
                await stop()
                await is_away(url, pair)
                count = writer.count
                assert await power.on() == database.url
                await is_back(pair, writer)
                await pair.has(count + 20)
        await pair.holds(writer)
        pair.stayed()
        connection = await stack.enter_async_context(connected(database.url))
        assert await connection.fetchval("SELECT count(*) FROM trades") == sum(map(len, writer.committed.values()))


DETECTED = 8.0  # how long a connection that lost the other end may be believed

FORGED = [
    *("*", "**", "", "x", ",", "1", "2", "1,2", "999", "1;2", "{}", "\u0661"),
    *("9" * 7999, "x" * 7999, "*" * 7999, "1" * 10),
    ",".join(map(str, range(1, 1600))),
    ",".join(["1"] * 3999),
]


@pytest.mark.fault("F48")
async def test_forged_notifications_change_nothing(
    plain: Database, psql: asyncpg.Connection[Any], figures: Callable[..., None]
) -> None:
    async with (
        serving(settings_for(plain)) as url,
        writer_of(plain.url) as writer,
        paired(url, "1s", "2s", "1m") as pair,
    ):
        await writer.commit(writer.trade(WATCHED, 300), writer.trade(WATCHED, -60), writer.trade("WIF", 300))
        await pair.holds(writer)
        before = [[message for _, message in follower.heard] for follower in pair.all]
        for payload in FORGED * 5:
            await psql.execute("SELECT pg_notify('klines_v1', $1)", payload)
        await psql.execute("SELECT pg_notify('klines_v1', '*' ) FROM generate_series(1, 2000)")
        await psql.execute("SELECT pg_notify('klines_v1', n::text) FROM generate_series(1, 5000) AS n")
        await writer.commit(writer.trade(WATCHED, -61))
        await pair.holds(writer)
        for follower, already in zip(pair.all, before, strict=True):
            since = [one["type"] for _, one in follower.heard[len(already) :] if one["type"] != "heartbeat"]
            assert len(since) == 1, since
        pair.stayed()
        figures("F48", forged=len(FORGED) * 5 + 7000, bars_changed=0, **(await assert_told(plain.url, writer)))


@pytest.mark.fault("F04")
async def test_what_no_notification_announces_is_told_by_the_poll(
    plain: Database, away: Proxy, monkeypatch: pytest.MonkeyPatch, figures: Callable[..., None]
) -> None:
    monkeypatch.setattr("klines.relay.relay.listen", lambda url: listener.listen(through(away, url)))
    # No bars that end in this time: their ends are reasons to read, too.
    async with serving(settings_for(plain)) as url, writer_of(plain.url) as writer, paired(url, "1d") as pair:
        await away.connected(1)
        away.blackhole()
        begun, waits = time.monotonic(), []
        for seconds_ago in (0, 60, 0):
            await writer.commit(writer.trade(WATCHED, seconds_ago))
            committed = time.monotonic()
            await pair.has(writer.count, deadline=POLLED)
            waits.append(time.monotonic() - committed)
            await charted(pair.charts[0], writer.committed[WATCHED], POLLED)
        assert {follower.feed for follower in pair.all} <= {None, "live"}
        # The watchdog gives the silent connection up, and opens another one, into the hole as well.
        await away.connected(2)
        detected = time.monotonic() - begun
        assert detected < DETECTED
        away.restore()
        await pair.holds(writer)
        pair.stayed()
        told = await assert_told(plain.url, writer)
        figures("F04", detected_s=detected, poll_s=max(waits), **told)


class Commit(NamedTuple):
    """A batch: per trade whether it is of the watched token, and how old it is; and how many are repeated."""

    trades: list[tuple[bool, float]]
    repeated: int


FAULTS = ("cut", "terminate listener", "terminate all", "elsewhere")
commits = st.builds(
    Commit,
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0, 0.5, 1.5, 20, 4000])), min_size=1, max_size=40),
    st.integers(0, 3),
)
courses = st.lists(st.one_of(commits, commits, st.sampled_from(FAULTS)), min_size=4, max_size=14)
few = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_names = itertools.count(1)


class Arena(NamedTuple):
    """Two services on one database, each behind a proxy, with little patience for late commits."""

    database: Database
    proxies: tuple[Proxy, Proxy]
    psql: asyncpg.Connection[Any]


GRACE_MS = 100


@pytest.fixture
async def arena(plain: Database, psql: asyncpg.Connection[Any]) -> AsyncIterator[Arena]:
    settings = settings_for(plain, klines_close_grace=GRACE_MS)
    async with serving(settings) as first, serving(settings) as second:
        with before(first) as one, before(second) as other:
            yield Arena(plain, (one, other), psql)


async def happens(arena: Arena, pair: Pair, writer: Writer, event: Commit | str) -> None:
    """One event of a course."""
    if isinstance(event, Commit):
        watched, other = writer.symbols
        batch = [writer.trade(watched if is_watched else other, age) for is_watched, age in event.trades]
        await writer.commit(*batch, *writer.committed[watched][-event.repeated or 0 :][: event.repeated])
    elif event == "cut":
        for proxy in arena.proxies:
            proxy.cut()
    elif event == "elsewhere":
        here = pair.trades.url
        for follower in pair.all:
            follower.url = next(address_of(proxy) for proxy in arena.proxies if address_of(proxy) != here)
        for proxy in arena.proxies:
            proxy.cut()
    else:
        await arena.psql.execute(TERMINATE, "klines listener" if event == "terminate listener" else "klines%")


@few
@given(course=courses)
async def test_any_course_of_commits_and_faults_is_told_right(arena: Arena, course: list[Commit | str]) -> None:
    symbol = f"COURSE{next(_names)}"
    async with (
        writer_of(arena.database.url, symbol, f"BESIDE{symbol}") as writer,
        paired(address_of(arena.proxies[0]), "1s", "2s", "1m", symbol=symbol, grace_ms=GRACE_MS) as pair,
    ):
        for event in course:
            await happens(arena, pair, writer, event)
        await writer.commit(writer.trade(symbol))
        await pair.holds(writer)
