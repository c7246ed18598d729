"""Writing, measured: every batch, whoever brings it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from klines import tracing
from klines.errors import InvalidItems, Unavailable
from klines.metrics.instruments import Instruments
from klines.models import Receipt, Trade, TradeColumns, columns_of
from klines.writer import TradeWriter


class MeasuredWriter(TradeWriter):
    """A `TradeWriter` that counts what it stores; `of_writer` goes to it as it is."""

    def __init__(self, *of_writer: Any, instruments: Instruments, **by_name: Any) -> None:
        super().__init__(*of_writer, **by_name)
        self._instruments = instruments
        self._full_at = self._refused_at = -float("inf")

    def full_within(self, seconds: float) -> bool:
        """Whether the last batch found no room on the database's disk, so many seconds ago at the most."""
        return time.monotonic() - self._full_at < seconds

    def refused_within(self, seconds: float) -> bool:
        """Whether the last batch was refused by a database that answers, so many seconds ago at the most."""
        return time.monotonic() - self._refused_at < seconds

    async def write(self, trades: TradeColumns | Sequence[Trade]) -> Receipt:
        """As `TradeWriter.write`."""
        counted, batch = self._instruments, columns_of(trades)
        counted.received.inc(len(batch))
        began = time.perf_counter()
        # A batch that is given up may be stored all the same.
        outcome = "unknown"
        with counted.writing.track_inprogress(), tracing.span("ingest", trades=len(batch)):
            try:
                receipt = await super().write(batch)
                outcome = "stored"
                self._full_at = self._refused_at = -float("inf")
            except InvalidItems:
                outcome = "refused"
                raise
            except Unavailable as error:
                outcome = "unavailable"
                if error.code == "database_full":
                    self._full_at = time.monotonic()
                elif error.code == "database_busy":
                    self._refused_at = time.monotonic()
                raise
            finally:
                counted.batches.labels(outcome).inc()
                counted.ingest.observe(time.perf_counter() - began)
        self._count(batch, receipt)
        return receipt

    def _count(self, batch: TradeColumns, receipt: Receipt) -> None:
        outcomes = self._instruments.trades
        outcomes.labels("inserted").inc(receipt.inserted)
        outcomes.labels("duplicate").inc(receipt.duplicates)
        outcomes.labels("conflict").inc(receipt.conflicts)
        if receipt.inserted:
            newest = max(batch.times_us)
            self._instruments.stored_lag.observe(max(0.0, time.time() - newest / 1e6))
