"""What the database says of its own accord: which tokens changed, and when nobody can say.

One connection per process, outside every pool, listens on `CHANNEL`. A notification is a doorbell, not a parcel: it
may be repeated, forged or lost, and only says where to look. Two promises make that enough. Whoever reads after
`Resumed` misses nothing: every commit that the reading does not see rings later. And a connection that says nothing
is not believed: after `PROBE_SECONDS` of silence it must carry a notification to the server and back within
`PROBE_TIMEOUT`, or it is dropped and opened anew. Lost connections are opened again for ever.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg

from klines.database import APPLICATION, CONNECT_SECONDS, LASTING, connected, translated
from klines.errors import Unavailable

CHANNEL = "klines_v1"
ANY_TOKEN = "*"
PROBE_SECONDS = 3.0
PROBE_TIMEOUT = 3.0
RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 2.0
MAX_WAITING = 10_000
MAX_IDS = 4_000  # more do not fit into a payload
MAX_ID = 2**31 - 1

_IDS = re.compile(rf"[0-9]{{1,10}}(?:,[0-9]{{1,10}}){{0,{MAX_IDS - 1}}}")
# Asking how full the queue is lets PostgreSQL forget what everybody has taken, which a full one does by nothing else.
_PROBE = "SELECT pg_notify($1, '') FROM pg_notification_queue_usage()"

logger = logging.getLogger("klines.listener")


class Doorbell(NamedTuple):
    """Trades of these tokens, by `token_id`, were committed; None: of any token."""

    tokens: frozenset[int] | None


class Resumed(NamedTuple):
    """Listening, for the first time or again: what was committed before must be read, nothing will ring for it."""


class Silenced(NamedTuple):
    """Not listening: the connection is lost, or could not be opened at first. Said once, until `Resumed`."""


async def listen(
    url: str, *, probe_seconds: float = PROBE_SECONDS, probe_timeout: float = PROBE_TIMEOUT
) -> AsyncGenerator[Doorbell | Resumed | Silenced, None]:
    """Doorbells of the database at `url`, without end; doorbells that nobody took yet come out as one.

    Iterate it in a task that does little else, as probes are sent only while somebody waits, and within
    `contextlib.aclosing`, so that a task cancelled between two items closes the connection too. A database that is
    away never raises; a URL that cannot be read, and errors of our own, do.
    """
    retry = _Retry()
    while True:
        try:
            async with _opened(url) as line:
                retry.succeeded()
                yield Resumed()
                while True:
                    yield await line.heard(probe_seconds, probe_timeout)
        except Unavailable as error:
            lost = retry.failed(error)
        if lost:
            yield Silenced()
        await retry.pause()


class _Line:
    """One connection: what it heard and nobody took yet, bounded, and how it proves that it still hears."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._probe_channel = f"{CHANNEL}_probe_{connection.get_server_pid()}"
        self._waiting: set[int] = set()
        self._any = False
        self._rung = asyncio.Event()
        self._stirred = asyncio.Event()
        self._heard_at = asyncio.get_running_loop().time()
        self._told_of_nonsense = False

    async def start(self) -> None:
        """Listen on both channels; raises what the driver raises."""
        self._connection.add_termination_listener(self._end)
        await self._connection.add_listener(CHANNEL, self._ring)
        await self._connection.add_listener(self._probe_channel, self._stir)
        self._heard_at = asyncio.get_running_loop().time()

    async def heard(self, probe_seconds: float, probe_timeout: float) -> Doorbell:
        """Wait for the next doorbell; raises `Unavailable` when the connection ended or does not prove itself."""
        while not self._rung.is_set():
            try:
                async with asyncio.timeout_at(self._heard_at + probe_seconds):
                    await self._rung.wait()
            except TimeoutError:
                if asyncio.get_running_loop().time() >= self._heard_at + probe_seconds:
                    await self._probe(probe_timeout)
        if self._connection.is_closed():
            raise Unavailable("the connection ended", code="database_unavailable")
        return self._take()

    async def _probe(self, seconds: float) -> None:
        self._stirred.clear()
        with _retried(), _answering(self._connection, seconds):
            await self._connection.execute(_PROBE, self._probe_channel)
            await self._stirred.wait()

    def _take(self) -> Doorbell:
        tokens = None if self._any else frozenset(self._waiting)
        self._waiting.clear()
        self._any = False
        self._rung.clear()
        return Doorbell(tokens)

    def _ring(self, _connection: object, pid: int, _channel: str, payload: object) -> None:
        self._stir()
        tokens = _ids(payload)
        if payload == ANY_TOKEN or (tokens and len(self._waiting) + len(tokens) > MAX_WAITING):
            self._any = True
            self._waiting.clear()
        elif tokens:
            if not self._any:
                self._waiting.update(tokens)
        else:
            self._ignore(pid)
            return
        self._rung.set()

    def _stir(self, *_: object) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._stirred.set()

    def _end(self, _connection: object) -> None:
        self._rung.set()
        self._stirred.set()

    def _ignore(self, pid: int) -> None:
        # Anybody who may connect may notify: once per connection is enough, and never the payload itself.
        if not self._told_of_nonsense:
            self._told_of_nonsense = True
            logger.warning("server process %d sends payloads on %s that are not ours; ignored", pid, CHANNEL)


class _Retry:
    """When to try again, and what the log is told: one line per loss and one per return, not one per attempt."""

    def __init__(self) -> None:
        self._seconds = RETRY_SECONDS
        self._listening: bool | None = None
        self._since = asyncio.get_running_loop().time()

    def succeeded(self) -> None:
        """The connection listens."""
        if self._listening is False:
            logger.info("listening to the database again")
        self._listening = True
        self._since = asyncio.get_running_loop().time()

    def failed(self, error: Unavailable) -> bool:
        """The connection ended or did not come about; True when that is news."""
        now = asyncio.get_running_loop().time()
        was, self._listening = self._listening, False
        if was:
            # One that stood does not pay for those that failed before it; one that fell at once does.
            if now - self._since > MAX_RETRY_SECONDS:
                self._seconds = RETRY_SECONDS
            self._since = now
        if was is not False:
            cause = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
            logger.warning("not listening to the database: %s%s", error.detail, cause)
        return was is not False

    async def pause(self) -> None:
        """Wait before the next attempt, the longer the more failed; the time that an attempt took counts."""
        wait = self._seconds * random.uniform(0.5, 1)  # noqa: S311 - spreads processes, hides nothing
        self._seconds = min(2 * self._seconds, MAX_RETRY_SECONDS)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._since + wait - loop.time())
        self._since = loop.time()


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[_Line]:
    with _retried():
        connection = await connected(url, server_settings=_session())
    try:
        line = _Line(connection)
        with _retried(), _answering(connection, CONNECT_SECONDS):
            await line.start()
        yield line
    finally:
        # Not close(): that waits for a server which may be gone.
        connection.terminate()


@contextmanager
def _retried() -> Iterator[None]:
    # Two fixed statements are sent: what a server answers to them, a full queue say, is its state and no error of ours.
    # A certificate that fails is a ValueError too, and may be replaced while we run.
    try:
        with translated():
            yield
    except (asyncpg.PostgresError, ssl.SSLError) as error:
        raise Unavailable("the database does not let us listen", code="database_unavailable") from error


@contextmanager
def _answering(connection: asyncpg.Connection[Any], seconds: float) -> Iterator[None]:
    # Not a timeout: that makes the driver open a second connection, to cancel the statement of the first.
    timer = asyncio.get_running_loop().call_later(seconds, connection.terminate)
    try:
        yield
    finally:
        timer.cancel()


def _session() -> dict[str, str]:
    # The driver sets no keepalive on our end, where probes stand in for it. The server must not keep a listener whose
    # host is gone: notifications that it has not sent fill its queue, and a full queue fails commits.
    return LASTING | {
        "application_name": f"{APPLICATION} listener",
        "default_transaction_isolation": "read committed",
    }


def _ids(payload: object) -> frozenset[int]:
    """The token ids of a payload, empty when it is not a list of them."""
    if not isinstance(payload, str) or not _IDS.fullmatch(payload):
        return frozenset()
    tokens = frozenset(map(int, payload.split(",")))
    return tokens if max(tokens) <= MAX_ID else frozenset()
