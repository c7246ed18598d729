"""`/api/v3/trades`, `historicalTrades` and `aggTrades`: the stored trades, and paging through them as clients do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.dialects.spot import BASE, HOUR, get, post, refused, trade

COUNT = 2500


def stored(trade_id: int) -> dict[str, Any]:
    """One of many trades, three to a millisecond."""
    side = "sell" if trade_id % 3 else "buy"
    price = f"0.00000000{trade_id % 89 + 10}"
    return trade(trade_id, 0, price, "123456789.25", side=side) | {"time": (BASE + trade_id // 3)}


@pytest.fixture
async def tape(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    trades = [stored(trade_id) for trade_id in range(COUNT)]
    await post(client, *trades)
    return trades


def plain(one: dict[str, Any]) -> dict[str, Any]:
    total = format((Decimal(one["price"]) * Decimal(one["amount"])).normalize(), "f")
    price = format(Decimal(one["price"]).normalize(), "f")
    return {
        "id": one["trade_id"],
        "price": price,
        "qty": one["amount"],
        "quoteQty": total,
        "time": one["time"],
        "isBuyerMaker": one["side"] == "sell",
        "isBestMatch": True,
    }


def aggregate(one: dict[str, Any]) -> dict[str, Any]:
    told, number = plain(one), one["trade_id"]
    return {
        **{"a": number, "p": told["price"], "q": told["qty"], "f": number, "l": number},
        **{"T": told["time"], "m": told["isBuyerMaker"], "M": True},
    }


async def ids(client: httpx.AsyncClient, **query: Any) -> list[int]:
    return [one["a"] for one in await get(client, "aggTrades", symbol="PEPE", **query)]


async def test_the_latest_trades(client: httpx.AsyncClient, tape: list[dict[str, Any]]) -> None:
    for path in ("trades", "historicalTrades"):
        assert await get(client, path, symbol="pepe") == [plain(one) for one in tape[-500:]]
        assert len(await get(client, path, symbol="PEPE", limit=5000)) == 1000
    assert await get(client, "aggTrades", symbol="PEPE", limit=7) == [aggregate(one) for one in tape[-7:]]


async def test_trades_from_an_id_on(client: httpx.AsyncClient, tape: list[dict[str, Any]]) -> None:
    found = await get(client, "historicalTrades", symbol="PEPE", fromId=1200, limit=10)
    assert found == [plain(one) for one in tape[1200:1210]]
    assert await get(client, "aggTrades", symbol="PEPE", fromId=0) == [aggregate(one) for one in tape[:500]]
    assert await ids(client, fromId=COUNT) == []
    assert await ids(client, fromId=2**63 - 1) == []


async def test_ids_ascend_where_their_times_do_not(client: httpx.AsyncClient) -> None:
    await post(client, *(trade(n, BASE + (n * 7919 % 50) * HOUR) for n in range(50)))
    found: list[int] = []
    while page := await ids(client, fromId=found[-1] + 1 if found else 0, limit=8):
        found += page
    assert found == list(range(50))


async def test_paging_by_time_and_then_by_id(client: httpx.AsyncClient, tape: list[dict[str, Any]]) -> None:
    # The last trade of a page is asked for once more, as the first of the next.
    found = await ids(client, startTime=BASE - HOUR + 1, endTime=BASE + 1)
    while len(page := await ids(client, fromId=found[-1], limit=700)) > 1:
        assert page[0] == found[-1]
        found += page[1:]
    assert found == list(range(COUNT))


async def test_both_ends_are_inclusive(client: httpx.AsyncClient, tape: list[dict[str, Any]]) -> None:
    assert await ids(client, startTime=BASE + 10, endTime=BASE + 11) == list(range(30, 36))
    assert await ids(client, startTime=BASE + 10, endTime=BASE + 10) == [30, 31, 32]
    assert await ids(client, startTime=BASE + 10, limit=4) == [30, 31, 32, 33]
    assert await ids(client, endTime=BASE + 10, limit=4) == [29, 30, 31, 32]
    assert await ids(client, startTime=BASE + 11, endTime=BASE + 10) == []


async def test_an_end_in_milliseconds_holds_the_whole_millisecond(client: httpx.AsyncClient) -> None:
    moments = (BASE * 1000, BASE * 1000 + 999, BASE * 1000 + 1000)
    await post(client, *(trade(n, 0) | {"time": iso(moment)} for n, moment in enumerate(moments)))
    assert await ids(client, endTime=BASE) == [0, 1]
    assert await ids(client, endTime=moments[0]) == [0]
    assert await ids(client, startTime=moments[1], endTime=moments[2]) == [1, 2]
    headers = {"X-MBX-TIME-UNIT": "microsecond"}
    told = [one["time"] for one in await get(client, "trades", symbol="PEPE", headers=headers)]
    assert told == list(moments)


def iso(time_us: int) -> str:
    return f"2023-11-15T00:00:00.{time_us - BASE * 1000:06}Z"


async def test_an_id_goes_without_times(client: httpx.AsyncClient, tape: list[dict[str, Any]]) -> None:
    number, message = await refused(client, "aggTrades", symbol="PEPE", fromId=1, startTime=BASE)
    assert number == -1128
    assert "fromId" in message


async def test_a_token_without_trades(plain_client: httpx.AsyncClient) -> None:
    await plain_client.put("/api/v1/tokens/PEPE", json={})
    for path in ("trades", "historicalTrades", "aggTrades"):
        assert await get(plain_client, path, symbol="PEPE") == []
    assert await ids(plain_client, fromId=0) == []
