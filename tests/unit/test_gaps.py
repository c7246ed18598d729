"""Filling gaps: for any bars and any request, the same as looking at every bucket one by one."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from klines.gaps import Bar, Fill, Request, filled
from klines.interval import Width

WIDTH = Width(60).milliseconds
NOW = 1000 * WIDTH + 12_345

buckets = st.sets(st.integers(970, 1003), max_size=20)
edges = st.one_of(st.none(), st.integers(965 * WIDTH, 1006 * WIDTH), st.integers(965, 1006).map(lambda n: n * WIDTH))


def bar(bucket: int) -> Bar:
    return Bar(bucket * WIDTH, str(bucket), json.dumps({"open_time": bucket * WIDTH, "close": str(bucket)}))


def page(stored: list[Bar], request: Request) -> list[Bar]:
    """What the database answers: the page of the window, and the bar before its beginning."""
    below = [one for one in stored if request.to_ms is None or one.open_ms < request.to_ms]
    if request.from_ms is None:
        return below[-request.limit :]
    inside = [one for one in below if one.open_ms >= request.from_ms][: request.limit]
    return [one for one in stored if one.open_ms < request.from_ms][-1:] + inside


def expected(stored: list[Bar], request: Request) -> list[tuple[int, str | None]]:
    """Open time and close of every bucket, said plainly."""
    if not stored or (request.to_ms is not None and stored[0].open_ms >= request.to_ms):
        return []
    end = max(NOW // WIDTH, stored[-1].open_ms // WIDTH)
    rows: list[tuple[int, str | None]] = []
    close = stored[0].close
    closes = {one.open_ms: one.close for one in stored}
    for open_ms in range(stored[0].open_ms, (end + 1) * WIDTH, WIDTH):
        close = closes.get(open_ms, close)
        shown = closes.get(open_ms, close if request.fill == "prev" else None)
        if (request.from_ms is None or open_ms >= request.from_ms) and (
            request.to_ms is None or open_ms < request.to_ms
        ):
            rows.append((open_ms, shown))
    return rows[: request.limit] if request.from_ms is not None else rows[-request.limit :]


@given(buckets, st.integers(1, 40), edges, edges, st.sampled_from(["prev", "null"]))
def test_every_bucket_is_what_looking_at_it_says(
    chosen: set[int], limit: int, from_ms: int | None, to_ms: int | None, fill: Fill
) -> None:
    stored = [bar(bucket) for bucket in sorted(chosen)]
    request = Request(Width(60), limit, from_ms, to_ms, fill)
    rows, last = filled(request, page(stored, request), NOW)
    found = [(row["open_time"], row["close"]) for row in map(json.loads, rows)]
    wanted = expected(stored, request)
    # Bars ahead of the clock are only known where the page holds them.
    ahead = bool(stored) and stored[-1].open_ms > NOW and from_ms is not None
    assert found == wanted or (ahead and found == wanted[: len(found)])
    assert last == (found[-1][0] if found else None)
