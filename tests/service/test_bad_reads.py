"""Bad reads: every one gets a problem document with a stable code, and the database is none the wiser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.application import send_raw

KLINES = "/api/v1/klines/PEPE"
TRADES = "/api/v1/trades/PEPE"
NOW = 1_700_000_100_000

# request target, status, code
CASES = [
    # symbols
    ("/api/v1/klines/UNKNOWN", 404, "symbol_unknown"),
    ("/api/v1/klines/BTC%2FUSDT", 404, "route_unknown"),
    ("/api/v1/klines/BTC%20USDT", 400, "symbol_invalid"),
    ("/api/v1/klines/" + "A" * 33, 400, "symbol_invalid"),
    ("/api/v1/klines/" + "A" * 3000, 400, "symbol_invalid"),
    ("/api/v1/klines/A%00B", 400, "path_invalid"),
    ("/api/v1/klines/%ff%fe", 400, "path_invalid"),
    ("/api/v1/klines/%F0%9F%9A%80", 400, "symbol_invalid"),  # a rocket
    ("/api/v1/klines/A%E2%80%AEB", 400, "symbol_invalid"),  # right-to-left override
    ("/api/v1/klines/' OR 1=1--", 400, "symbol_invalid"),
    ('/api/v1/klines/";DROP TABLE trades', 400, "symbol_invalid"),
    ("/api/v1/klines/%2e%2e%2fetc", 404, "route_unknown"),
    ("/api/v1/klines/a;b", 400, "symbol_invalid"),
    ("/api/v1/klines/", 404, "route_unknown"),
    ("/api/v1/klines", 404, "route_unknown"),
    # interval
    *[
        (f"{KLINES}?interval={name}", 400, "interval_invalid")
        for name in ("1M", "0m", "-1m", "1.5h", "60", "1mo", "%D9%A3m", "1%20m")
    ],
    # limit
    *[
        (f"{KLINES}?limit={text}", 400, "limit_invalid")
        for text in (
            "0",
            "-1",
            "5001",
            "abc",
            "1.0",
            "1e3",
            "+1",
            "%201",
            "1_000",
            "0x10",
            "%EF%BC%91",
            str(2**63),
            str(10**23),
        )
    ],
    # times
    *[
        (f"{KLINES}?from={text}", 400, "from_invalid")
        for text in (
            "1700000100",  # seconds
            "1700000100000000",  # microseconds
            "1700000100000000000",
            "1e12",
            "-1",
            "+1700000100000",
            "1_700_000_100_000",
            str(2**63),
            "2024-01-01",
            "2024-01-01T00:00:00",  # no offset
            "2024-02-30T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:60Z",
            "2024-01-01T00:00:00+02:00",  # the + arrives as a space
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59-14:00",
            "yesterday",
        )
    ],
    (f"{KLINES}?from={NOW}&to={NOW - 1}", 400, "range_reversed"),
    (f"{TRADES}?from={NOW}&to={NOW - 1}", 400, "range_reversed"),
    # the query string itself
    (f"{KLINES}?form=1", 400, "param_unknown"),
    (f"{KLINES}?limit=1&limit=2", 400, "param_repeated"),
    (f"{KLINES}?limit=", 400, "param_empty"),
    (f"{KLINES}?=", 400, "param_unknown"),
    (f"{KLINES}?limit=%ff", 400, "query_invalid"),
    (f"{KLINES}?" + "&".join(f"p{n}=1" for n in range(30)), 400, "query_invalid"),
    (f"{KLINES}?fill=PREV", 400, "fill_invalid"),
    (f"{TRADES}?interval=1m", 400, "param_unknown"),
    ("/api/v1/tokens?sort=asc;--", 400, "sort_invalid"),
    ("/api/v1/tokens?search=" + "x" * 65, 400, "search_invalid"),
    ("/api/v1/tokens/PEPE?x=1", 400, "param_unknown"),
    ("/api/v1/nothing", 404, "route_unknown"),
]


@pytest.fixture
async def known(plain_client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    await plain_client.put("/api/v1/tokens/PEPE", json={})
    yield plain_client


async def raw_get(client: httpx.AsyncClient, target: str) -> tuple[int, str]:
    """Send the target as it stands, which an HTTP library would tidy up; status and body."""
    encoded = target.replace(" ", "%20").encode("ascii")
    return await send_raw(client, b"GET " + encoded + b" HTTP/1.1\r\nHost: localhost\r\n")


async def test_the_table(known: httpx.AsyncClient) -> None:
    wrong = []
    for target, status, code in CASES:
        found, body = await raw_get(known, target)
        if found != status or f'"code":"{code}"' not in body:
            wrong.append(f"{target[:80]}: expected {status} {code}, got {found} {body[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_problem_names_the_thing_and_the_rule(known: httpx.AsyncClient) -> None:
    answer = await known.get(f"{KLINES}?interval=2x")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Bad request",
        "status": 400,
        "detail": "interval '2x': must be a number and one of s m h d w, from 1s to 1w, such as 1m or 45s",
        "code": "interval_invalid",
    }


async def test_echoed_input_is_short_and_escaped(known: httpx.AsyncClient) -> None:
    answer = await known.get("/api/v1/klines/" + "%0d%0a" + "A" * 3000)
    assert len(answer.text) < 300
    assert "\\\\r\\\\n" in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
async def test_other_methods_are_refused_with_allow(known: httpx.AsyncClient, method: str) -> None:
    answer = await known.request(method, KLINES)
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert answer.json()["code"] == "method_not_allowed"


async def test_head_is_get_without_the_body(known: httpx.AsyncClient) -> None:
    get, head = await known.get(KLINES), await known.head(KLINES)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert (await known.head("/api/v1/klines/UNKNOWN")).status_code == 404


async def test_a_get_with_a_body_is_answered(known: httpx.AsyncClient) -> None:
    assert (await known.request("GET", KLINES, content=b"{}")).status_code == 200


@pytest.mark.parametrize("symbol", ["pepe", "PePe"])
async def test_one_spelling_per_token(known: httpx.AsyncClient, symbol: str) -> None:
    assert (await known.get(f"/api/v1/klines/{symbol}")).json()["symbol"] == "PEPE"


async def test_symbols_of_any_script_in_nfc(known: httpx.AsyncClient) -> None:
    composed, decomposed = "CAF\u00c9", "cafe\u0301".upper()
    assert (await known.put(f"/api/v1/tokens/{composed}", json={})).status_code == 201
    assert (await known.get(f"/api/v1/klines/{decomposed}")).json()["symbol"] == composed
    assert (await known.put("/api/v1/tokens/$狗.币-1:A_B", json={})).json()["symbol"] == "$狗.币-1:A_B"


# request head without its last empty line, status, code ("" where the server itself answers without a problem document)
HEADS: list[tuple[bytes, int, str]] = [
    (b"GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400, "host_invalid"),
    (b"GET /health/live HTTP/1.1\r\nHost: a b\r\n", 400, "host_invalid"),
    (b"GET /health/live HTTP/1.1\r\nHost: a/b\r\n", 400, "host_invalid"),
    (b"GET /health/live?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n", 414, "uri_too_long"),
    (b"GET /health/live HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 120, 431, "headers_too_large"),
    (b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-A: " + b"x" * 40_000 + b"\r\n", 431, "headers_too_large"),
    (b"GET /health/live HTTP/1.1\r\nHost: a\r\nAccept: text/csv\r\n", 406, "not_acceptable"),
    (b"TRACE /health/live HTTP/1.1\r\nHost: a\r\n", 405, "method_not_allowed"),
    (b"FOO /health/live HTTP/1.1\r\nHost: a\r\n", 400, ""),
    (b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n", 400, ""),
    (b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n", 400, ""),
    (b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n", 400, ""),
    (
        b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        400,
        "",
    ),
]


async def test_bad_heads(known: httpx.AsyncClient) -> None:
    wrong = []
    for head, status, code in HEADS:
        found, body = await send_raw(known, head)
        if found != status or (code and f'"code":"{code}"' not in body):
            wrong.append(f"{head[:90]!r}: expected {status} {code}, got {found} {body[:200]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/html, application/*;q=0.5", "application/problem+json"]
)
async def test_what_can_be_accepted(known: httpx.AsyncClient, accept: str) -> None:
    assert (await known.get(KLINES, headers={"Accept": accept})).status_code == 200


async def test_odd_but_harmless_heads(known: httpx.AsyncClient) -> None:
    for headers in ({"Range": "bytes=0-1"}, {"If-None-Match": "garbage"}, {"X-Forwarded-For": "1.2.3.4"}):
        assert (await known.get(KLINES, headers=headers)).status_code == 200
    host = known.base_url.netloc.decode()
    status, _ = await send_raw(known, f"GET {known.base_url}{KLINES} HTTP/1.1\r\nHost: {host}\r\n".encode())
    assert status == 200


async def test_a_strange_origin_gets_no_permission(known: httpx.AsyncClient) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (await known.options(KLINES, headers=headers), await known.get(KLINES, headers=headers)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
