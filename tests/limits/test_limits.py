"""Budgets: who uses up a share is told, in the dialect, when to come back; others do not feel it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from klines.credential import new_key, new_ticket
from klines.interval import CUSTOMARY, Width
from klines.web.admission.limits import MAX_AT_ONCE, page_weight
from tests.access.keys import TICKETS, made
from tests.limits.attackers import statements
from tests.limits.clients import ELSEWHERE, HERE, Clients, clients, fields
from tests.live.streams import address_of
from tests.servers import Database

PAGE = "/api/v1/tokens?limit=1"


def left(answer: httpx.Response, budget: str) -> int:
    """What the answer says is left of a budget."""
    found = re.fullmatch(rf'"{budget}";r=([0-9]+);t=[0-9]+', answer.headers["ratelimit"])
    assert found, answer.headers["ratelimit"]
    return int(found[1])


def limited(answer: httpx.Response) -> None:
    """Whether this is the refusal of a client that asked too much."""
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited"), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert left(answer, "read" if answer.request.method == "GET" else "write") >= 0


async def test_reads_are_limited_for_each_client(plain: Database) -> None:
    async with clients(plain, klines_read_limit=5) as those:
        answers = [await those.ask(PAGE) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert answers[0].headers["ratelimit-policy"] == '"read";q=5;w=60'
        assert [left(answer, "read") for answer in answers] == [4, 3, 2, 1, 0, 0]
        limited(answers[5])
        assert 1 <= int(answers[5].headers["retry-after"]) <= 12
        assert (await those.ask(PAGE, address=ELSEWHERE)).status_code == 200
        assert (await those.ask(PAGE, address=f"{ELSEWHERE}, {HERE}")).status_code == 429
        head = await those.ask(PAGE, method="HEAD")
        assert (head.status_code, head.content) == (429, b"")
        for path in ("/health/live", "/health/ready"):
            health = await those.ask(path)
            assert (health.status_code, "ratelimit" in health.headers) == (200, False)


async def test_a_key_has_a_share_of_its_own_wherever_it_is(plain: Database) -> None:
    async with clients(plain, klines_read_limit=3) as those:
        key = (await made(plain, "read")).text
        assert [(await those.ask(PAGE)).status_code for _ in range(4)][-1] == 429
        answers = [await those.ask(PAGE, key=key, address=address) for address in (HERE, ELSEWHERE, HERE, ELSEWHERE)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


async def test_reads_weigh_what_they_cost(plain: Database) -> None:
    async with clients(plain, klines_read_limit=300) as those:
        assert (await those.post(1)).status_code == 200
        before = 300
        for path, weight in (
            ("/api/v1/klines/PEPE", 1),
            ("/api/v1/klines/PEPE?limit=5000", 11),
            ("/api/v1/klines/PEPE?interval=7m&limit=1000", 10),
            ("/api/v1/trades/PEPE?limit=1000", 3),
            ("/api/v1/tokens?limit=500", 11),
            ("/api/v1/tokens?limit=1&sort=volume", 41),
            ("/udf/search?limit=1000", 21),
            ("/udf/quotes?symbols=PEPE,A,B,C,D,E,F,G,H,I", 3),
            ("/api/v3/ticker/price", 40),
            ("/udf/history?symbol=PEPE&resolution=1&to=1700000000&countback=1000", 3),
            ("/api/v3/klines?symbol=PEPE&interval=1m&limit=1000", 2),
            ("/api/v3/trades?symbol=PEPE", 25),
        ):
            answer = await those.ask(path)
            assert answer.status_code == 200, answer.text
            after = left(answer, "read")
            # A bucket fills all the while, at five a second.
            assert weight - 3 <= before - after <= weight, path
            before = after


def test_what_is_made_of_more_bars_weighs_more() -> None:
    assert [page_weight(limit) for limit in (1, 499, 500, 5000)] == [1, 1, 2, 11]
    assert page_weight(100, 3000) > 60


async def test_writes_are_limited_by_rows_and_nothing_refused_is_stored(plain: Database) -> None:
    async with clients(plain, klines_write_limit=10) as those:
        assert (await those.post(8)).status_code == 200
        limited(await those.post(5, first=100))
        stored = await those.ask("/api/v1/trades/PEPE?limit=1000")
        assert len(stored.json()["trades"]) == 8
        assert (await those.post(1, first=50)).status_code == 200
        other = (await made(plain, "write")).text
        assert (await those.post(10, first=200, key=other)).status_code == 200
        assert (await those.ask(PAGE)).status_code == 200


async def test_failed_logins_are_limited_for_each_client(plain: Database) -> None:
    reader = await made(plain, "read")
    async with clients(plain, klines_login_limit=2) as those, AsyncExitStack() as stack:
        typos = [await those.ask(PAGE, key=f"klk_{n}") for n in range(12)]
        assert {answer.json()["code"] for answer in typos} == {"key_malformed"}
        tickets = [await those.ask(TICKETS, method="POST", key=reader.text) for _ in range(2)]
        with statements() as asked:
            bad = await asyncio.gather(*(those.ask(PAGE, key=new_key().text) for _ in range(20)))
        assert Counter(answer.status_code for answer in bad) == {401: 2, 429: 18}
        assert len([one for one in asked if "api_keys" in one or "key_stamp" in one]) <= 4
        assert {answer.json()["code"] for answer in bad} == {"key_invalid", "rate_limited"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in bad if answer.status_code == 429)
        # Who is known does not feel it, nor who comes from elsewhere.
        assert (await those.ask(PAGE, key=reader.text)).status_code == 200
        assert (await those.ask(PAGE)).status_code == 200
        good, unknown = f"/ws?ticket={tickets[0].json()['ticket']}", f"/ws?ticket={new_ticket()}"
        assert await upgrade(those, stack, path=good) == (101, "")
        assert await upgrade(those, stack, path=good) == (429, "rate_limited")
        assert await upgrade(those, stack, path=unknown) == (429, "rate_limited")
        new = (await made(plain, "read")).text
        assert (await those.ask(PAGE, key=new, address=ELSEWHERE)).status_code == 200


async def test_good_logins_use_nothing_up(plain: Database) -> None:
    async with clients(plain, klines_login_limit=1) as those:
        for _ in range(5):
            assert (await those.ask(PAGE, key=(await made(plain, "read")).text)).status_code == 200


async def test_a_proxy_that_is_not_named_is_told_of_once(plain: Database, caplog: pytest.LogCaptureFixture) -> None:
    async with clients(plain, klines_trusted_proxies="192.0.2.1") as those:
        for _ in range(3):
            assert (await those.ask(PAGE)).status_code == 200
    assert [record.name for record in caplog.records if "KLINES_TRUSTED_PROXIES" in record.message] == ["klines.access"]


async def test_a_client_has_so_many_reads_answered_at_once(plain: Database) -> None:
    async with clients(plain) as those:
        locking = await asyncpg.connect(plain.url)
        transaction = locking.transaction()
        await transaction.start()
        await locking.execute("LOCK TABLE tokens")
        waiting = [asyncio.create_task(those.ask(PAGE)) for _ in range(MAX_AT_ONCE + 3)]
        async with asyncio.timeout(10):
            told = [await first for first in itertools.islice(asyncio.as_completed(waiting), 3)]
        for answer in (*told, await those.ask("/udf/config"), await those.ask("/api/v3/time")):
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1"), answer.text
        assert {answer.json()["code"] for answer in told} == {"too_many_at_once"}
        for others in ({"address": ELSEWHERE}, {"key": those.writer.text}):
            assert (await those.ask("/udf/config", **others)).status_code == 200
        await transaction.rollback()
        await locking.close()
        assert {(await one).status_code for one in waiting} <= {200, 429, 503}
        assert (await those.ask(PAGE)).status_code == 200


async def test_each_dialect_says_it_in_its_words(plain: Database) -> None:
    async with clients(plain, klines_read_limit=30) as those:
        while (answer := await those.ask("/api/v3/exchangeInfo")).status_code == 200:
            assert int(answer.headers["x-mbx-used-weight-1m"]) + left(answer, "read") == 30
            limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 30}
            assert answer.json()["rateLimits"] == [limit]
        assert (answer.status_code, answer.json()["code"]) == (429, -1003)
        assert int(answer.headers["retry-after"]) >= 1
        assert 19 <= int(answer.headers["x-mbx-used-weight-1m"]) <= 30
        chart = await those.ask("/udf/history?symbol=PEPE&resolution=1&to=1700000000&countback=5000")
        while chart.status_code == 200:
            chart = await those.ask("/udf/history?symbol=PEPE&resolution=1&to=1700000000&countback=5000")
        assert (chart.status_code, chart.json()["s"]) == (429, "error")
        assert int(chart.headers["retry-after"]) >= 1


async def test_alone_on_its_machine_nobody_is_limited(plain_client: httpx.AsyncClient) -> None:
    answer = await plain_client.get("/api/v3/exchangeInfo")
    # It flows back at a hundred a second.
    assert 0 < int(answer.headers["x-mbx-used-weight-1m"]) <= 40
    assert "ratelimit" not in answer.headers


async def test_streams_weigh_what_is_read_for_them(plain: Database) -> None:
    async with clients(plain, klines_read_limit=20) as those, AsyncExitStack() as stack:
        assert (await those.post(1)).status_code == 200
        page = "/ws/klines/PEPE/59s?history=300"
        assert [await upgrade(those, stack, path=page) for _ in range(2)] == [(101, ""), (429, "rate_limited")]
        assert await upgrade(those, stack, path="/ws/klines/PEPE/59s") == (101, "")
        names = [f"pepe@kline_{Width(seconds).name}" for seconds in sorted(CUSTOMARY)]
        assert await upgrade(those, stack, path=f"/stream?streams={'/'.join(names)}") == (429, "rate_limited")
        target = address_of(those.service, "/ws")
        async with connect(target, proxy=None, additional_headers=fields(ELSEWHERE)) as socket:
            for many, code in ((names[:8], None), (names[:9], None), (names, -1003)):
                await socket.send(json.dumps({"method": "SUBSCRIBE", "params": many, "id": len(many)}))
                while (told := json.loads(await socket.recv())).get("id") != len(many):
                    pass
                assert told.get("code") == code, told


async def upgrade(
    those: Clients, stack: AsyncExitStack, address: str = HERE, key: str = "", path: str = "/ws"
) -> tuple[int, str]:
    """Open a socket that stays; the status of the answer, and the code of a refusal."""
    target = address_of(those.service, path)
    opening = connect(target, proxy=None, compression=None, close_timeout=2, additional_headers=fields(address, key))
    try:
        connection: ClientConnection = await stack.enter_async_context(opening)
    except InvalidStatus as refused:
        assert int(refused.response.headers["Retry-After"]) >= 1
        return refused.response.status_code, json.loads(refused.response.body or b"{}")["code"]
    assert connection.response is not None
    return connection.response.status_code, ""


async def test_upgrades_are_limited_for_each_client(plain: Database) -> None:
    async with clients(plain, klines_upgrade_limit=2) as those, AsyncExitStack() as stack:
        told = [await upgrade(those, stack) for _ in range(3)]
        assert told == [(101, ""), (101, ""), (429, "rate_limited")]
        assert await upgrade(those, stack, ELSEWHERE) == (101, "")
        assert (await those.ask(PAGE)).status_code == 200


async def test_connections_are_limited_for_each_client_and_in_all(plain: Database) -> None:
    async with clients(plain, klines_client_connections=2, max_connections=5) as those, AsyncExitStack() as stack:
        key = (await made(plain, "read")).text
        assert [(await upgrade(those, stack))[0] for _ in range(2)] == [101, 101]
        assert await upgrade(those, stack) == (429, "client_connections_exhausted")
        assert [(await upgrade(those, stack, key=key))[0] for _ in range(2)] == [101, 101]
        assert await upgrade(those, stack, key=key) == (429, "client_connections_exhausted")
        async with AsyncExitStack() as last:
            assert await upgrade(those, last, ELSEWHERE) == (101, "")
            assert await upgrade(those, stack, "198.51.100.3") == (503, "connections_exhausted")


async def test_none_is_no_limit(plain: Database) -> None:
    none = {f"klines_{budget}_limit": 0 for budget in ("read", "write", "upgrade", "login")}
    async with clients(plain, **none) as those, AsyncExitStack() as stack:
        for n in range(12):
            assert (await those.ask(PAGE, key="klk_x")).status_code == 401
            assert (await upgrade(those, stack))[0] == 101
            answer = await those.post(1, first=n)
            assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
