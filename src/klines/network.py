"""What settings say of the network around the service: proxies that are believed, web pages that may use it. Pure."""

from __future__ import annotations

import ipaddress
import re

from klines.errors import InvalidSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# As a browser writes it: lower case, a host without a dot at its end, the scheme's own port left out.
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_OWN_PORT = re.compile(r"http://.*:80|https://.*:443")


def networks(text: str) -> tuple[Network, ...]:
    """The networks of `KLINES_TRUSTED_PROXIES`; raises `InvalidSettings`."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise InvalidSettings(f"KLINES_TRUSTED_PROXIES: {error}") from None
    return tuple(found)


def hosts(text: str) -> frozenset[str]:
    """The names of `KLINES_HOSTS`, in lower case; raises `InvalidSettings`."""
    found = frozenset(filter(None, (part.strip().lower() for part in text.split(","))))
    for one in found:
        if _HOST.fullmatch(one) is None:
            raise InvalidSettings(f"KLINES_HOSTS: {one!r}: must be a host name or an address, without a port")
    return found


def origins(text: str) -> frozenset[str]:
    """The origins of `KLINES_ALLOWED_ORIGINS`, as they stand in a request; raises `InvalidSettings`."""
    found = frozenset(filter(None, (part.strip() for part in text.split(","))))
    for one in found:
        if _ORIGIN.fullmatch(one) is None or _OWN_PORT.fullmatch(one):
            rule = "must be scheme://host[:port] in lower case, without a slash at the end, or *"
            raise InvalidSettings(f"KLINES_ALLOWED_ORIGINS: {one!r}: {rule}")
    return found
