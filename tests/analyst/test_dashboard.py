"""The Grafana dashboard: every query runs with the analyst's rights in both profiles and gives what its panel shows.

Queries are filled in as Grafana does: variables in the browser, then the macros of its PostgreSQL data source.
"""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from klines.interval import NAMES
from klines.queries.analyst import ROLE
from klines.timestamp import to_us
from tests import oracle
from tests.analyst.market import DAY, HOUR, MINUTE, MOONCAT, Market, as_analyst

DEPLOY = Path(__file__).parents[2] / "deploy" / "grafana"
BOARD: dict[str, Any] = json.loads((DEPLOY / "dashboards" / "klines.json").read_text("utf-8"))
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in BOARD["panels"]}
SOURCE = yaml.safe_load((DEPLOY / "provisioning" / "datasources" / "klines.yaml").read_text("utf-8"))["datasources"][0]
NUMBERS = {"numeric", "int8", "int4", "float8"}
MACRO = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")

every_panel = pytest.mark.parametrize("title", PANELS)


def filled_in(sql: str, start: datetime, end: datetime, interval: str = "1m", step_ms: int = 60_000) -> str:
    """The statement that Grafana sends."""
    given = {"token:sqlstring": f"'{MOONCAT}'", "interval": interval, "__interval_ms": str(step_ms)}
    sql = re.sub(r"\$\{([\w:]+)\}", lambda found: given[found[1]], sql)
    sql = re.sub(r"\$(\w+)(?![\w(])", lambda found: given[found[1]], sql)
    moments = [f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}'" for moment in (start, end)]

    def expand(found: re.Match[str]) -> str:
        macros = {
            "__timeFilter": f"{found[2]} BETWEEN {moments[0]} AND {moments[1]}",
            "__timeFrom": moments[0],
            "__timeTo": moments[1],
        }
        return macros[found[1]]

    sent = MACRO.sub(expand, sql)
    assert "$" not in sent
    return sent


async def asked(market: Market, title: str, **how: Any) -> tuple[list[asyncpg.Record], dict[str, str], int]:
    """Rows, the types of the columns in order, and the database's `now` in epoch microseconds."""
    async with as_analyst(market.database) as connection:
        now = await connection.fetchval("SELECT now()")
        sql = filled_in(PANELS[title]["targets"][0]["rawSql"], now - timedelta(hours=20), now, **how)
        statement = await connection.prepare(sql)
        return await statement.fetch(), {a.name: a.type.name for a in statement.get_attributes()}, to_us(now)


def panel_of(kind: str) -> str:
    return next(title for title, panel in PANELS.items() if panel["type"] == kind)


@every_panel
async def test_a_query_gives_what_its_panel_shows(market: Market, title: str) -> None:
    rows, columns, _ = await asked(market, title)
    kind = PANELS[title]["type"]
    assert rows, "a panel must show something"
    numbers = {name for name, type_ in columns.items() if type_ in NUMBERS}
    if kind in {"candlestick", "timeseries"}:
        assert next(iter(columns.items())) == ("time", "timestamptz")
        assert columns.keys() - numbers == {"time"}
        times = [row["time"] for row in rows]
        assert times == sorted(set(times))
    if kind == "candlestick":
        assert {"open", "high", "low", "close", "volume"} <= numbers
        assert set(PANELS[title]["options"]["fields"].values()) <= numbers
    if kind == "stat":
        assert (len(rows), set(columns)) == (1, numbers)
    if kind == "table":
        assert columns["symbol"] == "text"
    named = {override["matcher"]["options"] for override in PANELS[title]["fieldConfig"]["overrides"]}
    assert named <= columns.keys()


@pytest.mark.parametrize("interval", NAMES)
async def test_candles_are_the_bars_of_the_trades(market: Market, interval: str) -> None:
    rows, _, now = await asked(market, panel_of("candlestick"), interval=interval)
    wanted = [(at, bar[:5]) for at, bar in market.bars(MOONCAT, interval, now - 20 * HOUR) if at <= now]
    assert [(to_us(row[0]), tuple(row)[1:]) for row in rows] == wanted


async def test_volume_and_pressure_are_those_of_the_bars(market: Market) -> None:
    volumes, _, now = await asked(market, "Volume", interval="15m")
    bars = market.bars(MOONCAT, "15m", now - 20 * HOUR)
    assert [tuple(row)[1:] for row in volumes] == [(bar.buy_volume, bar.volume - bar.buy_volume) for _, bar in bars]
    pressure, _, _ = await asked(market, "Buy pressure", interval="15m")
    for row, (_, bar) in zip(pressure, bars, strict=True):
        assert abs(row["bought"] * bar.volume - bar.buy_volume) < Decimal("1e-6")


async def test_movers_and_their_age(market: Market) -> None:
    rows, _, now = await asked(market, "Top movers")
    found = {row["symbol"]: row for row in rows}
    for symbol, tape in market.trades.items():
        price, before = market.price_at(symbol, now), market.price_at(symbol, now - DAY)
        assert found[symbol]["price"] == price
        change = None if before is None or price is None else round(100 * (price - before) / before, 6)
        assert change is None or round(found[symbol]["change_24h"], 6) == change
        assert found[symbol]["age"] == Decimal(now - tape[-1].time_us) / 10**6
        bars = [bar for at, bar in oracle.fold(tape, "15m").items() if at >= now - DAY]
        assert found[symbol]["quote_volume_24h"] == sum((bar.quote_volume for bar in bars), Decimal(0))
    changes = [row["change_24h"] for row in rows if row["change_24h"] is not None]
    assert changes == sorted(changes, reverse=True)


async def test_trades_per_minute_are_averages_of_their_span(market: Market) -> None:
    for minutes in (1, 10):
        rows, _, now = await asked(market, "Trades per minute", step_ms=minutes * 60_000)
        counted: dict[int, int] = {}
        for at, bar in market.bars(MOONCAT, "1m", now - 20 * HOUR):
            opened = at - at % (minutes * MINUTE)
            counted[opened] = counted.get(opened, 0) + bar.trades
        assert {to_us(row[0]): row[1] * minutes for row in rows} == counted


async def test_the_ages_span_all_tokens(market: Market) -> None:
    rows, _, now = await asked(market, panel_of("stat"))
    ages = sorted((now - tape[-1].time_us) / 10**6 for tape in market.trades.values())
    assert [round(age, 3) for age in rows[0]] == [round(age, 3) for age in (ages[0], ages[1], ages[2])]


async def test_variables_offer_what_the_database_has(market: Market) -> None:
    token, interval = BOARD["templating"]["list"]
    async with as_analyst(market.database) as connection:
        assert {row[0] for row in await connection.fetch(token["query"])} >= market.trades.keys()
    assert interval["query"].split(",") == [option["value"] for option in interval["options"]] == list(NAMES)
    assert not token["multi"], "one value: sqlstring quotes each of several"


def test_a_symbol_cannot_leave_its_quotes() -> None:
    for panel in PANELS.values():
        for use in re.findall(r"\$\{?token[^\s)]*", panel["targets"][0]["rawSql"]):
            assert use == "${token:sqlstring}"


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    assert re.fullmatch(r"[\w-]{1,40}", BOARD["uid"])
    assert BOARD["schemaVersion"] >= 39
    assert "id" not in BOARD, "ids are Grafana's own"
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_every_query_asks_the_provisioned_source() -> None:
    source = {"type": SOURCE["type"], "uid": SOURCE["uid"]}
    users = [*BOARD["panels"], *(target for panel in BOARD["panels"] for target in panel["targets"])]
    assert all(user["datasource"] == source for user in [*users, BOARD["templating"]["list"][0]])
    assert (SOURCE["user"], SOURCE["editable"], SOURCE["jsonData"]["timescaledb"]) == (ROLE, False, False)
    assert SOURCE["jsonData"]["maxOpenConns"] < 20, "the role's limit"
    provider = yaml.safe_load((DEPLOY / "provisioning" / "dashboards" / "klines.yaml").read_text("utf-8"))["providers"][
        0
    ]
    assert (provider["options"]["path"], provider["allowUiUpdates"]) == ("/etc/grafana/dashboards", False)
