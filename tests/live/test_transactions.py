"""`/ws/transactions/{token}`: every committed trade once, in commit order, over connections, services and writers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from klines.models import Trade
from klines.timestamp import to_datetime
from tests.application import serving, settings_for
from tests.live.streams import Row, Stream, Tape, post, transactions, wire
from tests.servers import Database, Server

US = 1_700_000_100_000_000
INSERT = "INSERT INTO trades (token_id, trade_id, time, price, amount, side) VALUES "


def trade(number: int, *, symbol: str = "PEPE", time_us: int | None = None) -> Trade:
    """A trade of its own; by default later numbers are later in time."""
    at = US + number * 1_000 if time_us is None else time_us
    return Trade(symbol, number, at, f"0.0000{number % 7 + 1}", f"{number % 5 + 1}.5", "buy" if number % 3 else "sell")


def tape(first: int, last: int, **changes: Any) -> list[Trade]:
    """The trades from `first` up to, not including, `last`."""
    return [trade(number, **changes) for number in range(first, last)]


async def told(stream: Stream[Tape], *trades: Trade) -> None:
    """Wait until the stream has told at least as many trades; they must be these, in this order."""
    await stream.until(lambda log: len(log.trades) >= len(trades))
    assert stream.log.trades == wire(*trades)


async def token_id(connection: asyncpg.Connection[Any], symbol: str) -> int:
    found: int = await connection.fetchval("SELECT token_id FROM tokens WHERE symbol = $1", symbol)
    return found


def values(token: int, *trades: Trade) -> str:
    """The trades as the rows of an INSERT."""
    return ", ".join(
        f"({token}, {one.trade_id}, '{to_datetime(one.time_us)}', {one.price}, {one.amount}, '{one.side}')"
        for one in trades
    )


@pytest.fixture
async def psql(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of someone who writes SQL."""
    connection = await asyncpg.connect(database.url)
    yield connection
    await connection.close()


@asynccontextmanager
async def another(database: Database, **changes: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one more service on this database."""
    async with serving(settings_for(database, **changes)) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def test_the_snapshot_holds_the_latest_trades_that_were_asked_for(client: httpx.AsyncClient) -> None:
    await post(client, *tape(0, 7))
    asked: list[tuple[dict[str, Any], list[Trade]]] = [
        ({}, []),
        ({"history": 0}, []),
        ({"history": 3}, tape(4, 7)),
        ({"history": 7}, tape(0, 7)),
        ({"history": 1000}, tape(0, 7)),
    ]
    for query, expected in asked:
        async with transactions(client, **query) as stream:
            assert stream.snapshot["symbol"] == "PEPE"
            assert stream.snapshot["trades"] == wire(*expected), query
    rest = await client.get("/api/v1/trades/PEPE?limit=3")
    assert rest.json()["trades"] == wire(*tape(4, 7))


async def test_history_is_told_of_a_token_that_is_quiet_for_long(
    client: httpx.AsyncClient, psql: asyncpg.Connection[Any]
) -> None:
    await post(client, *tape(0, 7))
    await psql.execute("DELETE FROM klines_internal.tape")
    async with transactions(client, history=3) as stream:
        assert stream.snapshot["trades"] == wire(*tape(4, 7))
        await post(client, trade(7))
        await told(stream, *tape(4, 8))


async def test_a_token_without_trades_has_an_empty_snapshot(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/tokens/PEPE", json={})
    async with transactions(client, history=10) as stream:
        assert stream.snapshot["trades"] == []
        await post(client, trade(0))
        await told(stream, trade(0))


async def test_a_snapshot_shows_what_was_acknowledged_before_and_the_stream_the_rest(plain: Database) -> None:
    async with another(plain, klines_push_interval=1_500) as client:
        await post(client, trade(0))
        async with transactions(client) as watching:
            await post(client, trade(1))
            await told(watching, trade(1))
            # This one waits for its push.
            await post(client, trade(2))
            async with transactions(client, history=10) as stream:
                assert stream.snapshot["trades"] == wire(*tape(0, 3))
                await told(watching, *tape(1, 3))
                await post(client, trade(3))
                await told(stream, *tape(0, 4))
                await told(watching, *tape(1, 4))


async def test_commits_keep_their_order_and_a_commit_is_ordered_by_time_and_id(client: httpx.AsyncClient) -> None:
    await post(client, trade(0))
    async with transactions(client) as stream:
        await post(client, *reversed(tape(10, 15)))
        tied = [trade(number, time_us=US + 50) for number in (3, 1, 2)]
        await post(client, *tied, trade(9, time_us=US + 49))
        await post(client, trade(4, time_us=US - 10**9))
        late = [trade(number, time_us=US + 50) for number in (1, 2, 3)]
        await told(stream, *tape(10, 15), trade(9, time_us=US + 49), *late, trade(4, time_us=US - 10**9))


async def test_the_same_id_at_another_time_is_another_trade(client: httpx.AsyncClient) -> None:
    await post(client, trade(0))
    async with transactions(client) as stream:
        again = [trade(0, time_us=US + n) for n in (1, 2)]
        await post(client, *again)
        await told(stream, *again)


async def test_an_insert_of_any_writer_is_told(client: httpx.AsyncClient, psql: asyncpg.Connection[Any]) -> None:
    await post(client, trade(0), trade(0, symbol="WIF"))
    pepe, wif = await token_id(psql, "PEPE"), await token_id(psql, "WIF")
    async with transactions(client) as first, transactions(client, symbol="WIF") as second:
        mixed = [values(wif, trade(2)), values(pepe, *tape(1, 3)), values(wif, trade(1))]
        await psql.execute(INSERT + ", ".join(mixed))
        async with psql.transaction():
            await psql.execute(INSERT + values(pepe, *reversed(tape(3, 6))))
            await psql.execute(INSERT + values(wif, trade(3)))
            await psql.execute(INSERT + values(pepe, *tape(6, 8)))
        await told(first, *tape(1, 8))
        await told(second, *tape(1, 4))
        assert {message["symbol"] for message in second.messages if "symbol" in message} == {"WIF"}


async def test_what_is_rolled_back_is_never_told(client: httpx.AsyncClient, psql: asyncpg.Connection[Any]) -> None:
    await post(client, trade(0))
    pepe = await token_id(psql, "PEPE")
    async with transactions(client) as stream:
        undone = psql.transaction()
        await undone.start()
        await psql.execute(INSERT + values(pepe, *tape(1, 4)))
        await undone.rollback()
        with pytest.raises(asyncpg.CheckViolationError):
            await psql.execute(INSERT + values(pepe, trade(4)) + ", " + values(pepe, trade(5)).replace("0.0000", "-"))
        await post(client, trade(6))
        await told(stream, trade(6))


async def test_nothing_is_told_before_its_commit(client: httpx.AsyncClient, psql: asyncpg.Connection[Any]) -> None:
    await post(client, trade(0), trade(0, symbol="WIF"))
    pepe = await token_id(psql, "PEPE")
    async with transactions(client) as stream, transactions(client, symbol="WIF") as other:
        async with psql.transaction():
            await psql.execute(INSERT + values(pepe, trade(1)))
            await post(client, trade(1, symbol="WIF"))
            await told(other, trade(1))
            async with transactions(client, history=5) as meanwhile:
                assert meanwhile.snapshot["trades"] == wire(trade(0))
                cursor = meanwhile.cursor
            assert stream.log.trades == []
        await told(stream, trade(1))
        async with transactions(client, cursor=cursor) as back:
            await told(back, trade(1))


async def test_duplicates_and_conflicts_are_not_told(client: httpx.AsyncClient) -> None:
    await post(client, *tape(0, 3))
    async with transactions(client) as stream:
        repeated = [one._asdict() for one in tape(0, 3)] + [trade(1)._asdict() | {"price": "9"}]
        answer = await client.post("/api/v1/trades", json={"trades": repeated})
        assert answer.json() == {"received": 4, "inserted": 0, "duplicates": 3, "conflicts": 1}
        mixed = [*repeated, trade(3)._asdict(), trade(3)._asdict() | {"amount": "9"}]
        await client.post("/api/v1/trades", json={"trades": mixed})
        await post(client, trade(4))
        await told(stream, *tape(3, 5))


async def test_ten_thousand_trades_of_one_commit_reach_a_reader(client: httpx.AsyncClient) -> None:
    await post(client, trade(0))
    async with transactions(client) as stream:
        await post(client, *tape(1, 10_001))
        await told(stream, *tape(1, 10_001))


async def test_symbols_are_compared_without_case_and_shown_in_upper_case(plain_client: httpx.AsyncClient) -> None:
    for number, (asked, shown) in enumerate(
        [("pepe", "PEPE"), ("$Wif:sol_x-1.2", "$WIF:SOL_X-1.2"), ("ñandú", "ñANDú")]
    ):
        await post(plain_client, trade(number, symbol=shown))
        async with transactions(plain_client, symbol=asked) as stream:
            await post(plain_client, trade(number + 10, symbol=asked))
            await told(stream, trade(number + 10))
            assert {message["symbol"] for message in stream.messages if "symbol" in message} == {shown}


async def write(client: httpx.AsyncClient, batches: list[list[Trade]]) -> None:
    await asyncio.gather(*(post(client, *batch) for batch in batches))


async def test_concurrent_writers_have_one_order_on_every_service(
    client: httpx.AsyncClient, database: Database
) -> None:
    await post(client, trade(0))
    chance = random.Random(1)  # noqa: S311 - a test's own shuffle
    trades = tape(1, 801)
    chance.shuffle(trades)
    batches = [trades[n : n + 20] for n in range(0, 800, 20)]
    async with (
        another(database) as second,
        transactions(client) as here,
        transactions(second) as there,
        transactions(second) as beside,
    ):
        await asyncio.gather(write(client, batches[::2]), write(second, batches[1::2]))
        for stream in (here, there, beside):
            await stream.until(lambda log: len(log.trades) >= 800)
        assert here.log.trades == there.log.trades == beside.log.trades
        assert sorted(row["trade_id"] for row in here.log.trades) == list(range(1, 801))
        ids = [row["trade_id"] for row in here.log.trades]
        for batch in batches:
            mine = {one.trade_id for one in batch}
            start = min(ids.index(number) for number in mine)
            assert ids[start : start + len(batch)] == sorted(mine), "a commit is told in one piece, in order"


async def test_a_client_that_comes_back_gets_exactly_what_it_missed(client: httpx.AsyncClient) -> None:
    await post(client, *tape(0, 3))
    log = Tape()
    async with transactions(client, log, history=2) as stream:
        await post(client, *tape(3, 6))
        await told(stream, *tape(1, 6))
        cursor = stream.cursor
    await post(client, *tape(6, 9))
    await post(client, *tape(9, 11))
    async with transactions(client, log, cursor=cursor, history=2) as stream:
        assert stream.snapshot["recovered"] is True
        await told(stream, *tape(1, 11))
        await post(client, trade(11))
        await told(stream, *tape(1, 12))


async def test_five_thousand_missed_trades_follow(client: httpx.AsyncClient) -> None:
    await post(client, trade(0))
    async with transactions(client) as stream:
        cursor = stream.cursor
    for first in range(1, 5001, 1250):
        await post(client, *tape(first, first + 1250))
    async with transactions(client, cursor=cursor) as stream:
        assert stream.snapshot["recovered"] is True
        await told(stream, *tape(1, 5001))


async def rest_after(client: httpx.AsyncClient, cursor: str, rows: list[Row]) -> list[Row]:
    """What a client with this cursor is told, until it is as much as it should be."""
    async with transactions(client, cursor=cursor) as stream:
        assert stream.snapshot["recovered"] is True
        await stream.until(lambda log: log.trades[-1:] == rows[-1:])
        return stream.log.trades


async def test_every_cursor_ever_seen_continues_right_after_it(client: httpx.AsyncClient, database: Database) -> None:
    await post(client, *tape(0, 2))
    async with transactions(client) as stream:
        for first in (10, 20, 30, 40, 50):
            await post(client, *reversed(tape(first, first + 4)))
            await stream.until(lambda log, first=first: log.trades[-1:] == wire(trade(first + 3)))  # type: ignore[misc]
        before = [0]
        for message in stream.messages[1:]:
            before.append(before[-1] + len(message.get("trades", [])))
        cursors = [message["cursor"] for message in stream.messages]
        await post(client, *tape(60, 62))
        await stream.until(lambda log: log.trades[-1:] == wire(trade(61)))
        rows = stream.log.trades
    async with another(database) as second:
        for service in (client, second):
            rests = [rest_after(service, *one) for one in zip(cursors, [rows[n:] for n in before], strict=True)]
            assert await asyncio.gather(*rests) == [rows[n:] for n in before]


async def test_a_service_that_is_behind_continues_the_cursor_of_one_that_is_not(
    plain_client: httpx.AsyncClient, plain: Database
) -> None:
    await post(plain_client, trade(0))
    async with another(plain, klines_push_interval=1_500) as slow, transactions(slow) as watching:
        log = Tape()
        async with transactions(plain_client, log) as stream:
            await post(plain_client, trade(1))
            await told(watching, trade(1))
            await post(plain_client, trade(2))
            await told(stream, *tape(1, 3))
        async with transactions(slow, log, cursor=stream.cursor) as moved:
            assert moved.snapshot["recovered"] is True
            await post(plain_client, trade(3))
            await told(moved, *tape(1, 4))
        await told(watching, *tape(1, 4))


async def test_a_client_that_leaves_in_the_middle_of_its_catching_up_goes_on_there(client: httpx.AsyncClient) -> None:
    await post(client, trade(0))
    async with transactions(client) as stream:
        cursor = stream.cursor
    for first in (1, 4, 7):
        await post(client, *tape(first, first + 3))
    await post(client, *tape(10, 3000))
    rows = wire(*tape(1, 3001))
    async with transactions(client, cursor=cursor) as stream:
        await stream.until(lambda log: len(log.trades) == len(rows) - 1)
        messages = stream.messages
    await post(client, trade(3000))
    count = 0
    for message in messages:
        count += len(message["trades"]) if message["type"] == "trades" else 0
        assert await rest_after(client, message["cursor"], rows[count:]) == rows[count:]


async def test_the_cursor_of_a_quiet_stream_holds(client: httpx.AsyncClient) -> None:
    await post(client, *tape(0, 2))
    async with transactions(client) as stream:
        first = stream.cursor
    async with transactions(client, cursor=first) as stream:
        assert stream.snapshot["recovered"] is True
        second = stream.cursor
    await post(client, *tape(2, 4))
    for cursor in (first, second):
        assert await rest_after(client, cursor, wire(*tape(2, 4))) == wire(*tape(2, 4))


async def test_what_can_no_longer_be_filled_is_said_to_be_so(
    client: httpx.AsyncClient, database: Database, psql: asyncpg.Connection[Any]
) -> None:
    await post(client, *tape(0, 3))
    async with transactions(client) as stream:
        cursor = stream.cursor
    await post(client, *tape(3, 6))
    await psql.execute("DELETE FROM klines_internal.tape")
    async with another(database) as fresh, transactions(fresh, cursor=cursor, history=2) as stream:
        assert stream.snapshot["recovered"] is False
        assert stream.snapshot["trades"] == wire(*tape(4, 6))
        await post(client, trade(6))
        await told(stream, *tape(4, 7))


async def test_a_hole_in_the_middle_is_not_passed_over(
    client: httpx.AsyncClient, database: Database, psql: asyncpg.Connection[Any]
) -> None:
    await post(client, *tape(0, 3))
    async with transactions(client) as stream:
        cursor = stream.cursor
    await post(client, *tape(3, 6))
    await psql.execute("DELETE FROM klines_internal.tape")
    await post(client, *tape(6, 9))
    async with another(database) as fresh, transactions(fresh, cursor=cursor) as stream:
        assert stream.snapshot["recovered"] is False
        assert stream.snapshot["trades"] == []
        await post(client, trade(9))
        await told(stream, trade(9))


async def test_the_future_of_a_database_that_was_put_back_is_no_past(
    client: httpx.AsyncClient, profile: str, server: Server
) -> None:
    with server.database(profile) as before:
        async with another(before) as lost:
            await post(lost, *tape(0, 50))
            async with transactions(lost) as stream:
                cursor = stream.cursor
    await post(client, *tape(0, 3))
    async with transactions(client, cursor=cursor, history=2) as stream:
        assert stream.snapshot["recovered"] is False
        assert stream.snapshot["trades"] == wire(*tape(1, 3))
        await post(client, *tape(3, 60))
        await told(stream, *tape(1, 60))


async def test_a_cursor_of_another_epoch_begins_anew(
    client: httpx.AsyncClient, database: Database, psql: asyncpg.Connection[Any]
) -> None:
    await post(client, *tape(0, 3))
    async with transactions(client) as stream:
        cursor = stream.cursor
    await psql.execute("UPDATE klines_internal.epoch SET epoch = reverse(epoch)")
    async with another(database) as restored, transactions(restored, cursor=cursor, history=1) as stream:
        assert stream.snapshot["recovered"] is False
        assert stream.snapshot["trades"] == wire(trade(2))
        assert stream.cursor != cursor


async def keep_writing(client: httpx.AsyncClient, first: int, milestones: list[asyncio.Event]) -> int:
    """Commit small batches one after the other, each with its milestone; the number of the last trade."""
    number = first
    for done, milestone in enumerate(milestones):
        size = 1 + done % 13
        await post(client, *tape(number, number + size))
        number += size
        milestone.set()
    return number - 1


async def joined(client: httpx.AsyncClient, milestone: asyncio.Event, last: Trade) -> tuple[int, Stream[Tape]]:
    """Join at a milestone and listen to the end; the latest trade that was acknowledged before the joining."""
    await milestone.wait()
    answer = await client.get("/api/v1/trades/PEPE?limit=1")
    acknowledged: int = answer.json()["trades"][0]["trade_id"]
    async with transactions(client, history=50) as stream:
        await stream.until(lambda log: log.trades[-1:] == wire(last), deadline=60)
    return acknowledged, stream


async def test_clients_that_join_under_load_have_no_hole_and_no_repeat(client: httpx.AsyncClient) -> None:
    await post(client, trade(0))
    milestones = [asyncio.Event() for _ in range(120)]
    last = trade(sum(1 + done % 13 for done in range(120)))
    async with transactions(client, history=1) as whole:
        writer = asyncio.create_task(keep_writing(client, 1, milestones))
        found = await asyncio.gather(*(joined(client, milestone, last) for milestone in milestones[:100:5]))
        assert await writer == last.trade_id
        await whole.until(lambda log: log.trades[-1:] == wire(last))
    rows = (await client.get("/api/v1/trades/PEPE?limit=5000")).json()["trades"]
    assert whole.log.trades == rows == wire(*tape(0, last.trade_id + 1))
    for acknowledged, stream in found:
        assert stream.log.trades == rows[-len(stream.log.trades) :]
        history = stream.snapshot["trades"]
        assert stream.log.trades[0]["trade_id"] <= acknowledged + 1, "what was acknowledged before is missing"
        assert len(history) == min(50, history[-1]["trade_id"] + 1)
    assert sum(len(stream.log.trades) > 50 for _, stream in found) > 10, "most joined too late to show anything"


async def test_clients_that_join_beside_many_writers_hear_the_same(client: httpx.AsyncClient) -> None:
    milestones = [[asyncio.Event() for _ in range(25)] for _ in range(4)]
    async with AsyncExitStack() as stack:
        await post(client, trade(0))
        streams = [await stack.enter_async_context(transactions(client))]
        writers = asyncio.gather(*(keep_writing(client, 1 + 1000 * n, milestones[n]) for n in range(4)))
        for milestone in milestones[0]:
            await milestone.wait()
            streams.append(await stack.enter_async_context(transactions(client)))
        await writers
        await post(client, trade(9_999))
        for stream in streams:
            await stream.until(lambda log: log.trades[-1:] == wire(trade(9_999)))
        whole = streams[0].log.trades
        assert len(whole) == 4 * sum(1 + done % 13 for done in range(25)) + 1
        for stream in streams:
            assert stream.log.trades == whole[-len(stream.log.trades) :]
