"""The page with the simulated market in it, on the screens it is made for; the pictures are in `build/screenshots`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.application import serving, settings_for
from tests.page.conftest import DESKTOP, Visit
from tests.page.test_chart import PHONE
from tests.servers import Database

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
TOKENS = ("WIFHAT-USDC", "MOONCAT-SOL", "GRAVE-SOL", "PEPEWEI-USDC")


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_simulated_market(plain: Database, visit: Visit, theme: str, size: tuple[int, int]) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    name = f"{'desktop' if size == DESKTOP else 'phone'}-{theme}"
    settings = settings_for(plain, mock_data_interval=250, mock_history_minutes=120)
    async with serving(settings) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            for symbol in TOKENS:
                facts = {"name": symbol.partition("-")[0].title()}
                assert (await client.put(f"/api/v1/tokens/{symbol}", json=facts)).status_code in {200, 201}
        # Opened while there is no trade yet: the page follows the history as it is written.
        for symbol, interval in (("WIFHAT-USDC", "1m"), ("PEPEWEI-USDC", "15s"), ("MOONCAT-SOL", "1s")):
            screen = await visit(url, f"#{symbol}/{interval}", size=size, theme=theme)
            await screen.state("live")
            await screen.at("#chart:not([data-bars='0'])").wait_for()
            await screen.at("#trades li:nth-child(20)").wait_for(state="attached")
            await screen.at("#tokens li:nth-child(4)").wait_for(state="attached")
            await screen.page.screenshot(path=PICTURES / f"{name}-{symbol.partition('-')[0].lower()}.png")
            if size == PHONE:
                for tab in ("tokens", "trades"):
                    await screen.at(f"button[data-tab={tab}]").click()
                    await screen.page.screenshot(path=PICTURES / f"{name}-{tab}.png")
            overflow = "() => [...document.querySelectorAll('.head, .bar, .token, .trade')].filter(" + (
                "one => one.scrollWidth > one.clientWidth + 1).map(one => one.className)"
            )
            assert await screen.page.evaluate(overflow) == []
            screen.is_clean()
            await screen.page.context.close()
