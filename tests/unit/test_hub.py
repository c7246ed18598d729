"""The hub: every promise of its docstring by example, and against a model for any sequence of events."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from klines.hub import FAILED, TOO_SLOW, Hub, Subscriber

MAX_REASON = 123
HEARTBEAT = "heartbeat"


class Clock:
    """Time that moves when a test says so, and knows how often it was asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


class Wire:
    """A sink that remembers; `inside` runs within the next write, as what a full or a broken transport does."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.left = 0
        self.inside: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None

    def write(self, frame: bytes) -> None:
        self.written.append(frame)
        inside, self.inside = self.inside, lambda: None
        inside()

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))
        assert len(reason.encode()) <= MAX_REASON
        self.on_close()

    def unsent(self) -> int:
        return self.left

    @property
    def codes(self) -> list[int]:
        return [code for code, _ in self.closed]


def broken() -> None:
    raise ConnectionResetError("the transport is gone")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> Hub:
    return Hub(max_bytes=100, max_frames=5, stuck_seconds=8.0, idle_seconds=5.0, clock=clock)


def attached(hub: Hub, topic: Hashable = "a") -> tuple[Subscriber, Wire]:
    subscriber, wire = hub.subscribe(topic), Wire()
    subscriber.attach(wire)
    return subscriber, wire


def heartbeat(topic: Hashable) -> bytes:
    return f"beat {topic}".encode()


def test_a_held_subscriber_gets_the_snapshot_first_then_what_waited(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    hub.publish("a", b"1")
    hub.publish("a", b"2")
    subscriber.attach(wire, [b"snapshot", b"more"])
    hub.publish("a", b"3")
    assert wire.written == [b"snapshot", b"more", b"1", b"2", b"3"]


def test_frames_reach_only_their_topic(hub: Hub) -> None:
    _, one = attached(hub, ("kline", 7, "1m"))
    _, other = attached(hub, ("kline", 7, "5m"))
    hub.publish(("kline", 7, "1m"), b"1")
    hub.publish(("trades", 7), b"nobody listens")
    assert (one.written, other.written) == ([b"1"], [])


def test_a_keyed_frame_replaces_the_waiting_one_and_goes_to_the_end(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    subscriber.pause()
    for frame, key in ((b"open 1", "bar"), (b"trade 1", None), (b"open 2", "bar"), (b"x", "other"), (b"open 3", "bar")):
        hub.publish("a", frame, key)
    assert wire.written == []
    subscriber.resume()
    assert wire.written == [b"trade 1", b"x", b"open 3"]


def test_equal_frames_without_a_key_are_all_kept(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    subscriber.pause()
    for _ in range(3):
        hub.publish("a", b"same")
    subscriber.resume()
    assert wire.written == [b"same"] * 3


def test_a_frame_for_one_subscriber_waits_and_flows_as_published_ones_do(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    _, other = attached(hub)
    subscriber.put(b"1")
    subscriber.put(b"2", "bar")
    subscriber.put(b"3", "bar")
    subscriber.attach(wire)
    subscriber.put(b"4")
    assert (wire.written, other.written) == ([b"1", b"3", b"4"], [])


def test_a_pause_within_a_write_stops_what_waits_there(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    wire.inside = subscriber.pause
    for number in range(4):
        hub.publish("a", b"%d" % number)
    assert wire.written == [b"0"]
    wire.inside = subscriber.pause
    subscriber.resume()
    hub.publish("a", b"4")
    assert wire.written == [b"0", b"1"]
    subscriber.resume()
    assert wire.written == [b"0", b"1", b"2", b"3", b"4"]


def test_the_snapshot_is_written_whole_and_a_pause_within_holds_back_the_rest(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    hub.publish("a", b"1")
    wire.inside = subscriber.pause
    subscriber.attach(wire, [b"snapshot", b"more"])
    assert wire.written == [b"snapshot", b"more"]
    hub.publish("a", b"2")
    subscriber.resume()
    assert wire.written == [b"snapshot", b"more", b"1", b"2"]


def test_a_pause_that_ends_within_the_same_write_changes_no_order(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()

    def hiccup() -> None:
        subscriber.pause()
        subscriber.resume()

    hub.publish("a", b"1")
    hub.publish("a", b"2")
    wire.inside = hiccup
    subscriber.attach(wire, [b"snapshot", b"more"])
    assert wire.written == [b"snapshot", b"more", b"1", b"2"]
    subscriber.pause()
    hub.publish("a", b"3")
    hub.publish("a", b"4")
    wire.inside = hiccup
    subscriber.resume()
    assert wire.written[4:] == [b"3", b"4"]


def test_a_pause_before_attaching_counts(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    subscriber.pause()
    hub.publish("a", b"1")
    subscriber.attach(wire, [b"snapshot"])
    assert wire.written == [b"snapshot"]
    subscriber.resume()
    assert wire.written == [b"snapshot", b"1"]


def test_a_resume_before_attaching_writes_nothing_and_loses_nothing(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    subscriber.pause()
    hub.publish("a", b"1")
    subscriber.resume()
    subscriber.attach(wire)
    assert wire.written == [b"1"]


def test_attaching_twice_is_a_mistake(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    with pytest.raises(RuntimeError, match="once"):
        subscriber.attach(Wire())
    hub.publish("a", b"1")
    assert wire.written == [b"1"]


@pytest.mark.parametrize(("count", "size"), [(5, 1), (2, 50), (4, 25)])
def test_up_to_the_bound_everything_is_kept(hub: Hub, count: int, size: int) -> None:
    subscriber, wire = attached(hub)
    subscriber.pause()
    frames = [b"%d" % number * size for number in range(count)]
    for frame in frames:
        hub.publish("a", frame)
    assert wire.closed == []
    subscriber.resume()
    assert wire.written == frames


@pytest.mark.parametrize(("count", "size"), [(6, 1), (2, 51), (1, 101)])
def test_past_the_bound_the_connection_is_closed_and_nothing_of_it_written(hub: Hub, count: int, size: int) -> None:
    subscriber, wire = attached(hub)
    _, other = attached(hub)
    subscriber.pause()
    frames = [b"%d" % number * size for number in range(count)]
    for frame in frames:
        hub.publish("a", frame)
    assert wire.codes == [TOO_SLOW]
    assert "cursor" in wire.closed[0][1]
    subscriber.resume()
    hub.publish("a", b"later")
    assert wire.written == []
    assert other.written == [*frames, b"later"]
    assert len(hub) == 1


def test_a_held_subscriber_past_the_bound_is_closed_as_soon_as_it_attaches(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    for number in range(7):
        hub.publish("a", b"%d" % number)
    assert (len(hub), list(hub.topics())) == (0, [])
    subscriber.attach(wire, [b"snapshot"])
    assert (wire.written, wire.codes) == ([], [TOO_SLOW])


def test_replacing_does_not_use_up_the_bound(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    subscriber.pause()
    for number in range(100):
        hub.publish("a", b"%03d" % number * 30, "bar")
    hub.publish("a", b"0123456789")
    assert wire.closed == []
    subscriber.resume()
    assert wire.written == [b"099" * 30, b"0123456789"]


def test_what_was_written_no_longer_counts_towards_the_bound(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    for _ in range(10):
        subscriber.pause()
        hub.publish("a", b"x" * 90)
        subscriber.resume()
    assert (len(wire.written), wire.closed) == (10, [])


def test_a_failing_subscriber_is_closed_and_the_others_are_served(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    _, before = attached(hub)
    _, failing = attached(hub)
    _, after = attached(hub)
    failing.inside = broken
    hub.publish("a", b"1")
    hub.publish("a", b"2")
    assert before.written == after.written == [b"1", b"2"]
    assert (failing.written, failing.codes, len(hub)) == ([b"1"], [FAILED], 2)
    assert "the transport is gone" in caplog.text


@pytest.mark.parametrize("first", [[b"snapshot", b"more"], []])
def test_a_failure_while_attaching_ends_it(hub: Hub, first: list[bytes]) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    hub.publish("a", b"1")
    hub.publish("a", b"2")
    wire.inside = broken
    subscriber.attach(wire, first)
    hub.publish("a", b"3")
    assert (len(wire.written), wire.codes, len(hub)) == (1, [FAILED], 0)


def test_a_sink_that_cannot_even_close_hurts_nobody(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    _, failing = attached(hub)
    _, other = attached(hub)
    failing.inside = failing.on_close = broken
    hub.publish("a", b"1")
    hub.close_topic("a", 1012, "restart")
    assert (other.written, other.codes) == ([b"1"], [1012])
    assert "failed to close" in caplog.text


def test_a_close_that_leads_to_leaving_is_harmless(hub: Hub) -> None:
    members = [attached(hub) for _ in range(3)]
    for subscriber, wire in members:
        wire.on_close = lambda subscriber=subscriber: hub.leave(subscriber)  # type: ignore[misc]
        subscriber.pause()
    for _ in range(6):
        hub.publish("a", b"x")
    assert [wire.codes for _, wire in members] == [[TOO_SLOW]] * 3
    assert len(hub) == 0


def test_leaving_within_a_write_spares_whoever_left_and_serves_the_rest(hub: Hub) -> None:
    _, first = attached(hub)
    second, gone = attached(hub)
    _, third = attached(hub)
    first.inside = lambda: hub.leave(second)
    hub.publish("a", b"1")
    assert (first.written, gone.written, third.written) == ([b"1"], [], [b"1"])


def test_pausing_another_within_a_write_makes_its_frame_wait(hub: Hub) -> None:
    _, first = attached(hub)
    second, paused = attached(hub)
    first.inside = second.pause
    hub.publish("a", b"1")
    assert paused.written == []
    second.resume()
    assert paused.written == [b"1"]


def test_one_that_resumes_and_breaks_within_the_write_of_another_is_written_nothing_more(hub: Hub) -> None:
    _, first = attached(hub)
    second, wire = attached(hub)
    second.pause()
    hub.publish("a", b"1")
    first.inside, wire.inside = second.resume, broken
    hub.publish("a", b"2")
    assert (first.written, wire.written, wire.codes) == ([b"1", b"2"], [b"1"], [FAILED])


@pytest.mark.parametrize("first", [[b"snapshot"], []])
def test_one_that_leaves_and_breaks_in_one_write_is_not_closed(hub: Hub, first: list[bytes]) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()

    def vanish() -> None:
        hub.leave(subscriber)
        broken()

    wire.inside = vanish
    subscriber.attach(wire, first)
    hub.publish("a", b"1")
    assert (len(wire.written), wire.closed, len(hub)) == (1, [], 0)


def test_leaving_while_the_waiting_frames_are_written_stops_them(hub: Hub) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    hub.publish("a", b"1")
    wire.inside = lambda: hub.leave(subscriber)
    subscriber.attach(wire, [b"snapshot", b"more"])
    hub.publish("a", b"2")
    assert (wire.written, wire.closed) == ([b"snapshot"], [])


def test_leaving_is_idempotent_and_empties_the_topic(hub: Hub) -> None:
    subscriber, wire = attached(hub)
    other, _ = attached(hub, "b")
    assert (len(hub), sorted(map(str, hub.topics()))) == (2, ["a", "b"])
    hub.leave(subscriber)
    hub.leave(subscriber)
    assert (len(hub), list(hub.topics())) == (1, ["b"])
    again, _ = attached(hub)
    hub.leave(subscriber)
    subscriber.pause()
    subscriber.resume()
    hub.publish("a", b"1")
    assert (wire.written, wire.closed, len(hub)) == ([], [], 2)
    hub.leave(again)
    hub.leave(other)
    assert (len(hub), list(hub.topics())) == (0, [])


def test_one_that_ended_keeps_no_connection_alive(hub: Hub) -> None:
    left, ended = hub.subscribe("a"), hub.subscribe("b")
    wires = [Wire(), Wire()]
    watched = [weakref.ref(wire) for wire in wires]
    left.attach(wires[0])
    ended.attach(wires[1])
    hub.leave(left)
    hub.close_topic("b", 1012, "restart")
    wires.clear()
    assert [watch() for watch in watched] == [None, None]


@pytest.mark.parametrize("closed", [False, True])
def test_one_that_left_before_attaching_writes_and_closes_nothing(hub: Hub, closed: bool) -> None:
    subscriber, wire = hub.subscribe("a"), Wire()
    if closed:
        hub.close_topic("a", 1012, "restart")
    hub.leave(subscriber)
    subscriber.attach(wire, [b"snapshot"])
    assert (wire.written, wire.closed) == ([], [])


def test_topics_may_change_while_somebody_reads_them(hub: Hub) -> None:
    members = [attached(hub, topic)[0] for topic in "abc"]
    for _, member in zip(hub.topics(), members, strict=True):
        hub.leave(member)
    assert list(hub.topics()) == []


def test_closing_a_topic_closes_all_of_it_and_nothing_else(hub: Hub) -> None:
    flowing, paused = attached(hub), attached(hub)
    paused[0].pause()
    held, wire = hub.subscribe("a"), Wire()
    _, elsewhere = attached(hub, "b")
    hub.close_topic("a", 1012, "the history has a hole")
    hub.close_topic("a", 1001, "again")
    hub.close_topic("nobody", 1012, "no one")
    assert flowing[1].closed == paused[1].closed == [(1012, "the history has a hole")]
    assert (elsewhere.closed, list(hub.topics())) == ([], ["b"])
    hub.publish("a", b"1")
    held.attach(wire, [b"snapshot"])
    assert (wire.written, wire.closed) == ([], [(1012, "the history has a hole")])


def test_closing_a_topic_tells_nobody_who_left_because_of_it(hub: Hub) -> None:
    _, first = attached(hub)
    second, wire = attached(hub)
    first.on_close = lambda: hub.leave(second)
    hub.close_topic("a", 1012, "restart")
    assert (first.codes, wire.codes) == ([1012], [])


def test_idle_subscribers_get_one_heartbeat_and_busy_ones_none(hub: Hub, clock: Clock) -> None:
    _, idle = attached(hub)
    clock.now += 4.9
    _, late = attached(hub)
    _, busy = attached(hub, "b")
    clock.now += 0.1
    hub.publish("b", b"1")
    hub.beat(heartbeat)
    hub.beat(heartbeat)
    assert (idle.written, late.written, busy.written) == ([b"beat a"], [], [b"1"])
    clock.now += 4.9
    hub.beat(heartbeat)
    assert (idle.written, late.written, busy.written) == ([b"beat a"], [b"beat a"], [b"1"])
    clock.now += 0.1
    hub.beat(heartbeat)
    assert (idle.written, late.written, busy.written) == ([b"beat a"] * 2, [b"beat a"], [b"1", b"beat b"])


def test_every_way_of_writing_puts_the_heartbeat_off(hub: Hub, clock: Clock) -> None:
    subscriber, wire = attached(hub)

    def four_seconds_later() -> None:
        clock.now += 4.0
        hub.beat(heartbeat)

    four_seconds_later()
    subscriber.put(b"1")
    four_seconds_later()
    subscriber.pause()
    subscriber.put(b"2")
    subscriber.resume()
    four_seconds_later()
    hub.publish("a", b"3")
    subscriber.pause()
    four_seconds_later()
    subscriber.resume()
    assert wire.written == [b"1", b"2", b"3"]
    clock.now += 1.0
    hub.beat(heartbeat)
    assert wire.written == [b"1", b"2", b"3", b"beat a"]


def test_frames_for_others_do_not_put_off_the_heartbeat_of_a_paused_one(hub: Hub, clock: Clock) -> None:
    subscriber, wire = attached(hub)
    attached(hub)
    subscriber.pause()
    clock.now += 5.0
    hub.publish("a", b"1", "bar")
    for _ in range(20):
        hub.beat(heartbeat)
    assert (wire.written, wire.closed) == ([], [])
    subscriber.resume()
    assert wire.written == [b"1", b"beat a"]


def test_everyone_gets_a_heartbeat_when_asked_for_the_held_too(hub: Hub) -> None:
    _, flowing = attached(hub)
    subscriber, wire = hub.subscribe("a"), Wire()
    hub.beat(heartbeat)
    hub.beat(heartbeat, everyone=True)
    subscriber.attach(wire, [b"snapshot"])
    assert (flowing.written, wire.written) == ([b"beat a"], [b"snapshot", b"beat a"])


def test_a_heartbeat_is_made_once_per_topic_and_only_if_needed(hub: Hub, clock: Clock) -> None:
    made: list[Hashable] = []

    def make(topic: Hashable) -> bytes:
        made.append(topic)
        return b"beat"

    for topic in "aabb":
        attached(hub, topic)
    hub.subscribe("c")
    hub.beat(make)
    assert made == []
    clock.now += 5.0
    hub.publish("b", b"1")
    hub.beat(make)
    assert made == ["a"]


def test_a_heartbeat_that_ends_one_still_reaches_the_others(hub: Hub) -> None:
    _, failing = attached(hub)
    _, other = attached(hub)
    _, elsewhere = attached(hub, "b")
    _, alone = attached(hub, "c")
    _, last = attached(hub, "d")
    failing.inside = alone.inside = broken
    hub.beat(heartbeat, everyone=True)
    assert (alone.codes, last.written) == ([FAILED], [b"beat d"])
    assert (failing.codes, other.written, elsewhere.written) == ([FAILED], [b"beat a"], [b"beat b"])


def test_whoever_is_paused_too_long_is_closed_and_whoever_resumed_is_not(hub: Hub, clock: Clock) -> None:
    stuck, wire = attached(hub)
    slow, spared = attached(hub)
    held = hub.subscribe("a")
    for subscriber in (stuck, slow, held):
        subscriber.pause()
    clock.now += 7.9
    hub.sweep()
    assert (wire.codes, spared.codes) == ([], [])
    stuck.pause()
    slow.resume()
    slow.pause()
    clock.now += 0.1
    hub.sweep()
    assert (wire.codes, spared.codes, len(hub)) == ([TOO_SLOW], [], 2)
    slow.resume()
    clock.now += 100.0
    hub.sweep()
    assert (wire.codes, spared.codes, len(hub)) == ([TOO_SLOW], [], 2)


def test_whoever_is_paused_but_reads_is_spared_until_it_stops(hub: Hub, clock: Clock) -> None:
    (reading, read), (stuck, unread) = attached(hub), attached(hub)
    read.left = unread.left = 330_000
    reading.pause()
    stuck.pause()
    for _ in range(20):
        clock.now += 1.0
        read.left -= 10_000
        hub.sweep()
    assert (read.codes, unread.codes) == ([], [TOO_SLOW])
    for _ in range(7):
        clock.now += 1.0
        hub.sweep()
    assert read.codes == []
    clock.now += 1.0
    hub.sweep()
    assert read.codes == [TOO_SLOW]


def test_what_is_added_to_an_unread_buffer_is_not_progress(hub: Hub, clock: Clock) -> None:
    subscriber, wire = attached(hub)
    subscriber.pause()
    for _ in range(8):
        wire.left += 6
        hub.sweep()
        clock.now += 1.0
    hub.sweep()
    assert wire.codes == [TOO_SLOW]


def test_each_pause_is_measured_by_itself(hub: Hub, clock: Clock) -> None:
    subscriber, wire = attached(hub)
    for left in (50, 40, 30):
        subscriber.pause()
        wire.left = left
        clock.now += 7.0
        hub.sweep()
        clock.now += 0.5
        hub.sweep()
        subscriber.resume()
    assert wire.codes == []
    subscriber.pause()
    for _ in range(2):
        clock.now += 8.0
        hub.sweep()
    assert wire.codes == [TOO_SLOW]


def test_a_sweep_that_makes_another_leave_closes_only_one(hub: Hub, clock: Clock) -> None:
    one, first = attached(hub)
    other, second = attached(hub)
    first.on_close = lambda: hub.leave(other)
    one.pause()
    other.pause()
    clock.now += 8.0
    hub.sweep()
    assert (first.codes, second.codes) == ([TOO_SLOW], [])


def test_a_publication_asks_the_clock_once_for_all(hub: Hub, clock: Clock) -> None:
    members = [attached(hub) for _ in range(50)]
    asked = clock.asked
    hub.publish("a", b"1")
    assert clock.asked == asked + 1
    assert all(wire.written == [b"1"] for _, wire in members)


# Mostly small: both bounds must be met.
budgets = st.sampled_from([1, 2, 3, 1000])
rarely = st.integers(0, 4).map(lambda number: number == 4)
sizes = st.one_of(st.integers(0, 5), st.integers(0, 5), st.integers(10, 70))


class Kept(bytes):
    """A frame that is crossed off a ledger when nobody holds it any more: what waits is measured, not believed."""

    ledger: dict[int, int]
    number: int

    def __del__(self) -> None:
        del self.ledger[self.number]


class Modelled:
    """One subscriber, the sink of it, and beside it what plain lists say; it keeps numbers, never frames."""

    def __init__(self, hub: Hub, topic: Hashable) -> None:
        self.hub = hub
        self.subscriber = hub.subscribe(topic)
        self.topic = topic
        self.waiting: list[tuple[int, int, Hashable | None]] = []
        self.expected: list[int] = []
        self.written: list[int] = []
        self.closed: list[int] = []
        self.given: list[tuple[int, Hashable | None]] = []
        self.first = 0
        self.end: int | None = None
        self.attached = self.paused = self.over = self.left = False
        self.fails = False
        self.takes = 10**9
        self.budget = 10**9

    # The real sink: pauses inside the write that uses up its budget.
    def write(self, frame: bytes) -> None:
        assert isinstance(frame, Kept)
        assert not self.closed, "written after the close"
        if self.fails:
            raise ConnectionResetError
        self.written.append(frame.number)
        self.budget -= 1
        if self.budget == 0:
            self.subscriber.pause()

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)
        self.hub.leave(self.subscriber)

    def unsent(self) -> int:
        return 0

    # The model.
    def give(self, number: int, size: int, key: Hashable | None, bounds: tuple[int, int]) -> None:
        if self.over:
            return
        self.given.append((number, key))
        self.waiting = [one for one in self.waiting if key is None or one[2] != key]
        self.waiting.append((number, size, key))
        self.flow()
        if len(self.waiting) > bounds[0] or sum(size for _, size, _ in self.waiting) > bounds[1]:
            self.finish(TOO_SLOW)

    def flow(self) -> None:
        while self.waiting and self.attached and not self.paused:
            if self.fails:
                self.finish(FAILED)
                return
            self.expected.append(self.waiting.pop(0)[0])
            self.takes -= 1
            self.paused = self.takes == 0

    def finish(self, code: int) -> None:
        if not self.over:
            self.over, self.end, self.waiting = True, code, []


class HubMachine(RuleBasedStateMachine):
    """Any sequence of events on two topics: the hub does to each subscriber what the model says."""

    bounds = (4, 60)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.hub = Hub(max_frames=self.bounds[0], max_bytes=self.bounds[1], clock=self.clock)
        self.members: list[Modelled] = []
        self.count = 0
        self.ledger: dict[int, int] = {}
        # A logged failure would keep its frame alive, and the ledger counts frames.
        logging.getLogger("klines.hub").disabled = True

    def teardown(self) -> None:
        logging.getLogger("klines.hub").disabled = False

    def frame(self, size: int) -> Kept:
        self.count += 1
        made = Kept(b"x" * size)
        made.ledger, made.number = self.ledger, self.count
        self.ledger[self.count] = size
        return made

    def some(self, index: int) -> Modelled:
        return self.members[index % len(self.members)]

    @precondition(lambda self: len(self.members) < 8)
    @rule(topic=st.sampled_from("ab"))
    def subscribe(self, topic: str) -> None:
        self.members.append(Modelled(self.hub, topic))

    @rule(topic=st.sampled_from("ab"), size=sizes, key=st.sampled_from([None, None, "k", "l"]))
    def publish(self, topic: str, size: int, key: str | None) -> None:
        self.hub.publish(topic, self.frame(size), key)
        for member in self.members:
            if member.topic == topic:
                member.give(self.count, size, key, self.bounds)

    @precondition(lambda self: self.members)
    @rule(index=st.integers(0, 7), size=sizes, key=st.sampled_from([None, "k"]))
    def put(self, index: int, size: int, key: str | None) -> None:
        self.some(index).subscriber.put(self.frame(size), key)
        self.some(index).give(self.count, size, key, self.bounds)

    @precondition(lambda self: any(not one.attached for one in self.members))
    @rule(index=st.integers(0, 7), first=st.integers(0, 2), budget=budgets)
    def attach(self, index: int, first: int, budget: int) -> None:
        members = [one for one in self.members if not one.attached]
        member = members[index % len(members)]
        member.attached = True
        member.budget = member.takes = budget
        frames = [self.frame(1) for _ in range(first)]
        numbers = [frame.number for frame in frames]
        member.subscriber.attach(member, frames)
        if not member.over and frames:
            if member.fails:
                member.finish(FAILED)
            else:
                member.expected, member.first = numbers, first
                member.paused = member.paused or member.takes <= first
                member.takes -= first
        member.flow()

    @precondition(lambda self: self.members)
    @rule(index=st.integers(0, 7))
    def pause(self, index: int) -> None:
        self.some(index).subscriber.pause()
        self.some(index).paused = True

    @precondition(lambda self: self.members)
    @rule(index=st.integers(0, 7), budget=budgets)
    def resume(self, index: int, budget: int) -> None:
        member = self.some(index)
        member.budget = member.takes = budget
        member.subscriber.resume()
        member.paused = False
        member.flow()

    @precondition(lambda self: self.members)
    @rule(index=st.integers(0, 7), really=rarely)
    def break_the_wire(self, index: int, really: bool) -> None:
        self.some(index).fails |= really

    @precondition(lambda self: self.members)
    @rule(index=st.integers(0, 7), really=rarely)
    def leave(self, index: int, really: bool) -> None:
        if not really:
            return
        member = self.some(index)
        self.hub.leave(member.subscriber)
        member.left = member.left or not member.over or not member.attached
        member.over, member.waiting = True, []

    @rule(topic=st.sampled_from("ab"), really=rarely)
    def close_topic(self, topic: str, really: bool) -> None:
        if not really:
            return
        self.hub.close_topic(topic, 1012, "restart")
        for member in self.members:
            if member.topic == topic:
                member.finish(1012)

    @rule(everyone=st.booleans())
    def beat(self, everyone: bool) -> None:
        made: dict[Hashable, int] = {}

        def make(topic: Hashable) -> bytes:
            frame = self.frame(3)
            assert topic not in made
            made[topic] = frame.number
            return frame

        self.hub.beat(make, everyone=everyone)
        # The clock stands still: without `everyone` nobody is idle.
        assert set(made) == {one.topic for one in self.members if everyone and not one.over}
        for member in self.members:
            if member.topic in made:
                member.give(made[member.topic], 3, HEARTBEAT, self.bounds)

    @invariant()
    def what_was_written_is_what_the_model_says(self) -> None:
        for member in self.members:
            assert member.written == member.expected

    @invariant()
    def order_and_completeness_hold_without_the_model(self) -> None:
        for member in self.members:
            written = member.written[member.first :]
            assert written == sorted(set(written))
            assert set(written) <= {number for number, _ in member.given}
            if member.attached and not member.paused and not member.over:
                newest = {key: number for number, key in member.given}
                wanted = {number for number, key in member.given if key is None or newest[key] == number}
                assert wanted <= set(written)

    @invariant()
    def whoever_ended_was_closed_once_with_the_reason(self) -> None:
        for member in self.members:
            told = member.over and member.attached and not member.left
            assert member.closed == ([member.end] if told else [])

    @invariant()
    def nothing_is_kept_but_what_waits_and_that_is_bounded(self) -> None:
        waiting = {number: size for one in self.members for number, size, _ in one.waiting}
        assert self.ledger == waiting
        for member in self.members:
            assert len(member.waiting) <= self.bounds[0]
            assert sum(size for _, size, _ in member.waiting) <= self.bounds[1]

    @invariant()
    def the_hub_counts_whoever_is_not_over(self) -> None:
        alive = [one for one in self.members if not one.over]
        assert len(self.hub) == len(alive)
        assert set(self.hub.topics()) == {one.topic for one in alive}


HubMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestHubMachine = HubMachine.TestCase
