"""`range`: 500 one-minute bars of one token out of many trades.

The service over HTTP, with the bars that its trigger has made; DuckDB and chDB, embedded, which make them of the same
trades when asked; chDB's materialised view, which has made them too; and FastAPI with SQLAlchemy's ORM over a plain
table in the same PostgreSQL. In the timescale profile then once more with trades compressed and bars retired.

All bars of the history, and the answers to windows like those that are timed, are equal before anything is timed. Each
timed window is asked once of each, so nobody's cache of answers has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.comparison import Figures, Outcome, Ratio, ratio
from bench.ranges import store
from bench.ranges.asking import WINDOWS, agree, asked, drawn
from bench.ranges.market import write_market
from bench.ranges.setting import ORM, OURS, SECONDS, Setting, opened
from bench.stage import Stage

TRADES = 20_000_000
# How many times lower the issue wants our latency: floor and goal. Of others nothing is asked: the bars of chDB's view
# are made before somebody wants them, as ours are, and the trades of "sorted" had to be sorted first.
ASKED = {"duckdb, 1 thread": (10, 100), "duckdb, 2 threads": (10, 100), "chdb": (10, 100), ORM: (3, 10)}


async def measure(stage: Stage) -> Outcome:
    """Ratios of mean latencies, for windows with a beginning, and for the latest bars before a moment."""
    market = write_market(stage.folder / "market.parquet", stage.size.of(TRADES))
    told: list[Figures] = []
    ratios: list[Ratio] = []
    async with opened(stage, market) as setting:
        states = ["live bars", "retired bars"] if stage.profile == "timescale" else ["live bars"]
        for state in states:
            if state == "retired bars":
                await store.retire(setting.connection, SECONDS)
            await setting.agree()
            names = [*setting.peers] if state == "live bars" else [OURS, *ASKED]
            for begins in (True, False):
                found = await _compared(setting, names, stage.size.runs, begins=begins)
                shape = f"{state}, {'window' if begins else 'latest 500'}: "
                told += [{**case, "case": shape + case["case"]} for case in found[0]]
                ratios += [one._replace(what=shape + one.what) for one in found[1]]
    equal = f"all one-minute bars of {market.trades:,} trades (SHA-256), and each value of {WINDOWS} windows of a kind"
    return Outcome(told, ratios, equal)


async def _compared(
    setting: Setting, names: Sequence[str], runs: int, *, begins: bool
) -> tuple[list[Figures], list[Ratio]]:
    # The ORM application wants to know where a window begins.
    peers = {name: setting.peers[name] for name in names if begins or name != ORM}
    await agree(peers, drawn(setting.market, 0, begins=begins))
    found, told = await asked(peers, setting.market, runs, begins=begins)
    ratios = []
    for name in peers:
        floor, goal = ASKED.get(name, (None, None))
        if name != OURS:
            ratios.append(ratio(found, OURS, name, floor=floor, goal=goal))
    return told, ratios
