"""`/health/live` and `/health/ready`: alive, and able to do what is promised, in words where not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from litestar import Response, get

from klines.errors import Unavailable
from klines.queries.server import State
from klines.web.leaving import Leaving
from klines.web.services import Given, Incoming, Services

# Below what monitors call stale, above what the listener takes to prove that it hears.
SILENT_SECONDS = 5.0
# A disk that was full may be still, as long as nobody has written since.
FULL_SECONDS = 30.0
# A batch that was refused says something of the next one, as long as none was stored since.
REFUSED_SECONDS = 5.0
# The smallest queue that PostgreSQL allows has 64 pages: above this, all are taken.
QUEUE_FULL = 0.99

Problem = tuple[str, str]


class Live(msgspec.Struct):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(msgspec.Struct):
    """Whether requests can be served, and if not, why: `problems` in words, `codes` for machines, in the same order.

    `durability` is what an acknowledged trade survives.
    """

    ready: bool
    problems: list[str]
    codes: list[str]
    profile: str
    revision: str
    durability: dict[str, str]


@get("/health/live", summary="Is the process alive?")
async def get_live() -> Live:
    """Always 200 while the process can answer at all."""
    return Live()


@get("/health/ready", summary="Can it serve?")
async def get_ready(request: Incoming, services: Given) -> Response[Ready]:
    """200 when a write would be stored and the streams are live, else 503 and why not; within 2.5 seconds."""
    try:
        state = await services.probe.state()
    except Unavailable:
        state = None
    leaving: Leaving = request.app.state.leaving
    problems = [*_of_process(services, leaving), *_of_database(services, state)]
    found = services.schema
    answer = Ready(
        ready=not problems,
        problems=[words for _, words in problems],
        codes=[code for code, _ in problems],
        profile=found.profile.profile if found.profile else "",
        revision=found.newest,
        durability=state.durability if state else {},
    )
    return Response(answer, status_code=503 if problems else 200, headers={"Cache-Control": "no-store"})


def _of_process(services: Services, leaving: Leaving) -> Iterator[Problem]:
    pulse = services.relay.pulse
    if leaving.told:
        yield "leaving", "the process was told to leave"
    if pulse.state == "stale":
        yield "streams_stale", "the streams are stale"
    if (silent := pulse.silent_seconds) > SILENT_SECONDS:
        yield "listener_silent", f"nothing was heard of the database for {silent:.0f} s"
    if services.breaker.state != "closed":
        yield "database_refused", "the database did not answer, and is tried again now and then"
    if services.writer.full_within(FULL_SECONDS):
        yield "database_full", "the database has no room left on its disk"
    elif services.writer.refused_within(REFUSED_SECONDS):
        yield "write_refused", "the last batch was not stored: the database was busy"


def _of_database(services: Services, state: State | None) -> Iterator[Problem]:
    if state is None:
        yield "database_unavailable", "the database does not answer"
        return
    if state.read_only:
        yield "database_read_only", "the database refuses whatever writes"
    if not state.may_write:
        yield "write_forbidden", "the database's login may not store trades"
    if state.notify_queue > QUEUE_FULL:
        yield "notify_queue_full", "a session that listens takes nothing, and the notification queue is full of it"
    if state.revision != services.schema.newest:
        needed = f"this version needs {services.schema.newest}"
        yield "schema", f"the database is at revision {state.revision}, {needed}: run `klines db upgrade`"
    for name, value in state.durability.items():
        if value in {"off", "local"}:
            yield "durability", f"{name} is {value}"
