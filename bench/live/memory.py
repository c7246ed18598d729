"""What a connection takes: idle ones, and ones that never read while their streams are flooded. Linux only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.comparison import Outcome
from bench.live.figures import Case, rounded
from bench.live.setting import BARS, SYMBOLS, TRADES, WARM, Market, market, seconds_of
from bench.live.wire import TINY
from bench.stage import Service, Stage

TOKENS = 50
PER_STREAM = 10
CALM_SECONDS, IDLE_SECONDS, FLOOD_SECONDS = 2, 12.0, 20.0
SAMPLE_SECONDS = 0.05
STUCK = 200
REPEATS = 10
# As many digits as an amount may have: long trades fill buffers soon.
LONG = "1." + "7" * 36
KIB, MIB = 2**10, 2**20
# States in /proc/net/tcp.
ESTABLISHED, TIME_WAIT, LISTEN = "01", "06", "0A"


class Watched(NamedTuple):
    """Greatest resident size and sum of send queues, in bytes; when service and kernel had let go of the last, in s."""

    rss: int = 0
    queued: int = 0
    closed: float | None = None
    gone: float | None = None


async def measure(stage: Stage) -> Outcome:
    """The idle clients, then floods of one token and of many, with clients that are stuck and with ones that read."""
    async with market(stage) as place:
        return Outcome([rounded(case) for case in await _cases(place)], [], "nothing to compare with")


async def _cases(place: Market) -> list[Case]:
    cases, count = [await _idle(place)], place.stage.size.of(STUCK)
    for name, places in (("one token", [1] * count), (f"{count} tokens", list(range(count)))):
        for stuck in (True, False):
            case = f"{'stuck' if stuck else 'reading'}, {name}"
            cases.append({"case": case, **await _flood(place, places, stuck)})
    return cases


async def _idle(place: Market) -> Case:
    paths = [path.format(symbol) for symbol in SYMBOLS[:TOKENS] for path in (TRADES, BARS)]
    paths *= place.stage.size.of(PER_STREAM)
    with place.serving(processes=2) as (service, clients):
        await asyncio.sleep(CALM_SECONDS)
        before = service.process.memory_full_info()
        clients.open(paths)
        await asyncio.sleep(seconds_of(place.stage, IDLE_SECONDS))
        after = service.process.memory_full_info()
    return {
        "case": "idle",
        "rss_kib": (after.rss - before.rss) / KIB / len(paths),
        "uss_kib": (after.uss - before.uss) / KIB / len(paths),
        "service_rss_mib": after.rss / MIB,
    }


async def _flood(place: Market, places: Sequence[int], stuck: bool) -> Case:
    count = len(places)
    with place.serving() as (service, clients):
        before = service.process.memory_info().rss
        clients.open([TRADES.format(SYMBOLS[number]) for number in places], TINY if stuck else 0)
        clients.begin()
        watching = asyncio.create_task(_watch(service, seconds_of(place.stage, FLOOD_SECONDS)))
        per_second = await _write_until(watching, place, [*places] * REPEATS)
        watched, ended = watching.result(), clients.end().ended
    rss = watched.rss - before
    return {
        "rss_kib": rss / KIB / count,
        "send_queue_kib": watched.queued / KIB / count,
        "together_kib": (rss + watched.queued) / KIB / count,
        "trades_per_s": per_second,
        "last_closed_s": watched.closed,
        "last_gone_s": watched.gone,
        "readers_ended": ended,
    }


async def _write_until(done: asyncio.Task[Watched], place: Market, batch: Sequence[int]) -> float:
    """Write without pauses; trades per second."""
    began, written = time.monotonic(), 0
    while not done.done():
        await place.writer.write(batch, LONG)
        # Nobody asks for them, and a flood would make them a flood too.
        place.writer.sent.clear()
        place.writer.committed.clear()
        written += len(batch)
    return written / (time.monotonic() - began)


async def _watch(service: Service, seconds: float) -> Watched:
    found, began = Watched(), time.monotonic()
    while found.gone is None and (elapsed := time.monotonic() - began) < seconds:
        queues = send_queues(service.port)
        rss, queued = (
            max(found.rss, service.process.memory_info().rss),
            max(found.queued, sum(map(sum, queues.values()))),
        )
        closed = elapsed if found.closed is None and len(queues.get(ESTABLISHED, ())) <= WARM else found.closed
        found = Watched(rss, queued, closed, elapsed if sum(map(len, queues.values())) <= WARM else None)
        await asyncio.sleep(SAMPLE_SECONDS)
    return found


def send_queues(port: int) -> dict[str, list[int]]:
    """By state: bytes that the kernel holds for the peer of each connection of a server, not sent or not acknowledged.

    A socket that was closed but not emptied still counts; one that listens or waits out its time does not.
    """
    found: dict[str, list[int]] = {}
    for row in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:]):
        if int(row[1].partition(":")[2], 16) == port and row[3] not in {TIME_WAIT, LISTEN}:
            found.setdefault(row[3], []).append(int(row[4].partition(":")[0], 16))
    return found
