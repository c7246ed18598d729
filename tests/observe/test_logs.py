"""The log of a process: one line per event that nobody can forge, and no secret, wherever one is sent."""

from __future__ import annotations

import io
import json
import logging
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from klines import logs
from klines.settings import read_settings
from tests.servers import Database
from tests.service.processes import Service, klines, service

CANARY = "c4n4ry-5ecret"
SHAPES = (
    "Authorization: Bearer {}",
    "authorization={}",
    "[(b'authorization', b'Bearer {}'), (b'accept', b'*/*')]",
    '{{"X-API-Key": "{}"}}',
    "{{'x-mbx-apikey': '{}'}}",
    "Cookie: a=b; session={}",
    "GET /ws/klines/A/1m?ticket={}&history=1",
    "/api/v3/klines?symbol=A&apiKey={}",
    "postgresql://klines:{}@database/klines",
    "postgresql://klines:with@{}@database/klines?sslmode=require",
    "host=database password={} dbname=klines",
    "password authentication failed: {{'user': 'klines', 'password': '{}'}}",
    "klk_{}_0123456789",
    "basic {}AAAA",
)


@contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    """What a logger writes in a form."""
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    handler.setFormatter(logs.Json() if form == "json" else logs.Text())
    logger = logging.getLogger("tests.logs")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


logger = logging.getLogger("tests.logs")
both_forms = pytest.mark.parametrize("form", ["text", "json"])


@both_forms
@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_is_not_shown(form: str, shape: str) -> None:
    with logged(form) as told:
        logger.error("said: %s", shape.format(CANARY))
        logger.error("said", extra={"detail": shape.format(CANARY)})
        try:
            raise ValueError(shape.format(CANARY))
        except ValueError:
            logger.exception("failed")
    assert "failed" in told.getvalue()
    assert CANARY not in told.getvalue().replace(f"klk_{logs.HIDDEN}", "")


@both_forms
@given(text=st.text())
def test_no_text_makes_a_second_line(form: str, text: str) -> None:
    with logged(form) as told:
        logger.error("said %s", text)
        try:
            raise ValueError(f"{text}\n2026-01-01 00:00:00,000 INFO klines: forged")
        except ValueError:
            logger.exception("failed")
    lines = told.getvalue().splitlines()
    if form == "json":
        assert len(lines) == 2
        assert all(json.loads(line)["level"] == "ERROR" for line in lines)
    else:
        events = [line for line in lines if not line.startswith("    ")]
        assert len(events) == 2
        assert all(" ERROR tests.logs: " in line for line in events)


@both_forms
def test_what_is_long_is_cut(form: str) -> None:
    with logged(form) as told:
        logger.error("said %s", "x" * 1_000_000)
    assert len(told.getvalue()) < 2 * logs.MAX_MESSAGE


def send_everywhere(url: str) -> list[httpx.Response]:
    """Requests that carry the canary wherever a client may put a secret; none of them is well."""
    key = f"klk_{CANARY}"
    with httpx.Client(base_url=url) as client:
        answers = [
            client.get("/api/v1/tokens", headers={name: value})
            for name, value in (("Authorization", f"Bearer {key}"), ("X-API-Key", key), ("X-MBX-APIKEY", key))
        ]
        answers += [
            client.get("/api/v1/tokens", params={name: key})
            for name in ("api_key", "key", "token", "access_token", "ticket", "apikey", "password")
        ]
        answers += [
            client.get("/api/v3/klines", params={"symbol": "A", "apiKey": key, "signature": CANARY}),
            client.get("/nowhere", headers={"Cookie": f"session={CANARY}"}),
            client.post("/api/v1/trades", content=b"{", headers={"X-API-Key": key}),
            client.put("/api/v1/tokens/A", content=b"{}", headers={"Authorization": f"Basic {key}"}),
            client.post("/api/v1/tickets", headers={"Authorization": f"Bearer {key}, {key}"}),
        ]
    for path in ("/ws/klines/A/1m", "/ws/a@trade", "/stream"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url.replace('http', 'ws')}{path}?ticket={CANARY}&streams=a@trade&api_key={key}", proxy=None)
        answers.append(
            httpx.Response(refused.value.response.status_code, content=bytes(refused.value.response.body or b""))
        )
    return answers


def leave(running: Service, address: str) -> None:
    """Tell it to leave, and see that it does not say it were ready."""
    with closing(HTTPConnection(address.removeprefix("http://"), timeout=10)) as connection:
        connection.request("GET", "/health/ready")
        assert json.load(connection.getresponse())["ready"]
        running.process.send_signal(signal.SIGTERM)
        # The signal is handled before what comes after it is read; the server may close first.
        with suppress(ConnectionError):
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)["codes"]) == (503, ["leaving"])
    running.process.wait(30)


def test_a_secret_that_is_sent_anywhere_stays_out_of_logs_metrics_and_answers(plain: Database) -> None:
    settings = {"LOG_LEVEL": "debug", "KLINES_LOG_FORMAT": "json", "KLINES_ACCESS_LOG": "all"}
    with service(DATABASE_URL=plain.url.replace("klines@", f"klines:{CANARY}@", 1), **settings) as running:
        address = running.url()
        answers = send_everywhere(address)
        metrics = httpx.get(f"{address}/metrics").text
        leave(running, address)
        assert running.stop() == 0
    assert {answer.status_code // 100 for answer in answers} == {4}
    assert not [answer.text for answer in answers if CANARY in answer.text]
    assert CANARY not in metrics
    assert CANARY not in running.log
    lines = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line.get("event") in {"request", "upgrade refused"}]
    assert len([line for line in requests if line["route"] != "/health/ready"]) == len(answers) + 1, "one line each"
    assert {line["route"] for line in requests} >= {"/ws/klines/{token}/{interval}", "unknown", "/metrics"}
    assert not [line for line in lines if "exc_info" in line], "clients cause no traceback"
    caused = [line for line in lines if line.get("request") and line not in requests and line["level"] != "DEBUG"]
    assert len(caused) <= len(answers), "at most one line more"


def test_a_database_that_refuses_does_not_get_its_password_told() -> None:
    ended = klines("serve", DATABASE_URL=f"postgresql://klines:{CANARY}@127.0.0.1:1/klines", LOG_LEVEL="debug")
    assert ended.returncode != 0
    assert CANARY not in ended.stdout + ended.stderr


def test_otel_variables_are_none_of_ours() -> None:
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector", "OTEL_SERVICE_NAME": "x", "OTEL_LOG_LEVEL": "debug"}
    assert read_settings(told) == read_settings({})
