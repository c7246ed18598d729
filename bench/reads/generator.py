"""The load of the reads: `wrk` with one thread, whose own CPU is told beside the others'."""

from __future__ import annotations

import asyncio
import re
import resource
from pathlib import Path

from bench.comparison import Sample
from bench.load import cpu_seconds
from bench.stage import Service, Stage

FOUND = re.compile(r"(\d+) requests in ([0-9.]+)(ms|s|m),")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
WRONG = ("Non-2xx", "Socket errors")


async def wrk(
    stage: Stage, service: Service, path: str, connections: int, seconds: int, script: Path | None = None
) -> Sample:
    """Ask for an address, or for what a script says, over so many connections; RuntimeError if any answer is wrong."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *(["-s", str(script)] if script else [])]
    before = _used(stage, service)
    process = await asyncio.create_subprocess_exec(
        *command, f"http://127.0.0.1:{service.port}{path}", stdout=asyncio.subprocess.PIPE
    )
    told = (await process.communicate())[0].decode()
    used = {name: after - before[name] for name, after in _used(stage, service).items()}
    found = FOUND.search(told)
    if process.returncode or found is None or any(word in told for word in WRONG):
        raise RuntimeError(f"{' '.join(command)}: {told}")
    return Sample(int(found[1]), float(found[2]) * SECONDS[found[3]], used)


def _used(stage: Stage, service: Service) -> dict[str, float]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "service": cpu_seconds(service.process),
        "postgres": cpu_seconds(stage.postmaster),
        "generator": children.ru_utime + children.ru_stime,
    }
