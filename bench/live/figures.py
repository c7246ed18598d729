"""What benchmarks hand back, and how much of it is measured: a case is one row of figures by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# Milliseconds end in _ms, seconds in _s; the case's own name is under "case"; None is what did not happen.
Case = dict[str, str | float | None]


class Scale(NamedTuple):
    """How much is measured: seconds of a window, part of the clients, seconds of memory's wait and of its floods."""

    window_s: float = 10.0
    clients_part: float = 1.0
    idle_s: float = 12.0
    flood_s: float = 20.0

    def of(self, clients: int) -> int:
        """How many instead of these; at least one."""
        return max(1, round(clients * self.clients_part))


FULL = Scale()
TRIAL = Scale(window_s=1.0, clients_part=0.1, idle_s=1.0, flood_s=3.0)


def quantiles(nanoseconds: Iterable[int], prefix: str = "") -> Case:
    """p50, p90, p99 and the greatest, in milliseconds; raises ValueError when there are none."""
    ordered = sorted(nanoseconds)
    if not ordered:
        raise ValueError("nothing arrived, so there is nothing to tell")
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {f"{prefix}{name}_ms": ordered[int(part * (len(ordered) - 1))] / 1e6 for name, part in at.items()}


def rounded(case: Case) -> Case:
    """The same with three significant digits."""
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in case.items()}
