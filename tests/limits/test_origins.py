"""Which web pages may connect and read, and what every answer tells a browser."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from klines.errors import InvalidSettings
from klines.settings import read_settings
from tests.access.keys import made
from tests.application import serving, settings_for
from tests.limits.clients import clients
from tests.live.streams import address_of
from tests.servers import Database

GOOD = "https://good.example"
PORT = "http://good.example:8000"
LISTED: dict[str, Any] = {"klines_allowed_origins": f"{GOOD}, {PORT}"}
PATHS = ("/api/v1/tokens", "/udf/config", "/api/v3/time", "/ws/klines/PEPE/1m")
GUARDS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


async def upgrade(client: httpx.AsyncClient, origin: str | None, path: str = "/ws", **headers: str) -> int:
    """The status of an upgrade that a page of this origin asks for."""
    opening = connect(
        address_of(client, path),
        proxy=None,
        compression=None,
        close_timeout=2,
        origin=origin,  # type: ignore[arg-type]
        additional_headers=headers,
    )
    try:
        async with opening:
            return 101
    except InvalidStatus as refused:
        response = refused.response
        if response.status_code == 403:
            assert json.loads(response.body or b"{}")["code"] == "origin_refused"
        return response.status_code


async def test_only_pages_of_the_service_and_of_the_list_connect(plain: Database) -> None:
    async with serving(settings_for(plain, **LISTED)) as url, httpx.AsyncClient(base_url=url) as client:
        port = client.base_url.port or 0
        for origin in (None, GOOD, PORT, f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}"):
            assert await upgrade(client, origin) == 101, origin
        for origin in (
            "https://evil.example",
            "https://good.example.evil.com",
            "https://evilgood.example",
            "http://good.example",
            "https://good.example:8443",
            "https://good.example.",
            "https://GOOD.example",
            "https://good.example/",
            "https://user@good.example",
            f"{GOOD}, https://evil.example",
            "null",
            "*",
            "file://",
            f"http://127.0.0.1:{port + 1}",
            f"http://127.0.0.1:{port}.evil.example",
            f"http://127.0.0.1:{port}@evil.example",
            "http://127.0.0.1",
            "127.0.0.1",
        ):
            assert await upgrade(client, origin) == 403, origin


async def test_a_page_of_this_machine_goes_on_by_any_of_its_names(plain_client: httpx.AsyncClient) -> None:
    port = plain_client.base_url.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"klines.localhost:{port}"):
        answer = await plain_client.put(
            "/api/v1/tokens/PEPE", json={}, headers={"Host": host, "Origin": f"http://{host}"}
        )
        assert answer.status_code in {200, 201}, host
    # A name of a stranger's that leads here: its page may not pass for ours.
    host = f"evil.example:{port}"
    answer = await plain_client.put("/api/v1/tokens/PEPE", json={}, headers={"Host": host, "Origin": f"http://{host}"})
    assert (answer.status_code, answer.json()["code"]) == (403, "host_refused")
    with pytest.raises(InvalidStatus, match="403"):
        await connect(f"ws://{host}/ws", proxy=None, host="127.0.0.1", port=port)
    assert (await plain_client.get("/health/live", headers={"Host": host})).status_code == 200


async def test_a_service_is_asked_by_the_names_that_are_given(plain: Database) -> None:
    for named, strange in (("klines.example, Other.example", 403), ("", 200)):
        async with clients(plain, klines_hosts=named) as those:
            for host, status in (
                ("klines.example:8080", 200),
                ("OTHER.example", 200),
                ("localhost", 200),
                ("x.y", strange),
            ):
                answer = await those.service.get(PATHS[0], headers={"Host": host})
                assert answer.status_code == status, (named, host)
    with pytest.raises(InvalidSettings, match="KLINES_HOSTS"):
        read_settings({"KLINES_HOSTS": "https://klines.example"})


async def test_behind_a_proxy_the_own_page_has_the_name_it_is_asked_by(plain: Database) -> None:
    async with clients(plain) as those:
        own = {"Host": "klines.example"}
        for origin, status in ((GOOD, 403), ("https://klines.example", 405), ("https://klines.example:444", 403)):
            answer = await those.service.post(
                "/health/live", headers=own | {"Origin": origin, "X-API-Key": those.writer.text}
            )
            assert answer.status_code == status, origin


async def test_any_page_connects_where_all_may(plain: Database) -> None:
    settings = settings_for(plain, klines_allowed_origins="*")
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        for origin in ("null", "https://evil.example", GOOD):
            assert await upgrade(client, origin) == 101
        answer = await client.get(PATHS[0], headers={"Origin": GOOD})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "cross-origin-resource-policy" not in answer.headers
        assert "vary" not in answer.headers


async def test_pages_of_the_list_read_and_strangers_are_told_nothing(plain: Database) -> None:
    async with serving(settings_for(plain, **LISTED)) as url, httpx.AsyncClient(base_url=url) as client:
        for path in (*PATHS, "/api/v1/klines/NOBODY", "/nothing", "/api/v1/klines/%00"):
            for origin in (GOOD, PORT):
                answer = await client.get(path, headers={"Origin": origin})
                assert answer.headers["access-control-allow-origin"] == origin
                exposed = answer.headers["access-control-expose-headers"].split(", ")
                assert {"RateLimit", "Retry-After", "ETag", "X-Request-ID"} <= set(exposed)
                assert answer.headers["vary"] == "Origin"
                assert "access-control-allow-credentials" not in answer.headers
            for stranger in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
                answer = await client.get(path, headers=stranger)
                assert not [name for name in answer.headers if name.startswith("access-control")]
                assert answer.headers["vary"] == "Origin"


async def preflight(client: httpx.AsyncClient, path: str, origin: str) -> httpx.Response:
    """The answer to a browser that asks whether a page may send a key."""
    asks = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    return await client.options(path, headers=asks | {"Origin": origin})


async def test_preflights_are_answered_to_pages_of_the_list(plain: Database) -> None:
    settings = settings_for(plain, auth="all", klines_trusted_proxies="192.0.2.1", klines_read_limit=1, **LISTED)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        for path in (*PATHS[:3], "/api/v1/trades"):
            answer = await preflight(client, path, GOOD)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == GOOD
            assert "POST" in answer.headers["access-control-allow-methods"]
            allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
            assert {"authorization", "x-api-key", "content-type", "if-none-match"} <= set(allowed)
            assert answer.headers["access-control-max-age"] == "600"
        stranger = await preflight(client, PATHS[0], "https://evil.example")
        assert not [name for name in stranger.headers if name.startswith("access-control")]


async def test_options_head_and_methods_that_are_not_there(plain_client: httpx.AsyncClient) -> None:
    options = await plain_client.options("/api/v1/tokens/PEPE")
    assert options.status_code == 204
    assert {"GET", "PUT"} <= set(options.headers["allow"].replace(" ", "").split(","))
    wrong = await plain_client.delete("/api/v1/tokens/PEPE")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]
    head = await plain_client.head("/api/v1/tokens")
    assert (head.status_code, head.content) == (200, b"")


async def test_every_answer_is_guarded(plain_client: httpx.AsyncClient) -> None:
    for method, path in (
        *(("GET", path) for path in ("/api/v1/tokens", "/api/v1/klines/NOBODY", "/api/v1/klines/%00", "/nothing")),
        *(
            ("GET", path)
            for path in ("/health/live", "/schema", "/api/v3/ping", "/udf/config", "/ws", f"/{'x' * 9000}")
        ),
        ("POST", "/api/v1/trades"),
        ("OPTIONS", "/api/v1/tokens"),
    ):
        headers = (await plain_client.request(method, path)).headers
        assert {name: headers.get(name) for name in GUARDS} == GUARDS, path
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
        assert len(headers.get_list("date")) == 1


async def test_a_page_keeps_its_own_guards_and_nothing_is_doubled(plain_client: httpx.AsyncClient) -> None:
    headers = (await plain_client.get("/")).headers
    for name in (*GUARDS, "cross-origin-resource-policy"):
        assert len(headers.get_list(name)) == 1, name


async def test_what_needs_a_key_is_kept_by_no_shared_cache(plain: Database) -> None:
    target = "/api/v1/klines/PEPE?to=1700000400000"
    async with clients(plain, klines_closed_max_age=60) as those:
        assert (await those.post(1)).status_code == 200
        assert (await those.ask(target)).headers["cache-control"] == "public, max-age=60"
    async with clients(plain, klines_closed_max_age=60, auth="all") as those:
        key = (await made(plain, "read")).text
        assert (await those.ask(target, key=key)).headers["cache-control"] == "private, max-age=60"
        refused = await those.ask(target)
        assert (refused.status_code, refused.headers["cache-control"]) == (401, "private, no-store")


@pytest.mark.parametrize(
    "text",
    ["good.example", "https://good.example/", "HTTPS://good.example", "https://good.example:443", "https://", "**"],
)
def test_a_bad_origin_stops_the_start(text: str) -> None:
    with pytest.raises(InvalidSettings, match="KLINES_ALLOWED_ORIGINS"):
        read_settings({"KLINES_ALLOWED_ORIGINS": text})
