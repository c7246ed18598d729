"""Which web pages may use the service: its own, and those of `KLINES_ALLOWED_ORIGINS`, compared exactly.

A browser sends `Origin` with every upgrade, whatever page asks for it, and no rule of its own keeps that page from
reading what comes (RFC 6455 10.2). So an upgrade, and a request that changes something, from any other page is
refused; who sends no `Origin` is no page. Reads over HTTP are kept from other pages by the browser: only pages of the
list are told that they may (CORS, the Fetch standard), each by name and never with credentials.
"""

from __future__ import annotations

from typing import Any

from klines.errors import Forbidden, echo
from klines.network import origins
from klines.web.admission.methods import SAFE

ANY = "*"
METHODS = "GET, HEAD, POST, PUT"
ACCEPTED = "Authorization, X-API-Key, X-MBX-APIKEY, Content-Type, If-None-Match, X-Request-ID, traceparent"
EXPOSED = "RateLimit, RateLimit-Policy, Retry-After, ETag, X-Request-ID, X-MBX-USED-WEIGHT, X-MBX-USED-WEIGHT-1M"
REMEMBERED_SECONDS = "600"

Headers = list[tuple[bytes, bytes]]
_VARY = (b"vary", b"Origin")
_EXPOSES = [(b"access-control-expose-headers", EXPOSED.encode())]
_ALLOWS = [
    (b"access-control-allow-methods", METHODS.encode()),
    (b"access-control-allow-headers", ACCEPTED.encode()),
    (b"access-control-max-age", REMEMBERED_SECONDS.encode()),
]
_OWN_PORTS = {"http": ":80", "https": ":443"}


class Origins:
    """The rule. A page is the service's own if it has the name in `Host`, which `admission.hosts` has checked."""

    def __init__(self, allowed: str) -> None:
        self._allowed = origins(allowed)

    @property
    def any(self) -> bool:
        """Whether every page may use the service."""
        return ANY in self._allowed

    def check(self, scope: Any) -> None:
        """Raise `Forbidden` for an upgrade or a change that a stranger's page asks for."""
        if scope["type"] == "http" and scope["method"] in SAFE:
            return
        for origin in _all(scope, b"origin"):
            if not self._allows(origin) and not self._is_own(origin, scope):
                rule = "it is neither the service's own nor in KLINES_ALLOWED_ORIGINS"
                raise Forbidden(f"a page of origin {echo(origin)} may not do this: {rule}", code="origin_refused")

    def preflight(self, scope: Any) -> Headers | None:
        """What a page of the list is told, beyond `fields`, when it asks what it may send; else None: go on."""
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            return None
        asks = _all(scope, b"access-control-request-method")
        return _ALLOWS if asks and len(self.fields(scope)) > 1 else None

    def fields(self, scope: Any) -> Headers:
        """What an answer tells the browser of a page of the list; others are told nothing."""
        if not self._allowed:
            return []
        given = _all(scope, b"origin")
        if self.any:
            return [(b"access-control-allow-origin", b"*"), *_EXPOSES] if given else []
        if len(given) == 1 and given[0] in self._allowed:
            return [(b"access-control-allow-origin", given[0].encode("latin-1")), *_EXPOSES, _VARY]
        return [_VARY]

    def _allows(self, origin: str) -> bool:
        return self.any or origin in self._allowed

    def _is_own(self, origin: str, scope: Any) -> bool:
        scheme, _, place = origin.partition("://")
        port = _OWN_PORTS.get(scheme)
        hosts = _all(scope, b"host")
        if port is None or not hosts:
            return False
        host = hosts[0].lower()
        return place == host or place == host.removesuffix(port)


def _all(scope: Any, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
