"""How often a server that dies again and again is started: at once the first time, and a bounded number of times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klines.embedded.keeper import ATTEMPTS, MOST_SECONDS, STEADY_SECONDS, WINDOW_SECONDS, Pace


@given(st.lists(st.floats(0, 30), max_size=80))
def test_attempts_are_bounded_and_never_end(lives: list[float]) -> None:
    now = 0.0
    pace = Pace(lambda: now)
    begun: list[float] = []
    for seconds in lives:
        wait = pace.before_next()
        assert 0 <= wait <= max(WINDOW_SECONDS, MOST_SECONDS)
        now += wait
        begun.append(now)
        now += seconds
    for first, later in zip(begun, begun[ATTEMPTS:], strict=False):
        assert later - first >= WINDOW_SECONDS - 1e-6


def test_one_that_ran_for_a_while_is_started_at_once() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    waits = []
    for seconds in (0.5, 0.5, 0.5, 2 * STEADY_SECONDS, 0.5):
        wait = pace.before_next()
        waits.append(wait)
        now += wait + seconds
    assert waits == [0.0, 0.2, 0.4, 0.8, 0.0]
