"""The answers to the recipes of docs/sql.md, computed from the trades in Decimal, without SQL.

Each function is named by its recipe's heading and gives rows in the recipe's order. Times are epoch microseconds,
spans microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from itertools import pairwise
from statistics import correlation

from tests import oracle
from tests.analyst.market import DAY, HOUR, MINUTE, MOONCAT, SUPPLY, WIFHAT, Market

Rows = list[tuple[object, ...]]
DIGITS = 60
MONDAY = 4 * DAY

ANSWERS: dict[str, Callable[[Market, int], Rows]] = {}


def answer(heading: str) -> Callable[[Callable[[Market, int], Rows]], Callable[[Market, int], Rows]]:
    """Registers what a recipe must answer for a market and a `now`."""

    def register(compute: Callable[[Market, int], Rows]) -> Callable[[Market, int], Rows]:
        def exact(market: Market, now: int) -> Rows:
            with localcontext(prec=DIGITS):
                return compute(market, now)

        ANSWERS[heading] = exact
        return compute

    return register


def mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


def log_returns(closes: Sequence[Decimal]) -> list[Decimal]:
    return [(later / earlier).ln() for earlier, later in pairwise(closes)]


@answer("Volume-weighted average price, per bar")
def vwap(market: Market, now: int) -> Rows:
    return [(at, bar.quote_volume / bar.volume) for at, bar in market.bars(MOONCAT, "1h", now - DAY)]


@answer("Volume-weighted average price, rolling")
def rolling_vwap(market: Market, now: int) -> Rows:
    rows: Rows = []
    bars = market.bars(MOONCAT, "1m", now - 4 * HOUR)
    for at, _ in bars:
        inside = [bar for begun, bar in bars if at - 59 * MINUTE <= begun <= at]
        quote = sum((bar.quote_volume for bar in inside), Decimal(0))
        if at >= now - 3 * HOUR:
            rows.append((at, quote / sum((bar.volume for bar in inside), Decimal(0))))
    return rows


@answer("Top movers")
def movers(market: Market, now: int) -> Rows:
    found = []
    for symbol in market.trades:
        last, *before = (market.price_at(symbol, at) for at in (now, now - HOUR, now - DAY))
        if last is not None:
            found.append((symbol, last, *(round(100 * (last - one) / one, 2) if one else None for one in before)))
    return sorted(found, key=rank)


def rank(row: tuple[object, ...]) -> tuple[bool, Decimal, str]:
    """The largest change first, then those without one."""
    change = row[2]
    return (change is None, -change if isinstance(change, Decimal) else Decimal(0), str(row[0]))


@answer("The latest bar of every token")
def latest(market: Market, now: int) -> Rows:
    found = [(symbol, market.bars(symbol, "1m", 0)[-1]) for symbol in sorted(market.trades)]
    return [(symbol, at, bar.open, bar.high, bar.low, bar.close, bar.volume) for symbol, (at, bar) in found]


@answer("Market capitalisation candles")
def capitalisation(market: Market, now: int) -> Rows:
    bars = market.bars(MOONCAT, "1h", now - DAY)
    return [(at, *(price * SUPPLY for price in (bar.open, bar.high, bar.low, bar.close))) for at, bar in bars]


@answer("Largest trades")
def largest(market: Market, now: int) -> Rows:
    day = [(one, Decimal(one.price), Decimal(one.amount)) for one in market.since(MOONCAT, now - DAY)]
    day.sort(key=lambda row: (-row[1] * row[2], row[0].time_us, row[0].trade_id))
    return [(one.time_us, one.trade_id, one.side, price, amount, price * amount) for one, price, amount in day[:10]]


@answer("Volume profile")
def profile(market: Market, now: int) -> Rows:
    day = market.since(MOONCAT, now - DAY)
    prices = [Decimal(one.price) for one in day]
    low, step = min(prices), (max(prices) - min(prices)) / 10
    rows: Rows = []
    for level in range(1, 11):
        ends = low + step * (level - 1), low + step * level
        inside = [
            one
            for one, price in zip(day, prices, strict=True)
            if ends[0] <= price < ends[1] or (level == 10 and price == max(prices))
        ]
        bought = [Decimal(one.amount) for one in inside if one.side == "buy"]
        if inside:
            volume = sum((Decimal(one.amount) for one in inside), Decimal(0))
            rows.append((level, *ends, volume, sum(bought, Decimal(0))))
    return rows


@answer("Buy pressure")
def pressure(market: Market, now: int) -> Rows:
    rows: Rows = []
    total = Decimal(0)
    for at, bar in market.bars(MOONCAT, "15m", now - DAY):
        sold = bar.volume - bar.buy_volume
        total += bar.buy_volume - sold
        rows.append((at, bar.buy_volume / bar.volume, bar.buy_volume - sold, total))
    return rows


@answer("Realised volatility")
def realised(market: Market, now: int) -> Rows:
    bars = market.bars(MOONCAT, "1m", now - DAY)
    squares: dict[int, list[Decimal]] = {}
    returns = log_returns([bar.close for _, bar in bars])
    for (at, _), one in zip(bars[1:], returns, strict=True):
        squares.setdefault(at // HOUR * HOUR, []).append(one * one)
    return [(hour, sum(found, Decimal(0)).sqrt(), len(found)) for hour, found in squares.items()]


@answer("Parkinson volatility")
def parkinson(market: Market, now: int) -> Rows:
    bars = [bar for _, bar in market.bars(MOONCAT, "1h", now - DAY)]
    logs = [(bar.high / bar.low).ln() ** 2 for bar in bars]
    return [((mean(logs) / (4 * Decimal(2).ln())).sqrt(), len(bars))]


@answer("Moving average and Bollinger bands")
def bollinger(market: Market, now: int) -> Rows:
    bars = market.bars(MOONCAT, "5m", now - DAY)
    rows: Rows = []
    for end in range(20, len(bars) + 1):
        closes = [bar.close for _, bar in bars[end - 20 : end]]
        average = mean(closes)
        deviation = mean([(close - average) ** 2 for close in closes]).sqrt()
        rows.append((bars[end - 1][0], closes[-1], average, average - 2 * deviation, average + 2 * deviation))
    return rows


@answer("Relative strength index")
def strength(market: Market, now: int) -> Rows:
    bars = market.bars(MOONCAT, "5m", now - DAY)
    rows: Rows = []
    for end in range(15, len(bars) + 1):
        closes = [bar.close for _, bar in bars[end - 15 : end]]
        changes = [later - earlier for earlier, later in pairwise(closes)]
        gains = sum((change for change in changes if change > 0), Decimal(0))
        losses = -sum((change for change in changes if change < 0), Decimal(0))
        # Wilder's 100 - 100 / (1 + RS), which has no value without a loss.
        index = 100 - 100 / (1 + gains / losses) if losses else Decimal(100 if gains else 50)
        rows.append((bars[end - 1][0], index))
    return rows


@answer("Correlation of two tokens")
def correlated(market: Market, now: int) -> Rows:
    sides = [dict(market.bars(symbol, "15m", now - DAY)) for symbol in (MOONCAT, WIFHAT)]
    both = sorted(sides[0].keys() & sides[1].keys())
    returns = [[float(one) for one in log_returns([side[at].close for at in both])] for side in sides]
    return [(correlation(*returns), len(returns[0]))]


@answer("The longest silences")
def silences(market: Market, now: int) -> Rows:
    times = [trade.time_us for trade in market.since(MOONCAT, now - DAY)]
    gaps = zip(times, [*times[1:], now], strict=True)
    return sorted(((at, after - at) for at, after in gaps), key=lambda row: (-row[1], row[0]))[:10]  # type: ignore[return-value]


@answer("Missing buckets")
def missing(market: Market, now: int) -> Rows:
    present = {at for at, _ in market.bars(MOONCAT, "1m", now - 4 * HOUR)}
    return [(at,) for at in range(min(present), max(present), MINUTE) if at not in present]


@answer("Gaps filled with the previous close")
def filled(market: Market, now: int) -> Rows:
    start = (now - 4 * HOUR) // MINUTE * MINUTE
    bars = dict(market.bars(MOONCAT, "1m", 0))
    close = bars[max(at for at in bars if at < start)].close
    rows: Rows = []
    for at in range(start, now + 1, MINUTE):
        bar = bars.get(at)
        close = bar.close if bar else close
        shown = (bar.open, bar.high, bar.low, close, bar.volume) if bar else (close, close, close, close, Decimal(0))
        rows.append((at, *shown))
    return rows


def resampled(market: Market, width: int, origin: int, since: int) -> list[tuple[int, oracle.Bar]]:
    """Bars of any width, made in one piece from the trades."""
    first = since - (since - origin) % width
    buckets: dict[int, list[tuple[int, oracle.Bar]]] = {}
    for at, bar in market.bars(MOONCAT, "1s", first):
        buckets.setdefault(at - (at - origin) % width, []).append((at, bar))
    return [(opened, whole([bar for _, bar in parts])) for opened, parts in buckets.items()]


def whole(parts: Sequence[oracle.Bar]) -> oracle.Bar:
    return parts[0]._replace(
        high=max(part.high for part in parts),
        low=min(part.low for part in parts),
        close=parts[-1].close,
        volume=sum((part.volume for part in parts), Decimal(0)),
        quote_volume=sum((part.quote_volume for part in parts), Decimal(0)),
        trades=sum(part.trades for part in parts),
    )


@answer("Ninety minutes")
def ninety_minutes(market: Market, now: int) -> Rows:
    return [(at, *bar[:7]) for at, bar in resampled(market, 90 * MINUTE, 0, now - DAY)]


@answer("Weeks")
def weeks(market: Market, now: int) -> Rows:
    return [(at, *bar[:5]) for at, bar in resampled(market, 7 * DAY, MONDAY, now - 56 * DAY)]
