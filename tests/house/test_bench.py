"""The benchmarks: each can be named, the README shows the kept results, and ratios are what they say."""

from __future__ import annotations

import ast
import itertools
from decimal import Decimal

import pytest
from bench.__main__ import MODULES
from bench.comparison import Ratio, Sample, ratio, rounds
from bench.report import README, rendered, results, with_results
from bench.trades import LATE_US, generated


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_can_be_named(name: str) -> None:
    # Read, not imported: what a benchmark compares with is not installed for the tests.
    source = (README.parent / f"{MODULES[name].replace('.', '/')}.py").read_text()
    named = [one.name for one in ast.parse(source).body if isinstance(one, ast.AsyncFunctionDef)]
    assert "measure" in named
    assert f"## {name}" in README.read_text()


def test_the_readme_shows_the_kept_results() -> None:
    text = README.read_text()
    assert with_results(text, rendered(results())) == text


async def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> Sample:
        order.append(name)
        return Sample(10, seconds * len(order), {})

    async def slow() -> Sample:
        return side("slow", 2)

    async def fast() -> Sample:
        return side("fast", 1)

    found = await rounds({"slow": slow, "fast": fast}, runs=2)
    assert order == ["fast", "slow", "slow", "fast", "fast", "slow"]
    # Within a round: 2 * 3 s beside 1 * 4 s, then 2 * 6 s beside 1 * 5 s.
    assert ratio(found, "fast", "slow").values == pytest.approx([6 / 4, 12 / 5])
    assert ratio(found, "fast", "slow", more=False).values == pytest.approx([4 / 6, 5 / 12])


@pytest.mark.parametrize(
    ("value", "more", "reached"),
    [(0.9, True, "goal"), (0.5, True, "floor"), (0.3, True, "neither"), (0.3, False, "goal"), (0.9, False, "neither")],
)
def test_a_ratio_says_what_it_reached(value: float, more: bool, reached: str) -> None:
    floor, goal = (0.4, 0.8) if more else (0.8, 0.4)
    assert Ratio("a / b", [value], floor, goal, more=more).figures()["reached"] == reached


def test_generated_trades_are_the_same_every_time_and_hard_enough() -> None:
    trades = list(generated(5000, tokens=20, seconds=600))
    assert trades == list(generated(5000, tokens=20, seconds=600))
    times = [trade.time_us for trade in trades]
    late = sum(after < before for before, after in itertools.pairwise(times))
    assert 20 < late < 300
    assert max(before - after for before, after in itertools.pairwise(times)) <= LATE_US
    assert len(set(times)) < len(times)
    assert len({trade.symbol for trade in trades}) == 20
    assert all(Decimal(trade.price) > 0 < Decimal(trade.amount) for trade in trades)
