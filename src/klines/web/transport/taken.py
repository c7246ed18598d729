"""HTTP connections whose peers take their answers: at `LEAST` bytes in `TAKEN` seconds or faster, or they are reset."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from klines.web.transport.abort import reset


class Taken(HttpToolsProtocol):
    """uvicorn's protocol, and a look now and then at what the kernel has not taken for the peer."""

    TAKEN: ClassVar[float] = 10.0
    LEAST: ClassVar[int] = 64 * 1024

    def __init__(self, config: Config, server_state: ServerState, *of_server: Any, **named: Any) -> None:
        super().__init__(config, server_state, *of_server, **named)
        self._sending: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch()

    def stop_watching(self) -> None:
        """The connection has ended, or is not ours any more."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._sending is None:
            self._sending = self.loop.call_later(self.TAKEN, self._look_at_sent, left)

    def _look_at_sent(self, before: int) -> None:
        self._sending = None
        left = self.transport.get_write_buffer_size()
        if left and before - left < min(self.LEAST, before):
            reset(self.transport)
        else:
            self._watch()
