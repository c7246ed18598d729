"""The page and its reader: what is shown belongs together, and keys and presses do what they were meant to."""

from __future__ import annotations

import asyncio

import httpx
from playwright.async_api import Route, expect

from tests.live.followers import poll
from tests.page.conftest import Visit
from tests.page.market import Market
from tests.page.screen import Screen

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


class Held:
    """Requests to addresses like this one wait until they are let go."""

    def __init__(self) -> None:
        self.come = asyncio.Event()
        self._free = asyncio.Event()

    async def hold(self, screen: Screen, address: str) -> None:
        await screen.page.route(address, self._wait)

    def let_go(self) -> None:
        self._free.set()

    async def _wait(self, route: Route) -> None:
        self.come.set()
        await self._free.wait()
        await route.continue_()


async def scale_of(screen: Screen) -> float:
    """How large the last price is drawn."""
    drawn = await screen.at("#chart").get_attribute("data-open")
    assert drawn
    return float(drawn.split()[3])


async def test_nothing_of_one_token_stands_under_the_name_of_another(market: Market, visit: Visit) -> None:
    other = Market(market.url, "WIF")
    await market.history(20)
    await other.history(7)
    screen = await visit(market.url)
    await screen.drawn(20)
    await screen.state("live")
    resolving, facts = Held(), Held()
    await resolving.hold(screen, "**/udf/symbols*")
    await facts.hold(screen, "**/api/v1/tokens/*")
    await screen.at("#tokens [data-symbol=WIF]").click()
    await asyncio.wait_for(resolving.come.wait(), 5)
    assert await screen.at("#symbol").inner_text() == "WIF"
    await screen.drawn(0)
    await expect(screen.at("#legend")).to_be_hidden()
    await screen.state("connecting")
    resolving.let_go()
    # The chart does not wait for what the list says of the token.
    await screen.drawn(7)
    await screen.shows(other)
    await screen.state("live")
    facts.let_go()
    again = Held()
    await screen.page.unroute("**/udf/symbols*")
    await again.hold(screen, "**/udf/symbols*")
    await screen.at("#intervals input[value='1h']").check()
    await asyncio.wait_for(again.come.wait(), 5)
    await screen.drawn(0)
    again.let_go()
    await screen.shows(other, "1h")
    screen.is_clean()


async def test_a_service_that_knows_no_such_token_is_there(market: Market, visit: Visit) -> None:
    screen = await visit(market.url, "#NOBODY/1m")
    await expect(screen.at("#unknown-token")).to_be_visible()
    await screen.state("live")
    screen.is_clean(away=True)


async def test_the_axis_follows_a_price_through_all_its_magnitudes(market: Market, visit: Visit) -> None:
    async with httpx.AsyncClient(base_url=market.url) as client:
        await client.put("/api/v1/tokens/PEPE", json={})
    screen = await visit(market.url)
    await expect(screen.at("#empty-token")).to_be_visible()
    await screen.state("live")
    for price in ("0.0000000012", "0.0000000000000000034", "1.5", "0.00000075", "250000000"):
        await market.post(market.trade(price=price))
        await screen.shows(market)
        assert 0.1 <= await scale_of(screen) < 100, price
    screen.is_clean()


async def test_enter_goes_to_what_was_typed(market: Market, visit: Visit) -> None:
    larger, wanted = Market(market.url, "WIFHAT"), Market(market.url, "WIF")
    await market.history(5)
    await larger.history(9)
    await wanted.history(3, each=1)
    screen = await visit(market.url)
    await screen.drawn(5)
    await expect(screen.at("#tokens li")).to_have_count(3)
    held = Held()
    await held.hold(screen, "**/api/v1/tokens?*search=*")
    await screen.at("#search").focus()
    await screen.page.keyboard.type("wif")
    await screen.page.keyboard.press("Enter")
    await asyncio.wait_for(held.come.wait(), 5)
    await expect(screen.at("#symbol")).to_have_text("PEPE")
    held.let_go()
    await expect(screen.at("#symbol")).to_have_text("WIF")
    await screen.drawn(3)
    # What is typed in part is the first that is found; the token shown before has no part in it.
    await screen.at("#search").fill("pep")
    await screen.page.keyboard.press("Enter")
    await expect(screen.at("#symbol")).to_have_text("PEPE")
    screen.is_clean()


async def test_rows_stay_under_the_pointer(market: Market, visit: Visit) -> None:
    other = Market(market.url, "WIF")
    await market.post(market.trade(price="2"))
    await other.post({**other.trade(price="1"), "amount": "0.5"})
    screen = await visit(market.url)
    symbols = screen.at("#tokens .symbol")
    await expect(symbols).to_have_text(["PEPE", "WIF"])
    await screen.at("#tokens li").first.hover()
    await other.post({**other.trade(price="3"), "amount": "900000000000"})
    await expect(screen.at("#tokens [data-symbol=WIF] .price")).to_have_text("3")
    await expect(symbols).to_have_text(["PEPE", "WIF"])
    await screen.at("#symbol").hover()
    await expect(symbols).to_have_text(["WIF", "PEPE"])
    screen.is_clean()


async def test_a_page_that_nobody_sees_does_not_ask(market: Market, visit: Visit) -> None:
    await market.history(3)
    screen = await visit(market.url)
    await screen.page.clock.install()
    await screen.page.reload()
    await screen.drawn(3)

    def asked() -> int:
        return sum("/api/v1/tokens?" in url for url in screen.requests)

    async def more() -> bool:
        return asked() > before

    before = asked()
    await screen.page.clock.fast_forward(4_000)
    await poll(more, 5.0)
    await expect(screen.at("#tokens li")).to_have_count(1)
    await screen.page.evaluate(HIDE, True)
    before = asked()
    for _ in range(5):
        await screen.page.clock.fast_forward(4_000)
    assert asked() == before
    await screen.page.evaluate(HIDE, False)
    await screen.page.clock.fast_forward(10)
    await poll(more, 5.0)
    screen.is_clean()


async def test_keys_of_the_browser_are_left_to_it_and_walking_is_told(market: Market, visit: Visit) -> None:
    await market.history(10)
    screen = await visit(market.url)
    bars = await screen.shows(market)
    entries = await screen.page.evaluate("history.length")
    for interval in ("5m", "1h", "1m"):
        await screen.at(f"#intervals input[value='{interval}']").check()
    assert await screen.page.evaluate("history.length") == entries
    await screen.shows(market)
    await screen.at("#chart").focus()
    for key in ("Control+ArrowLeft", "Meta+ArrowLeft"):
        await screen.page.keyboard.press(key)
        await screen.tells(bars[-1])
    await expect(screen.at("#walked")).to_have_text("")
    await screen.page.keyboard.press("ArrowLeft")
    await screen.page.keyboard.press("ArrowLeft")
    await expect(screen.at("#walked")).to_contain_text(f"close {bars[-2]['close']}")
    await screen.page.keyboard.press("Escape")
    await expect(screen.at("#walked")).to_have_text("")
    screen.is_clean()


async def test_long_numbers_leave_room_for_the_name(market: Market, visit: Visit) -> None:
    long = "123456789012345678.123456789012345678"
    await market.post(market.trade(60, "0.000000000000000001"), market.trade(price=long))
    screen = await visit(market.url)
    await screen.shows(market)
    name = screen.at("#tokens .symbol")
    assert await name.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    for price in (screen.at("#tokens .price"), screen.at("#last-price")):
        await expect(price).to_have_attribute("title", long)
        assert len(await price.inner_text()) <= 14
    change = await screen.at("#tokens .change").inner_text()
    assert change.startswith("+")
    assert "e" not in change
    screen.is_clean()


async def test_a_late_trade_does_not_move_who_looks_far_back(market: Market, visit: Visit) -> None:
    await market.history(7_000, each=1)
    screen = await visit(market.url)
    await screen.drawn(600)
    await screen.at("#chart").focus()
    for count in (1600, 2600, 3600, 4600, 5600, 6600, 7000):
        await screen.page.keyboard.press("Home")
        await screen.drawn(count)
    await screen.page.keyboard.press("Home")
    told = await screen.told()
    first = await screen.at("#chart").get_attribute("data-first")
    async with screen.page.expect_response(lambda answer: "countback=5000" in answer.url):
        await market.post(market.trade(600, "0.0000000099"))
    late = (await market.klines())[-11:-9]
    assert "0.0000000099" in {bar["high"] for bar in late}
    await screen.drawn(first=first)
    assert await screen.told() == told
    screen.is_clean()
