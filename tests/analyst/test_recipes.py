"""Every block of docs/sql.md, run with the analyst's rights in both profiles, says what the trades say."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from klines.embedded import wheel_binary
from klines.queries.analyst import ROLE
from klines.timestamp import to_us
from tests.analyst.answers import ANSWERS
from tests.analyst.market import DAY, MINUTE, MOONCAT, Market, as_analyst

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^### ([^\n]+)\n(?:(?!^#).)*?```sql\n(.*?)```", PAGE, re.M | re.S))
SMALL = {"tokens", "levels"}


def plain(value: object) -> object:
    """A value of the driver in the terms of the answers."""
    if isinstance(value, datetime):
        return to_us(value)
    return value // timedelta(microseconds=1) if isinstance(value, timedelta) else value


def agree(found: object, wanted: object) -> bool:
    """Equal; quotients, roots and logarithms to twelve digits."""
    if isinstance(found, Decimal | float) and isinstance(wanted, Decimal | float):
        return abs(Decimal(found) - Decimal(wanted)) <= abs(Decimal(wanted)) * Decimal("1e-12") + Decimal("1e-15")
    return found == wanted


def test_every_recipe_has_an_answer() -> None:
    assert list(RECIPES) == list(re.findall(r"^### (.+)\n(?=(?:(?!^#).|\n)*?```sql)", PAGE, re.M))
    assert set(RECIPES) == set(ANSWERS)
    assert PAGE.count("```sql\n") == len(RECIPES)


@pytest.mark.parametrize("heading", RECIPES)
async def test_a_recipe_says_what_the_trades_say(market: Market, heading: str) -> None:
    async with as_analyst(market.database) as connection:
        now = to_us(await connection.fetchval("SELECT now()"))
        rows = [tuple(map(plain, row)) for row in await connection.fetch(RECIPES[heading])]
    wanted = ANSWERS[heading](market, now)
    assert wanted, "a recipe must be asked about something"
    assert len(rows) == len(wanted)
    for row, expected in zip(rows, wanted, strict=True):
        assert len(row) == len(expected)
        assert all(map(agree, row, expected)), (row, expected)


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan that read a table themselves and were needed."""
    if "Plans" not in node and ("Relation Name" in node or "Index Name" in node):
        yield node
    for below in node.get("Plans", ()):
        yield from scans(below)


@pytest.mark.parametrize("heading", RECIPES)
async def test_a_recipe_reads_by_the_key_of_its_token(market: Market, heading: str) -> None:
    async with as_analyst(market.database) as connection:
        # A small table is read whole; so the test asks for what must be possible in a large one.
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {RECIPES[heading]}"))
    read = [scan for scan in scans(plan[0]["Plan"]) if scan.get("Relation Name") not in SMALL]
    read = [scan for scan in read if scan.get("Index Name") not in {"tokens_symbol_key", "tokens_pkey", "levels_pkey"}]
    assert read
    for scan in read:
        assert re.search(r'token_id = |"time" = ', scan.get("Index Cond", "")), scan


def test_the_export_is_dense(market: Market, tmp_path: Path) -> None:
    block = re.search(r"```psql\n(.*?)```", PAGE, re.S)
    assert block
    script = f"SET ROLE {ROLE}; SET default_transaction_read_only = on; SET timezone = 'UTC';\n{block[1]}"
    psql = [str(wheel_binary("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1", market.database.url]
    ended = subprocess.run(psql, input=script, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    rows = list(csv.DictReader((tmp_path / "bars.csv").read_text("utf-8").splitlines()))
    assert len(rows) == DAY // MINUTE + 1
    bars = dict(market.bars(MOONCAT, "1m", 0))
    for row in rows:
        bar = bars.get(to_us(datetime.fromisoformat(row["time"])))
        shown = (row["close"], row["volume"], row["trades"])
        assert shown == (("", "", "") if bar is None else (str(bar.close), str(bar.volume), str(bar.trades)))
