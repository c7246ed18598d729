"""`GET /api/v1/klines`: the range, limit and fill rules of the contract, over a real socket."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import httpx
import pytest

from klines.models import Trade
from tests import oracle

BASE = 1_700_000_100_000  # 2023-11-14T22:15:00Z, a whole minute
MINUTE = 60_000


def item(trade: Trade) -> dict[str, Any]:
    """The trade as a client posts it."""
    return {**trade._asdict()}


async def post(client: httpx.AsyncClient, trades: list[Trade]) -> None:
    answer = await client.post("/api/v1/trades", json={"trades": [item(trade) for trade in trades]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["inserted"] == len(trades)


async def klines(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    # `from` is no keyword argument.
    parameters = {name.rstrip("_"): value for name, value in query.items()}
    answer = await client.get("/api/v1/klines/PEPE", params=parameters)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["symbol"] == "PEPE"
    assert body["interval"] == parameters.get("interval", "1m")
    rows: list[dict[str, Any]] = body["klines"]
    assert rows == sorted(rows, key=lambda row: row["open_time"])
    return rows


@pytest.fixture
async def tape(client: httpx.AsyncClient) -> list[Trade]:
    """Two trades a minute in minutes 0, 1, 2, 5 and 9."""
    trades = [
        Trade(
            "PEPE", minute * 10 + n, (BASE + minute * MINUTE + n * 1500) * 1000, f"0.0000{minute + 1}{n}", "7.5", "buy"
        )
        for minute in (0, 1, 2, 5, 9)
        for n in (1, 2)
    ]
    await post(client, trades)
    return trades


def minutes(rows: list[dict[str, Any]]) -> list[int]:
    return [(row["open_time"] - BASE) // MINUTE for row in rows]


@pytest.mark.parametrize("interval", list(oracle.SECONDS))
async def test_bars_equal_the_oracle(client: httpx.AsyncClient, tape: list[Trade], interval: str) -> None:
    rows = await klines(client, interval=interval)
    expected = oracle.fold(tape, interval)
    assert [row["open_time"] for row in rows] == [opened // 1000 for opened in expected]
    for row, bar in zip(rows, expected.values(), strict=True):
        assert row["close_time"] == row["open_time"] + oracle.SECONDS[interval] * 1000 - 1
        assert row["closed"] is True
        for name, value in bar._asdict().items():
            assert (Decimal(row[name]) if isinstance(value, Decimal) else row[name]) == value, name


async def test_the_latest_without_a_range(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, limit=2)) == [5, 9]


async def test_to_alone_gives_the_latest_before_it(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, limit=2, to=BASE + 5 * MINUTE)) == [1, 2]


async def test_from_gives_the_oldest_from_it(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, limit=2, from_=BASE + MINUTE)) == [1, 2]
    assert minutes(await klines(client, limit=2, from_=BASE + MINUTE, to=BASE + 9 * MINUTE + 1)) == [1, 2]


async def test_the_range_is_half_open_on_open_times(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, from_=BASE + MINUTE, to=BASE + 5 * MINUTE)) == [1, 2]
    assert minutes(await klines(client, from_=BASE + MINUTE + 1, to=BASE + 5 * MINUTE + 1)) == [2, 5]
    assert minutes(await klines(client, from_=BASE + MINUTE, to=BASE + MINUTE)) == []


async def test_times_may_be_iso_8601(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, from_="2023-11-14T22:16:00Z", to="2023-11-15T00:20:00+02:00")) == [1, 2]


async def test_zero_means_from_the_beginning(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, from_=0, limit=1)) == [0]


async def test_fill_prev_repeats_the_close(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    rows = await klines(client, from_=BASE - 5 * MINUTE, to=BASE + 8 * MINUTE, fill="prev")
    assert minutes(rows) == [0, 1, 2, 3, 4, 5, 6, 7]
    flat = rows[3]
    assert flat["filled"] is True
    assert {flat[name] for name in ("open", "high", "low", "close")} == {rows[2]["close"]}
    assert (flat["volume"], flat["trades"], flat["first_trade_id"], flat["closed"]) == ("0", 0, None, True)
    assert "filled" not in rows[2]


async def test_fill_null_has_no_prices(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    rows = await klines(client, from_=BASE + 2 * MINUTE, to=BASE + 4 * MINUTE, fill="null")
    assert [row["close"] for row in rows] == ["0.000032", None]


async def test_fill_starts_inside_a_gap_with_the_close_before_it(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    rows = await klines(client, from_=BASE + 3 * MINUTE, to=BASE + 5 * MINUTE, fill="prev")
    assert [(row["close"], row["filled"]) for row in rows] == [("0.000032", True)] * 2


async def test_fill_reaches_the_present_and_marks_the_open_bucket(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    rows = await klines(client, interval="1h", limit=3, fill="prev")
    assert [row["closed"] for row in rows] == [True, True, False]
    assert all(row["filled"] for row in rows)
    assert rows[-1]["open_time"] <= time.time() * 1000 < rows[-1]["open_time"] + 3_600_000 + 5_000


async def test_fill_counts_filled_bars_in_the_limit(client: httpx.AsyncClient, tape: list[Trade]) -> None:
    assert minutes(await klines(client, from_=BASE, limit=4, fill="prev")) == [0, 1, 2, 3]
    assert minutes(await klines(client, to=BASE + 9 * MINUTE, limit=4, fill="prev")) == [5, 6, 7, 8]


async def test_the_open_bar_is_the_last_row(client: httpx.AsyncClient) -> None:
    now_us = time.time_ns() // 1000
    await post(client, [Trade("PEPE", 1, now_us, "1", "1", "sell")])
    for interval in ("1h", "1d"):
        (row,) = await klines(client, interval=interval)
        assert (row["closed"], row["close"], row["buy_volume"]) == (False, "1", "0")


async def test_closed_bars_carry_an_etag_until_a_late_trade_changes_them(
    client: httpx.AsyncClient, tape: list[Trade]
) -> None:
    url = f"/api/v1/klines/PEPE?from={BASE}&to={BASE + 5 * MINUTE}"
    first = await client.get(url)
    assert first.headers["cache-control"] == "public, no-cache"
    same = await client.get(url, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    await post(client, [Trade("PEPE", 99, (BASE + 1000) * 1000, "9", "1", "buy")])
    changed = await client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert changed.json()["klines"][0]["high"] == "9"


async def test_an_open_bar_is_never_cached(client: httpx.AsyncClient) -> None:
    await post(client, [Trade("PEPE", 1, time.time_ns() // 1000, "1", "1", "sell")])
    answer = await client.get("/api/v1/klines/PEPE", params={"interval": "1d"})
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


async def test_five_thousand_bars(client: httpx.AsyncClient) -> None:
    trades = [Trade("PEPE", n, (BASE + n * MINUTE) * 1000, "0.000000000001", "1", "buy") for n in range(5001)]
    lines = b"\n".join(httpx.Request("POST", "/", json=item(trade)).content for trade in trades)
    await client.post("/api/v1/trades", content=lines, headers={"Content-Type": "application/x-ndjson"})
    rows = await klines(client, limit=5000)
    assert (len(rows), minutes(rows)[0], rows[0]["open"]) == (5000, 1, "0.000000000001")


async def test_decimals_have_no_exponent_and_no_superfluous_zeros(client: httpx.AsyncClient) -> None:
    await post(client, [Trade("PEPE", 1, BASE * 1000, "1.50e-11", "7000000000000.00", "buy")])
    (row,) = await klines(client)
    assert (row["open"], row["volume"], row["quote_volume"]) == ("0.000000000015", "7000000000000", "105")


async def test_a_token_without_trades_has_no_bars(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/tokens/PEPE", json={"name": "Pepe"})
    for fill in ("none", "prev", "null"):
        assert await klines(client, fill=fill) == []
