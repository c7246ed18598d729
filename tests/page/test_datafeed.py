"""`/datafeed.js` by itself, in a browser, used as TradingView's library uses a datafeed and held to its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page

from tests.application import serving, settings_for
from tests.live.followers import poll
from tests.page.conftest import Visit
from tests.page.market import PARTS, Market
from tests.servers import Database

LIBRARY = (Path(__file__).parent / "library.js").read_text()
COUNT = 300
# Streams whose messages wait while they are held.
HOLD = """() => {
    const Real = WebSocket;
    window.held = {
        on: false, open: false, waiting: [],
        let_go() {
            this.on = false;
            this.waiting.splice(0).forEach((go) => go());
        },
    };
    window.WebSocket = class extends Real {
        set onmessage(listener) {
            super.onmessage = listener && ((event) => {
                held.open = true;
                const go = () => listener(event);
                if (!held.on) go();
                else if (JSON.parse(event.data).type === "kline") held.waiting.push(go);
            });
        }
    };
}"""


class Library:
    """The library in a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def call(self, expression: str, *values: Any) -> Any:
        return await self.page.evaluate(f"(values) => library.{expression}", list(values))

    async def has(self, guid: str, market: Market, interval: str) -> None:
        """Wait until it has the service's own bars, to the digit."""

        async def same() -> bool:
            bars = [[bar["open_time"], *(bar[part] for part in PARTS)] for bar in await market.klines(interval, COUNT)]
            return bool(await self.call("texts(...values)", guid) == bars)

        await poll(same, 10.0)
        assert await self.call("broken") == []


@pytest.fixture
async def library(market: Market, visit: Visit) -> Library:
    await market.history(120)
    return await opened(market, visit)


async def opened(market: Market, visit: Visit) -> Library:
    screen = await visit(market.url)
    await screen.drawn()
    await screen.page.evaluate(f"({LIBRARY})('{market.symbol}')")
    return Library(screen.page)


async def test_it_answers_what_the_library_asks_first(library: Library) -> None:
    told = await library.call("ready()")
    assert "1S" in told["configuration"]["supported_resolutions"]
    assert told["unknown"] == "unknown_symbol"
    assert [found["symbol"] for found in told["found"]] == ["PEPE"]
    assert told["info"]["ticker"] == "PEPE"
    assert told["seconds"] > 1_700_000_000
    assert await library.call("broken") == []


async def test_pages_join_without_a_hole_or_a_repetition(library: Library, market: Market) -> None:
    await library.call("ready()")
    await library.call("load('a', '1', 50)")
    script = """async () => {
        const bars = library.series.a.bars;
        for (;;) {
            const older = await library.page('1', bars[0].time / 1000, 33, false);
            if (!older.length) return;
            bars.unshift(...older);
        }
    }"""
    await library.page.evaluate(script)
    await library.has("a", market, "1m")


async def test_listeners_are_kept_apart(library: Library, market: Market) -> None:
    await library.call("ready()")
    for guid, resolution in (("a", "1"), ("b", "1S"), ("c", "1")):
        await library.call(f"load('{guid}', '{resolution}', {COUNT})")
        await library.call(f"subscribe('{guid}', {COUNT})")
    await market.post(market.trade())
    for guid, interval in (("a", "1m"), ("b", "1s"), ("c", "1m")):
        await library.has(guid, market, interval)
    await library.call("feed.unsubscribeBars('a')")
    before = await library.call("texts('a')")
    await market.post(market.trade())
    await library.has("c", market, "1m")
    assert await library.call("texts('a')") == before


async def test_late_trades_ask_for_a_reset_and_never_go_back(library: Library, market: Market) -> None:
    await library.call("ready()")
    await library.call(f"load('a', '1', {COUNT})")
    await library.call(f"subscribe('a', {COUNT})")
    for ages in ([0, 600], [3600], [0, 120, 0, 60], [0]):
        for age in ages:
            await market.post(market.trade(age))
        await library.has("a", market, "1m")
    assert await library.call("resets") >= 2


async def test_a_library_that_asks_by_itself_is_not_told_older_bars(library: Library, market: Market) -> None:
    await library.call("ready()")
    await library.page.evaluate(HOLD)
    await library.call(f"load('a', '1S', {COUNT})")
    await library.call(f"subscribe('a', {COUNT})")
    await poll(lambda: library.page.evaluate("() => held.open"), 10.0)
    await library.page.evaluate("() => { held.on = true; }")
    # Ahead of the clock: bars that stay open, so that each is a message of the kind that is held.
    for age in (-5, -6, -7):
        await market.post(market.trade(age))
    await poll(lambda: library.page.evaluate("() => held.waiting.length >= 3"), 10.0)
    # As `resetData()` has it: what the stream tells now is older than what the library has.
    await library.call("again('a')")
    await library.page.evaluate("() => held.let_go()")
    await market.post(market.trade())
    await library.has("a", market, "1s")


async def test_the_latest_bars_come_whatever_the_clock_says(library: Library, market: Market) -> None:
    await library.call("ready()")
    end = (await market.klines())[-1]["open_time"]
    bars = await library.call(f"first('1', {end // 1000 - 3600}, 10)")
    assert bars[-1]["time"] == end


async def test_it_continues_over_a_restart(plain: Database, visit: Visit) -> None:
    settings = settings_for(plain)
    async with serving(settings) as url:
        market = Market(url)
        await market.history(20)
        library = await opened(market, visit)
        await library.call("ready()")
        await library.call(f"load('a', '1S', {COUNT})")
        await library.call(f"subscribe('a', {COUNT})")
        await market.post(market.trade())
        await library.has("a", market, "1s")
    async with serving(settings) as other:
        await market.post(market.trade(5), market.trade(3), market.trade(4), url=other)
    async with serving(settings, urlsplit(url).port or 0):
        await library.has("a", market, "1s")
        await market.post(market.trade())
        await library.has("a", market, "1s")
