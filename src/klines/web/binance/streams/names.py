"""The names of Binance's streams, such as `pepe@kline_1m`, and what of them is offered here. Pure.

Source: Binance's "WebSocket Streams for Binance". Names are lower case by custom; symbols are compared as everywhere
here (`klines.symbol`), the rest as it is written.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from klines.errors import BadRequest, echo
from klines.interval import parse_live_interval
from klines.symbol import canonical_symbol

KLINE: Final = "kline"
TRADE: Final = "trade"
AGG_TRADE: Final = "aggTrade"
BOOK_TICKER: Final = "bookTicker"
MINI_TICKER: Final = "miniTicker"
TICKER: Final = "ticker"
OF_TRADES: Final = frozenset({TRADE, AGG_TRADE, BOOK_TICKER})
OF_DAYS: Final = frozenset({MINI_TICKER, TICKER})
MAX_LENGTH = 128

# Clients name a pace; here it is one second in any case.
_PACES = ("", "@1000ms", "@3000ms")
_ALL = {f"!{kind}@arr{pace}": kind for kind in sorted(OF_DAYS) for pace in _PACES}
_OFFERED = "kline_<interval> trade aggTrade bookTicker miniTicker ticker"


class Name(NamedTuple):
    """What a stream carries: `symbol` is canonical, or empty for all tokens; `seconds` the width of its bars."""

    kind: str
    symbol: str = ""
    seconds: int = 0


def parse_name(text: str) -> Name:
    """The stream called `text`; raises `BadRequest` or `InvalidSymbol` saying which rule it breaks."""
    if kind := _ALL.get(text):
        return Name(kind)
    symbol, at, rest = text.partition("@")
    if not at or len(text) > MAX_LENGTH:
        raise _refused(text, "must be <symbol>@<stream>, !miniTicker@arr or !ticker@arr")
    if rest.startswith("depth"):
        raise _refused(text, "there is no order book yet")
    if rest in OF_TRADES | OF_DAYS:
        return Name(rest, canonical_symbol(symbol))
    if not rest.startswith("kline_"):
        raise _refused(text, f"after the @ must stand one of {_OFFERED}")
    interval, offset, _ = rest.removeprefix("kline_").partition("@")
    if offset:
        raise _refused(text, "bars are counted in UTC, without an offset")
    return Name(KLINE, canonical_symbol(symbol), parse_live_interval(interval).seconds)


def _refused(text: str, rule: str) -> BadRequest:
    return BadRequest(f"stream {echo(text)}: {rule}", code="stream_invalid")
