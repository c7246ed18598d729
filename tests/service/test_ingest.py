"""`POST /api/v1/trades`: what is stored, what is counted, and that a refused request stores nothing."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from klines.models import Trade
from klines.trade_input import trades_of_json, trades_of_ndjson
from klines.trade_rules import TradeRules
from klines.web import body as web_body
from tests.application import send_raw, serving, settings_for
from tests.servers import Database

MS = 1_700_000_100_000
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def trade(**changes: Any) -> dict[str, Any]:
    """A good trade with some members changed; None removes one."""
    item = {"symbol": "PEPE", "trade_id": 1, "time": MS, "price": "0.5", "amount": "2", "side": "buy"} | changes
    return {name: value for name, value in item.items() if value is not None}


async def post(client: httpx.AsyncClient, *trades: dict[str, Any]) -> httpx.Response:
    return await client.post("/api/v1/trades", json={"trades": list(trades)})


async def stored(client: httpx.AsyncClient, symbol: str = "PEPE") -> list[dict[str, Any]]:
    answer = await client.get(f"/api/v1/trades/{symbol}")
    rows: list[dict[str, Any]] = answer.json().get("trades", [])
    return rows


async def test_trades_are_counted_stored_and_read_back(client: httpx.AsyncClient) -> None:
    answer = await post(client, trade(), trade(trade_id=2, side="sell", price=0.25))
    assert answer.json() == {"received": 2, "inserted": 2, "duplicates": 0, "conflicts": 0}
    assert await stored(client) == [
        {"trade_id": 1, "time": MS, "time_us": MS * 1000, "price": "0.5", "amount": "2", "side": "buy"},
        {"trade_id": 2, "time": MS, "time_us": MS * 1000, "price": "0.25", "amount": "2", "side": "sell"},
    ]


async def test_what_get_answers_can_be_posted_again(client: httpx.AsyncClient) -> None:
    await post(client, trade(time="2023-11-14T22:15:00.1234567Z"))
    (row,) = await stored(client)
    assert row["time_us"] == MS * 1000 + 123_456
    again = await post(client, {"symbol": "PEPE", **row})
    assert again.json() == {"received": 1, "inserted": 0, "duplicates": 1, "conflicts": 0}


async def test_duplicates_and_conflicts_are_told_apart(client: httpx.AsyncClient) -> None:
    await post(client, trade())
    answer = await post(
        client, trade(price="0.50"), trade(price="0.6"), trade(trade_id=2), trade(trade_id=2, side="sell")
    )
    assert answer.json() == {"received": 4, "inserted": 1, "duplicates": 1, "conflicts": 2}
    assert [(row["trade_id"], row["price"], row["side"]) for row in await stored(client)] == [
        (1, "0.5", "buy"),
        (2, "0.5", "buy"),
    ]


async def test_the_same_id_at_another_time_is_another_trade(client: httpx.AsyncClient) -> None:
    await post(client, trade())
    assert (await post(client, trade(time=MS + 1))).json()["inserted"] == 1


async def test_nanoseconds_are_cut_and_never_reach_the_next_bar(client: httpx.AsyncClient) -> None:
    await post(client, trade(time="2023-11-14T22:15:59.999999999Z"))
    rows = (await client.get("/api/v1/klines/PEPE?interval=1s")).json()["klines"]
    assert [row["open_time"] for row in rows] == [MS + 59_000]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("1e-12", "0.000000000001"),
        ("0.1000", "0.1"),
        ("123456789012345678901234.123456789012345678901234567890123456",) * 2,
        ("00.5", "0.5"),
        ("1E3", "1000"),
    ],
)
async def test_decimals_are_taken_exactly(client: httpx.AsyncClient, sent: str, kept: str) -> None:
    as_text = b'{"trades":[{"symbol":"PEPE","trade_id":1,"time":%d,"price":"%b","amount":"1","side":"buy"}]}'
    await client.post("/api/v1/trades", content=as_text % (MS, sent.encode()), headers=JSON)
    assert [row["price"] for row in await stored(client)] == [kept]


async def test_json_numbers_are_taken_from_their_text(client: httpx.AsyncClient) -> None:
    body = (
        b'{"trades":[{"symbol":"PEPE","trade_id":1,"time":%d,"price":0.1000000000000000055511151231257827,'
        b'"amount":12345678901234567890.123456789,"side":"buy"}]}'
    )
    await client.post("/api/v1/trades", content=body % MS, headers=JSON)
    (row,) = await stored(client)
    assert row["price"] == "0.1000000000000000055511151231257827"
    assert row["amount"] == "12345678901234567890.123456789"


# what a trade is changed to, where the error lies
BROKEN_ITEMS: list[tuple[dict[str, Any], str]] = [
    *[({"price": text}, "price") for text in ("NaN", "sNaN", "Infinity", "-0", "0", "0.000", "-1", "", " 1 ", "1_0")],
    *[
        ({"price": text}, "price")
        for text in ("\uff11", "1E+999999999", "1e-1000000", "1e24", "1e-37", "9" * 60, "1,5", "0x1")
    ],
    *[({"amount": text}, "amount") for text in ("1e", ".5", "5.", "+1")],
    *[({"amount": number}, "amount") for number in (0, -1, True)],
    ({"amount": []}, "amount"),
    ({"amount": {}}, "amount"),
    *[({"price": None}, ""), ({"symbol": None}, ""), ({"side": None}, ""), ({"time": None}, "time")],
    *[({"side": value}, "side") for value in ("BUY", "b", 1)],
    *[({"trade_id": value}, "trade_id") for value in (-1, 2**63, 10**30, "7", 1.5, True)],
    *[
        ({"time": value}, "time")
        for value in (1_700_000_100, MS * 1000, -1, 0, "2024-01-01T00:00:00", "2024-02-30T00:00:00Z")
    ],
    *[({"time": value}, "time") for value in (int(time.time() * 1000) + 86_400_000, True, 1.5, 10**30)],
    *[({"symbol": value}, "symbol") for value in ("", "A" * 33, "A/B", "A B", "A\0B", "🚀", ".", "..", 7)],
    ({"prise": "1"}, ""),
    ({"time_us": MS * 1000 + 1000}, "time_us"),
]


async def test_a_broken_item_is_named_and_nothing_is_stored(plain_client: httpx.AsyncClient) -> None:
    wrong = []
    for number, (changes, field) in enumerate(BROKEN_ITEMS):
        name = f"T{number}"
        answer = await post(plain_client, trade(symbol=name), trade(**({"symbol": name} | changes)))
        body = answer.json()
        place = f"trades[1].{field}".rstrip(".")
        if answer.status_code != 422 or body["errors"][0]["loc"] != place or await stored(plain_client, name):
            wrong.append(f"{changes}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert (await plain_client.get("/api/v1/tokens")).json()["tokens"] == []


async def test_every_broken_item_is_named_up_to_twenty(plain_client: httpx.AsyncClient) -> None:
    answer = await post(plain_client, *(trade(trade_id=n, price="0" if n % 2 else "1") for n in range(100)))
    assert [error["loc"] for error in answer.json()["errors"]] == [f"trades[{n}].price" for n in range(1, 40, 2)]
    assert answer.json()["errors"][0]["msg"] == "must be greater than 0"


async def test_one_bad_row_among_ten_thousand(plain_client: httpx.AsyncClient) -> None:
    rows = [trade(trade_id=n) for n in range(10_000)]
    rows[7_777]["price"] = "NaN"
    answer = await post(plain_client, *rows)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, "trades[7777].price")
    assert await stored(plain_client) == []


# body, headers, status, code
BROKEN_BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"", JSON, 400, "body_empty"),
    (b"  \n", NDJSON, 400, "body_empty"),
    *[
        (body, JSON, 400, "body_invalid")
        for body in (b"null", b"{}", b'"x"', b"7", b"[]", b'{"trades":7}', b'{"trade":[]}')
    ],
    *[
        (body, JSON, 400, "json_invalid")
        for body in (
            b'{"trades":[',
            b'{"trades":[],}',
            b'\xef\xbb\xbf{"trades":[]}',
            '{"trades":[]}'.encode("utf-16"),
            b"//",
        )
    ],
    (b'{"trades":[{"symbol":"\\ud800"}]}', JSON, 400, "json_invalid"),
    (b'{"trades":[{"price":NaN}]}', JSON, 400, "json_invalid"),
    (b'{"trades":' + b"[" * 100_000, JSON, 400, "json_invalid"),
    (b'{"trades":[{"price":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", JSON, 400, "json_invalid"),
    (b'{"symbol":"A"}\n{"symbol"', NDJSON, 400, "json_invalid"),
    (b"{}", {"Content-Type": "text/plain"}, 415, "media_type_unsupported"),
    (b"{}", {"Content-Type": "application/xml"}, 415, "media_type_unsupported"),
    (b"{}", {}, 415, "media_type_unsupported"),
    (gzip.compress(b'{"trades":[]}'), JSON | {"Content-Encoding": "gzip"}, 415, "encoding"),
    (b"\n" * 100_001 + b"x", NDJSON, 413, "batch_too_large"),
    (b" " * (32 * 1024 * 1024 + 1), JSON, 413, "body_too_large"),
]


async def test_a_broken_body_is_refused(plain_client: httpx.AsyncClient) -> None:
    wrong = []
    for body, headers, status, code in BROKEN_BODIES:
        answer = await plain_client.post("/api/v1/trades", content=body, headers=headers)
        if answer.status_code != status or answer.json()["code"] != code:
            wrong.append(f"{body[:40]!r}: expected {status} {code}, got {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_one_trade_more_than_allowed(plain_client: httpx.AsyncClient) -> None:
    answer = await post(plain_client, *(trade(trade_id=n) for n in range(10_001)))
    assert (answer.status_code, answer.json()["code"]) == (413, "batch_too_large")
    assert await stored(plain_client) == []


async def test_an_empty_batch_is_no_error(plain_client: httpx.AsyncClient) -> None:
    assert (await post(plain_client)).json() == {"received": 0, "inserted": 0, "duplicates": 0, "conflicts": 0}


async def test_ndjson_names_the_line(plain_client: httpx.AsyncClient) -> None:
    good = httpx.Request("POST", "/", json=trade()).content
    bad = httpx.Request("POST", "/", json=trade(price="0")).content
    answer = await plain_client.post("/api/v1/trades", content=b"\n".join([good, b"", bad, b""]), headers=NDJSON)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, "line 3.price")
    answer = await plain_client.post("/api/v1/trades", content=b"\r\n".join([good, b"", good]), headers=NDJSON)
    assert answer.json() == {"received": 2, "inserted": 1, "duplicates": 1, "conflicts": 0}


async def test_unknown_symbols_can_be_forbidden(database: Database) -> None:
    async with (
        serving(settings_for(database, klines_register_tokens=False)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        await client.put("/api/v1/tokens/PEPE", json={})
        assert (await post(client, trade())).json()["inserted"] == 1
        answer = await post(client, trade(trade_id=2), trade(symbol="NEW"))
        assert (answer.status_code, answer.json()["code"]) == (422, "symbol_unknown")
        assert len(await stored(client)) == 1


async def test_trades_follow_the_range_rules_of_bars(client: httpx.AsyncClient) -> None:
    await post(client, *(trade(trade_id=n, time=MS + n) for n in range(10)))

    async def ids(query: str) -> list[int]:
        return [row["trade_id"] for row in (await client.get(f"/api/v1/trades/pepe?{query}")).json()["trades"]]

    assert await ids("limit=2") == [8, 9]
    assert await ids(f"limit=2&to={MS + 5}") == [3, 4]
    assert await ids(f"limit=2&from={MS + 5}") == [5, 6]
    assert await ids(f"from={MS + 2}&to={MS + 4}") == [2, 3]


POST = b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"


async def test_a_body_that_does_not_come_is_not_waited_for(
    plain_client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_body, "BODY_SECONDS", 0.2)
    status, body = await send_raw(plain_client, POST, b'{"trades":[')
    assert (status, '"code":"body_too_slow"' in body) == (408, True)


async def test_a_client_that_leaves_in_mid_body_stores_nothing_and_is_no_error(
    plain_client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection(plain_client.base_url.host, plain_client.base_url.port)
    writer.write(POST + b"\r\n" + b'{"trades":[{"symbol":"GONE"')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await stored(plain_client, "GONE") == []
    assert [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}] == []


async def test_a_refused_encoding_says_which_one_is_read(plain_client: httpx.AsyncClient) -> None:
    answer = await plain_client.post("/api/v1/trades", content=b"x", headers=JSON | {"Content-Encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


async def test_the_latest_trades_reach_back_over_years(client: httpx.AsyncClient) -> None:
    day = 86_400_000
    await post(client, *(trade(trade_id=n, time=MS - n * n * n * day // 4) for n in range(25)))

    async def ids(query: str) -> list[int]:
        return [row["trade_id"] for row in (await client.get(f"/api/v1/trades/PEPE?{query}")).json()["trades"]]

    for limit in (1, 3, 10, 24, 25, 26):
        assert await ids(f"limit={limit}") == list(range(24, -1, -1))[-limit:]
    assert await ids(f"limit=3&to={MS - 300 * day}") == [13, 12, 11]
    assert await ids(f"to={MS - 4000 * day}") == []


def line(number: int, **changes: str) -> str:
    members = {"symbol": '"PEPE"', "trade_id": str(number), "time": str(MS), "price": '"0.5"', "amount": '"2"'}
    written = members | {"side": '"buy"'} | changes
    return "{" + ",".join(f'"{name}":{text}' for name, text in written.items()) + "}"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (line(1) + line(2), "line 1"),
        (line(1) + "," + line(2), "line 1"),
        (line(1).replace(",", ",\n", 1), "line 1"),
        # As many objects as lines, and yet not one each.
        (line(1) + line(2) + "\n" + line(3).replace(",", ",\n", 1), "line 1"),
        (line(1) + "\n" + line(2)[:-1] + "}}", "line 2"),
        (line(1) + "\n" + line(2, price=r'"1\n2"') + "\n" + line(3), "line 2.price"),
        (line(1) + "\n" + line(2, price='"00.0"') + "\n" + line(3), "line 2.price"),
        (line(1) + "\n" + line(2, side='"bid"') + "\n" + line(3), "line 2.side"),
        (line(1) + "\n" + line(2, symbol='"A B"') + "\n" + line(3), "line 2.symbol"),
        (line(1) + "\n" + line(2, time_us="1") + "\n" + line(3), "line 2.time_us"),
    ],
)
async def test_a_line_is_one_object_and_a_bad_one_is_named(
    plain_client: httpx.AsyncClient, body: str, place: str
) -> None:
    answer = await plain_client.post("/api/v1/trades", content=body, headers=NDJSON)
    assert answer.status_code in {400, 422}
    assert answer.json()["detail"].startswith(place)
    assert await stored(plain_client) == []


ODD: dict[str, Callable[[str], str]] = {
    "blank lines": lambda body: "\n" + body.replace("\n", "\n \n"),
    "line ends": lambda body: body.replace("\n", "\r\n"),
    "one number": lambda body: body.replace('"price":"0.5"', '"price":0.5', 1),
    "one in another spelling": lambda body: body.replace('"price":"0.5"', '"price":"5e-1"', 1),
    "one time as text": lambda body: body.replace(f'"time":{MS}', '"time":"2023-11-14T22:15:00Z"', 1),
    "one small symbol": lambda body: body.replace('"PEPE"', '"pepe"', 1),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_however_it_is_written_a_batch_is_the_same(odd: Callable[[str], str]) -> None:
    rules = TradeRules(60)
    body = "\n".join(map(line, range(3))) + "\n"
    plain = trades_of_ndjson(body.encode(), rules)
    assert list(plain) == [Trade("PEPE", number, MS * 1000, "0.5", "2", "buy") for number in range(3)]
    assert trades_of_ndjson(odd(body).encode(), rules) == plain
    items = ",".join(line for line in odd(body).splitlines() if line.strip())
    assert trades_of_json(b'{"trades":[%b]}' % items.encode(), rules) == plain
