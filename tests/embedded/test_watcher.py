"""A test run that is killed leaves no server behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from klines.embedded.remains import left_after

ROOT = Path(__file__).parents[2]
DEADLINE = 60
RUN = """
import sys
from klines.embedded import EmbeddedServer
from tests.servers import reachable_directory

with reachable_directory() as directory, EmbeddedServer(directory):
    print(directory.parent, (directory / "postgres" / "postmaster.pid").read_text().split()[0], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", pytest.param("terminate", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_leaves_no_server_behind(end: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as run:
        assert run.stdout is not None
        directory, pid = run.stdout.readline().split()
        postmaster = psutil.Process(int(pid))
        watchers = psutil.Process(run.pid).children()
        getattr(run, end)()
        run.wait(DEADLINE)
    assert left_after([postmaster, *watchers], DEADLINE) == []
    assert not Path(directory).exists()
