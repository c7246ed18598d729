"""What stands before the routes: paths that no route may see, and HEAD as a GET without a body."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from litestar.types import ASGIApp, Message, Receive, Send

from klines.web.problem import MEDIA_TYPE, Problem


def gate(app: ASGIApp) -> ASGIApp:
    """Wrap an application: 400 for a path that is not UTF-8 or holds a NUL, HEAD answered from the GET route."""

    async def gated(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        problem = _path_problem(scope.get("raw_path") or scope["path"].encode())
        if problem is not None and scope["type"] == "http":
            await _refuse(problem, send)
        elif scope["type"] == "http" and scope["method"] == "HEAD":
            # The server itself drops the body of an answer to HEAD; a copy leaves it the method to see.
            await app(scope | {"method": "GET"}, receive, send)
        else:
            await app(scope, receive, send)

    return gated


def _path_problem(raw_path: bytes) -> Problem | None:
    path = unquote_to_bytes(raw_path)
    if b"\0" in path:
        return _problem("the path holds a NUL")
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return _problem("the path is not UTF-8")
    return None


def _problem(detail: str) -> Problem:
    return Problem(title="Bad request", status=400, detail=detail, code="path_invalid")


async def _refuse(problem: Problem, send: Send) -> None:
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    start: Message = {"type": "http.response.start", "status": problem.status, "headers": headers}
    await send(start)
    end: Message = {"type": "http.response.body", "body": body, "more_body": False}
    await send(end)
