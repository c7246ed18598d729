"""A PostgreSQL of a benchmark's own, and `klines serve` in its own process.

Everything that a context here starts has ended when it is left, also by an error or an interrupt.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from klines.embedded import EmbeddedServer

# For whatever is waited for.
DEADLINE = 60
LOOK_SECONDS = 0.05
PROGRAM = ("-m", "klines")


@contextmanager
def service_of(
    log: Path, environment: dict[str, str], program: Sequence[str] = PROGRAM
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, *program, "serve"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)  # noqa: S603 - fixed
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + DEADLINE
    while not (found := re.search(r"klines serves on \S+:(\d+)", log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service did not start: {log.read_text()}")
        time.sleep(LOOK_SECONDS)
    return int(found[1])


@contextmanager
def postgres() -> Iterator[tuple[Path, str]]:
    """A temporary directory and the URL of an embedded PostgreSQL in it, durable as in production."""
    folder = Path(tempfile.mkdtemp(prefix="klines-bench-"))
    # The account of the embedded server must reach its data.
    folder.chmod(0o711)
    try:
        with EmbeddedServer(folder / "data") as server:
            yield folder, server.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)
