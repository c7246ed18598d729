"""The page as somebody sees it: what is drawn, what the legend says, and nothing that a browser complains of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Locator, Page, Request, expect

from tests.page.market import PARTS, Kline, Market

# What every browser says of a service that is away.
AWAY = re.compile(r"net::ERR_|WebSocket connection to|Failed to load resource|status of 503|status of 404")
ORDER = ["open", "high", "low", "close"]

VIOLATIONS = "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
PIXELS = """
() => [...document.querySelectorAll('#chart canvas')].reduce((found, canvas) => {
    if (!canvas.width || !canvas.height) return found;
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < data.length; at += 4) {
        if (data[at] === 47 && data[at + 1] === 191 && data[at + 2] === 143) found.up++;
        if (data[at] === 240 && data[at + 1] === 97 && data[at + 2] === 109) found.down++;
    }
    return found;
}, { up: 0, down: 0 })
"""


class Screen:
    """A page in a browser. `complaints` are errors of any kind and requests to other hosts."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._url = url
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._see)

    async def open(self, fragment: str = "#PEPE/1m") -> None:
        """Go to the page."""
        await self.page.add_init_script(VIOLATIONS)
        await self.page.goto(f"{self._url}/{fragment}")

    def at(self, selector: str) -> Locator:
        """What this selector finds."""
        return self.page.locator(selector)

    async def drawn(self, bars: int | None = None, *, seconds: float = 5.0, **data: object) -> None:
        """Wait until the chart says so of itself: see `frontend/src/chart.ts`."""
        wanted = data if bars is None else data | {"bars": bars}
        for name, value in wanted.items():
            await expect(self.at("#chart")).to_have_attribute(f"data-{name}", str(value), timeout=seconds * 1000)

    async def shows(self, market: Market, interval: str = "1m", *, seconds: float = 5.0) -> list[Kline]:
        """Wait until the last bar drawn and told is the service's own, to the digit; returns the service's bars."""
        bars = await market.klines(interval)
        await self.drawn(last=bars[-1]["open_time"], seconds=seconds)
        await self.tells(bars[-1], seconds=seconds)
        return bars

    async def tells(self, bar: Kline, *, seconds: float = 5.0) -> None:
        """Wait until the legend has exactly this bar."""
        for part in PARTS:
            cell = self.at(f"#bar-{part}")
            await expect(cell).to_have_attribute("data-value", bar[part], timeout=seconds * 1000)
            if part != "volume":  # that is shortened
                assert unfolded(await cell.inner_text()) == bar[part]

    async def told(self) -> dict[str, str | None]:
        """What the legend says at this moment."""
        return {part: await self.at(f"#bar-{part}").get_attribute("data-value") for part in PARTS}

    async def walks(self, bars: list[Kline]) -> None:
        """With the keyboard along these bars, the last of the chart, backwards: each is told to the digit."""
        await self.at("#chart").focus()
        await self.page.keyboard.press("End")
        for bar in reversed(bars):
            await self.tells(bar)
            await self.page.keyboard.press("ArrowLeft")
        await self.page.keyboard.press("Escape")

    async def state(self, state: str, *, seconds: float = 10.0) -> None:
        """Wait until the page says how its connection is."""
        await expect(self.at("#state")).to_have_attribute("data-state", state, timeout=seconds * 1000)

    async def trade_ids(self) -> list[int]:
        """The tape, newest first."""
        script = "() => [...document.querySelectorAll('#trades li')].map(row => Number(row.dataset.id))"
        found: list[int] = await self.page.evaluate(script)
        return found

    async def pixels(self) -> Any:
        """How many pixels have the colours of bars that went up and down, in the dark theme."""
        return await self.page.evaluate(PIXELS)

    def is_clean(self, *, away: bool = False) -> None:
        """Nothing was complained of; `away`: but that the service was away."""
        found = [text for text in self.complaints if not (away and AWAY.search(text))]
        assert not found, found

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning", "assert"}:
            self.complaints.append(message.text)

    def _see(self, request: Request) -> None:
        self.requests.append(request.url)
        if urlsplit(request.url).netloc != urlsplit(self._url).netloc:
            self.complaints.append(f"asked another host: {request.url}")


Open = Callable[..., Any]


def unfolded(text: str) -> str:
    """A number as it is written without counted zeros."""
    found = re.fullmatch(r"0\.0([₀-₉]+)(\d+)", text)
    if found is None:
        return text
    zeros = int("".join(str("₀₁₂₃₄₅₆₇₈₉".index(digit)) for digit in found[1]))
    return f"0.{'0' * zeros}{found[2]}"
