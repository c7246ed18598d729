"""Connections: the reading engine and the writing pool, and what a driver's error means to a caller.

Driver errors become `Unavailable` here and nowhere else. Reads go through SQLAlchemy, writes through asyncpg's own
pool, because binary arrays and COPY are asyncpg's. Every wait has an end of ours besides the server's, for a server
that says nothing any more; a connection that was waited for in vain is dropped, not asked to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any, cast

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from klines import tracing
from klines.breaker import GONE, Breaker
from klines.dsn import split
from klines.errors import Unavailable
from klines.patience import patience, place
from klines.proof import prove_connections
from klines.session import BY_KEY, PATH

APPLICATION = "klines"
CONNECT_SECONDS = 5
ACQUIRE_SECONDS = 2
# For a connection of a pool to open, or a reading one to prove that it answers.
READY_SECONDS = 3
PROVEN_SECONDS = 1  # how long a connection that was used needs no proof that it answers
READ_SECONDS = 5
WRITE_SECONDS = 60
# A statement of a writer: it ends before the request that sent it.
INGEST_SECONDS = 50
LOCK_SECONDS = 3
IDLE_SECONDS = 10
# A server that says nothing cannot be told that we leave.
CLOSE_SECONDS = 1
# How much later than the server we give up.
MARGIN_SECONDS = 0.5

_GONE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ProgramLimitExceededError,  # the queue of notifications is full: no commit that rings is possible
)

_BUSY = (
    PoolTimeout,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.ProgramLimitExceededError,
)


@asynccontextmanager
async def open_engine(
    url: str,
    pool_size: int = 1,
    statement_seconds: int = READ_SECONDS,
    *,
    by_key: bool = False,
    autocommit: bool = False,
    breaker: Breaker | None = None,
) -> AsyncIterator[AsyncEngine]:
    """The reading engine on the PostgreSQL at `url`; a statement may take `statement_seconds` (0: any time).

    With `by_key` it is for statements that read few rows by their keys, often: planned once, whatever statistics say.
    With `autocommit` every statement is a transaction of its own, which spares two round trips a use.
    The URL is asyncpg's, with all that libpq reads in one (`sslmode`, `connect_timeout`, several hosts, a socket's
    directory). What is read through it counts for the `breaker`, if there is one.
    """

    session = _session(statement_seconds) | (BY_KEY if by_key else {})
    patience = statement_seconds + MARGIN_SECONDS if statement_seconds else None

    async def connect(*_: object, **__: object) -> asyncpg.Connection[Any]:
        connection = await connected(url, command_timeout=patience, server_settings=session)
        await tracing.watch(connection)
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=ACQUIRE_SECONDS,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        execution_options={
            "klines_breaker": breaker,
            "klines_places": asyncio.Semaphore(pool_size),
            "klines_ready_seconds": max(READY_SECONDS, split(url, READY_SECONDS)[1]),
        },
    )
    tracing.watch_reads(engine)
    prove_connections(engine, PROVEN_SECONDS)
    event.listen(engine.sync_engine, "invalidate", _cut)
    try:
        yield engine
    finally:
        await _closed(engine.dispose())


@asynccontextmanager
async def open_writers(url: str, size: int) -> AsyncIterator[asyncpg.Pool[Any]]:
    """The writing pool: `size` connections at the most, opened when needed."""
    address, seconds = split(url, READY_SECONDS)
    pool = asyncpg.create_pool(
        address,
        min_size=0,
        max_size=size,
        timeout=seconds,
        command_timeout=INGEST_SECONDS + MARGIN_SECONDS,
        init=tracing.watch,
        # A late trade in a compressed chunk decompresses its neighbours; one transaction may hold many of them.
        server_settings=PATH
        | _session(INGEST_SECONDS)
        | {"lock_timeout": f"{LOCK_SECONDS}s", "timescaledb.max_tuples_decompressed_per_dml_transaction": "0"},
    )
    async with pool:
        try:
            yield pool
        finally:
            # What does not close in time is cut by the pool itself.
            await _closed(pool.close())


async def connected(url: str, server_settings: dict[str, str] | None = None, **choices: Any) -> asyncpg.Connection[Any]:
    """A connection of its own; `choices` are asyncpg's. Its `timeout` is `CONNECT_SECONDS`, or what the URL says.

    A server that does not answer in time is a `ConnectionError`: it is away, not busy.
    """
    address, seconds = split(url, CONNECT_SECONDS)
    try:
        async with patience(seconds):
            connection: asyncpg.Connection[Any] = await asyncpg.connect(
                address, timeout=cast(float, None), server_settings=PATH | (server_settings or {}), **choices
            )
    except TimeoutError as error:
        raise ConnectionError(f"no connection in {seconds:g} s") from error
    return connection


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection of the engine; raises `Unavailable` when the database cannot answer.

    Statements are READ COMMITTED, each with a snapshot of its own: an older one can miss rows of a chunk that
    TimescaleDB has recompressed since. What must be consistent is therefore one statement.
    """
    options = engine.get_execution_options()
    with guarded(options.get("klines_breaker")):
        # Not the pool's own queue: the time to wait there would be missing when the connection has to prove itself.
        async with place(options["klines_places"], ACQUIRE_SECONDS):
            connection = await _ready(engine, options.get("klines_ready_seconds"))
            try:
                yield connection
            except TimeoutError:
                await _drop(connection)
                raise
            finally:
                await asyncio.shield(connection.close())


async def _ready(engine: AsyncEngine, seconds: float | None) -> AsyncConnection:
    try:
        async with patience(seconds):
            return await engine.connect().start()
    except PoolTimeout:
        raise
    except TimeoutError as error:
        raise ConnectionError(f"no answer in {seconds} s") from error


async def _closed(closing: Awaitable[None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await closing


async def _drop(connection: AsyncConnection) -> None:
    # Not closed, nor rolled back: that asks a server which has just not answered.
    if not connection.invalidated:
        await connection.invalidate()


def _cut(connection: Any, *_: object) -> None:
    # SQLAlchemy would ask the server to end it, and wait two seconds for one that does not answer.
    connection.driver_connection.terminate()


@contextmanager
def guarded(breaker: Breaker | None) -> Iterator[None]:
    """As `translated`, and counted by the breaker, which refuses while it is open."""
    with breaker.attempt() if breaker else nullcontext(), translated():
        yield


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the drivers raise when the database cannot answer into `Unavailable`."""
    try:
        yield
    except (PoolTimeout, OperationalError, InterfaceError) as error:
        raise _unavailable(error) from error
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(getattr(error.orig, "__cause__", None), _GONE):
            raise _unavailable(error) from error
        raise
    except (*_GONE, TimeoutError) as error:
        # asyncpg's DataError is our own fault, not the database's absence; a bad certificate is both kinds of error.
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise
        raise _unavailable(error) from error


def _unavailable(error: BaseException) -> Unavailable:
    cause = getattr(getattr(error, "orig", None), "__cause__", None) or error
    told = Unavailable("the database does not answer", code=GONE)
    if isinstance(cause, asyncpg.DiskFullError):
        told = Unavailable("the database has no room left on its disk", code="database_full")
    elif isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        told = Unavailable("the database is read-only: it takes no writes", code="database_read_only")
    elif isinstance(cause, _BUSY):
        told = Unavailable("the database is busy", code="database_busy")
    told.answered = isinstance(cause, asyncpg.PostgresError) and told.code != GONE
    return told


def _session(seconds: int) -> dict[str, str]:
    return {
        "application_name": APPLICATION,
        "default_transaction_isolation": "read committed",
        "statement_timeout": f"{seconds}s",
        "lock_timeout": f"{seconds}s",
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
        "TimeZone": "UTC",
        "jit": "off",
    }
