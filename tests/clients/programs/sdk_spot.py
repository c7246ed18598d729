"""binance-sdk-spot, REST and streams, pointed at base URLs; what the streams say are events."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
import sys
from typing import Any

from answering import answer_calls_together, event
from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_sdk_spot.spot import Spot


async def main(base: str, sockets: str) -> None:
    spot = Spot(
        config_rest_api=ConfigurationRestAPI(api_key="", api_secret="", base_path=base, timeout=10_000),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=sockets),
    )
    streams = await spot.websocket_streams.create_connection()
    handles: dict[str, Any] = {}

    async def rest(name: str, **keywords: Any) -> Any:
        answer = await asyncio.to_thread(getattr(spot.rest_api, name), **keywords)
        return {"data": answer.data(), "limits": [limit.count for limit in answer.rate_limits]}

    async def watch(name: str, **keywords: Any) -> None:
        handles[name] = await getattr(streams, name)(**keywords)
        handles[name].on("message", event)

    async def unwatch(name: str) -> None:
        await handles.pop(name).unsubscribe()

    async def listed() -> Any:
        return await streams.list_subscribe()

    methods = {"rest": rest, "watch": watch, "unwatch": unwatch, "listed": listed}
    await answer_calls_together(methods.__getitem__)
    await streams.close_connection(close_session=True)


asyncio.run(main(*sys.argv[1:]))
