"""B72: bad files, given to `klines import` as a person gives them: exit 2, one place that is named, nothing stored."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from klines.__main__ import main
from tests.servers import Database, run

HEADER = b"symbol,trade_id,time,price,amount,side\n"
GOOD = b"PEPE,1,1700000100000,0.5,2,buy\n"
MIB = 1024 * 1024


class File(NamedTuple):
    """A file, and what the refusal says; "" for one that is taken, and then holds the one good trade."""

    number: str
    what: str
    content: bytes
    said: str


def row(number: str, what: str, said: str, line: bytes) -> File:
    """A bad row behind a good one: named with the line it begins in."""
    return File(number, what, HEADER + GOOD + line + b"\n", f"trades.csv:3: {said}")


def damaged(data: bytes) -> bytes:
    """The data with one byte in the middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def zipped(data: bytes) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../trades.csv", data)
    return file.getvalue()


MANY = HEADER + b"".join(b"PEPE,%d,1700000100000,0.5,2,buy\n" % number for number in range(5_000))

STRUCTURE = [
    row("B72", "a column too few", "has 5 fields, the header has 6", b"PEPE,2,1700000100000,0.5,2"),
    row("B72", "a column too many", "has 7 fields, the header has 6", GOOD.strip() + b",x"),
    row("B72", "a decimal comma", "has 7 fields, the header has 6", b"PEPE,2,1700000100000,0,5,2,buy"),
    File("B72", "empty", b"", "is empty"),
    File("B72", "blank lines", b"\n\n \n", "is empty"),
    File("B72", "a header only", HEADER, "no rows"),
    File("B72", "no header", GOOD, "no column has a name like it"),
    File(
        "B72", "a name twice", HEADER.strip() + b",price\n" + GOOD.strip() + b",1\n", "'price' is the name of 2 columns"
    ),
    File(
        "B72", "two columns for one field", HEADER.replace(b"side", b"qty") + GOOD, "side: no column has a name like it"
    ),
    File(
        "B72",
        "a quote that is not closed",
        HEADER + b'"PEPE,1,1700000100000,0.5,2,buy\n' + GOOD,
        "trades.csv:2: cannot be read as CSV: a quote is opened and not closed",
    ),
    row("B72", "a quoted line end", "symbol: must be 1 to 32 letters", b'"PE\nPE",2,1700000100000,0.5,2,buy'),
    File("B72", "a line of 2 MiB", HEADER + b"x" * (2 * MIB), "trades.csv:2: the line is longer than 1048576 bytes"),
    File("B72", "semicolons in the rows only", HEADER + GOOD.replace(b",", b";"), "trades.csv:2: has 1 fields"),
    File("B72", "semicolons everywhere", (HEADER + GOOD).replace(b",", b";"), ""),
]

ENCODINGS = [
    File("B72a", "a byte order mark", b"\xef\xbb\xbf" + HEADER + GOOD, ""),
    File("B72a", "UTF-16", (HEADER + GOOD).decode().encode("utf-16"), "must be UTF-8"),
    File("B72a", "UTF-16 without a mark", (HEADER + GOOD).decode().encode("utf-16-le"), "holds a NUL byte"),
    File("B72a", "Latin-1", HEADER + GOOD.replace(b"PEPE", b"CAF\xc9"), "trades.csv:2: must be UTF-8"),
    # Line ends of any system are line ends.
    File("B72a", "CR only", (HEADER + GOOD).replace(b"\n", b"\r"), ""),
    File("B72a", "CRLF", (HEADER + GOOD).replace(b"\n", b"\r\n"), ""),
    File(
        "B72a",
        "a decimal comma, semicolons",
        (HEADER + GOOD).replace(b",", b";").replace(b".", b","),
        "price: must be a decimal number",
    ),
    row("B72a", "a thousands separator", "price: must be a decimal number", b'PEPE,2,1700000100000,"1,000.5",2,buy'),
    row("B72a", "another unit of time", "time: must not be before 2009", b"PEPE,2,1700000100,0.5,2,buy"),
    row(
        "B72a", "another way to write a time", "time: must be a number in ms", b"PEPE,2,2023-11-14T22:15:00Z,0.5,2,buy"
    ),
    row("B72a", "a NUL", "holds a NUL byte", b"PE\0PE,2,1700000100000,0.5,2,buy"),
]

CONTENT = [
    *[
        row(
            "B72b",
            f"symbol {text.decode()}",
            "symbol: must be 1 to 32 letters",
            b'"%b",2,1700000100000,0.5,2,buy' % text,
        )
        for text in (b"=cmd|' /C calc'!A0", b"+1", b"@SUM(A1)", b"\t=1", b"", b"' OR 1=1--", b"%s%s%n")
    ],
    # A formula in a column that is no field of a trade is read over; nothing here writes CSV.
    File(
        "B72b", "a formula in another column", HEADER.strip() + b",note\n" + GOOD.strip() + b",=cmd|' /C calc'!A0\n", ""
    ),
    *[
        row("B48", f"price {text.decode()}", "price: ", b"PEPE,2,1700000100000,%b,2,buy" % text)
        for text in (b"NaN", b"Infinity", b"-1", b"0", b"1e99", b"1_0", b"0x1", b"", b" 1", b"\xef\xbc\x91")
    ],
    row("B71", "another side", "side: must be buy, b, sell or s", b"PEPE,2,1700000100000,0.5,2,bought"),
    *[
        row("B55", f"trade_id {text.decode()}", "trade_id: must be", b"PEPE,%b,1700000100000,0.5,2,buy" % text)
        for text in (b"007", b"-1", b"+1", b"1.0", b"", b"9223372036854775808", b"9" * 60)
    ],
    *[
        row("B53", f"time {text.decode()}", "time: must", b"PEPE,2,%b,0.5,2,buy" % text)
        for text in (b"-1", b"0", b"9" * 40, b"", b"17000001000.x")
    ],
]

PACKED = [
    File(
        "B72d",
        "a bomb",
        gzip.compress(HEADER + (b"x" * 100_000 + b"\n") * 700),
        "the gzip file expands more than 1000 times",
    ),
    File("B72d", "cut off", gzip.compress(MANY)[:-10], "the gzip file is truncated"),
    File("B72d", "damaged", damaged(gzip.compress(MANY)), "the gzip file is damaged"),
    File("B72d", "zip", zipped(HEADER + GOOD), "trades.csv"),
    # What a file is says its content, not its name: this one is called trades.csv.
    File("B72d", "gzip under another name", gzip.compress(HEADER + GOOD), ""),
]

CASES = [*STRUCTURE, *ENCODINGS, *CONTENT, *PACKED]

Import = Callable[[Path], tuple[int, str]]


@pytest.fixture
def imported(plain: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Import:
    """`klines import FILE`: the exit code, and what it said on stderr."""
    monkeypatch.setenv("DATABASE_URL", plain.url)

    def call(file: Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["klines", "import", str(file)])
        capfd.readouterr()
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0), capfd.readouterr().err
        return 0, capfd.readouterr().err

    return call


async def _count(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        counted: int = await connection.fetchval("SELECT (SELECT count(*) FROM trades) + (SELECT count(*) FROM tokens)")
    finally:
        await connection.close()
    return counted


def test_the_table(imported: Import, plain: Database, tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    wrong = []
    for file in CASES:
        path.write_bytes(file.content)
        code, told = imported(path)
        if file.said:
            good = code == 2 and told.startswith("klines: ") and file.said in told and "nothing was stored" in told
            good = good or (code == 2 and "column" in file.said and file.said in told)
        else:
            good = code == 0
        if not good or "Traceback" in told:
            wrong.append(f"{file.number} {file.what}: expected {file.said!r}, got {code} {told[:300]!r}")
    assert not wrong, "\n".join(wrong)
    # All files that were taken hold the same trade.
    assert run(lambda: _count(plain.url)) == 2


def test_b72c_what_is_no_file_is_refused_before_it_is_read(imported: Import, plain: Database, tmp_path: Path) -> None:
    fifo, loop, dangling = tmp_path / "fifo", tmp_path / "loop", tmp_path / "dangling"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    dangling.symlink_to(tmp_path / "nothing")
    places = {
        fifo: "a FIFO",
        Path("/dev/zero"): "a device",
        tmp_path: "a directory",
        loop: "cannot be read",
        dangling: "no such file",
        tmp_path / ("x" * 300): "cannot be read",
    }
    for place, said in places.items():
        code, told = imported(place)
        assert (code, said in told, len(told.splitlines())) == (2, True, 1), (place, told)
    # Who may run the command may read the file: there is no import root, and a link to a file is that file.
    (tmp_path / "trades.csv").write_bytes(HEADER + GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "trades.csv")
    assert imported(tmp_path / "link")[0] == 0
    assert run(lambda: _count(plain.url)) == 2
