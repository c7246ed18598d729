"""Figures of fault tests: one line per test, shown at the end of the run and kept in `build/figures.jsonl`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

Figure = float | int | str | dict[str, int]

FILE = Path("build/figures.jsonl")
LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`figures("F01", rto_s=1.2, lost=0)` reports one line."""

    def report(fault: str, /, **told: Figure) -> None:
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}
        line = msgspec.json.encode({"fault": fault, "test": request.node.name} | rounded).decode()
        request.config.stash.setdefault(LINES, []).append(line)

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Shows the lines, and adds them to the file."""
    lines = config.stash.get(LINES, [])
    if not lines:
        return
    terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.writelines(line + "\n" for line in lines)
