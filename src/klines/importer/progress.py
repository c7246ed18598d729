"""How far an import or a copy is: a live bar on a terminal, elsewhere plain lines, one every two seconds at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 2.0

Phase = Literal["checking", "storing", "bars", "copying", "comparing"]


class Step(NamedTuple):
    """Where a phase is: `rows` done, and the `share` (0 to 1) of its work that they are."""

    phase: Phase
    rows: int
    share: float


@contextmanager
def shown_on(stream: TextIO) -> Iterator[Callable[[Step], None]]:
    """What to call with every step; a bar on `stream` ends with the context."""
    if not stream.isatty():
        yield _Lines(stream).show
        return
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f} rows/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        yield _Bars(progress).show


class _Pace:
    """Rows per second and seconds left of a phase, over all of it so far."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def rate(self, step: Step) -> float:
        return step.rows / max(time.monotonic() - self._start, 1e-3)

    def left(self, step: Step) -> float:
        return (time.monotonic() - self._start) * (1 - step.share) / max(step.share, 1e-6)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[Phase, tuple[TaskID, _Pace]] = {}

    def show(self, step: Step) -> None:
        if step.phase not in self._tasks:
            task = self._progress.add_task(step.phase, total=1.0, rows=0, rate=0.0)
            self._tasks[step.phase] = task, _Pace()
        task, pace = self._tasks[step.phase]
        self._progress.update(task, completed=step.share, rows=step.rows, rate=pace.rate(step))


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._paces: dict[Phase, _Pace] = {}
        self._next = time.monotonic() + LINE_SECONDS

    def show(self, step: Step) -> None:
        pace = self._paces.setdefault(step.phase, _Pace())
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_SECONDS
        rate, left = pace.rate(step), pace.left(step)
        line = f"{step.phase}: {step.share:.0%}, {step.rows:,} rows, {rate:,.0f} rows/s, {left:.0f} s left"
        self._stream.write(line + "\n")
        self._stream.flush()
