"""Figures of fault tests: one line per test, shown at the end of the run and kept in `build/figures.jsonl`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

Figure = float | int | str | dict[str, int]

FILE = Path("build/figures.jsonl")
PROPERTY = "figures"


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`figures("F01", rto_s=1.2, lost=0)` reports one line."""

    def report(fault: str, /, **told: Figure) -> None:
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}
        line = msgspec.json.encode({"fault": fault, "test": request.node.name} | rounded).decode()
        # These travel with the report, also from a process that runs a part of the tests.
        request.node.user_properties.append((PROPERTY, line))

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows the lines, and adds them to the file."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == PROPERTY]
    if not lines:
        return
    terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.writelines(line + "\n" for line in lines)
