"""The handshake of a WebSocket as the websockets library does it: with problems as refusals, and without chatter."""

from __future__ import annotations

import email.utils
import logging
from http import HTTPStatus
from secrets import token_hex
from typing import Any

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.server import ServerProtocol

from klines.web.guard import GUARDS
from klines.web.problem import MEDIA_TYPE, RETRY_SECONDS, Problem

INVALID = "handshake_invalid"
CODES = {414: "uri_too_long", 426: "upgrade_required", 431: "headers_too_large", 500: "internal", 503: "restarting"}


class Handshake(ServerProtocol):
    """One connection's protocol without input or output; a refusal has a problem as its body, and `request_id`."""

    request_id = ""

    def reject(self, status: int, text: str) -> Response:
        """The answer of an upgrade that is refused."""
        phrase = HTTPStatus(status).phrase
        code = CODES.get(status, INVALID)
        problem = Problem(title=phrase, status=status, detail=text.strip() or phrase, code=code)
        body = msgspec.json.encode(problem)
        self.request_id = self.request_id or token_hex(8)
        headers = Headers(
            {"Date": email.utils.formatdate(usegmt=True), "Connection": "close", "X-Request-ID": self.request_id}
        )
        headers.update({"Content-Length": str(len(body)), "Content-Type": MEDIA_TYPE})
        headers.update({name.decode(): value.decode() for name, value in GUARDS})
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = str(RETRY_SECONDS)
        return Response(status, phrase, headers, body)


class Quiet(logging.LoggerAdapter[logging.Logger]):
    """uvicorn and websockets tell every upgrade at info, with text the client chose; here that is for debugging."""

    level = logging.NOTSET

    def info(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """At debug instead."""
        self.debug(msg, *args, **kwargs)


QUIET = Quiet(logging.getLogger("uvicorn.error"), {})
