"""Bad keys, scopes, origins and floods: a service that others can reach, so that everything takes a key."""

from __future__ import annotations

import logging

import pytest

from klines.credential import new_key, new_ticket
from tests.access.keys import made
from tests.application import serving, settings_for
from tests.input.conftest import Site, place_of
from tests.input.frames import upgrade
from tests.input.wire import JSON, Case, get, request
from tests.servers import Database

TAPE, SPOT = "/ws/transactions/PEPE", "/ws"
BARS, TRADES = "/api/v1/klines/PEPE", "/api/v1/trades"
BODY = b'{"trades":[{"symbol":"PEPE","trade_id":1,"time":1700000100000,"price":"1","amount":"1","side":"buy"}]}'
GOOD = "https://good.example"
ASKED = "Access-Control-Request-Method: GET"
CHALLENGE = b"www-authenticate: Bearer"
SETTINGS = {
    "auth": "all",
    "klines_allowed_origins": GOOD,
    **{f"klines_{what}_limit": 0 for what in ("read", "write", "upgrade", "login")},
}


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


def cases(read: str, write: str, expired: str) -> list[Case]:
    """The rows, for these keys."""
    mine = bearer(read)
    return [
        *[
            Case("B77", f"no key, {target}", upgrade(target), 401, "key_missing", CHALLENGE)
            for target in (TAPE, SPOT, "/stream?streams=pepe@trade")
        ],
        *[
            Case("B77", f"key {key[:9]!r}", upgrade(TAPE, bearer(key)), 401, "key_malformed", CHALLENGE)
            for key in ("x", "", read[:-1], read + "x", read.swapcase(), "klk_" + "0" * 60, "x" * 5_000)
        ],
        Case("B77", "a key that nobody made", upgrade(TAPE, bearer(new_key().text)), 401, "key_invalid", CHALLENGE),
        Case("B77", "a key that has expired", upgrade(TAPE, bearer(expired)), 401, "key_invalid", CHALLENGE),
        Case("B77", "no scope to read", upgrade(TAPE, bearer(write)), 403, "scope"),
        Case("B77", "two keys", upgrade(TAPE, mine, f"X-API-Key: {read}"), 400, "credentials_repeated"),
        Case("B77", "no ticket", upgrade(f"{TAPE}?ticket={'0' * 43}"), 401, "ticket_malformed"),
        Case("B77", "a ticket that nobody gave out", upgrade(f"{TAPE}?ticket={new_ticket()}"), 401, "ticket_invalid"),
        Case("B77", "no key, nobody's symbol", upgrade("/ws/transactions/NOBODY"), 401, "key_missing"),
        Case("B77", "the key, nobody's symbol", upgrade("/ws/transactions/NOBODY", mine), 404, "symbol_unknown"),
        Case("B77", "no key for REST", get(BARS), 401, "key_missing", CHALLENGE),
        Case("B77", "another scheme", get(BARS, "Authorization: Basic eDp5"), 401, "key_missing"),
        Case("B70", "a write with a key that reads", request("POST", TRADES, *JSON, mine, body=BODY), 403, "scope"),
        Case("B70", "a read with a key that writes", get(BARS, bearer(write)), 403, "scope"),
        Case("B70", "metrics with a key that reads", get("/metrics", mine), 403, "scope"),
        *[
            Case("B78", f"origin {origin}", upgrade(TAPE, mine, f"Origin: {origin}"), 403, "origin_refused")
            for origin in (
                *("null", "https://evil.example", f"{GOOD}.evil.com", "http://good.example", f"{GOOD}:8443"),
                *(f"{GOOD}.", f"{GOOD}/", "https://evilgood.example", "file://", "https://good.example, https://x"),
            )
        ],
        Case("B78", "two origins", upgrade(TAPE, mine, f"Origin: {GOOD}", "Origin: null"), 400, "handshake_invalid"),
        *[
            Case("B79", f"a key in the address of {target}", upgrade(f"{target}?{name}={read}"), 400, "key_in_query")
            for target in (TAPE, SPOT)
            for name in ("key", "api_key", "token", "cursor")
        ],
        Case("B79", "a key in an address of REST", get(f"{BARS}?key={read}"), 400, "key_in_query"),
    ]


async def test_b30_b102_a_page_elsewhere_may_not_read(site: Site, plain: Database) -> None:
    strangers = [f"Origin: {origin}" for origin in ("https://evil.example", "null", f"{GOOD}.evil.com")]
    for stranger in strangers:
        for ask in (request("OPTIONS", BARS, stranger, ASKED), get("/health/live", stranger)):
            assert not [name for name in (await site.place.send(ask)).headers if name.startswith("access-control-")]
    # Where every page may, none may with a cookie: nothing here has credentials that a browser adds by itself.
    async with serving(settings_for(plain, klines_allowed_origins="*")) as url:
        for stranger in strangers:
            answer = await place_of(url).send(get("/health/live", stranger, "Cookie: a=b"))
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers


async def test_the_table(plain: Database, caplog: pytest.LogCaptureFixture) -> None:
    keys = [(await made(plain, *scopes, seconds=s)).text for scopes, s in ((("read",), None), (("write",), None))]
    keys.append((await made(plain, "read", seconds=-60)).text)
    async with serving(settings_for(plain, **SETTINGS)) as url:
        site = Site(place_of(url), url, plain)
        await site.hold(cases(*keys))
        assert await site.stored() == (set(), set())
    assert not [key for key in keys if key in caplog.text or key[8:20] in caplog.text], "a key in the log"
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


async def test_b73_a_flood_of_bad_requests_is_a_few_lines(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for bad in (get(f"{BARS}?limit=x"), get("/nothing"), b"\x16\x03\x01\r\n\r\n", upgrade("/ws/klines/PEPE/2x")):
        for _ in range(100):
            assert 400 <= (await site.place.send(bad)).status < 500
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) <= 4, [record.getMessage() for record in told]
