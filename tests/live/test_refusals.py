"""What the sockets refuse: before the upgrade with a problem, afterwards with a close code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from klines.models import Trade
from klines.relay.schedule import MAX_ODD
from tests.application import serving, settings_for
from tests.live.streams import DEADLINE, Chart, Tape, address_of, klines, listening, post, transactions
from tests.servers import Database, Server

TRADE = Trade("PEPE", 1, 1_700_000_100_000_000, "0.5", "2", "buy")
KIB = 1024


def open_socket(client: httpx.AsyncClient, target: str) -> connect:
    return connect(address_of(client, target), proxy=None, compression=None, close_timeout=2)


async def refusal(client: httpx.AsyncClient, target: str) -> dict[str, Any]:
    """The problem with which an upgrade is refused, and its headers in lower case under `headers`."""
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(client, target):
            pass
    response = refused.value.response
    return problem_of(response.status_code, dict(response.headers.raw_items()), bytes(response.body or b""))


def problem_of(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    answer = httpx.Response(status, headers=headers, content=body)
    assert answer.headers["content-type"] == "application/problem+json", answer.headers
    problem: dict[str, Any] = answer.json()
    assert {"title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == status
    return problem | {"headers": answer.headers}


@pytest.fixture
async def ready(plain_client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a service that knows one token."""
    await post(plain_client, TRADE)
    return plain_client


@pytest.fixture
async def small(plain: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with room for two connections."""
    async with serving(settings_for(plain, max_connections=2)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, TRADE)
        yield client


UNKNOWN = [
    ("/ws/transactions/NOBODY", "symbol_unknown"),
    ("/ws/klines/NOBODY/1m", "symbol_unknown"),
    ("/ws/klines/NOBODY/1m?history=5", "symbol_unknown"),
    *[
        (f"/ws/klines/PEPE/{text}", "interval_unknown")
        for text in ("2x", "901s", "901m", "8d", "1M", "60", "1m%20", "1S")
    ],
    *[
        (path, "route_unknown")
        for path in ("/ws/klines", "/ws/klines/PEPE", "/ws/transactions", "/ws/trades/PEPE", "/stream/PEPE")
    ],
    *[
        (path, "route_unknown")
        for path in ("/ws/klines/PEPE/1m/2", "/ws/transactions/PEPE/1m", "/WS/transactions/PEPE")
    ],
    *[(path, "route_unknown") for path in ("/", "/api/v1/klines/PEPE", "/health/live", "/api/v1/nothing")],
]

BAD_QUERIES = [
    *[(f"history={text}", "history_invalid") for text in ("abc", "-1", "1001", "1.0", "%2B1", "0x1", "1e2", "9" * 30)],
    ("history=%EF%BC%91", "history_invalid"),
    ("history=", "param_empty"),
    ("cursor=", "param_empty"),
    ("histroy=1", "param_unknown"),
    ("interval=1m", "param_unknown"),
    ("history=1&limit=5", "param_unknown"),
    ("history=1&history=1", "param_repeated"),
    ("history=1&history=2", "param_repeated"),
    *[(f"cursor={text}", "cursor_invalid") for text in ("x", "0", "1.2.3", "%00", "%F0%9F%9A%80", "a" * 5_000, "null")],
    ("cursor=%FF", "query_invalid"),
    ("&".join(f"history{n}=1" for n in range(30)), "query_invalid"),
]


async def test_what_does_not_exist_is_refused_with_404(ready: httpx.AsyncClient) -> None:
    wrong = []
    for target, code in UNKNOWN:
        problem = await refusal(ready, target)
        if (problem["status"], problem["code"]) != (404, code):
            wrong.append(f"{target}: {problem['status']} {problem['code']}, expected {code}")
    assert not wrong, "\n".join(wrong)


async def test_a_bad_query_is_refused_with_400(ready: httpx.AsyncClient) -> None:
    wrong = []
    for path in ("/ws/transactions/PEPE", "/ws/klines/PEPE/1m"):
        for query, code in BAD_QUERIES:
            problem = await refusal(ready, f"{path}?{query}")
            if (problem["status"], problem["code"]) != (400, code):
                wrong.append(f"{path}?{query[:60]}: {problem['status']} {problem['code']}, expected {code}")
    assert not wrong, "\n".join(wrong)


async def test_a_cursor_continues_its_own_stream_only(ready: httpx.AsyncClient) -> None:
    await post(ready, TRADE._replace(symbol="WIF"))
    cursors = {}
    streams: list[tuple[str, Tape | Chart]] = [
        ("/ws/transactions/PEPE", Tape()),
        ("/ws/transactions/WIF", Tape()),
        ("/ws/klines/PEPE/1m", Chart("1m")),
        ("/ws/klines/PEPE/5m", Chart("5m")),
        ("/ws/klines/WIF/1m", Chart("1m")),
    ]
    for target, log in streams:
        async with listening(ready, target, log) as stream:
            cursors[target] = stream.cursor
    assert len(set(cursors.values())) == len(cursors)
    for target, own in cursors.items():
        for other, cursor in cursors.items():
            if other == target:
                async with open_socket(ready, f"{target}?cursor={cursor}"):
                    continue
            problem = await refusal(ready, f"{target}?cursor={cursor}")
            assert (problem["status"], problem["code"]) == (400, "cursor_invalid"), (target, other)
        for cut in (own[:-1] + "x", own + "0" * 40, "+" + own):
            assert (await refusal(ready, f"{target}?cursor={cut}"))["code"] == "cursor_invalid", cut


@pytest.mark.parametrize("path", ["/ws/transactions/PEPE", "/ws/klines/PEPE/1m", "/ws/klines/PEPE/1m?history=3"])
async def test_a_request_without_upgrade_is_told_to_upgrade(ready: httpx.AsyncClient, path: str) -> None:
    answer = await ready.get(path)
    problem = problem_of(answer.status_code, dict(answer.headers), answer.content)
    assert (problem["status"], problem["code"]) == (426, "upgrade_required")
    assert answer.headers["upgrade"].lower() == "websocket"


async def test_a_request_without_upgrade_for_no_route_is_unknown(ready: httpx.AsyncClient) -> None:
    for path in ("/ws/klines", "/ws/nothing/more", "/ws/klines/PEPE", "/stream/nothing"):
        answer = await ready.get(path)
        problem = problem_of(answer.status_code, dict(answer.headers), answer.content)
        assert (problem["status"], problem["code"]) == (404, "route_unknown")


async def ended(connection: ClientConnection) -> int | None:
    """Read to the end; the close code of the other side."""
    async with asyncio.timeout(DEADLINE):
        with suppress(ConnectionClosed):
            async for _ in connection:
                pass
        await connection.wait_closed()
    return connection.close_code


SPOKEN: list[tuple[str | bytes, bool, int]] = [
    ("hello", True, 4400),
    ("", True, 4400),
    ('{"type":"subscribe"}', True, 4400),
    ("x" * 64 * KIB, True, 4400),
    (b"hello", False, 1003),
    (b"", False, 1003),
    ("x" * 65 * KIB, True, 1009),
    (b"x" * 65 * KIB, False, 1009),
    (b"\xff\xfe", True, 1007),
    (b"abc\xed\xa0\x80", True, 1007),
]


@pytest.mark.parametrize("path", ["/ws/transactions/PEPE", "/ws/klines/PEPE/1m"])
async def test_whoever_speaks_is_closed_with_its_code(ready: httpx.AsyncClient, path: str) -> None:
    wrong = []
    for message, as_text, expected in SPOKEN:
        async with open_socket(ready, path) as connection:
            await connection.send(message, text=as_text)
            if (code := await ended(connection)) != expected:
                wrong.append(f"{message[:20]!r}, text {as_text}: {code}, expected {expected}")
    assert not wrong, "\n".join(wrong)


async def test_the_first_piece_of_a_message_is_enough(ready: httpx.AsyncClient) -> None:
    for pieces, expected in ((["a", "b"], 4400), (["x" * 80 * KIB, "y"], 1009), ([b"a", b"b"], 1003)):
        async with open_socket(ready, "/ws/transactions/PEPE") as connection:
            await connection.send(pieces)
            assert await ended(connection) == expected, pieces[0][:1]


async def test_pings_are_answered(ready: httpx.AsyncClient) -> None:
    async with open_socket(ready, "/ws/transactions/PEPE") as connection, asyncio.timeout(DEADLINE):
        await (await connection.ping(b"there?"))


def refused_for_room(problem: dict[str, Any]) -> bool:
    assert int(problem["headers"]["retry-after"]) > 0
    return (problem["status"], problem["code"]) == (503, "connections_exhausted")


async def admitted(client: httpx.AsyncClient, target: str) -> None:
    """Try until there is room: the service may hear of an end a moment after the one who leaves."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with suppress(InvalidStatus):
                async with open_socket(client, target) as connection:
                    await connection.recv()
                    return


async def test_one_connection_too_many_is_refused_until_another_leaves(small: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(transactions(small))
        second = await stack.enter_async_context(klines(small, Chart("1m")))
        for target in ("/ws/transactions/PEPE", "/ws/klines/PEPE/1m") * 3:
            assert refused_for_room(await refusal(small, target))
        assert (await small.get("/api/v1/tokens/PEPE")).status_code == 200
        await post(small, TRADE._replace(trade_id=2))
        await first.next("trades")
        await second.next("revision")
        await first.leave()
        await admitted(small, "/ws/klines/PEPE/1m")
        await stack.enter_async_context(transactions(small))
        assert refused_for_room(await refusal(small, "/ws/transactions/PEPE"))


async def test_whoever_is_cut_off_leaves_room(small: httpx.AsyncClient) -> None:
    async with transactions(small), open_socket(small, "/ws/transactions/PEPE") as cut:
        assert refused_for_room(await refusal(small, "/ws/transactions/PEPE"))
        cut.transport.abort()
        await admitted(small, "/ws/transactions/PEPE")


async def test_a_refusal_takes_no_room(small: httpx.AsyncClient) -> None:
    for _ in range(5):
        assert (await refusal(small, "/ws/transactions/NOBODY"))["status"] == 404
        assert (await refusal(small, "/ws/transactions/PEPE?history=x"))["status"] == 400
    async with transactions(small), transactions(small):
        assert refused_for_room(await refusal(small, "/ws/transactions/PEPE"))


async def test_many_that_come_at_once_are_counted(small: httpx.AsyncClient) -> None:
    answers: list[int] = []
    all_answered = asyncio.Event()

    def note(status: int) -> None:
        answers.append(status)
        if len(answers) == 12:
            all_answered.set()

    async def come() -> None:
        try:
            async with open_socket(small, "/ws/transactions/PEPE") as connection:
                await connection.recv()
                note(101)
                await all_answered.wait()
        except InvalidStatus as refused:
            note(refused.response.status_code)

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(come() for _ in range(12)))
    assert sorted(answers) == [101] * 2 + [503] * 10


async def test_no_room_at_all(plain: Database) -> None:
    async with serving(settings_for(plain, max_connections=0)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, TRADE)
        assert refused_for_room(await refusal(client, "/ws/transactions/PEPE"))


async def test_while_the_database_is_away_a_socket_is_refused_with_503(
    ready: httpx.AsyncClient, plain: Database, server: Server
) -> None:
    allow = f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS"
    await asyncio.to_thread(server.execute, f"{allow} false")
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{plain.name}'"
    await asyncio.to_thread(server.execute, ended)
    problem = await refusal(ready, "/ws/transactions/PEPE")
    assert problem["status"] == 503
    assert problem["code"].startswith("database_")
    assert int(problem["headers"]["retry-after"]) > 0
    await asyncio.to_thread(server.execute, f"{allow} true")
    await admitted(ready, "/ws/transactions/PEPE")


async def test_odd_intervals_of_a_token_are_refused_beyond_a_bound(ready: httpx.AsyncClient) -> None:
    async with AsyncExitStack() as stack:
        for seconds in range(91, 91 + MAX_ODD):
            await stack.enter_async_context(open_socket(ready, f"/ws/klines/PEPE/{seconds}s"))
        problem = await refusal(ready, "/ws/klines/PEPE/200s")
        assert (problem["status"], problem["code"]) == (503, "intervals_exhausted")
        for interval in ("91s", "45m", "1w"):
            await stack.enter_async_context(open_socket(ready, f"/ws/klines/PEPE/{interval}"))
