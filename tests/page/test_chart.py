"""The page in a browser over a real service: what is drawn and told is what the database has, to the digit."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.async_api import expect

from tests.page.conftest import Visit
from tests.page.market import Market
from tests.page.screen import ORDER, Screen, unfolded

PHONE = (390, 844)


async def test_candles_are_drawn_within_two_seconds(market: Market, visit: Visit) -> None:
    await market.history(300)
    screen = await visit(market.url)
    await screen.drawn(300, seconds=2.0)
    bars = await screen.shows(market)
    assert len(bars) == 300
    pixels = await screen.pixels()
    assert min(pixels["up"], pixels["down"]) > 200, pixels
    last = bars[-1]["close"]
    assert re.fullmatch(r"0\.0₈\d+", await screen.at("#last-price").inner_text())
    assert unfolded((await screen.page.title()).split(" · ")[0]) == last
    assert (await screen.page.title()).endswith("PEPE · klines")
    await screen.walks(bars[-20:])
    screen.is_clean()


async def test_the_open_bar_moves_with_a_trade(market: Market, visit: Visit) -> None:
    await market.history(20)
    screen = await visit(market.url, "#PEPE/1d")
    await screen.shows(market, "1d")
    before = await screen.at("#chart").get_attribute("data-open")
    await market.post(market.trade(price="0.0000000099"))
    bars = await screen.shows(market, "1d", seconds=2.0)
    assert (await screen.told())["high"] == "0.0000000099"
    after = await screen.at("#chart").get_attribute("data-open")
    assert after != before
    # Drawn a billion times as large, the way the chart can draw it.
    assert [float(text) for text in (after or "").split()] == [
        pytest.approx(float(bars[-1][part]) * 1e9) for part in ORDER
    ]
    first = screen.at("#trades li").first
    await expect(first).to_have_attribute("data-id", str(market.count))
    await expect(first.locator(".price")).to_have_text("0.0₈99")
    await expect(screen.at("#tokens .price")).to_have_attribute("data-value", "0.0000000099")
    await expect(first.locator(".side")).to_have_text(re.compile("▲ Buy|▼ Sell"))
    screen.is_clean()


async def test_scrolling_back_loads_what_is_older(market: Market, visit: Visit) -> None:
    await market.history(2100, each=1)
    screen = await visit(market.url)
    await screen.drawn(600)
    await screen.at("#chart").focus()
    for count in (1600, 2100):
        await screen.page.keyboard.press("Home")
        await screen.drawn(count)
    bars = await market.klines()
    assert len(bars) == 2100
    await screen.drawn(first=bars[0]["open_time"], last=bars[-1]["open_time"])
    await screen.page.keyboard.press("Home")
    await screen.tells(bars[0])
    screen.is_clean()


async def test_intervals_and_the_address(market: Market, visit: Visit) -> None:
    await market.history(200, width=20)
    screen = await visit(market.url)
    for interval in ("5s", "15s", "1h", "1w", "1s"):
        await screen.at(f"#intervals input[value='{interval}']").check()
        bars = await screen.shows(market, interval)
        await screen.drawn(len(bars))
        await expect(screen.page).to_have_url(f"{market.url}/#PEPE/{interval}")
    # A radio group: arrows move in it.
    await screen.page.keyboard.press("ArrowRight")
    await expect(screen.page).to_have_url(f"{market.url}/#PEPE/5s")
    await screen.page.reload()
    await expect(screen.at("#intervals input:checked")).to_have_value("5s")
    await screen.shows(market, "5s")
    screen.is_clean()


async def test_search_and_choose_a_token_by_keyboard(market: Market, visit: Visit) -> None:
    other = Market(market.url, "ÜBER$-SOL", seed=2)
    await market.history(5)
    await other.history(7)
    async with httpx.AsyncClient(base_url=market.url) as client:
        assert (await client.put("/api/v1/tokens/ÜBER$-SOL", json={"name": "<b>Überhund</b>"})).status_code == 200
    screen = await visit(market.url)
    await screen.drawn(5)
    await screen.page.keyboard.press("/")
    await expect(screen.at("#search")).to_be_focused()
    await screen.page.keyboard.type("berhu")
    await expect(screen.at("#tokens li")).to_have_count(1)
    await screen.page.keyboard.press("ArrowDown")
    await screen.page.keyboard.press("Enter")
    await screen.drawn(7)
    await screen.shows(other)
    await expect(screen.at("#symbol")).to_have_text("ÜBER$-SOL")
    await expect(screen.at("#name")).to_have_text("<b>Überhund</b>")
    await expect(screen.at("#tokens [aria-selected=true] .symbol")).to_have_text("ÜBER$-SOL")
    assert max(await screen.trade_ids()) == other.count
    await screen.at("#search").press("Escape")
    await expect(screen.at("#tokens li")).to_have_count(2)
    await screen.page.go_back()
    await screen.drawn(5)
    screen.is_clean()


async def test_the_list_is_sorted_by_the_service(market: Market, visit: Visit) -> None:
    await market.post(market.trade(60, "1"), market.trade(0, "2"))
    await Market(market.url, "DOWN").post({**Market(market.url, "DOWN").trade(60, "2"), "amount": "900000000000"})
    screen = await visit(market.url)
    for sort, first in (("volume", "DOWN"), ("change", "PEPE"), ("symbol", "DOWN")):
        await screen.at(f"[data-sort={sort}]").click()
        await expect(screen.at("#tokens .symbol").first).to_have_text(first)
        await expect(screen.at(f"[data-sort={sort}]")).to_have_attribute("aria-pressed", "true")
    await expect(
        screen.at(
            "#tokens li",
        )
        .filter(has_text="PEPE")
        .locator(".change")
    ).to_have_text("+100.00%")
    screen.is_clean()


async def test_a_page_without_tokens_says_how_to_get_them_and_follows(market: Market, visit: Visit) -> None:
    screen = await visit(market.url, "")
    await expect(screen.at("#no-tokens")).to_be_visible()
    await screen.state("live")
    await expect(screen.at("#origin")).to_have_text(f"{market.url}/api/v1/trades")
    await market.history(3)
    await screen.drawn(3)
    await expect(screen.page).to_have_url(f"{market.url}/#PEPE/1m")
    await expect(screen.at("#no-tokens")).to_be_hidden()
    screen.is_clean()


async def test_a_token_without_trades_waits_for_the_first(market: Market, visit: Visit) -> None:
    async with httpx.AsyncClient(base_url=market.url) as client:
        await client.put("/api/v1/tokens/PEPE", json={})
    screen = await visit(market.url)
    await expect(screen.at("#empty-token")).to_be_visible()
    await market.post(market.trade())
    await expect(screen.at("#empty-token")).to_be_hidden()
    await screen.shows(market)
    screen.is_clean()


async def test_an_unknown_token_appears_when_it_is_traded(market: Market, visit: Visit) -> None:
    screen = await visit(market.url, "#NEW/1s")
    await expect(screen.at("#unknown-token")).to_be_visible()
    new = Market(market.url, "NEW")
    await new.post(new.trade())
    await screen.drawn(1)
    await screen.shows(new, "1s")
    screen.is_clean(away=True)


async def test_themes_are_switched_and_remembered(market: Market, visit: Visit) -> None:
    await market.history(3)
    screen = await visit(market.url, theme="light")
    root = screen.at("html")
    await screen.state("live")
    await expect(root).to_have_attribute("data-theme", "light")
    await screen.at("#theme").click()
    await expect(root).to_have_attribute("data-theme", "dark")
    await screen.page.reload()
    await expect(root).to_have_attribute("data-theme", "dark")
    await screen.drawn(3)
    assert sum((await screen.pixels()).values()) > 0
    screen.is_clean()


async def test_a_phone_shows_one_thing_at_a_time(market: Market, visit: Visit) -> None:
    await market.history(50)
    screen: Screen = await visit(market.url, size=PHONE)
    await screen.drawn(50)
    for tab in ("tokens", "trades", "chart"):
        await screen.at(f"button[data-tab={tab}]").click()
        for panel in ("tokens", "trades", "chart"):
            await expect(screen.at(f"[data-panel={panel}]")).to_be_visible(visible=panel == tab)
    wide = await screen.page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= PHONE[0]
    await screen.at("button[data-tab=tokens]").click()
    await screen.at("#tokens li").first.click()
    await expect(screen.at("[data-panel=chart]")).to_be_visible()
    screen.is_clean()
