"""`/udf` besides history: what the adapter reads at its start, symbols, search, quotes and marks."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
import httpx

from klines.models import Trade
from tests.application import serving, settings_for
from tests.dialects.charts import error, get, history
from tests.servers import Database, Server
from tests.service.test_klines import BASE, post

TINY = "0.000000000123"
NOW = time.time_ns() // 1000
HOUR = 3_600_000_000

# Each asks for a mark, and all but the first break a rule.
ENTRIES: list[Any] = [
    {"time": BASE + 90_000, "text": "<b>migrated</b>", "label": "Mi", "color": "#ff8800", "more": 1},
    {"time": BASE, "text": ""},
    {"time": BASE, "text": "x" * 257},
    {"time": BASE, "text": "x", "label": "abc"},
    {"time": BASE, "text": "x", "color": "mauve"},
    {"time": BASE, "text": "x", "color": "#ffffff\n"},
    {"time": str(BASE), "text": "x"},
    {"time": True, "text": "x"},
    {"time": BASE // 1000, "text": "seconds by mistake"},
    {"time": 10**16, "text": "microseconds"},
    {"text": "x"},
    "x",
    None,
]


async def put(client: httpx.AsyncClient, symbol: str, **facts: Any) -> None:
    (await client.put(f"/api/v1/tokens/{symbol}", json=facts)).raise_for_status()


async def test_the_adapter_starts_with_the_config(plain_client: httpx.AsyncClient) -> None:
    config = await get(plain_client, "config")
    assert config["supports_search"] is True
    assert config["supports_group_request"] is False
    assert [config[name] for name in ("supports_marks", "supports_timescale_marks", "supports_time")] == [True] * 3
    assert {one["value"] for one in config["exchanges"]} == {"", "KLINES"}
    assert {one["value"] for one in config["symbols_types"]} == {"", "crypto"}
    await put(plain_client, "PEPE")
    for resolution in config["supported_resolutions"]:
        assert await history(plain_client, symbol="PEPE", resolution=resolution, to=10**10, countback=2) == []


async def test_the_clock_is_a_bare_number(plain_client: httpx.AsyncClient) -> None:
    answer = await plain_client.get("/udf/time")
    assert answer.headers["content-type"].startswith("text/plain")
    assert abs(int(answer.text) - time.time()) < 60


async def test_a_symbol_in_full(plain_client: httpx.AsyncClient) -> None:
    await post(plain_client, [Trade("WIFHAT-USDC", 1, BASE * 1000, TINY, "1", "buy")])
    await put(plain_client, "WIFHAT-USDC", name="Wif Hat", base="WIFHAT", quote="USDC", decimals=6)
    config = await get(plain_client, "config")
    minutes = [name for name in config["supported_resolutions"] if name.isdigit()]
    for name in ("WIFHAT-USDC", "KLINES:WIFHAT-USDC", "wifhat-usdc", "klines:wifhat-usdc"):
        assert await get(plain_client, "symbols", symbol=name) == {
            "name": "WIFHAT-USDC",
            "ticker": "WIFHAT-USDC",
            "full_name": "KLINES:WIFHAT-USDC",
            "description": "Wif Hat",
            "type": "crypto",
            "session": "24x7",
            "timezone": "Etc/UTC",
            "exchange": "KLINES",
            "listed_exchange": "KLINES",
            "minmov": 1,
            "pricescale": 10**15,
            "format": "price",
            "has_intraday": True,
            "intraday_multipliers": minutes,
            "has_seconds": True,
            "seconds_multipliers": ["1", "5", "15", "30"],
            "has_daily": True,
            "daily_multipliers": ["1", "3"],
            "has_weekly_and_monthly": True,
            "weekly_multipliers": ["1"],
            "monthly_multipliers": [],
            "supported_resolutions": config["supported_resolutions"],
            "visible_plots_set": "ohlcv",
            "data_status": "streaming",
            "volume_precision": 6,
            "currency_code": "USDC",
        }


async def test_a_symbol_of_which_little_is_known(plain_client: httpx.AsyncClient) -> None:
    await put(plain_client, "A:B")
    told = await get(plain_client, "symbols", symbol="KLINES:A:B")
    assert (told["name"], told["description"], told["pricescale"], told["volume_precision"]) == ("A:B", "A:B", 10**8, 8)
    assert not {"s", "currency_code"} & set(told)


async def test_the_price_scale_is_bounded_and_an_integer(plain_client: httpx.AsyncClient) -> None:
    for number, (price, scale) in enumerate({"1e-30": 10**16, "1234567": 100, "0.5": 10**6}.items()):
        await post(plain_client, [Trade("PEPE", number, BASE * 1000 + number, price, "1", "buy")])
        answer = await plain_client.get("/udf/symbols", params={"symbol": "PEPE"})
        assert f'"pricescale":{scale},' in answer.text


async def test_unknown_symbols(plain_client: httpx.AsyncClient) -> None:
    for name in ("DOGE", "KLINES:DOGE", "KLINES:", ":", "a b", "x" * 100, "🐸"):
        for path in ("symbols", "marks", "timescale_marks"):
            assert await error(plain_client, path, symbol=name) == "unknown_symbol"
    assert await error(plain_client, "symbols") == "symbol is missing"


async def test_search_is_case_insensitive_and_brings_the_likeliest_first(plain_client: httpx.AsyncClient) -> None:
    names = {"XPEPE": None, "PEPE-LONG": None, "DOGE": "the pepe's friend", "PEPE": "Frog", "CAT": "Cat"}
    for symbol, name in names.items():
        await put(plain_client, symbol, name=name)
    asked = {"limit": 30, "type": "", "exchange": ""}

    async def symbols(query: str, **more: Any) -> list[str]:
        return [found["symbol"] for found in await get(plain_client, "search", **asked | {"query": query} | more)]

    assert await symbols("PEPE") == await symbols("pepe") == ["PEPE", "PEPE-LONG", "XPEPE", "DOGE"]
    assert await symbols("KLINES:PEPE") == await symbols("pepe")
    assert await symbols("PEPE'S") == ["DOGE"]
    assert await symbols("") == await symbols("", type_="crypto", exchange="KLINES") == [
        "CAT", "DOGE", "PEPE", "XPEPE", "PEPE-LONG",
    ]  # fmt: skip
    assert await symbols("pepe", limit=2) == ["PEPE", "PEPE-LONG"]
    assert len(await symbols("", limit=10**30)) == 5
    assert await symbols("%") == await symbols("_") == await symbols("pepe", type_="stock") == []
    assert await symbols("pepe", exchange="NYSE") == []
    assert await get(plain_client, "search", query="FROG") == [
        {
            "symbol": "PEPE",
            "ticker": "PEPE",
            "full_name": "KLINES:PEPE",
            "description": "Frog",
            "exchange": "KLINES",
            "type": "crypto",
        }
    ]
    for query, told in (
        ({"limit": 0}, "limit: must be at least 1"),
        ({"limit": "many"}, "limit 'many'"),
        ({"query": "x" * 129}, "query '"),
        ({"query": "\0"}, "query '"),
    ):
        assert (await error(plain_client, "search", **query)).startswith(told)


async def test_quotes_are_the_last_24_hours(plain_client: httpx.AsyncClient) -> None:
    prices = ((30, "9"), (20, TINY), (10, "0.0000000001"), (0, "0.000000000246"))
    trades = [Trade("WIF", n, NOW - hours * HOUR, price, "2.5", "buy") for n, (hours, price) in enumerate(prices)]
    await post(plain_client, trades)
    asked = "KLINES:wif,DOGE,WIF,a b"
    answer = await plain_client.get("/udf/quotes", params={"symbols": asked})
    numbers = {
        "lp": "0.000000000246",
        "ask": "0.000000000246",
        "bid": "0.000000000246",
        "ch": TINY,
        "chp": "100",
        "open_price": TINY,
        "prev_close_price": TINY,
        "high_price": "0.000000000246",
        "low_price": "0.0000000001",
        "volume": "7.5",
    }
    shown = ",".join(f'"{name}":{text}' for name, text in numbers.items())
    # The digits themselves: no exponent, nothing rounded.
    assert answer.text.count(f'"v":{{"short_name":"WIF","exchange":"KLINES","description":"WIF",{shown}}}') == 2
    assert [(one["n"], one["s"]) for one in answer.json()["d"]] == [
        ("KLINES:wif", "ok"), ("DOGE", "error"), ("WIF", "ok"), ("a b", "error"),
    ]  # fmt: skip


async def test_quotes_leave_out_what_is_not_known(plain_client: httpx.AsyncClient) -> None:
    await put(plain_client, "NEW", name="New")
    await post(plain_client, [Trade("OLD", 1, BASE * 1000, "2", "1", "buy")])
    new, old = (one["v"] for one in (await get(plain_client, "quotes", symbols="NEW,OLD"))["d"])
    assert new == {"short_name": "NEW", "exchange": "KLINES", "description": "New", "volume": 0}
    assert old == {
        **{"short_name": "OLD", "exchange": "KLINES", "description": "OLD", "volume": 0, "ch": 0, "chp": 0},
        **dict.fromkeys(("lp", "ask", "bid", "open_price", "prev_close_price"), 2),
    }


async def test_quotes_are_bounded(plain_client: httpx.AsyncClient) -> None:
    assert len((await get(plain_client, "quotes", symbols=",".join(["A"] * 100)))["d"]) == 100
    assert await error(plain_client, "quotes", symbols=",".join(["A"] * 101)) == "symbols: at most 100 at once"
    assert await error(plain_client, "quotes") == "symbols is missing"


async def test_marks_are_the_first_trade_and_the_platforms_events(client: httpx.AsyncClient) -> None:
    await post(client, [Trade("PEPE", n, (BASE + n * 60_000) * 1000 + 5, TINY, "1", "buy") for n in range(3)])
    await put(client, "PEPE", metadata={"marks": ENTRIES})
    first, event = BASE // 1000, BASE // 1000 + 90
    ask: dict[str, Any] = {"symbol": "PEPE", "from_": first - 60, "to": first + 180, "resolution": "1"}
    assert await get(client, "marks", **ask) == [
        {
            **{"id": "first", "time": first, "color": "green", "text": f"first trade, at {TINY}", "label": "1"},
            **{"labelFontColor": "white", "minSize": 14},
        },
        {
            **{"id": "mark-0", "time": event, "color": {"border": "#ff8800", "background": "#ff8800"}},
            **{"text": "<b>migrated</b>", "label": "Mi", "labelFontColor": "white", "minSize": 14},
        },
    ]
    assert await get(client, "timescale_marks", **ask) == [
        {"id": "first", "time": first, "color": "green", "label": "1", "tooltip": [f"first trade, at {TINY}"]},
        {"id": "mark-0", "time": event, "color": "#ff8800", "label": "Mi", "tooltip": ["<b>migrated</b>"]},
    ]


async def test_marks_of_a_range_include_its_last_bar(plain_client: httpx.AsyncClient) -> None:
    await put(plain_client, "PEPE", metadata={"marks": ENTRIES})
    minute = BASE // 1000 + 60

    async def shown(begin: Any, end: Any, resolution: str = "1") -> int:
        ask = {"symbol": "PEPE", "from_": begin, "to": end, "resolution": resolution}
        return len(await get(plain_client, "marks", **ask))

    assert [await shown(minute, minute), await shown(0, minute), await shown("", ""), await shown(0, 10**99)] == [1] * 4
    assert [await shown(minute + 31, 10**10), await shown(0, minute - 60), await shown(0, minute, "1S")] == [0] * 3
    assert await shown(0, minute, "1M") == 0


async def test_marks_are_bounded_and_whatever_metadata_holds_is_survived(plain_client: httpx.AsyncClient) -> None:
    odd: tuple[Any, ...] = (None, {}, "x", 1, [[]], [{}])
    for marks in odd:
        await put(plain_client, "PEPE", metadata={"marks": marks})
        assert await get(plain_client, "marks", symbol="PEPE") == []
    await put(plain_client, "PEPE", metadata={"marks": [{"time": BASE, "text": "x"}] * 150})
    assert len({mark["id"] for mark in await get(plain_client, "marks", symbol="PEPE")}) == 100


async def test_requests_that_are_no_udf(plain_client: httpx.AsyncClient) -> None:
    posted = await plain_client.post("/udf/history")
    assert (posted.status_code, posted.json()["code"]) == (405, "method_not_allowed")
    group = await plain_client.get("/udf/symbol_info?group=x")
    assert (group.status_code, group.json()["code"]) == (404, "route_unknown")
    broken = await plain_client.get("/udf/history?symbol=%FF")
    assert (broken.status_code, broken.json()["errmsg"]) == (200, "the query string is not UTF-8")
    assert "/udf" not in (await plain_client.get("/schema")).text
    assert (await plain_client.head("/udf/config")).status_code == 200


async def test_faults_of_ours_are_errors_with_s_too(plain: Database, server: Server) -> None:
    """Without an `s` the adapter would take a problem for a symbol."""
    paths = ("symbols?symbol=A", "search", "history?symbol=A&resolution=1&to=1&countback=1", "quotes?symbols=A")
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        connection = await asyncpg.connect(plain.url)
        await connection.execute("ALTER TABLE tokens RENAME TO hidden")
        await connection.close()
        for path in paths:
            answer = await client.get(f"/udf/{path}")
            assert (answer.status_code, answer.json()["s"]) == (500, "error")
        server.execute(f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS false")
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{plain.name}'")
        for path in (*paths, "marks?symbol=A", "timescale_marks?symbol=A"):
            answer = await client.get(f"/udf/{path}")
            assert (answer.status_code, answer.json()["s"], answer.headers["retry-after"]) == (503, "error", "1")
            assert answer.json()["errmsg"]
        server.execute(f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS true")
