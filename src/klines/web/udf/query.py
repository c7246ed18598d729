"""Parameters of the dialect, and the token that one of them names.

Read leniently: unknown ones are ignored, an empty one counts as absent, of a repeated one the first is taken. What is
used must still keep its rule: `BadRequest` names the parameter and the rule.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from sqlalchemy.ext.asyncio import AsyncConnection

from klines.errors import BadRequest, InvalidSymbol, UnknownToken, echo
from klines.models import Token
from klines.queries import tokens
from klines.timestamp import LATEST_US
from klines.web.parameters import MAX_PARAMETERS
from klines.web.services import Incoming, Services

EXCHANGE = "KLINES"
PREFIX = EXCHANGE + ":"
LATEST = LATEST_US // 1_000_000

_SECONDS = re.compile(r"(-?[0-9]{1,100})(\.[0-9]{1,100})?", re.ASCII)
_COUNT = re.compile(r"-?[0-9]{1,100}", re.ASCII)


class Query:
    """The parameters of one request."""

    def __init__(self, request: Incoming) -> None:
        self._values = dict(reversed(_pairs(request.scope["query_string"])))

    def text(self, name: str, most: int = 128) -> str:
        """Text of at most `most` characters; empty if it is absent."""
        text = self._values.get(name, "")
        if len(text) > most or "\0" in text:
            raise BadRequest(f"{name} {echo(text)}: must have at most {most} characters", code=f"{name}_invalid")
        return text

    def required(self, name: str, most: int = 128) -> str:
        """The same, but not absent."""
        text = self.text(name, most)
        if not text:
            raise BadRequest(f"{name} is missing", code=f"{name}_missing")
        return text

    def seconds(self, name: str) -> int | None:
        """Epoch seconds, the next whole ones, brought into 1970 to 2200; charts do send times far outside."""
        if not (text := self.text(name)):
            return None
        found = _SECONDS.fullmatch(text)
        if found is None:
            raise BadRequest(f"{name} {echo(text)}: must be epoch seconds", code=f"{name}_invalid")
        rest = found[2] is not None and found[2].strip(".0") != ""
        return min(max(int(found[1]) + rest, 0), LATEST)

    def count(self, name: str, most: int) -> int | None:
        """A number of things, brought down to `most`; None if it is absent or not positive."""
        if not (text := self.text(name)):
            return None
        if _COUNT.fullmatch(text) is None:
            raise BadRequest(f"{name} {echo(text)}: must be an integer", code=f"{name}_invalid")
        return min(int(text), most) if int(text) > 0 else None


async def find_token(services: Services, connection: AsyncConnection, text: str) -> tuple[str, int]:
    """Canonical symbol and id of the token that `text` names; raises `UnknownToken`, also for what is no symbol."""
    for spelling in spellings(text):
        try:
            return await services.token(connection, spelling)
        except (InvalidSymbol, UnknownToken):
            continue
    raise UnknownToken(f"no token is called {echo(text)}", code="symbol_unknown")


async def read_token(services: Services, connection: AsyncConnection, text: str) -> Token:
    """The token that `text` names, with its last 24 hours; raises `UnknownToken`."""
    symbol, _ = await find_token(services, connection, text)
    token = await tokens.one(connection, symbol, services.now())
    if token is None:
        raise UnknownToken(f"no token is called {symbol}", code="symbol_unknown")
    return token


def spellings(text: str) -> tuple[str, ...]:
    """What `text` may name, first choice first: a symbol may itself have a colon, and a prefix may stand before it."""
    return (text, without_prefix(text)) if text != without_prefix(text) else (text,)


def without_prefix(text: str) -> str:
    """`WIFHAT-USDC` for `KLINES:WIFHAT-USDC`, the way charts name a symbol on an exchange."""
    return text[len(PREFIX) :] if text[: len(PREFIX)].upper() == PREFIX else text


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise BadRequest("the query string is not UTF-8", code="query_invalid") from None
    except ValueError:
        raise BadRequest(f"more than {MAX_PARAMETERS} parameters", code="query_invalid") from None
