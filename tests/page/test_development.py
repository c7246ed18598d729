"""The chart's development build, fed by the page's own loader: its validators find nothing, whatever comes."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from klines.web import page
from tests.application import serving, settings_for
from tests.page.conftest import Visit
from tests.page.market import Market
from tests.page.screen import Screen
from tests.page.test_typescript import FRONTEND
from tests.servers import Database

INTERVALS = ("1s", "5s", "15s", "1m", "5m", "1h")
# Seconds that a trade comes late; mostly not at all.
LATENESS = ([0.0, 0.5, 4.0, 90.0, 4000.0], [60, 20, 10, 6, 4])
ROUNDS = 40


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with the development build of the chart in it."""
    vite = FRONTEND / "node_modules" / ".bin" / "vite"
    if not vite.exists():
        pytest.skip("no npm, or the page was never built here: make page")
    built = tmp_path_factory.mktemp("page")
    command = [vite, "build", "--mode", "development", "--minify", "false", "--logLevel", "error", "--outDir", built]
    environment = os.environ | {"NODE_ENV": "development"}
    subprocess.run([str(word) for word in command], cwd=FRONTEND, env=environment, check=True, timeout=120)
    (script,) = built.glob("assets/*.js")
    assert "data must be asc ordered by time" in script.read_text(), "these are the validators"
    return built


@pytest.fixture
async def port(development: Path, plain: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Where this page is served, and served again."""
    monkeypatch.setattr(page, "ROUTES", page.routes(development))
    async with serving(settings_for(plain)) as url:
        found = urlsplit(url).port
    assert found
    yield found


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_charts_validators_find_nothing(port: int, plain: Database, visit: Visit, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the order of what happens
    settings = settings_for(plain)
    async with AsyncExitStack() as service:
        url = await service.enter_async_context(serving(settings, port))
        markets = {symbol: Market(url, symbol, seed) for symbol in ("PEPE", "WIF")}
        for market in markets.values():
            await market.history(700, width=chance.choice([7, 40, 61]), each=1)
        shown, interval = "PEPE", "1m"
        screen = await visit(url, f"#{shown}/{interval}")
        for number in range(ROUNDS):
            market = markets[chance.choice(list(markets))]
            await market.post(*(market.trade(age) for age in chance.choices(*LATENESS, k=chance.randint(1, 5))))
            if number == ROUNDS // 2:
                await service.aclose()
                await screen.state("reconnecting")
                await service.enter_async_context(serving(settings, port))
            elif chance.random() < 0.3:
                interval = chance.choice(INTERVALS)
                await screen.at(f"#intervals input[value='{interval}']").check()
            elif chance.random() < 0.2:
                shown = chance.choice(list(markets))
                await screen.at(f"#tokens [data-symbol={shown}]").click()
            elif chance.random() < 0.2:
                await screen.at("#chart").focus()
                await screen.page.keyboard.press(chance.choice(["Home", "End", "PageUp", "Escape"]))
        await is_right(screen, markets[shown], interval)
    screen.is_clean(away=True)


async def is_right(screen: Screen, market: Market, interval: str) -> None:
    """After the last reset the chart has the service's own bars, of which the latest are read one by one."""
    await screen.state("live", seconds=15)
    await screen.at("#chart").focus()
    await screen.page.keyboard.press("Escape")
    bars = await screen.shows(market, interval)
    await screen.walks(bars[-40:])
    drawn = int(await screen.at("#chart").get_attribute("data-bars") or 0)
    await screen.drawn(first=bars[-drawn]["open_time"])
