"""A browser with the page in it. Skipped by name where the page is not built or there is no Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import Browser, async_playwright

from klines.web import page
from tests.application import serving, settings_for
from tests.page.market import Market
from tests.page.screen import Screen
from tests.servers import Database

# As Debian's Chromium runs as root and without asking anybody else for anything.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = (1440, 900)

Visit = Callable[..., Awaitable[Screen]]


@pytest.fixture
def built() -> None:
    if not (page.BUILT / page.INDEX).exists():
        pytest.skip("the page is not built: make page")


@pytest.fixture
async def browser(built: None) -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield opened
        await opened.close()


@pytest.fixture
async def visit(browser: Browser) -> Visit:
    """Opens the page of a service in a window of its own."""

    async def visit(
        url: str, fragment: str = "#PEPE/1m", size: tuple[int, int] = DESKTOP, theme: str = "dark"
    ) -> Screen:
        width, height = size
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
        )
        screen = Screen(await context.new_page(), url)
        await screen.open(fragment)
        return screen

    return visit


@pytest.fixture
async def market(plain: Database, built: None) -> AsyncIterator[Market]:
    """A token's market on a service of its own."""
    async with serving(settings_for(plain)) as url:
        yield Market(url)
