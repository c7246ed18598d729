"""What the Binance dialect refuses and how, the weights it counts, and what it leaves to the rest of the service."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.application import serving, settings_for
from tests.dialects.spot import BASE, get, post, refused, trade
from tests.servers import Database, Server

KLINES = "klines?symbol=PEPE&interval=1m"

# target, number, a part of the message
REFUSALS = [
    ("klines?symbol=GONE&interval=1m", -1121, "Invalid symbol."),
    ("klines?symbol=A%20B&interval=1m", -1100, "'symbol'"),
    ("klines?symbol=BTC/USDT&interval=1m", -1100, "legal range"),
    (f"klines?symbol={'A' * 33}&interval=1m", -1100, "'symbol'"),
    *((f"klines?symbol=PEPE&interval={name}", -1120, "Invalid interval.") for name in ("1M", "0m", "60", "8d", "1H")),
    ("klines?interval=1m", -1102, "Mandatory parameter 'symbol'"),
    ("klines?symbol=PEPE", -1102, "Mandatory parameter 'interval'"),
    ("trades", -1102, "Mandatory parameter 'symbol'"),
    ("klines?symbol=&interval=1m", -1105, "Parameter 'symbol' was empty."),
    (f"{KLINES}&startTime=", -1105, "Parameter 'startTime' was empty."),
    *(
        (f"{KLINES}&limit={text}", -1100, "'limit'; legal range is '^[0-9]{1,20}$'")
        for text in ("x", "-1", "1.0", "1e3")
    ),
    (f"{KLINES}&limit=0", -1130, "'limit'"),
    *((f"{KLINES}&startTime={text}", -1100, "'startTime'") for text in ("-1", "now", "1e12", "9" * 21)),
    (f"{KLINES}&timeZone=x", -1130, "'timeZone'"),
    (f"{KLINES}&timeZone=-12:15", -1130, "'timeZone'"),
    (f"{KLINES}&star_time=1&b=2", -1104, "read '2' parameter(s) but was sent '4'. Unknown: 'star_time'"),
    ("ping?x=1", -1104, "read '0' parameter(s) but was sent '1'"),
    ("time?symbol=PEPE", -1104, "known: none"),
    (f"{KLINES}&symbol=PEPE", -1101, "Duplicate values"),
    ("klines?" + "&".join(f"p{n}=1" for n in range(30)), -1101, "expected '20' and received '30'"),
    (f"{KLINES}&limit=%ff", -1100, "UTF-8"),
    ("historicalTrades?symbol=PEPE&fromId=-1", -1100, "'fromId'"),
    (f"aggTrades?symbol=PEPE&fromId={2**63}", -1130, "'fromId'"),
    ("ticker/24hr?symbol=PEPE&type=mini", -1130, "FULL MINI"),
    ("ticker/price?symbols=%5B1%5D", -1100, "'symbols'"),
    ("ticker/price?symbolStatus=OPEN", -1130, "'symbolStatus'"),
    ("exchangeInfo?showPermissionSets=yes", -1130, "true false"),
    ("avgPrice?symbol=GONE", -1121, "Invalid symbol."),
]


@pytest.fixture
async def market(plain_client: httpx.AsyncClient) -> httpx.AsyncClient:
    await post(plain_client, trade(1, BASE))
    return plain_client


async def test_the_table(market: httpx.AsyncClient) -> None:
    wrong = []
    for target, number, part in REFUSALS:
        answer = await market.get(f"/api/v3/{target}")
        body = answer.json()
        if answer.status_code != 400 or body.get("code") != number or part not in body.get("msg", ""):
            wrong.append(f"{target[:80]}: expected {number} {part}, got {answer.status_code} {answer.text}")
    assert not wrong, "\n".join(wrong)


async def test_a_time_unit_that_is_none(market: httpx.AsyncClient) -> None:
    for path in ("time", KLINES, "ticker/price", "trades?symbol=PEPE"):
        answer = await market.get(f"/api/v3/{path}", headers={"X-MBX-TIME-UNIT": "SECOND"})
        assert (answer.status_code, answer.json()["code"]) == (400, -1194)


async def test_ping_and_time(market: httpx.AsyncClient) -> None:
    assert await get(market, "ping") == {}
    before = time.time_ns()
    milliseconds = (await get(market, "time"))["serverTime"]
    microseconds = (await get(market, "time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"}))["serverTime"]
    assert before // 1_000_000 <= milliseconds <= microseconds // 1000
    assert microseconds <= time.time_ns() // 1000


async def test_a_key_is_not_looked_at(market: httpx.AsyncClient) -> None:
    for key in ("", "anything"):
        assert await get(market, "ping", headers={"X-MBX-APIKEY": key}) == {}


async def test_other_methods_and_other_paths_are_problems(market: httpx.AsyncClient) -> None:
    for method, path, status in (("POST", "klines", 405), ("GET", "../v1/klines/GONE", 404)):
        answer = await market.request(method, f"/api/v3/{path}")
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_the_native_api_keeps_its_problems_and_its_document(market: httpx.AsyncClient) -> None:
    answer = await market.get("/api/v1/klines/PEPE?limit=0")
    assert (answer.status_code, answer.json()["code"]) == (400, "limit_invalid")
    assert not [path for path in (await market.get("/schema")).json()["paths"] if path.startswith("/api/v3")]


async def test_head_is_get_without_the_body(market: httpx.AsyncClient) -> None:
    head = await market.head(f"/api/v3/{KLINES}")
    assert (head.status_code, head.content) == (200, b"")
    assert "x-mbx-used-weight-1m" in head.headers


async def test_without_a_database_clients_may_try_again(server: Server) -> None:
    with server.database("plain") as database:
        async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as client:
            await post(client, trade(1, BASE))
            server.execute(f'ALTER DATABASE "{database.name}" ALLOW_CONNECTIONS false')
            server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.name}'")
            answer = await client.get(f"/api/v3/{KLINES}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["code"] == -1001
            assert "x-mbx-used-weight" in answer.headers


# target, weight
WEIGHTS: list[tuple[str, int]] = [
    ("ping", 1),
    ("time", 1),
    ("exchangeInfo?symbol=PEPE", 20),
    ("exchangeInfo", 40),
    (KLINES, 2),
    (KLINES.replace("klines", "uiKlines"), 2),
    ("avgPrice?symbol=PEPE", 2),
    ("trades?symbol=PEPE", 25),
    ("historicalTrades?symbol=PEPE", 25),
    ("aggTrades?symbol=PEPE", 4),
    ("ticker/24hr?symbol=PEPE", 2),
    ("ticker/24hr?symbols=" + str([f"T{n}" for n in range(21)]).replace("'", '"').replace(" ", ""), 40),
    ("ticker/24hr?symbols=" + str([f"T{n}" for n in range(101)]).replace("'", '"').replace(" ", ""), 80),
    ("ticker/24hr", 80),
    ("ticker/price?symbol=PEPE", 2),
    ("ticker/price?symbols=[%22PEPE%22]", 4),
    ("ticker/price", 40),
    ("ticker/bookTicker?symbol=PEPE", 2),
    ("ticker/bookTicker", 40),
    ("klines?symbol=GONE&interval=1m", 2),
    ("klines", 2),
]


async def test_every_answer_tells_what_its_client_has_used(plain: Database) -> None:
    # Of so small a limit nothing flows back meanwhile; alone on its machine nobody is refused for it.
    async with serving(settings_for(plain, klines_read_limit=1)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, trade(1, BASE))
        told = [await used(client, target) for target, _ in WEIGHTS]
    assert told == [sum(weight for _, weight in WEIGHTS[: n + 1]) for n in range(len(WEIGHTS))]


async def used(client: httpx.AsyncClient, target: str) -> int:
    headers: Any = (await client.get(f"/api/v3/{target}")).headers
    assert headers["x-mbx-used-weight"] == headers["x-mbx-used-weight-1m"]
    return int(headers["x-mbx-used-weight"])


async def test_refused_says_what_it_shows(market: httpx.AsyncClient) -> None:
    assert await refused(market, "klines", symbol="GONE", interval="1m") == (-1121, "Invalid symbol.")


async def test_what_is_not_served_is_told_in_the_dialect(plain_client: httpx.AsyncClient) -> None:
    for path in ("depth?symbol=GONE", "ticker/tradingDay", "nothing/at/all"):
        answer = await plain_client.get(f"/api/v3/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, -1000)
        assert "x-mbx-used-weight-1m" in answer.headers
