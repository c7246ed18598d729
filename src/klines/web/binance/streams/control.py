"""The requests that Binance clients send over a connection, and their answers. Pure.

Source: "WebSocket Streams for Binance", "Live Subscribing/Unsubscribing to streams". An error is told twice in one
object, as some clients look for `error` and others for `code` and `msg`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from klines.errors import KlinesError, echo

UNKNOWN_PROPERTY: Final = 0
WRONG_TYPE: Final = 1
INVALID_REQUEST: Final = 2
INVALID_JSON: Final = 3
# Of Binance's general codes: clients know it as one to try again after.
TRY_AGAIN: Final = -1001
TOO_MANY_REQUESTS: Final = -1003

MAX_ID_LENGTH = 36
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
COMBINED = "combined"

Id = int | str | None


class Refused(KlinesError):
    """A request that is answered with an error; `number` is Binance's code, `id` the request's."""

    def __init__(self, number: int, detail: str, id_: Id = None) -> None:
        super().__init__(detail, code="request_invalid")
        self.number = number
        self.id = id_


class Request(NamedTuple):
    """A checked request: `names` are those of streams, or of the property, which is to be set to `value`."""

    method: str
    id: Id
    names: list[str]
    value: bool = False


def read(text: str) -> Request:
    """The request in a message; raises `Refused`."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(INVALID_JSON, f"Invalid JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(INVALID_REQUEST, "Invalid request: must be an object")
    id_ = _id(found.get("id"))
    try:
        return _request(found, id_)
    except Refused as refused:
        refused.id = id_
        raise


def result(value: Any, id_: Id) -> bytes:
    """The answer to a request that succeeded."""
    return msgspec.json.encode({"result": value, "id": id_})


def error(number: int, detail: str, id_: Id) -> bytes:
    """The answer to one that did not."""
    told = {"code": number, "msg": detail}
    return msgspec.json.encode({"error": told, **told, "id": id_})


def _id(value: Any) -> Id:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, str) and len(value) <= MAX_ID_LENGTH:
        return value
    rule = f"a 64-bit integer, a string of at most {MAX_ID_LENGTH} characters, or null"
    raise Refused(INVALID_REQUEST, f"Invalid request: id must be {rule}")


def _request(found: dict[str, Any], id_: Id) -> Request:
    method = found.get("method")
    if not isinstance(method, str) or method not in METHODS:
        shown = "missing" if method is None else f"{echo(str(method))} is unknown"
        raise Refused(INVALID_REQUEST, f"Invalid request: method {shown}; must be one of {' '.join(METHODS)}")
    params = found.get("params")
    if method == "LIST_SUBSCRIPTIONS":
        return Request(method, id_, [])
    if not isinstance(params, list):
        raise Refused(INVALID_REQUEST, f"Invalid request: params of {method} must be a list")
    return _PARAMS[method](method, id_, params)


def _streams(method: str, id_: Id, params: list[Any]) -> Request:
    if not all(isinstance(name, str) for name in params):
        raise Refused(INVALID_REQUEST, "Invalid request: params must be names of streams, as strings")
    return Request(method, id_, params)


def _set(method: str, id_: Id, params: list[Any]) -> Request:
    if len(params) != 2:
        raise Refused(INVALID_REQUEST, f"Invalid request: params of {method} must be a property and its value")
    known = _property(params[0])
    if not isinstance(params[1], bool):
        raise Refused(WRONG_TYPE, "Invalid value type: expected Boolean")
    return Request(method, id_, [known], params[1])


def _get(method: str, id_: Id, params: list[Any]) -> Request:
    if len(params) != 1:
        raise Refused(INVALID_REQUEST, f"Invalid request: params of {method} must be one property")
    return Request(method, id_, [_property(params[0])])


def _property(name: Any) -> str:
    if not isinstance(name, str):
        raise Refused(INVALID_REQUEST, "Invalid request: property name must be a string")
    if name != COMBINED:
        raise Refused(UNKNOWN_PROPERTY, f"Unknown property {echo(name)}: the only one is {COMBINED}")
    return name


_PARAMS: dict[str, Callable[[str, Id, list[Any]], Request]] = {
    "SUBSCRIBE": _streams,
    "UNSUBSCRIBE": _streams,
    "SET_PROPERTY": _set,
    "GET_PROPERTY": _get,
}
