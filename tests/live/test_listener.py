"""The listener on a real server whose connections end, hang and are refused."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from klines import listener
from klines.errors import Unavailable
from klines.listener import MAX_WAITING, PROBE_SECONDS, PROBE_TIMEOUT, Deafened, Doorbell, Resumed, Silenced, listen
from tests.live.proxy import Proxy, through, upstream_of
from tests.servers import Database

DEADLINE = 30
QUICK = {"probe_seconds": 0.2, "probe_timeout": 0.5}
NO_PROBES = {"probe_seconds": 100.0 * DEADLINE}
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'klines listener' AND datname = $1"

Item = Doorbell | Resumed | Silenced | Deafened


class Ear:
    """What a task hears that iterates a listener."""

    def __init__(self, items: AsyncIterator[Item]) -> None:
        self._items = items
        self._heard: asyncio.Queue[Item] = asyncio.Queue()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for item in self._items:
            self._heard.put_nowait(item)

    async def next(self) -> Item:
        """The next item; fails when the listener has ended."""
        waiting = asyncio.create_task(self._heard.get())
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), self.task
        return waiting.result()


@asynccontextmanager
async def hearing(url: str, **times: float) -> AsyncIterator[Ear]:
    """A task that listens, cancelled at the end; nothing of it may be left."""
    before = asyncio.all_tasks()
    ear = Ear(listen(url, **times))
    try:
        yield ear
    finally:
        ear.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ear.task
    assert asyncio.all_tasks() <= before


@pytest.fixture
async def psql(plain: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of a foreign program."""
    opened = await asyncpg.connect(plain.url)
    yield opened
    await opened.close()


@pytest.fixture
def proxy(plain: Database) -> Iterator[Proxy]:
    with Proxy(upstream_of(plain.url)) as opened:
        yield opened


async def insert(psql: asyncpg.Connection[Any], symbol: str = "PEPE", trade_id: int = 1) -> int:
    """A trade as psql would write it; the token's id."""
    await psql.execute("INSERT INTO tokens (symbol) VALUES ($1) ON CONFLICT DO NOTHING", symbol)
    token: int = await psql.fetchval("SELECT token_id FROM tokens WHERE symbol = $1", symbol)
    await psql.execute("INSERT INTO trades VALUES ($1, $2, now(), 1, 1, 'buy')", token, trade_id)
    return token


async def notify(psql: asyncpg.Connection[Any], payload: str) -> None:
    await psql.execute("SELECT pg_notify('klines_v1', $1)", payload)


async def pids(psql: asyncpg.Connection[Any], database: Database) -> list[int]:
    return [row["pid"] for row in await psql.fetch(LISTENERS, database.name)]


async def gone(psql: asyncpg.Connection[Any], database: Database, proxy: Proxy) -> None:
    """No connection is left, neither here nor at the server, which needs a moment to notice."""
    proxy.restore()
    await proxy.disconnected()
    async with asyncio.timeout(DEADLINE):
        while await pids(psql, database):
            pass


def told(caplog: pytest.LogCaptureFixture) -> list[int]:
    """The levels of what the listener logged."""
    return [record.levelno for record in caplog.records if record.name == "klines.listener"]


async def test_an_insert_of_any_program_rings(database: Database) -> None:
    psql = await asyncpg.connect(database.url)
    async with hearing(database.url) as ear:
        assert await ear.next() == Resumed()
        token = await insert(psql)
        assert await ear.next() == Doorbell(frozenset({token}))
        async with psql.transaction():
            await insert(psql, trade_id=2)
            await notify(psql, "*")
        assert await ear.next() == Doorbell(None)
    await psql.close()


async def test_what_rang_while_nobody_asked_is_one_doorbell(
    plain: Database, psql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = spy(monkeypatch)
    async with aclosing(listen(plain.url)) as items:
        assert await anext(items) == Resumed()
        tokens = {await insert(psql, "PEPE"), await insert(psql, "DOGE"), await insert(psql, "PEPE", 2)}
        await arrived(rung, 3)
        assert await anext(items) == Doorbell(frozenset(tokens))
        last = await insert(psql, "WIF")
        async with asyncio.timeout(DEADLINE):
            assert await anext(items) == Doorbell(frozenset({last}))


async def test_too_many_waiting_tokens_are_any_token(
    plain: Database, psql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = spy(monkeypatch)
    full: list[Sequence[int]] = [range(first, first + 1000) for first in range(1, MAX_WAITING, 1000)]
    async with aclosing(listen(plain.url)) as items:
        assert await anext(items) == Resumed()
        for payload in full:
            await notify(psql, ",".join(map(str, payload)))
        await arrived(rung, len(full))
        assert await anext(items) == Doorbell(frozenset(range(1, MAX_WAITING + 1)))
        for payload in [*full, [MAX_WAITING + 1], [1]]:
            await notify(psql, ",".join(map(str, payload)))
        await arrived(rung, len(full) + 2)
        assert await anext(items) == Doorbell(None)
        await notify(psql, "5")
        async with asyncio.timeout(DEADLINE):
            assert await anext(items) == Doorbell(frozenset({5}))


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " ",
        "PEPE",
        "-1",
        "+1",
        " 1",
        "1\n",
        "1,",
        ",1",
        "1,,2",
        "1,x",
        "1;2",
        "1_0",
        "0x1",
        "1.0",
        "**",
        "*,1",
        "2147483648",
        "1,9999999999",
        "1" + "0" * 30,
        "9" * 7999,
        "1," * 3999 + "x",
        "\u0661\u0662",
        "\uff11",
        "\U0001f4a9" * 1999,
        '{"tokens": [1]}',
    ],
    ids=lambda payload: ascii(payload[:12]),
)
async def test_forged_payloads_change_nothing(
    plain: Database, psql: asyncpg.Connection[Any], caplog: pytest.LogCaptureFixture, payload: str
) -> None:
    async with hearing(plain.url) as ear:
        assert await ear.next() == Resumed()
        for _ in range(3):
            await notify(psql, payload)
        # Notifications keep their order: had one of the forged rung, it would be here.
        await notify(psql, "7,2147483647")
        assert await ear.next() == Doorbell(frozenset({7, 2**31 - 1}))
    assert told(caplog) == [logging.WARNING]
    assert all(len(record.getMessage()) < 200 for record in caplog.records)


async def test_a_terminated_listener_comes_back(
    plain: Database, psql: asyncpg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with hearing(plain.url, **NO_PROBES) as ear:
        assert await ear.next() == Resumed()
        for trade_id in (1, 2):
            (pid,) = await pids(psql, plain)
            assert await psql.fetchval("SELECT pg_terminate_backend($1)", pid)
            assert [await ear.next(), await ear.next()] == [Silenced(), Resumed()]
            token = await insert(psql, trade_id=trade_id)
            assert await ear.next() == Doorbell(frozenset({token}))
    assert told(caplog) == [logging.WARNING, logging.INFO] * 2


async def test_a_cut_connection_comes_back(plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy) -> None:
    async with hearing(through(proxy, plain.url), **NO_PROBES) as ear:
        assert await ear.next() == Resumed()
        proxy.cut()
        assert [await ear.next(), await ear.next()] == [Silenced(), Resumed()]
        token = await insert(psql)
        assert await ear.next() == Doorbell(frozenset({token}))


async def test_connections_cut_while_they_open_are_tried_again(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    async with hearing(through(proxy, plain.url)) as ear:
        for count in (1, 2, 3):
            await proxy.connected(count)
            proxy.cut()
        # The third may have listened already, and said so, before it was cut.
        token = await insert(psql)
        trade_ids = itertools.count(2)
        while (heard := await ear.next()) in {Resumed(), Silenced()}:
            if heard == Resumed():
                await insert(psql, trade_id=next(trade_ids))
        assert heard == Doorbell(frozenset({token}))


async def test_a_half_open_connection_is_found(plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy) -> None:
    assert PROBE_SECONDS + PROBE_TIMEOUT < 8
    loop = asyncio.get_running_loop()
    async with hearing(through(proxy, plain.url), **QUICK) as ear:
        assert await ear.next() == Resumed()
        proxy.blackhole()
        began = loop.time()
        assert await ear.next() == Silenced()
        # Not at once: only silence gave it away.
        assert loop.time() - began > QUICK["probe_timeout"]
        token = await insert(psql)
        proxy.restore()
        assert await ear.next() == Resumed()
        await insert(psql, trade_id=2)
        assert await ear.next() == Doorbell(frozenset({token}))


async def test_a_silent_connection_proves_itself(
    plain: Database, psql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    proved = spy(monkeypatch, "_stir")
    async with hearing(plain.url, probe_seconds=0.02, probe_timeout=DEADLINE) as ear:
        assert await ear.next() == Resumed()
        await arrived(proved, 5)
        token = await insert(psql)
        assert await ear.next() == Doorbell(frozenset({token}))


async def test_a_busy_connection_is_not_probed(
    plain: Database, psql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = spy(monkeypatch, "_probe")
    async with hearing(plain.url, probe_seconds=1, probe_timeout=DEADLINE) as ear:
        assert await ear.next() == Resumed()
        async with asyncio.timeout(DEADLINE):
            began = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() - began < 1.5:
                await notify(psql, "1")
                await ear.next()
    assert probed.empty()


async def test_a_server_that_refuses_for_a_while(
    plain: Database,
    psql: asyncpg.Connection[Any],
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    attempts: asyncio.Queue[None] = asyncio.Queue()
    connect = asyncpg.connect

    async def counted(*arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
        attempts.put_nowait(None)
        opened: asyncpg.Connection[Any] = await connect(*arguments, **options)
        return opened

    proxy.refuse()
    monkeypatch.setattr(asyncpg, "connect", counted)
    async with hearing(through(proxy, plain.url)) as ear:
        assert await ear.next() == Silenced()
        await arrived(attempts, 4)
        proxy.restore()
        assert await ear.next() == Resumed()
        token = await insert(psql)
        assert await ear.next() == Doorbell(frozenset({token}))
    assert told(caplog) == [logging.WARNING, logging.INFO]


async def test_a_database_that_does_not_exist_yet_is_waited_for(plain: Database) -> None:
    async with hearing(plain.url.replace(plain.name, "nowhere_1")) as ear:
        assert await ear.next() == Silenced()


async def test_only_a_connection_that_stood_forgets_the_failures_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(listener, "MAX_RETRY_SECONDS", 0.004)
    away = Unavailable("away")
    retry = listener._Retry()
    for _ in range(4):
        retry.failed(away)
        await retry.pause()
    assert retry._seconds == 0.004
    monkeypatch.setattr(listener, "MAX_RETRY_SECONDS", DEADLINE)
    retry.succeeded()
    retry.failed(away)
    assert retry._seconds == 0.004
    monkeypatch.setattr(listener, "MAX_RETRY_SECONDS", -1)
    retry.succeeded()
    retry.failed(away)
    assert retry._seconds == 0.001


async def test_a_server_that_fails_the_probe_is_tried_again(
    plain: Database, psql: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose queue of notifications is full."""
    probed = "CREATE OR REPLACE FUNCTION public.probed(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN {} END $$"
    monkeypatch.setattr(listener, "_PROBE", "SELECT public.probed($1)")
    await psql.execute(probed.format("RAISE EXCEPTION 'too many notifications' USING ERRCODE = '54000';"))
    async with hearing(plain.url, **QUICK) as ear:
        assert [await ear.next() for _ in range(4)] == [Resumed(), Silenced()] * 2
        await psql.execute(probed.format("PERFORM pg_notify($1, '');"))
        while await ear.next() != Resumed():
            pass
        await notify(psql, "1")
        while (heard := await ear.next()) in {Resumed(), Silenced()}:
            await notify(psql, "1")
        assert heard == Doorbell(frozenset({1}))


async def test_a_url_that_cannot_be_read_raises(plain: Database) -> None:
    url = plain.url + ("&" if "?" in plain.url else "?") + "sslmode=nonsense"
    with pytest.raises(ValueError, match="sslmode"):
        await anext(aiter(listen(url)))


async def test_a_task_cancelled_while_it_waits_leaves_nothing(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    async with hearing(through(proxy, plain.url)) as ear:
        assert await ear.next() == Resumed()
    await gone(psql, plain, proxy)


async def test_a_task_cancelled_in_a_probe_leaves_nothing(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = spy(monkeypatch, "_probe")
    async with hearing(through(proxy, plain.url), probe_seconds=0.2, probe_timeout=DEADLINE) as ear:
        assert await ear.next() == Resumed()
        proxy.blackhole()
        await arrived(probed, 1)
    await gone(psql, plain, proxy)


async def test_a_task_cancelled_while_it_connects_leaves_nothing(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    proxy.blackhole()
    async with hearing(through(proxy, plain.url)):
        await proxy.connected(1)
    await gone(psql, plain, proxy)


async def test_a_task_cancelled_before_it_tries_again_leaves_nothing(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    proxy.refuse()
    async with hearing(through(proxy, plain.url)) as ear:
        assert await ear.next() == Silenced()
    await gone(psql, plain, proxy)


async def test_a_task_cancelled_between_two_items_leaves_nothing(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    busy = asyncio.Event()

    async def iterate() -> None:
        async with aclosing(listen(through(proxy, plain.url))) as items:
            async for _ in items:
                busy.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(iterate())
    async with asyncio.timeout(DEADLINE):
        await busy.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(psql, plain, proxy)


async def test_a_task_that_forgets_to_close_leaves_nothing(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    async def once() -> None:
        async for item in listen(through(proxy, plain.url)):
            assert item == Resumed()
            return

    await once()
    await gone(psql, plain, proxy)


def spy(monkeypatch: pytest.MonkeyPatch, name: str = "_ring") -> asyncio.Queue[None]:
    """Calls of a method of the connection, which does what it always does."""
    calls: asyncio.Queue[None] = asyncio.Queue()
    original = getattr(listener._Line, name)

    def spied(*arguments: Any) -> Any:
        calls.put_nowait(None)
        return original(*arguments)

    monkeypatch.setattr(listener._Line, name, spied)
    return calls


async def arrived(calls: asyncio.Queue[None], count: int) -> None:
    async with asyncio.timeout(DEADLINE):
        for _ in range(count):
            await calls.get()
