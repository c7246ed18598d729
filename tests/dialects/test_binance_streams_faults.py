"""Binance's streams over faults, and clients that are slow: no trade lost or told twice, no bar closed twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest

from klines import migrations
from klines.hub import Hub
from klines.web.binance.streams import market
from tests.application import serving, settings_for
from tests.dialects.binance_streams import Client, as_filled, ids, joined
from tests.live.followers import PROMISED, TERMINATE, WATCHED, Writer, poll, running, writer_of
from tests.live.power import Power
from tests.live.proxy import Proxy, through, upstream_of
from tests.live.streams import post
from tests.live.test_slow_clients import TOO_SLOW, burst, stalled
from tests.servers import Database, reachable_directory

RESTART = 1012
NAMES = "pepe@trade/pepe@aggTrade/pepe@kline_1s/pepe@kline_1m"


class Scene(NamedTuple):
    """A service and a client of it, and who commits into its database."""

    client: httpx.AsyncClient
    writer: Writer


@asynccontextmanager
async def staged(database: Database) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(database)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
        yield Scene(client, await stack.enter_async_context(writer_of(database.url)))


@pytest.fixture
async def scene(plain: Database) -> AsyncIterator[Scene]:
    async with staged(plain) as scene:
        yield scene


@pytest.fixture
async def psql(plain: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of someone who may do anything."""
    connection = await asyncpg.connect(plain.url)
    yield connection
    await connection.close()


async def holds(client: Client, writer: Writer) -> None:
    """It was told every commit once, and in its order."""
    committed = ids(writer.committed[WATCHED])
    await client.until(lambda: len(client.of("aggTrade")) >= len(committed))
    assert client.trade_ids() == committed
    assert [event["a"] for event in client.of("aggTrade")] == committed


async def more(client: Client, writer: Writer, count: int = 10) -> None:
    """Wait until so many more trades were committed and told."""
    wanted = writer.count + count
    await client.until(lambda: len(client.trade_ids()) >= wanted, deadline=30)


async def test_terminated_listeners_lose_nothing(scene: Scene, psql: asyncpg.Connection[Any]) -> None:
    async with joined(scene.client, f"/ws/{NAMES}") as client:
        async with running(scene.writer):
            for _ in range(5):
                await more(client, scene.writer)
                await poll(lambda: psql.fetch(TERMINATE, "klines listener"), PROMISED)
                count = scene.writer.count
                await client.until(lambda count=count: len(client.trade_ids()) > count, PROMISED)  # type: ignore[misc]
        await holds(client, scene.writer)
        assert len(client.closed["PEPE", "1s"]) >= 1


async def test_restarts_of_the_database_lose_nothing() -> None:
    with reachable_directory() as directory:
        power = Power(directory)
        try:
            database = Database(await power.on(), "plain")
            await migrations.upgrade(database.url, "plain")
            async with staged(database) as scene, joined(scene.client, f"/stream?streams={NAMES}") as client:
                async with running(scene.writer):
                    for stop in (power.off, power.crash):
                        await more(client, scene.writer)
                        await stop()
                        answer = await refused_subscription(client)
                        assert answer["error"]["code"] == -1001
                        assert await power.on() == database.url
                        await more(client, scene.writer)
                await holds(client, scene.writer)
                closed = client.closed["PEPE", "1s"]
                await client.until(lambda: closed[-1]["n"] == 0)
        finally:
            await power.off()


async def test_no_bar_is_closed_while_nobody_knows_its_trades(plain: Database) -> None:
    """The database is away for the service, and not for who commits."""
    with Proxy(upstream_of(plain.url)) as away:
        async with (
            staged(Database(through(away, plain.url), "plain")) as scene,
            writer_of(plain.url, WATCHED, "OTHER") as writer,
            joined(scene.client, "/ws/pepe@trade/pepe@kline_1s") as client,
        ):
            closed = client.closed["PEPE", "1s"]
            for _ in range(2):
                await writer.commit(writer.trade(WATCHED))
                away.refuse()
                away.cut()
                while time.time_ns() // 1000 < writer.committed[WATCHED][-1].time_us + 2_000_000:
                    await writer.commit(writer.trade("OTHER"))
                await writer.commit(writer.trade(WATCHED))
                away.restore()
                await client.until(lambda: client.trade_ids() == ids(writer.committed[WATCHED]))
            count = len(closed) + 2
            await client.until(lambda: len(closed) >= count)
            await as_filled(scene.client, closed, "1s")
            assert len(closed) >= 5


async def refused_subscription(client: Client) -> dict[str, Any]:
    """Ask for a stream until the service notices that the database is away."""
    answers: list[dict[str, Any]] = []

    async def refused() -> bool:
        await client.ask("UNSUBSCRIBE", "pepe@kline_1h")
        answers.append(await client.ask("SUBSCRIBE", "pepe@kline_1h"))
        # At most as often as a client may ask.
        heard = len(client.events)
        return "error" in answers[-1] or await passed(client, heard)

    await poll(refused)
    return answers[-1]


async def passed(client: Client, heard: int) -> bool:
    """Wait a moment, or for events."""
    try:
        await client.until(lambda: len(client.events) > heard + 10, deadline=0.5)
    except AssertionError:
        client.check()
    return False


@pytest.fixture
def insight(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Hub, market.Market]]:
    """The hub of the native streams and the market of each service that starts."""
    seen = []

    @asynccontextmanager
    async def opened(relay: Any, hub: Hub, *others: Any) -> AsyncIterator[market.Market]:
        async with market.open_market(relay, hub, *others) as one:
            seen.append((hub, one))
            yield one

    monkeypatch.setattr("klines.app.open_market", opened)
    return seen


async def test_a_native_stream_that_is_closed_is_continued(
    insight: list[tuple[Hub, market.Market]], scene: Scene
) -> None:
    ((hub, _),) = insight
    async with joined(scene.client, f"/ws/{NAMES}") as client:
        async with running(scene.writer):
            for code in (RESTART, TOO_SLOW) * 3:
                await more(client, scene.writer)
                await client.until(lambda: len(hub.topics()) == 3)
                for topic in hub.topics():
                    hub.close_topic(topic, code, "for a test")
            await more(client, scene.writer)
        await holds(client, scene.writer)
        closed = client.closed["PEPE", "1s"]
        await client.until(lambda: len(closed) >= 4)


async def test_a_stream_that_cannot_be_continued_closes_who_watches_it(scene: Scene, plain: Database) -> None:
    async with joined(scene.client, f"/ws/{NAMES}") as client, joined(scene.client) as other:
        await scene.writer.commit(scene.writer.trade(WATCHED))
        await client.until(lambda: client.trade_ids() == [1])
        await other.ask("LIST_SUBSCRIPTIONS")
        connection = await asyncpg.connect(plain.url)
        await connection.execute("UPDATE klines_internal.epoch SET epoch = 'aaaaaaaaaaaa'")
        await connection.execute(TERMINATE, "klines%")
        await connection.close()
        assert await client.ended() == RESTART
        assert (await other.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_one_native_stream_serves_all_and_ends_with_the_last(
    insight: list[tuple[Hub, market.Market]], scene: Scene
) -> None:
    ((hub, opened),) = insight
    async with joined(scene.client, "/ws/pepe@trade") as first, joined(scene.client, "/ws/pepe@aggTrade") as second:
        await second.subscribe("pepe@kline_1s", "pepe@trade", "pepe@ticker")
        assert (len(hub), len(opened.hub)) == (2, 2)
        await second.ask("UNSUBSCRIBE", "pepe@kline_1s")
        assert len(hub) == 1
        minutes = [f"pepe@kline_{number}m" for number in range(1, 21)]
        assert "error" in await second.ask("SUBSCRIBE", *minutes, "nobody@trade")
        assert len(hub) == 1
        await first.leave()
        await scene.writer.commit(scene.writer.trade(WATCHED))
        await second.until(lambda: second.trade_ids() == [1])
        assert (len(hub), len(opened.hub)) == (1, 1)

    async def empty() -> bool:
        return not len(hub) and not len(opened.hub)

    await poll(empty, PROMISED)


async def test_who_does_not_read_is_closed_and_nobody_else(scene: Scene) -> None:
    async with joined(scene.client, "/ws/pepe@trade") as reader:
        async with stalled(str(scene.client.base_url).rstrip("/"), "/ws/pepe@trade") as connection:
            for _ in range(4):
                await burst(scene.writer, 1500)
                count = scene.writer.count
                await reader.until(lambda count=count: len(reader.trade_ids()) >= count)  # type: ignore[misc]
            connection.transport.resume_reading()
            slow = Client(connection)
            assert await slow.ended() == TOO_SLOW
            assert slow.trade_ids() == ids(scene.writer.committed[WATCHED])[: len(slow.trade_ids())]
        assert reader.trade_ids() == ids(scene.writer.committed[WATCHED])


async def test_a_burst_closes_nobody_who_reads(scene: Scene) -> None:
    async with joined(scene.client, f"/stream?streams={NAMES}") as client:
        await post(scene.client, *(scene.writer.trade(WATCHED) for _ in range(10_000)))
        await client.until(lambda: len(client.trade_ids()) == len(client.of("aggTrade")) == 10_000)
        assert client.trade_ids() == list(range(1, 10_001))


async def test_a_slow_reader_gets_the_newest_bar(scene: Scene) -> None:
    url, writer = str(scene.client.base_url).rstrip("/"), scene.writer
    # So many that the buffers on the way do not hold what is told within the time that a stuck client has.
    target = "/ws/" + "/".join(f"pepe@kline_{interval}" for interval in ("1m", "5m", "15m", "1h", "4h", "1d") * 2)
    async with joined(scene.client, target) as reader, stalled(url, target) as connection:
        for count in range(1, 151):
            await writer.commit(writer.trade(WATCHED))
            await reader.until(lambda count=count: told(reader, "1d") == told(reader, "4h") == count)  # type: ignore[misc]
        connection.transport.resume_reading()
        slow = Client(connection)
        await slow.until(lambda: told(slow, "1d") == told(slow, "4h") == 150)
        assert len(slow.events) < len(reader.events) - 100


def told(client: Client, interval: str) -> int:
    """How many trades the newest bar has."""
    bars = [event["k"] for event in client.of("kline")[-20:] if event["k"]["i"] == interval]
    return int(bars[-1]["n"]) if bars else 0


async def test_who_does_not_read_is_closed_for_that_alone(
    insight: list[tuple[Hub, market.Market]], scene: Scene
) -> None:
    ((_, opened),) = insight
    async with stalled(str(scene.client.base_url).rstrip("/"), "/ws/pepe@trade") as connection:
        await burst(scene.writer, 1500)

        async def empty() -> bool:
            return not len(opened.hub)

        await poll(empty, PROMISED + 5)
        connection.transport.resume_reading()
        slow = Client(connection)
        assert await slow.ended() == TOO_SLOW
        assert "nothing was read" in (connection.close_reason or "")


async def test_a_stuck_connection_is_not_waited_for(scene: Scene) -> None:
    """Requests whose answers nobody takes are not read on."""
    async with stalled(str(scene.client.base_url).rstrip("/"), "/ws/pepe@trade") as connection:
        await asyncio.gather(*(connection.send('{"method":"LIST_SUBSCRIPTIONS","id":1}') for _ in range(100)))
        connection.transport.resume_reading()
        assert await Client(connection).ended() == 1008
