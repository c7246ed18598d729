"""The pictures of `bench/README.md`: how far each ratio is from its goal, and what grows with what."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

PICTURES = Path(__file__).parent / "pictures"
COLOURS = {"timescale": "#2563eb", "plain": "#ea580c"}
AXES = ("trades", "tokens", "sockets")

Line = Mapping[str, Any]


def draw(lines: Sequence[Line]) -> None:
    """Draw all that the lines have figures for."""
    mpl.use("agg")
    PICTURES.mkdir(exist_ok=True)
    _ratios([(line, one) for line in lines for one in line["ratios"] if one["goal"]])
    growth = [(line["profile"], case) for line in lines if line["benchmark"] == "growth" for case in line["cases"]]
    _growth([(profile, case) for profile, case in growth if "axis" in case])


def _ratios(found: Sequence[tuple[Line, Mapping[str, Any]]]) -> None:
    if not found:
        return
    names = list(dict.fromkeys(f"{line['benchmark']}: {one['ratio']}" for line, one in found))
    figure, axes = plt.subplots(figsize=(10, 0.45 * len(names) + 1.2), layout="constrained")
    for line, one in found:
        place = names.index(f"{line['benchmark']}: {one['ratio']}") + (0.15 if line["profile"] == "plain" else -0.15)
        low, middle, high, floor = (_of_goal(one, one[name]) for name in ("low", "median", "high", "floor"))
        colour = COLOURS[line["profile"]]
        axes.plot([low, high], [place, place], color=colour, alpha=0.5)
        axes.plot([middle], [place], "o", color=colour, label=line["profile"])
        axes.plot([floor], [place], "|", color="#6b7280", markersize=12)
    axes.axvline(1, color="#16a34a")
    axes.set(xscale="log", xlabel="share of the goal (green); the grey mark is the floor", yticks=range(len(names)))
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys())
    figure.savefig(PICTURES / "ratios.png", dpi=110)
    plt.close(figure)


def _of_goal(one: Mapping[str, Any], value: float) -> float:
    share: float = value / one["goal"] if one["better"] == "more" else one["goal"] / value
    return share


def _growth(found: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    if not found:
        return
    figure, columns = plt.subplots(1, len(AXES), figsize=(15, 5), layout="constrained")
    for axis, axes in zip(AXES, columns, strict=True):
        mine = [(profile, case) for profile, case in found if case["axis"] == axis]
        colours = itertools.cycle(plt.rcParams["axes.prop_cycle"].by_key()["color"])
        series = {name: next(colours) for name in dict.fromkeys(case["series"] for _, case in mine)}
        for profile, name in dict.fromkeys((profile, case["series"]) for profile, case in mine):
            points = [(c["at"], c["ratio"]) for p, c in mine if (p, c["series"]) == (profile, name)]
            label = name if profile == "timescale" else None
            axes.plot(*zip(*points, strict=True), "o-" if label else "o:", color=series[name], label=label)
        axes.set(xscale="log", yscale="log", xlabel=f"number of {axis}", ylabel="cost, beside the smallest number")
        axes.legend(fontsize=7)
    figure.suptitle("cost as it grows: timescale (lines), plain (dotted)")
    figure.savefig(PICTURES / "growth.png", dpi=110)
    plt.close(figure)
