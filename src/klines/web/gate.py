"""What stands before the routes: requests and upgrades that no route may see, and HEAD as a GET without a body."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar.types import ASGIApp, Receive, Send

from klines.web.problem import Problem, refuse

SOCKETS = frozenset({"ws", "stream"})
"""The first segments of addresses that take upgrades."""
MAX_TARGET = 8 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

_HOST = re.compile(rb"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_OFFERED = re.compile(r"\s*(\*/\*|application/(\*|json|problem\+json|openapi\+json|vnd\.oai\.openapi\+json))\s*(;|$)")
# Everything else has one form only, whatever a browser says it likes best.
JSON_PATHS = ("/api/", "/health/", "/schema")


def gate(app: ASGIApp) -> ASGIApp:
    """Wrap an application: what breaks a rule below is answered with a problem, HEAD from the GET route."""

    async def gated(scope: Any, receive: Receive, send: Send) -> None:
        upgrade = scope["type"] == "websocket"
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif (problem := _upgrade_problem(scope) if upgrade else _problem_of(scope)) is not None:
            await refuse(problem, {}, send, upgrade=upgrade)
        elif scope.get("method") == "HEAD":
            # The server itself drops the body of an answer to HEAD; a copy leaves it the method to see.
            await app(scope | {"method": "GET"}, receive, send)
        else:
            await app(scope, receive, send)

    return gated


def _problem_of(scope: Any) -> Problem | None:
    return _target_problem(scope) or _headers_problem(scope["headers"]) or _accept_problem(scope)


def _upgrade_problem(scope: Any) -> Problem | None:
    problem = _target_problem(scope) or _headers_problem(scope["headers"])
    if problem is None and scope["path"].split("/")[1] not in SOCKETS:
        return _problem(404, "Not found", "sockets are at /ws/… and /stream", "route_unknown")
    return problem


def _target_problem(scope: Any) -> Problem | None:
    raw_path = scope.get("raw_path") or scope["path"].encode()
    if len(raw_path) + len(scope["query_string"]) > MAX_TARGET:
        return _problem(414, "URI too long", f"the target has more than {MAX_TARGET} bytes", "uri_too_long")
    path = unquote_to_bytes(raw_path)
    if b"\0" in path:
        return _problem(400, "Bad request", "the path holds a NUL", "path_invalid")
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return _problem(400, "Bad request", "the path is not UTF-8", "path_invalid")
    return None


def _headers_problem(headers: list[tuple[bytes, bytes]]) -> Problem | None:
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        detail = f"at most {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes together"
        return _problem(431, "Request header fields too large", detail, "headers_too_large")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or any(_HOST.fullmatch(host) is None for host in hosts):
        return _problem(400, "Bad request", "Host must be one host name with at most a port", "host_invalid")
    return None


def _accept_problem(scope: Any) -> Problem | None:
    if not scope["path"].startswith(JSON_PATHS):
        return None
    accepted = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    if not accepted or any(_OFFERED.match(part) for part in ",".join(accepted).split(",")):
        return None
    return _problem(406, "Not acceptable", "answers are application/json", "not_acceptable")


def _problem(status: int, title: str, detail: str, code: str) -> Problem:
    return Problem(title=title, status=status, detail=detail, code=code)
