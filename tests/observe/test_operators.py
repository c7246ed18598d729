"""The dashboard and the alerts of operators ask for what a real scrape has, and are what their programs load."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.application import serving, settings_for
from tests.observe.scrape import scrape
from tests.observe.test_metrics import stream, trades, until
from tests.servers import Database

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/operators.json").read_text("utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
SOURCES = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text("utf-8"))
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))
(GROUP,) = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text("utf-8"))["groups"]
EXPRESSIONS = [
    *(rule["expr"] for rule in GROUP["rules"]),
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
]
# Of Prometheus itself.
ITS_NAMES, ITS_LABELS = {"up"}, {"job", "le"}
WORDS = {"by", "without", "and", "or", "unless", "bool"}
SUFFIXES = ("", "_total", "_bucket", "_count", "_sum")


def names(expression: str) -> set[str]:
    """The metrics of a PromQL expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)', " ", expression)
    assert bare.count("(") == bare.count(")"), expression
    return set(re.findall(r"\b[a-z_]\w*\b(?!\s*\()", bare)) - WORDS


def labels(expression: str) -> set[str]:
    """The labels of its matchers and its groups."""
    matchers = " ".join(re.findall(r"\{([^}]*)\}", expression))
    groups = " ".join(re.findall(r"\bby\s*\(([^)]*)\)", expression))
    return set(re.findall(r"(\w+)\s*!?=", matchers)) | set(re.findall(r"\w+", groups))


async def test_every_expression_asks_for_what_a_scrape_has(timescale: Database) -> None:
    async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/api/v1/trades", json=trades(1))
        async with stream(url, "/ws/klines/PEPE-SOL/1m"):
            await until(client, "klines_database_up", 1)
        await until(client, "klines_connections", 0)
        found = await scrape(client)
    known = {f"{name}{suffix}" for name in found.names for suffix in SUFFIXES}
    known_labels = {name for _, its in found.samples for name, _ in its} | {"interval"}
    for expression in EXPRESSIONS:
        assert names(expression), expression
        assert names(expression) <= known | ITS_NAMES, expression
        assert labels(expression) <= known_labels | ITS_LABELS, expression
    legends = [target["legendFormat"] for panel in PANELS for target in panel["targets"]]
    assert set(re.findall(r"\{\{(\w+)\}\}", " ".join(legends))) <= known_labels
    asked = set().union(*map(names, EXPRESSIONS))
    ours = {name for name in found.names if name.startswith("klines_")}
    unseen = {name for name in ours if not {f"{name}{suffix}" for suffix in SUFFIXES} & asked}
    unseen = {name for name in unseen if not name.endswith(SUFFIXES[1:])}
    assert unseen <= {"klines_build_info", "klines_mock_data_interval_seconds", "klines_hub_subscribers",
                      "klines_hub_topics", "klines_breaker_changes",
                      "klines_listener_up"}  # fmt: skip


def test_the_reading_of_expressions_can_fail() -> None:
    expression = 'sum by (le, code) (rate(no_such_total{code="4008"}[5m])) / clamp_min(other, 0.001) > 0.01'
    assert (names(expression), labels(expression)) == ({"no_such_total", "other"}, {"le", "code"})


@pytest.mark.parametrize("rule", GROUP["rules"], ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_it_means(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert re.search(r"[<>]|==", rule["expr"]), "an alert is a comparison"


def test_prometheus_scrapes_the_service_with_a_key() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["service:8080"]}]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    assert [Path(name).name for name in PROMETHEUS["rule_files"]] == ["alerts.yml"]
    assert job["job_name"] == "klines"


def test_the_dashboard_is_one_that_grafana_loads() -> None:
    assert re.fullmatch(r"[\w-]{1,40}", BOARD["uid"])
    assert "id" not in BOARD, "ids are Grafana's own"
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    (source,) = SOURCES["datasources"]
    users = [*PANELS, *(target for panel in PANELS for target in panel["targets"])]
    assert all(user["datasource"] == {"type": source["type"], "uid": source["uid"]} for user in users)
