"""The page of a service that wants a key for everything: it asks for one, uses it, and lets it show nowhere."""

from __future__ import annotations

from playwright.async_api import expect

from tests.access.keys import made, revoke
from tests.application import serving, settings_for
from tests.page.conftest import Visit
from tests.page.market import Market
from tests.servers import Database

REFUSED = "status of 401"


async def test_the_page_asks_for_a_key_and_lives_with_it(plain: Database, visit: Visit) -> None:
    reader, writer, revoked = await made(plain, "read"), await made(plain, "write"), await made(plain, "read")
    await revoke(plain, revoked)
    async with serving(settings_for(plain)) as open_to_all:
        market = Market(open_to_all)
        await market.history(20)
        async with serving(settings_for(plain, auth="all")) as url:
            screen = await visit(url)
            await expect(screen.at("#access")).to_be_visible()
            for wrong in (writer, revoked):
                await screen.at("#access-key").fill(wrong.text)
                await screen.at("#access-key").press("Enter")
                await expect(screen.at("#access-why")).to_have_text("This key is not valid, or may not read.")
            await screen.at("#access-key").fill(reader.text)
            await screen.at("#access-key").press("Enter")
            await screen.state("live")
            await screen.shows(market)
            await expect(screen.at("#access")).to_be_hidden()
            # Streams too, and in this tab for good.
            await market.post(market.trade())
            await screen.shows(market)
            await screen.page.reload()
            await screen.state("live")
            await screen.shows(market)
            assert not any(reader.text in request for request in screen.requests)
            await revoke(plain, reader)
            await expect(screen.at("#access")).to_be_visible(timeout=10_000)
            assert all(REFUSED in text or "403" in text or "WebSocket" in text for text in screen.complaints)
