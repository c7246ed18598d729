"""The chart's buttons, and phones on their side."""

from __future__ import annotations

from playwright.async_api import expect

from tests.page.conftest import Visit
from tests.page.market import Market
from tests.page.test_chart import PHONE

LANDSCAPE = (844, 390)
SMALL = """() => [...document.querySelectorAll('button, .link, input[type=search], .interval')]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && one.getBoundingClientRect().height < 40)
    .map((one) => one.id || one.className || one.textContent)"""


async def test_the_axis_is_logarithmic_when_asked_and_stays_so(market: Market, visit: Visit) -> None:
    rising = [market.trade(600 - 60 * step, f"{10**power}") for step in range(10) for power in (step, step + 2)]
    await market.post(*rising)
    screen = await visit(market.url)
    await screen.drawn()
    await screen.shows(market)
    straight = await screen.pixels()
    await screen.at("#logarithmic").click()
    await expect(screen.at("#logarithmic")).to_have_attribute("aria-pressed", "true")
    await screen.page.reload()
    await expect(screen.at("#logarithmic")).to_have_attribute("aria-pressed", "true")
    await screen.shows(market)
    # On a straight axis all but the last two of these bars are too low to be seen.
    assert (await screen.pixels())["up"] > 1.2 * straight["up"]
    screen.is_clean()


async def test_there_is_a_way_back_to_the_latest_bars(market: Market, visit: Visit) -> None:
    await market.history(400, each=1)
    screen = await visit(market.url)
    await screen.drawn(400, live="true")
    await expect(screen.at("#latest")).to_be_hidden()
    await screen.at("#chart").focus()
    await screen.page.keyboard.press("Home")
    await screen.drawn(live="false")
    await screen.at("#latest").click()
    await screen.drawn(live="true")
    await expect(screen.at("#latest")).to_be_hidden()
    screen.is_clean()


async def test_a_phone_is_used_with_fingers_upright_and_on_its_side(market: Market, visit: Visit) -> None:
    await market.history(50)
    for size in (PHONE, LANDSCAPE):
        screen = await visit(market.url, size=size)
        await screen.drawn(50)
        for tab in ("tokens", "chart"):
            await screen.at(f"button[data-tab={tab}]").click()
            assert await screen.page.evaluate(SMALL) == []
        assert await screen.page.evaluate("() => document.documentElement.scrollWidth") <= size[0]
        canvas = await screen.at(".canvas").bounding_box()
        assert canvas
        assert canvas["height"] > size[1] / 2
        screen.is_clean()
