"""Refusals outside the routes, in the words of the dialect whose address was asked for."""

from __future__ import annotations

from typing import Any

from litestar import Response
from litestar.types import Send

from klines.errors import KlinesError
from klines.web import problem
from klines.web.binance import refusal
from klines.web.udf import answers

# By the beginning of the address.
DIALECTS: Any = {"/api/v3/": refusal.from_klines_error, "/udf/": answers.from_klines_error}


async def refuse_in_kind(error: KlinesError, scope: Any, send: Send) -> None:
    """Answer with an error; an upgrade by ASGI's WebSocket Denial Response."""
    say = next((say for begin, say in DIALECTS.items() if scope["path"].startswith(begin)), problem.from_klines_error)
    nobody: Any = None
    response: Response[bytes] = say(nobody, error)
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    fields = {"content-type": str(response.media_type), "content-length": str(len(response.content))}
    fields |= {name.lower(): value for name, value in response.headers.items() if value is not None}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    start: Any = {"type": f"{kind}.response.start", "status": response.status_code, "headers": encoded}
    await send(start)
    end: Any = {"type": f"{kind}.response.body", "body": response.content, "more_body": False}
    await send(end)
