"""Token symbols: one spelling per token.

1 to 32 Unicode letters, digits and `$ . _ - :`, in NFC. ASCII letters are compared case-insensitively and shown
upper-case; other letters keep their case, because case mapping outside ASCII is not a bijection.
"""

from __future__ import annotations

import unicodedata

from klines.errors import InvalidSymbol, echo

MAX_LENGTH = 32
PUNCTUATION = frozenset("$._-:")
RULE = "1 to 32 letters, digits or $ . _ - :"
# Segments that browsers and proxies take out of a path, also when they are quoted.
UNREACHABLE = frozenset({".", ".."})

_UPPER = {ord(lower): ord(lower.upper()) for lower in "abcdefghijklmnopqrstuvwxyz"}


def canonical_symbol(text: str) -> str:
    """The one spelling of `text`; raises `InvalidSymbol` when it breaks the rule."""
    symbol = unicodedata.normalize("NFC", text) if not text.isascii() else text
    if not 1 <= len(symbol) <= MAX_LENGTH or not all(map(_allowed, symbol)):
        raise InvalidSymbol(f"symbol {echo(text)}: must be {RULE}", code="symbol_invalid")
    if symbol in UNREACHABLE:
        raise InvalidSymbol(
            f"symbol {echo(text)}: must not be . or .., which no address can name", code="symbol_invalid"
        )
    return symbol.translate(_UPPER)


def _allowed(character: str) -> bool:
    return character in PUNCTUATION or unicodedata.category(character) in {"Lu", "Ll", "Lt", "Lm", "Lo", "Nd"}
