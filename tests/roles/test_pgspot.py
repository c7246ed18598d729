"""pgspot over the SQL of every migration, in the path that migrations run in: nothing can be slipped under a name.

What is exempt, and why, stands here; what a later migration replaced is not looked at again.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from pglast import ast, parse_sql
from pgspot.state import Counter, State  # type: ignore[import-untyped]
from pgspot.visitors import visit_sql  # type: ignore[import-untyped]

from klines.profile import PROFILES, sql_files
from klines.revision import SEARCH_PATH

SQL = Path(__file__).parents[2] / "alembic" / "sql"

# Procedures that commit cannot carry a path of their own. The first sets one in each of its transactions; the second
# names everything with its schema, and its one condition is a variable.
COMMITTING = [
    "klines_internal.retire_klines_v1(job_id integer,config jsonb)",
    "klines_internal.forget_trades_v1(before timestamptz)",
]


def statements(profile: str) -> list[str]:
    """Every statement of all revisions; of a routine that was replaced, the last."""
    found: dict[object, str] = {}
    for revision in sorted(SQL.iterdir()):
        for file in sql_files(revision, profile):  # type: ignore[arg-type]
            text = file.read_text()
            for number, one in enumerate(parse_sql(text)):
                start, node = one.stmt_location, one.stmt
                raw = text.encode()[start : start + one.stmt_len if one.stmt_len else None].decode()
                if isinstance(node, ast.CreateFunctionStmt):
                    # A body that is parsed when it is made looks nothing up later; pgspot cannot read one.
                    name = tuple(part.sval for part in node.funcname)
                    found[name] = raw if node.sql_body is None else "SELECT"
                else:
                    found[file, number] = raw
    return list(found.values())


def findings(sql: str) -> list[str]:
    """What pgspot says of the statements, one after another in one session."""
    args = Namespace(
        plpgsql=True, summary_only=False, explain=None, append=True, ignore=[], ignore_lang=[],
        proc_without_search_path=COMMITTING, sql_fn=[], sql_accepting=[],
    )  # fmt: skip
    counter = Counter(args)
    visit_sql(State(counter), sql, toplevel=True)
    return [str(counter)] if not counter.is_clean() else []


@pytest.mark.parametrize("profile", PROFILES)
def test_the_migrations_are_clean(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = ";\n".join([f"SET search_path = {SEARCH_PATH}", *statements(profile)])
    found = findings(script)
    assert found == [], capsys.readouterr().out


def test_it_finds_what_it_looks_for() -> None:
    assert findings("CREATE FUNCTION x.y() RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ SELECT 1 $$")
