"""`POST /api/v1/trades` in batches of 5,000 as NDJSON, against COPY of the same rows without bars and notifications.

Trades are of the last half hour, as live ones are. Ours is a running service that stores, folds all seven intervals,
keeps the tape and notifies its own listener; the yardstick only stores. Both commit each batch durably before the next
one of the same connection. Every sample begins with empty tables.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import comparison, copying
from bench.comparison import Outcome, Ratio, Sample, Side, ratio
from bench.load import cpu_seconds
from bench.stage import Service, Stage
from bench.trades import generated, pumps
from klines.models import Trade

TRADES, TOKENS, SECONDS = 250_000, 50, 1800
PUMP_TRADES = 100_000
BATCH = 5_000
HOUR_US = 3_600_000_000
IN_FLIGHT = (1, 2, 4)
FLOOR, GOAL = 0.40, 0.70
POSTS = Path(__file__).parent / "peers" / "posts.py"


class Market(NamedTuple):
    """The same trades as bodies in files and as rows."""

    name: str
    files: Sequence[Path]
    batches: Sequence[Sequence[copying.Row]]


class Arena(NamedTuple):
    """Both databases and the service on ours."""

    stage: Stage
    ours: str
    bare: str
    service: Service

    async def posted(self, told: Market, in_flight: int) -> Sample:
        """All bodies of a market, into empty tables."""
        return await posted(self.stage, self.ours, self.service, told, in_flight)

    async def copied(self, told: Market, connections: int) -> Sample:
        """All rows of a market, into an empty table."""
        await copying.emptied(self.bare)
        return await copying.copied(self.bare, told.batches, self.stage.postmaster, connections)


async def measure(stage: Stage) -> Outcome:
    """Trades per second of each way, and the ratios of ours to COPY on one connection."""
    async with _arena(stage) as (arena, markets):
        equal = []
        for one in markets:
            await arena.posted(one, IN_FLIGHT[1])
            await arena.copied(one, 1)
            equal.append(f"{one.name}: {await copying.equal_or_raise(arena.ours, arena.bare)}")
        generated_, *rest = markets
        sides: dict[str, Side] = {
            f"post, {many} in flight": partial(arena.posted, generated_, many) for many in IN_FLIGHT
        }
        sides |= {f"COPY, {many} connections": partial(arena.copied, generated_, many) for many in (1, 2)}
        for one in rest:
            sides[f"post of {one.name}, 2 in flight"] = partial(arena.posted, one, 2)
            sides[f"COPY of {one.name}, 1 connections"] = partial(arena.copied, one, 1)
        found = await comparison.rounds(sides, stage.size.runs)
    return Outcome(comparison.cases(found, "trade"), _ratios(found, [one.name for one in rest]), "; ".join(equal))


async def posted(stage: Stage, url: str, service: Service, told: Market, in_flight: int) -> Sample:
    """Post all bodies of a market to the service on the database at `url`, which is emptied before."""
    await copying.emptied(url)
    before = cpu_seconds(service.process), cpu_seconds(stage.postmaster)
    given = [str(POSTS), str(service.port), str(in_flight), *map(str, told.files)]
    process = await asyncio.create_subprocess_exec(sys.executable, *given, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the posts were not all stored")
    found = json.loads(output)
    cpu = {
        "service": cpu_seconds(service.process) - before[0],
        "postgres": cpu_seconds(stage.postmaster) - before[1],
        "client": found["cpu"],
    }
    return Sample(found["inserted"], found["seconds"], cpu)


def _ratios(found: comparison.Rounds, further: Sequence[str]) -> list[Ratio]:
    alone = "COPY, 1 connections"
    return [
        *(ratio(found, f"post, {many} in flight", alone, floor=FLOOR, goal=GOAL) for many in IN_FLIGHT),
        ratio(found, "post, 2 in flight", "COPY, 2 connections"),
        *(
            ratio(found, f"post of {name}, 2 in flight", f"COPY of {name}, 1 connections", floor=FLOOR, goal=GOAL)
            for name in further
        ),
    ]


@asynccontextmanager
async def _arena(stage: Stage) -> AsyncIterator[tuple[Arena, list[Market]]]:
    async with copying.databases(stage) as (ours, bare):
        tapes = dict(_tapes(stage))
        ids = await copying.registered(bare, {trade.symbol for trades in tapes.values() for trade in trades})
        markets = [market(stage.folder / name, trades, ids) for name, trades in tapes.items()]
        with stage.serving(ours) as service:
            yield Arena(stage, ours, bare, service), markets


def _tapes(stage: Stage) -> Iterator[tuple[str, list[Trade]]]:
    """Trades by the name of their market; all of them end now."""
    count, seconds = stage.size.of(TRADES), stage.size.of(SECONDS)
    yield "generated", _until_now(generated(count, TOKENS, seconds))
    if some := _busiest_hour(list(pumps())):
        yield "pumps", _until_now(some[: stage.size.of(PUMP_TRADES)])


def _busiest_hour(trades: Sequence[Trade]) -> list[Trade]:
    hours = Counter(trade.time_us // HOUR_US for trade in trades)
    return [trade for trade in trades if trade.time_us // HOUR_US == max(hours, key=hours.__getitem__)]


def _until_now(trades: Iterator[Trade] | Sequence[Trade]) -> list[Trade]:
    kept = list(trades)
    shift = time.time_ns() // 1_000_000_000 * 1_000_000 - 60_000_000 - max(trade.time_us for trade in kept)
    return [trade._replace(time_us=trade.time_us + shift) for trade in kept]


def market(folder: Path, trades: Sequence[Trade], ids: dict[str, int], size: int = BATCH) -> Market:
    """Trades in batches: as files in a new folder, and as rows."""
    folder.mkdir()
    batches = list(copying.batched(trades, size))
    files = [folder / f"{number:04}.ndjson" for number in range(len(batches))]
    for file, batch in zip(files, batches, strict=True):
        file.write_text("".join(map(_line, batch)))
    return Market(folder.name, files, [copying.rows_of(batch, ids) for batch in batches])


def _line(trade: Trade) -> str:
    return (
        f'{{"symbol":"{trade.symbol}","trade_id":{trade.trade_id},"time_us":{trade.time_us},"price":"{trade.price}",'
        f'"amount":"{trade.amount}","side":"{trade.side}"}}\n'
    )
