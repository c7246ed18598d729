"""Exact decimals: from the text a client sent to the text PostgreSQL stores, without a float in between.

A price or an amount is positive, below 10^24, with at most 36 decimals. Exponents are read (`1e-9` is how
JavaScript writes a tiny number) and never written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

MAX_INTEGER_DIGITS = 24
MAX_DECIMALS = 36

# A look ahead to the first digit that counts: zero is not positive.
_PLAIN = re.compile(r"(?=[0.]*[1-9])[0-9]{1,24}(?:\.[0-9]{1,36})?", re.ASCII)
_NUMBER = re.compile(r"(-?)([0-9]{1,64})(?:\.([0-9]{1,64}))?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)


class InexactError(ValueError):
    """A text that is no positive decimal within the bounds; the message is the rule it breaks."""


def decimal_text(text: str) -> str:
    """`text` as a positive fixed-point decimal of equal value; raises `InexactError` naming the broken rule."""
    if _PLAIN.fullmatch(text):
        return text
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise InexactError("must be a decimal number")
    if match[1]:
        raise InexactError("must be greater than 0")
    value = Decimal(text)
    if value == 0:
        raise InexactError("must be greater than 0")
    digits, exponent = _stripped(value)
    if digits + exponent > MAX_INTEGER_DIGITS:
        raise InexactError(f"must be less than 10^{MAX_INTEGER_DIGITS}")
    if -exponent > MAX_DECIMALS:
        raise InexactError(f"must have at most {MAX_DECIMALS} decimals")
    return fixed(value)


def are_decimal_texts(texts: Iterable[str]) -> bool:
    """Whether `decimal_text` takes all of them as they are."""
    return all(map(_PLAIN.fullmatch, texts))


def fixed(value: Decimal) -> str:
    """`value` in fixed-point, without superfluous zeros: `Decimal("1E-8")` is `0.00000001`."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _stripped(value: Decimal) -> tuple[int, int]:
    """Number of digits and exponent of `value` without trailing zeros, in whatever precision it has."""
    _, digits, exponent = value.as_tuple()
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    return len(digits) - zeros, int(exponent) + zeros
