"""What goes wrong in a soak, and when: drawn from a seed, so that a run can be done again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from tests.faults.load import Load
from tests.faults.oracles import connected
from tests.live.followers import LOST, TERMINATE
from tests.live.power import Power
from tests.servers import Database

PAUSE_SECONDS = (6.0, 14.0)
AWAY_SECONDS = 1.0
# A backend of the service, the listener's backend, PostgreSQL in order, PostgreSQL at once.
KINDS = ("F02", "F02", "F02", "F03", "F03", "F06", "F05")
TERMINATE_ONE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'klines' AND datname = current_database() ORDER BY random() LIMIT 1
"""


class Faults:
    """Breaks one thing after the other: `counts` by kind, `outages` in seconds until trades are stored again."""

    def __init__(self, power: Power, database: Database, load: Load, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.outages: dict[str, float] = {}
        self._power = power
        self._database = database
        self._load = load
        self._chance = random.Random(seed)  # noqa: S311 - what breaks, and when

    async def run(self, seconds: float) -> None:
        """Break things for so long."""
        end = time.monotonic() + seconds
        while True:
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
            if time.monotonic() > end:
                return
            kind = self._chance.choice(KINDS)
            begun = await self._break(kind)
            self.counts[kind] += 1
            outage = await self._load.back(begun)
            self.outages[kind] = max(outage, self.outages.get(kind, 0.0))

    async def _break(self, kind: str) -> float:
        """Do it; the monotonic time from which recovery counts."""
        if kind in {"F05", "F06"}:
            await (self._power.immediate() if kind == "F05" else self._power.off())
            await asyncio.sleep(self._chance.random() * AWAY_SECONDS)
            await self._power.on()
            return time.monotonic()
        try:
            async with connected(self._database.url) as connection:
                if kind == "F02":
                    await connection.execute(TERMINATE_ONE)
                else:
                    await connection.fetch(TERMINATE, "klines listener")
        except LOST:
            pass  # it was our own
        return time.monotonic()
