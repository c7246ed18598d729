"""Cost as it grows: trades, tokens and sockets, each beside the smallest number of them.

Markets of all sizes stand side by side and are asked in turns. A read is flat when its ratio stays near 1; a write is
when a trade costs no more in a large market than in a small one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from bench.comparison import Figures, Outcome, Ratio, Sample, rounds, spread
from bench.growth.market import Market, market
from bench.growth.requests import Requests
from bench.growth.sockets import by_sockets
from bench.stage import Stage

TRADES = (10**5, 10**6, 10**7)
TOKENS = (10, 100, 1000)
TOKENS_OF_EACH, TRADES_OF_EACH = 100, 10**6

Sides = dict[tuple[str, int], Callable[[], Awaitable[Sample]]]


async def measure(stage: Stage) -> Outcome:
    """The cases of the three axes, each with its `ratio` to the smallest number; the ratios of the largest."""
    cases = await by_trades(stage) + await by_tokens(stage) + await by_sockets(stage)
    ratios = [
        Ratio(f"{case['series']}, {case['at']:,} / {case['least']:,} {case['axis']}", case["ratios"], more=False)
        for case in cases
        if case["at"] == max(one["at"] for one in cases if one["axis"] == case["axis"])
    ]
    told = [{name: value for name, value in case.items() if name not in {"ratios", "least"}} for case in cases]
    return Outcome(told, ratios, "all bars of two tokens of every market are what their trades make")


async def by_trades(stage: Stage) -> list[Figures]:
    """The same tokens and days, with ever more trades."""
    async with AsyncExitStack() as stack:
        markets = {}
        for trades in map(stage.size.of, TRADES):
            made = market(stage, f"trades_{trades}", trades, TOKENS_OF_EACH)
            markets[trades] = await stack.enter_async_context(made)
        return await _asked(stage, "trades", markets)


async def by_tokens(stage: Stage) -> list[Figures]:
    """The same number of trades, of ever more tokens."""
    async with AsyncExitStack() as stack:
        markets = {}
        for tokens in TOKENS:
            made = market(stage, f"tokens_{tokens}", stage.size.of(TRADES_OF_EACH), tokens)
            markets[tokens] = await stack.enter_async_context(made)
        return await _asked(stage, "tokens", markets)


async def _asked(stage: Stage, axis: str, markets: dict[int, Market]) -> list[Figures]:
    sides: Sides = {}
    for at, one in markets.items():
        requests = Requests(one, stage.postmaster)
        for series, (ask, times) in requests.asks().items():

            async def side(requests: Requests = requests, ask: Callable[[], None] = ask, times: int = times) -> Sample:
                return requests.sample(ask, times)

            sides[series, at] = side
    found = await rounds({f"{series}|{at}": side for (series, at), side in sides.items()}, stage.size.runs)
    samples = {key: found[f"{key[0]}|{key[1]}"] for key in sides}
    least = min(markets)
    rows = [_case(axis, series, at, least, samples) for series, at in samples]
    return rows + [_filling(axis, at, markets) for at in markets]


def _case(axis: str, series: str, at: int, least: int, samples: dict[tuple[str, int], list[Sample]]) -> Figures:
    mine = samples[series, at]
    ratios = [one.seconds / other.seconds for one, other in zip(mine, samples[series, least], strict=True)]
    return {
        "case": f"{series}, {at:,} {axis}",
        "series": series,
        "axis": axis,
        "at": at,
        "least": least,
        "p50_ms": spread([one.seconds / one.units * 1e3 for one in mine])["median"],
        "cpu_ms": {
            whose: spread([one.cpu[whose] / one.units * 1e3 for one in mine])["median"] for whose in mine[0].cpu
        },
        "ratio": spread(ratios)["median"],
        "ratios": ratios,
    }


def _filling(axis: str, at: int, markets: dict[int, Market]) -> Figures:
    took, least = markets[at].fill_us, min(markets)
    ratios = [took / markets[least].fill_us]
    return {
        "case": f"COPY of a trade, {at:,} {axis}",
        "series": "COPY of a trade",
        "axis": axis,
        "at": at,
        "least": least,
        "us_per_trade": spread([took])["median"],
        "ratio": spread(ratios)["median"],
        "ratios": ratios,
    }
