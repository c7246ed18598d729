"""How much a client may use: budgets of reads, writes, upgrades and failed logins, buckets that fill in a minute.

A budget belongs to the API key, without one to the network client; failed logins always to the network client. Reads
are counted by weight, writes by rows. The gate takes 1 before anything is done; a route takes the rest (`spend`) once
it knows what is asked, and before it does it. So a bucket never owes, and what is refused has cost little.

Answers carry what is left, in the fields of draft-ietf-httpapi-ratelimit-headers-10; 429 says when to come back. The
budgets are those of one server process: with several of them a client has up to so many times as much. At most
`MAX_AT_ONCE` reads of a client are answered at once, since a rate bounds nothing that is slow. Where the effective AUTH
is `open` nobody is refused: on a developer's own machine all clients are one. `/health` counts nowhere.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from klines.bucket import Buckets
from klines.errors import TooManyRequests
from klines.settings import Settings
from klines.web.admission.client import CLIENT
from klines.web.admission.methods import SAFE

SECONDS = 60
ACCOUNT = "klines.account"
READS = "klines.reads"
"""In the scope of an upgrade: the account of reads, which a stream's history and its names are taken from."""
GRANT = "klines.grant"
TICKETS = "/api/v1/tickets"
"""A ticket is asked for in order to open a socket, and counts as one."""
UNLIMITED = 6000
"""Without any limit what was used flows back as fast as with this one."""
COUNTED_BY = {"read": "weight", "write": "rows", "upgrade": "upgrades", "login": "failed logins"}
# A page weighs one, and one more for so many rows, and for so many stored bars of which its bars are made.
ROWS_PER_WEIGHT = 500
PARTS_PER_WEIGHT = 1_000
# What reads every token there is.
ALL_TOKENS = 40
MAX_AT_ONCE = 16


Weigh = Callable[[int], None]
"""Takes so much of a client's reads; raises `TooManyRequests`."""


class Account:
    """One client's share of one budget."""

    __slots__ = ("_budget", "_who")

    def __init__(self, budget: Budget, who: str) -> None:
        self._budget, self._who = budget, who

    @property
    def used(self) -> int:
        """What is used and has not flowed back yet, also where nothing is refused."""
        return self._budget.buckets.level(self._who, self._budget.clock()).used

    def spend(self, cost: int) -> None:
        """Take so much; raises `TooManyRequests`, and then nothing is taken."""
        self._budget.spend(self._who, cost)

    def give_back(self, cost: int) -> None:
        """Undo a `spend` of so much."""
        self._budget.buckets.give_back(self._who, cost, self._budget.clock())

    def fields(self) -> list[tuple[bytes, bytes]]:
        """The header fields that tell of it; none where there is no limit."""
        name, limit = self._budget.name, self._budget.limit
        if not limit:
            return []
        level = self._budget.buckets.level(self._who, self._budget.clock())
        left = f'"{name}";r={level.left};t={math.ceil(level.full_in)}'
        return [(b"ratelimit-policy", f'"{name}";q={limit};w={SECONDS}'.encode()), (b"ratelimit", left.encode())]


class Budget:
    """What every client may use of one thing in a minute; without a limit it is only counted."""

    def __init__(self, name: str, limit: int, told: int, clock: Callable[[], float]) -> None:
        self.name, self.limit, self.clock = name, limit, clock
        self.buckets = Buckets(told or UNLIMITED, SECONDS)

    def spend(self, who: str, cost: int) -> None:
        """Take so much of a client's share; raises `TooManyRequests`."""
        now = self.clock()
        if not self.limit:
            self.buckets.add(who, cost, now)
        elif wait := self.buckets.take(who, cost, now):
            raise self.refusal(wait)

    def refusal(self, wait: float) -> TooManyRequests:
        """What is raised when it takes so many seconds until there is enough."""
        detail = f"at most {self.limit} {COUNTED_BY[self.name]} a minute"
        return TooManyRequests(detail, code="rate_limited", retry_after=math.ceil(wait))


class Limits:
    """The budgets of a process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        held = settings.authority != "open"
        limits = {
            "read": settings.klines_read_limit,
            "write": settings.klines_write_limit,
            "upgrade": settings.klines_upgrade_limit,
            "login": settings.klines_login_limit,
        }
        self._budgets = {name: Budget(name, limit if held else 0, limit, clock) for name, limit in limits.items()}
        self._held = held
        self._at_once: Counter[str] = Counter()

    def open_account(self, scope: Any) -> None:
        """Put the account of a request or an upgrade into its scope and take 1; raises `TooManyRequests`."""
        if (name := _budget_of(scope)) is None:
            return
        account = scope[ACCOUNT] = Account(self._budgets[name], who(scope))
        account.spend(1)
        if scope["type"] == "websocket":
            scope[READS] = Account(self._budgets["read"], who(scope))

    def logins(self, scope: Any) -> Account:
        """The account of failed logins."""
        return Account(self._budgets["login"], scope[CLIENT])

    def begin(self, scope: Any) -> Callable[[], None]:
        """Begin to answer; what ends it. Raises `TooManyRequests` for a read beyond those that go on at once."""
        if not self._held or scope["type"] == "websocket" or _budget_of(scope) != "read":
            return _nothing
        client = who(scope)
        if self._at_once[client] >= MAX_AT_ONCE:
            detail = f"at most {MAX_AT_ONCE} reads at once; one must end first"
            raise TooManyRequests(detail, code="too_many_at_once", retry_after=1)
        self._at_once[client] += 1
        return partial(self._end, client)

    def _end(self, client: str) -> None:
        self._at_once[client] -= 1
        if not self._at_once[client]:
            del self._at_once[client]


def spend(scope: Any, cost: int) -> None:
    """Take what a request costs beyond the 1 that the gate took; raises `TooManyRequests`."""
    spend_reads(scope.get(ACCOUNT), cost)


def spend_reads(account: Account | None, cost: int) -> None:
    """The same of an account, which outlives the scope of a socket."""
    if account is not None and cost > 0:
        account.spend(cost)


def page_weight(rows: int, parts: int = 1) -> int:
    """What a page of at most so many rows weighs, each made of at most so many stored bars."""
    return 1 + rows // ROWS_PER_WEIGHT + (rows * parts // PARTS_PER_WEIGHT if parts > 1 else 0)


def who(scope: Any) -> str:
    """Whose share a request uses: its key's, or its network client's."""
    grant = scope.get(GRANT)
    return f"key {grant.key_id}" if grant is not None and grant.key_id else str(scope[CLIENT])


def _nothing() -> None:
    pass


def _budget_of(scope: Any) -> str | None:
    path = scope["path"]
    if path.startswith("/health/"):
        return None
    if scope["type"] == "websocket" or path == TICKETS:
        return "upgrade"
    return "read" if scope["method"] in SAFE else "write"
