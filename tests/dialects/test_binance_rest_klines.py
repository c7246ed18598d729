"""`/api/v3/klines`: Binance's rows are the native bars with `fill=prev`, in ranges whose ends are both inclusive."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.application import serving, settings_for
from tests.dialects.spot import BASE, HOUR, MINUTE, dense, get, post, refused, row, trade
from tests.servers import Database

TRADED = (0, 1, 2, 5, 9)


async def klines(client: httpx.AsyncClient, **query: Any) -> list[list[Any]]:
    rows: list[list[Any]] = await get(client, "klines", **{"symbol": "PEPE", "interval": "1m", **query})
    assert [one[0] for one in rows] == sorted({one[0] for one in rows})
    return rows


def minutes(rows: list[list[Any]]) -> list[int]:
    return [(one[0] - BASE) // MINUTE for one in rows]


@pytest.fixture
async def market(plain: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Two trades a minute in the minutes `TRADED`."""
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        await fill(client)
        yield client


async def fill(client: httpx.AsyncClient) -> None:
    sides = {1: "buy", 2: "sell"}
    await post(
        client,
        *(
            trade(m * 10 + n, BASE + m * MINUTE + n * 1500, f"0.0000{m + 1}{n}", "7.5", side=sides[n])
            for m in TRADED
            for n in (1, 2)
        ),
    )


async def test_a_row_is_the_native_bar(client: httpx.AsyncClient) -> None:
    await fill(client)
    for path in ("klines", "uiKlines"):
        rows = await get(client, path, symbol="pepe", interval="1m", startTime=0, limit=1)
        bought, sold = Decimal("0.000011") * Decimal("7.5"), Decimal("0.000012") * Decimal("7.5")
        assert rows == [
            [
                *(BASE, "0.000011", "0.000012", "0.000011", "0.000012", "15", BASE + MINUTE - 1),
                *(str(bought + sold).rstrip("0"), 2, "7.5", str(bought).rstrip("0"), "0"),
            ]
        ]


@pytest.mark.parametrize("interval", ["1s", "3m", "45s", "15m", "2h", "8h", "1d", "3d", "1w"])
async def test_every_interval_is_the_native_one(market: httpx.AsyncClient, interval: str) -> None:
    rows = await klines(market, interval=interval, startTime=0, endTime=BASE + HOUR)
    native = await dense(market, interval=interval, from_=0, to=BASE + HOUR + 1, limit=500)
    assert rows == [row(bar) for bar in native]
    assert rows


async def test_both_ends_are_inclusive_on_open_times(market: httpx.AsyncClient) -> None:
    assert minutes(await klines(market, startTime=BASE + MINUTE, endTime=BASE + 5 * MINUTE)) == [1, 2, 3, 4, 5]
    assert minutes(await klines(market, startTime=BASE + MINUTE + 1, endTime=BASE + 5 * MINUTE - 1)) == [2, 3, 4]
    assert minutes(await klines(market, startTime=BASE + MINUTE, endTime=BASE + MINUTE)) == [1]


async def test_a_start_gives_the_oldest_and_an_end_the_latest(market: httpx.AsyncClient) -> None:
    assert minutes(await klines(market, startTime=BASE + 2 * MINUTE, limit=3)) == [2, 3, 4]
    assert minutes(await klines(market, startTime=0, limit=1)) == [0]
    assert minutes(await klines(market, endTime=BASE + 8 * MINUTE, limit=3)) == [6, 7, 8]


async def test_a_range_that_ends_before_it_begins_is_empty(market: httpx.AsyncClient) -> None:
    assert await klines(market, startTime=BASE + 2 * MINUTE, endTime=BASE + MINUTE) == []


async def test_an_empty_bucket_repeats_the_close(market: httpx.AsyncClient) -> None:
    (flat,) = await klines(market, startTime=BASE + 3 * MINUTE, limit=1)
    opened = BASE + 3 * MINUTE
    assert flat == [opened, *["0.000032"] * 4, "0", opened + MINUTE - 1, "0", 0, "0", "0", "0"]


async def test_the_open_bar_is_the_last_row(market: httpx.AsyncClient) -> None:
    rows = await klines(market, interval="1h")
    now = time.time() * 1000
    assert len(rows) == 500
    assert rows[-1][0] <= now < rows[-1][6] + 5000


async def test_at_most_a_thousand_rows(market: httpx.AsyncClient) -> None:
    assert len(await klines(market, interval="1s", startTime=0)) == 500
    assert len(await klines(market, interval="1s", startTime=0, limit=99_999)) == 1000


async def test_times_are_told_and_taken_in_microseconds(market: httpx.AsyncClient) -> None:
    headers = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    told = await klines(market, startTime=BASE * 1000 + 1, endTime=(BASE + 2 * MINUTE) * 1000, headers=headers)
    plain = await klines(market, startTime=BASE + MINUTE, endTime=BASE + 2 * MINUTE)
    assert [one[0] for one in told] == [one[0] * 1000 for one in plain]
    assert [one[6] for one in told] == [one[6] * 1000 + 999 for one in plain]
    assert [one[1:6] + one[7:] for one in told] == [one[1:6] + one[7:] for one in plain]


async def test_seconds_are_milliseconds_of_1970(market: httpx.AsyncClient) -> None:
    assert minutes(await klines(market, startTime=BASE // 1000, limit=1)) == [0]
    assert await klines(market, endTime=BASE // 1000) == []
    assert await klines(market, startTime=10**20 - 1) == []


async def test_a_token_without_trades_has_no_bars(market: httpx.AsyncClient) -> None:
    await market.put("/api/v1/tokens/NEW", json={})
    assert await get(market, "klines", symbol="NEW", interval="1d") == []


@pytest.mark.parametrize(
    ("interval", "zone", "hours"),
    [("1d", "8", 8), ("1d", "-3:30", -3.5), ("1d", "05:45", 5.75), ("1h", "5:30", 5.5), ("3d", "14:00", 14)],
)
async def test_a_time_zone_shifts_the_buckets(
    client: httpx.AsyncClient, interval: str, zone: str, hours: float
) -> None:
    await post(client, *(trade(n, BASE + n * 20 * MINUTE, str(n % 7 + 1), str(n)) for n in range(1, 600)))
    shift = int(hours * HOUR)
    rows = await klines(client, interval=interval, timeZone=zone, startTime=0, limit=4)
    width = rows[0][6] - rows[0][0] + 1
    assert all((one[0] + shift) % width == 0 for one in rows)
    fine = await klines(client, interval="15m", startTime=0, limit=1000)
    for one in rows:
        inside = [part for part in fine if one[0] <= part[0] <= one[6] and part[8]]
        assert one[1:6] == [
            inside[0][1],
            str(max(int(part[2]) for part in inside)),
            str(min(int(part[3]) for part in inside)),
            inside[-1][4],
            str(sum(int(part[5]) for part in inside)),
        ]
        assert one[8] == sum(part[8] for part in inside)


async def test_no_time_zone_is_utc(market: httpx.AsyncClient) -> None:
    plain = await klines(market, interval="1d", startTime=0, limit=5)
    for zone in ("0", "+0", "00:00", "-0:00"):
        assert await klines(market, interval="1d", startTime=0, limit=5, timeZone=zone) == plain
    assert (await refused(market, "klines", symbol="PEPE", interval="1d", timeZone="14:15"))[0] == -1130
    assert (await refused(market, "klines", symbol="PEPE", interval="1d", timeZone="5:07"))[0] == -1130


async def test_the_average_price_of_five_minutes(market: httpx.AsyncClient) -> None:
    old = await get(market, "avgPrice", symbol="PEPE")
    assert old == {"mins": 5, "price": "0.0000102", "closeTime": BASE + 9 * MINUTE + 3000}
    now = time.time_ns() // 1_000_000
    await post(market, trade(1000, now - 2000, "1", "2"), trade(1001, now, "2", "1"))
    assert (await get(market, "avgPrice", symbol="PEPE"))["price"] == "1.33333333"


async def test_fewer_rows_of_a_width_that_is_costly_to_make(market: httpx.AsyncClient) -> None:
    three = await klines(market, interval="86399s", startTime=0)
    assert len(three) == 3
    assert await klines(market, interval="86399s", startTime=0, limit=1000) == three
    assert await klines(market, interval="86399s", startTime=0, limit=2) == three[:2]


async def test_bars_too_costly_to_make_one_of_are_refused(market: httpx.AsyncClient) -> None:
    for limit in ({}, {"limit": 1}):
        number, message = await refused(market, "klines", symbol="PEPE", interval="604799s", **limit)
        assert (number, "at most 0 bars of 604799s" in message) == (-1130, True)


async def pages(client: httpx.AsyncClient, width_ms: int, **query: Any) -> list[list[Any]]:
    """What a well-known client does for a history: the first bar, then pages of 1000 until one is not full."""
    ((first, *_),) = await klines(client, startTime=0, limit=1, **query)
    found: list[list[Any]] = []
    while True:
        page = await klines(client, startTime=first, limit=1000, **query)
        found += page
        if len(page) < 1000:
            return found
        first = page[-1][0] + width_ms


async def test_paging_as_clients_do_gives_the_dense_series(market: httpx.AsyncClient) -> None:
    end = BASE + HOUR
    native = await dense(market, interval="1s", from_=0, to=end + 1, limit=5000)
    assert await pages(market, 1000, interval="1s", endTime=end) == [row(bar) for bar in native]
    assert len(native) > 3000


edges = st.one_of(
    st.none(),
    st.just(0),
    st.integers(BASE - 3 * MINUTE, BASE + 14 * MINUTE),
    st.integers(-3, 14).map(lambda n: BASE + n * MINUTE),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=edges, end=edges.filter(lambda ms: ms != 0), limit=st.integers(1, 20), scale=st.sampled_from([1, 1000]))
async def test_any_range_is_the_native_one(
    market: httpx.AsyncClient, start: int | None, end: int | None, limit: int, scale: int
) -> None:
    given_ends = {name: ms * scale for name, ms in (("startTime", start), ("endTime", end)) if ms is not None}
    rows = await klines(market, interval="1m", limit=limit, **given_ends)
    if start is not None and end is not None and start > end:
        assert rows == []
        return
    to = None if end is None else end + 1
    native = await dense(market, interval="1m", limit=limit, from_=start, to=to)
    if end is not None or start is not None:
        assert rows == [row(bar) for bar in native]
    else:
        # The present moved on between the two at the most by a bar.
        assert rows[-1][0] - native[-1]["open_time"] in {0, -MINUTE}
