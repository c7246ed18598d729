"""Refusals as Binance words them: `{"code": -1121, "msg": "Invalid symbol."}`, with 400 unless the fault is ours.

The numbers are those of Binance's list of errors (`errors.md` of its API documents), on which clients act; a message
may say more than theirs. What Binance has and this service has not is -1000 with 404.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from klines.errors import Forbidden, InvalidSymbol, KlinesError, TooManyRequests, Unauthorized, UnknownToken
from klines.symbol import RULE
from klines.web import problem
from klines.web.services import Incoming

UNKNOWN = -1000
DISCONNECTED = -1001
TOO_MANY_REQUESTS = -1003
OVERLOADED = -1008
ILLEGAL_CHARACTERS = -1100
TOO_MANY_PARAMETERS = -1101
MANDATORY = -1102
NOT_READ = -1104
EMPTY = -1105
BAD_INTERVAL = -1120
BAD_SYMBOL = -1121
BAD_COMBINATION = -1128
INVALID = -1130
DUPLICATE_SYMBOLS = -1151
INVALID_TIME_UNIT = -1194
STATUS_MISMATCH = -1220
REJECTED_KEY = -2015


class Refusal(KlinesError):
    """A request that this dialect refuses with one of Binance's numbers; answered with 400."""

    status = 400
    title = "Bad request"

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message, code="dialect")
        self.number = number


class NotServed(Refusal):
    """An address that Binance has and this service has not; answered with 404."""

    status = 404
    title = "Not found"

    def __init__(self, message: str) -> None:
        super().__init__(UNKNOWN, message)


def illegal(name: str, rule: str) -> Refusal:
    """A parameter with characters that its rule, a regular expression or words, does not allow."""
    return Refusal(ILLEGAL_CHARACTERS, f"Illegal characters found in parameter '{name}'; legal range is '{rule}'.")


def invalid(name: str, rule: str) -> Refusal:
    """A parameter of the right form with a value that breaks its rule."""
    return Refusal(INVALID, f"Data sent for parameter '{name}' is not valid: {rule}.")


def combination(rule: str) -> Refusal:
    """Parameters that contradict each other."""
    return Refusal(BAD_COMBINATION, f"Combination of optional parameters invalid: {rule}.")


def unknown_symbol() -> Refusal:
    """A symbol that no token has."""
    return Refusal(BAD_SYMBOL, "Invalid symbol.")


def from_klines_error(_: Incoming, error: KlinesError) -> Response[bytes]:
    """An error that was raised on purpose; those of the database keep 503 and `Retry-After`."""
    if isinstance(error, UnknownToken):
        error = unknown_symbol()
    elif isinstance(error, InvalidSymbol):
        error = illegal("symbol", RULE)
    if isinstance(error, Refusal):
        return _answer(error.status, error.number, error.detail)
    headers = problem.told(error)[1]
    if isinstance(error, TooManyRequests):
        return _answer(error.status, TOO_MANY_REQUESTS, f"Too many requests; current limit is {error.detail}.", headers)
    if isinstance(error, Unauthorized | Forbidden):
        message = f"Invalid API-key, IP, or permissions for action: {error.detail}."
        return _answer(error.status, REJECTED_KEY, message, headers)
    if error.status < 500:
        return _answer(400, INVALID, error.detail)
    number = OVERLOADED if error.code == "database_busy" else DISCONNECTED
    return _answer(error.status, number, f"{error.detail}; please try again.", headers)


def from_anything(request: Incoming, error: Exception) -> Response[bytes]:
    """A fault of ours: logged with its traceback, told without it."""
    problem.from_anything(request, error)
    return _answer(500, UNKNOWN, "An unknown error occurred while processing the request.")


HANDLERS: Any = {KlinesError: from_klines_error, Exception: from_anything}


def _answer(status: int, number: int, message: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    body = msgspec.json.encode({"code": number, "msg": message})
    return Response(body, status_code=status, media_type="application/json", headers=headers)
