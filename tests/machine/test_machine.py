"""Any course of trades, clients and faults: Hypothesis looks for one after which an oracle does not hold.

Tokens of its own for every course, on one service. Each course ends by the oracles O1 to O3: every acknowledged trade
stored once and as it was sent, bars in SQL and REST as the fold has them, every stream complete over all connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.machine.arena import Stage, staged
from tests.machine.course import Course

MAX_LISTENERS = 6
places = st.integers(0, 1000)
tokens = st.sampled_from([0, 0, 0, 1])
prices = st.sampled_from(["0.00000001", "1", "0.5", "99999999.123456789", "3.25"])
now = st.lists(st.tuples(tokens, st.just(0.0)), min_size=1, max_size=20)
late = st.lists(st.tuples(tokens, st.sampled_from([1.5, 20.0, 90.0, 4000.0])), min_size=1, max_size=5)
shuffled = st.lists(st.tuples(tokens, st.sampled_from([0.0, 0.3, 0.9, 2.5])), min_size=2, max_size=20)

# Not shrunk: every course takes seconds, and the steps of the one that failed are printed.
COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
    "report_multiple_bugs": False,
}
SIZES = [
    pytest.param(2, 15, 1, id="few"),
    pytest.param(60, 40, 2, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as opened:
        yield opened


@pytest.mark.fault("STATE")
@pytest.mark.parametrize(("courses", "steps", "restarts"), SIZES)
def test_no_course_of_events_breaks_an_oracle(
    stage: Stage, courses: int, steps: int, restarts: int, figures: Callable[..., None]
) -> None:
    totals = {"courses": 0, "trades": 0, "clients": 0, "reconnects": 0, "restarts": 0}

    class Machine(Play):
        """Plays on this stage."""

        def __init__(self) -> None:
            super().__init__(stage, restarts, totals)

    size = settings(max_examples=courses, stateful_step_count=steps, derandomize=courses < 10, **COMMON)
    run_state_machine_as_test(Machine, settings=size)
    figures("STATE", **totals)


class Play(RuleBasedStateMachine):
    """The rules; each is one step of a course."""

    def __init__(self, stage: Stage, restarts: int, totals: dict[str, int]) -> None:
        super().__init__()
        self.stage = stage
        self.totals = totals
        self.left = {"service": restarts, "database": restarts}
        self.course = Course(stage.arena)
        stage.play(self.course.begin())

    @rule(batch=now, price=prices)
    def post(self, batch: list[tuple[int, float]], price: str) -> None:
        self.stage.play(self.course.post(batch, price))

    @rule(batch=late, price=prices)
    def post_late(self, batch: list[tuple[int, float]], price: str) -> None:
        self.stage.play(self.course.post(batch, price))

    @rule(batch=shuffled, price=prices)
    def post_out_of_order(self, batch: list[tuple[int, float]], price: str) -> None:
        self.stage.play(self.course.post(batch, price))

    @rule(first=places, count=st.integers(1, 10))
    def repeat(self, first: int, count: int) -> None:
        self.stage.play(self.course.repeat(first, count))

    @rule(place=places)
    def contradict(self, place: int) -> None:
        self.stage.play(self.course.contradict(place))

    @precondition(lambda self: len(self.course.listeners) < MAX_LISTENERS)
    @rule(token=tokens, interval=st.sampled_from([None, "1s", "2s", "1m"]))
    def connect(self, token: int, interval: str | None) -> None:
        self.stage.play(self.course.listen(token, interval))

    @rule(place=places)
    def resume(self, place: int) -> None:
        self.stage.call(lambda: self.course.drop(place))

    @rule()
    def cut_all(self) -> None:
        self.stage.arena.proxy.cut()

    @rule(place=places)
    def stall(self, place: int) -> None:
        self.stage.call(lambda: self.course.stall(place))

    @rule()
    def read_on(self) -> None:
        self.stage.call(self.course.read_on)

    @rule(names=st.sampled_from(["klines listener", "klines%"]))
    def terminate(self, names: str) -> None:
        self.stage.play(self.stage.arena.terminate(names))

    @precondition(lambda self: self.left["service"])
    @rule()
    def restart_service(self) -> None:
        self.left["service"] -= 1
        self.totals["restarts"] += 1
        self.stage.play(self.stage.arena.restart_service())

    @precondition(lambda self: self.left["database"])
    @rule()
    def restart_database(self) -> None:
        self.left["database"] -= 1
        self.totals["restarts"] += 1
        self.stage.play(self.stage.arena.restart_database())

    def teardown(self) -> None:
        try:
            account = self.stage.play(self.course.settle())
        finally:
            self.stage.play(self.course.end())
        for name, count in account.figures.items():
            self.totals[name] = self.totals.get(name, 0) + count
        self.totals["courses"] += 1
        self.totals["trades"] += len(self.course.sent)
        self.totals["clients"] += len(self.course.listeners)
        self.totals["reconnects"] += sum(len(one.follower.codes) for one in self.course.listeners)
