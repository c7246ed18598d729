"""What a postmaster leaves behind when it dies: processes that outlive it, and lock files with a pid of its time.

Which process belongs to a cluster is decided by what the process is (named `postgres`, working in PGDATA).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from klines.embedded.directory import DataDirectory
from klines.errors import CannotStart

POLL_SECONDS = 0.02
SURVIVOR_SECONDS = 5.0

log = logging.getLogger("klines.embedded")


def clear_remains(place: DataDirectory) -> None:
    """End what outlived its postmaster, and remove lock files whose pid is now somebody else's.

    Files with a dead pid stay: PostgreSQL handles those itself, and checks shared memory by them.
    """
    left = left_after([p for p in psutil.process_iter() if works_in(p, place.cluster)], SURVIVOR_SECONDS)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        left = left_after(left, SURVIVOR_SECONDS)
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


def lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not, and in a container nobody may ever collect it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left_after(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Which of them still run when `seconds` are over; returns at once when none does."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def works_in(process: psutil.Process, cluster: Path) -> bool:
    """Whether it is a process of PostgreSQL on this cluster."""
    try:
        return process.name() == "postgres" and process.cwd() == os.path.realpath(cluster)
    except psutil.Error:
        return False
