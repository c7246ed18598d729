"""Binance's WebSocket streams: addresses, requests, and the shape of events."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from klines.models import Trade
from klines.relay.schedule import MAX_ODD
from klines.web.binance.streams.address import BURST
from klines.web.binance.streams.tickers import MAX_LIST_BYTES
from tests.application import serving, settings_for
from tests.dialects.binance_streams import Client, joined
from tests.live.followers import PROMISED, TERMINATE, poll
from tests.live.streams import post
from tests.live.test_refusals import admitted, open_socket, refusal, refused_for_room
from tests.servers import Database

NOW_US = time.time_ns() // 1000
TRADE = Trade("PEPE", 7, NOW_US, "0.00000123", "2", "sell")


@pytest.fixture
async def ready(plain_client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a service that knows two tokens."""
    await post(plain_client, TRADE, TRADE._replace(symbol="$WIF-Ж"))
    return plain_client


def trade(number: int, **changes: Any) -> Trade:
    return TRADE._replace(trade_id=number, time_us=time.time_ns() // 1000, **changes)


async def test_streams_are_subscribed_listed_and_left(ready: httpx.AsyncClient) -> None:
    async with joined(ready) as client:
        assert await client.ask("LIST_SUBSCRIPTIONS") == {"result": [], "id": 1000}
        assert await client.ask("SUBSCRIBE", "pepe@trade", "PEPE@kline_1m") == {"result": None, "id": 1001}
        await client.subscribe("Pepe@trade", "pepe@kline_60s", "pepe@bookTicker")
        names = ["pepe@trade", "PEPE@kline_1m", "pepe@bookTicker"]
        assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == names
        await post(ready, trade(8))
        await client.until(lambda: client.trade_ids() == [8])
        assert (await client.ask("UNSUBSCRIBE", "PEPE@trade", "pepe@aggTrade"))["result"] is None
        assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == names[1:]
        await post(ready, trade(9, price="5"))
        await client.until(lambda: client.of("kline")[-1]["k"]["c"] == "5")
        assert client.trade_ids() == [8]
        assert client.names == []


async def test_the_answer_comes_before_the_first_event(ready: httpx.AsyncClient) -> None:
    async with joined(ready) as client:
        await client.subscribe("pepe@kline_1m")
        await client.until(lambda: client.events)
        assert [message.get("e", "answer") for message in client.messages[:2]] == ["answer", "kline"]


async def test_events_are_wrapped_on_demand(ready: httpx.AsyncClient) -> None:
    async with joined(ready, "/stream") as client:
        assert (await client.ask("GET_PROPERTY", "combined"))["result"] is True
        await client.subscribe("Pepe@trade")
        await post(ready, trade(8))
        await client.until(lambda: client.names == ["Pepe@trade"])
        assert (await client.ask("SET_PROPERTY", "combined", False))["result"] is None
        assert (await client.ask("GET_PROPERTY", "combined"))["result"] is False
        await post(ready, trade(9))
        await client.until(lambda: client.trade_ids() == [8, 9])
        assert len(client.names) == 1


WIF = quote("$wif-Ж")
ADDRESSES = {
    "/ws": [],
    "/ws/": [],
    "/ws/0": [],
    "/stream": [],
    "/ws/pepe@trade": ["pepe@trade"],
    "/ws/pepe@trade/PEPE@kline_5m": ["pepe@trade", "PEPE@kline_5m"],
    f"/ws/{WIF}@trade/pepe%40ticker": ["$wif-Ж@trade", "pepe@ticker"],
    "/ws/!miniTicker@arr@1000ms": ["!miniTicker@arr@1000ms"],
    "/stream?streams=pepe@kline_1m/!ticker@arr": ["pepe@kline_1m", "!ticker@arr"],
    f"/stream?timeUnit=MICROSECOND&streams={WIF}%40aggTrade": ["$wif-Ж@aggTrade"],
}


@pytest.mark.parametrize("target", ADDRESSES)
async def test_an_address_begins_with_its_streams(ready: httpx.AsyncClient, target: str) -> None:
    async with joined(ready, target) as client:
        assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == ADDRESSES[target]
        assert (await client.ask("GET_PROPERTY", "combined"))["result"] is target.startswith("/stream")


REFUSED = [
    ("/ws/nobody@trade", 404, "symbol_unknown"),
    ("/ws/pepe@trade/nobody@kline_1m", 404, "symbol_unknown"),
    ("/stream?streams=nobody@miniTicker", 404, "symbol_unknown"),
    ("/ws/pepe@trade/more", 404, "route_unknown"),
    ("/ws/more/and/more", 404, "route_unknown"),
    ("/stream/pepe@trade", 404, "route_unknown"),
    ("/ws/pepe@trades", 400, "stream_invalid"),
    ("/ws/!miniTicker", 101, ""),
    ("/ws/!bookTicker@arr", 400, "stream_invalid"),
    ("/ws/pepe@depth@100ms", 400, "stream_invalid"),
    ("/ws/pepe@kline_1m@+08:00", 400, "stream_invalid"),
    ("/ws/pepe@kline_1M", 400, "interval_invalid"),
    ("/ws/pepe@kline_86399s", 400, "interval_invalid"),
    ("/ws/p%20p@trade", 400, "symbol_invalid"),
    ("/ws/@trade", 400, "symbol_invalid"),
    ("/stream?streams=pepe", 400, "stream_invalid"),
    ("/ws?streams=pepe@trade", 400, "param_unknown"),
    ("/stream?timeUnit=SECOND", 400, "timeUnit_invalid"),
    ("/stream?streams=" + "/".join(f"pepe@kline_{n}s" for n in range(2, 30)), 101, ""),
]


async def test_what_is_wrong_in_an_address_is_refused_before_the_upgrade(ready: httpx.AsyncClient) -> None:
    wrong = []
    for target, status, code in REFUSED:
        if status == 101:
            async with open_socket(ready, target):
                continue
        problem = await refusal(ready, target)
        if (problem["status"], problem["code"]) != (status, code):
            wrong.append(f"{target[:60]}: {problem['status']} {problem['code']}, expected {code}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("target", ["/ws", "/ws/0", "/ws/pepe@trade", "/stream"])
async def test_a_request_without_upgrade_is_told_to_upgrade(ready: httpx.AsyncClient, target: str) -> None:
    assert (await ready.get(target)).status_code == 426


BAD = [
    ("", 3, None),
    ("{", 3, None),
    ('{"id":1}{"id":2}', 3, None),
    ('{"id":"\\ud800"}', 3, None),
    ("[" * 5000, 3, None),
    ("[]", 2, None),
    ('"SUBSCRIBE"', 2, None),
    ("null", 2, None),
    ('{"id":1}', 2, 1),
    ('{"method":"subscribe","params":[],"id":1}', 2, 1),
    ('{"method":["SUBSCRIBE"],"params":[],"id":1}', 2, 1),
    ('{"method":"SUBSCRIBE","id":1}', 2, 1),
    ('{"method":"SUBSCRIBE","params":"pepe@trade","id":1}', 2, 1),
    ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2, 1),
    ('{"method":"SUBSCRIBE","params":["pepe"],"id":1}', 2, 1),
    ('{"method":"SUBSCRIBE","params":["pepe@depth"],"id":1}', 2, 1),
    ('{"method":"SUBSCRIBE","params":["nobody@trade"],"id":"a"}', 2, "a"),
    ('{"method":"SUBSCRIBE","params":["pepe@kline_0m"],"id":null}', 2, None),
    ('{"method":"UNSUBSCRIBE","params":["pepe"],"id":1}', 2, 1),
    ('{"method":"LIST_SUBSCRIPTIONS","id":1.5}', 2, None),
    ('{"method":"LIST_SUBSCRIPTIONS","id":true}', 2, None),
    ('{"method":"LIST_SUBSCRIPTIONS","id":9223372036854775808}', 2, None),
    ('{"method":"LIST_SUBSCRIPTIONS","id":"' + "x" * 37 + '"}', 2, None),
    ('{"method":"GET_PROPERTY","params":["nothing"],"id":1}', 0, 1),
    ('{"method":"GET_PROPERTY","params":[],"id":1}', 2, 1),
    ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2, 1),
    ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1, 1),
    ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 2, 1),
    ('{"method":"SET_PROPERTY","params":["nothing",true],"id":1}', 0, 1),
]


async def test_a_bad_request_is_answered_with_its_code(ready: httpx.AsyncClient) -> None:
    wrong = []
    for start in range(0, len(BAD), BURST - 1):
        async with joined(ready) as client:
            for text, code, number in BAD[start : start + BURST - 1]:
                await client.connection.send(text)
                count = len(client.messages) + 1
                await client.until(lambda count=count: len(client.messages) == count)  # type: ignore[misc]
                told = client.messages[-1]
                told_twice = told.get("error") == {"code": told.get("code"), "msg": told.get("msg")}
                if not told_twice or not told["msg"] or (told["code"], told["id"]) != (code, number):
                    wrong.append(f"{text[:60]}: {told}")
            assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("id_", [0, -1, 2**63 - 1, -(2**63), "", "x" * 36, "é", None])
async def test_the_id_comes_back(ready: httpx.AsyncClient, id_: Any) -> None:
    async with joined(ready) as client:
        await client.connection.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": id_}))
        await client.until(lambda: client.messages == [{"result": [], "id": id_}])


async def test_a_subscription_is_all_or_nothing(ready: httpx.AsyncClient) -> None:
    async with joined(ready) as client:
        await client.subscribe("pepe@bookTicker")
        for bad in ("nobody@trade", "pepe@depth", "pepe"):
            assert (await client.ask("SUBSCRIBE", "pepe@trade", bad, "pepe@kline_1s"))["error"]["code"] == 2
        assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == ["pepe@bookTicker"]
        await post(ready, trade(8, price="9"))
        await client.until(lambda: client.events[-1].get("b") == "9")
        assert {event["e"] for event in client.events} == {"bookTicker"}


async def test_a_connection_holds_1024_streams(ready: httpx.AsyncClient) -> None:
    await post(ready, *(trade(8, symbol=f"T{number}") for number in range(1024)))
    names = [f"t{number}@trade" for number in range(1024)]
    async with joined(ready) as client:
        answer = await client.ask("SUBSCRIBE", *names, "pepe@trade")
        assert answer["error"]["code"] == 2
        assert "1024" in answer["error"]["msg"]
        await client.subscribe(*names)
        assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == names
        assert (await client.ask("SUBSCRIBE", "pepe@trade"))["error"]["code"] == 2
        await client.ask("UNSUBSCRIBE", names[0])
        await client.subscribe("pepe@trade")
        await post(ready, *(trade(9, symbol=f"T{number}") for number in range(1024)))
        await client.until(lambda: len(client.events) == 1023)


async def test_names_may_be_in_lower_case_in_any_alphabet(ready: httpx.AsyncClient) -> None:
    async with joined(ready, f"/ws/{quote('$wif-ж')}@trade") as client:
        await post(ready, trade(9, symbol="$WIF-Ж"))
        await client.until(lambda: [event["s"] for event in client.events] == ["$WIF-Ж"])
        assert "error" in await client.ask("SUBSCRIBE", "$wif-я@trade")


async def test_odd_intervals_of_a_token_are_bounded(ready: httpx.AsyncClient) -> None:
    odd = [f"pepe@kline_{seconds}s" for seconds in range(91, 91 + MAX_ODD)]
    async with joined(ready) as client, joined(ready) as other:
        await client.subscribe(*odd)
        answer = await other.ask("SUBSCRIBE", "pepe@kline_47s")
        assert str(MAX_ODD) in answer["error"]["msg"]
        await other.subscribe(odd[0], "pepe@kline_3m", "pepe@kline_1w", "$wif-Ж@kline_47s")
        await client.ask("UNSUBSCRIBE", odd[1])
        await other.subscribe("pepe@kline_47s")


async def test_events_have_the_shape_of_binance(ready: httpx.AsyncClient) -> None:
    for unit, per_ms in (("MILLISECOND", 1), ("MICROSECOND", 1000)):
        names = "pepe@trade/pepe@aggTrade/pepe@bookTicker/pepe@kline_1h"
        async with joined(ready, f"/stream?streams={names}&timeUnit={unit}") as client:
            made = trade(100 + per_ms, price=f"0.{per_ms}0000001", amount="3.5", side="buy")
            begun = time.time_ns() * per_ms // 1_000_000
            await post(ready, made)
            await client.until(lambda: len(client.events) == 6)  # two of them are what there was
            found = {event["e"]: event for event in client.events}
            at = made.time_us * per_ms // 1000
            tail = {"p": made.price, "q": "3.5", "T": at, "m": False, "M": True}
            for kind, head in (("trade", {"t": made.trade_id}), ("aggTrade", dict.fromkeys("afl", made.trade_id))):
                event = found[kind]
                assert begun <= event["E"] <= begun + 60_000 * per_ms
                assert event == {"e": kind, "E": event["E"], "s": "PEPE", **head, **tail}
            book = found["bookTicker"]
            assert (book["b"], book["a"], book["B"], book["A"]) == (made.price, made.price, "0", "0")
            bar = found["kline"]["k"]
            hour = 3_600_000 * per_ms
            assert (bar["t"] % hour, bar["T"] + 1 - bar["t"], bar["i"], bar["L"]) == (0, hour, "1h", made.trade_id)
            assert bar["t"] <= at <= bar["T"]


async def test_a_seller_takes_from_a_maker_who_buys(ready: httpx.AsyncClient) -> None:
    async with joined(ready, "/ws/pepe@trade") as client:
        await post(ready, trade(8, side="buy"), trade(9, side="sell"))
        await client.until(lambda: len(client.events) == 2)
        assert {event["t"]: event["m"] for event in client.events} == {8: False, 9: True}


REST_NAMES = {
    **{"p": "priceChange", "P": "priceChangePercent", "w": "weightedAvgPrice", "x": "prevClosePrice"},
    **{"c": "lastPrice", "Q": "lastQty", "o": "openPrice", "h": "highPrice", "l": "lowPrice"},
    **{"v": "volume", "q": "quoteVolume", "F": "firstId", "L": "lastId", "n": "count"},
}


async def test_tickers_say_what_rest_says(ready: httpx.AsyncClient) -> None:
    async with joined(ready, "/ws/pepe@ticker/pepe@miniTicker") as client:
        for number in range(3):
            heard = len(client.events)
            await post(ready, trade(8 + number, price=f"0.5{number + 1}"))
            await client.until(lambda heard=heard: len(client.events) >= heard + 2)  # type: ignore[misc]
        await client.until(lambda: client.events[-1]["c"] == client.events[-2]["c"] == "0.53")
        full, mini = client.of("24hrTicker")[-1], client.of("24hrMiniTicker")[-1]
        rest = (await ready.get("/api/v3/ticker/24hr", params={"symbol": "PEPE"})).json()
        full, mini = client.of("24hrTicker")[-1], client.of("24hrMiniTicker")[-1]
        expected = {short: rest[name] for short, name in REST_NAMES.items()}
        assert {name: full[name] for name in expected} == expected
        assert {name: mini[name] for name in "cohlvq"} == {name: expected[name] for name in "cohlvq"}
        assert len(client.events) <= 12, "more than one a second"


async def test_the_list_of_tickers_has_those_that_changed(ready: httpx.AsyncClient) -> None:
    async with joined(ready, "/stream?streams=!miniTicker@arr/!ticker@arr") as client:
        for symbol in ("NEW", "PEPE", "NEW"):
            client.events.clear()
            await post(ready, trade(time.time_ns(), symbol=symbol))
            await client.until(lambda: len(client.events) >= 2)
            assert {event["s"] for event in client.events} == {symbol}


async def test_lists_are_bounded_and_what_does_not_fit_comes_next(ready: httpx.AsyncClient, plain: Database) -> None:
    many = {f"A-TOKEN-WITH-A-LONG-NAME-{number:04}" for number in range(520)}
    connection = await asyncpg.connect(plain.url)
    async with joined(ready, "/ws/!ticker@arr") as client:

        def heard() -> set[str]:
            return {event["s"] for event in client.events}

        await post(ready, *(trade(8, symbol=symbol, price="0.00000000123456") for symbol in many))
        await client.until(lambda: many <= heard())
        # Whoever listens again cannot know what changed: everything may have.
        client.events.clear()
        await poll(lambda: connection.fetch(TERMINATE, "klines listener"), PROMISED)
        await client.until(lambda: many <= heard())
        sizes = [len(json.dumps(one, separators=(",", ":"))) for one in client.messages]
        assert MAX_LIST_BYTES // 2 < max(sizes) <= MAX_LIST_BYTES + 2
    await connection.close()


async def test_who_asks_too_much_is_closed(ready: httpx.AsyncClient) -> None:
    async with joined(ready) as client:
        for _ in range(BURST):
            await client.ask("LIST_SUBSCRIPTIONS")
        for _ in range(5):
            await client.connection.send('{"method":"LIST_SUBSCRIPTIONS","id":0}')
        assert await client.ended() == 1008
        assert "5 messages a second" in (client.connection.close_reason or "")


@pytest.mark.parametrize(
    ("message", "as_text", "code"),
    [
        (b"{}", False, 1003),
        ([b"{", b"}"], False, 1003),
        (b"\xff", True, 1007),
        ([b"\xc3", b"("], True, 1007),
        ("x" * 65 * 1024, True, 1009),
        (["x" * 40 * 1024] * 2, True, 1009),
    ],
    ids=["binary", "pieces of binary", "not UTF-8", "not UTF-8 as a whole", "too big", "too big as a whole"],
)
async def test_what_is_no_message_closes(ready: httpx.AsyncClient, message: Any, as_text: bool, code: int) -> None:
    async with joined(ready, "/ws/pepe@trade") as client:
        await client.connection.send(message, text=as_text)
        assert await client.ended() == code


async def test_a_flood_of_messages_is_not_kept(ready: httpx.AsyncClient) -> None:
    async with joined(ready) as client:
        frame = b"\x81\x82\0\0\0\0{}"
        client.connection.transport.write(frame * 50_000)
        assert await client.ended() in {1008, 1006}


async def test_a_message_may_come_in_pieces(ready: httpx.AsyncClient) -> None:
    async with joined(ready) as client:
        request = json.dumps(
            {"method": "SUBSCRIBE", "params": ["$wif-Ж@trade"], "id": "é"}, ensure_ascii=False
        ).encode()
        await client.connection.send([request[n : n + 1] for n in range(len(request))], text=True)
        await client.until(lambda: client.answers == {"é": {"result": None, "id": "é"}})
        await client.connection.send("{}")
        await client.until(lambda: len(client.messages) == 2)
        async with asyncio.timeout(5):
            await (await client.connection.ping("there?"))


async def test_these_connections_take_room_and_leave_it(plain: Database) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(plain, max_connections=2)))
        ready = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
        await post(ready, TRADE)
        async with joined(ready), joined(ready, "/ws/pepe@trade") as second:
            for target in ("/ws", "/stream", "/ws/transactions/PEPE"):
                assert refused_for_room(await refusal(ready, target))
            second.connection.transport.abort()
            await admitted(ready, "/ws/pepe@kline_1m")
        assert isinstance(second, Client)
