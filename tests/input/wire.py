"""What goes over the wire as it stands, and what comes back: no library repairs what a case has broken."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

DEADLINE = 15
JSON = ("Content-Type: application/json",)
NDJSON = ("Content-Type: application/x-ndjson",)


class Answer(NamedTuple):
    """One HTTP answer; `headers` in lower case, `code` that of its problem, if it is one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        problem = msgspec.json.decode(self.body)
        assert problem["status"] == self.status, problem
        return str(problem["code"])


class Case(NamedTuple):
    """One row of a table: its number in the catalogue, what is sent, and what must come back.

    `code` is the stable one of the problem, "" for an answer that is none; `holds` must be in the head or the body.
    """

    number: str
    what: str
    request: bytes
    status: int
    code: str = ""
    holds: bytes = b""

    def fault(self, answer: Answer) -> str:
        """What is wrong with this answer; empty if nothing is."""
        head = "\r\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode()
        if (answer.status, answer.code) == (self.status, self.code) and self.holds in head + b"\r\n\r\n" + answer.body:
            return ""
        found = f"{answer.status} {answer.code or '-'} {answer.body[:200]!r} {head[:200]!r}"
        return f"{self.number} {self.what}: expected {self.status} {self.code or '-'} {self.holds!r}, got {found}"


def request(method: str, target: str, *headers: str, body: bytes = b"", host: str = "localhost") -> bytes:
    """A request; characters of the target that are not ASCII, and spaces, are quoted, nothing else is."""
    target = quote(target, safe="%/?&=;:@$,'\"()*!~<>\\^`{|}[]+-._#")
    lines = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers, "Connection: close"]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(target: str, *headers: str, **others: Any) -> bytes:
    """A GET."""
    return request("GET", target, *headers, **others)


class Place(NamedTuple):
    """Where the service listens."""

    host: str
    port: int

    async def send(self, data: bytes, *, then_end: bool = False) -> Answer:
        """Send and read to the end; `then_end` ends our half after the data."""
        answer = parsed(await self.raw(data, then_end=then_end))
        assert answer is not None, f"no answer to {data[:80]!r}"
        return answer

    async def raw(self, data: bytes, *, then_end: bool = False) -> bytes:
        """Send, and everything that comes back until the service closes."""
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(data)
                if then_end:
                    writer.write_eof()
                return await _until_end(reader)
            finally:
                writer.close()


async def _until_end(reader: asyncio.StreamReader) -> bytes:
    came = b""
    try:
        while piece := await reader.read(65_536):
            came += piece
    except ConnectionError:
        # The service closed while we still sent: what it said came before that.
        pass
    return came


def parsed(data: bytes) -> Answer | None:
    """The first answer in the data."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ")[1]), headers, body)
