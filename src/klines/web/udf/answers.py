"""Answers of the dialect: JSON that no cache keeps, errors as `{"s": "error", "errmsg": "…"}`.

Numbers are JSON numbers written from exact decimal text: nothing between the database and the client's own parser
rounds them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response

from klines.errors import KlinesError, UnknownToken
from klines.web import problem

HEADERS = {"Cache-Control": "no-store"}
REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})
UNKNOWN_SYMBOL = "unknown_symbol"


def answer(body: Any) -> Response[bytes]:
    """`body` as JSON, or as it stands if it is JSON already."""
    text = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(text, media_type="application/json", headers=HEADERS)


def number(text: str) -> msgspec.Raw:
    """Fixed-point decimal text, which is a JSON number as it stands."""
    return msgspec.Raw(text.encode())


def from_klines_error(_: Request[Any, Any, Any], error: KlinesError) -> Response[bytes]:
    """An error that the service raised on purpose; its status only if the fault is ours, or who asks is refused."""
    headers = problem.told(error)[1]
    message = UNKNOWN_SYMBOL if isinstance(error, UnknownToken) else error.detail
    told = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status in REFUSED
    return _failure(message, error.status if told else HTTPStatus.OK, headers)


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: logged with its traceback, told without it."""
    problem.from_anything(request, error)
    return _failure(problem.OUR_FAULT.detail, HTTPStatus.INTERNAL_SERVER_ERROR, {})


def _failure(message: str, status: int, headers: dict[str, str]) -> Response[bytes]:
    body = msgspec.json.encode({"s": "error", "errmsg": message})
    return Response(body, status_code=status, media_type="application/json", headers=HEADERS | headers)
