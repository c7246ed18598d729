"""What stands before the routes: requests and upgrades that no route may see, and the fields that every answer has."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from litestar import Litestar
from litestar.types import Receive, Send

from klines.errors import KlinesError
from klines.metrics.instruments import Instruments
from klines.settings import Settings, alone
from klines.web.admission.client import Clients
from klines.web.admission.deadline import in_time
from klines.web.admission.hosts import Hosts
from klines.web.admission.limits import ACCOUNT, GRANT, Account, Limits
from klines.web.admission.origins import Headers, Origins
from klines.web.admission.templates import Templates
from klines.web.guard import completed
from klines.web.page import ASSETS, DATAFEED
from klines.web.problem import Problem, refuse
from klines.web.refusals import refuse_in_kind

ROUTE = "klines.route"
"""In the scope of a request that was refused here: the template of its address."""
END = "klines.end"
"""In the scope of a request that is answered: what is to be called when it has been."""
AUTHORITY = "klines.authority"
"""In the scope of a request whose target is a whole address: the host and port in it."""
FRAMING = frozenset({"transfer_encoding_invalid", "transfer_encoding_unsupported"})
CLOSING = {"Connection": "close"}
SOCKETS = frozenset({"ws", "stream"})
"""The first segments of addresses that take upgrades."""
STARTS = {"http": "http.response.start", "websocket": "websocket.http.response.start"}
# Binance's names for what a client has used of its reads.
USED = (b"x-mbx-used-weight", b"x-mbx-used-weight-1m")
MAX_TARGET = 8 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

_HOST = re.compile(rb"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_OFFERED = re.compile(r"\s*(\*/\*|application/(\*|json|problem\+json|openapi\+json|vnd\.oai\.openapi\+json))\s*(;|$)")
# Everything else has one form only, whatever a browser says it likes best.
JSON_PATHS = ("/api/", "/health/", "/schema")


def authority_of(target: bytes) -> bytes:
    """The host and port in a target that is a whole address (RFC 9112, 3.2.2)."""
    return target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]


def gate(app: Litestar, settings: Settings, instruments: Instruments) -> Gate:
    """Wrap the application."""
    return Gate(app, settings, instruments)


class Gate:
    """Malformed, Origin, client, access, limits, and only then the routes: what stands against it is answered here.

    A refusal is written in the words of the dialect whose address was asked for. `OPTIONS` of a page that may use the
    service is answered here too; `HEAD` comes from the GET route. What is refused is counted by its code, and under the
    template of the route that it asked for.
    """

    def __init__(self, app: Litestar, settings: Settings, instruments: Instruments) -> None:
        self._app = app
        self._routes = in_time(app)
        self._settings = settings
        self._hosts = Hosts(settings.klines_hosts, alone=alone(settings))
        self._origins = Origins(settings.klines_allowed_origins)
        self._clients = Clients(settings.klines_trusted_proxies, warns=settings.authority != "open")
        self._limits = Limits(settings)
        self._instruments = instruments
        self._templates = Templates(route.path_format for route in app.routes)
        # On the developer's own machine all clients are one.
        self._all_are_one = settings.authority == "open"

    def share(self, peer: str) -> str | None:
        """The network client whose share of the connections a peer uses; None: it is bounded by no share."""
        return None if self._all_are_one else self._clients.of_peer(peer)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        upgrade = scope["type"] == "websocket"
        send = self._answering(scope, send)
        problem = _upgrade_problem(scope) if upgrade else _problem_of(scope)
        if problem is not None:
            self._count(problem.code, scope)
            # Whoever frames a body as we do not would take its rest for the next request.
            await refuse(problem, CLOSING if problem.code in FRAMING else {}, send, upgrade=upgrade)
        elif (fields := self._origins.preflight(scope)) is not None:
            await _nothing(fields, send)
        elif (error := await self._refusal(scope)) is not None:
            self._count(error.code, scope)
            await refuse_in_kind(error, scope, send)
        else:
            # The server itself drops the body of an answer to HEAD; a copy leaves it the method to see.
            head = scope.get("method") == "HEAD"
            try:
                await self._routes(scope | {"method": "GET"} if head else scope, receive, send)
            finally:
                scope[END]()

    def _count(self, code: str, scope: Any) -> None:
        self._instruments.turned_away("gate", code)
        if template := self._templates.of(scope["path"]):
            scope[ROUTE] = template

    async def _refusal(self, scope: Any) -> KlinesError | None:
        try:
            self._hosts.check(scope)
            self._origins.check(scope)
            self._clients.note(scope)
            await self._admit(scope)
            self._limits.open_account(scope)
            scope[END] = self._limits.begin(scope)
        except KlinesError as error:
            return error
        return None

    async def _admit(self, scope: Any) -> None:
        if (access := self._app.state.get("access")) is not None:
            scope[GRANT] = await access.admit(scope, self._limits.logins(scope))

    def _answering(self, scope: Any, send: Send) -> Send:
        started = STARTS[scope["type"]]
        private = self._settings.authority == "all" and not _is_page(scope["path"])
        told = self._origins.fields(scope)
        any_origin = self._origins.any
        binance = scope["path"].startswith("/api/v3/")

        async def answering(message: Any) -> None:
            if message["type"] == started:
                account: Account | None = scope.get(ACCOUNT)
                fields = [*told, *(account.fields() if account else [])]
                if binance and account:
                    fields += [(name, str(account.used).encode()) for name in USED]
                message["headers"] = completed(message["headers"], fields, private=private, any_origin=any_origin)
            await send(message)

        return answering


def _problem_of(scope: Any) -> Problem | None:
    return _target_problem(scope) or _headers_problem(scope) or _framing_problem(scope) or _accept_problem(scope)


def _upgrade_problem(scope: Any) -> Problem | None:
    problem = _target_problem(scope) or _headers_problem(scope)
    if problem is None and scope["path"].split("/")[1] not in SOCKETS:
        return _problem(404, "Not found", "sockets are at /ws/… and /stream", "route_unknown")
    return problem


def _target_problem(scope: Any) -> Problem | None:
    raw_path = scope.get("raw_path") or scope["path"].encode()
    if len(raw_path) + len(scope["query_string"]) > MAX_TARGET:
        return _problem(414, "URI too long", f"the target has more than {MAX_TARGET} bytes", "uri_too_long")
    path = unquote_to_bytes(raw_path)
    if b"\0" in path:
        return _problem(400, "Bad request", "the path holds a NUL", "path_invalid")
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return _problem(400, "Bad request", "the path is not UTF-8", "path_invalid")
    return None


def _headers_problem(scope: Any) -> Problem | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        detail = f"at most {MAX_HEADERS} header fields of {MAX_HEADER_BYTES} bytes together"
        return _problem(431, "Request header fields too large", detail, "headers_too_large")
    hosts = [value for name, value in headers if name == b"host"]
    # Only HTTP/1.0 may come without one (RFC 9112, 3.2).
    least = 0 if scope["http_version"] == "1.0" else 1
    if not least <= len(hosts) <= 1 or any(_HOST.fullmatch(host) is None for host in hosts):
        return _problem(400, "Bad request", "Host must be one host name with at most a port", "host_invalid")
    named: bytes = scope.get(AUTHORITY, b"")
    if named and [host.lower() for host in hosts] not in ([], [named.lower()]):
        return _problem(400, "Bad request", "the target names another host than Host does", "host_invalid")
    return None


def _framing_problem(scope: Any) -> Problem | None:
    codings = [value.strip().lower() for name, value in scope["headers"] if name == b"transfer-encoding"]
    if codings and scope["http_version"] == "1.0":
        return _problem(400, "Bad request", "HTTP/1.0 has no Transfer-Encoding", "transfer_encoding_invalid")
    if codings and codings != [b"chunked"]:
        detail = "Transfer-Encoding must be chunked alone"
        return _problem(501, "Not implemented", detail, "transfer_encoding_unsupported")
    return None


def _accept_problem(scope: Any) -> Problem | None:
    if not scope["path"].startswith(JSON_PATHS):
        return None
    accepted = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    if not accepted or any(_OFFERED.match(part) for part in ",".join(accepted).split(",")):
        return None
    return _problem(406, "Not acceptable", "answers are application/json", "not_acceptable")


def _problem(status: int, title: str, detail: str, code: str) -> Problem:
    return Problem(title=title, status=status, detail=detail, code=code)


def _is_page(path: str) -> bool:
    return path in {"/", f"/{DATAFEED}"} or path.startswith(f"/{ASSETS}")


async def _nothing(fields: Headers, send: Send) -> None:
    start: Any = {"type": "http.response.start", "status": 204, "headers": fields}
    await send(start)
    end: Any = {"type": "http.response.body", "body": b"", "more_body": False}
    await send(end)
