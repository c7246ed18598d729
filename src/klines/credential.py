"""API keys and tickets as text, and what of them is kept: their SHA-256.

A key is `klk_<id>_<secret><checksum>`: 12 characters to look it up by, 43 that hold 256 random bits, and 6 of a CRC-32
over all before them. So a scanner finds a leaked key by its form, and a typo is told from an unknown key without
asking anybody. A ticket is `klt_<secret><checksum>`. A fast hash is right for random secrets, which nobody guesses.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Literal, NamedTuple, get_args

from klines.errors import Unauthorized

KEY_PREFIX = "klk_"
TICKET_PREFIX = "klt_"
ID_LENGTH, SECRET_LENGTH, CHECKSUM_LENGTH = 12, 43, 6
SECRET_BITS = 256

Scope = Literal["read", "write", "admin"]
"""`read`: REST reads and streams; `write`: trades in, tokens; `admin`: what is for operators. None implies another."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ENDING = f"[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
_KEY = re.compile(f"{KEY_PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})_{_ENDING}", re.ASCII)
_TICKET = re.compile(TICKET_PREFIX + _ENDING, re.ASCII)


class NewKey(NamedTuple):
    """A key that was just made: `text` is to be shown once, and kept nowhere."""

    key_id: str
    text: str


def new_key() -> NewKey:
    """A key that nobody has."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH))
    return NewKey(key_id, _checked(f"{KEY_PREFIX}{key_id}_{_secret()}"))


def new_ticket() -> str:
    """A ticket that nobody has."""
    return _checked(TICKET_PREFIX + _secret())


def key_id_of(text: str) -> str:
    """The id in a key; raises `Unauthorized` for a text that cannot be one, a typo in most cases."""
    found = _KEY.fullmatch(text)
    if found is None or _checked(text[:-CHECKSUM_LENGTH]) != text:
        raise Unauthorized("this is no API key: is it complete, and without a typo?", code="key_malformed")
    return found[1]


def ticket_of(text: str) -> str:
    """The ticket that a text is; raises `Unauthorized`."""
    if _TICKET.fullmatch(text) is None or _checked(text[:-CHECKSUM_LENGTH]) != text:
        raise Unauthorized("this is no ticket: POST /api/v1/tickets gives one", code="ticket_malformed")
    return text


def digest(text: str) -> bytes:
    """What is stored of a key or a ticket, and compared."""
    return hashlib.sha256(text.encode("ascii")).digest()


def _secret() -> str:
    return _base62(secrets.randbits(SECRET_BITS), SECRET_LENGTH)


def _checked(text: str) -> str:
    return text + _base62(zlib.crc32(text.encode("ascii")), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
