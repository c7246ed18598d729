# ruff: noqa: S608 - statements are made of our own names
"""The same trades and bars in other engines' files, and how large those are.

`python -m bench.peers.files FOLDER` reads `trades.tsv` and `klines_1s.tsv` there (what our tables hold, by token and
time) and a JSON object `{"price": …, "amount": …}` of decimal places on standard input. It writes a JSON object: by
table, then by format, bytes; and the SHA-256 of what chDB, which has read one of the Parquet files, gives back as TSV.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import chdb.session
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq


class Column(NamedTuple):
    """Its type in Arrow and in chDB, and the codecs that suit it there."""

    arrow: pa.DataType
    chdb: str
    codec: str = "Delta, ZSTD"

    @property
    def counts(self) -> bool:
        """Whether its values go up step by step."""
        return bool(pa.types.is_integer(self.arrow) or pa.types.is_timestamp(self.arrow))


NUMBER = Column(pa.int64(), "Int64")
TOKEN = Column(pa.int32(), "UInt32")
TIME = Column(pa.timestamp("us", "UTC"), "DateTime64(6, 'UTC')")
SIDE = Column(pa.string(), "Enum8('buy' = 1, 'sell' = 2)", "ZSTD")


def decimal(places: int, digits: int = 18, codec: str = "ZSTD") -> Column:
    """An exact number with so many places after the point."""
    return Column(pa.decimal128(digits, places), f"Decimal({digits}, {places})", codec)


def tables(price: int, amount: int) -> dict[str, dict[str, Column]]:
    """The columns that our relations have, with as few bits as hold the data."""
    quote, volume = decimal(price + amount, 38), decimal(amount)
    near = decimal(price, codec="Delta, ZSTD")
    return {
        "trades": {
            "token_id": TOKEN,
            "trade_id": NUMBER,
            "time": TIME,
            "price": near,
            "amount": volume,
            "side": SIDE,
        },
        "klines_1s": {
            "token_id": TOKEN,
            "time": TIME,
            **dict.fromkeys(("open", "high", "low", "close"), near),
            "volume": volume,
            "quote_volume": quote,
            "trades": NUMBER,
            "buy_volume": volume,
            "buy_quote_volume": quote,
            "first_trade_id": NUMBER,
            "last_trade_id": NUMBER,
        },
    }


def parquet(rows: pa.Table, columns: Mapping[str, Column], folder: Path) -> dict[str, int]:
    """Bytes of a file with pyarrow's own encodings, and of one with deltas where values count; both zstd."""
    counting = [name for name, column in columns.items() if column.counts and name != "token_id"]
    deltas: dict[str, Any] = {
        "use_dictionary": [name for name in columns if name not in counting],
        "column_encoding": dict.fromkeys(counting, "DELTA_BINARY_PACKED"),
    }
    sizes = {}
    for name, choices in {"Parquet zstd": {}, "Parquet zstd, deltas": deltas}.items():
        file = folder / "rows.parquet"
        pq.write_table(rows, file, compression="zstd", **choices)
        sizes[name] = file.stat().st_size
    return sizes


def merge_tree(session: Any, table: str, columns: Mapping[str, Column], folder: Path) -> tuple[int, str]:
    """Bytes of the Parquet file's rows as one part of a MergeTree, and the SHA-256 of what it gives back."""
    definitions = ", ".join(f"{name} {column.chdb} CODEC({column.codec})" for name, column in columns.items())
    order = [name for name in ("token_id", "time", "trade_id") if name in columns]
    session.query(
        f"CREATE TABLE bench.{table} ({definitions}) ENGINE = MergeTree ORDER BY ({', '.join(order)})"
        # A column a file, as parts of some size are anyway.
        " SETTINGS min_bytes_for_wide_part = 0"
    )
    session.query(f"INSERT INTO bench.{table} SELECT * FROM file('{folder / 'rows.parquet'}', Parquet)")
    session.query(f"OPTIMIZE TABLE bench.{table} FINAL")
    size = session.query(f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = '{table}'", "CSV")
    told = [f"toUnixTimestamp64Micro({name})" if name == "time" else name for name in columns]
    text = session.query(f"SELECT {', '.join(told)} FROM bench.{table} ORDER BY {', '.join(order)}", "TSV")
    return int(str(size)), hashlib.sha256(text.bytes()).hexdigest()


def main(folder: Path) -> None:
    """Write all files and tell their sizes."""
    session = cast(Any, chdb.session.Session)(str(folder / "chdb"))
    session.query("CREATE DATABASE bench ENGINE = Atomic")
    session.query("SET output_format_decimal_trailing_zeros = 1")
    told = {}
    for table, columns in tables(**json.load(sys.stdin)).items():
        # Arrow reads times from texts only; as numbers they are exact without that.
        types = {name: pa.int64() if name == "time" else column.arrow for name, column in columns.items()}
        rows = pyarrow.csv.read_csv(
            folder / f"{table}.tsv",
            pyarrow.csv.ReadOptions(column_names=list(columns)),
            pyarrow.csv.ParseOptions(delimiter="\t"),
            pyarrow.csv.ConvertOptions(column_types=types),
        )
        place = rows.column_names.index("time")
        rows = rows.set_column(place, "time", rows["time"].cast(TIME.arrow))
        sizes = parquet(rows, columns, folder)
        size, digest = merge_tree(session, table, columns, folder)
        told[table] = {"rows": rows.num_rows, "sizes": {"chDB ZSTD": size, **sizes}, "digest": digest}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
