"""The simulated market keeps its promises: one tape per seed however it is sliced, exact text, life-like behaviour."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from statistics import correlation, fmean, pvariance

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klines.errors import InvalidSettings
from klines.feeds.character import CHARACTERS, DEAD, LAUNCH, MAJOR, MAX_TOKENS, MICRO, Character, parse_tokens
from klines.feeds.market import MAX_TRADES_PER_SECOND, MAX_TRADES_PER_STEP, Market
from klines.models import Trade

START_US = 1_760_000_000_123_456
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
FIXED_POINT = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?", re.ASCII)

any_character = pytest.mark.parametrize("character", CHARACTERS.values(), ids=list(CHARACTERS))


def market_of(character: Character, seed: int = 1, price: str | None = None) -> Market:
    return Market("MOONCAT-SOL", character, seed, START_US, 1, price)


def tape_of(market: Market, length_us: int, step_us: int = 60 * SECOND_US) -> list[Trade]:
    end_us = START_US + length_us
    tape: list[Trade] = []
    for until_us in range(START_US + step_us, end_us + step_us, step_us):
        tape += market.step(min(until_us, end_us))
    return tape


@cache
def hours_of(character: Character, hours: int) -> tuple[Trade, ...]:
    return tuple(tape_of(market_of(character), hours * HOUR_US))


def decimals_of(text: str) -> int:
    return len(text.partition(".")[2])


def significant_of(text: str) -> int:
    return len(text.replace(".", "").lstrip("0"))


def signed_volume(trade: Trade) -> float:
    return float(trade.amount) if trade.side == "buy" else -float(trade.amount)


def fano_of(tape: list[Trade], width_s: int) -> float:
    bins = Counter((trade.time_us - START_US) // (width_s * SECOND_US) for trade in tape)
    counts = [bins[n] for n in range(3600 // width_s)]
    return pvariance(counts) / fmean(counts)


# One tape


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(CHARACTERS)),
    seed=st.integers(0, 2**64),
    cuts=st.lists(st.integers(0, 300 * SECOND_US), max_size=30),
)
def test_any_slicing_gives_the_same_tape(name: str, seed: int, cuts: list[int]) -> None:
    whole = tape_of(market_of(CHARACTERS[name], seed), 300 * SECOND_US)
    sliced_market = market_of(CHARACTERS[name], seed)
    sliced: list[Trade] = []
    for cut in [*cuts, 300 * SECOND_US]:
        sliced += sliced_market.step(START_US + cut)
    assert sliced == whole


@any_character
def test_quarter_seconds_and_seconds_give_the_same_tape(character: Character) -> None:
    fine = tape_of(market_of(character), HOUR_US // 2, SECOND_US // 4)
    assert fine == tape_of(market_of(character), HOUR_US // 2, SECOND_US)
    assert fine


def test_a_step_holds_only_its_own_time() -> None:
    market = market_of(MAJOR)
    for second in range(600):
        from_us = START_US + second * SECOND_US
        assert all(from_us <= trade.time_us < from_us + SECOND_US for trade in market.step(from_us + SECOND_US))


def test_a_trade_at_the_end_of_a_step_belongs_to_the_next() -> None:
    trade = market_of(MAJOR).step(START_US + 60 * SECOND_US)[0]
    market = market_of(MAJOR)
    assert market.step(trade.time_us) == []
    assert market.step(trade.time_us + 1)[0] == trade


def test_seed_and_symbol_each_make_another_tape() -> None:
    def story(symbol: str, seed: int) -> list[tuple[int, str]]:
        tape = tape_of(Market(symbol, MAJOR, seed, START_US, 1), 60 * SECOND_US)
        return [(trade.time_us, trade.amount) for trade in tape]

    assert story("A", 1) == story("A", 1)
    assert story("A", 1) != story("A", 2)
    assert story("A", 1) != story("B", 1)
    assert story("A:1", 1) != story("1", 1)


def test_the_tape_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "import hashlib; from klines.feeds.market import CHARACTERS, Market;"
        f"tape = Market('MOONCAT-SOL', CHARACTERS['launch'], 1, {START_US}, 1).step({START_US + 60 * SECOND_US});"
        "print(hashlib.sha256(repr(tape).encode()).hexdigest())"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()
    here = market_of(LAUNCH).step(START_US + 60 * SECOND_US)
    assert told == hashlib.sha256(repr(here).encode()).hexdigest()


@any_character
def test_order_and_ids(character: Character) -> None:
    tape = tape_of(Market("X", character, 3, START_US, 4_000), 2 * HOUR_US)
    assert [trade.trade_id for trade in tape] == list(range(4_000, 4_000 + len(tape)))
    assert all(a.time_us <= b.time_us for a, b in pairwise(tape))
    assert {trade.side for trade in tape} == {"buy", "sell"}
    assert {trade.symbol for trade in tape} == {"X"}


# Bounds


def test_a_frantic_market_keeps_the_bounds() -> None:
    phases = tuple(msgspec.structs.replace(phase, rate=2_000) for phase in LAUNCH.phases)
    frantic = msgspec.structs.replace(LAUNCH, phases=phases)
    market = market_of(frantic)
    steps = [market.step(START_US + n * 80 * SECOND_US) for n in range(1, 5)]
    assert max(map(len, steps)) < MAX_TRADES_PER_STEP
    seconds = Counter(trade.time_us // SECOND_US for step in steps for trade in step)
    assert max(seconds.values()) == MAX_TRADES_PER_SECOND


def test_a_long_step_stops_at_the_bound_and_goes_on() -> None:
    market = market_of(MAJOR)
    tape: list[Trade] = []
    while len(part := market.step(START_US + HOUR_US)) == MAX_TRADES_PER_STEP:
        tape += part
    assert tape
    assert tape + part == tape_of(market_of(MAJOR), HOUR_US)


@any_character
def test_the_price_stays_in_its_range_over_a_long_run(character: Character) -> None:
    length_us = 7 * 24 * HOUR_US if character is DEAD else 12 * HOUR_US
    market = market_of(character, seed=7)
    highest, lowest = 0.0, float("inf")
    for until_us in range(START_US, START_US + length_us, 80 * SECOND_US):
        prices = [float(trade.price) for trade in market.step(until_us)]
        highest, lowest = max([highest, *prices]), min([lowest, *prices])
    assert character.price / character.span / 1.5 < lowest < character.price
    assert character.price < highest < character.price * character.span * 1.5


def test_flow_turns_round_at_the_edge_of_the_range() -> None:
    phase = msgspec.structs.replace(LAUNCH.phases[1], aim=(1e30, 1e30), seconds=60.0)
    to_the_moon = msgspec.structs.replace(LAUNCH, phases=(phase,))
    prices = [float(trade.price) for trade in tape_of(market_of(to_the_moon), HOUR_US)]
    assert 0.5 < max(prices) / (LAUNCH.price * LAUNCH.span) < 1.5


# Exact text


@any_character
@pytest.mark.parametrize("price", [None, "60000", "0.000000000000000000000001", "1" + "0" * 23])
def test_text_is_exact_fixed_point(character: Character, price: str | None) -> None:
    for trade in tape_of(market_of(character, price=price), HOUR_US):
        for text in (trade.price, trade.amount):
            assert FIXED_POINT.fullmatch(text), trade
            assert text.strip("0.") != "", trade
        assert decimals_of(trade.price) <= 24
        assert decimals_of(trade.amount) <= 9


@any_character
def test_decimals_and_digits(character: Character) -> None:
    tape = hours_of(character, 3)
    assert max(decimals_of(trade.amount) for trade in tape) == (9 if character is MAJOR else 6)
    digits = Counter(significant_of(trade.price) for trade in tape)
    assert max(digits) == 9
    assert digits[9] > 0.8 * len(tape)


def test_micro_is_tiny_and_heavy() -> None:
    tape = hours_of(MICRO, 3)
    assert all(1e-13 < float(trade.price) < 1e-9 for trade in tape)
    heavy = sum(1e9 <= float(trade.amount) <= 1e13 for trade in tape)
    assert heavy > 0.9 * len(tape)


# Restart


def test_a_restart_goes_on_from_the_stored_price() -> None:
    stored = hours_of(MAJOR, 3)[-1].price
    first = tape_of(market_of(MAJOR, price=stored), HOUR_US)[0]
    assert float(first.price) == pytest.approx(float(stored), rel=0.02)


def test_a_foreign_price_is_the_middle_of_a_new_range() -> None:
    prices = [float(trade.price) for trade in tape_of(market_of(MAJOR, price="60000"), HOUR_US)]
    assert all(60_000 / MAJOR.span < price < 60_000 * MAJOR.span for price in prices)
    assert prices[0] == pytest.approx(60_000, rel=0.02)


@pytest.mark.parametrize("price", ["0", "-1", "nan", "inf", "", "much"])
def test_a_price_that_is_not_positive_is_refused(price: str) -> None:
    with pytest.raises(ValueError, match="price"):
        market_of(MAJOR, price=price)


# Behaviour


@pytest.mark.parametrize(
    ("character", "low", "high"),
    [(MAJOR, 2, 4), (LAUNCH, 1, 4), (MICRO, 1, 3), (DEAD, 1 / 300, 1 / 100)],
    ids=lambda value: value.name if isinstance(value, Character) else "",
)
def test_mean_rate_per_second(character: Character, low: float, high: float) -> None:
    assert low < len(hours_of(character, 3)) / (3 * 3600) < high


@pytest.mark.parametrize("character", [MAJOR, LAUNCH, MICRO], ids=lambda character: character.name)
def test_arrivals_cluster_within_a_phase(character: Character) -> None:
    # One endless phase, so that the clustering is the orders' own and not the change of phases. Orders that fill in
    # several prints alone come to a Fano factor of about 2 whatever the width: what grows with it is self-excitement.
    alone = msgspec.structs.replace(character.phases[0], seconds=1e6)
    steady = msgspec.structs.replace(character, phases=(alone,))
    tape = tape_of(market_of(steady), HOUR_US)
    assert fano_of(tape, 1) > 2.5
    assert fano_of(tape, 10) > 5


def test_launch_pumps_and_rugs() -> None:
    tape = hours_of(LAUNCH, 3)
    closes = {(trade.time_us - START_US) // SECOND_US: float(trade.price) for trade in tape}
    price, line = LAUNCH.price, []
    for second in range(3 * 3600):
        price = closes.get(second, price)
        line.append(price)
    assert max(line) / min(line[: line.index(max(line)) + 1]) > 10
    assert min(later / price for price, later in zip(line, line[15:], strict=False)) < 0.15
    # and begins again: a second pump follows the first rug
    rug = next(n for n in range(len(line) - 15) if line[n + 15] < 0.15 * line[n]) + 15
    trough = min(range(rug, len(line)), key=line.__getitem__)
    assert max(line[trough:]) > 5 * line[trough]


def test_launch_bursts_within_one_second() -> None:
    seconds = Counter(trade.time_us // SECOND_US for trade in hours_of(LAUNCH, 3))
    assert 40 <= max(seconds.values()) <= MAX_TRADES_PER_SECOND


@pytest.mark.parametrize("character", [MAJOR, LAUNCH, MICRO], ids=lambda character: character.name)
def test_trades_share_milliseconds_and_microseconds(character: Character) -> None:
    tape = hours_of(character, 3)
    same_us = sum(a.time_us == b.time_us for a, b in pairwise(tape))
    same_ms = sum(a.time_us // 1000 == b.time_us // 1000 for a, b in pairwise(tape))
    assert 0.001 * len(tape) < same_us < same_ms < 0.5 * len(tape)


@pytest.mark.parametrize("character", [MAJOR, LAUNCH, MICRO], ids=lambda character: character.name)
def test_order_flow_moves_the_price(character: Character) -> None:
    tape = hours_of(character, 3)
    flow: Counter[int] = Counter()
    close: dict[int, float] = {}
    for trade in tape:
        minute = trade.time_us // (60 * SECOND_US)
        flow[minute] += signed_volume(trade)  # type: ignore[assignment]
        close[minute] = float(trade.price)
    minutes = sorted(close)
    returns = [close[later] / close[earlier] - 1 for earlier, later in pairwise(minutes)]
    assert correlation([flow[minute] for minute in minutes[1:]], returns) > 0.5


@any_character
def test_sizes_have_heavy_tails(character: Character) -> None:
    amounts = sorted(float(trade.amount) for trade in hours_of(character, 24 if character is DEAD else 3))
    middle = amounts[len(amounts) // 2]
    assert amounts[-1] > 8 * middle
    assert amounts[0] < middle / 100


def test_dead_barely_moves() -> None:
    prices = [float(trade.price) for trade in hours_of(DEAD, 24)]
    assert max(prices) / min(prices) < 1.1


# MOCK_TOKENS


def test_tokens_are_read_in_order_and_canonical() -> None:
    assert parse_tokens(" wifhat-usdc = major,GRAVE-SOL=dead") == {"WIFHAT-USDC": MAJOR, "GRAVE-SOL": DEAD}
    assert list(parse_tokens("B=dead,A=micro,C=launch")) == ["B", "A", "C"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("A=major,", "empty item"),
        ("A=major,,B=dead", "empty item"),
        ("A", "is not SYMBOL=character"),
        ("A=whale", "unknown character 'whale', expected one of major, launch, dead, micro"),
        ("A=", "unknown character"),
        ("A=major=dead", "unknown character"),
        ("=major", "1 to 32"),
        ("A B=major", "1 to 32"),
        ("A=major,a=dead", "symbol 'A' is repeated"),
        (",".join(f"T{n}=dead" for n in range(MAX_TOKENS + 1)), "51 tokens, at most 50"),
    ],
)
def test_wrong_tokens_name_the_setting_and_the_rule(text: str, rule: str) -> None:
    with pytest.raises(InvalidSettings, match=re.escape(rule)) as caught:
        parse_tokens(text)
    assert caught.value.detail.startswith("MOCK_TOKENS: ")


def test_fifty_tokens_are_allowed() -> None:
    assert len(parse_tokens(",".join(f"T{n}=dead" for n in range(MAX_TOKENS)))) == MAX_TOKENS


def test_a_market_that_goes_on_does_not_repeat_how_it_began() -> None:
    begun = tape_of(market_of(MAJOR), HOUR_US // 60)
    gone_on = Market("MOONCAT-SOL", MAJOR, 1, START_US, 1 + len(begun), begun[-1].price)
    assert [trade.time_us for trade in tape_of(gone_on, HOUR_US // 60)][:5] != [trade.time_us for trade in begun][:5]
