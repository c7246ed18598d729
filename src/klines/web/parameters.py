"""Query parameters: each is one rule that documents, checks and converts it.

What no rule names, what is given twice, and what is given empty is refused with 400: a misspelt `form=` must not
silently answer another question than the one asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar.openapi.spec import Operation, Parameter, Schema

from klines.errors import BadRequest, echo
from klines.timestamp import EARLIEST_US, TimeError, iso_us

MAX_PARAMETERS = 20
NO_NUL = r"^[^\x00]*$"
LATEST_MS = 253_402_300_799_999  # 9999-12-31, the last day that a date can name

_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class ParameterRule(msgspec.Struct, frozen=True):
    """One query parameter: its name, what OpenAPI says of it, how its text is read, and its value when absent."""

    name: str
    description: str
    schema: dict[str, Any]
    convert: Callable[[str], Any]
    default: Any = None


def read(query: bytes, rules: Sequence[ParameterRule]) -> dict[str, Any]:
    """The value of every rule for a raw query string; raises `BadRequest` naming the parameter and its rule."""
    by_name = {rule.name: rule for rule in rules}
    values = {rule.name: rule.default for rule in rules}
    seen: set[str] = set()
    for name, text in _pairs(query):
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise BadRequest(f"parameter {echo(name)} is unknown here; known: {known}", code="param_unknown")
        if name in seen:
            raise BadRequest(f"parameter {name} is given twice", code="param_repeated")
        if text == "":
            raise BadRequest(f"parameter {name} is empty", code="param_empty")
        seen.add(name)
        values[name] = by_name[name].convert(text)
    return values


def integer(name: str, description: str, *, default: int, low: int, high: int) -> ParameterRule:
    """A decimal integer between `low` and `high`."""

    def convert(text: str) -> int:
        if _INTEGER.fullmatch(text) is None or not low <= int(text) <= high:
            raise BadRequest(f"{name} {echo(text)}: must be an integer from {low} to {high}", code=f"{name}_invalid")
        return int(text)

    schema = {"type": "integer", "minimum": low, "maximum": high, "default": default}
    return ParameterRule(name, description, schema, convert, default)


def parsed(name: str, description: str, default: str, parse: Callable[[str], Any]) -> ParameterRule:
    """A word with a rule of its own, which `parse` knows."""
    return ParameterRule(name, description, {"type": "string", "default": default}, parse, parse(default))


def choice(name: str, description: str, values: Sequence[str], default: str) -> ParameterRule:
    """One of a few words."""

    def convert(text: str) -> Any:
        if text not in values:
            raise BadRequest(f"{name} {echo(text)}: must be one of {' '.join(values)}", code=f"{name}_invalid")
        return text

    schema = {"type": "string", "enum": list(values), "default": default}
    return ParameterRule(name, description, schema, convert, default)


def words(name: str, description: str, *, max_length: int) -> ParameterRule:
    """Free text of 1 to `max_length` characters."""

    def convert(text: str) -> str:
        if len(text) > max_length or "\0" in text:
            rule = f"must have at most {max_length} characters, none of them NUL"
            raise BadRequest(f"{name} {echo(text)}: {rule}", code=f"{name}_invalid")
        return text

    schema = {"type": "string", "maxLength": max_length, "pattern": NO_NUL}
    return ParameterRule(name, description, schema, convert, "")


def moment(name: str, description: str) -> ParameterRule:
    """A time as epoch milliseconds or ISO-8601 with an offset; read as epoch microseconds."""

    def convert(text: str) -> int:
        if _INTEGER.fullmatch(text):
            return _milliseconds(name, int(text)) * 1000
        try:
            time_us = iso_us(text)
        except TimeError as error:
            raise BadRequest(f"{name} {echo(text)}: {error}", code=f"{name}_invalid") from None
        if not 0 <= time_us // 1000 <= LATEST_MS:
            raise BadRequest(f"{name} {echo(text)}: must lie between 1970 and 9999", code=f"{name}_invalid")
        return time_us

    schema = {"oneOf": [{"type": "integer"}, {"type": "string", "format": "date-time"}]}
    return ParameterRule(name, description, schema, convert)


def refuse_reversed(from_us: int | None, to_us: int | None) -> None:
    """Raise `BadRequest` for a range that ends before it begins."""
    if from_us is not None and to_us is not None and from_us > to_us:
        raise BadRequest("from lies after to", code="range_reversed")


def documented(rules: Sequence[ParameterRule]) -> type[Operation]:
    """The OpenAPI operation of a route with these parameters."""

    @dataclass
    class Documented(Operation):
        def __post_init__(self) -> None:
            described = [
                Parameter(name=rule.name, param_in="query", description=rule.description, schema=_schema(rule.schema))
                for rule in rules
            ]
            self.parameters = [*(self.parameters or []), *described]

    return Documented


def _schema(members: dict[str, Any]) -> Schema:
    one_of = [_schema(one) for one in members.get("oneOf", [])] or None
    names = {"maxLength": "max_length", "default": "default", "minimum": "minimum", "maximum": "maximum"}
    rest = {names.get(key, key): value for key, value in members.items() if key != "oneOf"}
    return Schema(one_of=one_of, **rest)


def _milliseconds(name: str, value: int) -> int:
    # 0 is how clients say "from the beginning"; other times before any market are seconds by mistake.
    if value != 0 and not EARLIEST_US // 1000 <= value <= LATEST_MS:
        raise BadRequest(f"{name} {value}: must be epoch milliseconds; is the unit right?", code=f"{name}_invalid")
    return value


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise BadRequest("the query string is not UTF-8", code="query_invalid") from None
    except ValueError:
        raise BadRequest(f"more than {MAX_PARAMETERS} parameters", code="query_invalid") from None
