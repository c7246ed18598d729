"""The breaker, played through: any course of answers, failures and time."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.breaker import FAILURES, GONE, LEAST_SECONDS, MOST_SECONDS, Breaker
from klines.errors import NotFound, Unavailable


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Cancelled(BaseException):
    """As `asyncio.CancelledError`, without an event loop."""


def state(breaker: Breaker) -> str:
    return breaker.state


def use(breaker: Breaker, outcome: str) -> bool:
    """Use the database, which answers so; whether the breaker let it be asked."""
    asked = False
    with suppress(Unavailable, NotFound, Cancelled), breaker.attempt():
        asked = True
        if outcome == "gone":
            raise Unavailable("", code=GONE)
        if outcome == "busy":
            raise Unavailable("", code="database_busy")
        if outcome == "refused":
            raise NotFound("")
        if outcome == "cancelled":
            raise Cancelled
    return asked


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock, lambda _, most: most)
    assert all(use(breaker, "gone") for _ in range(FAILURES))
    return breaker


def test_it_opens_after_failures_in_a_row_and_refuses_at_once() -> None:
    breaker = Breaker(Clock())
    for outcome in ["gone"] * (FAILURES - 1) + ["refused"] + ["gone"] * (FAILURES - 1) + ["busy", "cancelled"]:
        assert use(breaker, outcome)
        assert state(breaker) == "closed"
    assert use(breaker, "gone")
    assert state(breaker) == "open"
    with pytest.raises(Unavailable) as refusal, breaker.attempt():
        pass
    assert (refusal.value.code, breaker.refused) == (GONE, 1)


def test_probes_come_at_growing_intervals_one_at_a_time() -> None:
    clock = Clock()
    breaker = opened(clock)
    waits = []
    for _ in range(8):
        begun = clock.now
        while not use(breaker, "gone"):
            clock.now += 0.01
        waits.append(round(clock.now - begun, 1))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    clock.now += MOST_SECONDS
    with breaker.attempt():
        assert state(breaker) == "probing"
        assert not use(breaker, "answered")
    assert state(breaker) == "closed"
    assert use(breaker, "answered")


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    for outcome in ("busy", "cancelled"):
        clock = Clock()
        breaker = opened(clock)
        clock.now += LEAST_SECONDS
        assert use(breaker, outcome)
        assert state(breaker) == "open"
        clock.now += LEAST_SECONDS
        assert use(breaker, "answered")
        assert state(breaker) == "closed"


def test_whoever_hears_the_database_closes_it() -> None:
    breaker = opened(Clock())
    breaker.close()
    assert use(breaker, "answered")
    late = Breaker(Clock())
    with late.attempt():
        for _ in range(FAILURES):
            use(late, "gone")
        assert state(late) == "open"
    assert state(late) == "closed"


outcomes = st.sampled_from(["answered", "gone", "gone", "busy", "refused", "cancelled"])


@given(st.lists(st.tuples(st.floats(0, 3), outcomes), max_size=60), st.floats(0.5, 1))
def test_no_course_shuts_the_database_off_for_longer_than_the_longest_interval(
    course: list[tuple[float, str]], chance: float
) -> None:
    clock = Clock()
    breaker = Breaker(clock, lambda _, most: chance * most)
    in_a_row = 0
    refused = 0
    for seconds, outcome in course:
        clock.now += seconds
        asked = use(breaker, outcome)
        refused += not asked
        if asked and outcome in {"answered", "refused"}:
            assert state(breaker) == "closed"
        in_a_row = 0 if asked and outcome in {"answered", "refused"} else in_a_row + (asked and outcome == "gone")
        assert (state(breaker) == "closed") == (in_a_row < FAILURES)
        assert asked or seconds < MOST_SECONDS
    assert breaker.refused == refused
    clock.now += MOST_SECONDS
    assert use(breaker, "answered")
    assert breaker.changes["closed"] <= breaker.changes["open"]


def test_a_refusal_that_the_database_has_said_itself_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += MOST_SECONDS
    with suppress(Unavailable), breaker.attempt():
        said = Unavailable("", code="database_busy")
        said.answered = True
        raise said
    assert state(breaker) == "closed"


def test_waiting_in_vain_beside_others_who_are_answered_is_no_failure() -> None:
    breaker = Breaker(Clock())
    for _ in range(2 * FAILURES):
        with suppress(Unavailable), breaker.attempt():
            use(breaker, "answered")
            raise Unavailable("", code=GONE)
    assert state(breaker) == "closed"
    assert all(use(breaker, "gone") for _ in range(FAILURES))
    assert state(breaker) == "open"
