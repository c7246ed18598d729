"""What a soak measures every ten seconds, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.oracles import Resources, connected
from tests.live.followers import LOST

EVERY_SECONDS = 10.0
WARM = 0.25  # of the samples, before caches and pools have their size
MIB = 2**20


class Sample(NamedTuple):
    """Seconds from the begin, what the service holds, and how full the queue of notifications is."""

    at: float
    held: Resources
    queue: float


async def sample(samples: list[Sample], pid: int, url: str) -> None:
    """Look every ten seconds, for ever; not while the database is away."""
    begun = time.monotonic()
    while True:
        try:
            async with connected(url) as connection:
                queue = await connection.fetchval("SELECT pg_notification_queue_usage()")
            samples.append(Sample(time.monotonic() - begun, await Resources.of(pid, url), queue))
        except LOST:
            pass
        await asyncio.sleep(EVERY_SECONDS)


def slope(samples: Sequence[Sample]) -> float:
    """How memory grows once the service is warm, in MiB per ten minutes: least squares."""
    warm = samples[int(len(samples) * WARM) :]
    if len(warm) < 3:
        return 0.0
    times, sizes = [one.at for one in warm], [one.held.memory / MIB for one in warm]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    above = sum((at - middle) * (size - mean) for at, size in zip(times, sizes, strict=True))
    return 600 * above / sum((at - middle) ** 2 for at in times)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
