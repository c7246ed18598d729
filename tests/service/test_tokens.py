"""`/api/v1/tokens`: what is known of tokens, and their last 24 hours."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

HOUR = 3_600_000


def trade(symbol: str, trade_id: int, ago_ms: int, price: str, amount: str = "1") -> dict[str, Any]:
    at = int(time.time() * 1000) - ago_ms
    return {"symbol": symbol, "trade_id": trade_id, "time": at, "price": price, "amount": amount, "side": "buy"}


async def post(client: httpx.AsyncClient, *trades: dict[str, Any]) -> None:
    assert (await client.post("/api/v1/trades", json={"trades": list(trades)})).status_code == 200


async def symbols(client: httpx.AsyncClient, **query: Any) -> list[str]:
    return [row["symbol"] for row in (await client.get("/api/v1/tokens", params=query)).json()["tokens"]]


async def test_the_last_24_hours(client: httpx.AsyncClient) -> None:
    await post(
        client,
        trade("PEPE", 1, 25 * HOUR, "100"),
        trade("PEPE", 2, 23 * HOUR, "2", "10"),
        trade("PEPE", 3, 5 * HOUR, "5"),
        trade("PEPE", 4, 1000, "3"),
    )
    token = (await client.get("/api/v1/tokens/pepe")).json()
    told = {name: token[name] for name in token if name.endswith("_24h") or name == "last_price"}
    assert told == {
        "last_price": "3",
        "price_change_24h": "1",
        "price_change_percent_24h": "50",
        "high_24h": "5",
        "low_24h": "2",
        "volume_24h": "12",
        "quote_volume_24h": "28",
        "trades_24h": 3,
    }


async def test_a_token_without_recent_trades_has_not_changed(client: httpx.AsyncClient) -> None:
    await post(client, trade("DEAD", 1, 48 * HOUR, "7"))
    token = (await client.get("/api/v1/tokens/DEAD")).json()
    assert (token["last_price"], token["price_change_24h"], token["volume_24h"]) == ("7", "0", "0")


async def test_a_token_is_registered_and_replaced(client: httpx.AsyncClient) -> None:
    facts = {"name": "Pepe", "base": "PEPE", "quote": "SOL", "decimals": 6, "supply": "1e9", "metadata": {"site": "x"}}
    created = await client.put("/api/v1/tokens/pepe", json=facts)
    assert created.status_code == 201
    assert {name: created.json()[name] for name in facts} == facts | {"supply": "1000000000"}
    assert created.json()["last_price"] is None
    replaced = await client.put("/api/v1/tokens/PEPE", json={"name": "Pepe 2"})
    assert (replaced.status_code, replaced.json()["quote"], replaced.json()["metadata"]) == (200, None, {})


async def test_search_sort_and_pages(client: httpx.AsyncClient) -> None:
    await post(
        client,
        *(trade("AAA", n, 1000 + n, "1") for n in range(3)),
        trade("BBB", 1, 2000, "1", "50"),
        trade("CCC_D", 1, 2000, "1"),
        trade("CCC_D", 2, 1000, "9"),
    )
    await client.put("/api/v1/tokens/ZZZ", json={"name": "the last bbb"})
    assert await symbols(client) == ["AAA", "BBB", "CCC_D", "ZZZ"]
    assert await symbols(client, search="bb") == ["BBB", "ZZZ"]
    assert await symbols(client, search="_") == ["CCC_D"]
    assert await symbols(client, search="%") == []
    assert (await symbols(client, sort="volume"))[:2] == ["BBB", "CCC_D"]
    assert (await symbols(client, sort="change"))[0] == "CCC_D"
    assert (await symbols(client, sort="trades"))[0] == "AAA"
    assert (await symbols(client, sort="newest"))[0] == "ZZZ"
    assert await symbols(client, limit=2, offset=1) == ["BBB", "CCC_D"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"nmae":"x"}', 422, "token_invalid"),
        (b'{"decimals":37}', 422, "token_invalid"),
        (b'{"supply":"-1"}', 422, "token_invalid"),
        (b'{"name":"a\\u0000b"}', 422, "token_invalid"),
        (b'{"metadata":{"a":"\\u0000"}}', 422, "token_invalid"),
        (b'{"metadata":[]}', 422, "token_invalid"),
        (b'{"metadata":{"a":"' + b"x" * 9000 + b'"}}', 413, "metadata_too_large"),
        (b'{"name":"' + b"x" * 20_000 + b'"}', 413, "body_too_large"),
        (b"{", 400, "json_invalid"),
        (b"", 400, "json_invalid"),
    ],
)
async def test_bad_facts_are_refused(plain_client: httpx.AsyncClient, body: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await plain_client.put("/api/v1/tokens/PEPE", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await plain_client.get("/api/v1/tokens/PEPE")).status_code == 404
