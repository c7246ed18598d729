"""Trades as clients post them: JSON or NDJSON in, checked trades out, or an error that names every broken item.

An item is `{"symbol", "trade_id", "time", "price", "amount", "side"}`. `time` is epoch milliseconds or ISO-8601 with
an offset; `time_us` (epoch microseconds) may stand beside it or in its place, so that what GET answers can be posted
again. Decimals are JSON strings or numbers and are taken from their text. Unknown fields are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import msgspec

from klines.errors import MAX_REPORTED_ITEMS, BadRequest, InvalidItems, ItemError, TooLarge
from klines.models import Side, Trade, TradeColumns, columns_of
from klines.timestamp import TimeError, iso_us
from klines.trade_rules import BrokenRule, TradeRules

MAX_JSON_TRADES = 10_000
MAX_NDJSON_LINES = 100_000


class TradeItem(msgspec.Struct, forbid_unknown_fields=True):
    """One trade in a request; decimals are still the bytes that the client sent."""

    symbol: str
    trade_id: int
    price: msgspec.Raw
    amount: msgspec.Raw
    side: str
    time: int | str | None = None
    time_us: int | None = None


class PlainItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A trade as most programs write it, with decimals as strings."""

    symbol: str
    trade_id: int
    price: str
    amount: str
    side: str
    time: int | None = None
    time_us: int | None = None


class TradeBatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a JSON request; items stay raw, so that one bad item can be named without losing the others."""

    trades: list[msgspec.Raw]


class PlainBatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a JSON request in which all items are plain."""

    trades: list[PlainItem]


_batch = msgspec.json.Decoder(TradeBatch)
_item = msgspec.json.Decoder(TradeItem)
_plain_batch = msgspec.json.Decoder(PlainBatch)
_plain_item = msgspec.json.Decoder(PlainItem)


def trades_of_json(body: bytes, rules: TradeRules) -> TradeColumns:
    """The trades of `{"trades": [...]}`; raises `BadRequest`, `TooLarge` or `InvalidItems`."""
    if (plain := _plain_columns(lambda: _plain_batch.decode(body).trades, MAX_JSON_TRADES, rules)) is not None:
        return plain
    try:
        raw = _batch.decode(body).trades
    except msgspec.ValidationError as error:
        raise BadRequest(f'the body must be {{"trades": […]}}: {error}', code="body_invalid") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if len(raw) > MAX_JSON_TRADES:
        raise TooLarge(f"{len(raw)} trades: at most {MAX_JSON_TRADES} in one request", code="batch_too_large")
    return _checked(raw, rules, lambda index: f"trades[{index}]")


def trades_of_ndjson(body: bytes, rules: TradeRules) -> TradeColumns:
    """The trades of one JSON object per line; blank lines count but say nothing. Raises as `trades_of_json`."""
    if (plain := _plain_columns(lambda: _plain_lines(body), MAX_NDJSON_LINES, rules)) is not None:
        return plain
    lines = body.split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > MAX_NDJSON_LINES:
        raise TooLarge(f"{len(lines)} lines: at most {MAX_NDJSON_LINES} in one request", code="batch_too_large")
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    if not numbers:
        raise BadRequest("the body is empty", code="body_empty")
    return _checked([lines[number] for number in numbers], rules, lambda index: f"line {numbers[index] + 1}")


def _plain_columns(items_of: Callable[[], list[PlainItem]], most: int, rules: TradeRules) -> TradeColumns | None:
    """All trades of a body at once, where nothing about it is in question; None where each has to be looked at."""
    try:
        items = items_of()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(items) <= most:
        return None
    times, times_us = [item.time for item in items], [item.time_us for item in items]
    # One of both in all of them, and never the other.
    if times_us.count(None) == len(items) and None not in times:
        times_us = [1000 * cast(int, time_ms) for time_ms in times]
    elif None in times_us or times.count(None) != len(items):
        return None
    return rules.columns(
        TradeColumns(
            [item.symbol for item in items],
            [item.trade_id for item in items],
            cast(list[int], times_us),
            [item.price for item in items],
            [item.amount for item in items],
            cast(list[Side], [item.side for item in items]),
        )
    )


def _plain_lines(body: bytes) -> list[PlainItem]:
    """The items of lines that are each one object from the first byte to the last, else none."""
    items = _plain_item.decode_lines(body)
    # The decoder itself would let objects share a line, or take several; no object here has another one inside.
    lines = body.removesuffix(b"\n")
    one_each = lines.count(b"\n") == lines.count(b"}\n{") == len(items) - 1
    return items if one_each else []


def _not_json(error: Exception) -> BadRequest:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return BadRequest(f"the body is not JSON: {reason}", code="json_invalid")


def _checked(raw: Iterable[bytes | msgspec.Raw], rules: TradeRules, place: Callable[[int], str]) -> TradeColumns:
    trades: list[Trade] = []
    errors: list[ItemError] = []
    for index, item in enumerate(raw):
        try:
            trades.append(_trade(_item.decode(item), rules))
        except BrokenRule as broken:
            errors.append(ItemError(f"{place(index)}.{broken.field}", broken.rule))
        except msgspec.ValidationError as error:
            errors.append(_item_error(place(index), str(error)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bad = _not_json(error)
            raise BadRequest(f"{place(index)}: {bad.detail}", code=bad.code) from None
        if len(errors) == MAX_REPORTED_ITEMS:
            break
    if errors:
        first = errors[0]
        raise InvalidItems(f"{first.loc}: {first.msg}; nothing was stored", code="trade_invalid", errors=tuple(errors))
    return columns_of(trades)


def _trade(item: TradeItem, rules: TradeRules) -> Trade:
    price, amount = _number_text("price", item.price), _number_text("amount", item.amount)
    return rules.trade(item.symbol, item.trade_id, _time_us(item), price, amount, item.side)


def _number_text(field: str, raw: msgspec.Raw) -> str:
    text = bytes(raw).decode("ascii", "replace")
    if text[:1] == '"':
        return text[1:-1] if "\\" not in text else str(msgspec.json.decode(raw))
    if text[:1] not in "-0123456789" or not text:
        raise BrokenRule(field, "must be a decimal number, as a string or a number")
    return text


def _time_us(item: TradeItem) -> int:
    if item.time is None:
        if item.time_us is None:
            raise BrokenRule("time", "is missing")
        return item.time_us
    try:
        time_us = item.time * 1000 if isinstance(item.time, int) else iso_us(item.time)
    except TimeError as error:
        raise BrokenRule("time", str(error)) from None
    if item.time_us is None:
        return time_us
    if item.time_us // 1000 != time_us // 1000:
        raise BrokenRule("time_us", "must lie in the millisecond of time")
    return item.time_us


def _item_error(place: str, message: str) -> ItemError:
    rule, _, path = message.partition(" - at `$")
    if rule.startswith("Expected `int | str | null`"):
        rule = "must be epoch milliseconds or ISO-8601 with an offset"
    return ItemError(place + path.rstrip("`"), rule)
