"""B74 to B95: bad upgrades, bad frames and bad behaviour on sockets."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

import asyncpg
import pytest

from klines.app import create_app
from tests.application import serving_app, settings_for
from tests.input.conftest import Site, place_of
from tests.input.frames import (
    BINARY,
    CONTINUED,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    TEXT,
    close,
    frame,
    upgrade,
    upgraded,
)
from tests.input.wire import JSON, Case, get, request
from tests.servers import Database

TAPE = "/ws/transactions/PEPE"
CHART = "/ws/klines/PEPE/1m"
SPOT = "/ws"
KIB = 1024
MS = 1_700_000_100_000
UNKNOWN_EPOCH = "0123456789ab"


def refused(number: str, what: str, target: str, status: int, code: str, *headers: str, **changes: str) -> Case:
    """An upgrade that is refused with a problem."""
    return Case(number, what, upgrade(target, *headers, **changes), status, code)


UPGRADES = [
    *[
        Case("B74", "no upgrade", get(target), 426, "upgrade_required", b"upgrade: websocket")
        for target in (TAPE, SPOT)
    ],
    refused("B75", "version 8", TAPE, 400, "handshake_invalid", version="8"),
    refused("B75", "no version", TAPE, 400, "handshake_invalid", version=""),
    refused("B75", "no key", TAPE, 400, "handshake_invalid", key=""),
    refused("B75", "a short key", TAPE, 400, "handshake_invalid", key="aGVsbG8="),
    refused("B75", "a key that is no base64", TAPE, 400, "handshake_invalid", key="!!!!"),
    Case("B75", "another protocol", get(TAPE, "Upgrade: h2c", "Connection: Upgrade"), 426, "upgrade_required"),
    Case("B75", "POST", upgrade(TAPE).replace(b"GET", b"POST"), 405, "handshake_invalid"),
    refused("B76", "nobody's symbol", "/ws/transactions/NOBODY", 404, "symbol_unknown"),
    refused("B76", "no such interval", "/ws/klines/PEPE/1M", 404, "interval_unknown"),
    refused("B76", "no such stream", "/ws/trades/PEPE", 404, "route_unknown"),
    refused("B76", "no address of sockets", "/api/v1/klines/PEPE", 404, "route_unknown"),
    refused("B76", "a bad symbol", "/ws/transactions/P%20P", 400, "symbol_invalid"),
    refused("B76", "a NUL", "/ws/transactions/P%00P", 400, "path_invalid"),
    refused("B76", "a parameter twice", f"{TAPE}?history=1&history=2", 400, "param_repeated"),
    refused("B76", "nobody's symbol, as Binance", "/ws/nobody@trade", 404, "symbol_unknown"),
    refused("B34", "two hosts", TAPE, 400, "host_invalid", "Host: b"),
    refused("B33", "120 headers", TAPE, 431, "headers_too_large", *["X-A: b"] * 120),
    refused("B32", "a long address", f"{TAPE}?cursor={'x' * 9_000}", 414, "uri_too_long"),
    *[
        refused("B90", f"cursor {text[:24]}", f"{TAPE}?cursor={text}", 400, "cursor_invalid")
        for text in ("x", "-1", "18446744073709551616", "null", f"{UNKNOWN_EPOCH}.1.-1", f"{UNKNOWN_EPOCH}.1.{10**18}")
    ],
    # A cursor is a place in one stream.
    refused("B37", "another stream's cursor", f"{TAPE}?cursor={UNKNOWN_EPOCH}.9.1", 400, "cursor_invalid"),
    refused("B37", "a cursor of bars", f"{TAPE}?cursor={UNKNOWN_EPOCH}.1.1.60.1.1", 400, "cursor_invalid"),
    refused("B90", "an empty cursor", f"{TAPE}?cursor=", 400, "param_empty"),
]


class Spoken(NamedTuple):
    """Frames that a client sends, and the close code with which it is sent off."""

    number: str
    what: str
    frames: bytes
    code: int
    target: str = TAPE


BOMB = zlib.compress(bytes(1024 * KIB))

SPOKEN = [
    *[
        row
        for target in (TAPE, CHART)
        for row in (
            Spoken("B81", "text", frame(TEXT, b"hello"), 4400, target),
            Spoken("B81", "empty text", frame(TEXT), 4400, target),
            Spoken("B81", "binary", frame(BINARY, b"\0"), 1003, target),
            Spoken("B86", "a piece of text", frame(TEXT, b"a", bits=0), 4400, target),
            Spoken("B84", "text that is not UTF-8", frame(TEXT, b"\xff\xfe"), 1007, target),
        )
    ],
    Spoken("B81", "binary, as Binance", frame(BINARY, b"{}"), 1003, SPOT),
    Spoken("B81", "25 messages at once, as Binance", frame(TEXT, b"{}") * 25, 1008, SPOT),
    Spoken("B84", "pieces that are no UTF-8", frame(TEXT, b"\xc3", bits=0) + frame(CONTINUED, b"("), 1007, SPOT),
    *[
        row
        for target in (TAPE, SPOT)
        for row in (
            Spoken("B82", "65,537 bytes", frame(TEXT, b"x" * (64 * KIB + 1)), 1009, target),
            Spoken("B82", "a frame that says it has 2^62 bytes", b"\x81\xff\x40" + bytes(7 + 4), 1009, target),
            Spoken("B82", "a frame that says it has 2^63 bytes", b"\x81\xff\x80" + bytes(7 + 4), 1009, target),
            # Nothing was said of compression, so a compressed frame breaks the protocol before it is looked into.
            Spoken("B83", "a compressed bomb", frame(TEXT, BOMB, bits=FIN | RSV1), 1002, target),
            Spoken("B85", "not masked", frame(TEXT, b"hello", masked=False), 1002, target),
            Spoken("B85", "a reserved bit", frame(TEXT, b"hello", bits=FIN | RSV2), 1002, target),
            Spoken("B85", "a reserved opcode", frame(3, b"x"), 1002, target),
            Spoken("B85", "a reserved control opcode", frame(11), 1002, target),
            Spoken("B85", "a ping in pieces", frame(PING, b"x", bits=0), 1002, target),
            Spoken("B85", "a ping of 126 bytes", frame(PING, b"x" * 126), 1002, target),
            Spoken("B85", "a continuation of nothing", frame(CONTINUED, b"x"), 1002, target),
            Spoken("B85", "a close of one byte", frame(8, b"\x03"), 1002, target),
            Spoken("B85", "a close with a reason that is not UTF-8", close(1000, b"\xff"), 1007, target),
            *[
                Spoken("B85", f"close {code}", close(code), 1002, target)
                for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)
            ],
            Spoken("B94", "close, then more", close(1000) + frame(TEXT, b"x") * 100, 1000, target),
            Spoken("B94", "close twice", close(4000) * 2, 4000, target),
            Spoken("B94", "close without a code", frame(8), 1005, target),
        )
    ],
    Spoken(
        "B82",
        "65,540 bytes in two pieces",
        frame(TEXT, b"x" * 32_770, bits=0) + frame(CONTINUED, b"x" * 32_770),
        1009,
        SPOT,
    ),
    Spoken("B85", "a message inside of another", frame(TEXT, b"x", bits=0) + frame(TEXT, b"y"), 1002, SPOT),
    # What carries next to nothing is bounded by number, and well below that bound nobody minds.
    *[
        Spoken(
            "B86",
            f"{count} pieces of {size} bytes",
            frame(TEXT, b"", bits=0)
            + frame(CONTINUED, b" " * size, bits=0) * count
            + frame(CONTINUED, b"{}")
            + close(1000),
            code,
            SPOT,
        )
        for count, size, code in ((150, 0, 1000), (20_000, 0, 1008), (300, 100, 1008), (300, 200, 1000))
    ],
    *[
        Spoken("B87", f"2,000 of opcode {opcode}", frame(opcode, b"x") * 2_000 + close(1000), 1008, target)
        for opcode in (PING, PONG)
        for target in (TAPE, SPOT)
    ],
]


@pytest.fixture
async def ready(site: Site) -> Site:
    """A service that knows one token with one trade."""
    await store(site, 1)
    site.tokens = {"PEPE"}
    return site


async def store(site: Site, trade_id: int) -> None:
    trade = {"symbol": "PEPE", "trade_id": trade_id, "time": MS, "price": "1", "amount": "1", "side": "buy"}
    body = json.dumps({"trades": [trade]}).encode()
    assert (await site.place.send(request("POST", "/api/v1/trades", *JSON, body=body))).status == 200
    site.trades.add(("PEPE", trade_id, MS * 1000))


async def test_bad_upgrades(ready: Site) -> None:
    await ready.hold(UPGRADES)


async def test_bad_frames(ready: Site) -> None:
    wrong = []
    for number, what, frames, expected, target in SPOKEN:
        async with upgraded(ready.place, target) as socket:
            await socket.send(frames)
            _, code = await socket.until_close()
        if code != expected:
            wrong.append(f"{number} {what} on {target}: closed with {code}, expected {expected}")
    assert not wrong, "\n".join(wrong)


async def test_b80_b83_what_is_offered_and_not_known_is_left_out(ready: Site) -> None:
    offers = (
        "Sec-WebSocket-Protocol: secret, chat",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    )
    async with upgraded(ready.place, TAPE, *offers) as socket:
        assert not socket.headers.keys() & {"sec-websocket-protocol", "sec-websocket-extensions"}


async def test_b87_pings_are_answered_while_they_are_read(ready: Site) -> None:
    for target in (TAPE, SPOT):
        async with upgraded(ready.place, target) as socket:
            await socket.send(b"".join(frame(PING, b"%d" % n) for n in range(150)) + close(1000))
            told, code = await socket.until_close()
        pongs = [int(one.data) for one in told if one.opcode == PONG]
        # Of several pings that wait, an answer to the latest is enough (RFC 6455, 5.5.3).
        assert (pongs == sorted(pongs), pongs[-1], code) == (True, 149, 1000)


async def test_b88_who_never_answers_a_ping_is_sent_off(plain: Database) -> None:
    app = create_app(settings_for(plain))
    async with (
        serving_app(app, ws_ping_interval=0.1, ws_ping_timeout=0.1) as url,
        upgraded(place_of(url), SPOT) as socket,
    ):
        _, code = await socket.until_close()
    assert code == 1011


async def test_b90_a_cursor_that_nobody_gave_out_recovers_nothing(ready: Site) -> None:
    ours, token, _ = (await snapshot(ready, TAPE))["cursor"].split(".")
    for cursor in (f"{epoch}.{token}.{sequence}" for epoch in (ours, UNKNOWN_EPOCH) for sequence in (5, 10**9)):
        told = await snapshot(ready, f"{TAPE}?cursor={cursor}")
        assert told["recovered"] is False, cursor


async def test_b91_a_cursor_that_is_too_old_recovers_nothing(ready: Site) -> None:
    cursor = (await snapshot(ready, TAPE))["cursor"]
    await store(ready, 2)
    await store(ready, 3)
    connection = await asyncpg.connect(ready.database.url)
    await connection.execute("DELETE FROM klines_internal.tape")
    await connection.close()
    told = await snapshot(ready, f"{TAPE}?cursor={cursor}&history=5")
    assert (told["recovered"], [trade["trade_id"] for trade in told["trades"]]) == (False, [1, 2, 3])


async def snapshot(site: Site, target: str) -> dict[str, Any]:
    async with upgraded(site.place, target) as socket:
        told: dict[str, Any] = json.loads((await socket.next()).data)
    assert told["type"] == "snapshot"
    return told


async def test_b92_b93_streams_are_bounded_and_one_is_one(ready: Site) -> None:
    names = [f"pepe@kline_{number}s" for number in range(1, 26)]
    async with upgraded(ready.place, SPOT) as socket:
        many = {"method": "SUBSCRIBE", "params": ["pepe@trade"] * 5_000, "id": 1}
        await socket.send(frame(TEXT, json.dumps(many).encode()))
        assert (await socket.until_close())[1] == 1009
    async with upgraded(ready.place, SPOT) as socket:
        for number, params in enumerate((names[:2] * 3, names[:1])):
            await socket.send(frame(TEXT, json.dumps({"method": "SUBSCRIBE", "params": params, "id": number}).encode()))
        await socket.send(frame(TEXT, b'{"method":"LIST_SUBSCRIPTIONS","id":9}'))
        while (told := json.loads((await socket.next()).data)).get("id") != 9:
            pass
        assert sorted(told["result"]) == names[:2]


async def test_b95_who_goes_in_the_middle_leaves_no_trace(ready: Site) -> None:
    for target in (TAPE, f"{CHART}?history=1000", SPOT, "/ws/pepe@kline_1m"):
        for _ in range(5):
            async with upgraded(ready.place, target) as socket:
                socket.abort()
        for data in (upgrade(target), upgrade(target)[:60], upgrade(target) + b"\x81"):
            await ready.place.raw(data, then_end=True)
