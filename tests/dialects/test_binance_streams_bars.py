"""The bars of Binance's streams: without gaps, each closed once, the same as REST fills them."""

from __future__ import annotations

import json
import random
import time
from typing import NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.gaps import Bar as GivenBar
from klines.gaps import Request, filled
from klines.interval import Width
from klines.models import Trade
from klines.web.binance.streams.dense import MAX_AHEAD, MAX_GAP, Dense
from klines.web.binance.streams.native import Bar
from tests.dialects.binance_streams import Client, Event, as_filled, joined
from tests.live.streams import post

SECOND_US = 1_000_000


class Market:
    """Posts trades of one token at present times."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._chance = random.Random(5)  # noqa: S311 - a test's own market
        self._count = 0

    async def trade(self, seconds_ago: float = 0.0) -> Trade:
        self._count += 1
        at = time.time_ns() // 1000 - int(seconds_ago * SECOND_US)
        side = self._chance.choice(["buy", "sell"])
        made = Trade("PEPE", self._count, at, f"0.0{self._chance.randint(1, 99)}1", f"{self._count}.5", side)  # type: ignore[arg-type]
        await post(self._client, made)
        return made

    async def some(self) -> None:
        for _ in range(self._chance.choice([0, 0, 1, 2])):
            await self.trade()


@pytest.mark.parametrize("interval", ["1s", "2s"])
async def test_bars_are_those_of_rest_without_gaps(plain_client: httpx.AsyncClient, interval: str) -> None:
    market = Market(plain_client)
    await market.trade(7)
    async with joined(plain_client, f"/ws/pepe@kline_{interval}") as client:
        closed = client.closed["PEPE", interval]
        for count in range(1, 7):
            await client.until(lambda count=count: len(closed) >= count)  # type: ignore[misc]
            await market.some()
        await as_filled(plain_client, closed, interval)
        assert {bar["n"] == 0 for bar in closed} == {True, False}
        flat = next(bar for bar in closed if not bar["n"])
        assert (flat["f"], flat["L"], flat["v"], flat["o"]) == (-1, -1, "0", flat["c"])
        opens = [event["k"]["t"] for event in client.of("kline") if not event["k"]["x"]]
        assert sorted(set(opens))[1:] == [bar["t"] + (bar["T"] + 1 - bar["t"]) for bar in closed]


async def test_nothing_is_told_before_the_first_trade(plain_client: httpx.AsyncClient) -> None:
    assert (await plain_client.put("/api/v1/tokens/PEPE", json={})).status_code == 201
    async with joined(plain_client, "/ws/pepe@kline_1s") as client:
        await client.subscribe("pepe@bookTicker")
        assert client.events == []
        made = await Market(plain_client).trade()
        await client.until(lambda: client.closed["PEPE", "1s"])
        first = client.of("kline")[0]["k"]
        assert (first["t"], first["L"]) == (made.time_us // SECOND_US * 1000, made.trade_id)


async def test_a_late_trade_changes_rest_and_not_what_was_told(plain_client: httpx.AsyncClient) -> None:
    market = Market(plain_client)
    await market.trade(30)
    async with joined(plain_client, "/ws/pepe@kline_1s/pepe@trade") as client:
        closed = client.closed["PEPE", "1s"]
        await client.until(lambda: len(closed) >= 2)
        late = await market.trade(20)
        await client.until(lambda: client.trade_ids() == [late.trade_id])
        count = len(closed)
        await client.until(lambda: len(closed) >= count + 2)
        assert all(bar["t"] * 1000 > late.time_us for bar in closed)
        # From now on the late trade is the last one, so its price is what stands for nothing.
        assert closed[-1]["c"] == late.price
        await as_filled(plain_client, closed[-1:], "1s")


async def test_a_bar_ahead_of_the_clock_waits_for_its_bucket(plain_client: httpx.AsyncClient) -> None:
    market = Market(plain_client)
    await market.trade(3)
    async with joined(plain_client, "/ws/pepe@kline_1s/pepe@trade") as client:
        closed = client.closed["PEPE", "1s"]
        ahead = await market.trade(-3)
        await client.until(client.trade_ids)
        await client.until(lambda: closed and closed[-1]["L"] == ahead.trade_id)
        await as_filled(plain_client, closed, "1s")
        assert len(closed) >= 3
    async with joined(plain_client, "/ws/pepe@kline_1s") as second:
        await second.until(lambda: second.events)
        assert second.events[0]["k"]["o"] == ahead.price


async def test_who_joins_later_is_shown_the_open_bar(plain_client: httpx.AsyncClient) -> None:
    market = Market(plain_client)
    await market.trade(3)
    async with joined(plain_client, "/ws/pepe@kline_1h") as first:
        made = await market.trade()
        await first.until(lambda: first.events and first.events[-1]["k"]["L"] == made.trade_id)
        async with joined(plain_client, "/ws/PEPE@kline_60m") as second:
            await second.until(lambda: second.events)
            assert shown(second) == shown(first)


def shown(client: Client) -> Event:
    bar: Event = client.events[-1]["k"]
    return bar


class Step(NamedTuple):
    """A native message: the bar of this bucket if one came, and by how many half buckets the moment moved on."""

    bucket: int | None
    moved: int


STEPS = st.lists(st.builds(Step, st.none() | st.integers(0, 3), st.integers(0, 5)), max_size=60)
WIDTH = Width(60)


@given(steps=STEPS)
def test_every_bucket_is_closed_once_in_order_as_rest_fills_it(steps: list[Step]) -> None:
    dense, moment_ms = Dense(WIDTH), 10 * WIDTH.milliseconds
    made: dict[int, Bar] = {}
    closed: list[Bar] = []
    for number, (bucket, moved) in enumerate(steps, 1):
        bar = None
        if bucket is not None:
            bar = bar_of(moment_ms // WIDTH.milliseconds + bucket, str(number))
            made[bar.open_time] = bar
        moment_ms += moved * WIDTH.milliseconds // 2
        closed += [one.bar for one in dense.take(bar, moment_ms) if one.closed]
    bars = [GivenBar(open_ms, bar.close, json.dumps({"close": bar.close})) for open_ms, bar in sorted(made.items())]
    rows, _ = filled(Request(WIDTH, 5000, None, WIDTH.floor(moment_ms), "prev"), bars, moment_ms)
    assert [bar.close for bar in closed] == [json.loads(row)["close"] for row in rows]
    assert [bar.open_time for bar in closed] == [closed[0].open_time + n * 60_000 for n in range(len(closed))]


def bar_of(bucket: int, price: str) -> Bar:
    begin = bucket * WIDTH.milliseconds
    return Bar(begin, begin + WIDTH.milliseconds - 1, price, price, price, price, "1", price, 1, "1", price, 1, 1)


def test_a_long_gap_is_cut_and_bars_in_it_are_kept() -> None:
    dense = Dense(WIDTH)
    dense.begin([bar_of(1, "1")], 2 * WIDTH.milliseconds)
    assert dense.take(bar_of(5, "5"), 2 * WIDTH.milliseconds) == []
    told = dense.take(None, 10_000 * WIDTH.milliseconds)
    assert [one.bar.open_time // WIDTH.milliseconds for one in told] == [5, *range(10_000 - MAX_GAP, 10_000)]
    assert {one.bar.close for one in told} == {"5"}


def test_bars_ahead_of_the_clock_are_bounded_and_told_when_they_close() -> None:
    dense = Dense(WIDTH)
    dense.begin([bar_of(1, "1")], 2 * WIDTH.milliseconds)
    for bucket in range(3, MAX_AHEAD + 10):
        assert dense.take(bar_of(bucket, "2"), 2 * WIDTH.milliseconds) == []
    last = bar_of(MAX_AHEAD + 9, "9")
    dense.take(None, last.open_time)
    assert [one.bar for one in dense.take(last, last.close_time + 1)] == [last]
