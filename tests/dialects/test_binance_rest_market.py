"""`/api/v3/exchangeInfo` and the tickers: every token as a market, with the numbers of the native API."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
import httpx
import pytest

from tests.application import serving, settings_for
from tests.dialects.spot import HOUR, get, post, refused, trade
from tests.servers import Database
from tests.storage.bars import retire

# What the strictest of the verified clients decodes.
MEMBERS = {
    *("symbol", "status", "baseAsset", "baseAssetPrecision", "quoteAsset", "quotePrecision", "quoteAssetPrecision"),
    *(
        "baseCommissionPrecision",
        "quoteCommissionPrecision",
        "orderTypes",
        "icebergAllowed",
        "ocoAllowed",
        "otoAllowed",
    ),
    *("opoAllowed", "quoteOrderQtyMarketAllowed", "allowTrailingStop", "cancelReplaceAllowed", "amendAllowed"),
    *("pegInstructionsAllowed", "isSpotTradingAllowed", "isMarginTradingAllowed", "filters", "permissions"),
    *("permissionSets", "defaultSelfTradePreventionMode", "allowedSelfTradePreventionModes"),
}


def ago(trade_id: int, ago_ms: int, price: str, amount: str = "1", symbol: str = "PEPE") -> dict[str, Any]:
    return trade(trade_id, time.time_ns() // 1_000_000 - ago_ms, price, amount, symbol=symbol)


@pytest.fixture
async def market(client: httpx.AsyncClient) -> httpx.AsyncClient:
    await post(
        client,
        ago(1, 49 * HOUR, "90"),
        ago(2, 25 * HOUR, "100", "4"),
        ago(3, 23 * HOUR, "2", "10"),
        ago(4, 5 * HOUR, "5"),
        ago(5, 1000, "3", "0.5"),
        ago(7, 48 * HOUR, "0.00000123", symbol="CAT-SOL"),
    )
    await client.put("/api/v1/tokens/NEW", json={"base": "New", "quote": "USDC", "decimals": 6})
    return client


async def symbols(client: httpx.AsyncClient, path: str = "ticker/price", **query: Any) -> list[str]:
    body = await get(client, path, **query)
    return [one["symbol"] for one in (body["symbols"] if path == "exchangeInfo" else body)]


async def test_the_day_is_the_native_one(market: httpx.AsyncClient) -> None:
    day = await get(market, "ticker/24hr", symbol="pepe")
    native = (await market.get("/api/v1/tokens/PEPE")).json()
    assert day | {"openTime": 0, "closeTime": 0} == {
        "symbol": "PEPE",
        "priceChange": native["price_change_24h"],
        "priceChangePercent": native["price_change_percent_24h"],
        "weightedAvgPrice": "2.30434783",  # 26.5 / 11.5
        "prevClosePrice": "100",
        "lastPrice": "3",
        "lastQty": "0.5",
        **{"bidPrice": "3", "bidQty": "0", "askPrice": "3", "askQty": "0"},
        **{"openPrice": "2", "highPrice": "5", "lowPrice": "2"},
        "volume": native["volume_24h"],
        "quoteVolume": native["quote_volume_24h"],
        **{"openTime": 0, "closeTime": 0, "firstId": 3, "lastId": 5, "count": 3},
    }
    assert (day["volume"], day["quoteVolume"], day["priceChange"], day["priceChangePercent"]) == (
        *("11.5", "26.5", "1", "50"),
    )
    assert day["openTime"] % 60_000 == 0
    assert 24 * HOUR <= day["closeTime"] - day["openTime"] < 24 * HOUR + 60_000
    assert abs(day["closeTime"] - time.time() * 1000) < 60_000


async def test_the_small_day_is_a_part_of_it(market: httpx.AsyncClient) -> None:
    full, mini = [await get(market, "ticker/24hr", symbol="PEPE", type=kind) for kind in ("FULL", "MINI")]
    names = "symbol openPrice highPrice lowPrice lastPrice volume quoteVolume openTime closeTime firstId lastId count"
    assert set(mini) == set(names.split())
    assert {name: full[name] for name in mini if not name.endswith("Time")} == {
        name: mini[name] for name in mini if not name.endswith("Time")
    }


async def test_a_quiet_token_and_a_new_one(market: httpx.AsyncClient) -> None:
    quiet = await get(market, "ticker/24hr", symbol="CAT-SOL")
    for name in ("openPrice", "highPrice", "lowPrice", "lastPrice", "prevClosePrice", "weightedAvgPrice"):
        assert quiet[name] == "0.00000123", name
    assert [quiet[name] for name in ("priceChange", "volume", "count", "firstId", "lastId")] == ["0", "0", 0, -1, -1]
    new = await get(market, "ticker/24hr", symbol="NEW")
    assert {new[name] for name in new if name.endswith(("Price", "Qty", "olume", "Change", "Percent"))} == {"0"}
    assert await get(market, "ticker/price", symbol="NEW") == {"symbol": "NEW", "price": "0"}


async def test_the_close_before_the_day_is_the_later_of_a_live_and_a_retired_bar(timescale: Database) -> None:
    day = 24 * HOUR
    connection = await asyncpg.connect(timescale.url)
    try:
        async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
            await post(client, ago(1, 20 * day, "50"), ago(2, 10 * day, "60"), ago(3, 1000, "70"))
            await retire(connection, "2 days")
            assert (await get(client, "ticker/24hr", symbol="PEPE"))["prevClosePrice"] == "60"
            await post(client, ago(4, 20 * day, "51"))
            assert (await get(client, "ticker/24hr", symbol="PEPE"))["prevClosePrice"] == "60"
            await post(client, ago(5, 9 * day, "61"))
            assert (await get(client, "ticker/24hr", symbol="PEPE"))["prevClosePrice"] == "61"
    finally:
        await connection.close()


async def test_one_several_or_all(market: httpx.AsyncClient) -> None:
    assert await get(market, "ticker/price", symbol="cat-sol") == {"symbol": "CAT-SOL", "price": "0.00000123"}
    assert await get(market, "ticker/bookTicker", symbol="PEPE") == {
        **{"symbol": "PEPE", "bidPrice": "3", "bidQty": "0", "askPrice": "3", "askQty": "0"}
    }
    for path in ("ticker/24hr", "ticker/price", "ticker/bookTicker", "exchangeInfo"):
        assert await symbols(market, path) == ["CAT-SOL", "NEW", "PEPE"]
        assert await symbols(market, path, symbols='["pepe","NEW"]') == ["NEW", "PEPE"]
        assert await symbols(market, path, symbols='["PEPE"]') == ["PEPE"]
        assert (await refused(market, path, symbols='["PEPE","GONE"]'))[0] == -1121
        assert (await refused(market, path, symbol="GONE"))[0] == -1121
        assert (await refused(market, path, symbol="PEPE", symbols='["PEPE"]'))[0] == -1128
        assert (await refused(market, path, symbols='["PEPE","pepe"]'))[0] == -1151
        assert (await refused(market, path, symbols="PEPE"))[0] == -1100
        assert (await refused(market, path, symbols="[]"))[0] == -1130


async def test_a_status_that_no_token_has(market: httpx.AsyncClient) -> None:
    assert await symbols(market, symbolStatus="TRADING", symbols='["PEPE"]') == ["PEPE"]
    assert await symbols(market, symbolStatus="HALT") == []
    assert (await refused(market, "ticker/24hr", symbol="PEPE", symbolStatus="BREAK"))[0] == -1220
    assert await symbols(market, "exchangeInfo", symbolStatus="HALT") == []
    assert (await refused(market, "exchangeInfo", symbol="PEPE", symbolStatus="TRADING"))[0] == -1128


async def test_the_thousand_tokens_traded_last(plain_client: httpx.AsyncClient) -> None:
    await post(plain_client, *(ago(1, n * 1000, "1", symbol=f"T{n:04}") for n in range(1002)))
    for path in ("ticker/price", "ticker/24hr", "exchangeInfo"):
        assert await symbols(plain_client, path) == [f"T{n:04}" for n in range(1000)]


async def test_a_symbol_has_all_that_clients_need(market: httpx.AsyncClient) -> None:
    info = await get(market, "exchangeInfo", symbol="CAT-SOL")
    assert list(info) == ["timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"]
    (symbol,) = info["symbols"]
    assert set(symbol) == MEMBERS
    assert (symbol["status"], symbol["permissions"], symbol["isSpotTradingAllowed"]) == ("TRADING", ["SPOT"], True)
    assert (symbol["baseAsset"], symbol["quoteAsset"], symbol["permissionSets"]) == ("CAT", "SOL", [["SPOT"]])
    price, lot, notional = symbol["filters"]
    assert (price["filterType"], price["tickSize"]) == ("PRICE_FILTER", "0.00000001")
    assert (lot["filterType"], lot["stepSize"]) == ("LOT_SIZE", "0.00000001")
    assert notional["filterType"] == "NOTIONAL"
    assert all(type(symbol[name]) is int for name in MEMBERS if name.endswith("Precision"))


@pytest.mark.parametrize(
    ("price", "decimals"),
    [("3", 8), ("1.50", 8), ("0.00000123", 8), ("0.0000000123", 10), ("123.000000001", 9), ("0." + "0" * 29 + "7", 18)],
)
async def test_the_tick_has_the_decimals_of_the_price(
    plain_client: httpx.AsyncClient, price: str, decimals: int
) -> None:
    await post(plain_client, ago(1, 1000, price))
    (symbol,) = (await get(plain_client, "exchangeInfo", symbol="PEPE"))["symbols"]
    tick = "0." + "0" * (decimals - 1) + "1"
    assert (symbol["filters"][0]["tickSize"], symbol["filters"][0]["minPrice"]) == (tick, tick)
    assert symbol["quotePrecision"] == symbol["quoteAssetPrecision"] == decimals


async def test_a_token_without_a_price_has_eight_decimals(market: httpx.AsyncClient) -> None:
    (symbol,) = (await get(market, "exchangeInfo", symbol="NEW"))["symbols"]
    assert (symbol["filters"][0]["tickSize"], symbol["quotePrecision"]) == ("0.00000001", 8)


@pytest.mark.parametrize(
    ("symbol", "facts", "pair"),
    [
        ("NEW", {"base": "New", "quote": "USDC"}, ("New", "USDC")),
        ("BONK", {}, ("BONK", "XXX")),
        ("A-B-C", {}, ("A-B", "C")),
        ("A:B", {}, ("A", "B")),
        ("A_B:C", {"quote": "SOL"}, ("A_B", "SOL")),
        ("-A", {}, ("-A", "XXX")),
        ("狗狗-币", {}, ("狗狗", "币")),
    ],
)
async def test_base_and_quote(
    plain_client: httpx.AsyncClient, symbol: str, facts: dict[str, str], pair: tuple[str, str]
) -> None:
    await plain_client.put(f"/api/v1/tokens/{symbol}", json=facts)
    (found,) = (await get(plain_client, "exchangeInfo", symbol=symbol))["symbols"]
    assert (found["symbol"], found["baseAsset"], found["quoteAsset"]) == (symbol, *pair)


async def test_decimals_decide_the_lot(market: httpx.AsyncClient) -> None:
    (symbol,) = (await get(market, "exchangeInfo", symbol="NEW"))["symbols"]
    assert (symbol["baseAssetPrecision"], symbol["filters"][1]["stepSize"]) == (6, "0.000001")


async def test_permissions(market: httpx.AsyncClient) -> None:
    assert len(await symbols(market, "exchangeInfo", permissions="SPOT")) == 3
    assert len(await symbols(market, "exchangeInfo", permissions='["MARGIN","SPOT"]')) == 3
    assert await symbols(market, "exchangeInfo", permissions="LEVERAGED") == []
    assert (await refused(market, "exchangeInfo", permissions="spot"))[0] == -1100
    assert (await refused(market, "exchangeInfo", permissions="SPOT", symbol="PEPE"))[0] == -1128
    (symbol,) = (await get(market, "exchangeInfo", symbol="PEPE", showPermissionSets="false"))["symbols"]
    assert symbol["permissionSets"] == []


async def test_a_symbol_of_any_script(plain_client: httpx.AsyncClient) -> None:
    await post(plain_client, ago(1, 1000, "1.50", symbol="$狗.币-1:a"))
    answer = await plain_client.get("/api/v3/ticker/price?symbol=%24%E7%8B%97.%E5%B8%81-1%3AA")
    assert answer.json() == {"symbol": "$狗.币-1:A", "price": "1.5"}
    assert len(await get(plain_client, "klines", symbol="$狗.币-1:A", interval="1d")) == 1
