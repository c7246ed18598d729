"""Clients that read slowly or not at all: told so, in bounded memory and time, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import ClassVar
from urllib.parse import urlencode, urlsplit

import asyncpg
import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from klines.models import Trade
from tests import oracle
from tests.application import serving, settings_for
from tests.live.followers import (
    WATCHED,
    Follower,
    L,
    Writer,
    address_of,
    before,
    charted,
    following,
    paired,
    poll,
    running,
    writer_of,
)
from tests.live.streams import Chart, Log, Message, Stream, Tape, post, wire
from tests.servers import Database
from tests.service.processes import service

TOO_SLOW = 4008
PROMISED = 10.0
PROMPT = 3.0  # what a reader may wait for a commit beside stuck ones, on a busy machine
TARGET = f"/ws/transactions/{WATCHED}"
MIB = 1024 * 1024
ROUNDS = 2
FLOODED = 1700
LINE = 0.01  # seconds for each piece of at most 64 KiB
FLOOD = f"""
    INSERT INTO trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, 1000000000000000 * (1 + floor(random() * 1000)::bigint) + n, clock_timestamp(),
           99999999999999999999999.123456789012345678901234567890123456 - n,
           99999999999999999999999.987654321098765432109876543210987654, 'buy'
    FROM tokens, generate_series(1, {FLOODED}) AS n WHERE symbol LIKE 'STUCK%'
    ORDER BY token_id, n
"""


@asynccontextmanager
async def stalled(url: str, target: str = TARGET, **query: object) -> AsyncIterator[ClientConnection]:
    """A client with small buffers that reads nothing until it is asked to."""
    parts = urlsplit(url)
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, (parts.hostname, parts.port))
    address = f"{url.replace('http', 'ws', 1)}{target}?{urlencode(query)}"
    async with connect(address, sock=end, proxy=None, compression=None, max_size=None, close_timeout=1) as connection:
        connection.transport.pause_reading()
        try:
            yield connection
        finally:
            connection.transport.abort()


def reads(connection: ClientConnection, log: L) -> Stream[L]:
    """Let a stalled client read on."""
    connection.transport.resume_reading()
    return Stream(connection, log, resumes=False)


async def burst(writer: Writer, count: int, symbol: str = WATCHED) -> None:
    """Commit many trades, a few statements long."""
    for first in range(0, count, 1000):
        await writer.commit(*(writer.trade(symbol) for _ in range(min(1000, count - first))))


async def room(url: str) -> bool:
    """Whether there is a place for one more client."""
    with suppress(InvalidStatus):
        async with connect(f"{url.replace('http', 'ws', 1)}{TARGET}", proxy=None):
            return True
    return False


async def test_who_does_not_read_is_closed_in_time_and_resumes_without_loss(plain: Database) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(plain, max_connections=2)))
        writer = await stack.enter_async_context(writer_of(plain.url))
        async with following(url, TARGET, Tape()) as reader:
            async with stalled(url) as connection:
                assert not await room(url)
                for _ in range(4):
                    await burst(writer, 1500)
                    count = writer.count
                    await reader.until(lambda tape, count=count: len(tape.trades) >= count, deadline=PROMPT)  # type: ignore[misc]
                # Its place is free as soon as it is closed.
                await poll(lambda: room(url), PROMISED)
                stream = reads(connection, Tape())
                assert await stream.ended() == TOO_SLOW
                assert "reconnect with the cursor" in (connection.close_reason or "")
            assert len(stream.log.trades) < writer.count
            await comes_back(url, stream, writer.committed[WATCHED])
            assert reader.log.trades == wire(*writer.committed[WATCHED])
            assert reader.codes == []


@pytest.mark.parametrize(("count", "code"), [(1_000, None), (6_000, TOO_SLOW)])
async def test_who_reads_on_after_a_pause_has_missed_nothing_or_is_told(
    plain: Database, count: int, code: int | None
) -> None:
    async with serving(settings_for(plain)) as url, writer_of(plain.url) as writer:
        async with following(url, TARGET, Tape()) as reader, stalled(url) as connection:
            await burst(writer, count)
            await reader.until(lambda tape: len(tape.trades) >= count)
            stream = reads(connection, Tape())
            if code is None:
                await stream.until(lambda tape: len(tape.trades) >= count)
            else:
                assert await stream.ended() == code
            committed = writer.committed[WATCHED]
            assert stream.log.trades == wire(*committed[: len(stream.log.trades)])
        await comes_back(url, stream, committed)


async def comes_back(url: str, stream: Stream[Tape], committed: list[Trade]) -> None:
    """With its last cursor it gets the rest."""
    address = f"{url.replace('http', 'ws', 1)}{TARGET}?{urlencode({'cursor': stream.cursor})}"
    async with connect(address, proxy=None, max_size=None) as connection:
        back = Stream(connection, stream.log, resumes=True)
        await back.until(lambda tape: bool(back.messages) and len(tape.trades) >= len(committed))
        assert back.snapshot["recovered"] is True
        await back.leave()
    assert stream.log.trades == wire(*committed)


async def test_who_does_not_read_is_closed_for_that_alone(plain: Database) -> None:
    """What waits for it would not fill its mailbox."""
    async with serving(settings_for(plain, max_connections=2)) as url, writer_of(plain.url) as writer:
        await burst(writer, 1000)
        async with following(url, TARGET, Tape()) as reader, stalled(url, history=1000) as connection:
            await burst(writer, 1000)
            begun = time.monotonic()
            await reader.until(lambda tape: len(tape.trades) >= 1000, deadline=PROMPT)
            assert not await room(url)
            await poll(lambda: room(url), PROMISED)
            assert time.monotonic() - begun > 2, "closed for the size of what waits"
            stream = reads(connection, Tape())
            assert await stream.ended() == TOO_SLOW
            assert reader.codes == []
        await comes_back(url, stream, writer.committed[WATCHED])


class Scale:
    """The most memory that a process has had since this was made, in bytes, as often as anybody looked."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.most = 0

    async def look(self) -> bool:
        self.most = max(self.most, self._process.memory_info().rss)
        return False


@asynccontextmanager
async def weighed(scale: Scale) -> AsyncIterator[None]:
    """Look again and again."""
    looking = asyncio.create_task(poll(scale.look, 600))
    try:
        yield
    finally:
        looking.cancel()


@pytest.mark.fault("F30")
async def test_stuck_clients_take_little_memory_and_nobodys_time(plain: Database, figures: Callable[..., None]) -> None:
    tokens = [f"STUCK{number}" for number in range(50)]
    targets = [f"/ws/transactions/{token}" for token in tokens]
    with service(DATABASE_URL=plain.url, MAX_CONNECTIONS="51") as one:
        url = await asyncio.to_thread(one.url)
        async with AsyncExitStack() as stack:
            writer = await stack.enter_async_context(writer_of(plain.url, WATCHED, *tokens))
            reader = await stack.enter_async_context(following(url, TARGET, Tape()))
            scale = Scale(psutil.Process(one.process.pid))
            async with AsyncExitStack() as reading, weighed(scale):
                followers = [await reading.enter_async_context(following(url, target, Count())) for target in targets]
                await beside_a_flood(plain.url, writer, reader)
                for follower in followers:
                    await follower.until(lambda log: log.trades >= FLOODED)
            # What the work itself takes, without anybody stuck, is not theirs.
            work = scale.most
            for target in targets:
                await stack.enter_async_context(stalled(url, target))
            assert not await room(url)
            async with weighed(scale):
                for _ in range(ROUNDS):
                    await beside_a_flood(plain.url, writer, reader)
                await poll(lambda: room(url), PROMISED)
            assert reader.codes == []
            each = (scale.most - work) / len(tokens)
            assert each < MIB / 2, f"{each / 1024:.0f} KiB each"
            figures("F30", stuck=len(tokens), each_kib=each / 1024, rss_mib=scale.most / MIB)


class Count(Log):
    """Only how many trades were told, as reading shares a machine with what is measured."""

    members: ClassVar = Tape.members

    def __init__(self) -> None:
        self.trades = 0

    def take(self, message: Message) -> None:
        self.trades += len(message.get("trades", []))


async def beside_a_flood(url: str, writer: Writer, reader: Follower[Tape]) -> None:
    """Flood, and hold the one who reads against its promise meanwhile."""
    flood = asyncio.create_task(flooded(url))
    while not flood.done():
        await writer.commit(writer.trade(WATCHED))
        await reader.until(lambda tape: len(tape.trades) >= writer.count, deadline=PROMPT)
    await flood


async def flooded(url: str) -> None:
    """Store so much for every stuck client that each has more waiting than it may."""
    connection = await asyncpg.connect(url)
    await connection.execute(FLOOD)
    await connection.close()


async def test_a_slow_reader_gets_the_newest_bar_and_every_closed_one(plain: Database) -> None:
    target = f"/ws/klines/{WATCHED}/1s"
    settings = settings_for(plain, klines_push_interval=0)
    async with serving(settings) as url, writer_of(plain.url, WATCHED) as writer, paired(url) as pair:
        await writer.commit(*(writer.trade(WATCHED, 3 * ago) for ago in range(2, 900)))
        (chart,) = pair.charts
        async with stalled(url, target, history=1000) as connection:
            async with running(writer):
                closed = len(chart.log.closings)
                await chart.until(lambda log: len(log.closings) >= closed + 4)
            await pair.holds(writer)
            slow = reads(connection, Chart("1s"))
            expected = oracle.fold(writer.committed[WATCHED], "1s")
            await slow.until(lambda log: log.oracle_bars() == expected)
            await slow.until(lambda log: log.closed == chart.log.closed)
            assert slow.log.closings == chart.log.closings[-len(slow.log.closings) :]
            assert len(slow.log.closings) >= 4
            kept, told = (
                sum(not one["kline"]["closed"] for one in messages if one["type"] == "kline")
                for messages in (slow.messages, [one for _, one in chart.heard])
            )
            assert kept < told / 3, (kept, told)
            await slow.leave()
        pair.stayed()


async def test_a_burst_in_one_request_closes_nobody_who_reads(plain: Database) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(plain)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
        writer = await stack.enter_async_context(writer_of(plain.url))
        pairs = [await stack.enter_async_context(paired(url)) for _ in range(5)]
        trades = [writer.trade(WATCHED) for _ in range(10_000)]
        await post(client, *trades)
        for pair in pairs:
            await pair.has(10_000)
            assert pair.trades.log.trades == wire(*trades)
            await charted(pair.charts[0], trades)
            pair.stayed()


async def test_a_burst_closes_nobody_who_reads_through_a_slower_line(plain: Database) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(plain)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
        writer = await stack.enter_async_context(writer_of(plain.url))
        proxy = stack.enter_context(before(url))
        pair = await stack.enter_async_context(paired(address_of(proxy)))
        proxy.delay(LINE)
        trades = [writer.trade(WATCHED) for _ in range(10_000)]
        await post(client, *trades)
        await pair.has(10_000)
        assert pair.trades.log.trades == wire(*trades)
        pair.stayed()
