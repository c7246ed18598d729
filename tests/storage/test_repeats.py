"""Batches that repeat stored trades: counted exactly, and looked out for once they come."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from klines.models import Receipt, Trade
from klines.writer import TradeWriter
from tests.storage.bars import assert_bars

START_S = 1_700_000_000
# A sequence is not rolled back, so it counts the attempts.
COUNT_ATTEMPTS = """
    CREATE SEQUENCE attempts;
    CREATE FUNCTION attempt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM nextval('public.attempts'); RETURN NULL; END $$;
    CREATE TRIGGER attempt BEFORE INSERT ON trades FOR EACH STATEMENT EXECUTE FUNCTION attempt();
"""


def batch(first: int, last: int, price: str = "2") -> list[Trade]:
    return [Trade("PEPE", number, (START_S + number) * 1_000_000, price, "3", "buy") for number in range(first, last)]


async def test_only_the_first_of_many_repetitions_is_tried_twice(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await connection.execute(COUNT_ATTEMPTS)
    attempts = []
    for first in range(0, 60, 10):
        # Each batch after the first one begins with half of the one before.
        receipt = await writer.write(batch(max(0, first - 5), first + 10))
        assert receipt == (Receipt(15, 10, 5, 0) if first else Receipt(10, 10, 0, 0))
        attempts.append(await connection.fetchval("SELECT last_value FROM attempts"))
    assert attempts == [1, 3, 4, 5, 6, 7]
    await assert_bars(connection, "PEPE", batch(0, 60))


async def test_writers_of_one_batch_store_it_once(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    for first in range(0, 100, 20):
        ours, theirs = batch(first, first + 20), batch(first + 10, first + 30)
        receipts = await asyncio.gather(
            *(TradeWriter(writer._pool, register=True).write(one) for one in (ours, theirs))
        )
        # The first ten of all but the first pair are those that the pair before has stored last.
        assert sum(receipt.inserted for receipt in receipts) == (20 if first else 30)
        assert sum(receipt.conflicts for receipt in receipts) == 0
    await assert_bars(connection, "PEPE", batch(0, 110))


async def test_within_one_batch_the_first_stays(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    both = batch(0, 5) + batch(3, 8, price="7")
    assert await writer.write(both) == Receipt(10, 8, 0, 2)
    await assert_bars(connection, "PEPE", batch(0, 5) + batch(5, 8, price="7"))
