"""`python -m bench`: benchmarks side by side with their yardsticks; a JSON line each, and a table.

With `--keep` the lines replace those of the same benchmark and profile in `bench/results.jsonl`, which is what
`bench/README.md` shows (`python -m bench.report`).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import platform
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import click
import uvloop
from rich.console import Console
from rich.table import Table

from bench import service
from bench.comparison import Outcome
from bench.stage import FULL, TRIAL, Size, Stage, staged

# In the order in which all of them run; the module has a function `measure`.
MODULES = {
    "ingest": "ingest",
    "import": "importing",
    "catchup": "catchup",
    "hot": "reads.hot",
    "cold": "reads.cold",
    "range": "ranges.bars",
    "storage": "ranges.storage",
    "fold": "ranges.folds",
    "fanout": "live.fanout",
    "latency": "live.latency",
    "memory": "live.memory",
    "growth": "growth.growth",
}
PROFILES = ("timescale", "plain")
RESULTS = Path(__file__).parent / "results.jsonl"

Measure = Callable[[Stage], Awaitable[Outcome]]


async def take(stage: Stage, name: str) -> dict[str, Any]:
    """Run one benchmark; its JSON line."""
    measure: Measure = importlib.import_module(f"bench.{MODULES[name]}").measure
    outcome = await measure(stage)
    return {
        "benchmark": name,
        "profile": stage.profile,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": stage.size._asdict(),
        "versions": await _versions(stage.url),
        "equal": outcome.equal,
        "cases": list(outcome.cases),
        "ratios": [one.figures() for one in outcome.ratios],
    }


async def _versions(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        server = await connection.fetchval("SHOW server_version")
        extension = await connection.fetchval(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'"
        )
    finally:
        await connection.close()
    return {"python": platform.python_version(), "postgresql": server} | (
        {"timescaledb": extension} if extension else {}
    )


def show(line: dict[str, Any]) -> None:
    """The line itself, and its ratios and cases for people."""
    click.echo(json.dumps(line))
    table = Table("what", "median", "low", "high", "floor", "goal", title=f"{line['benchmark']}, {line['profile']}")
    for one in line["ratios"]:
        table.add_row(*(str(one[name]) for name in ("ratio", "median", "low", "high", "floor", "goal")))
    console = Console()
    console.print(table)
    for case in line["cases"]:
        console.print(" ".join(f"{name}={value}" for name, value in case.items()), highlight=False)


def keep(lines: Sequence[dict[str, Any]]) -> None:
    """Put lines in the place of those of the same benchmark and profile."""
    kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    fresh = {(line["benchmark"], line["profile"]): line for line in lines}
    merged = {(line["benchmark"], line["profile"]): line for line in kept} | fresh
    RESULTS.write_text("".join(json.dumps(line) + "\n" for _, line in sorted(merged.items())))


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MODULES)))
@click.option("--profile", type=click.Choice([*PROFILES, "both"]), default="both", show_default=True)
@click.option("--runs", type=click.IntRange(min=1), help=f"rounds; {FULL.runs} otherwise")
@click.option("--part", type=click.IntRange(min=1), help="a part of the data and the clients: 1 of so many")
@click.option("--trial", is_flag=True, help="one round of a twentieth: does it run at all?")
@click.option("--keep", "kept", is_flag=True, help="write what was found to bench/results.jsonl")
def main(names: Sequence[str], profile: str, runs: int | None, part: int | None, trial: bool, kept: bool) -> None:
    """Run all benchmarks, or those named."""
    # Whoever ends it by SIGTERM wants what it started to end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    size: Size = TRIAL if trial else FULL
    size = size._replace(runs=runs or size.runs, divisor=part or size.divisor)
    for one in PROFILES if profile == "both" else (profile,):
        for name in names or MODULES:
            line = _line(one, name, size)
            show(line)
            if kept:
                keep([line])


def _line(profile: str, name: str, size: Size) -> dict[str, Any]:
    async def run(folder: Path, url: str) -> dict[str, Any]:
        async with staged(folder, url, profile, size) as stage:
            return await take(stage, name)

    # A server of its own for each, so that none finds what another left.
    with service.postgres() as (folder, url), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(folder, url))


if __name__ == "__main__":
    main()
