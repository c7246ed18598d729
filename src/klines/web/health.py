"""`/health/live` and `/health/ready`: alive, and able to do what is promised, in words where not."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec
from litestar import Response, get

from klines.database import reading
from klines.errors import Unavailable
from klines.queries import server
from klines.web.services import Given

CHECK_SECONDS = 2


class Live(msgspec.Struct):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(msgspec.Struct):
    """Whether requests can be served, and if not, why; `durability` is what an acknowledged trade survives."""

    ready: bool
    problems: list[str]
    profile: str
    revision: str
    durability: dict[str, str]


@get("/health/live", summary="Is the process alive?")
async def get_live() -> Live:
    """Always 200 while the process can answer at all."""
    return Live()


@get("/health/ready", summary="Can it serve?")
async def get_ready(services: Given) -> Response[Ready]:
    """200 when the database answers, keeps what it acknowledges and feeds the streams, else 503 and why not."""
    durability: dict[str, str] = {}
    problems = []
    try:
        async with asyncio.timeout(CHECK_SECONDS), reading(services.engine) as connection:
            durability = await server.durability(connection)
        problems = [f"{name} is {value}" for name, value in durability.items() if value in {"off", "local"}]
    except (Unavailable, TimeoutError):
        problems = ["the database does not answer"]
    if services.relay.pulse.state == "stale":
        problems.append("the streams are stale")
    found = services.schema
    answer = Ready(
        ready=not problems,
        problems=problems,
        profile=found.profile.profile if found.profile else "",
        revision=found.newest,
        durability=durability,
    )
    return Response(answer, status_code=503 if problems else 200, headers={"Cache-Control": "no-store"})
