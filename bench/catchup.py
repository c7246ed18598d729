"""A million old trades until the bars of all seven intervals are final, against COPY and one fold from scratch.

Ours are `klines import` as it is, and posts to a running service, after which every bar is complete. The yardstick
copies the rows without triggers and then makes the bars: in the Timescale profile by refreshing the seven continuous
aggregates, finest first, in the plain one by one INSERT … SELECT per interval from the raw trades. It begins with a
fresh database each time.
"""

from __future__ import annotations

import time
from functools import partial

import asyncpg

from bench import comparison, copying, importing, ingest
from bench.comparison import Outcome, Sample, Side, ratio
from bench.importing import History
from bench.load import cpu_seconds
from bench.stage import Stage
from bench.trades import symbols

FLOOR, GOAL = 1.0, 0.5
POST_ROWS, IN_FLIGHT = 20_000, 4
OURS, THEIRS = ("klines import", "post, 4 in flight"), "COPY, then fold"
REFRESH = """
    CALL public.refresh_continuous_aggregate('{aggregate}', NULL, NULL, options => '{{"buckets_per_batch": 3600}}')
"""
# As `fold_of_trades_v1`, for all tokens at once.
FOLD = """
    INSERT INTO klines_internal.live_klines
    SELECT token_id, {seconds}, klines_internal.open_time({seconds}, time),
           (array_agg(price ORDER BY time, trade_id))[1], max(price), min(price),
           (array_agg(price ORDER BY time, trade_id))[count(*)],
           sum(amount), sum(price * amount), count(*),
           coalesce(sum(amount) FILTER (WHERE side = 'buy'), 0),
           coalesce(sum(price * amount) FILTER (WHERE side = 'buy'), 0),
           (array_agg(trade_id ORDER BY time, trade_id))[1],
           (array_agg(trade_id ORDER BY time, trade_id))[count(*)],
           min(time), max(time)
    FROM public.trades GROUP BY 1, 3
"""
AGGREGATES = "SELECT aggregate, seconds FROM klines_internal.levels ORDER BY seconds"


async def measure(stage: Stage) -> Outcome:
    """Seconds per trade of each, and the ratios of ours to the yardstick."""
    async with stage.database("ours") as ours:
        await copying.executed(ours, *copying.quiet(stage))
        told = await importing.history(stage, ours)
        market = ingest.market(stage.folder / "history", told.trades, told.ids, POST_ROWS)

        async def theirs() -> Sample:
            async with stage.database("bare") as bare:
                sample = await _refolded(stage, bare, told)
                if len(equal) < len(OURS):
                    equal.append(await copying.equal_or_raise(ours, bare, copying.MADE))
            return sample

        with stage.serving(ours) as service:
            sides: dict[str, Side] = {
                OURS[0]: partial(importing.imported, stage, ours, told),
                OURS[1]: partial(ingest.posted, stage, ours, service, market, IN_FLIGHT),
                THEIRS: theirs,
            }
            equal: list[str] = []
            for name in OURS:
                await sides[name]()
                await theirs()
            found = await comparison.rounds(sides, stage.size.runs, warm=0)
    ratios = [ratio(found, name, THEIRS, floor=FLOOR, goal=GOAL, more=False) for name in OURS]
    return Outcome(comparison.cases(found, "trade"), ratios, equal[-1])


async def _refolded(stage: Stage, url: str, told: History) -> Sample:
    await copying.executed(url, *copying.quiet(stage), copying.BARE)
    await copying.registered(url, symbols(importing.TOKENS))
    await copying.executed(url, "CHECKPOINT")
    copy = await copying.copied(url, [told.rows], stage.postmaster)
    before, began = cpu_seconds(stage.postmaster), time.monotonic()
    connection = await asyncpg.connect(url)
    try:
        for aggregate, seconds in await connection.fetch(AGGREGATES):
            refresh = FOLD if aggregate is None else REFRESH
            await connection.execute(refresh.format(aggregate=aggregate, seconds=seconds))
    finally:
        await connection.close()
    cpu = dict(copy.cpu)
    cpu["postgres"] += cpu_seconds(stage.postmaster) - before
    return Sample(copy.units, copy.seconds + time.monotonic() - began, cpu)
