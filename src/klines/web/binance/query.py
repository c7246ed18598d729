"""Query parameters as Binance takes them: what is sent but not known, empty, or sent twice is refused with its number.

A value is converted by its rule: a function of the parameter's name and text that raises `Refusal`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from klines.errors import BadRequest, InvalidSymbol, echo
from klines.interval import Width, parse_interval
from klines.symbol import RULE, canonical_symbol
from klines.timestamp import LATEST_US
from klines.trade_rules import MAX_TRADE_ID
from klines.web.binance import refusal
from klines.web.binance.refusal import Refusal, illegal, invalid

MAX_PARAMETERS = 20
MAX_ROWS = 1000
MAX_SYMBOLS = 1000
# Milliseconds reach it in the year 33658, microseconds reached it in 2001.
FIRST_MICROSECONDS = 10**15

INTEGER = r"^[0-9]{1,20}$"
_INTEGER = re.compile(r"[0-9]{1,20}", re.ASCII)
_OFFSET = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-9]{2}))?", re.ASCII)

Rule = Callable[[str, str], Any]
Rules = Mapping[str, Rule]


def read(query: bytes, rules: Rules, mandatory: Collection[str] = ()) -> dict[str, Any]:
    """The values of a raw query string by name, without those that were not sent; raises `Refusal`."""
    pairs = _pairs(query)
    sent = dict(pairs)
    if len(sent) < len(pairs):
        raise Refusal(refusal.TOO_MANY_PARAMETERS, "Duplicate values for a parameter detected.")
    _refuse_unknown(sent, rules)
    for name in mandatory:
        if name not in sent:
            message = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
            raise Refusal(refusal.MANDATORY, message)
    for name, text in pairs:
        if text == "":
            raise Refusal(refusal.EMPTY, f"Parameter '{name}' was empty.")
    return {name: rules[name](name, text) for name, text in pairs}


def symbol(name: str, text: str) -> str:
    """A token's symbol, in its canonical spelling."""
    try:
        return canonical_symbol(text)
    except InvalidSymbol:
        raise illegal(name, RULE) from None


def symbols(name: str, text: str) -> list[str]:
    """A JSON array of symbols without repetitions, at most `MAX_SYMBOLS`."""
    found = [symbol(name, one) for one in _texts(name, text)]
    if not 1 <= len(found) <= MAX_SYMBOLS:
        raise invalid(name, f"must hold 1 to {MAX_SYMBOLS} symbols")
    if len(set(found)) < len(found):
        raise Refusal(refusal.DUPLICATE_SYMBOLS, "Symbol is present multiple times in the list.")
    return found


def permissions(name: str, text: str) -> list[str]:
    """A permission, or a JSON array of them."""
    found = _texts(name, text) if text.startswith("[") else [text]
    if not all(re.fullmatch(r"[A-Z0-9_]{1,64}", one, re.ASCII) for one in found):
        raise illegal(name, "^[A-Z0-9_]{1,64}$")
    return found


def limit(name: str, text: str) -> int:
    """How many rows; more than `MAX_ROWS` are cut to as many, as clients expect."""
    rows = _integer(name, text)
    if rows < 1:
        raise invalid(name, "must be at least 1")
    return min(rows, MAX_ROWS)


def trade_id(name: str, text: str) -> int:
    """A trade's number."""
    if (found := _integer(name, text)) > MAX_TRADE_ID:
        raise invalid(name, f"must be at most {MAX_TRADE_ID}")
    return found


def begin(name: str, text: str) -> int:
    """The first moment of a range, in epoch microseconds; told in milliseconds, or from 10^15 on in microseconds."""
    value = _integer(name, text)
    return min(value if value >= FIRST_MICROSECONDS else value * 1000, LATEST_US)


def end(name: str, text: str) -> int:
    """The last moment of a range, told as `begin` is; what is answered is the first one beyond it."""
    value = _integer(name, text)
    return min(value + 1 if value >= FIRST_MICROSECONDS else (value + 1) * 1000, LATEST_US)


def interval(_: str, text: str) -> Width:
    """The width of bars: any that the service makes; a month is none of them, as it is not one width."""
    try:
        return parse_interval(text)
    except BadRequest:
        raise Refusal(refusal.BAD_INTERVAL, "Invalid interval.") from None


def offset(name: str, text: str) -> int:
    """An offset from UTC, in seconds: hours with or without minutes, from -12:00 to +14:00."""
    # An unescaped + arrives as a space.
    found = _OFFSET.fullmatch(text.replace(" ", "+", 1) if text.startswith(" ") else text)
    minutes = int(found[2]) * 60 + int(found[3] or 0) if found else 0
    signed = -minutes if found and found[1] == "-" else minutes
    if found is None or int(found[3] or 0) > 59 or not -12 * 60 <= signed <= 14 * 60 or signed % 15:
        raise invalid(name, f"{echo(text)} must be a multiple of 15 minutes from -12:00 to +14:00, such as 8 or 05:45")
    return signed * 60


def one_of(*words: str) -> Rule:
    """The rule of a parameter that is one of a few words."""

    def convert(name: str, text: str) -> str:
        if text not in words:
            raise invalid(name, f"must be one of {' '.join(words)}")
        return text

    return convert


def _integer(name: str, text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise illegal(name, INTEGER)
    return int(text)


def _texts(name: str, text: str) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise illegal(name, '["A","B"]') from None


def _refuse_unknown(sent: Mapping[str, str], rules: Rules) -> None:
    unknown = [name for name in sent if name not in rules]
    if unknown:
        read_count = len(sent) - len(unknown)
        counts = f"read '{read_count}' parameter(s) but was sent '{len(sent)}'"
        known = ", ".join(rules) or "none"
        message = f"Not all sent parameters were read; {counts}. Unknown: {echo(unknown[0])}; known: {known}."
        raise Refusal(refusal.NOT_READ, message)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise illegal("query", "UTF-8") from None
    except ValueError:
        message = f"Too many parameters; expected '{MAX_PARAMETERS}' and received '{query.count(b'&') + 1}'."
        raise Refusal(refusal.TOO_MANY_PARAMETERS, message) from None
