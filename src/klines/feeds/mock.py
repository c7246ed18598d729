"""The mock feed: writes the simulated market to the database, from one process however many run.

A lock in the database decides which; when its holder goes, another takes over where the stored trades end. A token
without trades gets some history first, so that a chart has something to show.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from klines.database import reading
from klines.feeds.market import Market, parse_tokens
from klines.models import Trade
from klines.queries.feeds import last_trades
from klines.settings import Settings
from klines.sole import Holder, Sole, kept_running
from klines.writer import TradeWriter

HISTORY_STEP_US = 60_000_000


def run_mock_feed(settings: Settings, engine: AsyncEngine, writer: TradeWriter) -> AbstractAsyncContextManager[None]:
    """Keep the feed running while the context is open."""
    return kept_running(settings.database_url, Sole.MOCK_FEED, partial(_feed, settings, engine, writer))


async def _feed(settings: Settings, engine: AsyncEngine, writer: TradeWriter, holder: Holder) -> None:
    markets = await _open_markets(settings, engine)
    await _write_history(markets, writer)
    interval = settings.mock_data_interval / 1000
    tick = time.monotonic()
    while holder.holds:
        now_us = time.time_ns() // 1000
        await writer.write([trade for market, _ in markets for trade in market.step(now_us)])
        tick = max(tick + interval, time.monotonic())
        await asyncio.sleep(tick - time.monotonic())


async def _open_markets(settings: Settings, engine: AsyncEngine) -> list[tuple[Market, int]]:
    characters = parse_tokens(settings.mock_tokens)
    async with reading(engine) as connection:
        last = await last_trades(connection, characters)
    earliest = time.time_ns() // 1000 - settings.mock_history_minutes * 60_000_000
    markets = []
    for symbol, character in characters.items():
        before = last.get(symbol)
        start = max(earliest, before.time_us + 1) if before else earliest
        next_id = before.trade_id + 1 if before else 1
        price = before.price if before else None
        markets.append((Market(symbol, character, settings.mock_seed, start, next_id, price), start))
    return markets


async def _write_history(markets: list[tuple[Market, int]], writer: TradeWriter) -> None:
    at = min(start for _, start in markets)
    while at < (now_us := time.time_ns() // 1000):
        at = min(at + HISTORY_STEP_US, now_us)
        batch: list[Trade] = [trade for market, start in markets if start < at for trade in market.step(at)]
        await writer.write(batch)
