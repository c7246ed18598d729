"""Errors as `application/problem+json` (RFC 9457): `{type, title, status, detail, code, errors?}`.

`code` is stable. What is not raised on purpose says nothing of itself but that it happened, and is logged.
"""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import Send

from klines.errors import (
    ItemError,
    KlinesError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpgradeRequired,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
QUIET_SECONDS = 10.0

logger = logging.getLogger("klines.web")

# By code, of which there are a few.
_quiet_until: dict[str, float] = {}


class Problem(msgspec.Struct, kw_only=True):
    """The body of every answer that is not a success; `about:blank` is RFC 9457's type without a page of its own."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[ItemError, ...] | msgspec.UnsetType = msgspec.UNSET


OUR_FAULT = Problem(title="Internal error", status=500, detail="something went wrong on our side", code="internal")
CODES = {
    400: "bad_request",
    404: "route_unknown",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    415: "media_type_unsupported",
}


def from_klines_error(_: Request[Any, Any, Any], error: KlinesError) -> Response[bytes]:
    """An error that the service raised on purpose."""
    return _answer(*told(error))


def told(error: KlinesError) -> tuple[Problem, dict[str, str]]:
    """What a client sees of an error: the body, and the header fields besides its type and length."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _warn(error)
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, Unavailable) else {}
    if isinstance(error, TooManyRequests):
        headers = {"Retry-After": str(error.retry_after)}
    if isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": 'Bearer realm="klines"'}
    if isinstance(error, UnsupportedMediaType):
        headers = {"Accept-Encoding": "identity"}
    if isinstance(error, UpgradeRequired):
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    problem = Problem(title=error.title, status=error.status, detail=error.detail, code=error.code)
    if error.errors:
        problem.errors = error.errors
    return problem, headers


async def refuse(problem: Problem, headers: dict[str, str], send: Send, *, upgrade: bool) -> None:
    """Answer a request outside the framework; for an upgrade that is ASGI's WebSocket Denial Response."""
    kind = "websocket.http" if upgrade else "http"
    body = msgspec.json.encode(problem)
    fields = headers | {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
    encoded = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    start: Any = {"type": f"{kind}.response.start", "status": problem.status, "headers": encoded}
    await send(start)
    end: Any = {"type": f"{kind}.response.body", "body": body, "more_body": False}
    await send(end)


def from_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """An error of the framework: no such route or method, a body that is too large."""
    status = error.status_code
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    phrase = HTTPStatus(status).phrase
    code = CODES.get(status, "http_error")
    return _answer(Problem(title=phrase, status=status, detail=error.detail or phrase, code=code), headers)


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: logged with its traceback, told without it."""
    logger.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return _answer(OUR_FAULT)


def _warn(error: KlinesError) -> None:
    # Whoever is refused may ask again at once, and a thousand others with him: a line per code and ten seconds.
    now = time.monotonic()
    if now < _quiet_until.get(error.code, 0.0):
        logger.debug("%s: %s", error.code, error.detail)
        return
    _quiet_until[error.code] = now + QUIET_SECONDS
    logger.warning("%s: %s", error.code, error.detail)


def _answer(problem: Problem, headers: dict[str, str] | None = None) -> Response[bytes]:
    body = msgspec.json.encode(problem)
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)
