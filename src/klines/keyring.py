"""The process's view of the API keys: all that are good, kept current, and the sockets that each holds open.

Promises. A key that was made or revoked in the database counts here within `POLL_SECONDS` and a reading, whoever did
it and whether or not anything listens; revoked and expired keys end their sockets with 4401. A key that is not known
is looked for at the moment it is asked for, so a new one works at once; however many ask, one reading goes on at a time
and those that came meanwhile share the next. While the database is away, known keys stay good until they expire, a
revocation waits for its return, and what is not known is `Unavailable`: nobody can say. At most `MAX_KEYS` are held.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from klines.background import running
from klines.credential import digest, key_id_of
from klines.database import reading, translated
from klines.errors import Unauthorized, Unavailable
from klines.queries import keys
from klines.queries.keys import Key

POLL_SECONDS = 2.0
LOOK_SECONDS = 1.0
READ_SECONDS = 2.0
MAX_KEYS = 10_000
OVER = 4401
"""The close code of a socket whose key is over."""

_NOBODY = bytes(32)

logger = logging.getLogger("klines.keyring")


class Held(Protocol):
    """A connection that ends with its key."""

    def close(self, code: int, reason: str) -> None: ...


class Keyring:
    """The keys that are good, by id; `open_keyring` keeps one current."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._keys: dict[str, Key] = {}
        self._stamp: UUID | None = None
        self._held: defaultdict[str, set[Held]] = defaultdict(set)
        self._used: set[str] = set()
        self._noted_at = time.monotonic()
        # Readings have numbers: whoever asks is served by one that begins afterwards.
        self._turn = asyncio.Lock()
        self._begun = 0
        self._outcome: tuple[int, Unavailable | None] = (0, None)
        self._away = False

    def proven(self, text: str) -> Key | None:
        """The key with this text if it is known and good, asking nobody; raises `Unauthorized` for what is no key."""
        key_id, shown = key_id_of(text), digest(text)
        key = self.known(key_id)
        if not hmac.compare_digest(shown, key.digest if key else _NOBODY):
            return None
        self._used.add(key_id)
        return key

    async def prove(self, text: str) -> Key:
        """The same, read anew; raises `Unauthorized`, and `Unavailable` when nobody can say whether it is good.

        A wrong secret costs what an unknown id costs: which ids there are is not to be learned from the time.
        """
        await self.refresh()
        if (key := self.proven(text)) is None:
            raise Unauthorized("the API key is unknown, revoked or expired", code="key_invalid")
        return key

    async def named(self, key_id: str) -> Key:
        """The key with this id, for whoever has proven it before; raises as `prove`."""
        if self.known(key_id) is None:
            await self.refresh()
        if (key := self.known(key_id)) is None:
            raise Unauthorized("the API key is revoked or expired", code="key_invalid")
        return key

    def known(self, key_id: str) -> Key | None:
        """The key with this id if it is good, as far as this process knows."""
        key = self._keys.get(key_id)
        return key if key is not None and (key.expires is None or time.time() < key.expires) else None

    @contextmanager
    def holding(self, key_id: str, connection: Held) -> Iterator[None]:
        """While the context is open the connection ends with the key; raises `Unauthorized` if that is over already."""
        if self.known(key_id) is None:
            raise Unauthorized("the API key is revoked or expired", code="key_invalid")
        self._held[key_id].add(connection)
        try:
            yield
        finally:
            self._held[key_id].discard(connection)
            if not self._held[key_id]:
                del self._held[key_id]

    async def refresh(self) -> None:
        """Read what changed, in a reading that begins after this call; raises `Unavailable`."""
        asked = self._begun
        async with self._turn:
            number, error = self._outcome
            if number <= asked:
                self._begun = number = self._begun + 1
                error = await self._attempt()
                self._outcome = (number, error)
        if error is not None:
            raise Unavailable(error.detail, code=error.code)

    async def poll(self) -> None:
        """Refresh, and note which keys were used; never raises `Unavailable`, but says once that it waits."""
        try:
            await self.refresh()
            await self.note()
        except Unavailable as error:
            if not self._away:
                logger.warning("API keys stay as they were known: %s", error.detail)
            self._away = True
            return
        if self._away:
            logger.info("API keys are read again")
        self._away = False

    async def note(self, *, at_once: bool = False) -> None:
        """Note in the database which keys were used since the last time; raises `Unavailable`."""
        if not self._used or (not at_once and time.monotonic() - self._noted_at < keys.USED_SECONDS):
            return
        used, self._used = self._used, set()
        with translated():
            async with asyncio.timeout(READ_SECONDS), reading(self._engine) as connection:
                await keys.note_use(connection, used)
                await connection.commit()
        self._noted_at = time.monotonic()

    async def look(self) -> None:
        """End the sockets of keys that have expired."""
        for key_id in [one for one in self._held if self.known(one) is None]:
            self._end(key_id)

    def may(self, scope: str) -> bool:
        """Whether any good key has this scope."""
        return any(scope in key.scopes for key in self._keys.values())

    async def _attempt(self) -> Unavailable | None:
        try:
            with translated():
                async with asyncio.timeout(READ_SECONDS):
                    await self._read()
        except Unavailable as error:
            return error
        return None

    async def _read(self) -> None:
        async with reading(self._engine) as connection:
            # The stamp first: a change that falls between the two is read now, and once more the next time.
            stamp = await keys.stamp(connection)
            if stamp is not None and stamp == self._stamp:
                return
            found = await keys.good(connection, MAX_KEYS + 1)
        if len(found) > MAX_KEYS:
            logger.warning("more than %d good API keys: the oldest do not count", MAX_KEYS)
        self._take({key.key_id: key for key in found[:MAX_KEYS]})
        self._stamp = stamp

    def _take(self, found: dict[str, Key]) -> None:
        before, self._keys = self._keys, found
        for key_id in list(self._held):
            was, now = before.get(key_id), found.get(key_id)
            # Another secret, or a scope taken away, is another key to whoever connected with the old one.
            if now is None or (was is not None and (was.digest != now.digest or was.scopes - now.scopes)):
                self._end(key_id)

    def _end(self, key_id: str) -> None:
        for connection in tuple(self._held.get(key_id, ())):
            connection.close(OVER, "the API key is revoked or expired")


@asynccontextmanager
async def open_keyring(engine: AsyncEngine) -> AsyncIterator[Keyring]:
    """A keyring that is kept current while the context is open; a database that is away delays nothing."""
    keyring = Keyring(engine)
    await keyring.poll()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running("reader of API keys", keyring.poll, POLL_SECONDS))
        await stack.enter_async_context(running("watch on API keys", keyring.look, LOOK_SECONDS))
        yield keyring
    with suppress(Unavailable):
        await keyring.note(at_once=True)
