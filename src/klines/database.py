"""Connections: the reading engine and the writing pool, and what a driver's error means to a caller.

Driver errors become `Unavailable` here and nowhere else. Reads go through SQLAlchemy, writes through asyncpg's own
pool, because binary arrays and COPY are asyncpg's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from klines.errors import Unavailable

APPLICATION = "klines"
CONNECT_SECONDS = 5
ACQUIRE_SECONDS = 2
READ_SECONDS = 5
WRITE_SECONDS = 60
LOCK_SECONDS = 3

# For a connection that stands as long as its process: silence does not end it, but a host that is gone does, within
# half a minute. The server would otherwise keep what the connection holds there for hours.
LASTING = {
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}

BY_KEY = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

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
)

_BUSY = (
    PoolTimeout,
    TimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)


@asynccontextmanager
async def open_engine(
    url: str, pool_size: int = 1, statement_seconds: int = READ_SECONDS, *, by_key: bool = False
) -> AsyncIterator[AsyncEngine]:
    """The reading engine on the PostgreSQL at `url`; a statement may take `statement_seconds` (0: any time).

    With `by_key` it is for statements that read few rows by their keys, often: planned once, whatever statistics say.
    The URL is asyncpg's, with all that libpq reads in one (`sslmode`, several hosts, a socket's directory).
    """

    session = _session(statement_seconds) | (BY_KEY if by_key else {})

    async def connect(*_: object, **__: object) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=session)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=ACQUIRE_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def open_writers(url: str, size: int) -> AsyncIterator[asyncpg.Pool[Any]]:
    """The writing pool: `size` connections at the most, opened when needed."""
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        timeout=CONNECT_SECONDS,
        command_timeout=2 * WRITE_SECONDS,
        # A late trade in a compressed chunk decompresses its neighbours; one transaction may hold many of them.
        server_settings=_session(WRITE_SECONDS)
        | {"lock_timeout": f"{LOCK_SECONDS}s", "timescaledb.max_tuples_decompressed_per_dml_transaction": "0"},
    )
    async with pool:
        yield pool


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection of the engine; raises `Unavailable` when the database cannot answer.

    Statements are READ COMMITTED, each with a snapshot of its own: an older one can miss rows of a chunk that
    TimescaleDB has recompressed since. What must be consistent is therefore one statement.
    """
    with translated():
        async with engine.connect() as connection:
            yield connection


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
    if isinstance(cause, _BUSY):
        return Unavailable("the database is busy", code="database_busy")
    return Unavailable("the database does not answer", code="database_unavailable")


def _session(seconds: int) -> dict[str, str]:
    return {
        "application_name": APPLICATION,
        "default_transaction_isolation": "read committed",
        "statement_timeout": f"{seconds}s",
        "lock_timeout": f"{seconds}s",
        "idle_in_transaction_session_timeout": "30s",
        "TimeZone": "UTC",
        "jit": "off",
    }
