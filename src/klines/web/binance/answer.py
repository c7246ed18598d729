"""Answers: JSON that no cache may keep, with times in the unit that the client chose."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, NamedTuple

import msgspec
from litestar import Response

from klines.exact import fixed
from klines.precision import price_decimals
from klines.web.binance.refusal import INVALID_TIME_UNIT, Refusal
from klines.web.services import Incoming

TIME_UNIT = "x-mbx-time-unit"
MIN_AVERAGE_DECIMALS = 8

# Wider than any sum of stored decimals or product of two.
EXACT = Context(prec=200, rounding=ROUND_HALF_UP)


class Unit(NamedTuple):
    """The unit of times in an answer, in microseconds: 1000, or 1 on demand."""

    us: int = 1000

    def of_us(self, time_us: int) -> int:
        """A moment, cut to the unit."""
        return time_us // self.us

    def of_ms(self, time_ms: int) -> int:
        """A moment told in milliseconds."""
        return time_ms * 1000 // self.us


def unit_of(request: Incoming) -> Unit:
    """The unit asked for with the header `X-MBX-TIME-UNIT`; raises `Refusal` for one that is neither."""
    wanted = request.headers.get(TIME_UNIT, "MILLISECOND").upper()
    if wanted not in {"MICROSECOND", "MILLISECOND"}:
        raise Refusal(INVALID_TIME_UNIT, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return Unit(1 if wanted == "MICROSECOND" else 1000)


def answer(value: Any) -> Response[bytes]:
    """The answer with a value as its body."""
    return answered(msgspec.json.encode(value))


def answered(body: bytes) -> Response[bytes]:
    """The answer with a body that is JSON already."""
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


def product(price: str, amount: str) -> str:
    """Price times amount, exactly."""
    return fixed(EXACT.multiply(Decimal(price), Decimal(amount)))


def average(quote_volume: Decimal, volume: Decimal, price: str | None) -> str:
    """Quote volume per volume, to as many decimals as `price` is shown with, at least 8; without volume `price`."""
    if not volume:
        return price or "0"
    decimals = max(MIN_AVERAGE_DECIMALS, price_decimals(price))
    return fixed(EXACT.divide(quote_volume, volume).quantize(Decimal(1).scaleb(-decimals), context=EXACT))
