"""What the database says of its own accord: which tokens changed, and when nobody can say.

One connection per process, outside every pool, listens on `CHANNEL`. A notification is a doorbell, not a parcel: it
may be repeated, forged or lost, and only says where to look. Two promises make that enough. Whoever reads after
`Resumed` misses nothing: every commit that the reading does not see rings later. And a connection that says nothing
is not believed: after `PROBE_SECONDS` of silence it must carry a notification to the server and back within
`PROBE_TIMEOUT`, or it is dropped and opened anew. Lost connections are opened again for ever. One that is flooded is
dropped for a while (`klines.flood`): nobody has to listen in order to miss nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple, cast

import asyncpg

from klines.database import APPLICATION, CONNECT_SECONDS, connected, translated
from klines.doorbell import ANY_TOKEN, token_ids
from klines.errors import Unavailable
from klines.flood import Deafness, Flood, Listening
from klines.session import LASTING

CHANNEL = "klines_v1"
PROBE_SECONDS = 3.0
PROBE_TIMEOUT = 3.0
RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 2.0
MAX_WAITING = 10_000

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


class Deafened(NamedTuple):
    """Not listening, of our own will and for `klines.flood.MOST_SECONDS` at the most: it was flooded."""


async def listen(
    url: str, *, probe_seconds: float = PROBE_SECONDS, probe_timeout: float = PROBE_TIMEOUT
) -> AsyncGenerator[Doorbell | Resumed | Silenced | Deafened, None]:
    """Doorbells of the database at `url`, without end; doorbells that nobody took yet come out as one.

    Iterate it in a task that does little else, as probes are sent only while somebody waits, and within
    `contextlib.aclosing`, so that a task cancelled between two items closes the connection too. A database that is
    away never raises; a URL that cannot be read, and errors of our own, do.
    """
    retry = _Retry()
    while True:
        try:
            async with _opened(url, retry) as line:
                retry.succeeded()
                yield Resumed()
                while True:
                    yield await line.heard(probe_seconds, probe_timeout)
        except Flood as flood:
            news: Silenced | Deafened | None = retry.flooded(flood)
        except Unavailable as error:
            news = retry.failed(error)
        if news is not None:
            yield news
        await retry.pause()


class _Line:
    """One connection: what it heard and nobody took yet, bounded, and how it proves that it still hears."""

    def __init__(self, connection: Listening, *, told_of_nonsense: bool) -> None:
        self._connection = connection
        self._probe_channel = f"{CHANNEL}_probe_{connection.get_server_pid()}"
        self._waiting: set[int] = set()
        self._any = False
        self._rung = asyncio.Event()
        self._stirred = asyncio.Event()
        self._heard_at = asyncio.get_running_loop().time()
        self._told_of_nonsense = told_of_nonsense

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
        with _retried(), self._connection.answering(seconds):
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
        tokens = token_ids(payload)
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
        if not self._connection.allowance.take_foreign():
            self._connection.cut()


class _Retry:
    """When to try again, and what the log is told: one line per loss and one per return, not one per attempt."""

    def __init__(self) -> None:
        self._seconds = RETRY_SECONDS
        self._listening: bool | None = None
        self._deafness, self._deaf_seconds, self.told_of_flood = Deafness(), 0.0, False
        self._since = asyncio.get_running_loop().time()

    def succeeded(self) -> None:
        """The connection listens."""
        if self._listening is False:
            logger.info("listening to the database again")
        self._listening = True
        self._since = asyncio.get_running_loop().time()

    def flooded(self, error: Flood) -> Deafened:
        """The connection was cut for what it brought."""
        now = asyncio.get_running_loop().time()
        self._deaf_seconds = self._deafness.after(now - self._since if self._listening else 0)
        # Neither lost nor back: what follows, a loss or not, is told on its own.
        self._listening, self._since, self.told_of_flood = None, now, True
        logger.warning("not listening to the database for up to %.0f s: %s", self._deaf_seconds, error.detail)
        return Deafened()

    def failed(self, error: Unavailable) -> Silenced | None:
        """The connection ended or did not come about; what is to be told if that is news."""
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
        return Silenced() if was is not False else None

    async def pause(self) -> None:
        """Wait before the next attempt, the longer the more failed; the time that an attempt took counts."""
        wait = (self._deaf_seconds or self._seconds) * random.uniform(0.5, 1)  # noqa: S311 - spreads processes
        if not self._deaf_seconds:
            self._seconds = min(2 * self._seconds, MAX_RETRY_SECONDS)
        self._deaf_seconds = 0.0
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._since + wait - loop.time())
        self._since = loop.time()


@asynccontextmanager
async def _opened(url: str, retry: _Retry) -> AsyncIterator[_Line]:
    with _retried():
        opened = await connected(url, server_settings=_session(), connection_class=Listening)
    connection = cast(Listening, opened)
    try:
        line = _Line(connection, told_of_nonsense=retry.told_of_flood)
        with _retried(), connection.answering(CONNECT_SECONDS):
            await line.start()
        yield line
    except Unavailable as error:
        if connection.allowance.exceeded:
            raise Flood(connection.allowance.exceeded, code="notifications_flooded") from error
        raise
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


def _session() -> dict[str, str]:
    # The driver sets no keepalive on our end, where probes stand in for it. The server must not keep a listener whose
    # host is gone: notifications that it has not sent fill its queue, and a full queue fails commits.
    return LASTING | {
        "application_name": f"{APPLICATION} listener",
        "default_transaction_isolation": "read committed",
    }
