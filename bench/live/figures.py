"""Rows of figures by name, and how they are told: three significant digits, quantiles in milliseconds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Milliseconds end in _ms, seconds in _s; the case's own name is under "case"; None is what did not happen.
Case = dict[str, Any]

QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def quantiles(nanoseconds: Iterable[int], prefix: str = "") -> Case:
    """p50, p99 and the greatest, in milliseconds; raises ValueError when there are none."""
    ordered = sorted(nanoseconds)
    if not ordered:
        raise ValueError("nothing arrived, so there is nothing to tell")
    return {f"{prefix}{name}_ms": ordered[int(part * (len(ordered) - 1))] / 1e6 for name, part in QUANTILES.items()}


def medians(rows: Sequence[Mapping[str, float]]) -> Case:
    """Of rows with the same figures each figure's median."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def rounded(case: Mapping[str, Any]) -> Case:
    """The same with three significant digits."""
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in case.items()}
