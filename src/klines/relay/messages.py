"""The messages of the streams, encoded once and framed once, whoever gets them. Pure.

Times are epoch milliseconds; `bars` and `trades` are the insides of JSON arrays as PostgreSQL built them.
"""

from __future__ import annotations

import time
from typing import Literal

import msgspec
from websockets.frames import Frame, Opcode

from klines.cursor import Cursor, Stream
from klines.interval import Width

State = Literal["live", "stale"]


def now_ms() -> int:
    """The clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def framed(message: str | bytes) -> bytes:
    """The message as an unmasked WebSocket text frame (RFC 6455), the same bytes for every client."""
    payload = message.encode() if isinstance(message, str) else message
    return bytes(Frame(Opcode.TEXT, payload).serialize(mask=False))


class Address:
    """The beginning that the messages of one stream share: whose bars or trades they tell."""

    def __init__(self, stream: Stream, symbol: str) -> None:
        told = f'"symbol":{msgspec.json.encode(symbol).decode()},'
        if stream.seconds:
            told += f'"interval":"{Width(stream.seconds).name}",'
        self._told = told
        self._rows = "klines" if stream.seconds else "trades"

    def snapshot(self, rows: str, cursor: Cursor, recovered: bool | None) -> str:
        """What a stream begins with; `recovered` says whether a given cursor could be continued from."""
        said = "" if recovered is None else f',"recovered":{str(recovered).lower()}'
        return (
            f'{{"type":"snapshot",{self._told}"{self._rows}":[{rows}],"cursor":"{cursor}"{said},'
            f'"server_time":{now_ms()}}}'
        )

    def bar(self, kind: Literal["kline", "revision"], bar: str, cursor: Cursor) -> str:
        """One bar as it is now."""
        return f'{{"type":"{kind}",{self._told}"kline":{bar},"cursor":"{cursor}"}}'

    def trades(self, trades: str, cursor: Cursor) -> str:
        """Trades in the order of their commits."""
        return f'{{"type":"trades",{self._told}"trades":[{trades}],"cursor":"{cursor}"}}'


def heartbeat(feed: State, cursor: Cursor | None) -> str:
    """Sent where nothing else was to be told."""
    place = f',"cursor":"{cursor}"' if cursor else ""
    return f'{{"type":"heartbeat","feed":"{feed}","server_time":{now_ms()}{place}}}'
