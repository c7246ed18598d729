"""`klines import` of a CSV file of a million old trades, against one COPY of the same rows without triggers.

Ours is the whole command, from its start to its end: it reads and checks the file, then stores it in slices, with the
bars of all seven intervals, the tape and notifications. The yardstick has its rows as Python values and commits once; a
second one commits as often as ours.
"""

from __future__ import annotations

import asyncio
import csv
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from bench import comparison, copying
from bench.comparison import Outcome, Sample, Side, ratio
from bench.load import cpu_seconds
from bench.stage import Stage
from bench.trades import generated, symbols
from klines import settings
from klines.importer.staging import SLICE_ROWS
from klines.models import Trade

TRADES, TOKENS, SECONDS = 1_000_000, 50, 7200
FLOOR, GOAL = 0.55, 0.85


class History(NamedTuple):
    """Old trades: a CSV file of them, their rows, and the ids of their tokens."""

    trades: Sequence[Trade]
    ids: dict[str, int]
    file: Path
    rows: Sequence[copying.Row]


async def measure(stage: Stage) -> Outcome:
    """Trades per second of both, and their ratio."""
    async with copying.databases(stage) as (ours, bare):
        told = await history(stage, ours, bare)
        sides: dict[str, Side] = {
            "klines import": partial(imported, stage, ours, told),
            "COPY": partial(_copied, stage, bare, [told.rows]),
            "COPY by 20,000": partial(_copied, stage, bare, list(copying.batched(told.rows, SLICE_ROWS))),
        }
        for side in sides.values():
            await side()
        equal = await copying.equal_or_raise(ours, bare)
        found = await comparison.rounds(sides, stage.size.runs, warm=0)
    return Outcome(
        comparison.cases(found, "trade"),
        [
            ratio(found, "klines import", "COPY", floor=FLOOR, goal=GOAL),
            ratio(found, "klines import", "COPY by 20,000"),
        ],
        equal,
    )


async def history(stage: Stage, *urls: str) -> History:
    """The trades, whose tokens are registered in all the databases, with equal ids."""
    trades = list(generated(stage.size.of(TRADES), TOKENS, stage.size.of(SECONDS)))
    ids: dict[str, int] = {}
    for url in urls:
        ids = await copying.registered(url, symbols(TOKENS))
    file = stage.folder / "history.csv"
    _write(file, trades)
    return History(trades, ids, file, copying.rows_of(trades, ids))


async def imported(stage: Stage, url: str, told: History) -> Sample:
    """Run the command on an empty database."""
    await copying.emptied(url)
    environment = {name: value for name, value in os.environ.items() if name not in settings.variables()}
    before, used = cpu_seconds(stage.postmaster), _ended_children()
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "klines", "import", str(told.file)),
        env=environment | {"DATABASE_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise RuntimeError("the import failed")
    seconds = time.monotonic() - began
    cpu = {"klines import": _ended_children() - used, "postgres": cpu_seconds(stage.postmaster) - before}
    return Sample(len(told.rows), seconds, cpu)


async def _copied(stage: Stage, url: str, batches: Sequence[Sequence[copying.Row]]) -> Sample:
    await copying.emptied(url)
    return await copying.copied(url, batches, stage.postmaster)


def _write(file: Path, trades: Sequence[Trade]) -> None:
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(Trade._fields)
        writer.writerows(trades)


def _ended_children() -> float:
    used = psutil.Process().cpu_times()
    return used.children_user + used.children_system
