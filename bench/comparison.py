"""Sides of a comparison, run in turns: what each needed, and the ratios between them.

A round runs every side once, each second round in the opposite order, so that what slows the machine slows all of
them. A ratio is taken within a round; what is told is the median over the rounds, with the least and the greatest.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

Figures = dict[str, Any]


class Sample(NamedTuple):
    """One run of one side: units of work done, wall seconds, and CPU seconds by whose they are."""

    units: float
    seconds: float
    cpu: Mapping[str, float]

    @property
    def per_second(self) -> float:
        """Units of work per second."""
        return self.units / self.seconds


Side = Callable[[], Awaitable[Sample]]
Rounds = Mapping[str, Sequence[Sample]]


class Ratio(NamedTuple):
    """How one side stands to another, a value per round, with what the issue asks for; `more` is better, or less."""

    what: str
    values: Sequence[float]
    floor: float | None = None
    goal: float | None = None
    more: bool = True

    def figures(self) -> Figures:
        """For JSON; `reached` is goal, floor or neither."""
        told = spread(self.values)
        better = "more" if self.more else "less"
        return {"ratio": self.what, **told, "floor": self.floor, "goal": self.goal, "better": better} | (
            {} if self.floor is None else {"reached": self._reached(told["median"])}
        )

    def _reached(self, value: float) -> str:
        for name, bound in (("goal", self.goal), ("floor", self.floor)):
            if bound is not None and (value >= bound if self.more else value <= bound):
                return name
        return "neither"


class Outcome(NamedTuple):
    """What a benchmark found: a case per side, the ratios, and what was seen to be equal before anything was timed."""

    cases: Sequence[Figures]
    ratios: Sequence[Ratio]
    equal: str


async def rounds(sides: Mapping[str, Side], runs: int, warm: int = 1) -> dict[str, list[Sample]]:
    """`runs` samples of each side, after `warm` rounds that do not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for number in range(warm + runs):
        for name in list(sides) if number % 2 else reversed(list(sides)):
            sample = await sides[name]()
            if number >= warm:
                samples[name].append(sample)
    return samples


def cases(found: Rounds, unit: str) -> list[Figures]:
    """A row per side: units per second, microseconds of wall time and of CPU per unit."""
    return [
        {
            "case": name,
            "unit": unit,
            "per_s": spread([one.per_second for one in samples]),
            "us_per_unit": spread([one.seconds / one.units * 1e6 for one in samples]),
            "cpu_us_per_unit": {
                whose: spread([one.cpu[whose] / one.units * 1e6 for one in samples])["median"]
                for whose in samples[0].cpu
            },
        }
        for name, samples in found.items()
    ]


def _cpu(samples: Sequence[Sample], whose: str) -> float:
    return spread([one.cpu[whose] / one.units * 1e6 for one in samples])["median"]


def ratio(
    found: Rounds, ours: str, theirs: str, *, floor: float | None = None, goal: float | None = None, more: bool = True
) -> Ratio:
    """Of the units per second of two sides, or, where less is better, of their seconds per unit."""
    pairs = [(a.per_second, b.per_second) for a, b in zip(found[ours], found[theirs], strict=True)]
    values = [a / b if more else b / a for a, b in pairs]
    return Ratio(f"{ours} / {theirs}", values, floor, goal, more)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest, with three significant digits."""
    told = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.3g}") for name, value in told.items()}
