"""python-binance's sockets, pointed at base URLs; what they receive are events."""

# mypy: disable-error-code="import-not-found,misc"

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

import binance
from answering import answer_calls_together, event


class Client(binance.AsyncClient):
    """The client as it is, elsewhere."""

    API_URL = sys.argv[1] + "/api"


class Sockets(binance.BinanceSocketManager):
    """Its sockets as they are, elsewhere."""

    STREAM_URL = sys.argv[2] + "/"


async def main() -> None:
    client = await Client.create()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close_connection)
        sockets, at_work = Sockets(client), []

        async def read(socket: Any) -> None:
            while True:
                event(await socket.recv())

        async def watch(name: str, *arguments: Any) -> None:
            socket = await stack.enter_async_context(getattr(sockets, name)(*arguments))
            at_work.append(asyncio.create_task(read(socket)))

        await answer_calls_together(lambda name: lambda *arguments: watch(name, *arguments))
        for task in at_work:
            task.cancel()


asyncio.run(main())
