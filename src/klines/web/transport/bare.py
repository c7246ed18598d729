"""An answer without the framework: a problem as the bytes of a whole HTTP/1.1 response, after which nothing comes."""

from __future__ import annotations

import email.utils
from http import HTTPStatus

import msgspec

from klines.web.guard import GUARDS, OURS
from klines.web.problem import MEDIA_TYPE, Problem


def response(problem: Problem, headers: dict[str, str], request_id: str) -> bytes:
    """The bytes; `headers` are besides those that every refusal has."""
    body = msgspec.json.encode(problem)
    fields = {"Date": email.utils.formatdate(usegmt=True), "Content-Type": MEDIA_TYPE, **headers}
    fields |= {"Content-Length": str(len(body)), "Connection": "close", "X-Request-ID": request_id}
    lines = [f"{name}: {value}\r\n".encode() for name, value in fields.items()]
    lines += [b"%b: %b\r\n" % field for field in (*GUARDS, OURS)]
    line = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join([line, *lines, b"\r\n", body])
