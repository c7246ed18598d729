"""Every number of the catalogue of bad input is held somewhere: in the tables here, or where this says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
NUMBERS = {*(f"B{number:02}" for number in range(1, 110)), "B72a", "B72b", "B72c", "B72d"}

ELSEWHERE = {
    "B106": "service/test_serve.py::test_a_second_service_on_the_directory_is_refused_in_one_line",
}
"""Held by another test, which is about more than bad input."""

NOT_OURS = {
    "B103": "no key comes from a file: the service makes each of them itself, with 256 bits (tests/access)",
    "B89": "nobody has to speak first: a key or a ticket comes with the upgrade itself (B77)",
}
"""Cannot happen, and why."""


def held() -> set[str]:
    """The numbers in the rows of the tables and in the names of the tests here."""
    found = set()
    for file in HERE.glob("test_*.py"):
        if file != Path(__file__):
            text = file.read_text("utf-8")
            found |= set(re.findall(r'"(B\d{2,3}[a-d]?)"', text))
            found |= {name.replace("b", "B", 1) for name in re.findall(r"(?<=_)b\d{2,3}[a-d]?(?=_)", text)}
    return found


def test_every_number_is_held_somewhere() -> None:
    assert NUMBERS - held() - ELSEWHERE.keys() - NOT_OURS.keys() == set()
    assert (held() | ELSEWHERE.keys() | NOT_OURS.keys()) - NUMBERS == set()


def test_what_is_held_elsewhere_is_there() -> None:
    for place in ELSEWHERE.values():
        name, _, function = place.partition("::")
        tree = ast.parse((HERE.parent / name).read_text("utf-8"))
        assert function in {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
