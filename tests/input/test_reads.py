"""B01 to B40: bad reads over HTTP."""

from __future__ import annotations

import pytest

from tests.input.conftest import Site
from tests.input.wire import Case, get, request

BARS = "/api/v1/klines/PEPE"
TRADES = "/api/v1/trades/PEPE"
TOKENS = "/api/v1/tokens"
NOW = 1_700_000_100_000
EMPTY = b'"klines":[]'


def bars(number: str, what: str, query: str, code: str) -> Case:
    """A query for bars that is refused with 400."""
    return Case(number, what, get(f"{BARS}?{query}"), 400, code)


def known(number: str, what: str, query: str, holds: bytes = EMPTY) -> Case:
    """A query for bars that is answered."""
    return Case(number, what, get(f"{BARS}?{query}"), 200, "", holds)


def symbol(number: str, what: str, text: str, status: int = 400, code: str = "symbol_invalid") -> Case:
    """A path with this symbol."""
    return Case(number, what, get(f"/api/v1/klines/{text}"), status, code)


SYMBOLS = [
    symbol("B01", "nobody's symbol", "UNKNOWN", 404, "symbol_unknown"),
    Case("B02", "lower case is the same token", get("/api/v1/klines/pepe"), 200, "", b'"symbol":"PEPE"'),
    symbol("B02", "a space", "BTC USDT"),
    symbol("B02", "two segments", "BTC/USDT", 404, "route_unknown"),
    symbol("B02", "a quoted slash", "BTC%2FUSDT", 404, "route_unknown"),
    symbol("B03", "33 characters", "A" * 33),
    symbol("B03", "3,000 characters", "A" * 3000),
    symbol("B04", "NUL", "A%00B", code="path_invalid"),
    symbol("B05", "not UTF-8", "%ff%fe", code="path_invalid"),
    symbol("B05", "an overlong slash", "%c0%af", code="path_invalid"),
    symbol("B05", "half of a surrogate pair", "%ed%a0%80", code="path_invalid"),
    # Letters of any script are symbols, as on Binance; pictures and marks of direction are not.
    symbol("B06", "emoji", "🚀"),
    symbol("B06", "right-to-left override", "A\u202eB"),
    symbol("B06", "zero-width joiner", "PE\u200dPE"),
    symbol("B06", "a Cyrillic letter that looks like a B", "\u0412TC", 404, "symbol_unknown"),
    symbol("B07", "SQL", "' OR 1=1--"),
    symbol("B07", "more SQL", '";DROP TABLE trades'),
    symbol("B07", "a template", "{{7*7}}"),
    symbol("B08", "up and away", "../../../etc/passwd", 404, "route_unknown"),
    symbol("B08", "the same, quoted", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, "route_unknown"),
    symbol("B08", "one dot", "."),
    symbol("B08", "two dots, quoted", "%2e%2e"),
    symbol("B09", "a matrix parameter", "PEPE;limit=1"),
]

INTERVALS = [
    *[
        bars("B10", f"interval {name}", f"interval={name}", "interval_invalid")
        for name in ("1M", "0m", "-1m", "1.5h", "60", "1mo", "\u0663m", "01m", "m", "8d", "2w", "1000000s", "1m\n")
    ],
    bars("B10", "a space that was not quoted", "interval=1+m", "interval_invalid"),
    # Ranges have no cap: an answer has `limit` bars at most, and the widths that are dear to make have a lower one.
    bars("B13", "5,000 bars that are made of too many", "interval=61m&limit=5000", "limit_invalid"),
    known("B13", "a range of 30 years", f"interval=1s&from=1230768000000&to={NOW}"),
]

TIMES = [
    bars("B11", "from after to", f"from={NOW}&to={NOW - 1}", "range_reversed"),
    known("B11", "from is to: half-open, so empty", f"from={NOW}&to={NOW}"),
    Case("B11", "trades, from after to", get(f"{TRADES}?from={NOW}&to={NOW - 1}"), 400, "range_reversed"),
    known("B12", "from only", f"from={NOW}"),
    known("B12", "to only", f"to={NOW}"),
    known("B12", "neither", "limit=1"),
    known("B12", "from the beginning", "from=0"),
    *[
        bars(number, what, f"from={text}", "from_invalid")
        for number, what, text in (
            ("B14", "seconds", "1700000100"),
            ("B14", "microseconds", "1700000100000000"),
            ("B14", "nanoseconds", "1700000100000000000"),
            ("B15", "an exponent", "1e12"),
            ("B15", "a fraction", "1700000100000.5"),
            ("B17", "a sign", "%2B1700000100000"),
            ("B17", "a space", "%201700000100000"),
            ("B17", "underscores", "1_700_000_100_000"),
            ("B17", "hexadecimal", "0x18bcfe56800"),
            ("B17", "full-width digits", "\uff11\uff17"),
            ("B18", "2^63", str(2**63)),
            ("B18", "10^23", "1" + "0" * 23),
            ("B18", "negative", "-1"),
            ("B19", "no offset", "2024-01-01T00:00:00"),
            ("B19", "a date", "2024-01-01"),
            ("B20", "30 February", "2024-02-30T00:00:00Z"),
            ("B20", "24 o'clock", "2024-01-01T24:00:00Z"),
            ("B20", "a leap second", "2024-12-31T23:59:60Z"),
            ("B20", "an offset of a day", "2024-01-01T00:00:00%2B24:00"),
            ("B21", "the first year", "0001-01-01T00:00:00Z"),
            ("B21", "before the first year", "0001-01-01T00:00:00%2B14:00"),
            ("B21", "after the last year", "9999-12-31T23:59:59-14:00"),
            ("B21", "the year zero", "0000-01-01T00:00:00Z"),
        )
    ],
    bars("B16", "empty", "from=", "param_empty"),
    known("B21", "the last day there is", "to=9999-12-31T23:59:59Z"),
    Case("B22", "a + that was not quoted", get(f"{BARS}?from=2024-01-01T00:00:00+02:00"), 400, "from_invalid", b"%2B"),
    known("B22", "a + that was", "from=2024-01-01T00:00:00%2B02:00"),
]

PARAMETERS = [
    *[
        bars("B23", f"limit {text}", f"limit={text}", "limit_invalid")
        for text in ("0", "-1", "5001", "abc", "1.0", "1e3", "%2B1", "1_000", "\uff11", str(2**63), "9" * 5000, "-0x1")
    ],
    # The largest page is 5,000 bars, not the catalogue's 1,000.
    known("B23", "the largest limit", "limit=5000"),
    bars("B24", "limit twice", "limit=1&limit=2", "param_repeated"),
    bars("B24", "limit twice, and the same", "limit=1&limit=1", "param_repeated"),
    bars("B25", "a misspelt name", "form=1", "param_unknown"),
    bars("B25", "a name without a value", "limit", "param_empty"),
    bars("B25", "an array", "limit[]=1", "param_unknown"),
    bars("B25", "a name in upper case", "LIMIT=1", "param_unknown"),
    bars("B25", "thirty names", "&".join(f"p{n}=1" for n in range(30)), "query_invalid"),
    bars("B25", "a value that is not UTF-8", "limit=%ff", "query_invalid"),
    bars("B25", "bytes that are not quoted", "limit=\xff", "limit_invalid"),
    # There is no `order`; these are the other words.
    *[bars("B26", f"fill {text!r}", f"fill={text}", "fill_invalid") for text in ("PREV", "prev;--", "none,null")],
    *[
        Case("B26", f"sort {text!r}", get(f"{TOKENS}?sort={text}"), 400, "sort_invalid")
        for text in ("asc;--", "SYMBOL", "symbol desc", "(select 1)")
    ],
    Case("B26", "an empty sort", get(f"{TOKENS}?sort="), 400, "param_empty"),
    *[
        Case("B07", f"search {text!r}", get(f"{TOKENS}?search={text}"), 200, "", b'"tokens":[]')
        for text in ("' OR 1=1--", "%25", "_", "\\", "%27%3B--", "\u202e", "x" * 64)
    ],
    Case("B07", "a search with a NUL", get(f"{TOKENS}?search=%00"), 400, "search_invalid"),
    Case("B23", "an offset beyond everything", get(f"{TOKENS}?offset=1000001"), 400, "offset_invalid"),
]

LIVE = "/health/live"

HEADS = [
    *[
        Case("B27", f"Accept {text}", get(BARS, f"Accept: {text}"), 406, "not_acceptable")
        for text in ("text/csv", "application/xml", "image/*", "text/html")
    ],
    Case("B27", "Accept with a choice", get(BARS, "Accept: text/csv, application/*;q=0.1"), 200),
    Case("B28", "HEAD", request("HEAD", BARS), 200, "", b"content-length: 45"),
    Case("B29", "TRACE", request("TRACE", BARS), 405, "method_not_allowed", b"allow: "),
    Case("B29", "PUT", request("PUT", BARS, body=b"{}"), 405, "method_not_allowed", b"GET"),
    Case("B29", "DELETE", request("DELETE", f"{TOKENS}/PEPE"), 405, "method_not_allowed", b"PUT"),
    Case("B29", "a method that nobody knows", request("FOO", BARS), 400, "request_invalid"),
    Case("B31", "absolute form", get(f"http://localhost{BARS}"), 200, "", EMPTY),
    Case("B31", "a slash at the end", get(f"{BARS}/"), 200, "", EMPTY),
    Case("B31", "a slash too many", get(f"/{BARS}"), 200, "", EMPTY),
    Case("B31", "an upper-case route", get("/API/V1/klines/PEPE"), 404, "route_unknown"),
    *[
        Case("B32", f"a URL of {size} bytes", get(f"{BARS}?from={'1' * size}"), 414, "uri_too_long")
        for size in (9_000, 70_000, 300_000)
    ],
    Case("B33", "120 headers", get(LIVE, *["X-A: b"] * 120), 431, "headers_too_large"),
    Case("B33", "40 KB of header", get(LIVE, f"X-A: {'x' * 40_000}"), 431, "headers_too_large"),
    Case("B34", "two hosts", get(LIVE, "Host: b"), 400, "host_invalid"),
    Case("B34", "another host in the target", get(f"http://b{LIVE}"), 400, "host_invalid"),
    *[
        Case("B34", f"a stranger's name for {target}", get(target, host="evil.example:8080"), 403, "host_refused")
        for target in ("/metrics", "/health/ready", "/api/v1/tokens")
    ],
    Case("B34", "no host", get(LIVE, host=""), 400, "host_invalid"),
    *[
        Case("B34", f"host {host}", get(LIVE, host=host), 400, "host_invalid")
        for host in ("a b", "a/b", "a:b", "a:123456", "user@a", "a,b", "[::1", "a\x80b")
    ],
    *[Case("B34", f"host {host}", get(LIVE, host=host), 200) for host in ("a:80", "[::1]:80", "127.0.0.1")],
    Case("B35", "Range", get(BARS, "Range: bytes=0-1"), 200, "", EMPTY),
    *[
        Case("B35", f"If-None-Match {tag}", get(BARS, f"If-None-Match: {tag}"), 200, "", EMPTY)
        for tag in ('"x', "x" * 1000, "W/", ',,,"",')
    ],
    Case("B35", "Expect something odd", get(BARS, "Expect: 200-ok"), 200),
    Case("B39", "a token without trades", get(BARS), 200, "", EMPTY),
    Case("B39", "the same, filled", get(f"{BARS}?fill=prev&from={NOW}&to={NOW + 600_000}"), 200, "", EMPTY),
    Case("B40", "GET with a body", get(BARS, body=b"{}"), 200, "", EMPTY),
    Case("B40", "HEAD with a body", request("HEAD", BARS, body=b"{}"), 200),
    Case("B40", "a header without a name", get(LIVE, ": x"), 400, "request_invalid"),
    Case("B40", "a header with a line of its own", get(LIVE, "X-A: b\r\n c"), 400, "request_invalid"),
    Case("B40", "no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "request_invalid"),
    Case("B40", "HTTP of the future", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400, "request_invalid"),
]

CASES = [*SYMBOLS, *INTERVALS, *TIMES, *PARAMETERS, *HEADS]


@pytest.fixture
async def known_site(site: Site) -> Site:
    """A service that knows one token, and nothing else at the end."""
    assert (
        await site.place.send(request("PUT", f"{TOKENS}/PEPE", "Content-Type: application/json", body=b"{}"))
    ).status == 201
    site.tokens = {"PEPE"}
    return site


async def test_the_table(known_site: Site) -> None:
    await known_site.hold(CASES)


async def test_b36_what_the_client_has_is_not_sent_again(known_site: Site) -> None:
    trade = b'{"trades":[{"symbol":"PEPE","trade_id":1,"time":1700000100000,"price":"1","amount":"1","side":"buy"}]}'
    await known_site.place.send(request("POST", "/api/v1/trades", "Content-Type: application/json", body=trade))
    known_site.trades = {("PEPE", 1, NOW * 1000)}
    tag = (await known_site.place.send(get(BARS))).headers["etag"]
    await known_site.hold(
        [
            Case("B36", "the right tag", get(BARS, f"If-None-Match: {tag}"), 304),
            Case("B36", "it among others", get(BARS, f'If-None-Match: "x", W/{tag}'), 304),
            Case("B36", "another tag", get(BARS, 'If-None-Match: "0123"'), 200),
        ]
    )
