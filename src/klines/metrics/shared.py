"""The metrics of several processes as those of one service, through files of a directory that is theirs alone.

A scrape reaches one process. Each writes what it counts every `WRITE_SECONDS`, and whenever it is scraped, so that sums
never go back from one scrape to the next. What a process counted outlives it: the first other that notices takes its
file over, so there are never more files than there were processes at once. The gauges of one that is gone, or hangs,
are left out after `GONE_SECONDS`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from klines.metrics.family import Family, together

WRITE_SECONDS = 2.0
GONE_SECONDS = 10.0
DIRECTORY = "_KLINES_METRICS"
"""The environment variable by which the supervisor tells its processes the directory."""
_SUFFIX = ".metrics"


@contextmanager
def exchange() -> Iterator[None]:
    """A directory for the processes that are started while the context is open."""
    with TemporaryDirectory(prefix="klines-metrics-") as directory:
        os.environ[DIRECTORY] = directory
        try:
            yield
        finally:
            del os.environ[DIRECTORY]


def directory() -> Path | None:
    """The directory that this process was started with; None: it is the only one."""
    found = os.environ.get(DIRECTORY)
    return Path(found) if found else None


class _Snapshot(msgspec.Struct, array_like=True):
    families: list[Family]


class Shared:
    """This process's place in the directory."""

    def __init__(self, directory: Path) -> None:
        self._own = directory / f"{os.getpid()}{_SUFFIX}"
        self._inherited: list[Family] = []

    def summed(self, own: Sequence[Family]) -> list[Family]:
        """What all processes count together, `own` being this one's part."""
        self._write(own)
        others = [found for path in self._others() if (found := _read(path, gauges=_alive(path)))]
        return together([own, self._inherited, *others])

    def write(self, own: Sequence[Family]) -> None:
        """Tell the others, and take over what processes that are gone had counted."""
        for path in self._others():
            if not _alive(path):
                self._inherit(path)
        self._write(own)

    def _write(self, own: Sequence[Family]) -> None:
        told = _Snapshot(together([own, self._inherited]))
        fresh = self._own.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(told))
        fresh.replace(self._own)

    def _others(self) -> list[Path]:
        return [path for path in self._own.parent.glob(f"*{_SUFFIX}") if path != self._own]

    def _inherit(self, path: Path) -> None:
        taken = self._own.with_suffix(".taken")
        try:
            # One of those who try it succeeds.
            path.rename(taken)
        except FileNotFoundError:
            return
        self._inherited = together([self._inherited, _read(taken, gauges=False)])
        taken.unlink()


def _alive(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < GONE_SECONDS
    except FileNotFoundError:
        return False


def _read(path: Path, *, gauges: bool) -> list[Family]:
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=_Snapshot).families
    except FileNotFoundError:
        return []
    return [family for family in found if gauges or family.kind != "gauge"]
