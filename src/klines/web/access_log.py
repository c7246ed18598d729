"""The access log: a line per request, per socket at its end, and per refusal of the server itself."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

from klines import logs

MAX_LINES = 20

access = logging.getLogger("klines.requests")


class Who(NamedTuple):
    """Who sent a request: its network client, and the id of its key or nothing."""

    client: str
    key: str | None


def who_sent(scope: Any) -> Who:
    """As the gate found out, or as much as is known when it did not come so far."""
    grant = scope.get("klines.grant")
    client = scope.get("klines.client") or (scope.get("client") or ("",))[0]
    return Who(str(client), grant.key_id if grant is not None else None)


class AccessLog:
    """All of them, or what failed, and of that not more than anybody can read."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._second = 0
        self._told = self._left_out = 0

    def wanted(self, *, failed: bool) -> bool:
        """Whether a line is to be written."""
        if self._log != "errors":
            return self._log == "all"
        if not failed:
            return False
        second = int(time.monotonic())
        if second != self._second:
            if self._left_out:
                access.warning("%d more that failed were left out of this log", self._left_out)
            self._second, self._told, self._left_out = second, 0, 0
        self._told += 1
        self._left_out += self._told > MAX_LINES
        return self._told <= MAX_LINES

    def tell(self, what: str, name: str, who: Who, **fields: str | float) -> None:
        """One line of the request with this id; its fields are fields of JSON too."""
        fields["client"] = who.client
        if who.key:
            fields["key"] = who.key
        told = " ".join(f"{field}={value}" for field, value in fields.items())
        mark = logs.request_id.set(name)
        access.info("%s %s", what, told, extra={"event": what, **fields})
        logs.request_id.reset(mark)
