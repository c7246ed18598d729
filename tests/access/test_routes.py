"""Which key opens which route, in each mode: every route of the application, and every way to show a key."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.routes import HTTPRoute

from klines.app import create_app
from klines.credential import SCOPES, SECRET_LENGTH, _checked, new_key
from klines.settings import Settings
from klines.web.admission.access import Authority, needed
from tests.access.keys import BODY, READ, STREAM, WRITE, bearer, execute, guarded, made, refused, socket
from tests.application import settings_for
from tests.live.test_refusals import refusal
from tests.servers import Database

MODES: tuple[Authority, ...] = ("open", "write", "all")
MODE_SCOPES = [("open", None, None, None), ("write", None, "write", "admin"), ("all", "read", "write", "admin")]
# method, path, scope in each mode
TABLE: list[tuple[str, str, str | None, str | None, str | None]] = [
    ("GET", "/health/live", None, None, None),
    ("GET", "/health/ready", None, None, None),
    ("GET", "/", None, None, None),
    ("GET", "/datafeed.js", None, None, None),
    ("GET", "/assets/index.js", None, None, None),
    ("GET", "/schema", None, None, None),
    ("GET", "/schema/openapi.json", None, None, None),
    ("HEAD", "/schema", None, None, None),
    ("OPTIONS", "/api/v1/trades", None, None, None),
    ("GET", "/metrics", None, "admin", "admin"),
    ("HEAD", "/metrics", None, "admin", "admin"),
    ("GET", "//metrics/", None, "admin", "admin"),
    ("GET", "/api/v1/klines/PEPE", None, None, "read"),
    ("HEAD", "/api/v1/klines/PEPE", None, None, "read"),
    ("GET", "/api/v3/klines", None, None, "read"),
    ("GET", "/api/v3/ping", None, None, "read"),
    ("GET", "/udf/history", None, None, "read"),
    ("GET", "/ws/transactions/PEPE", None, None, "read"),
    ("GET", "/stream", None, None, "read"),
    ("GET", "/what/ever", None, None, "read"),
    ("GET", "/healthy", None, None, "read"),
    ("POST", "/api/v1/tickets", None, "read", "read"),
    ("POST", "/api/v1/trades", None, "write", "write"),
    ("PUT", "/api/v1/tokens/PEPE", None, "write", "write"),
    ("DELETE", "/api/v1/tokens/PEPE", None, "write", "write"),
    ("POST", "/health/live", None, "write", "write"),
    ("POST", "/", None, "write", "write"),
]


def test_the_table() -> None:
    wrong = [
        f"{method} {path} in {mode}: {needed(mode, method, path)}, expected {scope}"
        for method, path, *scopes in TABLE
        for mode, scope in zip(MODES, scopes, strict=True)
        if needed(mode, method, path) != scope
    ]
    assert not wrong, "\n".join(wrong)


def routes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every method and path of the application, parameters filled in."""
    made: list[Litestar] = []

    def make(**arguments: Any) -> Litestar:
        made.append(Litestar(**arguments))
        return made[-1]

    # What `create_app` returns is wrapped, and the wrappers hide what is in them.
    monkeypatch.setattr("klines.app.Litestar", make)
    create_app(settings)
    (app,) = made
    return [
        (method, "/".join("x" if "{" in part else part for part in route.path_format.split("/")))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"
    ]


async def test_no_route_is_forgotten(
    plain: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With AUTH=all nothing answers without a key but what is open to all; that nobody has one is told at the start."""
    settings = settings_for(plain, auth="all")
    async with guarded(plain, "all") as client:
        answers = {one: (await client.request(*one)).status_code for one in routes(settings, monkeypatch)}
    opened = {path.split("/")[1] for (_, path), status in answers.items() if status != 401}
    assert opened <= {"", "health", "schema", "datafeed.js", "assets"}, answers
    assert len(answers) > 30
    assert "no API key with the scope write is known" in caplog.text


async def test_every_scope_in_every_mode(plain: Database) -> None:
    """A scope opens its own routes and no other; 401 without a key, 403 with the wrong one."""
    keys = {scope: await made(plain, scope) for scope in SCOPES}
    for mode, read, write, admin in MODE_SCOPES:
        async with guarded(plain, mode, known=True) as client:
            for shown, key in [(None, None), *keys.items()]:
                client.headers = bearer(key) if key else httpx.Headers()
                for scope, answer in (
                    (read, await client.get(READ)),
                    (write, await client.post(WRITE, json=BODY)),
                    (admin, await client.get("/metrics")),
                ):
                    expected = 200 if scope in {None, shown} else 403 if shown else 401
                    assert answer.status_code == expected, (mode, shown, answer.text)
                    if expected == 401:
                        assert answer.headers["www-authenticate"].startswith("Bearer")
                        assert answer.json()["code"] == "key_missing"
                    if expected == 403:
                        assert answer.json()["code"] == "scope"


async def test_sockets_are_refused_before_the_upgrade(plain: Database) -> None:
    async with guarded(plain, "all", known=True) as client:
        writer = await made(plain, "write")
        for target in ("/ws/transactions/PEPE", "/ws/klines/PEPE/1m", "/ws/pepe@trade", "/stream", "/ws"):
            assert (await refusal(client, target))["headers"]["www-authenticate"]
            assert await refused(client, target) == (401, "key_missing")
            assert await refused(client, target, writer) == (403, "scope")
            assert await refused(client, target, new_key()) == (401, "key_invalid")
        async with socket(client, STREAM, await made(plain, "read")) as connection:
            await connection.recv()


async def test_a_key_is_checked_where_none_is_needed(plain: Database) -> None:
    """A typo shows in every mode; what is no key of ours is not looked at."""
    stranger, known = new_key(), await made(plain, "read")
    forged = _checked(f"klk_{known.key_id}_{'0' * SECRET_LENGTH}")
    for mode in ("open", "write"):
        async with guarded(plain, mode, known=True) as client:
            for text, code in (
                (stranger.text, "key_invalid"),
                (forged, "key_invalid"),
                (stranger.text[:-1] + ("a" if stranger.text[-1] != "a" else "b"), "key_malformed"),
                ("klk_", "key_malformed"),
                ("", "key_malformed"),
                ("sesame", "key_malformed"),
                ("klk_\u00e9", "key_malformed"),
            ):
                for name, value in (("Authorization", f"Bearer {text}".strip()), ("X-API-Key", text)):
                    answer = await client.get(READ, headers=[(name.encode(), value.encode("latin-1"))])
                    assert (answer.status_code, answer.json()["code"]) == (401, code), (mode, name, text)
            for name, value in (
                ("Authorization", "Basic dTpw"),
                ("X-MBX-APIKEY", "vmPUZE6mv9SD5"),
                ("X-MBX-APIKEY", ""),
            ):
                assert (await client.get(READ, headers={name: value})).status_code == 200


async def test_ways_to_show_a_key(plain: Database) -> None:
    key, other = await made(plain, "read"), await made(plain, "read")
    fields = [("Authorization", f"bearer  {key.text}"), ("X-API-Key", key.text), ("X-MBX-APIKEY", key.text)]
    async with guarded(plain, "all", known=True) as client:
        for field in fields:
            assert (await client.get(READ, headers=[field])).status_code == 200, field
        tab = await client.get(READ, headers={"Authorization": f"Bearer\t{key.text}"})
        assert (tab.status_code, tab.json()["code"]) == (401, "key_malformed")
        for two in (fields[:2], fields[1:], [fields[1], fields[1]], [fields[0], ("X-API-Key", other.text)]):
            answer = await client.get(READ, headers=two)
            assert (answer.status_code, answer.json()["code"]) == (400, "credentials_repeated"), two


async def test_a_key_does_not_belong_into_an_address(plain: Database) -> None:
    key = await made(plain, "read")
    async with guarded(plain, "open", known=True) as client:
        for name in ("key", "api_key", "apikey", "apiKey", "access_token", "token", "anything"):
            target = f"/api/v1/klines/PEPE?{name}={key.text}"
            answer = await client.get(target)
            assert (answer.status_code, answer.json()["code"]) == (400, "key_in_query"), name
            assert (await refusal(client, f"/ws/transactions/PEPE?{name}={key.text}"))["code"] == "key_in_query"
        assert (await client.get(READ, params={"token": "x"})).json()["code"] == "key_in_query"
        # What Binance's clients send is theirs, unless it is one of ours.
        assert (await client.get("/api/v3/ping", params={"apiKey": "x"})).json()["code"] == -1104
        assert "address" in (await client.get("/api/v3/ping", params={"apiKey": key.text})).json()["msg"]


async def test_binance_clients_are_told_in_their_words(plain: Database) -> None:
    async with guarded(plain, "all", known=True) as client:
        answer = await client.get("/api/v3/klines?symbol=PEPE&interval=1m")
        assert (answer.status_code, answer.json()["code"]) == (401, -2015)
        assert answer.json()["msg"].startswith("Invalid API-key, IP, or permissions for action")
        key = await made(plain, "read")
        answer = await client.get("/api/v3/klines?symbol=PEPE&interval=1m", headers={"X-MBX-APIKEY": key.text})
        assert answer.status_code == 200


async def test_open_behind_a_proxy_takes_no_writes(plain: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "klines.access")
    async with guarded(plain, "open", known=True) as client:
        for name in ("X-Forwarded-For", "Forwarded"):
            headers = {name: "for=203.0.113.7"}
            answer = await client.post(WRITE, json=BODY, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "open_behind_proxy")
            assert (await client.get(READ, headers=headers)).status_code == 200
        assert (await client.post(WRITE, json=BODY)).status_code == 200
    assert [record.name for record in caplog.records].count("klines.access") == 1


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "X"]), st.lists(st.text("/metricshlandup.1v", min_size=1))
)
def test_a_stricter_mode_never_opens(method: str, parts: list[str]) -> None:
    """What takes a scope in one mode takes one in each stricter mode, and slashes make no difference."""
    path = "/" + "/".join(parts)
    scopes = [needed(mode, method, path) for mode in MODES]
    assert scopes[0] is None
    assert scopes[1] in {None, scopes[2]}
    assert scopes == [needed(mode, method, f"/{path.replace('/', '//')}/") for mode in MODES]


async def test_analysts_do_not_see_keys(plain: Database) -> None:
    sees = "SELECT has_schema_privilege('klines_analyst', 'klines_internal', 'USAGE')"
    assert (await execute(plain, sees))[0][0] is False
    tables = ("api_keys", "key_events", "key_stamp", "tickets")
    for table in tables:
        may = f"SELECT has_table_privilege('klines_analyst', 'klines_internal.{table}', 'SELECT')"
        assert (await execute(plain, may))[0][0] is False, table
