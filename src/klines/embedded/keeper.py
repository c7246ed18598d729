"""Keeps the embedded server running: a postmaster that died under us is started again, by a thread of this process.

One line in the log for each death, each attempt that failed and each return. Attempts follow at growing intervals, at
most `ATTEMPTS` within `WINDOW_SECONDS`, and never end: what keeps the server from starting, a full disk say, may pass.
There is one postmaster at the most, as the thread is the only one that starts any; leaving the context waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from klines.embedded.postmaster import Seat
from klines.errors import CannotStart

LOOK_SECONDS = 0.1
LEAST_SECONDS = 0.2
MOST_SECONDS = 10.0
ATTEMPTS = 10
WINDOW_SECONDS = 60.0
STEADY_SECONDS = 5.0

log = logging.getLogger("klines.embedded")


class Pace:
    """How long to wait before the next attempt; the clock is given. Pure."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wait = 0.0
        self._begun: deque[float] = deque(maxlen=ATTEMPTS)

    def before_next(self) -> float:
        """Seconds to wait, then the attempt counts; one that ran for a while is started at once."""
        now = self._clock()
        if self._begun and now - self._begun[-1] > STEADY_SECONDS:
            self._wait = 0.0
        wait = self._wait
        if len(self._begun) == ATTEMPTS:
            wait = max(wait, self._begun[0] + WINDOW_SECONDS - now)
        self._wait = min(max(2 * self._wait, LEAST_SECONDS), MOST_SECONDS)
        self._begun.append(now + wait)
        return wait


@contextmanager
def kept_running(seat: Seat) -> Iterator[None]:
    """While the context is open, start what sits there again when it dies."""
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(seat, over), name="keeper of PostgreSQL", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _keep(seat: Seat, over: threading.Event) -> None:
    pace = Pace()
    while not over.wait(LOOK_SECONDS):
        if seat.postmaster is None or seat.postmaster.alive():
            continue
        log.warning("PostgreSQL, pid %d, has died: starting it again", seat.postmaster.process.pid)
        began = time.monotonic()
        while not over.wait(pace.before_next()):
            if _started(seat, over):
                break
        if not over.is_set():
            log.info("PostgreSQL runs again, after %.1f s", time.monotonic() - began)


def _started(seat: Seat, over: threading.Event) -> bool:
    try:
        seat.start(over.is_set)
    except CannotStart as error:
        log.warning("%s; trying again", error.detail)
        return False
    except Exception:
        log.exception("PostgreSQL cannot be started; trying again")
        return False
    return True
