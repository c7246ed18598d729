"""A circuit breaker before the database of a process: while it does not answer, asking costs nothing. Pure.

Failures of the connection in a row, beside which nobody was answered, open it; a statement that is refused, busy or
cancelled is none. Open, it refuses at once, and lets one caller at a time try whether the database is back, at growing
intervals. The first success closes it, whoever had it. The clock and the chance are given, so that every course can be
played through.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from klines.errors import Unavailable

State = Literal["closed", "open", "probing"]

FAILURES = 5
"""In a row before it opens: as many as the connections of a pool that one hiccup can end."""
LEAST_SECONDS = 0.1
MOST_SECONDS = 2.0
GONE = "database_unavailable"

logger = logging.getLogger("klines.breaker")


class Breaker:
    """`state` is what it does now, `changes` how often it has become so, `refused` how many it has sent away."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.state: State = "closed"
        self.changes: dict[State, int] = {"closed": 0, "open": 0, "probing": 0}
        self.refused = 0
        self._clock = clock
        self._chance = chance
        self._failures = self._heard = 0
        self._wait = LEAST_SECONDS
        self._retry_at = 0.0
        self._opened_at = 0.0
        self._turn = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one use of the database; raises `Unavailable` while it is open.

        `Unavailable` with the code `database_unavailable`, coming from within, is a failure; any other error is an
        answer, and so a success, also `Unavailable` that the database itself has said; to have waited in vain for a
        connection and being cancelled say nothing.
        """
        turn, heard = self._admitted(), self._heard
        try:
            yield
        except Unavailable as error:
            if error.code == GONE:
                self._failed(turn, heard)
            elif error.answered:
                self.close()
            else:
                self._abandoned(turn)
            raise
        except Exception:
            self.close()
            raise
        except BaseException:
            self._abandoned(turn)
            raise
        self.close()

    def close(self) -> None:
        """The database has answered."""
        self._failures = 0
        self._heard += 1
        if self.state != "closed":
            self._wait = LEAST_SECONDS
            self._become("closed")
            logger.info("the database answers again, after %.1f s", self._clock() - self._opened_at)

    def _admitted(self) -> int:
        """Who may go on: 0, or the number of the probe."""
        if self.state == "closed":
            return 0
        if self.state == "probing" or self._clock() < self._retry_at:
            self.refused += 1
            raise Unavailable("the database does not answer", code=GONE)
        self._become("probing")
        self._turn += 1
        return self._turn

    def _failed(self, turn: int, heard: int) -> None:
        if self.state == "closed":
            # Others were answered meanwhile: it is there, whatever this one has waited for.
            self._failures += heard == self._heard
            if self._failures >= FAILURES:
                self._opened_at = self._clock()
                self._open()
                logger.warning("the database does not answer: refusing until it does")
        elif self._is_probe(turn):
            self._wait = min(2 * self._wait, MOST_SECONDS)
            self._open()

    def _abandoned(self, turn: int) -> None:
        if self._is_probe(turn):
            self._open()

    def _is_probe(self, turn: int) -> bool:
        # A probe that outlasted the opening it belonged to has nothing more to say.
        return self.state == "probing" and turn == self._turn

    def _open(self) -> None:
        # Between half and all of the interval: the processes of a service do not come back at one moment.
        self._retry_at = self._clock() + self._chance(self._wait / 2, self._wait)
        self._become("open")

    def _become(self, state: State) -> None:
        self.state = state
        self.changes[state] += 1
