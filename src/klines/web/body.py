"""Request bodies: the whole of one, in a format and an encoding that the route reads, and in time."""

from __future__ import annotations

import asyncio

from klines.errors import RequestTimeout, UnsupportedMediaType, echo
from klines.web.admission.intake import Room
from klines.web.services import Incoming

JSON = "application/json"
NDJSON = "application/x-ndjson"
BODY_SECONDS = 10.0


async def read_body(request: Incoming, *media_types: str, room: Room | None = None) -> tuple[str, bytes]:
    """Which of the media types the body is in, and the body; a client that is slow to send it holds no place.

    Raises `UnsupportedMediaType` before anything is read, `RequestTimeout`, and `Unavailable` where the room is full.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"content-encoding {echo(encoding)}: send it uncompressed", code="encoding")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        wanted = " or ".join(media_types)
        detail = f"content-type {echo(media_type)}: must be {wanted}"
        raise UnsupportedMediaType(detail, code="media_type_unsupported")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return media_type, await (request.body() if room is None else _into(room, request))
    except TimeoutError:
        raise RequestTimeout(f"the body took longer than {BODY_SECONDS} s", code="body_too_slow") from None


async def _into(room: Room, request: Incoming) -> bytes:
    parts = []
    async for part in request.stream():
        room.take(len(part))
        parts.append(part)
    room.fill()
    return b"".join(parts)
