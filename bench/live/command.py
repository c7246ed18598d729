"""Figures of the live streams: the command line, a JSON line per benchmark, and the table.

It starts its own PostgreSQL, service and clients, and ends what it started, also when interrupted. It judges nothing.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from bench import service
from bench.live import setting
from bench.live.fanout import fanout
from bench.live.figures import FULL, TRIAL, Case, rounded
from bench.live.latency import latency
from bench.live.memory import memory
from klines.settings import Settings

BENCHMARKS: dict[str, Callable[[setting.Bench], Awaitable[list[Case]]]] = {
    "latency": latency,
    "fanout": fanout,
    "memory": memory,
}


async def take(bench: setting.Bench, names: Iterable[str]) -> None:
    """Run benchmarks by name, and print what they found."""
    conditions = {"profile": bench.profile, "push_interval_ms": bench.push_ms, **bench.scale._asdict()}
    table = Table("benchmark", "case", "figures", title=f"live streams ({_words(conditions, ', ')})")
    for name in names:
        cases = [rounded(case) for case in await BENCHMARKS[name](bench)]
        click.echo(json.dumps({"benchmark": name, **conditions, "cases": cases}))
        for case in cases:
            table.add_row(name, str(case.pop("case")), _words(case, "\n"), end_section=True)
    Console().print(table)


def _words(figures: Case, between: str) -> str:
    return between.join(f"{name} {value}" for name, value in figures.items())


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--profile", type=click.Choice(["auto", "timescale", "plain"]), default="auto", show_default=True)
@click.option("--push-interval", type=click.IntRange(min=0), help="milliseconds; the service's default otherwise")
@click.option("--seconds", type=click.FloatRange(min=1), help=f"length of a window, {FULL.window_s:g} otherwise")
@click.option("--trial", is_flag=True, help="windows of a second, a tenth of the clients: does it run at all?")
def main(names: Sequence[str], profile: str, push_interval: int | None, seconds: float | None, trial: bool) -> None:
    """Take the figures of the live streams; all of them, or those named."""
    # Whoever ends it by SIGTERM wants what it started to end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    scale = TRIAL if trial else FULL
    scale = scale._replace(window_s=seconds) if seconds else scale
    push_ms = Settings().klines_push_interval if push_interval is None else push_interval

    async def run(folder: Path, url: str) -> None:
        async with setting.prepared(folder, url, profile, scale, push_ms) as bench:
            await take(bench, names or BENCHMARKS)

    with service.postgres() as (folder, url), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(folder, url))


if __name__ == "__main__":
    main()
