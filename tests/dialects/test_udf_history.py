"""`/udf/history`: the bars of the native API, cut as charts ask for them, under the rules that charts break on."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klines.models import Trade
from tests.application import serving, settings_for
from tests.dialects.charts import Bar, Chart, error, get, history
from tests.servers import Database
from tests.service.test_klines import BASE, MINUTE, post

START = BASE // 1000
DAY = 86_400
WIDTHS = {"1S": 1, "7S": 7, "30S": 30, "1": 60, "3": 180, "45": 2700, "60": 3600, "720": 43_200, "1D": DAY}
WIDTHS |= {"1W": 7 * DAY}
SAME = {
    **{"1S": "1s", "S": "1s", "15S": "15s", "1": "1m", "45": "45m", "60": "1h", "240": "4h", "1H": "1h", "D": "1d"},
    **{"1D": "1d", "3D": "3d", "W": "1w", "1W": "1w", "10080": "1w"},
    **{"15m": "15m", "4h": "4h", "1d": "1d", "1m": "1m", "1s": "1s"},
}
OTHERS = ("1M", "M", "12M", "0", "01", "1.5", "2W", "10081", "1T", "R", "604799S", "1 ", "\uff11")
MINUTES = (0, 1, 2, 5, 9)
ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"symbol": ""}, "symbol is missing"),
    ({"symbol": "DOGE"}, "unknown_symbol"),
    ({"symbol": "a b"}, "unknown_symbol"),
    ({"symbol": "P" * 40}, "unknown_symbol"),
    ({"symbol": "P" * 200}, "symbol 'PPP"),
    ({"resolution": ""}, "resolution is missing"),
    ({"to": ""}, "to is missing"),
    ({"from": ""}, "from is missing, and so is countback"),
    ({"from": START + 1}, "from lies after to"),
    ({"from": "yesterday"}, "from 'yesterday': must be epoch seconds"),
    ({"to": "1e9"}, "to '1e9': must be epoch seconds"),
    ({"to": "NaN"}, "to 'NaN': must be epoch seconds"),
    ({"countback": "2.5"}, "countback '2.5': must be an integer"),
    ({"countback": "undefined"}, "countback 'undefined': must be an integer"),
]

_names = itertools.count(1)


@pytest.fixture
async def client(plain: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as opened:
        yield opened


@pytest.fixture
async def tape(client: httpx.AsyncClient) -> list[Trade]:
    """A trade in minutes 0, 1, 2, 5 and 9."""
    trades = [Trade("PEPE", n, (BASE + n * MINUTE + 1500) * 1000, f"0.0000{n + 1}", "7.5", "buy") for n in MINUTES]
    await post(client, trades)
    return trades


async def minutes(client: httpx.AsyncClient, **query: Any) -> list[int]:
    rows = await history(client, **{"symbol": "PEPE", "resolution": "1"} | query)
    return [(row.t - START) // 60 for row in rows]


async def native(client: httpx.AsyncClient, symbol: str, interval: str, **query: Any) -> list[Bar]:
    """All bars of the native API; `tests/service` and `tests/storage` hold those to an oracle of their own."""
    asked: dict[str, Any] = {"interval": interval, "limit": 500, "from": 0} | query
    answer = await client.get(f"/api/v1/klines/{symbol}", params=asked)
    rows = answer.raise_for_status().json()["klines"]
    names = ("open", "high", "low", "close", "volume")
    return [Bar(row["open_time"] // 1000, *(Decimal(row[name]) for name in names)) for row in rows]


@pytest.mark.usefixtures("tape")
async def test_countback_wins_over_from_and_reaches_over_gaps(client: httpx.AsyncClient) -> None:
    end = START + 9 * 60
    assert await minutes(client, from_=end - 60, to=end, countback=3) == [1, 2, 5]
    assert await minutes(client, from_=START, to=end, countback=2) == [2, 5]
    assert await minutes(client, to=end, countback=1) == [5]
    assert await minutes(client, from_=end, to=START + 120, countback=2) == [0, 1]


@pytest.mark.usefixtures("tape")
async def test_to_is_exclusive_and_compared_with_open_times(client: httpx.AsyncClient) -> None:
    for to, last in ((START + 540, 5), (START + 541, 9), (f"{START + 540}.5", 9), (f"{START + 540}.0", 5)):
        assert (await minutes(client, to=to, countback=9))[-1] == last


@pytest.mark.usefixtures("tape")
async def test_a_range_without_countback(client: httpx.AsyncClient) -> None:
    assert await minutes(client, from_=START, to=START + 600) == list(MINUTES)
    assert await minutes(client, from_=START + 1, to=START + 540) == [1, 2, 5]
    assert await minutes(client, from_=START, to=START + 600, countback="") == list(MINUTES)
    assert await minutes(client, from_=START, to=START + 600, countback=0) == list(MINUTES)


@pytest.mark.usefixtures("tape")
async def test_a_range_of_fewer_than_two_bars_reaches_back(client: httpx.AsyncClient) -> None:
    assert await minutes(client, from_=START + 540, to=START + 600) == [5, 9]
    assert await minutes(client, from_=START + 7 * 60, to=START + 8 * 60) == [2, 5]
    assert await minutes(client, from_=START, to=START + 60) == [0]


@pytest.mark.usefixtures("tape")
async def test_no_data_only_where_nothing_is_older(client: httpx.AsyncClient) -> None:
    for query in ({"from_": 0, "to": START}, {"to": START, "countback": 5}, {"from_": -1, "to": -1}):
        assert await get(client, "history", symbol="PEPE", resolution="1", **query) == {"s": "no_data"}
    await client.put("/api/v1/tokens/NEW", json={})
    assert await get(client, "history", symbol="NEW", resolution="1", to=9**11, countback=5) == {"s": "no_data"}


@pytest.mark.usefixtures("tape")
async def test_times_far_outside(client: httpx.AsyncClient) -> None:
    begins: tuple[Any, ...] = (-(10**12), -0.5, 0, "-62135596800")
    for begin, end in itertools.product(begins, (START + 3600, 10**13, 10**99)):
        assert await minutes(client, from_=begin, to=end, countback=300) == list(MINUTES)
        assert await minutes(client, from_=begin, to=end) == list(MINUTES)
        assert len(await history(client, symbol="PEPE", resolution="1W", from_=begin, to=end)) == 1


@pytest.mark.usefixtures("tape")
async def test_resolutions_are_widths(client: httpx.AsyncClient) -> None:
    for resolution, interval in SAME.items():
        rows = await history(client, symbol="PEPE", resolution=resolution, from_=0, to=START + 3600)
        assert rows == await native(client, "PEPE", interval), resolution


@pytest.mark.usefixtures("tape")
async def test_other_resolutions_are_errors(client: httpx.AsyncClient) -> None:
    for resolution in OTHERS:
        told = await error(client, "history", symbol="PEPE", resolution=resolution, to=START, countback=2)
        assert told.startswith("resolution ")
        assert "must be minutes such as 60, or a number with S, D or W" in told


@pytest.mark.usefixtures("tape")
async def test_errors_name_the_parameter_and_the_rule(client: httpx.AsyncClient) -> None:
    for change, told in ERRORS:
        query: dict[str, Any] = {"symbol": "PEPE", "resolution": "1", "from": 0, "to": START} | change
        answer = await client.get("/udf/history", params=query)
        assert (answer.status_code, answer.json()["s"]) == (200, "error")
        assert answer.json()["errmsg"].startswith(told), change


@pytest.mark.usefixtures("tape")
async def test_unknown_parameters_are_ignored(client: httpx.AsyncClient) -> None:
    extra = {"currencyCode": "USD", "unitId": "", "session": "24x7", "symbolId": "1", "fill": "prev", "limit": "x"}
    assert await minutes(client, to=START + 600, countback=9, **extra) == list(MINUTES)
    repeated = await client.get(f"/udf/history?symbol=PEPE&symbol=DOGE&resolution=1&to={START + 600}&countback=1&to=0")
    assert repeated.json()["t"] == [START + 540]
    many = {f"extra{n}": "1" for n in range(30)}
    assert await error(client, "history", **many) == "more than 20 parameters"


async def test_at_most_5000_bars_the_latest(client: httpx.AsyncClient) -> None:
    trades = [Trade("PEPE", n, (BASE + n * MINUTE) * 1000, "1", "1", "buy") for n in range(5003)]
    await post(client, trades)
    for query in ({"from_": 0}, {"countback": 9999}, {"countback": 10**99}):
        found = await minutes(client, to=START + 10_000 * 60, **query)
        assert (len(found), found[0], found[-1]) == (5000, 3, 5002)


async def test_tiny_and_huge_numbers_are_exact_and_have_no_exponent(client: httpx.AsyncClient) -> None:
    prices = ("0.000000000000000000000000000000012345", "0.000000000000000000000000000000099999")
    amounts = ("123456789012345678901234.000000000001", "0.000000000000000000000000000000000001")
    await post(client, [Trade("PEPE", n, BASE * 1000 + n, prices[n], amounts[n], "buy") for n in (0, 1)])
    query: dict[str, Any] = {"symbol": "PEPE", "resolution": "1", "to": 10**11, "countback": 2}
    answer = await client.get("/udf/history", params=query)
    volume = "123456789012345678901234.000000000001000000000000000000000001"
    low, high = prices
    assert answer.text == (
        f'{{"s":"ok","t":[{START}],"o":[{low}],"h":[{high}],"l":[{low}],"c":[{high}],"v":[{volume}]}}'
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_symbol_may_have_the_prefix_of_the_exchange_or_a_colon_of_its_own(client: httpx.AsyncClient) -> None:
    symbols = ("PEPE", "A:B", "KLINES:BOTH", "BOTH", "ÉCU")
    await post(client, [Trade(symbol, 1, BASE * 1000, str(n + 1), "1", "buy") for n, symbol in enumerate(symbols)])

    async def price(symbol: str) -> Decimal:
        (row,) = await history(client, symbol=symbol, resolution="1", to=10**11, countback=1)
        return row.c

    asked = ("pepe", "KLINES:PEPE", "klines:pepe", "A:B", "KLINES:A:B", "BOTH", "KLINES:BOTH", "KLINES:ÉCU")
    assert [await price(symbol) for symbol in asked] == [1, 1, 1, 2, 2, 4, 3, 5]
    assert await error(client, "history", symbol="BINANCE:PEPE", resolution="1", to=1, countback=1) == "unknown_symbol"


async def test_both_profiles_and_a_poll_of_the_open_bar(database: Database) -> None:
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as client:
        now = int((await client.get("/udf/time")).text)
        opens = now // DAY * DAY
        chart = Chart(client, "PEPE", "1D", DAY, countback=2)
        for number, moment in enumerate((opens - 30 * DAY, opens - 20 * DAY, opens)):
            await post(client, [Trade("PEPE", number, moment * 1_000_000, "1", "1", "buy")])
            # Each opens a bar long after the one before: of the last ten intervals there is only one.
            if number:
                for query in ({}, {"countback": 2}):
                    assert [bar.t for bar in await chart.poll(moment + 1, **query)][-1] == moment
                    chart.shown = await chart.poll(moment + 1, **query)
                    assert len(chart.shown) == 2 if not query else 1
                    chart.shown = []
        assert [bar.t for bar in await chart.all(now + 1)] == [opens - 30 * DAY, opens - 20 * DAY, opens]


examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
# Bursts and long silences; some at the edges of buckets.
moments = st.one_of(
    st.integers(0, 90),
    st.integers(0, 40).map(lambda n: n * 60),
    st.integers(0, 60).map(lambda n: n * 2700 - 1),
    st.integers(0, 60).map(lambda n: n * DAY // 2),
)
tapes = st.lists(st.tuples(moments, st.integers(1, 10**9), st.integers(0, 20)), min_size=1, max_size=40)
widths = st.sampled_from(list(WIDTHS))


async def token(client: httpx.AsyncClient, tape: list[tuple[int, int, int]]) -> str:
    """A new token with a trade for every entry: seconds after the start, digits of the price, and their decimals."""
    name = f"TAPE{next(_names)}"
    rows = [
        Trade(name, n, (START + after) * 1_000_000 + n, f"{price}e-{scale}", str(n + 1), "sell")
        for n, (after, price, scale) in enumerate(tape)
    ]
    await post(client, rows)
    return name


def width_name(resolution: str) -> str:
    return resolution.lower() if resolution[-1].isalpha() else f"{resolution}m"


@examples
@given(tape=tapes, resolution=widths, back=st.integers(1, 12), where=moments, length=moments)
async def test_equal_to_the_native_bars(
    client: httpx.AsyncClient, tape: list[tuple[int, int, int]], resolution: str, back: int, where: int, length: int
) -> None:
    symbol = await token(client, tape)
    everything = await native(client, symbol, width_name(resolution))
    to, length = START + where, abs(length)
    before = [bar for bar in everything if bar.t < to]
    ask = {"symbol": symbol, "resolution": resolution, "to": to}
    assert await history(client, **ask, from_=to - 60, countback=back) == before[-back:]
    inside = [bar for bar in before if bar.t >= to - length]
    assert await history(client, **ask, from_=to - length) == (inside if len(inside) >= 2 else before[-2:])


@examples
@given(tape=tapes, resolution=widths, back=st.integers(1, 12))
async def test_scrolling_back_reassembles_the_history(
    client: httpx.AsyncClient, tape: list[tuple[int, int, int]], resolution: str, back: int
) -> None:
    symbol = await token(client, tape)
    chart = Chart(client, symbol, resolution, WIDTHS[resolution], back)
    assert await chart.all(START + 100 * DAY) == await native(client, symbol, width_name(resolution))
