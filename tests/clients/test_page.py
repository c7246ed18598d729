"""`docs/clients.md` cannot lie: every example is run as it stands, but for the address, and its words compared."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.clients.browser import chromium
from tests.clients.environments import CCXT, CONNECTOR, FREQTRADE, NPM, PYTHON_BINANCE, ROOT, SDK, WEBSOCAT, Environment
from tests.clients.market import WIF, Bar, Market, dense, now_ms, row
from tests.clients.session import output, read_lines
from tests.servers import Database

pytestmark = pytest.mark.clients

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
HOST = "127.0.0.1:8080"


def block(title: str, language: str) -> str:
    """The example of a section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"```{language}\n(.*?)```", section, re.S)
    return str(found)


def commands(title: str, market: Market) -> list[list[str]]:
    """The commands of a section, at the test's service."""
    lines = block(title, "console").replace(HOST, host(market)).split("$ ")[1:]
    return [shlex.split(line) for line in lines]


def host(market: Market) -> str:
    return market.url.removeprefix("http://")


async def printed(environment: Environment, market: Market, directory: Path, name: str, text: str) -> list[list[str]]:
    """The words of each line that an example prints."""
    script = directory / name
    script.write_text(text.replace(HOST, host(market)), "utf-8")
    lines = await output(directory, environment.program("python"), str(script))
    return [line.split() for line in lines.splitlines()]


@asynccontextmanager
async def trading(market: Market) -> AsyncIterator[None]:
    """A trade every now and then, until the example has ended."""

    async def trade() -> None:
        while True:
            await market.trade_now(WIF)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(trade())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def latest(market: Market, interval: str, begin: int, count: int) -> list[Bar]:
    """So many bars from a moment on, gaps filled; the last of them is the present one."""
    found = dense(await market.bars(WIF, interval), interval, begin, now_ms() + 1)
    assert count <= len(found) <= count + 1, "a bucket may have begun since"
    return found[:count]


async def rows(market: Market, printed: list[list[str]]) -> list[list[str]]:
    """What five rows of Binance's must be."""
    bars = await latest(market, "1m", int(printed[0][0]), 5)
    return [[str(one) for one in row(bar, "1m")] for bar in bars]


def test_every_example_is_run() -> None:
    titles = re.findall(r"^## (.+)\n(?:(?!## ).*\n)*?```", PAGE, re.M)
    assert titles == [
        *("curl", "websocat", "ccxt", "ccxt.pro", "python-binance", "binance-connector", "binance-sdk-spot"),
        *("npm binance", "freqtrade", "lightweight-charts", "psql"),
    ]
    assert PAGE.count("```") == 2 * len(titles)


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
    told = await printed(CCXT, market, tmp_path, "example.py", block("ccxt", "python"))
    begin = int(told[0][0].strip("[,"))
    assert [json.loads(" ".join(words)) for words in told] == [
        [bar.open_time, *map(float, bar[1:6])] for bar in await latest(market, "1m", begin, 5)
    ]


@pytest.mark.clients(CCXT)
async def test_ccxt_pro(market: Market, tmp_path: Path) -> None:
    async with trading(market):
        told = await printed(CCXT, market, tmp_path, "example.py", block("ccxt.pro", "python"))
    stored = {
        one.trade_id: [str(one.trade_id), *map(str, (float(one.price), float(one.amount))), one.side]
        for one in await market.trades(WIF)
    }
    assert told == [stored[number] for number in consecutive(told, 3)]


@pytest.mark.clients(PYTHON_BINANCE)
async def test_python_binance(market: Market, tmp_path: Path) -> None:
    async with trading(market):
        told = await printed(PYTHON_BINANCE, market, tmp_path, "example.py", block("python-binance", "python"))
    bars, trades = told[:5], told[5:]
    assert bars[:4] == (await rows(market, bars))[:4]
    stored = {one.trade_id: [str(one.trade_id), one.price, one.amount] for one in await market.trades(WIF)}
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
    told = await printed(environment, market, tmp_path, "example.py", block(title, "python"))
    assert told == await rows(market, told)


@pytest.mark.clients(NPM)
async def test_npm_binance(market: Market) -> None:
    await market.trade_lately()
    script = NPM.directory / "example.mjs"
    script.write_text(block("npm binance", "js").replace(HOST, host(market)), "utf-8")
    told = [line.split() for line in (await output(NPM.directory, "node", str(script))).splitlines()]
    assert told == await rows(market, told)


@pytest.mark.clients(FREQTRADE)
async def test_freqtrade(market: Market, tmp_path: Path) -> None:
    (command,) = re.findall(r"`freqtrade (download-data .*?)`", PAGE)
    (tmp_path / "config.json").write_text(block("freqtrade", "json").replace(HOST, host(market)))
    begin, end = (int(one) * 1000 for one in re.findall(r"\d{10}", command))
    directory = ["--user-data-dir", str(tmp_path), "--datadir", str(tmp_path)]
    await output(tmp_path, FREQTRADE.program("freqtrade"), *command.split(), *directory)
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


def consecutive(told: list[list[str]], least: int) -> list[int]:
    """The ids that an example printed, which must follow each other."""
    ids = [int(words[0]) for words in told]
    assert len(ids) >= least
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    return ids


async def charted(market: Market) -> list[dict[str, Any]]:
    """The latest bars of the database as a chart has them."""
    return [
        {"time": bar.open_time // 1000}
        | {name: float(value) for name, value in zip(Bar._fields[1:5], bar[1:5], strict=True)}
        for bar in (await market.bars(WIF, "1m"))[-900:]
    ]


async def until(shown: Callable[[], Awaitable[Any]], wanted: Callable[[], Awaitable[Any]]) -> None:
    """Look until what is shown is what is wanted; fails with both after a while."""
    deadline = asyncio.get_running_loop().time() + 10
    while (found := await shown()) != (right := await wanted()):
        assert asyncio.get_running_loop().time() < deadline, (found[-3:], right[-3:])
