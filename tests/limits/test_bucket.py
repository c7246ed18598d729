"""Token buckets: never more than a burst and what has flowed in since, whoever asks in whatever order."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.bucket import Buckets

CLIENTS = st.sampled_from(["a", "b", "c", "d"])
ASKED = st.lists(st.tuples(CLIENTS, st.integers(0, 30), st.floats(0, 3, allow_nan=False)), max_size=200)
SLACK = 1e-6


@given(asked=ASKED, burst=st.integers(1, 40), seconds=st.floats(0.1, 120))
def test_no_client_gets_more_than_a_burst_and_the_rate(
    asked: list[tuple[str, int, float]], burst: int, seconds: float
) -> None:
    buckets = Buckets(burst, seconds)
    now, got = 100.0, defaultdict[str, list[tuple[float, int]]](list)
    for client, cost, later in asked:
        now += later
        if not buckets.take(client, cost, now):
            got[client].append((now, min(cost, burst)))
    for taken in got.values():
        for first, (begin, _) in enumerate(taken):
            total = 0
            for at, cost in taken[first:]:
                total += cost
                assert total <= burst + (at - begin) * burst / seconds + SLACK * burst


@given(asked=ASKED, burst=st.integers(1, 40))
def test_clients_do_not_feel_each_other(asked: list[tuple[str, int, float]], burst: int) -> None:
    shared, alone = Buckets(burst, 10), defaultdict[str, Buckets](lambda: Buckets(burst, 10))
    now = 0.0
    for client, cost, later in asked:
        now += later
        assert shared.take(client, cost, now) == alone[client].take(client, cost, now)
        assert shared.level(client, now) == alone[client].level(client, now)


@given(asked=ASKED, burst=st.integers(1, 40), most=st.integers(1, 3))
def test_forgetting_never_refuses_and_is_bounded(asked: list[tuple[str, int, float]], burst: int, most: int) -> None:
    small, large = Buckets(burst, 10, most), Buckets(burst, 10)
    now = 0.0
    for client, cost, later in asked:
        now += later
        wanted = max(large.level(client, now).full_in + min(cost, burst) * 10 / burst - 10, 0.0)
        got = small.take(client, cost, now)
        assert got <= wanted + SLACK
        # What the small one lets through the large one may have refused; the same is asked of both afterwards.
        if not got:
            large.add(client, min(cost, burst), now)
        assert len(small) <= most


@given(cost=st.integers(1, 100), burst=st.integers(1, 100), seconds=st.floats(0.1, 100))
def test_the_wait_it_tells_is_enough_and_needed(cost: int, burst: int, seconds: float) -> None:
    buckets = Buckets(burst, seconds)
    assert buckets.take("a", burst, 0.0) == 0.0
    wait = buckets.take("a", cost, 0.0)
    assert 0 < wait <= seconds + SLACK
    assert buckets.take("a", cost, wait * 0.98) > 0
    assert buckets.take("a", cost, wait * 1.001) == 0.0


@given(before=st.integers(0, 20), cost=st.integers(1, 40))
def test_what_is_given_back_was_never_taken(before: int, cost: int) -> None:
    buckets = Buckets(20, 10)
    buckets.take("a", before, 0.0)
    level = buckets.level("a", 1.0)
    if not buckets.take("a", cost, 1.0):
        buckets.give_back("a", cost, 1.0)
    assert buckets.level("a", 1.0).full_in == pytest.approx(level.full_in)
    buckets.give_back("nobody", cost, 1.0)
    assert buckets.level("nobody", 1.0).left == 20


def test_what_is_used_flows_back() -> None:
    buckets = Buckets(60, 60.0)
    buckets.take("a", 10, 0.0)
    assert buckets.level("a", 0.0) == (50, 10, 10.0)
    assert buckets.level("a", 4.0) == (54, 6, 6.0)
    assert buckets.level("b", 4.0) == (60, 0, 0.0)
    buckets.add("a", 100, 4.0)
    assert buckets.level("a", 4.0)[:2] == (0, 106)
    assert buckets.take("a", 1, 50.0) == 1.0


def test_a_clock_that_runs_back_gives_nothing() -> None:
    buckets = Buckets(1, 1.0)
    assert buckets.take("a", 1, 100.0) == 0.0
    assert buckets.take("a", 1, 0.0) > 100


def test_full_buckets_are_forgotten() -> None:
    buckets = Buckets(10, 1.0)
    for number in range(1000):
        buckets.take(str(number), 1, number * 1.0)
    assert len(buckets) <= 2
