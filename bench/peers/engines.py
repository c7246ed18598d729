# ruff: noqa: S608 - statements are made of our own names and of numbers
"""DuckDB, chDB or polars in a process of its own: loads a file of trades, and makes bars of it when asked.

`python -m bench.peers.engines duckdb|chdb|polars FOLDER` reads a JSON object a line, `{"do": …}` with arguments, and
answers with a line. What it times is the call into the engine until the rows are Python's (DuckDB) or bytes (chDB):
embedded, without any network.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

LIMIT = 500


class Window(NamedTuple):
    """At most 500 bars of one token before `until`, since `since` if given; epoch seconds, on full minutes."""

    token: int
    since: int | None
    until: int


class Engine(Protocol):
    """Bars are rows of open time (epoch seconds), open, high, low, close, volume and trades, ascending."""

    def load(self, file: str) -> None:
        """Take the trades in, and whatever else the variants read."""

    def fold(self, seconds: int) -> None:
        """Make all bars of an interval anew, with two threads, and keep them in memory."""

    def text(self, seconds: int) -> bytes:
        """All bars of an interval as CSV, the token in front, by token and time."""

    def ask(self, variant: str, window: Window) -> Any:
        """The bars of a window, as the engine hands them out."""

    def rows(self, answer: Any) -> list[list[str]]:
        """An answer in texts."""


class DuckDB:
    """A file database: `trades` as they came, and `sorted` by token and time, which would have to be kept up."""

    def __init__(self, folder: Path) -> None:
        import duckdb  # noqa: PLC0415 - a process is of one engine

        self._connection = duckdb.connect(str(folder / "trades.duckdb"))
        self._connection.execute("SET TimeZone = 'UTC'")

    def load(self, file: str) -> None:
        self._connection.execute(f"CREATE TABLE trades AS FROM '{file}'")
        self._connection.execute("CREATE TABLE sorted AS FROM trades ORDER BY token, k")
        self._connection.execute("CHECKPOINT")

    def fold(self, seconds: int) -> None:
        self._connection.execute("SET threads = 2")
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE bars AS {self._all(seconds)}")

    def text(self, seconds: int) -> bytes:
        rows = self._connection.execute(f"{self._all(seconds)} ORDER BY token, opened").fetchall()
        return "".join([",".join(map(str, row)) + "\n" for row in rows]).encode()

    def ask(self, variant: str, window: Window) -> Any:
        self._connection.execute(f"SET threads = {1 if '1 thread' in variant else 2}")
        table = "sorted" if "sorted" in variant else "trades"
        since = "" if window.since is None else f"AND time >= to_timestamp({window.since})"
        return self._connection.execute(
            f"SELECT {self._bars(60)} FROM {table} WHERE token = {window.token} {since}"
            f" AND time < to_timestamp({window.until}) GROUP BY opened ORDER BY opened DESC LIMIT {LIMIT}"
        ).fetchall()

    def rows(self, answer: Any) -> list[list[str]]:
        return [list(map(str, row)) for row in reversed(answer)]

    def _all(self, seconds: int) -> str:
        return f"SELECT token, {self._bars(seconds)} FROM trades GROUP BY token, opened"

    def _bars(self, seconds: int) -> str:
        return (
            f"epoch_us(time_bucket(INTERVAL {seconds} SECOND, time)) // 1000000 AS opened,"
            " arg_min(price, k), max(price), min(price), arg_max(price, k), sum(amount), count(*)"
        )


class ChDB:
    """MergeTree in the order of a token's time; and one-minute bars by a materialised view, merged and not."""

    def __init__(self, folder: Path) -> None:
        from chdb.session import Session  # noqa: PLC0415 - a process is of one engine

        self._session: Any = cast(Any, Session)(str(folder / "chdb"))
        for setting in ("max_threads = 2", "output_format_decimal_trailing_zeros = 1"):
            self._query(f"SET {setting}")

    def load(self, file: str) -> None:
        self._query("CREATE DATABASE bench ENGINE = Atomic")
        self._query(
            "CREATE TABLE bench.trades (token UInt32, trade_id Int64, time DateTime64(6, 'UTC'), price Decimal(18, 9),"
            " amount Decimal(18, 3), side Enum8('buy' = 1, 'sell' = 2), k Int64)"
            " ENGINE = MergeTree ORDER BY (token, time, k)"
        )
        for table in ("merged", "unmerged"):
            self._query(
                f"CREATE TABLE bench.{table} (token UInt32, opened DateTime('UTC'),"
                " open AggregateFunction(argMin, Decimal(18, 9), Int64),"
                " high SimpleAggregateFunction(max, Decimal(18, 9)), low SimpleAggregateFunction(min, Decimal(18, 9)),"
                " close AggregateFunction(argMax, Decimal(18, 9), Int64),"
                " volume SimpleAggregateFunction(sum, Decimal(38, 3)), trades SimpleAggregateFunction(sum, UInt64))"
                " ENGINE = AggregatingMergeTree ORDER BY (token, opened)"
            )
            self._query(
                f"CREATE MATERIALIZED VIEW bench.{table}_view TO bench.{table} AS SELECT token,"
                " toStartOfMinute(time) AS opened, argMinState(price, k) AS open, max(price) AS high,"
                " min(price) AS low, argMaxState(price, k) AS close, sum(amount) AS volume, count() AS trades"
                " FROM bench.trades GROUP BY token, opened"
            )
        self._query("SYSTEM STOP MERGES bench.unmerged")
        self._query(f"INSERT INTO bench.trades SELECT * FROM file('{file}', Parquet)")
        for table in ("trades", "merged"):
            self._query(f"OPTIMIZE TABLE bench.{table} FINAL")

    def fold(self, seconds: int) -> None:
        self._query("DROP TABLE IF EXISTS bench.bars")
        self._query(f"CREATE TABLE bench.bars ENGINE = Memory AS {self._all(seconds)}")

    def text(self, seconds: int) -> bytes:
        return self._query(f"{self._all(seconds)} ORDER BY token, opened")

    def ask(self, variant: str, window: Window) -> Any:
        since = window.since or 0
        if "view" in variant:
            table = "unmerged" if "unmerged" in variant else "merged"
            return self._query(
                "SELECT toUnixTimestamp(opened), argMinMerge(open), max(high), min(low), argMaxMerge(close),"
                f" sum(volume), sum(trades) FROM bench.{table} WHERE token = {window.token}"
                f" AND opened >= {since} AND opened < {window.until} GROUP BY opened ORDER BY opened DESC LIMIT {LIMIT}"
            )
        return self._query(
            f"SELECT {self._bars(60)} FROM bench.trades WHERE token = {window.token} AND time >= {since}"
            f" AND time < {window.until} GROUP BY opened ORDER BY opened DESC LIMIT {LIMIT}"
        )

    def rows(self, answer: Any) -> list[list[str]]:
        return list(reversed(list(csv.reader(answer.decode().splitlines()))))

    def _all(self, seconds: int) -> str:
        return f"SELECT token, {self._bars(seconds)} FROM bench.trades GROUP BY token, opened"

    def _bars(self, seconds: int) -> str:
        return (
            f"toUnixTimestamp(toStartOfInterval(time, INTERVAL {seconds} SECOND)) AS opened, argMin(price, k) AS open,"
            " max(price) AS high, min(price) AS low, argMax(price, k) AS close, sum(amount) AS volume,"
            " count() AS trades"
        )

    def _query(self, statement: str) -> bytes:
        answer: bytes = self._session.query(statement, "CSV").bytes()
        return answer


class Polars:
    """A frame in memory, sorted by token and time before anything is timed; it knows no windows."""

    def __init__(self, folder: Path) -> None:
        import polars  # noqa: PLC0415 - a process is of one engine

        self._polars: Any = polars

    def load(self, file: str) -> None:
        self._trades = self._polars.read_parquet(file).sort("token", "k")

    def fold(self, seconds: int) -> None:
        self._bars = self._all(seconds)

    def text(self, seconds: int) -> bytes:
        opened = self._polars.col("time").dt.epoch("s")
        text: str = self._all(seconds).with_columns(opened).write_csv(include_header=False)
        return text.encode()

    def ask(self, variant: str, window: Window) -> Any:
        raise NotImplementedError

    def rows(self, answer: Any) -> list[list[str]]:
        raise NotImplementedError

    def _all(self, seconds: int) -> Any:
        price, amount = self._polars.col("price"), self._polars.col("amount")
        return self._trades.group_by_dynamic("time", every=f"{seconds}s", group_by="token").agg(
            price.first().alias("open"),
            price.max().alias("high"),
            price.min().alias("low"),
            price.last().alias("close"),
            amount.sum(),
            self._polars.len().alias("trades"),
        )


ENGINES: dict[str, Callable[[Path], Engine]] = {"duckdb": DuckDB, "chdb": ChDB, "polars": Polars}


def answer(engine: Engine, do: str, **arguments: Any) -> Any:
    """What a line asks for: `load`, `fold` and `digest` as the engine has them, `ask` with times, `check` with rows."""
    if do == "load":
        return engine.load(**arguments)
    if do == "digest":
        return hashlib.sha256(engine.text(**arguments)).hexdigest()
    if do == "fold":
        begin = time.perf_counter()
        engine.fold(**arguments)
        return time.perf_counter() - begin
    variant, windows = arguments["variant"], [Window(*one) for one in arguments["windows"]]
    if do == "check":
        return [engine.rows(engine.ask(variant, one)) for one in windows]
    seconds = []
    for one in windows:
        begin = time.perf_counter()
        engine.ask(variant, one)
        seconds.append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    """Serve one engine until standard input ends."""
    engine = ENGINES[sys.argv[1]](Path(sys.argv[2]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(engine, **json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
