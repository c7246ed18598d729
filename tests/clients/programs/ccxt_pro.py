"""ccxt.pro's Binance, pointed at base URLs; that the service acknowledged a request is told as an event."""

# mypy: disable-error-code="import-not-found,misc"

from __future__ import annotations

import asyncio
import sys
from typing import Any

import ccxt.pro
from answering import answer_calls_together, event


class Watched(ccxt.pro.binance):
    """The client as it is; this only looks on."""

    def handle_subscription_status(self, client: Any, message: Any) -> Any:
        event("acknowledged")
        return super().handle_subscription_status(client, message)

    async def sockets(self) -> list[str]:
        """The addresses it is connected to."""
        return list(self.clients)


async def main(base: str, sockets: str) -> None:
    exchange = Watched({"options": {"fetchMarkets": ["spot"]}})
    exchange.urls["api"]["public"] = base + "/api/v3"
    exchange.urls["api"]["ws"]["spot"] = sockets + "/ws"
    exchange.number = str
    try:
        await answer_calls_together(lambda name: getattr(exchange, name))
    finally:
        await exchange.close()


asyncio.run(main(*sys.argv[1:]))
