"""The postmaster process: at most one per cluster, found again after our own death, stopped without losing anything.

Which process serves a cluster is decided by what the process is (named `postgres`, working in PGDATA), never by a pid
in a file alone: after a crash that pid can belong to anybody. A start may take as long as crash recovery takes; it ends
early only when the postmaster ends.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from klines.embedded.account import Account
from klines.embedded.directory import DataDirectory
from klines.embedded.remains import POLL_SECONDS, clear_remains, left_after, lives, works_in
from klines.errors import CannotStart

REPORT_SECONDS = 5.0
FAST_STOP_SECONDS = 60.0
IMMEDIATE_STOP_SECONDS = 20.0
TAIL_BYTES = 64 * 1024
FAILURE = re.compile(r"(?:(?:FATAL|PANIC|ERROR):\s+(?!the database system is)|LOG:\s+(?=could not bind))(.*)")

log = logging.getLogger("klines.embedded")


class PidFile(msgspec.Struct, frozen=True):
    """What `postmaster.pid` tells: `status` is starting, stopping, ready or standby, or empty very early."""

    pid: int
    port: int
    sockets: Path
    status: str


class Postmaster:
    """One running postmaster, started by us or found; `child` is set when it is our own child process."""

    def __init__(self, cluster: Path, process: psutil.Process, child: subprocess.Popen[bytes] | None = None) -> None:
        self.cluster = cluster
        self.process = process
        self.child = child

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        if self.child is not None:
            return self.child.poll() is None
        return lives(self.process)

    def wait_ready(self, log_file: Path, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it accepts connections (true) or has ended (false), and tell every few seconds what it does."""
        begun = reported = time.monotonic()
        while self.alive() and not cancelled():
            now = time.monotonic()
            told = read_pid_file(self.cluster)
            if told is not None and told.pid == self.process.pid and told.status == "ready":
                return True
            if now - reported >= REPORT_SECONDS:
                reported = now
                log.info("PostgreSQL is starting for %.0f s: %s", now - begun, (tail(log_file) or [""])[-1])
            time.sleep(POLL_SECONDS)
        return False

    def stop(self) -> None:
        """Stop it the fast way, which ends sessions and writes a checkpoint; the immediate way when that hangs."""
        for name, seconds in (("SIGINT", FAST_STOP_SECONDS), ("SIGQUIT", IMMEDIATE_STOP_SECONDS)):
            if not self.alive():
                return
            with suppress(psutil.NoSuchProcess):
                self.process.send_signal(signal.Signals[name])
            if self._ended_within(seconds):
                return
            log.warning("PostgreSQL, pid %d, still runs %.0f s after %s", self.process.pid, seconds, name)

    def _ended_within(self, seconds: float) -> bool:
        if self.child is None:
            return not left_after([self.process], seconds)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def read_pid_file(cluster: Path) -> PidFile | None:
    """What the cluster's `postmaster.pid` tells; `None` when it is missing, unreadable or not complete yet."""
    try:
        opened = os.open(cluster / "postmaster.pid", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(opened, encoding="utf-8", errors="surrogateescape") as file:
        lines = [*file.read(TAIL_BYTES).splitlines(), *[""] * 8]
    try:
        return PidFile(int(lines[0]), int(lines[3]), Path(lines[4]), lines[7].strip())
    except ValueError:
        return None


def running_postmaster(cluster: Path) -> Postmaster | None:
    """The postmaster that serves the cluster now, whoever started it."""
    told = read_pid_file(cluster)
    if told is None:
        return None
    try:
        process = psutil.Process(told.pid)
    except (psutil.NoSuchProcess, ValueError):
        return None
    found = Postmaster(cluster, process)
    return found if found.alive() and works_in(process, cluster) else None


class Seat:
    """The one place for a postmaster of a cluster: what sits there, and how it is filled.

    Whoever fills it holds the data directory; one thread at a time may.
    """

    def __init__(self, place: DataDirectory, command: Sequence[str], account: Account) -> None:
        self.place = place
        self.postmaster: Postmaster | None = None
        self._command = command
        self._account = account

    def adopt(self) -> bool:
        """Take the postmaster that runs with exactly this command line, and is ready; another one is stopped."""
        found = running_postmaster(self.place.cluster)
        if found is not None and not _same_command(found, self._command):
            log.info("PostgreSQL, pid %d, runs with other settings: restarting it", found.process.pid)
            found.stop()
            return False
        self.postmaster = found
        if found is None or not found.wait_ready(self.place.log):
            return False
        log.info("adopted PostgreSQL, pid %d, in %s", found.process.pid, self.place.path)
        return True

    def start(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Start one where none runs; `CannotStart` with its own reason when it ends before it is ready."""
        place = self.place
        clear_remains(place)
        log_start = place.log.stat().st_size if place.log.exists() else 0
        self.postmaster = _start(place, self._command, self._account)
        if not self.postmaster.wait_ready(place.log, cancelled) and not cancelled():
            raise CannotStart(f"{place.path}: PostgreSQL did not start: {_failure(place.log, log_start)}")

    def leave(self) -> None:
        """Stop what sits here."""
        if self.postmaster is not None:
            self.postmaster.stop()


@contextmanager
def open_postmaster(place: DataDirectory, command: Sequence[str], account: Account) -> Iterator[Seat]:
    """A ready postmaster with exactly this command line, adopted or started; stopped when the context ends."""
    seat = Seat(place, command, account)
    try:
        if not seat.adopt():
            seat.start()
        yield seat
    finally:
        seat.leave()


def _start(place: DataDirectory, command: Sequence[str], account: Account) -> Postmaster:
    output = place.open_log()
    try:
        child = account.spawn(command, output)
    finally:
        os.close(output)
    log.info("started PostgreSQL, pid %d, in %s", child.pid, place.path)
    return Postmaster(place.cluster, psutil.Process(child.pid), child)


def _same_command(postmaster: Postmaster, command: Sequence[str]) -> bool:
    told = read_pid_file(postmaster.cluster)
    try:
        return postmaster.process.cmdline() == list(command) and told is not None and told.status != "stopping"
    except psutil.Error:
        return False


def tail(log_file: Path, start: int = 0) -> list[str]:
    """The last lines that are not empty, from the byte `start` on, at most `TAIL_BYTES` of them."""
    try:
        with log_file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - TAIL_BYTES))
            return [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return []


def _failure(log_file: Path, start: int) -> str:
    """The last failure in the log, else its last line; a taken port is told by the line that names it."""
    lines = tail(log_file, start)
    failures = [found.group(1) for found in map(FAILURE.search, lines) if found]
    taken = [failure for failure in failures if failure.startswith("could not bind")]
    return (taken or failures or lines or ["it left no message"])[-1]
