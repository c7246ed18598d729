"""The metrics of several processes: sums that never go back, and what is left of a process that is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from klines.metrics.family import Family, counter, exposed, gauge, histogram, together
from klines.metrics.shared import GONE_SECONDS, Shared
from klines.tally import Spread


def process(directory: Path, pid: int, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setattr(os, "getpid", lambda: pid)
    return Shared(directory)


def counted(number: float) -> list[Family]:
    return [counter("c", "c", number), gauge("g", "g", number), gauge("m", "m", number, "max")]


def values(families: list[Family]) -> dict[str, float]:
    return {sample.name: sample.value for family in families for sample in family.samples}


def die(directory: Path, pid: int) -> None:
    path = directory / f"{pid}.metrics"
    long_ago = path.stat().st_mtime - 2 * GONE_SECONDS
    os.utime(path, (long_ago, long_ago))


def test_processes_are_summed_and_what_one_counted_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = process(tmp_path, 1, monkeypatch), process(tmp_path, 2, monkeypatch)
    assert values(one.summed(counted(5))) == {"c_total": 5, "g": 5, "m": 5}
    assert values(other.summed(counted(3))) == {"c_total": 8, "g": 8, "m": 5}
    die(tmp_path, 1)
    assert values(other.summed(counted(3))) == {"c_total": 8, "g": 3, "m": 3}, "no gauge of one that is gone"
    third = process(tmp_path, 3, monkeypatch)
    for _ in range(2):
        other.write(counted(4))
        third.write(counted(1))
    assert values(third.summed(counted(1)))["c_total"] == values(other.summed(counted(4)))["c_total"] == 5 + 4 + 1
    assert {path.name for path in tmp_path.iterdir()} == {"2.metrics", "3.metrics"}, "no file stays for ever"


def test_histograms_of_processes_are_one_histogram() -> None:
    fast, slow = Spread((0.1, 1)), Spread((0.1, 1))
    fast.add(0.05)
    fast.add(0.1)
    slow.add(0.5)
    slow.add(7)
    summed = together([[histogram("h", "h", fast)], [histogram("h", "h", slow)]])
    text = exposed(summed, openmetrics=False)[0].decode()
    lines = ['h_bucket{le="0.1"} 2.0', 'h_bucket{le="1.0"} 3.0', 'h_bucket{le="+Inf"} 4.0', "h_count 4.0", "h_sum 7.65"]
    assert [line for line in text.splitlines() if not line.startswith("#")] == lines
