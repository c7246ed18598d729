"""B41 to B73: bad writes over HTTP. One service takes them all, and holds at the end what a good row wrote, no more."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import Any

import httpx
import pytest

from klines.web import body as web_body
from tests.application import serving, settings_for
from tests.input.conftest import Site
from tests.input.wire import JSON, NDJSON, Case, request
from tests.servers import Database

MS = 1_700_000_100_000
MIB = 1024 * 1024
STORED = b'"inserted":1,"duplicates":0,"conflicts":0'
KNOWN = b'"inserted":0,"duplicates":1,"conflicts":0'


def trade(**changes: Any) -> bytes:
    """The good trade as JSON with some members changed; a `bytes` value stands in it as it is, None removes one."""
    item = {"symbol": "BAD", "trade_id": 1, "time": MS, "price": "0.5", "amount": "2", "side": "buy"} | changes
    members = [
        b'"%b":%b' % (name.encode(), value if isinstance(value, bytes) else json.dumps(value).encode())
        for name, value in item.items()
        if value is not None
    ]
    return b"{" + b",".join(members) + b"}"


def batch(*items: bytes) -> bytes:
    """The body that holds these trades."""
    return b'{"trades":[' + b",".join(items) + b"]}"


def post(body: bytes, *headers: str, target: str = "/api/v1/trades") -> bytes:
    """A POST of trades, as JSON unless a header says otherwise."""
    typed = any(header.lower().startswith("content-type") for header in headers)
    return request("POST", target, *headers, *(() if typed else JSON), body=body)


def item(number: str, what: str, field: str = "", **changes: Any) -> Case:
    """A trade with a broken rule behind a good one: 422, the field is named and neither is stored."""
    place = f'"loc":"trades[1]{"." if field else ""}{field}"'.encode()
    return Case(number, what, post(batch(trade(), trade(**changes))), 422, "trade_invalid", place)


def good(number: str, what: str, holds: bytes = STORED, *, symbol: str = "GOOD", **changes: Any) -> Case:
    """A trade that is stored, or was."""
    return Case(number, what, post(batch(trade(symbol=symbol, **changes))), 200, "", holds)


def broken(number: str, what: str, body: bytes, code: str = "json_invalid", *headers: str, status: int = 400) -> Case:
    """A body that is no batch of trades."""
    return Case(number, what, post(body, *headers), status, code)


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """A body in pieces, without a length."""
    head = post(b"", "Transfer-Encoding: chunked")
    sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + sent + (b"0\r\n\r\n" if end else b"")


def with_head(*headers: str, body: bytes = b"") -> bytes:
    """A POST with exactly these headers besides the usual ones."""
    return request("POST", "/api/v1/trades", *JSON, *headers) + body


BODIES = [
    Case("B41", "no body", post(b""), 400, "body_empty"),
    Case("B41", "white space", post(b" \r\n "), 400, "body_empty"),
    Case("B41", "no lines", post(b"\n\n", *NDJSON), 400, "body_empty"),
    # An empty list asks for nothing and gets it; a bare list is no body of ours.
    Case("B42", "no trades", post(batch()), 200, "", b'{"received":0,"inserted":0,"duplicates":0,"conflicts":0}'),
    *[
        broken("B43", body.decode(), body, "body_invalid")
        for body in (b"[]", b"null", b"{}", b'"x"', b"7", b"true", b'{"trades":7}', b'{"trades":null}', b'{"trade":[]}')
    ],
    broken("B43", "a list", batch().removeprefix(b'{"trades":')[:-1], "body_invalid"),
    *[
        broken("B44", what, body)
        for what, body in (
            ("cut off", batch(trade())[:-3]),
            ("cut off in a trade", batch(trade())[:40]),
            ("a comma at the end", b'{"trades":[],}'),
            ("a byte order mark", b"\xef\xbb\xbf" + batch()),
            ("UTF-16", batch(trade()).decode().encode("utf-16")),
            ("Latin-1", batch(trade(symbol=b'"CAF\xc9"'))),
            ("half of a surrogate pair", batch(trade(symbol=b'"\\ud800"'))),
            ("a comment", b"/* */" + batch()),
            ("NaN", batch(trade(price=b"NaN"))),
            ("Infinity", batch(trade(price=b"Infinity"))),
            ("a number that begins with 0", batch(trade(trade_id=b"007"))),
            ("single quotes", b"{'trades':[]}"),
            ("two bodies", batch() + batch()),
            ("a NUL", batch() + b"\0"),
        )
    ],
    Case("B44", "where it breaks", post(b'{"trades":[],}'), 400, "json_invalid", b"(byte 13)"),
    broken("B44", "a line that is cut off", trade() + b"\n" + trade()[:-1], "json_invalid", *NDJSON),
    *[
        broken("B45", f"{depth} levels", b'{"trades":' + b"[" * depth + b"]" * depth + b"}", code)
        for depth, code in ((1_001, "json_invalid"), (100_000, "json_invalid"))
    ],
    broken("B45", "as many in a price", batch(trade(price=b"[" * 100_000 + b"]" * 100_000))),
    broken("B45", "as many in a line", b'{"price":' + b'{"a":' * 50_000, "json_invalid", *NDJSON),
    # The last of two members with one name counts, as in most JSON readers; no rule is passed by it.
    Case("B46", "a price twice", post(batch(trade(symbol="TWICE")[:-1] + b',"price":"7"}')), 200, "", STORED),
    Case("B46", "and the last counts", post(batch(trade(symbol="TWICE", price="7"))), 200, "", KNOWN),
    item("B46", "a good price before a bad one", "price", price=b'"1","price":"0"'),
    item("B47", "a misspelt field", prise="1"),
    broken("B47", "a misspelt list", b'{"trades":[],"strict":true}', "body_invalid"),
    broken("B61", "a trade too many", batch(*[trade()] * 10_001), "batch_too_large", status=413),
    broken("B61", "a line too many", trade() + b"\n" * 100_000 + trade(), "batch_too_large", *NDJSON, status=413),
    broken("B62", "more than 32 MiB", b" " * (32 * MIB + 1), "body_too_large", status=413),
    Case("B62", "more than 32 MiB in pieces", chunked(*[b" " * MIB] * 33), 413, "body_too_large"),
    Case("B62", "more than 32 MiB that never ends", chunked(*[b" " * MIB] * 40, end=False), 413, "body_too_large"),
    Case("B62", "a length beyond it, and no body", with_head(f"Content-Length: {33 * MIB}"), 413, "body_too_large"),
]

NO_IDS: list[Any] = ["7", "", "x" * 1024, "\0", 1.5, -1, 2**63, 10**30, True, []]
NO_SIDES: list[Any] = ["BUY", "b", "", 1, "buy ", []]
NO_NUMBERS: list[Any] = [True, [], {}, ["1"]]

NUMBERS = [
    *[
        item("B48", f"{field} {text!r}", field, **{field: text})
        for field in ("price", "amount")
        for text in ("NaN", "sNaN", "Infinity", "-Infinity", "-0", "0", "0.000", "-1", "0e5", "")
    ],
    *[item("B48", f"price {number!r}", "price", price=number) for number in (b"0", b"-1", b"0.0", b"-0", b"1e-40")],
    *[
        item("B49", f"price {text[:16]}", "price", price=text)
        for text in ("1E+999999999", "1e-1000000", "9" * 60, "1" + "0" * 24, "1e24", "9" * 100_000)
    ],
    item("B49", "a number of 1,000,000,000 digits, shortly", "price", price=b"1e999999999"),
    item("B50", "37 decimals", "price", price="0." + "0" * 36 + "1"),
    good("B50", "36 decimals", symbol="DUST", price="0." + "0" * 35 + "1"),
    *[
        item("B51", f"price {text!r}", "price", price=text)
        for text in (" 1 ", "1_0", "\uff11", "\u0663", "0x1", "1,5", "1.", ".5", "+1", "1e", "--1", "1\n", "1;--", "½")
    ],
    *[item("B51", f"price {value!r}", "price", price=value) for value in NO_NUMBERS],
    # A JSON number is its digits, never a float.
    good("B52", "a number with more digits than a float has", symbol="DIGITS", price=b"0.10000000000000000555"),
    good("B52", "and these digits are what is stored", KNOWN, symbol="DIGITS", price="0.10000000000000000555"),
]

ITEMS = [
    *[
        item("B53", what, "time", time=value)
        for what, value in (
            ("no offset", "2024-01-01T00:00:00"),
            ("seconds", MS // 1000),
            ("microseconds", MS * 1000),
            ("before 2009", 1_230_767_999_999),
            ("zero", 0),
            ("negative", -1),
            ("a fraction", 1.5),
            ("30 February", "2024-02-30T00:00:00Z"),
            ("10^30", 10**30),
            ("true", True),
            ("text", "now"),
            ("the year 12024", "12024-01-01T00:00:00Z"),
        )
    ],
    item("B53", "missing", "time", time=None),
    item("B53", "another millisecond", "time_us", time_us=MS * 1000 + 1000),
    # Digits beyond the microsecond are cut, never rounded up into the next bar.
    good("B54", "nanoseconds", symbol="NANO", time="2023-11-14T22:15:00.0000009Z"),
    good("B54", "nanoseconds are cut", KNOWN, symbol="NANO", time=MS),
    *[item("B55", f"trade_id {value!r}"[:40], "trade_id", trade_id=value) for value in NO_IDS],
    item("B55", "missing", trade_id=None),
    Case("B56", "the same twice", post(batch(*[trade(symbol="TWIN")] * 2)), 200, "", b'"inserted":1,"duplicates":1'),
    good("B57", "another price for a stored identity", b'"conflicts":1', symbol="TWIN", price="0.6"),
    Case("B57", "strict is not offered", post(batch(), target="/api/v1/trades?strict=true"), 400, "param_unknown"),
    # The time is part of an identity (docs/decisions.md): a microsecond later is another trade.
    good("B58", "the same id a microsecond later", symbol="TWIN", time=None, time_us=MS * 1000 + 1),
    Case(
        "B60",
        "one bad row of 10,000",
        post(batch(*[trade()] * 7_777, trade(side="?"), *[trade()] * 2_222)),
        422,
        "trade_invalid",
        b'"loc":"trades[7777].side"',
    ),
    *[item("B71", f"side {value!r}", "side", side=value) for value in NO_SIDES],
    item("B71", "side null", "side", side=b"null"),
    item("B71", "no side", side=None),
    *[
        item("B06", f"symbol {value!r}"[:40], "symbol", symbol=value)
        for value in (
            "",
            "A" * 33,
            "A/B",
            "A B",
            "A\0B",
            "🚀",
            ".",
            "..",
            7,
            "=cmd|' /C calc'!A0",
            "@SUM(1)",
            "+1",
            "<b>",
        )
    ],
    item("B47", "a list as a trade")._replace(request=post(batch(trade(), b"[]"))),
]

TYPES = [
    *[
        Case("B64", f"content-type {kind!r}", post(batch(), f"Content-Type: {kind}"), 415, "media_type_unsupported")
        for kind in ("text/plain", "application/xml", "", "application/jsonx", "text/json", "*/*", "application/json,x")
    ],
    Case("B64", "none", request("POST", "/api/v1/trades", body=batch()), 415, "media_type_unsupported"),
    Case("B64", "in capitals, with a charset", post(batch(), "Content-Type: APPLICATION/JSON; charset=utf-8"), 200),
    Case(
        "B65",
        "gzip",
        post(gzip.compress(batch()), "Content-Encoding: gzip"),
        415,
        "encoding",
        b"accept-encoding: identity",
    ),
    Case("B65", "a bomb", post(gzip.compress(bytes(10 * MIB)), "Content-Encoding: gzip"), 415, "encoding"),
    Case("B65", "deflate", post(zlib.compress(batch()), "Content-Encoding: deflate"), 415, "encoding"),
    *[
        Case("B65", name, post(batch(), f"Content-Encoding: {name}"), 415, "encoding")
        for name in ("br", "zstd", "x", "identity, gzip")
    ],
    Case("B65", "identity", post(batch(), "Content-Encoding: identity"), 200),
    Case(
        "B66",
        "a form without a boundary",
        post(b"x", "Content-Type: multipart/form-data"),
        415,
        "media_type_unsupported",
    ),
    Case(
        "B66",
        "a form of 10,000 parts",
        post(b"--b\r\n\r\nx\r\n" * 10_000, "Content-Type: multipart/form-data; boundary=b"),
        415,
        "media_type_unsupported",
    ),
    Case(
        "B66",
        "a file with a path",
        post(
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="../../x"\r\n\r\n\r\n--b--',
            "Content-Type: multipart/form-data; boundary=b",
        ),
        415,
        "media_type_unsupported",
    ),
    # No key is needed: whatever is sent twice has an identity, so the header is one that nobody reads.
    Case("B69", "an Idempotency-Key", post(batch(trade(symbol="KEY")), "Idempotency-Key: a"), 200, "", STORED),
    Case(
        "B69",
        "the same with another body",
        post(batch(trade(symbol="KEY", trade_id=2)), "Idempotency-Key: a"),
        200,
        "",
        STORED,
    ),
    Case("B69", "one of 10,000 characters", post(batch(), f"Idempotency-Key: {'x' * 10_000}"), 200),
]

LENGTHS = [
    Case("B63", "a length that is too small", with_head("Content-Length: 2", body=batch()), 400, "json_invalid"),
    Case("B63", "two lengths", with_head("Content-Length: 2", "Content-Length: 3", body=b"{}"), 400, "request_invalid"),
    Case(
        "B63",
        "two equal lengths",
        with_head("Content-Length: 2", "Content-Length: 2", body=b"{}"),
        400,
        "request_invalid",
    ),
    Case("B63", "a list of lengths", with_head("Content-Length: 2, 2", body=b"{}"), 400, "request_invalid"),
    Case(
        "B63",
        "a length and pieces",
        with_head("Content-Length: 2", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
        "request_invalid",
    ),
    *[
        Case("B63", f"length {text}", with_head(f"Content-Length: {text}"), 400, "request_invalid")
        for text in ("-1", "+5", "0x5", "5 5", "1e1", str(10**30))
    ],
    *[
        Case(
            "B63",
            f"transfer encoding {text}",
            with_head(f"Transfer-Encoding: {text}", body=b"0\r\n\r\n"),
            400,
            "request_invalid",
        )
        for text in ("gzip", "chunked, identity", "xchunked", "chunked, chunked")
    ],
    Case(
        "B63",
        "transfer encoding gzip, chunked",
        with_head("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        501,
        "transfer_encoding_unsupported",
        b"connection: close",
    ),
    Case(
        "B63",
        "pieces in HTTP/1.0",
        with_head("Transfer-Encoding: chunked", body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
        400,
        "transfer_encoding_invalid",
        b"connection: close",
    ),
    *[
        Case(
            "B63",
            f"a piece that begins {text!r}",
            with_head("Transfer-Encoding: chunked", body=text),
            400,
            "request_invalid",
        )
        for text in (b"x\r\n", b"-1\r\n", b"+1\r\n{", b"fffffffffffffffff\r\n", b" 1\r\n")
    ],
]

TOKEN = "/api/v1/tokens/BAD"


def facts(what: str, body: bytes, status: int, code: str, number: str = "B48") -> Case:
    """What is said of a token, and refused."""
    return Case(number, what, request("PUT", TOKEN, *JSON, body=body), status, code)


TOKENS = [
    facts("no facts", b"", 400, "json_invalid", "B41"),
    facts("no object", b"[]", 422, "token_invalid", "B43"),
    facts("cut off", b'{"name":', 400, "json_invalid", "B44"),
    facts("nested", b'{"metadata":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", 413, "body_too_large", "B45"),
    facts("nested, but small", b'{"metadata":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}", 400, "json_invalid", "B45"),
    facts("an unknown member", b'{"nome":"x"}', 422, "token_invalid", "B47"),
    *[
        facts(f"supply {text!r}", b'{"supply":"%b"}' % text, 422, "token_invalid")
        for text in (b"NaN", b"-1", b"1e99", b"")
    ],
    facts("supply as a number", b'{"supply":1}', 422, "token_invalid"),
    facts("decimals", b'{"decimals":37}', 422, "token_invalid"),
    facts("a name of 129 characters", b'{"name":"%b"}' % (b"x" * 129), 422, "token_invalid", "B55"),
    facts("a NUL", b'{"name":"\\u0000"}', 422, "token_invalid", "B55"),
    facts("a NUL in a key", b'{"metadata":{"\\u0000":1}}', 422, "token_invalid", "B55"),
    facts("half of a surrogate pair", b'{"name":"\\ud800"}', 400, "json_invalid", "B44"),
    facts("9 KiB of metadata", b'{"metadata":{"a":"%b"}}' % (b"x" * 9_000), 413, "metadata_too_large", "B62"),
    facts("a number that no number type holds", b'{"metadata":{"a":1e400}}', 422, "token_invalid", "B49"),
    facts("a number of 5,000 digits", b'{"metadata":{"a":%b}}' % (b"9" * 5_000), 422, "token_invalid", "B49"),
    facts("17 KiB", b" " * 17_000, 413, "body_too_large", "B62"),
    Case(
        "B64", "not JSON", request("PUT", TOKEN, "Content-Type: text/plain", body=b"{}"), 415, "media_type_unsupported"
    ),
    Case("B25", "a parameter", request("PUT", f"{TOKEN}?x=1", *JSON, body=b"{}"), 400, "param_unknown"),
]

CASES = [*BODIES, *NUMBERS, *ITEMS, *TYPES, *LENGTHS, *TOKENS]


async def test_the_table(site: Site) -> None:
    us = MS * 1000
    site.trades = {("TWIN", 1, us), ("TWIN", 1, us + 1), ("KEY", 1, us), ("KEY", 2, us)}
    site.trades |= {(symbol, 1, us) for symbol in ("TWICE", "DUST", "DIGITS", "NANO")}
    site.tokens = {symbol for symbol, _, _ in site.trades}
    # Not in the table: that is made when the tests are collected, and a long run takes more than two minutes.
    ahead = item("B53", "two minutes ahead", "time", time=int(time.time() * 1000) + 120_000)
    await site.hold([*CASES, ahead])


async def test_b59_a_symbol_that_is_not_registered(plain: Database) -> None:
    settings = settings_for(plain, klines_register_tokens=False)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(
            "/api/v1/trades", content=batch(trade()), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "symbol_unknown")
        assert (await client.get("/api/v1/tokens")).json() == {"tokens": []}


async def test_b67_b68_a_body_that_does_not_come_and_one_that_breaks_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_body, "BODY_SECONDS", 0.3)
    head = with_head("Content-Length: 1000", body=b'{"trades":[')
    assert Case("B67", "slow", head, 408, "body_too_slow").fault(await site.place.send(head)) == ""
    for data in (head, chunked(batch(trade()), end=False), head[:40]):
        await site.place.raw(data, then_end=True)
