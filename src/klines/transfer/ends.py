"""The two databases of a copy: opened, told apart, and refused before anything is written.

The source is only read, but for two row locks: one keeps it from forgetting trades while they are carried over, one
stills a single token for the moment in which it is compared. The target must be empty or a copy of the same source,
which its comment on `klines_internal.retention` says; one command fills it at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from klines import database, migrations
from klines.errors import BadRequest, Conflict
from klines.session import LASTING, PATH
from klines.transfer import statements

COPY_LOCK = 0x6B6C696E6573_10
ORIGIN = "copied by klines from "
SESSION = LASTING | {
    **PATH,
    "application_name": "klines copy",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "timescaledb.max_tuples_decompressed_per_dml_transaction": "0",
    "TimeZone": "UTC",
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
}

Connection: TypeAlias = "asyncpg.Connection[Any]"


class Ends(NamedTuple):
    """Both ends. The source has no trades before `floor` any more; `floor_before` is how far the target knew that."""

    source: Connection
    target: Connection
    floor: datetime
    floor_before: datetime


async def prepare(source_url: str, target_url: str, profile: str, seconds: float) -> None:
    """Migrate the target and mark it as a copy; raises `BadRequest` when it cannot be one, with nothing written."""
    async with connected(source_url) as source, connected(target_url) as target:
        origin = await _refuse_unfit(source, target)
        await migrations.upgrade(target_url, profile, seconds)
        await target.execute(f"COMMENT ON TABLE klines_internal.retention IS '{origin}'")


@asynccontextmanager
async def open_ends(source_url: str, target_url: str) -> AsyncIterator[Ends]:
    """Both, once they are prepared; raises `Conflict` while another copy fills the target."""
    async with AsyncExitStack() as stack:
        source, holder, target = [
            await stack.enter_async_context(connected(url)) for url in (source_url, source_url, target_url)
        ]
        await _refuse_company(target)
        await target.execute(statements.STAGE)
        await stack.enter_async_context(holder.transaction())
        floor = await holder.fetchval(statements.HOLD_FLOOR)
        yield Ends(source, target, floor, await target.fetchval(statements.FLOOR))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection that waits as long as it takes, and ends with the context."""
    connection = await database.connected(url, server_settings=SESSION)
    try:
        yield connection
    finally:
        # What is under way is undone by the server, also when it does not answer.
        connection.terminate()


async def _refuse_unfit(source: Connection, target: Connection) -> str:
    """The mark of a copy of this source."""
    identity, other = await source.fetchval(statements.IDENTITY), await target.fetchval(statements.IDENTITY)
    if identity == other:
        raise BadRequest("--to: is the database that is to be copied", code="copy_onto_itself")
    await _refuse_company(target)
    origin = f"{ORIGIN}{identity}"
    if await target.fetchval(statements.HAS_TABLES):
        found = await target.fetchval(statements.ORIGIN)
        if found != origin and not await target.fetchval(statements.IS_EMPTY):
            of = "a copy of another database" if found else "tokens of its own"
            raise BadRequest(f"--to: this database holds {of}: a copy needs an empty one", code="copy_target_taken")
    return origin


async def _refuse_company(target: Connection) -> None:
    if not await target.fetchval(statements.ALONE, COPY_LOCK):
        raise Conflict("--to: another copy into this database is under way", code="copy_under_way")
