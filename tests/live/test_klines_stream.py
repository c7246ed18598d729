"""`/ws/klines/{token}/{interval}`: the open bar, each bar closed exactly once, revisions."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from klines.models import Trade
from tests import oracle
from tests.application import serving, settings_for
from tests.live.streams import GRACE_MS, Chart, Message, Row, Stream, klines, post, transactions, wire
from tests.servers import Database
from tests.storage.bars import retire

OLD = 1_700_000_100_000  # 2023-11-14T22:15:00Z, a whole quarter of an hour
BAR_KINDS = {"kline", "revision"}


def trade(number: int, time_ms: int, price: str = "0.00005") -> Trade:
    """A trade of its own at a time in milliseconds."""
    return Trade("PEPE", number, time_ms * 1000, price, f"{number % 5 + 1}.25", "buy" if number % 3 else "sell")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def far_ahead() -> int:
    """The second half a minute from now: its bar stays open as long as any test lasts."""
    return now_ms() // 1000 * 1000 + 30_000


def just_ahead() -> int:
    """A second that begins in one to two seconds: time to look at its open bar before it closes."""
    return now_ms() // 1000 * 1000 + 2_000


def folded(interval: str, *trades: Trade) -> dict[int, oracle.Bar]:
    return oracle.fold(trades, interval)


async def shows(stream: Stream[Chart], *trades: Trade) -> None:
    """Wait until the chart holds the bars of these trades, and nothing else."""
    expected = folded(stream.log.interval, *trades)
    await stream.until(lambda chart: chart.oracle_bars() == expected)


async def closes(stream: Stream[Chart], *opened: int) -> None:
    """Wait until the stream has told these bars, and no other, to be closed."""
    await stream.until(lambda chart: chart.closings == list(opened))


async def rest(client: httpx.AsyncClient, interval: str, limit: int) -> list[Row]:
    answer = await client.get(f"/api/v1/klines/PEPE?interval={interval}&limit={limit}")
    rows: list[Row] = answer.json()["klines"]
    return rows


@asynccontextmanager
async def another(database: Database, **changes: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one more service on this database."""
    async with (
        serving(settings_for(database, **changes)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield client


@pytest.mark.parametrize("interval", ["1s", "15m", "45s", "90m", "1w"])
async def test_the_snapshot_is_what_rest_says(client: httpx.AsyncClient, interval: str) -> None:
    width = oracle.seconds(interval) * 1000
    trades = [trade(n, OLD + n // 2 * width, f"0.0000{n + 1}") for n in (0, 1, 2, 3, 4, 8, 9, 12)]
    await post(client, *trades, trade(20, far_ahead()))
    rows = await rest(client, interval, 100)
    queries: list[dict[str, Any]] = [{"history": 0}, {}, {"history": 1}, {"history": 5}, {"history": 1000}]
    for query in queries:
        async with klines(client, Chart(interval), **query) as stream:
            assert (stream.snapshot["symbol"], stream.snapshot["interval"]) == ("PEPE", interval)
            history = query.get("history", 1)
            assert stream.snapshot["klines"] == (rows[-history:] if history else []), query


async def test_a_token_without_trades_has_an_empty_snapshot(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/tokens/PEPE", json={})
    async with klines(client, Chart("1s"), history=5) as stream:
        assert stream.snapshot["klines"] == []
        first = trade(1, far_ahead())
        await post(client, first)
        await shows(stream, first)


async def test_the_open_bar_moves_with_every_commit(client: httpx.AsyncClient) -> None:
    opened = far_ahead()
    trades = [trade(n, opened + n * 7 % 900, f"0.000{(n * 37) % 90 + 10}") for n in range(12)]
    await post(client, trades[0])
    async with klines(client, Chart("1s"), symbol="pepe") as stream:
        await shows(stream, trades[0])
        for number in range(1, 12):
            await post(client, trades[number])
            await shows(stream, *trades[: number + 1])
        assert stream.log.bars[opened] == (await rest(client, "1s", 1))[0]
        assert {message["type"] for message in stream.messages[1:]} == {"kline"}
        assert stream.log.closings == []


async def test_other_tokens_and_repeated_trades_move_nothing(client: httpx.AsyncClient) -> None:
    opened = far_ahead()
    await post(client, trade(1, opened))
    async with klines(client, Chart("1m")) as stream:
        await post(client, trade(1, opened)._replace(symbol="WIF"))
        again = [trade(1, opened)._asdict(), trade(1, opened, "9")._asdict()]
        await client.post("/api/v1/trades", json={"trades": again})
        await post(client, trade(2, opened))
        message = await stream.next()
        assert message["kline"]["trades"] == 2


async def test_a_bar_is_told_once_in_a_while_and_in_its_newest_state(plain: Database) -> None:
    opened = far_ahead()
    async with another(plain, klines_push_interval=400) as client:
        await post(client, trade(0, opened))
        async with klines(client, Chart("1s")) as stream:
            begun = time.monotonic()
            for number in range(1, 60):
                await post(client, trade(number, opened + number))
            await shows(stream, *(trade(number, opened + number) for number in range(60)))
            # The first is told at once, then one per interval.
            assert len(stream.messages) - 1 <= 2 + (time.monotonic() - begun) / 0.4


async def test_the_first_change_does_not_wait_for_others(plain: Database) -> None:
    async with another(plain, klines_push_interval=10_000) as client:
        await post(client, trade(0, far_ahead()))
        async with klines(client, Chart("1s")) as stream:
            await post(client, trade(1, far_ahead()))
            await stream.next("kline", deadline=5)


async def test_a_push_does_not_come_before_its_time(plain: Database) -> None:
    opened = far_ahead()
    async with another(plain, klines_push_interval=3_000) as client:
        await post(client, trade(0, opened))
        async with klines(client, Chart("1h")) as stream:
            await post(client, trade(1, opened))
            await stream.next("kline")
            pushed = time.monotonic()
            await post(client, trade(2, opened))
            await stream.next("kline")
            assert time.monotonic() - pushed > 2.5


async def test_what_a_snapshot_shows_is_not_told_again(plain: Database) -> None:
    opened = far_ahead()
    trades = [trade(n, at) for n, at in enumerate((OLD, opened, opened + 1, OLD + 1))]
    async with another(plain, klines_push_interval=1_500) as client:
        await post(client, trades[0])
        async with klines(client, Chart("1s"), history=10) as watching:
            await post(client, trades[1])
            await shows(watching, *trades[:2])
            # These wait for their push.
            await post(client, *trades[2:])
            async with klines(client, Chart("1s"), history=10) as stream:
                assert stream.log.oracle_bars() == folded("1s", *trades)
                await shows(watching, *trades)
                trades.append(trade(9, opened + 2))
                await post(client, trades[-1])
                await shows(stream, *trades)
                assert kinds(stream) == ["snapshot", "kline"]


async def test_clients_that_join_under_load_end_with_the_same_bars(client: httpx.AsyncClient) -> None:
    chance = random.Random(3)  # noqa: S311 - a test's own market
    opened = far_ahead()
    moments = [chance.choice((opened, opened + 1_000, OLD, OLD + 1_000, OLD + 9_000)) for _ in range(150)]
    trades = [trade(n, at + n) for n, at in enumerate(moments)]
    await post(client, trades[0])
    async with AsyncExitStack() as stack:
        streams = []
        for first in range(1, 150, 3):
            await post(client, *trades[first : first + 3])
            if first % 9 == 1:
                streams.append(await stack.enter_async_context(klines(client, Chart("1s"), history=10)))
        marker = trade(999, opened + 5_000)
        await post(client, marker)
        for stream in streams:
            await shows(stream, *trades, marker)


async def test_the_last_state_of_every_bucket_is_the_fold_of_its_trades(client: httpx.AsyncClient) -> None:
    chance = random.Random(7)  # noqa: S311 - a test's own market
    recent = now_ms()
    moments = [recent - chance.randrange(90_000_000) for _ in range(150)]
    moments += [recent - chance.randrange(5_000) for _ in range(150)]
    moments += [OLD + chance.randrange(600_000) for _ in range(100)]
    trades = [trade(n, moment, f"0.00{chance.randrange(10, 99)}") for n, moment in enumerate(moments)]
    chance.shuffle(trades)
    await client.put("/api/v1/tokens/PEPE", json={})
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(klines(client, Chart(interval), history=1000))
            for interval in (*oracle.SECONDS, *oracle.MADE)
        ]
        for first in range(0, len(trades), 20):
            await post(client, *trades[first : first + 20])
        for stream in streams:
            await shows(stream, *trades)
            over = (now_ms() - GRACE_MS) // 1000 * 1000 - oracle.seconds(stream.log.interval) * 1000
            await stream.until(lambda chart, over=over: all(at in chart.closed for at in chart.bars if at <= over))  # type: ignore[misc]


async def test_a_bar_closes_by_the_clock_once_for_everyone(client: httpx.AsyncClient) -> None:
    opened = just_ahead()
    last = trade(3, opened + 999)
    bar = [trade(1, opened), trade(2, opened + 500), last]
    await post(client, trade(0, OLD))
    async with AsyncExitStack() as stack:
        early = await stack.enter_async_context(klines(client, Chart("1s"), history=5))
        await post(client, bar[0])
        await shows(early, trade(0, OLD), bar[0])
        async with klines(client, Chart("1s")) as left:
            cursor = left.cursor
        middle = await stack.enter_async_context(klines(client, Chart("1s")))
        assert [row["closed"] for row in middle.snapshot["klines"]] == [False]
        await post(client, *bar[1:])
        late = await stack.enter_async_context(klines(client, Chart("1s"), history=1))
        assert [(row["trades"], row["closed"]) for row in late.snapshot["klines"]] == [(3, False)]
        back = await stack.enter_async_context(klines(client, left.log, cursor=cursor))
        told = [early, middle, late, back]
        for stream in told:
            await closes(stream, opened)
        after = await stack.enter_async_context(klines(client, Chart("1s")))
        assert [(row["trades"], row["closed"]) for row in after.snapshot["klines"]] == [(3, True)]
        # A trade for the closed bar, and then one that shows that nothing more came of it.
        revised = [*bar, trade(4, opened + 250, "0.9")]
        await post(client, revised[-1])
        revisions = [await stream.next("revision") for stream in (*told, after)]
        assert [message["kline"] for message in revisions] == [after.log.bars[opened]] * 5
        marker = trade(5, far_ahead())
        await post(client, marker)
        for stream in (middle, late, back, after):
            await shows(stream, *revised, marker)
        await shows(early, trade(0, OLD), *revised, marker)
        assert [stream.log.closings for stream in (*told, after)] == [[opened]] * 4 + [[]]
        assert [kinds(stream).count("revision") for stream in (*told, after)] == [1] * 5


def kinds(stream: Stream[Chart]) -> list[str]:
    return [message["type"] for message in stream.messages]


async def test_whoever_joins_while_a_bar_closes_is_told_once(plain_client: httpx.AsyncClient) -> None:
    made = trade(1, now_ms())
    opened = made.time_us // 1_000_000 * 1000
    await post(plain_client, made)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(klines(plain_client, Chart("1s")))]
        while streams[-1].log.closed == set() and len(streams) < 1_000:
            streams.append(await stack.enter_async_context(klines(plain_client, Chart("1s"))))
        await post(plain_client, trade(2, far_ahead()))
        for stream in streams:
            await stream.until(lambda chart: len(chart.bars) == 2)
            shown = stream.snapshot["klines"][0]["closed"]
            assert stream.log.closings == ([] if shown else [opened])


@pytest.mark.parametrize("interval", ["1s", "2s"])
async def test_a_bar_of_now_closes_after_its_end_and_the_grace(database: Database, interval: str) -> None:
    async with another(database, klines_close_grace=900) as client:
        await client.put("/api/v1/tokens/PEPE", json={})
        async with klines(client, Chart(interval, grace_ms=900, quiet=True)) as stream:
            made = trade(1, now_ms())
            await post(client, made)
            await closes(stream, oracle.opens(interval, made.time_us) // 1000)
            await shows(stream, made)


async def test_a_trade_in_the_grace_still_counts_before_the_close(plain: Database) -> None:
    async with another(plain, klines_close_grace=3_000) as client:
        opened = now_ms() // 1000 * 1000 - 1_000
        await post(client, trade(1, opened))
        async with klines(client, Chart("1s", grace_ms=3_000, quiet=True)) as stream:
            assert [row["closed"] for row in stream.snapshot["klines"]] == [False]
            await post(client, trade(2, opened + 1))
            await closes(stream, opened)
            assert kinds(stream) == ["snapshot", "kline", "kline"]
            await shows(stream, trade(1, opened), trade(2, opened + 1))


async def test_a_trade_of_the_next_bar_closes_the_one_before_and_before_it_is_told(plain: Database) -> None:
    opened = now_ms() // 1000 * 1000 - 5_000
    trades = [trade(1, opened), trade(2, opened + 1_000)]
    async with another(plain, klines_close_grace=60_000) as client, another(plain) as elsewhere:
        await post(client, trades[0])
        async with klines(client, Chart("1s")) as stream:
            assert [row["closed"] for row in stream.snapshot["klines"]] == [False]
            await post(client, trades[1])
            await shows(stream, *trades)
            told = [(row["open_time"], row["closed"]) for row in (message["kline"] for message in stream.messages[1:])]
            assert told == [(opened, True), (opened + 1_000, False)], "a chart takes no bar older than its newest"
            trades.append(trade(3, opened + 5))
            await post(client, trades[2])
            await shows(stream, *trades)
            assert kinds(stream)[-1] == "revision"
        # A process that waits for less has closed the second one too, and tells it, and nothing twice.
        async with klines(elsewhere, stream.log, cursor=stream.cursor) as back:
            await closes(back, opened, opened + 1_000)
            assert back.snapshot["recovered"] is True
        async with klines(client, stream.log, cursor=back.cursor) as again:
            assert again.snapshot["recovered"] is True
            trades.append(trade(4, now_ms()))
            await post(client, trades[3])
            await shows(again, *trades)


async def test_late_trades_revise_what_was_told_closed(client: httpx.AsyncClient) -> None:
    trades = [trade(n, OLD + n * 60_000) for n in (0, 1, 3)]
    await post(client, *trades)
    async with klines(client, Chart("1m"), history=10) as stream, klines(client, Chart("1m"), history=0) as blind:
        trades.append(trade(10, OLD + 60_500, "7"))
        await post(client, trades[-1])
        message = await stream.next()
        assert (message["type"], message["kline"]["high"], message["kline"]["closed"]) == ("revision", "7", True)
        await shows(stream, *trades)
        assert (await blind.next())["type"] == "revision"
        trades += [trade(11, OLD + 100, "0.1"), trade(12, OLD + 180_100, "0.2")]
        await post(client, *trades[-2:])
        await shows(stream, *trades)
        assert kinds(stream) == ["snapshot"] + ["revision"] * 3
        assert [row for row in stream.log.bars.values() if row["open_time"] != OLD] == (await rest(client, "1m", 2))


async def test_a_large_commit_is_told_once_per_bar(plain_client: httpx.AsyncClient) -> None:
    opened = far_ahead()
    trades = [trade(0, OLD), trade(1, opened)]
    await post(plain_client, *trades)
    async with klines(plain_client, Chart("1s"), history=10) as stream:
        begin = list(stream.messages)
        trades += [trade(n, (OLD, opened, OLD + 1_000)[n % 3] + n % 900) for n in range(10, 3_010)]
        await post(plain_client, *trades[2:])
        trades.append(trade(5_000, opened + 1_000))
        await post(plain_client, trades[-1])
        await shows(stream, *trades)
        finals = [message for message in stream.messages[1:] if message.get("kline", {}).get("closed")]
        assert len(finals) == 2
    async with klines(plain_client, Chart("1s").after(begin), cursor=begin[-1]["cursor"]) as back:
        assert back.snapshot["recovered"] is True
        await shows(back, *trades)


async def test_a_late_trade_of_an_empty_bucket_tells_its_bar_once_and_closed(client: httpx.AsyncClient) -> None:
    trades = [trade(n, OLD + n * 60_000) for n in (0, 2)]
    await post(client, *trades)
    async with klines(client, Chart("1m"), history=10) as stream:
        trades += [trade(1, OLD + 60_000), trade(3, far_ahead())]
        await post(client, trades[2])
        message = await stream.next()
        assert message["type"] in BAR_KINDS
        assert (message["kline"]["open_time"], message["kline"]["closed"]) == (OLD + 60_000, True)
        await post(client, trades[3])
        await shows(stream, *trades)
        assert len(stream.messages) == 3


async def eventful(client: httpx.AsyncClient, stream: Stream[Chart]) -> None:
    """Everything that can happen to bars: they open, move, close, are revised, one after another."""
    opened = just_ahead()
    await post(client, trade(1, opened))
    await post(client, trade(2, opened + 1), trade(3, OLD + 1))
    await stream.until(lambda chart: opened in chart.bars and chart.bars[opened]["trades"] == 2)
    await post(client, trade(4, OLD + 1_000), trade(5, OLD + 2), trade(6, opened + 1_000))
    await stream.until(lambda chart: chart.closings[-1:] == [opened])
    await post(client, trade(7, opened + 2), trade(8, opened + 1_001))
    await stream.until(lambda chart: chart.bars[opened]["trades"] == 3)
    await stream.until(lambda chart: chart.closings[-1:] == [opened + 1_000])
    await post(client, trade(9, opened + 1_002), trade(10, far_ahead()))
    await stream.until(lambda chart: chart.bars[opened + 1_000]["trades"] == 3)


async def resumed(client: httpx.AsyncClient, messages: list[Message], marker: Trade, final: Chart) -> None:
    """Come back with the cursor of the last of these messages, and stay until the marker."""
    chart = Chart("1s").after(messages)
    async with klines(client, chart, cursor=messages[-1]["cursor"], history=5) as stream:
        assert stream.snapshot["recovered"] is True
        await stream.until(lambda chart: marker.time_us // 1000 in chart.bars and chart.bars == final.bars)
        assert chart.closed == final.closed
        assert sorted(chart.closings) == sorted(final.closings)


async def test_every_cursor_ever_seen_leads_to_the_same_end(client: httpx.AsyncClient, database: Database) -> None:
    await post(client, trade(0, OLD))
    marker = trade(99, far_ahead() + 10_000)
    async with another(database) as second, klines(client, Chart("1s"), history=5) as whole:
        await eventful(client, whole)
        seen = list(whole.messages)
        coming_back = [
            asyncio.create_task(resumed(service, seen[: n + 1], marker, whole.log))
            for service in (client, second)
            for n in range(len(seen))
        ]
        await post(client, marker)
        await whole.until(lambda chart: marker.time_us // 1000 in chart.bars)
        await asyncio.gather(*coming_back)
        assert {"kline", "revision"} <= set(kinds(whole))
        assert len(whole.log.closings) >= 2


async def test_who_leaves_while_catching_up_goes_on_there(plain_client: httpx.AsyncClient) -> None:
    client = plain_client
    await post(client, trade(0, OLD))
    async with klines(client, Chart("1s"), history=5) as whole:
        begin = list(whole.messages)
        await eventful(client, whole)
        async with klines(client, Chart("1s").after(begin), cursor=begin[-1]["cursor"]) as stream:
            assert stream.snapshot["recovered"] is True
            await stream.until(lambda chart: chart.bars == whole.log.bars)
            replayed = list(stream.messages)
        assert stream.log.closed == whole.log.closed
        for n in range(len(replayed)):
            chart = Chart("1s").after([*begin, *replayed[: n + 1]])
            async with klines(client, chart, cursor=replayed[n]["cursor"]) as stream:
                await stream.until(lambda chart: chart.bars == whole.log.bars)
                assert stream.log.closed == whole.log.closed


async def test_a_swept_tape_makes_a_fresh_snapshot(client: httpx.AsyncClient, database: Database) -> None:
    await post(client, *(trade(n, OLD + n * 1000) for n in range(3)))
    async with klines(client, Chart("1s"), history=5) as stream:
        cursor = stream.cursor
    await post(client, trade(3, OLD + 500))
    connection = await asyncpg.connect(database.url)
    await connection.execute("DELETE FROM klines_internal.tape")
    await connection.close()
    async with another(database) as fresh, klines(fresh, Chart("1s"), history=3, cursor=cursor) as stream:
        assert stream.snapshot["recovered"] is False
        assert stream.snapshot["klines"] == await rest(client, "1s", 3)
        await post(client, trade(4, OLD + 600))
        assert (await stream.next())["type"] == "revision"


@pytest.mark.parametrize("interval", ["1s", "7s"])
async def test_a_late_trade_reaches_a_bar_that_has_retired(timescale: Database, interval: str) -> None:
    opened = now_ms() // 1000 * 1000 - 5 * 3_600_000
    trades = [trade(n, opened + n * 1000) for n in range(4)] + [trade(n, now_ms() - 60_000 + n) for n in (4, 5)]
    connection: asyncpg.Connection[Any] = await asyncpg.connect(timescale.url)
    async with another(timescale) as client:
        await post(client, *trades)
        async with klines(client, Chart(interval), history=50) as before:
            cursor = before.cursor
            await retire(connection, "1 hour")
            live = "SELECT count(*) FROM klines_internal.live_klines WHERE seconds = 1"
            assert await connection.fetchval(f"{live} AND time < now() - INTERVAL '1 hour'") == 0, "it did not retire"
            async with klines(client, Chart(interval), history=50) as stream:
                assert stream.snapshot["klines"] == before.snapshot["klines"]
                trades.append(trade(9, opened + 1_500, "3"))
                await post(client, trades[-1])
                for each in (stream, before):
                    message = await each.next("revision")
                    assert message["kline"]["high"] == "3"
                    await shows(each, *trades)
        async with klines(client, Chart(interval).after(before.messages[:1]), cursor=cursor) as back:
            assert back.snapshot["recovered"] is True
            await shows(back, *trades)
    await connection.close()


async def test_silence_is_filled_with_heartbeats_that_can_be_resumed_from(plain_client: httpx.AsyncClient) -> None:
    opened = far_ahead()
    await post(plain_client, trade(0, opened))
    async with klines(plain_client, Chart("1m")) as bars, transactions(plain_client) as trades:
        heartbeats = await asyncio.gather(bars.next(deadline=6), trades.next(deadline=6))
        for message in heartbeats:
            assert (message["type"], message["feed"]) == ("heartbeat", "live")
            assert abs(message["server_time"] - now_ms()) < 1_000
        seen = list(bars.messages)
    await post(plain_client, trade(1, opened + 1))
    async with klines(plain_client, Chart("1m").after(seen), cursor=heartbeats[0]["cursor"]) as back:
        assert back.snapshot["recovered"] is True
        await shows(back, trade(0, opened), trade(1, opened + 1))
    async with transactions(plain_client, cursor=heartbeats[1]["cursor"]) as beside:
        assert beside.snapshot["recovered"] is True
        assert (await beside.next("trades"))["trades"] == wire(trade(1, opened + 1))
