"""When a feed is read: at once, then not too often; when bars end; and by poll."""

from __future__ import annotations

import pytest

from klines.cursor import Place, Stream
from klines.relay.feed import Feed
from klines.relay.schedule import MAX_ODD, MAX_ODD_PARTS, POLL_SECONDS, Crowded, Schedule, refuse_odd

PUSH = 0.05


def watching(*streams: Stream) -> Schedule:
    """A schedule that has had its first turn at time 100 and moment 0.5 s."""
    schedule = Schedule(PUSH)
    for stream in streams:
        known = schedule.feeds.get(stream.token_id)
        schedule.watch(known or Feed(stream.token_id, "PEPE", "epoch", Place(0, 500)), stream)
    schedule.take(100.0, 500)
    return schedule


def taken(schedule: Schedule, now: float, moment_ms: int = 500) -> list[int]:
    return [feed.token_id for feed in schedule.take(now, moment_ms)]


def test_the_first_change_is_read_at_once_and_the_next_one_after_the_push_interval() -> None:
    schedule = watching(Stream(1))
    schedule.ring([1], 100.1)
    assert taken(schedule, 100.1) == [1]
    schedule.ring([1], 100.11)
    schedule.ring([1], 100.12)
    assert taken(schedule, 100.12) == []
    due = schedule.next_at(100.12, 500)
    assert 100.1 + PUSH <= due <= 100.1 + PUSH * 1.25 + 1e-9
    assert taken(schedule, due - 1e-6) == []
    assert taken(schedule, due) == [1]
    assert taken(schedule, 100.2) == []


def test_what_takes_long_to_tell_is_told_less_often() -> None:
    schedule = watching(Stream(1), Stream(2))
    schedule.ring([1, 2], 100.1)
    feeds = schedule.take(100.1, 500)
    schedule.told(feeds[:1], 100.1, 100.1 + 2 * PUSH)
    schedule.told(feeds[1:], 100.1, 100.1 + PUSH / 4)
    schedule.ring([1, 2], 100.1 + 2 * PUSH)
    assert taken(schedule, 100.1 + 2 * PUSH) == [2]
    assert taken(schedule, 100.1 + 4 * PUSH - 0.001) == []
    assert taken(schedule, 100.1 + 4.25 * PUSH) == [1]


def test_without_an_interval_only_what_takes_long_waits() -> None:
    schedule = Schedule(0)
    schedule.watch(Feed(1, "PEPE", "epoch", Place(0, 500)), Stream(1))
    schedule.take(100.0, 500)
    schedule.ring([1], 100.0)
    schedule.told(schedule.take(100.0, 500), 100.0, 100.01)
    schedule.ring([1], 100.01)
    assert taken(schedule, 100.015) == []
    assert taken(schedule, 100.021) == [1]


def test_tokens_that_nobody_watches_are_not_read() -> None:
    schedule = watching(Stream(1))
    schedule.ring([2, 3], 100.1)
    assert taken(schedule, 100.1) == []
    assert schedule.next_at(100.1, 500) == pytest.approx(100.0 + POLL_SECONDS)


def test_any_token_means_all_that_are_watched() -> None:
    schedule = watching(Stream(1), Stream(2))
    schedule.ring(None, 100.1)
    assert taken(schedule, 100.1) == [1, 2]


def test_a_bar_that_ends_makes_its_feeds_due_once() -> None:
    schedule = watching(Stream(1, 1), Stream(2, 60), Stream(3))
    assert schedule.next_at(100.1, 900) == pytest.approx(100.2)
    assert taken(schedule, 100.2, 1000) == [1]
    assert taken(schedule, 100.3, 1100) == []
    assert taken(schedule, 100.4, 60_000) == [1, 2]


def test_the_poll_reads_all_of_them() -> None:
    schedule = watching(Stream(1), Stream(2, 60))
    assert taken(schedule, 100.0 + POLL_SECONDS) == [1, 2]
    assert taken(schedule, 100.1 + POLL_SECONDS) == []


def test_a_feed_without_watched_streams_is_forgotten() -> None:
    schedule = watching(Stream(1), Stream(1, 60), Stream(2, 60))
    schedule.keep({Stream(1, 60)})
    assert list(schedule.feeds) == [1]
    assert list(schedule.feeds[1].streams) == [Stream(1, 60)]
    schedule.ring(None, 100.1)
    assert taken(schedule, 100.1) == [1]


def test_a_doorbell_that_rings_for_nothing_is_not_answered_more_often() -> None:
    schedule = watching(Stream(1))
    schedule.ring(None, 100.1)
    assert taken(schedule, 100.1) == [1]
    schedule.ring(None, 100.1)
    assert taken(schedule, 100.1 + PUSH / 2) == []
    assert taken(schedule, 100.1 + PUSH * 1.3) == [1]


def test_a_feed_that_was_given_up_is_not_due_for_ever() -> None:
    schedule = watching(Stream(1))
    schedule.drop(schedule.feeds[1])
    schedule.at(1, 0.0)
    assert taken(schedule, 100.1) == []
    assert schedule.next_at(100.1, 500) == pytest.approx(100.0 + POLL_SECONDS)


def test_odd_widths_of_one_token_are_bounded() -> None:
    watched = {Stream(1, seconds) for seconds in range(91, 91 + MAX_ODD)}
    with pytest.raises(Crowded, match=f"{MAX_ODD} intervals of this token"):
        refuse_odd(Stream(1, 47), watched)
    for free in (Stream(1, 91), Stream(1, 60), Stream(1, 604_800), Stream(1), Stream(2, 47)):
        refuse_odd(free, watched)


def test_what_odd_widths_of_all_tokens_are_made_of_is_bounded() -> None:
    watched: set[Stream] = set()
    costly = [Stream(token_id, seconds) for token_id in range(1, 11) for seconds in (877, 881)]
    with pytest.raises(Crowded) as crowded:
        for stream in [*costly, Stream(11, 883), Stream(12, 887), Stream(13, 889)]:
            refuse_odd(stream, watched)
            watched.add(stream)
    parts = sum(stream.seconds for stream in watched)
    assert MAX_ODD_PARTS - 900 < parts <= MAX_ODD_PARTS
    assert (crowded.value.code, str(MAX_ODD_PARTS) in crowded.value.detail) == ("intervals_exhausted", True)
    assert "a bar of 889s is made of up to 889 stored ones" in crowded.value.detail
    # What fits still, what is watched already, and what costs nothing.
    for free in (Stream(13, MAX_ODD_PARTS - parts), costly[0], Stream(14, 5), Stream(14, 604_800), Stream(14)):
        refuse_odd(free, watched)


def test_customary_widths_leave_room_for_odd_ones() -> None:
    refuse_odd(Stream(1, 899), [Stream(token_id, 5400) for token_id in range(10_000)])
