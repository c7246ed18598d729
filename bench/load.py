"""Who uses the machine's cores: the service, PostgreSQL, and what is no part of the benchmark. Linux only."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from bench.live.figures import Case


class Load:
    """Cores in use since it was made."""

    def __init__(self, service: psutil.Process, postmaster: psutil.Process) -> None:
        # PostgreSQL may run below our process or beside it; whoever is counted is counted once.
        self._trees = ([service], [postmaster], [psutil.Process(), postmaster])
        self._at, self._before = time.monotonic(), self._seconds()

    def cores(self) -> Case:
        """By name; `foreign_cores` is what is left of the machine's when everything of ours is taken away."""
        each = [after - before for after, before in zip(self._seconds(), self._before, strict=True)]
        service, postgres, ours, whole = [seconds / (time.monotonic() - self._at) for seconds in each]
        return {"service_cores": service, "postgres_cores": postgres, "foreign_cores": whole - ours}

    def _seconds(self) -> list[float]:
        times = psutil.cpu_times()
        # A guest's time is in the user's already.
        unused = times.idle + times.iowait + times.guest + times.guest_nice
        return [*(cpu_seconds(*tree) for tree in self._trees), sum(times) - unused]


def cpu_seconds(*roots: psutil.Process) -> float:
    """CPU seconds, user and system, of processes and all that were below them."""
    total = 0.0
    for one in {one for root in roots for one in (root, *root.children(recursive=True))}:
        with suppress(psutil.NoSuchProcess):
            used = one.cpu_times()
            # Children that have ended are counted in the one that waited for them.
            total += used.user + used.system + used.children_user + used.children_system
    return total
