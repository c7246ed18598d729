"""Who may do what: the one place that looks at keys and tickets, before any route.

`needed` says by method and path alone which scope a request takes, and knows no route by name but those that are
exceptions: one that is new takes a scope like all others. A key that is presented is checked even where none is needed,
so that a typo shows. It comes in a header, never in an address, where logs and histories would keep it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

from klines.credential import KEY_PREFIX, Scope
from klines.database import open_engine
from klines.errors import BadRequest, Forbidden, Unauthorized
from klines.keyring import Held, Keyring, open_keyring
from klines.queries.keys import Key
from klines.settings import Settings
from klines.web.admission.client import is_forwarded
from klines.web.admission.limits import Account
from klines.web.admission.methods import SAFE
from klines.web.admission.tickets import Tickets

Authority = Literal["open", "write", "all"]

OPEN = frozenset({(), ("datafeed.js",)})
OPEN_BELOW = frozenset({"health", "schema", "assets"})
KEY_NAMES = frozenset({"key", "api_key", "apikey", "access_token", "token"})
# What a query that holds a key has in it, unless it is written with `%`: reading it costs more than to look for these.
KEY_SIGNS = (b"key", b"token", KEY_PREFIX.lower().encode())
BINANCE = "/api/v3"
BEARER = b"bearer"
KEY_HEADERS = "Authorization: Bearer …, or X-API-Key"

logger = logging.getLogger("klines.access")


class Grant(NamedTuple):
    """Who asks (None: nobody we know), what that key may do, and until when (epoch seconds; None: no end is set)."""

    key_id: str | None
    scopes: frozenset[str]
    expires: float | None


ANYBODY = Grant(None, frozenset(), None)


def needed(authority: Authority, method: str, path: str) -> Scope | None:
    """The scope that a request takes, None if it takes none; an upgrade is a GET."""
    # As the router reads a path: what is doubled or trails makes no other route.
    parts = tuple(part for part in path.split("/") if part)
    safe = method in SAFE
    if authority == "open" or method == "OPTIONS" or (safe and (parts in OPEN or parts[0] in OPEN_BELOW)):
        return None
    if parts[:1] == ("metrics",):
        return "admin"
    if parts == ("api", "v1", "tickets"):
        # One that stands for no key opens nothing that is not open without it.
        return "read"
    if safe:
        return "read" if authority == "all" else None
    return "write"


class Access:
    """The gatekeeper of one process."""

    def __init__(self, authority: Authority, keyring: Keyring, tickets: Tickets) -> None:
        self.tickets = tickets
        self._authority: Authority = authority
        self._keyring = keyring
        self._told_of_proxy = False

    async def admit(self, scope: Any, logins: Account) -> Grant:
        """Who asks; raises `BadRequest`, `Unauthorized`, `Forbidden`, and `Unavailable` when nobody can say.

        A ticket is used up by this, and taken out of the scope's query. A key or a ticket that is not in memory takes 1
        from `logins` before the database is asked, which comes back if it is good; raises `TooManyRequests`.
        """
        upgrade = scope["type"] == "websocket"
        method = "GET" if upgrade else scope["method"]
        wanted = needed(self._authority, method, scope["path"])
        ticket = _taken_ticket(scope) if upgrade else None
        _refuse_key_in_query(scope)
        if self._authority == "open":
            self._look_for_proxy(scope["headers"], method, scope["path"])
        grant = await self._grant(_shown(scope["headers"]), ticket, logins)
        if wanted is None or wanted in grant.scopes:
            return grant
        if grant.key_id is None:
            raise Unauthorized(f"this takes an API key with the scope {wanted}: {KEY_HEADERS}", code="key_missing")
        raise Forbidden(f"this takes the scope {wanted}, which the API key does not have", code="scope")

    @contextmanager
    def holding(self, grant: Grant, connection: Held) -> Iterator[None]:
        """While the context is open, the connection is closed with 4401 when the key ends; raises `Unauthorized`."""
        if grant.key_id is None:
            yield
            return
        with self._keyring.holding(grant.key_id, connection):
            yield

    async def _grant(self, key: str | None, ticket: str | None, logins: Account) -> Grant:
        if key is not None and ticket is not None:
            raise BadRequest("a key and a ticket: show one of them", code="credentials_repeated")
        if key is not None:
            if (known := self._keyring.proven(key)) is None:
                with _reserved(logins):
                    known = await self._keyring.prove(key)
            return _of(known)
        if ticket is not None:
            with nullcontext() if self.tickets.knows(ticket) else _reserved(logins):
                key_id = await self.tickets.redeem(ticket)
            return ANYBODY if key_id is None else _of(await self._keyring.named(key_id))
        return ANYBODY

    def _look_for_proxy(self, headers: Iterable[tuple[bytes, bytes]], method: str, path: str) -> None:
        if not is_forwarded(headers):
            return
        if not self._told_of_proxy:
            self._told_of_proxy = True
            logger.warning(
                "requests come through a proxy, and no key is needed:"
                " name the proxy in KLINES_TRUSTED_PROXIES, or set AUTH=write"
            )
        if needed("write", method, path) == "write":
            detail = "the service is open to its own machine alone, and this write comes through a proxy: set AUTH"
            raise Forbidden(detail, code="open_behind_proxy")


@asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[Access]:
    """The gatekeeper for the database at `settings.database_url`."""
    authority = settings.authority
    url = settings.database_url
    # A connection each: whoever takes many tickets must not delay a revocation, nor do the pools of the requests.
    async with open_engine(url) as engine, open_engine(url) as issuing, open_keyring(engine) as keyring:
        logger.info("API keys are needed for %s", {"open": "nothing", "write": "writes"}.get(authority, "everything"))
        if authority != "open" and not keyring.may("write"):
            logger.warning("no API key with the scope write is known: `klines keys create NAME --scopes write`")
        yield Access(authority, keyring, Tickets(issuing))


@contextmanager
def _reserved(logins: Account) -> Iterator[None]:
    """What is done here is a failed login until it ends without an error, so that no crowd slips through."""
    logins.spend(1)
    yield
    logins.give_back(1)


def _of(key: Key) -> Grant:
    return Grant(key.key_id, key.scopes, key.expires)


def _shown(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The one key of a request, None if it shows none; raises `BadRequest` for more."""
    found = [value.strip(b" ").decode("latin-1") for name, value in headers for value in _keys_in(name, value)]
    if len(found) > 1:
        raise BadRequest(f"{len(found)} API keys: show one of them", code="credentials_repeated")
    return found[0] if found else None


def _keys_in(name: bytes, value: bytes) -> tuple[bytes, ...]:
    if name == b"x-api-key":
        return (value,)
    # Clients of Binance send the key of an account there, or an empty one, wherever they connect: only ours is meant.
    if name == b"x-mbx-apikey" and value.startswith(KEY_PREFIX.encode()):
        return (value,)
    if name == b"authorization":
        # Other schemes are between the client and a proxy. Spaces come before a key, and a tab is part of none.
        return (value[len(BEARER) :],) if value.lower().split(None, 1)[:1] == [BEARER] else ()
    return ()


def _refuse_key_in_query(scope: Any) -> None:
    query: bytes = scope["query_string"]
    if not query or (b"%" not in query and not any(sign in query.lower() for sign in KEY_SIGNS)):
        return
    # Binance's parameters are its own; what looks like one of our keys is none of them.
    names = frozenset[str]() if scope["path"].startswith(BINANCE) else KEY_NAMES
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in names or value.startswith(KEY_PREFIX):
            scope["query_string"] = b""
            raise BadRequest(f"a key does not belong into an address: {KEY_HEADERS}", code="key_in_query")


def _taken_ticket(scope: Any) -> str | None:
    """The ticket of an upgrade, taken out of its query."""
    parts = [part.partition(b"=") for part in scope["query_string"].split(b"&")]
    found = [unquote(value.decode("latin-1")) for name, _, value in parts if name == b"ticket"]
    if not found:
        return None
    scope["query_string"] = b"&".join(b"".join(part) for part in parts if part[0] != b"ticket")
    if len(found) > 1:
        raise BadRequest("more than one ticket", code="credentials_repeated")
    return found[0]
