"""What the page is shown: trades that are posted to the service, and the bars it says they make."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx

Item = dict[str, Any]
Kline = dict[str, Any]

PARTS = ("open", "high", "low", "close", "volume")


class Market:
    """Trades of one token, posted over HTTP; ids count up."""

    def __init__(self, url: str, symbol: str = "PEPE", seed: int = 1) -> None:
        self.url = url
        self.symbol = symbol
        self.count = 0
        self.chance = random.Random(seed)  # noqa: S311 - a test's own market

    def trade(self, seconds_ago: float = 0.0, price: str = "") -> Item:
        """A trade of its own, of a price around 0.0000000012."""
        self.count += 1
        return {
            "symbol": self.symbol,
            "trade_id": self.count,
            "time": int((time.time() - seconds_ago) * 1000),
            "price": price or f"0.00000000{self.chance.randrange(110_000, 130_000)}",
            "amount": f"{self.chance.randrange(1, 10**9)}.{self.chance.randrange(1, 10**6):06}",
            "side": self.chance.choice(["buy", "sell"]),
        }

    async def post(self, *trades: Item, url: str = "") -> None:
        """Store them; `url` is of another service on the same database."""
        async with httpx.AsyncClient(base_url=url or self.url) as client:
            answer = await client.post("/api/v1/trades", json={"trades": trades})
        assert answer.status_code == 200, answer.text
        assert answer.json()["inserted"] == len(trades), answer.text

    async def history(self, bars: int, width: int = 60, each: int = 2) -> None:
        """So many bars of `width` seconds up to the present one, of `each` trades."""
        trades = [self.trade(number * width) for number in reversed(range(bars)) for _ in range(each)]
        for start in range(0, len(trades), 5000):
            await self.post(*trades[start : start + 5000])

    async def klines(self, interval: str = "1m", limit: int = 5000) -> list[Kline]:
        """The latest bars as REST has them."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            query: dict[str, str | int] = {"interval": interval, "limit": limit}
            answer = await client.get(f"/api/v1/klines/{self.symbol}", params=query)
        assert answer.status_code == 200, answer.text
        found: list[Kline] = answer.json()["klines"]
        return found
