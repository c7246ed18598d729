"""A file becomes exactly its trades, or one clear refusal that names the line."""

from __future__ import annotations

import gzip
import os
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.errors import BadRequest, InvalidItems, KlinesError
from klines.importer import reader
from klines.importer.reader import ReadOptions, open_trades
from klines.importer.source import BOMB_BYTES, MAX_LINE_BYTES, open_source
from klines.importer.values import SideColumn, TimeColumn, trade_id_of
from klines.models import Trade
from klines.trade_rules import BrokenRule

HEADER = "symbol,trade_id,ts_ms,price,qty,side\n"
ROW = "NXSBTC,1,1614614473204,0.00002411,41,sell\n"
TRADE = Trade("NXSBTC", 1, 1614614473204000, "0.00002411", "41", "sell")
MIB = 1024 * 1024


def row(number: int, **other: str) -> str:
    values = {"symbol": "NXSBTC", "trade_id": str(number), "ts_ms": "1614614473204", "price": "2", "qty": "3"}
    return ",".join((values | {"side": "buy"} | other).values()) + "\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trades"


def read(file: Path, content: str | bytes, **options: Any) -> list[tuple[int, Trade]]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with open_trades(file, ReadOptions(**options)) as trades:
        return [pair for batch in trades.batches() for pair in zip(batch.lines, batch.trades, strict=True)]


def trades_of(file: Path, content: str | bytes, **options: Any) -> list[Trade]:
    return [trade for _, trade in read(file, content, **options)]


def refused(file: Path, content: str | bytes, **options: Any) -> str:
    """The refusal's text behind the file's name."""
    with pytest.raises((BadRequest, InvalidItems)) as caught:
        read(file, content, **options)
    return said(caught.value, file)


def said(error: KlinesError, file: Path) -> str:
    assert error.exit_code == 2
    assert "\n" not in error.detail
    assert error.detail.endswith("nothing was stored")
    return error.detail.removeprefix(str(file))


# --- Forms


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(file: Path, delimiter: str, end: str) -> None:
    content = (HEADER + ROW + "\n" + ROW).replace(",", delimiter).replace("\n", end)

    assert read(file, content) == [(2, TRADE), (4, TRADE)]


def test_a_delimiter_that_is_not_guessed(file: Path) -> None:
    assert trades_of(file, (HEADER + ROW).replace(",", "~"), delimiter="~") == [TRADE]
    assert "no column" in _columns_refusal(file, (HEADER + ROW).replace(",", "~"))


def _columns_refusal(file: Path, content: str) -> str:
    with pytest.raises(BadRequest) as caught:
        read(file, content)
    return caught.value.detail


@pytest.mark.parametrize("lead", ["", "\ufeff", "\n\n", "\ufeff \r\n"])
@pytest.mark.parametrize("last", ["\n", ""])
def test_marks_blank_lines_and_a_missing_last_line_end(file: Path, lead: str, last: str) -> None:
    content = lead + HEADER + ROW.rstrip("\n") + last

    assert read(file, content) == [(2 + lead.count("\n"), TRADE)]


def test_quoted_fields_may_hold_delimiters_quotes_and_lines(file: Path) -> None:
    header = 'note,"symbol",trade_id,ts_ms,price,qty,side\n'
    first = '"a, ""b""\r\nc\nd","NXSBTC",1,"1614614473204",0.00002411,41,sell\n'

    assert read(file, header + first + '"",' + ROW) == [(2, TRADE), (5, TRADE)]


def test_formulas_in_ignored_columns_are_ignored(file: Path) -> None:
    cells = ["=cmd|' /C calc'!A0", "@SUM(1)", "\x1b[2J"]
    content = "a,b,c," + HEADER + ",".join(cells) + "," + ROW

    assert trades_of(file, content) == [TRADE]


@pytest.mark.parametrize("form", [None, "jsonl"])
def test_json_lines_are_taken_from_their_text(file: Path, form: str | None) -> None:
    content = (
        '\ufeff\n{"s":"x","pair":"nxsbtc","id":7,"time":1762795433971.9717445,"price":1.10000000000000000001e-9,'
        '"amount":100000000000000000.1,"is_buyer_maker":true,"raw":{"price":[1]}}\r\n'
        '\n{"pair":"\\u004eXSBTC","id":"8","time":"1762795433971","price":"0.5","amount":5,"is_buyer_maker":false}'
    )

    assert read(file, content, form=form) == [
        (2, Trade("NXSBTC", 7, 1762795433971971, "0.00000000110000000000000000001", "100000000000000000.1", "sell")),
        (4, Trade("NXSBTC", 8, 1762795433971000, "0.5", "5", "buy")),
    ]


@pytest.mark.parametrize("members", [1, 3])
def test_gzip_is_known_by_its_content(file: Path, members: int) -> None:
    lines = [HEADER, *(row(number) for number in range(2))]
    parts = [gzip.compress("".join(lines[number::members]).encode()) for number in range(members)]
    plain = "".join("".join(lines[number::members]) for number in range(members))

    assert trades_of(file, b"".join(parts)) == trades_of(file, plain)
    assert len(trades_of(file, plain)) == 2


@given(text=st.lists(st.sampled_from(["a", "é", "\n", "\r", "\r\n", "\n\r"]), max_size=30), piece=st.integers(1, 5))
def test_lines_do_not_depend_on_where_pieces_end(
    tmp_path_factory: pytest.TempPathFactory, text: list[str], piece: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    content = "".join(text)
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klines.importer.source.PIECE_BYTES", piece)
        with open_source(path) as source:
            lines = list(source.lines())

    assert "".join(lines) == content
    assert [line.encode() for line in lines] == content.encode().splitlines(keepends=True)


def test_batches_tell_how_far_they_are(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 3)
    file.write_text(HEADER + "".join(row(number) for number in range(7)))
    with open_trades(file, ReadOptions()) as trades:
        batches = list(trades.batches())

    assert [batch.rows for batch in batches] == [3, 3, 1]
    assert batches[-1].share == 1.0
    assert [trade.trade_id for batch in batches for trade in batch.trades] == list(range(7))


# --- Values


@pytest.mark.parametrize(
    ("column", "unit", "text", "expected"),
    [
        ("time", None, "1762795433", 1762795433000000),
        ("time", None, "999999999", 999999999000000),
        ("time", None, "1762795433.9717445", 1762795433971744),
        ("time", None, "1762795433.9999999", 1762795433999999),
        ("time", None, "1762795433971", 1762795433971000),
        ("time", None, "1762795433971.5", 1762795433971500),
        ("time", None, "1762795433971744", 1762795433971744),
        ("time", None, "1762795433971744.9", 1762795433971744),
        ("time", None, "1762795433971744999", 1762795433971744),
        ("time", None, "2025-11-10T17:23:53.9717449Z", 1762795433971744),
        ("time", None, "2025-11-10 18:23:53+01:00", 1762795433000000),
        ("ts_ns", None, "1762795433", 1762795),
        ("TS_US", None, "5.9", 5),
        ("time_ms", None, "5", 5000),
        ("t_s", None, "5.1", 5100000),
        ("ts_s_exact", None, "1762795433.1", 1762795433100000),
        ("time_ms", "s", "5", 5000000),
        ("s", None, "1762795433971", 1762795433971000),
    ],
)
def test_times_are_cut_in_the_unit_of_the_column(column: str, unit: Any, text: str, expected: int) -> None:
    assert TimeColumn(column, unit).us(text) == expected


@given(us=st.integers(1_230_768_000_000_000, 7_258_118_399_999_999), rest=st.text("0123456789", max_size=30))
def test_fractions_of_seconds_are_exact(us: int, rest: str) -> None:
    whole, part = divmod(us, 1_000_000)

    assert TimeColumn("ts_s", None).us(f"{whole}.{part:06}{rest}") == us
    assert TimeColumn("ts_ns", None).us(f"{us}999") == us


@pytest.mark.parametrize(
    "text", ["", " 1", "-1", "+1", "1e9", "1_0", "1.", ".1", "1.1.1", "1,5", "\u0661", "\u00b2", "9" * 5000]
)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", None])
def test_other_numbers_are_no_times(unit: Any, text: str) -> None:
    with pytest.raises(BrokenRule) as caught:
        TimeColumn("when", unit).us(text)

    assert caught.value.field == "time"


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(BrokenRule, match="offset"):
        TimeColumn("time", None).us("2025-11-10T17:23:53")


def test_one_unit_per_file(file: Path) -> None:
    rows = HEADER.replace("ts_ms", "time") + row(1) + row(2, ts_ms="1614614473") + row(3, ts_ms="1614614473204000")

    assert ":3: time: must not be before 2009: is the unit right? (here '1614614473')" in refused(file, rows)
    assert [trade.trade_id for trade in trades_of(file, rows, skip_invalid=True)] == [1]


def test_the_unit_is_that_of_the_first_time_that_has_one(file: Path) -> None:
    rows = HEADER.replace("ts_ms", "time") + row(1, ts_ms="") + row(2, ts_ms="12345") + row(3)

    assert [trade.trade_id for trade in trades_of(file, rows, skip_invalid=True)] == [3]
    assert "--time-unit" in refused(file, rows)


@pytest.mark.parametrize("text", ["0", "1", "9223372036854775808", "123456789012345678901234567890"])
def test_trade_ids_in_their_one_spelling(text: str) -> None:
    assert trade_id_of(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "01", "00", "+1", "-1", "1.0", "1e3", " 1", "1_0", "0x1", "\u0661", "\u00b2", "9" * 5000]
)
def test_other_trade_ids_are_refused(text: str) -> None:
    with pytest.raises(BrokenRule, match="trade_id"):
        trade_id_of(text)


def test_a_trade_id_beyond_the_bigint_is_refused(file: Path) -> None:
    assert ":2: trade_id: must be between 0 and 2^63 - 1" in refused(file, HEADER + row(2**63))
    assert len(trades_of(file, HEADER + row(2**63 - 1))) == 1


@pytest.mark.parametrize(
    ("column", "buys", "sells", "others"),
    [
        (
            "side",
            ["buy", "B", "Buy", "b"],
            ["sell", "S", "SELL"],
            ["true", "false", "1", "0", "bid", "ask", "", " buy"],
        ),
        ("is_buyer_maker", ["false", "False", "0"], ["true", "TRUE", "1"], ["buy", "sell", "", "2", "t"]),
        ("isBuyerMaker", ["false"], ["true"], ["b"]),
        ("m", ["false"], ["true"], ["s"]),
        ("taker_is_seller", ["buy"], ["sell"], ["true", "false"]),
    ],
)
def test_sides(column: str, buys: list[str], sells: list[str], others: list[str]) -> None:
    sides = SideColumn(column)

    assert {sides.side(text) for text in buys} == {"buy"}
    assert {sides.side(text) for text in sells} == {"sell"}
    for text in others:
        with pytest.raises(BrokenRule, match="side"):
            sides.side(text)


def test_one_symbol_for_all_rows(file: Path) -> None:
    content = "id,time,p,q,m\n1,1614614473204,2,3,true\n2,1614614473204,2,-3,true\n"

    assert ":3: q: must be greater than 0 (here '-3')" in refused(file, content, symbol="$mooncat")
    assert trades_of(file, content, symbol="$mooncat", skip_invalid=True)[0].symbol == "$MOONCAT"
    with pytest.raises(BadRequest, match="symbol"):
        read(file, content, symbol="no spaces")


# --- Bad rows


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({"symbol": "6zgC8Ktvfpzu2qYgXMpW5Qypo78kWaju3xG8qf8Dpump"}, "symbol: must be 1 to 32 letters"),
        ({"symbol": ""}, "symbol: must be 1 to 32 letters"),
        ({"price": ""}, "price: must be a decimal number (here '')"),
        ({"price": "NaN"}, "price: must be a decimal number (here 'NaN')"),
        ({"price": "0.0"}, "price: must be greater than 0"),
        ({"price": '"1,5"'}, "price: must be a decimal number (here '1,5')"),
        ({"qty": "1e24"}, "qty: must be less than 10^24"),
        ({"qty": "=1+1"}, "qty: must be a decimal number"),
        ({"side": "bid"}, "side: must be buy, b, sell or s (here 'bid')"),
        ({"ts_ms": "1614614473204 "}, "ts_ms: must be a number in ms"),
        ({"ts_ms": "99999999999999"}, "ts_ms: must be before 2200"),
        ({"side": "buy,"}, "has 7 fields, the header has 6"),
        ({"side": "\x1b" * 500}, "side: must be"),
    ],
)
def test_a_bad_row_is_named_by_line_column_and_rule(file: Path, other: dict[str, str], rule: str) -> None:
    content = HEADER + row(1) + row(2, **other) + row(3)

    detail = refused(file, content)
    assert detail.startswith(f":3: {rule}")
    assert detail.isprintable()
    assert [trade.trade_id for trade in trades_of(file, content, skip_invalid=True)] == [1, 3]


def test_a_decimal_comma_makes_a_field_too_many(file: Path) -> None:
    assert refused(file, HEADER + row(1, price="1,5")).startswith(":2: has 7 fields, the header has 6")
    assert refused(file, (HEADER + row(1, price="1.5")).replace(",", ";").replace(".", ",")).startswith(":2: price:")


def test_a_row_with_too_few_fields(file: Path) -> None:
    assert refused(file, HEADER + ROW + "NXSBTC,2\n").startswith(":3: has 2 fields, the header has 6")


def test_the_future_is_refused(file: Path) -> None:
    ahead = HEADER + row(1, ts_ms=str(time.time_ns() // 1_000_000 + 90_000))

    assert ":2: ts_ms: must not lie more than 60 s in the future" in refused(file, ahead, max_future_seconds=60)
    assert len(trades_of(file, ahead, max_future_seconds=120)) == 1


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("[1]", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ('{"id":1,"time":1614614473204,"price":1,"amount":1}', "side: is missing (here '')"),
        ('{"id":1,"time":1614614473204,"price":null,"amount":1,"side":"b"}', "price: must be a string or a number"),
        ('{"id":1,"time":1614614473204,"price":[1],"amount":1,"side":"b"}', "price: must be a string or a number"),
        ('{"id":1.0,"time":1614614473204,"price":1,"amount":1,"side":"b"}', "id: must be a whole number"),
        ('{"id":1,"time":1614614473204,"price":true,"amount":1,"side":"b"}', "price: must be a decimal number"),
        ('{"x":' + "[" * 100_000, "must be a JSON object"),
    ],
)
def test_a_bad_json_line_is_named(file: Path, line: str, rule: str) -> None:
    good = '{"id":1,"time":1614614473204,"price":1,"amount":1,"side":"b"}\n'

    assert refused(file, good + line + "\n", symbol="X").startswith(f":2: {rule}")
    assert len(trades_of(file, good + line + "\n" + good, symbol="X", skip_invalid=True)) == 2


def test_twenty_bad_rows_are_named_and_all_are_counted(file: Path) -> None:
    content = HEADER + "".join(row(number, price="-1") for number in range(50)) + row(99)
    with pytest.raises(InvalidItems) as caught:
        read(file, content)

    assert [error.loc for error in caught.value.errors] == [f"{file}:{line}" for line in range(2, 22)]
    assert {error.msg for error in caught.value.errors} == {"price: must be greater than 0 (here '-1')"}
    with open_trades(file, ReadOptions(skip_invalid=True)) as trades:
        kept = [trade.trade_id for batch in trades.batches() for trade in batch.trades]
        assert kept == [99]
        assert trades.faults.count == 50
        assert len(trades.faults.first) == 20


def test_no_trade_leaves_the_reader_after_a_bad_row(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 2)
    file.write_text(HEADER + row(1) + row(2) + row(3, price="x") + row(4) + row(5))
    seen: list[list[Trade]] = []
    with open_trades(file, ReadOptions()) as trades, pytest.raises(InvalidItems, match=":4: price"):
        for batch in trades.batches():
            seen.append(list(batch.trades))

    assert [len(trades) for trades in seen] == [2, 0, 0]


# --- Files that are none


def test_what_is_no_regular_file_is_refused_unread(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, kind in [(tmp_path, "a directory"), (fifo, "a FIFO"), (Path("/dev/zero"), "a device")]:
        with pytest.raises(BadRequest) as caught, open_trades(path, ReadOptions()):
            pass
        assert said(caught.value, path).startswith(f": must be a regular file, this is {kind}")


@pytest.mark.parametrize("name", ["missing", "nul\0name", "x" * 5000])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="cannot be read") as caught, open_trades(tmp_path / name, ReadOptions()):
        pass

    assert caught.value.detail.isprintable()


def test_a_symbolic_link_is_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    file.write_text(HEADER + ROW)
    with open_trades(link, ReadOptions()) as trades:
        assert [list(batch.trades) for batch in trades.batches()] == [[TRADE]]


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file(file: Path, content: bytes) -> None:
    assert refused(file, content).startswith(": is empty")


@pytest.mark.parametrize("content", [HEADER, HEADER.strip(), HEADER + "\n\n"])
def test_a_header_without_rows(file: Path, content: str) -> None:
    assert refused(file, content).startswith(": no rows")
    assert refused(file, content, skip_invalid=True).startswith(": no rows")


def test_names_that_are_given_twice(file: Path) -> None:
    assert "'qty' is the name of 2 columns" in refused(file, "qty," + HEADER + "1," + ROW)


def test_the_longest_line_is_read_and_a_longer_one_refused(file: Path) -> None:
    fits = "x" * (MAX_LINE_BYTES - len(ROW))
    content = (HEADER.strip() + ",n\n").encode() + (ROW.strip() + ",").encode()
    json = b'{"id":1,"time":1614614473204,"price":1,"amount":1,"side":"b","n":"'

    assert refused(file, content + fits.encode() + b"xx\n").startswith(":2: the line is longer than")
    assert len(trades_of(file, json + b"x" * (MAX_LINE_BYTES - len(json) - 2) + b'"}\n', symbol="X")) == 1
    assert refused(file, json + b"x" * (MAX_LINE_BYTES - len(json) - 1) + b'"}\n', symbol="X").startswith(
        ":1: the line"
    )


@pytest.mark.parametrize("packed", [False, True])
def test_an_endless_line_is_refused_without_reading_it(file: Path, packed: bool) -> None:
    content = (HEADER + ROW).encode() + b"x" * (40 * MIB)
    file.write_bytes(gzip.compress(content, 1) if packed else content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match=":3: the line is longer"), open_trades(file, ReadOptions()) as trades:
            list(trades.batches())
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("piece", [7, 256 * 1024])
@pytest.mark.parametrize(
    ("content", "place"),
    [
        ((HEADER + ROW).encode("utf-16"), ":1: "),
        ((HEADER + ROW).encode("utf-16-le"), ":1: "),
        ((HEADER + ROW + row(2, symbol="CAFÉ")).encode("latin-1"), ":3: must be UTF-8"),
        ((HEADER + "\r" + row(1, side="buy\r") + row(2, symbol="\0")).encode(), ":4: holds a NUL byte"),
        ((HEADER + ROW).encode() + "ü".encode()[:1], ":3: must be UTF-8"),
        (b"PK\x03\x04\xff\xfe", ":1: must be UTF-8"),
    ],
)
def test_what_is_no_utf8_text_is_refused_with_its_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, place: str, piece: int
) -> None:
    monkeypatch.setattr("klines.importer.source.PIECE_BYTES", piece)

    assert refused(file, content).startswith(place)
    assert refused(file, content, skip_invalid=True).startswith(place)


@pytest.mark.parametrize("cut", [-1, -8, -12, 5, 12])
def test_a_truncated_gzip_file(file: Path, cut: int) -> None:
    assert refused(file, gzip.compress((HEADER + ROW).encode())[:cut]).startswith(": the gzip file is truncated")


@pytest.mark.parametrize("at", [3, 20, -5])
def test_a_damaged_gzip_file(file: Path, at: int) -> None:
    content = bytearray(gzip.compress((HEADER + ROW).encode()))
    content[at] ^= 0xFF

    assert "the gzip file is" in refused(file, bytes(content))


def test_text_behind_a_gzip_member(file: Path) -> None:
    assert refused(file, gzip.compress((HEADER + ROW).encode()) + b"more").startswith(": the gzip file is damaged")


def packed_blanks(mebibytes: int) -> bytes:
    """A trade and so many MiB of blank lines, as well as gzip can pack them: about 1025 to 1."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b'{"id":1,"time":1614614473204,"price":1,"amount":1,"side":"b"}\n')]
    parts += [packer.compress(b" " * (MIB - 1) + b"\n") for _ in range(mebibytes)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("ballast", [0, 4 * MIB])
def test_a_gzip_bomb_is_refused(file: Path, ballast: int) -> None:
    file.write_bytes(packed_blanks(2 * BOMB_BYTES // MIB) + os.urandom(ballast))
    tracemalloc.start()
    try:
        with (
            pytest.raises(BadRequest, match="expands more than 1000 times"),
            open_trades(file, ReadOptions(symbol="X")) as trades,
        ):
            list(trades.batches())
        assert tracemalloc.get_traced_memory()[1] < 30 * MIB
    finally:
        tracemalloc.stop()


def test_much_of_the_same_is_no_bomb_below_the_bound(file: Path) -> None:
    assert len(trades_of(file, packed_blanks(BOMB_BYTES // MIB - 1), symbol="X")) == 1


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ('"NXSBTC,2,1614614473204,1,1,buy\n' + ROW * 3, ":3: cannot be read as CSV: a quote is opened and not closed"),
        ('"NXSBTC,2,1614614473204,1,1,buy\n' + ROW * 9999, ":3: cannot be read as CSV: field larger than"),
        ('"NXS"BTC,2,1614614473204,1,1,buy\n' + ROW, ":3: cannot be read as CSV"),
    ],
)
def test_a_quote_that_makes_the_rows_uncertain_refuses_the_file(file: Path, rows: str, place: str) -> None:
    assert refused(file, HEADER + ROW + rows).startswith(place)
    assert refused(file, HEADER + ROW + rows, skip_invalid=True).startswith(place)


def test_a_file_that_grows_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 1)
    file.write_text(HEADER + ROW)
    with file.open("a") as other, open_trades(file, ReadOptions()) as trades:
        other.write(ROW * 100_000)
        other.flush()
        with pytest.raises(BadRequest, match="grew while it was read"):
            list(trades.batches())


def test_the_first_json_line_must_be_an_object(file: Path) -> None:
    assert refused(file, '{"id": }\n').startswith(":1: must be a JSON object")
    assert refused(file, "7\n", form="jsonl").startswith(":1: must be a JSON object")


@given(
    st.lists(
        st.builds(
            Trade,
            symbol=st.sampled_from(["A", "$CAFÉ", "B-C:D"]),
            trade_id=st.integers(0, 2**63 - 1),
            time_us=st.integers(1_230_768_000_000_000, 1_700_000_000_000_000),
            price=st.decimals("0.000001", "1000000", places=6).map(lambda value: format(value, "f")),
            amount=st.decimals("0.000001", "1000000", places=6).map(lambda value: format(value, "f")),
            side=st.sampled_from(["buy", "sell"]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_was_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, tape: list[Trade]) -> None:
    file = tmp_path_factory.mktemp("tape") / "trades"
    names = ["symbol", "trade_id", "time_us", "price", "amount", "side"]
    lines = [names, *(map(str, trade) for trade in tape)]
    objects = [msgspec.json.encode(dict(zip(names, trade, strict=True))) for trade in tape]

    assert trades_of(file, "".join(",".join(line) + "\n" for line in lines)) == tape
    assert trades_of(file, b"\n".join(objects)) == tape
