"""The examples of `docs/clients.md` for a service that wants a key (`AUTH=all`), run with one that may only read."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from klines.web import page
from tests.access.keys import bearer, made
from tests.application import serving, settings_for
from tests.clients.browser import Page, chromium
from tests.clients.environments import CCXT, CONNECTOR, FREQTRADE, NPM, PYTHON_BINANCE, ROOT, SDK, WEBSOCAT, Environment
from tests.clients.examples import (
    HOST,
    PROGRAM_SECONDS,
    block,
    commands,
    consecutive,
    host,
    latest,
    printed,
    rows,
    sold,
    trading,
    until,
)
from tests.clients.market import BEGIN_MS, HOUR, WIF, Bar, Market, connect, dense, row, tape
from tests.clients.session import output, read_lines
from tests.servers import Database

pytestmark = pytest.mark.clients

WITH_A_KEY = [
    *("curl", "websocat", "websockets", "ccxt and ccxt.pro", "python-binance", "binance-connector"),
    *("binance-sdk-spot", "npm binance", "freqtrade", "Browsers", "TradingView"),
]
# Of a page that the service does not serve; there is no such host, as the browser is given the page.
ORIGIN = "http://charts.test"
# Trades of more than six hours.
MANY = 600


class Guarded(NamedTuple):
    """A market that nobody may read without the key, and its database."""

    market: Market
    key: str
    database: Database


@pytest.fixture
async def guarded(plain: Database) -> AsyncIterator[Guarded]:
    reader, writer = await made(plain, "read"), await made(plain, "write")
    settings = settings_for(plain, auth="all", klines_allowed_origins=ORIGIN)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url, headers=bearer(writer)) as client:
        assert (await client.get("/api/v3/ping", headers={"Authorization": ""})).status_code == 401
        connection = await connect(plain)
        try:
            market = Market(url, client, connection)
            await market.post(tape(WIF)[:MANY])
            yield Guarded(market, reader.text, plain)
        finally:
            await connection.close()


async def test_curl_and_websockets_with_a_new_key(guarded: Guarded, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    market = guarded.market
    await market.trade_lately()
    (words,) = commands("With a key", market)
    key = await output(ROOT, sys.executable, "-m", "klines", *words[1:], DATABASE_URL=guarded.database.url)
    said = [json.loads(await output(tmp_path, *one)) for one in commands("curl", market, key.strip())]
    bars = (await market.bars(WIF, "1m"))[-3:]
    assert [tuple(one[name] for name in Bar._fields) for one in said[0]["klines"]] == bars
    assert said[1] == [row(bar, "1m") for bar in await latest(market, "1m", said[1][0][0], 3)]
    assert said[2]["t"] == [bar.open_time // 1000 for bar in bars]
    script = tmp_path / "example.py"
    script.write_text(block("websockets", "python", 3).replace(HOST, host(market)))
    async with trading(market):
        told = await output(tmp_path, sys.executable, str(script), API_KEY=key.strip())
    await shows_bars(market, told.splitlines())


@pytest.mark.clients(WEBSOCAT)
async def test_websocat(guarded: Guarded) -> None:
    ((program, *words),) = commands("websocat", guarded.market, guarded.key)
    async with trading(guarded.market):
        lines = await read_lines(2, WEBSOCAT.program(program), *words)
    await shows_bars(guarded.market, lines)


@pytest.mark.clients(CCXT)
async def test_ccxt(guarded: Guarded, tmp_path: Path) -> None:
    told = await run(guarded, CCXT, tmp_path, "ccxt and ccxt.pro")
    bars = await latest(guarded.market, "1m", int(told[0][0].strip("[,")), 5)
    assert [json.loads(" ".join(words)) for words in told[:4]] == [
        [bar.open_time, *map(float, bar[1:6])] for bar in bars[:4]
    ]
    stored = await sold(guarded.market)
    for words in told[5:]:
        assert [float(one) for one in words[:3]] == [float(one) for one in stored[int(words[0])]]
    consecutive(told[5:], 1)


@pytest.mark.parametrize(
    ("title", "environment"),
    [
        pytest.param(environment.name, environment, marks=pytest.mark.clients(environment), id=environment.name)
        for environment in (PYTHON_BINANCE, CONNECTOR, SDK)
    ]
    + [pytest.param("npm binance", NPM, marks=pytest.mark.clients(NPM), id="npm")],
)
async def test_bars_and_trades(guarded: Guarded, tmp_path: Path, title: str, environment: Environment) -> None:
    told = await run(guarded, environment, tmp_path, title)
    bars, trades = told[:5], told[5:]
    assert bars[:4] == (await rows(guarded.market, bars))[:4]
    stored = await sold(guarded.market)
    assert trades == [stored[number] for number in consecutive(trades, 3)]


@pytest.mark.clients(FREQTRADE)
async def test_freqtrade(guarded: Guarded, tmp_path: Path) -> None:
    config = block("freqtrade", "json", 3).replace(HOST, host(guarded.market)).replace("API_KEY", guarded.key)
    (tmp_path / "config.json").write_text(config)
    span = f"{BEGIN_MS // 1000}-{(BEGIN_MS + 6 * HOUR) // 1000}"
    asked = ["-c", "config.json", "--timeframes", "1h", "--timerange", span, "--data-format-ohlcv", "json"]
    places = ["--user-data-dir", str(tmp_path), "--datadir", str(tmp_path)]
    await output(tmp_path, FREQTRADE.program("freqtrade"), "download-data", *asked, *places, within=PROGRAM_SECONDS)
    told = json.loads((tmp_path / "WIFHAT_USDC-1h.json").read_text())[:6]
    bars = dense(await guarded.market.bars(WIF, "1h"), "1h", BEGIN_MS, BEGIN_MS + 6 * HOUR)
    assert told == [[bar.open_time, *map(float, bar[1:6])] for bar in bars]


async def test_pages_of_another_origin(guarded: Guarded, tmp_path: Path) -> None:
    if not (page.BUILT / page.DATAFEED).exists():
        pytest.skip("the page is not built: make page")
    market = guarded.market

    async def bars() -> list[list[str]]:
        return [[str(bar.open_time), bar.close] for bar in (await market.bars(WIF, "1m"))[-3:]]

    async with chromium(tmp_path) as browser:
        for title in ("Browsers", "TradingView"):
            text = block(title, "html", 3).replace(HOST, host(market))
            await market.trade_now(WIF)
            await browser.open(ORIGIN, {"example.html": text.encode()})
            await until(lambda: browser.evaluate("form.onsubmit !== null"), value(True))
            await browser.evaluate(f"[form.elements.key.value = {guarded.key!r}, form.requestSubmit()].length")
            await until(lambda: first_words(browser, 3), bars)
            # What comes now comes by the socket.
            for _ in range(2):
                await market.trade_now(WIF)
                (last,) = (await bars())[-1:]
                await until(lambda: first_words(browser, -1), value([last]))


async def run(guarded: Guarded, environment: Environment, directory: Path, title: str) -> list[list[str]]:
    """The words of each line that a section's example prints."""
    text = block(title, "js" if environment is NPM else "python", 3)
    async with trading(guarded.market):
        return await printed(environment, guarded.market, directory, text, API_KEY=guarded.key)


async def shows_bars(market: Market, lines: list[str]) -> None:
    """A snapshot of the last bars, and then what comes."""
    snapshot, after = [json.loads(line) for line in lines]
    known = {bar.open_time: bar for bar in await market.bars(WIF, "1m")}
    assert snapshot["type"] == "snapshot"
    for one in snapshot["klines"][:-1]:
        assert tuple(one[name] for name in Bar._fields) == known[one["open_time"]]
    assert len(snapshot["klines"]) == 3
    assert after["kline"]["open_time"] in known


async def first_words(browser: Page, lines: int) -> list[list[str]]:
    """Time and close of the first lines that the page shows; of the last ones for a negative count."""
    text: Any = await browser.evaluate("document.getElementById('shown').textContent")
    told = [line.split()[:2] for line in (text or "").splitlines()]
    return told[:lines] if lines > 0 else told[lines:]


def value(wanted: Any) -> Any:
    """What is wanted, when it is known already."""

    async def known() -> Any:
        return wanted

    return known
