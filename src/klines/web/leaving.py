"""Whether this process was told to leave: known from the signal on, before the server has begun to close anything."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Leaving:
    """`told` becomes true, and stays so."""

    def __init__(self) -> None:
        self.told = False


@contextmanager
def noticed() -> Iterator[Leaving]:
    """Look at the signals that end the server while the context is open; whoever handled them still does."""
    leaving = Leaving()
    if threading.current_thread() is not threading.main_thread():
        yield leaving
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        leaving.told = True
        if callable(before[number]):
            before[number](number, frame)

    for number in SIGNALS:
        if callable(before[number]):
            signal.signal(number, note)
    try:
        yield leaving
    finally:
        for number in SIGNALS:
            if signal.getsignal(number) is note:
                signal.signal(number, before[number])
