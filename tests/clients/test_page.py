"""`docs/clients.md` cannot lie: every example is run as it stands, but for the address, and its words compared."""

from __future__ import annotations

import json
import re
import shutil
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.clients.browser import chromium
from tests.clients.environments import CCXT, CONNECTOR, FREQTRADE, NPM, PYTHON_BINANCE, ROOT, SDK, WEBSOCAT, Environment
from tests.clients.examples import (
    HOST,
    PAGE,
    PROGRAM_SECONDS,
    block,
    commands,
    consecutive,
    host,
    latest,
    printed,
    rows,
    sold,
    titles,
    trading,
    until,
)
from tests.clients.market import WIF, Bar, Market, dense, row
from tests.clients.session import output, read_lines
from tests.clients.test_keys import WITH_A_KEY
from tests.servers import Database

pytestmark = pytest.mark.clients


def test_every_example_is_run() -> None:
    assert titles(2) == [
        *("curl", "websocat", "ccxt", "ccxt.pro", "python-binance", "binance-connector", "binance-sdk-spot"),
        *("npm binance", "freqtrade", "lightweight-charts", "psql", "With a key"),
    ]
    assert titles(3) == WITH_A_KEY
    assert PAGE.count("```") == 2 * (len(titles(2)) + len(titles(3)))


async def test_curl(market: Market, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    await market.trade_lately()
    native, binance, udf = [json.loads(await output(tmp_path, *words)) for words in commands("curl", market)]
    filled = await latest(market, "45s", native["klines"][0]["open_time"], 3)
    assert [tuple(one[name] for name in Bar._fields) for one in native["klines"]] == filled
    assert binance == [row(bar, "1m") for bar in await latest(market, "1m", binance[0][0], 3)]
    bars = (await market.bars(WIF, "1m"))[-3:]
    assert udf["t"] == [bar.open_time // 1000 for bar in bars]
    assert udf["c"] == [float(bar.close) for bar in bars]


@pytest.mark.clients(WEBSOCAT)
async def test_websocat(market: Market) -> None:
    said = []
    async with trading(market):
        for program, address in commands("websocat", market):
            lines = await read_lines(2, WEBSOCAT.program(program), address)
            said.append([json.loads(line) for line in lines])
    bars, trades, klines = said
    known = {bar.open_time: bar for bar in await market.bars(WIF, "1m")}
    stored = await market.trades(WIF)
    assert bars[0]["type"] == "snapshot"
    for one in bars[0]["klines"][:-1]:
        assert tuple(one[name] for name in Bar._fields) == known[one["open_time"]]
    assert len(bars[0]["klines"]) == 3
    ids = [one["trade_id"] for message in trades for one in message["trades"]]
    first = [one.trade_id for one in stored].index(ids[0])
    assert ids == [one.trade_id for one in stored[first : first + len(ids)]]
    assert len(ids) > 3
    assert {one["k"]["t"] for one in klines} <= known.keys()
    assert {one["s"] for one in klines} == {WIF}


@pytest.mark.clients(CCXT)
async def test_ccxt(market: Market, tmp_path: Path) -> None:
    await market.trade_lately()
    told = await printed(CCXT, market, tmp_path, block("ccxt", "python"))
    begin = int(told[0][0].strip("[,"))
    assert [json.loads(" ".join(words)) for words in told] == [
        [bar.open_time, *map(float, bar[1:6])] for bar in await latest(market, "1m", begin, 5)
    ]


@pytest.mark.clients(CCXT)
async def test_ccxt_pro(market: Market, tmp_path: Path) -> None:
    async with trading(market):
        told = await printed(CCXT, market, tmp_path, block("ccxt.pro", "python"))
    stored = {
        one.trade_id: [str(one.trade_id), *map(str, (float(one.price), float(one.amount))), one.side]
        for one in await market.trades(WIF)
    }
    assert told == [stored[number] for number in consecutive(told, 3)]


@pytest.mark.clients(PYTHON_BINANCE)
async def test_python_binance(market: Market, tmp_path: Path) -> None:
    async with trading(market):
        told = await printed(PYTHON_BINANCE, market, tmp_path, block("python-binance", "python"))
    bars, trades = told[:5], told[5:]
    assert bars[:4] == (await rows(market, bars))[:4]
    stored = await sold(market)
    assert trades == [stored[number] for number in consecutive(trades, 3)]


@pytest.mark.parametrize(
    ("title", "environment"),
    [
        pytest.param("binance-connector", CONNECTOR, marks=pytest.mark.clients(CONNECTOR)),
        pytest.param("binance-sdk-spot", SDK, marks=pytest.mark.clients(SDK)),
    ],
    ids=["connector", "sdk"],
)
async def test_rows(market: Market, tmp_path: Path, title: str, environment: Environment) -> None:
    await market.trade_lately()
    told = await printed(environment, market, tmp_path, block(title, "python"))
    assert told == await rows(market, told)


@pytest.mark.clients(NPM)
async def test_npm_binance(market: Market, tmp_path: Path) -> None:
    await market.trade_lately()
    told = await printed(NPM, market, tmp_path, block("npm binance", "js"))
    assert told == await rows(market, told)


@pytest.mark.clients(FREQTRADE)
async def test_freqtrade(market: Market, tmp_path: Path) -> None:
    (command,) = re.findall(r"`freqtrade (download-data .*?)`", PAGE)
    (tmp_path / "config.json").write_text(block("freqtrade", "json").replace(HOST, host(market)))
    begin, end = (int(one) * 1000 for one in re.findall(r"\d{10}", command))
    directory = ["--user-data-dir", str(tmp_path), "--datadir", str(tmp_path)]
    await output(tmp_path, FREQTRADE.program("freqtrade"), *command.split(), *directory, within=PROGRAM_SECONDS)
    for interval in ("1m", "1h"):
        told = json.loads((tmp_path / f"WIFHAT_USDC-{interval}.json").read_text())
        bars = dense(await market.bars(WIF, interval), interval, begin, end)
        assert [one for one in told if one[0] < end] == [[bar.open_time, *map(float, bar[1:6])] for bar in bars]


@pytest.mark.clients(NPM)
async def test_lightweight_charts(market: Market, tmp_path: Path) -> None:
    library = NPM.directory / "node_modules/lightweight-charts/dist/lightweight-charts.standalone.production.js"
    files = {"chart.html": block("lightweight-charts", "html").encode(), library.name: library.read_bytes()}
    await market.trade_lately()
    async with chromium(tmp_path) as page:
        await page.open(market.url, files)
        for _ in range(3):
            await market.trade_now(WIF, 4)
            await until(lambda: page.evaluate("series.data().slice(-900)"), lambda: charted(market))


async def test_psql(market: Market, plain: Database) -> None:
    ((program, *words),) = commands("psql", market)
    assert program == ".venv/bin/klines"
    told = await output(ROOT, sys.executable, "-m", "klines", *words, DATABASE_URL=plain.url)
    lines = [[word.strip() for word in line.split("|")] for line in told.splitlines()[2:7]]
    bars = (await market.bars(WIF, "1m"))[:-6:-1]
    assert [[Decimal(price) for price in line[1:]] for line in lines] == [
        [Decimal(price) for price in bar[1:5]] for bar in bars
    ]


async def charted(market: Market) -> list[dict[str, Any]]:
    """The latest bars of the database as a chart has them."""
    return [
        {"time": bar.open_time // 1000}
        | {name: float(value) for name, value in zip(Bar._fields[1:5], bar[1:5], strict=True)}
        for bar in (await market.bars(WIF, "1m"))[-900:]
    ]
