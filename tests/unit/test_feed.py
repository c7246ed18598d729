"""What a read has to tell a stream: kinds, order, and cursors that continue right after their message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from klines.cursor import Place, Stream, parse_cursor
from klines.queries.changes import Changed, Changes, Taped
from klines.queries.turn import PAGE_BARS
from klines.relay.feed import Feed, Hole, place_after, told

SECOND = Stream(7, 1)
TRADES = Stream(7)
EPOCH = "0123456789ab"


def changed(*open_ms: int) -> Changes:
    return Changes(12, 8500, [], [Changed(SECOND, one, f'{{"open_time":{one}}}') for one in open_ms])


def messages(found: Changes, begin: Place, end: Place) -> list[dict[str, Any]]:
    feed = Feed(7, "PEPE", EPOCH, begin)
    return [msgspec.json.decode(one.message) for one in told(feed, found.changed[0].stream, found, begin, end)]


def test_revisions_then_closed_bars_then_open_ones() -> None:
    got = messages(changed(1000, 5000, 6000, 7000, 8000), Place(10, 6000), Place(12, 8500, 12))
    assert [(one["type"], one["kline"]["open_time"]) for one in got] == [
        ("revision", 1000),
        ("revision", 5000),
        ("kline", 6000),
        ("kline", 7000),
        ("kline", 8000),
    ]


def test_only_open_bars_may_be_replaced() -> None:
    begin = Place(10, 6000)
    found = changed(1000, 6000, 8000, 9000)
    keys = [one.key for one in told(Feed(7, "PEPE", EPOCH, begin), SECOND, found, begin, Place(12, 8500, 12))]
    assert keys == [None, None, 8000, 9000]


@pytest.mark.parametrize("stop", range(5))
def test_whoever_stops_after_a_message_is_told_the_rest(stop: int) -> None:
    """As the database would answer the cursor: every bar touched after it, or ended since, that it does not have."""
    opens, begin, end = [1000, 5000, 6000, 7000, 8000], Place(10, 6000), Place(12, 8500, 12)
    text = messages(changed(*opens), begin, end)[stop]["cursor"]
    cursor = parse_cursor(text, SECOND).place
    sequence_of_all = 12
    left = [
        one
        for one in opens
        if (cursor.sequence < sequence_of_all and not (one + 1000 <= cursor.moment_ms and cursor.ahead >= 12))
        or cursor.moment_ms < one + 1000 <= end.moment_ms
    ]
    assert set(opens[stop + 1 :]) <= set(left), "a bar would be missed"
    closed = {one for one in opens[: stop + 1] if begin.moment_ms < one + 1000 <= end.moment_ms}
    assert not closed & set(left), "a bar would be told closed twice"


def test_trades_of_several_commits_are_one_message() -> None:
    feed = Feed(7, "PEPE", EPOCH, Place(10, 0))
    found = Changes(13, 0, [Taped(11, 1, '{"trade_id":1}'), Taped(13, 2, '{"trade_id":2},{"trade_id":3}')], [])
    (only,) = told(feed, TRADES, found, feed.place, Place(13, 0, 13))
    got = msgspec.json.decode(only.message)
    assert [one["trade_id"] for one in got["trades"]] == [1, 2, 3]
    assert parse_cursor(got["cursor"], TRADES).place.sequence == 13
    assert only.key is None


def after(newest: int, *taped: Taped) -> Place:
    return place_after(Place(10, 5, 10), Changes(newest, 99, list(taped), []))


def test_a_read_ends_where_its_page_does() -> None:
    assert after(10) == Place(10, 99, 10)
    assert after(13, Taped(11, 1, ""), Taped(13, 2, "")) == Place(13, 99, 13)
    assert after(20, Taped(11, 1, "")) == Place(11, 99, 11)


@pytest.mark.parametrize(
    ("newest", "taped"),
    [
        (12, [Taped(12, 1, "")]),
        (14, [Taped(11, 1, ""), Taped(14, 2, "")]),
        (11, []),
        (9, []),
    ],
    ids=["the next one is gone", "one between is gone", "all are gone", "the feed is shorter than it was"],
)
def test_a_gap_on_the_tape_is_not_passed_over(newest: int, taped: list[Taped]) -> None:
    with pytest.raises(Hole):
        after(newest, *taped)


def test_a_bar_that_several_pages_touch_is_told_once_unless_it_changes_or_somebody_joins() -> None:
    feed = Feed(7, "PEPE", EPOCH, Place(0, 6000))
    bars = [Changed(SECOND, 1000, "{}"), Changed(SECOND, 8000, "{}")]
    first, second = Place(512, 6000, 512), Place(1024, 6000, 1024)
    page = Changes(1100, 6000, [], bars)
    assert feed.unrepeated(page, feed.place, first).changed == bars
    assert feed.unrepeated(page, first, second).changed == []
    feed.repeat()
    assert feed.unrepeated(page, first, second).changed == bars
    changed = [bars[0], bars[1]._replace(json='{"closed":true}')]
    assert feed.unrepeated(page._replace(changed=changed), second, Place(1100, 9100, 1100)).changed == changed[1:]
    assert feed.unrepeated(page, second, Place(1100, 9100, 1100)).changed == bars, "a new tape"


def test_bars_that_ended_come_a_page_at_a_time_before_the_tape_goes_on() -> None:
    begin, moment_ms = Place(10, 6000, 10), 6000 + 1000 * PAGE_BARS + 5000
    bars = [Changed(SECOND, 1000 * n, "{}") for n in (2, *range(6, PAGE_BARS + 6), PAGE_BARS + 9)]
    found = Changes(12, moment_ms, [Taped(12, 2, "")], bars)
    end = place_after(begin, found)
    assert end == Place(10, 6000 + 1000 * PAGE_BARS, 10)
    feed = Feed(7, "PEPE", EPOCH, begin)
    messages = [msgspec.json.decode(one.message) for one in told(feed, SECOND, found, begin, end)]
    assert [one["type"] for one in messages] == ["kline"] * PAGE_BARS, "no revision, nothing that is still open"
    assert parse_cursor(messages[-1]["cursor"], SECOND).place == end
    assert told(feed, TRADES, found, begin, end) == []
    rest = found._replace(changed=[bars[0], bars[-1]])
    assert place_after(end, rest) == Place(12, moment_ms, 12)


def test_a_place_ahead_of_its_feed_is_none() -> None:
    with pytest.raises(Hole):
        place_after(Place(10, 5, 11), Changes(10, 99, [], []))
