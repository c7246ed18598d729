"""`python -m bench.report`: puts what `bench/results.jsonl` holds into `bench/README.md`, as tables, and draws it.

The tables are a pure function of the results, which a test of the house holds the README to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.__main__ import MODULES, PROFILES, RESULTS

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
# Shown in columns of their own, or told elsewhere.
OWN_COLUMNS = {"case", "unit", "per_s", "us_per_unit", "cpu_us_per_unit"}

Line = Mapping[str, Any]


def results() -> list[Line]:
    """The kept lines, in the order in which the benchmarks run."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    order = list(MODULES)
    return sorted(lines, key=lambda line: (order.index(line["benchmark"]), PROFILES.index(line["profile"])))


def rendered(lines: Sequence[Line]) -> str:
    """The tables: first what was compared, then what every side needed."""
    parts = [_ratios(lines)]
    for line in lines:
        parts += [f"### {line['benchmark']}, {line['profile']}\n", _conditions(line), _cases(line["cases"])]
    return "\n".join(parts)


def _ratios(lines: Sequence[Line]) -> str:
    rows = ["| benchmark | ratio | profile | median (least to greatest) | floor | goal | reached |", "|---" * 7 + "|"]
    for line in lines:
        for one in line["ratios"]:
            bounds = [_number(one[name]) for name in ("floor", "goal")]
            less = "at most " if one["better"] == "less" and one["floor"] is not None else ""
            told = f"{_number(one['median'])} ({_number(one['low'])} to {_number(one['high'])})"
            row = [line["benchmark"], one["ratio"], line["profile"], told, less + bounds[0], less + bounds[1]]
            rows.append(f"| {' | '.join([*row, one.get('reached', '')])} |")
    return "\n".join(rows) + "\n"


def _conditions(line: Line) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    size = line["size"]
    part = f", a {size['divisor']}th of the data" if size["divisor"] > 1 else ""
    return f"{line['at']}; rounds: {size['runs']}{part}; {versions}. Equal before timing: {line['equal']}.\n"


def _cases(cases: Iterable[Mapping[str, Any]]) -> str:
    rows = ["| case | per second | µs each | CPU µs each | besides |", "|---" * 5 + "|"]
    for case in cases:
        unit = f" {case['unit']}" if "unit" in case else ""
        cpu = ", ".join(f"{whose} {_number(value)}" for whose, value in case.get("cpu_us_per_unit", {}).items())
        besides = ", ".join(f"{name} {_figure(value)}" for name, value in case.items() if name not in OWN_COLUMNS)
        figures = [_figure(case.get("per_s")), _figure(case.get("us_per_unit"))]
        figures[0] += unit if figures[0] else ""
        rows.append(f"| {' | '.join([str(case['case']), *figures, cpu, besides])} |")
    return "\n".join(rows) + "\n"


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        if "median" not in value:
            return ", ".join(f"{name} {_figure(one)}" for name, one in value.items())
        return f"{_number(value['median'])} ({_number(value['low'])} to {_number(value['high'])})"
    return _number(value) if isinstance(value, int | float) else str(value or "")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def with_results(text: str, tables: str) -> str:
    """The README with these tables between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables + "\n" + END + after


def main() -> None:
    """Write the README and the pictures."""
    from bench.plots import draw  # noqa: PLC0415 - the tables need no matplotlib

    lines = results()
    README.write_text(with_results(README.read_text(), rendered(lines)))
    draw(lines)


if __name__ == "__main__":
    main()
