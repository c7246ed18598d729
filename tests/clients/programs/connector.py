"""binance-connector, REST and streams, pointed at base URLs; what the streams say are events."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
from typing import Any

from answering import answer_calls, event
from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

spot = Spot(base_url=sys.argv[1], show_limit_usage=True)
streams = SpotWebsocketStreamClient(
    stream_url=sys.argv[2], on_message=lambda _, text: event(json.loads(text)), is_combined="combined" in sys.argv
)


def find(name: str) -> Any:
    place, _, method = name.rpartition(".")
    return getattr(streams if place == "streams" else spot, method)


answer_calls(find)
streams.stop()
