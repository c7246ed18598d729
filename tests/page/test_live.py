"""The page over faults: it says how it is connected, comes back by itself, and then misses nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.async_api import expect

from tests.application import serving, settings_for
from tests.live.followers import address_of, before
from tests.live.proxy import Proxy, through, upstream_of
from tests.page.conftest import Visit
from tests.page.market import Market
from tests.servers import Database


async def test_a_restart_of_the_service_loses_nothing(plain: Database, visit: Visit) -> None:
    settings = settings_for(plain)
    async with serving(settings) as url:
        market = Market(url)
        await market.history(30)
        screen = await visit(url, "#PEPE/1s")
        await screen.state("live")
        known = await market.klines("1s")
        await screen.drawn(len(known))
        assert sorted(await screen.trade_ids(), reverse=True) == list(range(60, 10, -1))
    await screen.state("reconnecting")
    await expect(screen.at("#state")).to_have_text("Reconnecting")
    async with serving(settings) as other:
        for age in (3, 2, 1, 0):
            await market.post(market.trade(age), url=other)
        # Into a bar that the page has drawn.
        await market.post({**market.trade(), "time": known[20]["close_time"]}, url=other)
    async with serving(settings, urlsplit(url).port or 0):
        await screen.state("live", seconds=15)
        await screen.shows(market, "1s")
        bars = await market.klines("1s")
        assert len(bars) > len(known)
        assert bars[20]["trades"] == known[20]["trades"] + 1
        await screen.drawn(len(bars))
        await expect(screen.at("#trades li")).to_have_count(55)
        assert (await screen.trade_ids())[:5] == [65, 64, 63, 62, 61]
        assert sorted(await screen.trade_ids()) == list(range(11, 66))
        await screen.walks(bars[-25:])
        await market.post(market.trade())
        await screen.shows(market, "1s")
    screen.is_clean(away=True)


async def test_a_late_trade_changes_its_bar(market: Market, visit: Visit) -> None:
    await market.history(30)
    screen = await visit(market.url)
    await screen.drawn(30)
    await screen.state("live")
    bars = await market.klines()
    late = {**market.trade(price="0.0000000055"), "time": bars[-6]["close_time"]}
    await market.post(late)
    await screen.at("#chart").focus()
    for _ in range(6):
        await screen.page.keyboard.press("ArrowLeft")
    changed = (await market.klines())[-6]
    assert changed["high"] == "0.0000000055"
    await screen.tells(changed)
    screen.is_clean()


async def test_stale_is_told_and_recovered_from(plain: Database, visit: Visit) -> None:
    with Proxy(upstream_of(plain.url)) as away:
        settings = settings_for(Database(through(away, plain.url), "plain"))
        async with serving(settings) as url:
            market = Market(url)
            await market.history(10)
            screen = await visit(url)
            await screen.state("live")
            away.refuse()
            away.cut()
            await screen.state("stale")
            await expect(screen.at("#state")).to_contain_text("Stale")
            async with serving(settings_for(plain)) as other:
                await market.post(market.trade(), url=other)
            away.restore()
            await screen.state("live")
            await screen.shows(market)
            screen.is_clean(away=True)


async def test_a_connection_that_went_silent_is_left(market: Market, visit: Visit) -> None:
    await market.history(10)
    with before(market.url) as proxy:
        screen = await visit(address_of(proxy))
        await screen.state("live")
        # From here on the page's clock is ours: nobody waits fifteen seconds.
        await screen.page.clock.install()
        await screen.page.reload()
        await screen.state("live")
        proxy.blackhole()
        await screen.page.clock.fast_forward(16_000)
        await screen.state("reconnecting")
        await market.post(market.trade())
        proxy.restore()
        await screen.page.clock.fast_forward(10_000)
        await screen.state("live")
        await screen.shows(market)
        screen.is_clean(away=True)


async def test_leaving_a_token_closes_its_streams(market: Market, visit: Visit) -> None:
    await market.history(5)
    other = Market(market.url, "WIF")
    await other.history(5)
    screen = await visit(market.url)
    open_sockets: set[str] = set()
    screen.page.on("websocket", lambda socket: open_sockets.add(socket.url))
    screen.page.on("websocket", lambda socket: socket.on("close", lambda _: open_sockets.discard(socket.url)))
    await screen.drawn(5)
    for symbol in ("WIF", "PEPE", "WIF"):
        await screen.at(f"#tokens [data-symbol={symbol}]").click()
        await expect(screen.at("#symbol")).to_have_text(symbol)
    await screen.shows(other)
    await market.post(market.trade())
    await other.post(other.trade())
    await screen.shows(other)
    assert market.symbol not in await screen.page.title()
    assert {urlsplit(url).path for url in open_sockets} == {"/ws/klines/WIF/1m", "/ws/transactions/WIF"}
    screen.is_clean()
