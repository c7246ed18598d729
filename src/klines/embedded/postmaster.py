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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from klines.embedded.account import Account
from klines.embedded.directory import DataDirectory
from klines.errors import CannotStart

POLL_SECONDS = 0.02
REPORT_SECONDS = 5.0
FAST_STOP_SECONDS = 60.0
IMMEDIATE_STOP_SECONDS = 20.0
SURVIVOR_SECONDS = 5.0
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
        return _lives(self.process)

    def wait_ready(self, log_file: Path) -> bool:
        """Wait until it accepts connections (true) or has ended (false), and tell every few seconds what it does."""
        begun = reported = time.monotonic()
        while self.alive():
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
            return not _left_after([self.process], seconds)
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
    return found if found.alive() and _works_in(process, cluster) else None


@contextmanager
def open_postmaster(place: DataDirectory, command: Sequence[str], account: Account) -> Iterator[Postmaster]:
    """A ready postmaster with exactly this command line, adopted or started; stopped when the context ends."""
    postmaster = running_postmaster(place.cluster)
    if postmaster is not None and not _same_command(postmaster, command):
        log.info("PostgreSQL, pid %d, runs with other settings: restarting it", postmaster.process.pid)
        postmaster.stop()
        postmaster = None
    try:
        if postmaster is not None and postmaster.wait_ready(place.log):
            log.info("adopted PostgreSQL, pid %d, in %s", postmaster.process.pid, place.path)
        else:
            _clear_remains(place)
            log_start = place.log.stat().st_size if place.log.exists() else 0
            postmaster = _start(place, command, account)
            if not postmaster.wait_ready(place.log):
                raise CannotStart(f"{place.path}: PostgreSQL did not start: {_failure(place.log, log_start)}")
        yield postmaster
    finally:
        if postmaster is not None:
            postmaster.stop()


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


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not, and in a container nobody may ever collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _left_after(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Which of them still run when `seconds` are over; returns at once when none does."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def _works_in(process: psutil.Process, cluster: Path) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == os.path.realpath(cluster)
    except psutil.Error:
        return False


def _clear_remains(place: DataDirectory) -> None:
    """End what outlived its postmaster, and remove lock files whose pid is now somebody else's.

    Files with a dead pid stay: PostgreSQL handles those itself, and checks shared memory by them.
    """
    left = _left_after([p for p in psutil.process_iter() if _works_in(p, place.cluster)], SURVIVOR_SECONDS)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        left = _left_after(left, SURVIVOR_SECONDS)
    if left:
        raise CannotStart(f"{place.cluster}: still used by process {left[0].pid}, which cannot be ended")
    for lock in (place.cluster / "postmaster.pid", *place.sockets.glob(".s.PGSQL.*.lock")):
        if _is_somebody_elses(_first_number(lock), place.cluster):
            log.info("removing %s: its pid belongs to another program now", lock)
            lock.unlink(missing_ok=True)


def _is_somebody_elses(pid: int, cluster: Path) -> bool:
    """Whether the pid is taken by what certainly is no server of this cluster, or by a dead one nobody collected."""
    try:
        process = psutil.Process(pid)
        return process.name() != "postgres" or process.cwd() != os.path.realpath(cluster)
    except psutil.ZombieProcess:
        return True
    except (psutil.Error, ValueError):
        return False


def _first_number(path: Path) -> int:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return abs(int(file.readline(20)))
    except (OSError, ValueError):
        return -1


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
