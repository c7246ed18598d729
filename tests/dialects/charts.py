"""TradingView's side of UDF, said once more in Python: what its adapter asks, and what its library refuses.

After the adapter's published sources (history provider, data pulse provider, datafeed) and the library's pages "UDF"
and "Datafeed: common issues".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import msgspec

_exact = msgspec.json.Decoder(float_hook=Decimal)

COLUMNS = ("t", "o", "h", "l", "c", "v")


class Bar(NamedTuple):
    t: int
    o: Decimal
    h: Decimal
    l: Decimal  # noqa: E741
    c: Decimal
    v: Decimal


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> Any:
    """An answer's body, read without a look at its status, as the adapter does; numbers as Decimals."""
    # `from` and `type` are no keyword arguments.
    answer = await client.get(f"/udf/{path}", params={name.rstrip("_"): value for name, value in query.items()})
    return _exact.decode(answer.content)


async def error(client: httpx.AsyncClient, path: str, **query: Any) -> str:
    """The message of an answer that must be an error."""
    body = await get(client, path, **query)
    assert body["s"] == "error", body
    return str(body["errmsg"])


def bars(body: dict[str, Any]) -> list[Bar]:
    """The bars of an answer of `history`, held to the library's rules."""
    if body["s"] == "no_data":
        assert body == {"s": "no_data"}
        return []
    assert body["s"] == "ok", body
    assert set(body) == {"s", *COLUMNS}
    assert len({len(body[name]) for name in COLUMNS}) == 1
    assert body["t"], "an empty answer that is no no_data: the library asks for ever"
    assert all(type(time) is int for time in body["t"])
    assert body["t"] == sorted(set(body["t"])), "data must have unique times, ascending"
    rows = [Bar(t, *map(Decimal, row)) for t, *row in zip(*(body[name] for name in COLUMNS), strict=True)]
    for row in rows:
        assert row.l <= min(row.o, row.c) <= max(row.o, row.c) <= row.h
    return rows


async def history(client: httpx.AsyncClient, **query: Any) -> list[Bar]:
    return bars(await get(client, "history", **query))


@dataclass
class Chart:
    """One chart: its bars, the window it asks for next, and the last bar that a poll brought."""

    client: httpx.AsyncClient
    symbol: str
    resolution: str
    seconds: int
    countback: int
    shown: list[Bar] = field(default_factory=list)
    complete: bool = False

    async def back(self, to: int) -> None:
        """One step into the past: `from` is a guess, `to` the oldest bar that the chart has."""
        query = {"from": to - self.countback * self.seconds, "to": to, "countback": self.countback}
        page = await history(self.client, symbol=self.symbol, resolution=self.resolution, **query)
        assert all(bar.t < to for bar in page), "a bar at or after `to`: it would be on the chart twice"
        # The library goes on until it has as many as it asked for, or is told that there are no more.
        self.complete = not page
        self.shown = page + self.shown

    async def all(self, to: int) -> list[Bar]:
        """The whole history, as it is read by scrolling back."""
        while not self.complete:
            await self.back(self.shown[0].t if self.shown else to)
        assert [bar.t for bar in self.shown] == sorted({bar.t for bar in self.shown})
        return self.shown

    async def poll(self, now: int, **query: Any) -> list[Bar]:
        """What a poll at `now` shows: the adapter asks for two bars of the last ten intervals."""
        asked = {"from": now - 10 * self.seconds, "to": now} | query
        page = await history(self.client, symbol=self.symbol, resolution=self.resolution, **asked)
        if not page or (self.shown and page[-1].t < self.shown[-1].t):
            return []
        if not self.shown or page[-1].t > self.shown[-1].t:
            assert len(page) >= 2, "Not enough bars in history for proper pulse update. Need at least 2."
            return page[-2:]
        return page[-1:]
