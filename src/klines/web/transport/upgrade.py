"""A WebSocket connection before its upgrade: the server's own refusals, and who hears of them."""

from __future__ import annotations

from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from klines.web.transport.edge import SEEN, Refused, edge_of
from klines.web.transport.handshake import CODES, INVALID, QUIET
from klines.web.transport.inward import Inward


class Upgrade(WebSocketsSansIOProtocol):
    """uvicorn's protocol with ours in it; `refused` is the status with which the upgrade was refused here, else 0.

    A refusal has a problem as its body and the id of its request. The application's `Edge` is told of one that no
    application saw.
    """

    def __init__(self, config: Config, **of_server: Any) -> None:
        super().__init__(config, **of_server)
        self.conn = Inward(max_size=config.ws_max_size, logger=QUIET)
        self.refused = 0

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if (status := self.response.status_code) != 101:
            self._tell(status)

    def reject(self, status: int, detail: str) -> None:
        """Write the answer: what the protocol has to say already, or this."""
        conn = cast(Inward, self.conn)
        if self.handshake_initiated:
            seen: Any = cast(Any, self.scope).get(SEEN)
            conn.request_id = seen.id if seen is not None else ""
        self.transport.write(b"".join(conn.data_to_send()) or conn.reject(status, detail).serialize())
        self.refused = status
        if not self.handshake_initiated:
            self._tell(status)

    def _tell(self, status: int) -> None:
        name, peer = cast(Inward, self.conn).request_id, self.client[0] if self.client else ""
        edge_of(self.config).refused(Refused(status, CODES.get(status, INVALID), name, peer))
