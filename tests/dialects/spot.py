"""A client of the Binance dialect, as small as it can be, and a few trades for it to find."""

from __future__ import annotations

from typing import Any

import httpx

BASE = 1_700_006_400_000  # 2023-11-15T00:00:00Z, a whole day
MINUTE = 60_000
HOUR = 60 * MINUTE


def trade(trade_id: int, time_ms: int, price: str = "1", amount: str = "1", **more: Any) -> dict[str, Any]:
    """A trade as a client posts it."""
    made = {"symbol": "PEPE", "trade_id": trade_id, "time": time_ms, "price": price, "amount": amount, "side": "buy"}
    return made | more


async def post(client: httpx.AsyncClient, *trades: dict[str, Any]) -> None:
    answer = await client.post("/api/v1/trades", json={"trades": list(trades)})
    assert answer.status_code == 200, answer.text


async def get(client: httpx.AsyncClient, path: str, *, headers: dict[str, str] | None = None, **query: Any) -> Any:
    """The body of an answer that must be a success."""
    answer = await client.get(f"/api/v3/{path}", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, path: str, **query: Any) -> tuple[int, str]:
    """Number and message of an answer that must be a refusal."""
    answer = await client.get(f"/api/v3/{path}", params=query)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["code", "msg"]
    return body["code"], body["msg"]


async def dense(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    """The same bars from the native API, gaps filled."""
    # `from` is no keyword argument.
    parameters = {name.rstrip("_"): value for name, value in query.items() if value is not None} | {"fill": "prev"}
    answer = await client.get("/api/v1/klines/PEPE", params=parameters)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["klines"]
    return rows


def row(bar: dict[str, Any]) -> list[Any]:
    """A native bar as one of Binance's rows."""
    names = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
    return [*(bar[name] for name in names), bar["buy_volume"], bar["buy_quote_volume"], "0"]
