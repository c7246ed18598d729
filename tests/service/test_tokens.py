"""`/api/v1/tokens`: what is known of tokens, and their last 24 hours."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest

from tests.application import serving, settings_for
from tests.faults.oracles import connected
from tests.live.followers import poll
from tests.servers import Database
from tests.storage.bars import retire

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


async def test_the_24_hours_are_those_of_the_trades_to_the_last_digit(client: httpx.AsyncClient) -> None:
    pick = random.Random(1)  # noqa: S311 - the same trades every time
    trades = [
        trade(
            pick.choice("ABCDE"),
            number,
            int(pick.random() ** 3 * 30 * HOUR),
            f"0.{pick.randint(1, 10**9):012}",
            str(pick.randint(1, 10**6)),
        )
        for number in range(3000)
    ]
    await post(client, *trades)
    told = {row["symbol"]: row for row in (await client.get("/api/v3/ticker/24hr")).json()}
    expected = {}
    for symbol, row in told.items():
        mine = sorted((one["time"], one["trade_id"], one) for one in trades if one["symbol"] == symbol)
        recent = [one for time_ms, _, one in mine if time_ms >= row["openTime"]]
        expected[symbol] = _figures(recent, before=mine[len(mine) - len(recent) - 1][2])
    names = ("prevClosePrice", "openPrice", "highPrice", "lowPrice", "volume", "quoteVolume", "count", "firstId")
    assert {symbol: [fixed(row[name]) for name in names] for symbol, row in told.items()} == expected
    # The lists show the same, each sorted by its own.
    for sort, name in (("volume", "quoteVolume"), ("trades", "count"), ("change", "priceChangePercent")):
        best = sorted(told, key=lambda symbol: (-Decimal(told[symbol][name]), symbol))
        assert await symbols(client, sort=sort) == best
        assert await symbols(client, sort=sort, limit=2, offset=1) == best[1:3]


def fixed(value: Any) -> Decimal:
    return Decimal(value)


def _figures(recent: list[dict[str, Any]], before: dict[str, Any]) -> list[Decimal]:
    prices = [Decimal(one["price"]) for one in recent]
    amounts = [Decimal(one["amount"]) for one in recent]
    quotes = [price * amount for price, amount in zip(prices, amounts, strict=True)]
    return [
        Decimal(before["price"]), prices[0], max(prices), min(prices), sum(amounts, Decimal()), sum(quotes, Decimal()),
        Decimal(len(recent)), Decimal(recent[0]["trade_id"]),
    ]  # fmt: skip


async def test_the_close_before_the_24_hours_may_have_retired(timescale: Database) -> None:
    async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
        old = [trade(symbol, 1, 150 * HOUR, "7") for symbol in ("OLD", "NEW", "LATE")] + [
            trade("NEW", 2, 50 * HOUR, "4")
        ]
        await post(client, *old, *(trade(symbol, 3, 1000, "5") for symbol in ("OLD", "NEW", "LATE")))
        async with connected(timescale.url) as jobs:
            await retire(jobs, "4 days")
            live = "SELECT count(*) FROM klines_internal.live_klines WHERE seconds = 60"
            assert await jobs.fetchval(live) == 4
        # A bar that a late trade brings back is older than one that stays retired.
        await post(client, trade("LATE", 4, 200 * HOUR, "2"))
        told = {row["symbol"]: row["prevClosePrice"] for row in (await client.get("/api/v3/ticker/24hr")).json()}
        assert told == {"OLD": "7", "NEW": "4", "LATE": "7"}


async def test_those_who_ask_the_same_at_once_are_read_for_together(plain: Database) -> None:
    reading = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%symbol%'"
    )
    async with (
        serving(settings_for(plain)) as url,
        httpx.AsyncClient(base_url=url) as client,
        connected(plain.url) as psql,
        # Not in the transaction: there activity is what it was at the first look.
        connected(plain.url) as watch,
    ):
        await post(client, trade("PEPE", 1, 1000, "1"))
        for path in ("/api/v1/tokens?sort=volume", "/api/v3/ticker/24hr"):
            async with psql.transaction():
                await psql.execute("LOCK TABLE klines_internal.feeds IN ACCESS EXCLUSIVE MODE")
                asking = [asyncio.create_task(client.get(path)) for _ in range(8)]
                await poll(partial(watch.fetchval, f"SELECT ({reading}) > 0"))
                # All of them are in the service once a later request is answered.
                assert (await client.get("/health/live")).status_code == 200
                assert await watch.fetchval(reading) == 1
            answers = {(answer.status_code, answer.content) for answer in await asyncio.gather(*asking)}
            assert {status for status, _ in answers} == {200}
            assert len(answers) <= 2


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
