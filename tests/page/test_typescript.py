"""What of the page is pure is tested in Node.js, where it needs no browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"


@pytest.fixture
def npm() -> str:
    found = shutil.which("npm")
    if found is None or not (FRONTEND / "node_modules").exists():
        pytest.skip("no npm, or the page was never built here: make page")
    return found


def test_prices_and_ticks(npm: str) -> None:
    command = [npm, "--silent", "test"]
    ended = subprocess.run(command, cwd=FRONTEND, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    passed = re.search(r"^# pass (\d+)$", ended.stdout, re.M)
    assert passed is not None
    assert int(passed[1]) >= 15


def test_types_are_strict(npm: str) -> None:
    command = [FRONTEND / "node_modules" / ".bin" / "tsc"]
    ended = subprocess.run(command, cwd=FRONTEND, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout
