"""Who sent a request: the network client, as `scope["klines.client"]`.

That is the peer of the socket; behind proxies that `KLINES_TRUSTED_PROXIES` names, the right-most hop of
`X-Forwarded-For` that is none of them, as everything left of it is the client's own tale. What the header says is not
looked at when anybody else sends it. IPv6 clients are counted by their /64, which one customer has at least; IPv4
addresses written as IPv6 are IPv4. `X-Forwarded-Proto` is believed on the same terms.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from klines.network import networks

CLIENT = "klines.client"
FORWARDED = frozenset({b"x-forwarded-for", b"forwarded"})
UNKNOWN = "unknown"
MAX_HOPS = 32
CUSTOMER = 64
"""Bits of an IPv6 address that tell customers apart."""
_SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss"), "ws": ("http", "ws"), "wss": ("https", "wss")}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

logger = logging.getLogger("klines.access")


class Clients:
    """Finds clients behind the proxies that a setting names; with `warns` it says once that there is another."""

    def __init__(self, trusted: str, *, warns: bool = False) -> None:
        self._trusted = networks(trusted)
        self._warns = warns

    def note(self, scope: Any) -> None:
        """Put the client into a scope, and the scheme it used."""
        peer = _parsed(scope["client"][0] if scope.get("client") else "")
        if peer is None or not self._is_trusted(peer):
            scope[CLIENT] = _named(peer)
            self._look_for_proxy(scope)
            return
        scope[CLIENT] = _named(self._hop(scope["headers"], peer))
        told = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        schemes = _SCHEMES.get(told[-1].decode("latin-1").strip().lower()) if told else None
        if schemes:
            scope["scheme"] = schemes[scope["type"] == "websocket"]

    def of_peer(self, address: str) -> str | None:
        """The client that a connection from this address is; None: a proxy that is trusted, of whichever client."""
        peer = _parsed(address)
        return None if peer is not None and self._is_trusted(peer) else _named(peer)

    def _hop(self, headers: list[tuple[bytes, bytes]], peer: Address) -> Address:
        told = ",".join(value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for")
        client = peer
        for hop in reversed(told.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            found = _parsed(_without_port(hop.strip()))
            if found is None:
                # Whoever wrote that, the last address we have from a proxy of ours is the best we know.
                break
            client = found
            if not self._is_trusted(found):
                break
        return client

    def _look_for_proxy(self, scope: Any) -> None:
        if self._warns and is_forwarded(scope["headers"]):
            self._warns = False
            logger.warning(
                "requests come through a proxy at %s, which KLINES_TRUSTED_PROXIES does not name:"
                " all clients behind it share the budgets of one",
                scope[CLIENT],
            )

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def is_forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request says that it came through a proxy."""
    return any(name in FORWARDED for name, _ in headers)


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


@lru_cache(4096)
def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(4096)
def _named(address: Address | None) -> str:
    if address is None:
        return UNKNOWN
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, CUSTOMER), strict=False))
