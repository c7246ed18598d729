"""A simulated market for one token: pure arithmetic, no I/O, no clock of its own.

Orders arrive as a self-exciting (Hawkes) process with an exponential kernel, so they cluster; an order may fill in
several prints microseconds apart. Each fill trades against a constant-product pool, so flow moves the price. The side
leans towards a wandering fair value, which is the arbitrage that keeps the price in its range.

Promises: the same seed, symbol, character, start, first id and price give the same tape, however time is sliced into
steps. At most `MAX_TRADES_PER_SECOND` trades fall into one second of the epoch: what comes after them waits for the
next second. A step of up to 80 s therefore never reaches `MAX_TRADES_PER_STEP`. A longer one may stop there; the next
call goes on where it stopped, and nothing is lost.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import deque

from klines.errors import echo
from klines.feeds.character import CHARACTERS, Character, Phase, parse_tokens
from klines.models import Side, Trade

__all__ = ["CHARACTERS", "MAX_TRADES_PER_SECOND", "MAX_TRADES_PER_STEP", "Character", "Market", "parse_tokens"]

MAX_TRADES_PER_SECOND = 60
MAX_TRADES_PER_STEP = 5_000
MAX_FILLS = 8
SECOND_US = 1_000_000

WHALE_TAIL = 1.3
SAME_INSTANT = 0.1
MEAN_FILL_GAP_US = 120
ROUND_ORDERS = 0.12

PRICE_DIGITS = 9
PRICE_DECIMALS = 24
LOWEST_CENTRE, HIGHEST_CENTRE = 1e-18, 1e6
STEEPEST_ODDS = 30.0


class Pool:
    """A constant-product pool: `quote * base` stays, `price` is their ratio."""

    def __init__(self, centre: float, depth: float, price: float) -> None:
        self.quote = depth * math.sqrt(price / centre)
        self.base = self.quote / price

    @property
    def price(self) -> float:
        return self.quote / self.base

    def trade(self, side: Side, amount: float) -> float:
        """Take or give `amount` base; returns the mean price paid. `amount` is below the base side of the pool."""
        before, invariant = self.quote, self.quote * self.base
        self.base += -amount if side == "buy" else amount
        self.quote = invariant / self.base
        return abs(self.quote - before) / amount


class Market:
    """One token's tape, made as it is asked for.

    `start_us` is epoch microseconds, `price` the last stored price, where a restarted feed goes on. A price outside
    the character's range becomes the middle of a new range. Raises `ValueError` for a price that is not positive.
    """

    def __init__(
        self,
        symbol: str,
        character: Character,
        seed: int,
        start_us: int,
        next_trade_id: int,
        price: str | None = None,
    ) -> None:
        self.symbol = symbol
        self.character = character
        self._random = _random_of(seed, symbol, next_trade_id)
        self._next_id = next_trade_id
        self._waiting: deque[Trade] = deque()
        first = character.price if price is None else _positive(price)
        self._centre = _centre(character, first)
        first = max(self._centre / character.span, min(self._centre * character.span, first))
        self._decimals = 9 if self._centre >= 1 else 6
        self._pool = Pool(self._centre, character.depth, first)
        self._now_us = start_us
        self._trades_in_second = 0
        self._mean_fills = (1 - character.split**MAX_FILLS) / (1 - character.split)
        self._excitement = 0.0
        self._lean = 0.0
        self._wander = 0.0
        self._phase_index = -1
        self._phase_end_us = start_us
        self._aim = math.log(first / self._centre)
        self._enter_next_phase()

    def step(self, until_us: int) -> list[Trade]:
        """The trades not yet told with `time_us < until_us`, ascending by `(time_us, trade_id)`, ids consecutive.

        At most `MAX_TRADES_PER_STEP`; exactly that many means: call again with the same `until_us`.
        """
        trades: list[Trade] = []
        while len(trades) < MAX_TRADES_PER_STEP:
            if not self._waiting:
                self._place_order()
            if self._waiting[0].time_us >= until_us:
                break
            trades.append(self._waiting.popleft())
        return trades

    @property
    def phase(self) -> Phase:
        """The phase in which the newest order was made, which may lie after the last step."""
        return self.character.phases[self._phase_index]

    def _place_order(self) -> None:
        before_us = self._now_us
        self._wait_for_order()
        self._drift((self._now_us - before_us) / SECOND_US)
        side = self._choose_side()
        left = self._choose_amount()
        fills = 1
        while fills < MAX_FILLS and self._random.random() < self.character.split:
            fills += 1
        for remaining in range(fills, 0, -1):
            part = left if remaining == 1 else left * self._random.uniform(0.5, 1.5) / remaining
            left -= part
            self._fill(side, part)
            if remaining > 1 and self._random.random() >= SAME_INSTANT:
                self._advance(math.ceil(self._random.expovariate(1 / MEAN_FILL_GAP_US)))

    def _wait_for_order(self) -> None:
        # Ogata's thinning: between orders the intensity only falls, so its present value bounds it. A phase's end
        # interrupts the wait, which is sound because the exponential has no memory.
        draw = self._random
        while True:
            background = self.phase.rate / self._mean_fills * (1 - self.character.excitation)
            bound = background + self._excitement
            gap_us = int(draw.expovariate(bound) * SECOND_US)
            if self._now_us + gap_us >= self._phase_end_us:
                self._relax(self._phase_end_us - self._now_us)
                self._enter_next_phase()
                continue
            self._relax(gap_us)
            if draw.random() * bound <= background + self._excitement:
                self._excitement += self.character.excitation * self.character.decay
                return

    def _relax(self, gap_us: int) -> None:
        if gap_us > 0:
            self._excitement *= math.exp(-self.character.decay * gap_us / SECOND_US)
            self._advance(gap_us)

    def _advance(self, gap_us: int) -> None:
        if (self._now_us + gap_us) // SECOND_US != self._now_us // SECOND_US:
            self._trades_in_second = 0
        self._now_us += gap_us

    def _enter_next_phase(self) -> None:
        draw, phases = self._random, self.character.phases
        self._phase_index = (self._phase_index + 1) % len(phases)
        phase = self.phase
        length_us = int(phase.seconds * draw.uniform(0.5, 1.5) * SECOND_US)
        self._phase_start_us = self._phase_end_us
        self._phase_end_us += length_us
        self._glide_us = max(1.0, length_us * phase.glide)
        self._glide_from = self._aim
        low, high = phase.aim
        self._aim = draw.uniform(math.log(low), math.log(high)) + (self._glide_from if phase.relative else 0.0)
        # Without this a short, violent phase would be half over before its own excitement had built up.
        settled = phase.rate / self._mean_fills * self.character.excitation
        self._excitement = max(self._excitement, settled)

    def _drift(self, seconds: float) -> None:
        kept = math.exp(-seconds / self.character.wander_seconds)
        spread = self.character.wander * math.sqrt(1 - kept * kept)
        self._wander = self._wander * kept + spread * self._random.gauss(0, 1)

    def _choose_side(self) -> Side:
        price, span = self._pool.price / self._centre, self.character.span
        progress = min(1.0, (self._now_us - self._phase_start_us) / self._glide_us)
        fair = self._glide_from + (self._aim - self._glide_from) * progress + self._wander
        odds = self.character.pull * (fair - math.log(price)) + self._lean
        odds = max(-STEEPEST_ODDS, min(STEEPEST_ODDS, odds))
        buys = self._random.random() * (1 + math.exp(-odds)) < 1
        if not 1 / span < price < span:
            buys = price < 1
        self._lean = self.character.herding if buys else -self.character.herding
        return "buy" if buys else "sell"

    def _choose_amount(self) -> float:
        draw, character = self._random, self.character
        kind = draw.random()
        value = character.size * self.phase.size
        if kind < character.whales:
            value *= character.whale_size * draw.paretovariate(WHALE_TAIL)
        else:
            value *= math.exp(character.size_sigma * draw.gauss(0, 1))
            value *= 0.001 if kind > 1 - character.dust else 1.0
        amount = min(value, character.max_share * self._pool.quote) / self._pool.price
        # People type round numbers.
        return float(f"{amount:.1g}") if draw.random() < ROUND_ORDERS else amount

    def _fill(self, side: Side, amount: float) -> None:
        if self._trades_in_second >= MAX_TRADES_PER_SECOND:
            self._relax(SECOND_US - self._now_us % SECOND_US)
        self._trades_in_second += 1
        traded = _fixed(max(amount, 10.0**-self._decimals), self._decimals)
        price = self._pool.trade(side, float(traded)) * math.exp(self.character.noise * self._random.gauss(0, 1))
        self._waiting.append(Trade(self.symbol, self._next_id, self._now_us, _price_text(price), traded, side))
        self._next_id += 1


def _random_of(seed: int, symbol: str, next_trade_id: int) -> random.Random:
    # A market that goes on must not repeat how it began.
    place = f":{next_trade_id}" if next_trade_id > 1 else ""
    digest = hashlib.sha256(f"{seed}:{symbol}{place}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))  # noqa: S311 - a simulation, not a secret


def _positive(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price > 0):
        raise ValueError(f"price {echo(text)}: must be a positive decimal")
    return price


def _centre(character: Character, price: float) -> float:
    if character.price / character.span <= price <= character.price * character.span:
        return character.price
    return max(LOWEST_CENTRE, min(HIGHEST_CENTRE, price))


def _price_text(price: float) -> str:
    decimals = PRICE_DIGITS - 1 - math.floor(math.log10(price))
    return _fixed(price, max(0, min(PRICE_DECIMALS, decimals)))


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
