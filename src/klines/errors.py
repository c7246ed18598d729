"""Every error the service raises on purpose, and what a caller sees of it.

    KlinesError                       500, exit 1
    ├── BadRequest                    400  unparsable, or a bad parameter
    │   └── InvalidSymbol             400
    ├── Unauthorized                  401  no key, or one that is not valid; close 4401
    ├── Forbidden                     403  the key, the origin or the mode does not allow it
    ├── NotFound                      404
    │   └── UnknownToken              404
    ├── RequestTimeout                408  the body did not arrive in time
    ├── Conflict                      409
    ├── TooLarge                      413
    ├── UnsupportedMediaType          415
    ├── InvalidItems                  422  well-formed, but an item breaks a rule
    ├── UpgradeRequired               426  a socket's address, asked for without an upgrade
    ├── TooManyRequests               429  the client has used up its share for now
    ├── Unavailable                   503  the database cannot answer now, or the server is full
    └── CannotStart                   exit 3  one line says what and why
        └── InvalidSettings           exit 3

`code` is stable: clients may match on it. `detail` is for people and may change.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

MAX_REPORTED_ITEMS = 20
MAX_ECHO = 64


class ItemError(msgspec.Struct, frozen=True):
    """One broken rule: where (`trades[3].price`, `line 17`, `query.limit`) and which rule."""

    loc: str
    msg: str


class KlinesError(Exception):
    """Root of the tree; `errors` names at most `MAX_REPORTED_ITEMS` places."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    exit_code: ClassVar[int] = 1

    def __init__(self, detail: str, *, code: str = "internal", errors: tuple[ItemError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.errors = errors[:MAX_REPORTED_ITEMS]


class BadRequest(KlinesError):
    """The request cannot be parsed, or one of its parameters is wrong."""

    status = 400
    title = "Bad request"
    exit_code = 2


class InvalidSymbol(BadRequest):
    """A symbol that breaks the naming rule; see `klines.symbol`."""


class Unauthorized(KlinesError):
    """No API key, or one that is not valid (any more)."""

    status = 401
    title = "Unauthorized"


class Forbidden(KlinesError):
    """Who asks is known, and may not do this."""

    status = 403
    title = "Forbidden"


class NotFound(KlinesError):
    """Nothing lives at this address."""

    status = 404
    title = "Not found"
    exit_code = 2


class UnknownToken(NotFound):
    """A well-formed symbol that no trade and no PUT has registered."""


class RequestTimeout(KlinesError):
    """The client did not send its body in time."""

    status = 408
    title = "Request timeout"


class Conflict(KlinesError):
    """What is asked contradicts what is stored."""

    status = 409
    title = "Conflict"


class TooLarge(KlinesError):
    """More bytes or more items than one request may carry."""

    status = 413
    title = "Content too large"
    exit_code = 2


class UnsupportedMediaType(KlinesError):
    """A body in a format or an encoding that this route does not read."""

    status = 415
    title = "Unsupported media type"
    exit_code = 2


class InvalidItems(KlinesError):
    """A well-formed body in which items break a rule; nothing of it was stored."""

    status = 422
    title = "Unprocessable content"
    exit_code = 2


class UpgradeRequired(KlinesError):
    """This address speaks WebSocket, and the request did not ask for it."""

    status = 426
    title = "Upgrade required"


class TooManyRequests(KlinesError):
    """The client has used up its share; the same request succeeds `retry_after` seconds later."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, *, code: str, retry_after: int) -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class Unavailable(KlinesError):
    """The database cannot answer now, or there is no room; the same request may succeed later."""

    status = 503
    title = "Service unavailable"
    answered = False
    """Whether the database itself has said so: then it is there."""


class CannotStart(KlinesError):
    """The process cannot start; `detail` is the one line that says what and why."""

    title = "Cannot start"
    exit_code = 3


class InvalidSettings(CannotStart):
    """An environment variable with a value that breaks its rule."""


def echo(text: str) -> str:
    """Input as it may be shown in an error: cut to `MAX_ECHO` characters, control characters escaped."""
    shown = text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "…"
    return ascii(shown) if not shown.isprintable() else repr(shown)
