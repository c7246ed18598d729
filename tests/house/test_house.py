"""What the house promises of itself, held by tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))

# Reads, writes, and the schema side: nothing else holds SQL.
SQL_HOMES = re.compile(
    r"klines/(queries/\w+|writer|importer/staging|transfer/statements|profile|migrations|revision|sole|listener|embedded/\w+)\.py$"
)
STATEMENT = re.compile(
    r"\b(SELECT\s.+|INSERT\s+INTO\s|DELETE\s+FROM\s|UPDATE\s+\w+\s+SET\s|CREATE\s+TABLE\s|CALL\s+\w)", re.S
)
MAX_LINES = 260


def tracked() -> list[Path]:
    """The files that git knows, or all of them where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_checkers_are_silent(command: list[str]) -> None:
    program = Path(sys.executable).parent / command[0]
    ended = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_alembic_folder_does_not_shadow_the_package() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


def test_sql_lives_in_its_homes() -> None:
    strays = []
    for file in SOURCES:
        if SQL_HOMES.search(file.as_posix()):
            continue
        tree = ast.parse(file.read_text())
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if STATEMENT.search(text) and id(node) not in documented:
                strays.append(f"{file.name}:{node.lineno}")  # type: ignore[attr-defined]
    assert strays == []


def test_modules_stay_small_and_say_what_they_promise() -> None:
    for file in SOURCES:
        text = file.read_text()
        assert len(text.splitlines()) <= MAX_LINES, file
        assert ast.get_docstring(ast.parse(text)), file
        assert file.stem not in {"utils", "helpers", "manager", "common", "base"}, file


def test_nothing_names_a_registry_or_a_machine() -> None:
    # Written so that this file does not name them either.
    hosts = re.compile(r"p[y]pi\.(org|io)|python[h]osted|npm[j]s\.|[d]eb\.debian|/(w[o]rk|r[o]ot)/\w|/t[m]p/bash")
    found = [str(file.relative_to(ROOT)) for file in tracked() if hosts.search(file.read_text(errors="ignore"))]
    assert found == []


def test_locks_carry_hashes() -> None:
    for name in ("requirements.lock", "requirements-test.lock"):
        text = (ROOT / name).read_text()
        requirements = [line for line in text.splitlines() if re.match(r"\w", line)]
        assert len(requirements) > 20
        assert all(line.endswith("\\") for line in requirements), name
