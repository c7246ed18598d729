"""`storage`: bytes that a stored trade and a bar of a second take, indices and all, beside other engines' files.

Ours are the tables as they are served from: in the timescale profile compressed by the columnstore, and as rows before
that; in the plain profile rows for good, where bars of all intervals share a table. Theirs are chDB's MergeTree and
Parquet files with the same columns, sorted the same, of what our tables give out; chDB then gives out the same again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

from bench.comparison import Figures, Outcome, Ratio
from bench.ranges import store
from bench.ranges.market import write_market, write_pumps
from bench.stage import Stage

GENERATED = 2_000_000
# At most so many times as many bytes as theirs.
FLOOR, GOAL = 2.0, 1.0
ASKED = ("chDB ZSTD", "Parquet zstd")
UNITS = {"trades": "trade", "klines_1s": "bar of a second"}
PLACES = "SELECT max(scale(trim_scale(price))) AS price, max(scale(trim_scale(amount))) AS amount FROM trades"
# All rows with as many places everywhere, so that equal ones are equal texts; times in microseconds.
ROWS = {
    "trades": "SELECT token_id, trade_id, (extract(epoch FROM time) * 1000000)::bigint, round(price, {price}),"
    " round(amount, {amount}), side FROM trades ORDER BY token_id, time, trade_id",
    "klines_1s": "SELECT token_id, (extract(epoch FROM time) * 1000000)::bigint, round(open, {price}),"
    " round(high, {price}), round(low, {price}), round(close, {price}), round(volume, {amount}),"
    " round(quote_volume, {both}), trades, round(buy_volume, {amount}), round(buy_quote_volume, {both}),"
    " first_trade_id, last_trade_id FROM klines_1s ORDER BY token_id, time",
}
COUNTS = {
    "trades": "SELECT count(*) FROM trades",
    "klines_1s": "SELECT count(*) FROM klines_internal.aggregate_1s",
    "klines_internal.live_klines": "SELECT count(*) FROM klines_internal.live_klines",
}
AGGREGATE = """
    SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass
    FROM timescaledb_information.continuous_aggregates WHERE view_name = 'aggregate_1s'
"""


async def measure(stage: Stage) -> Outcome:
    """Ratios of bytes: of the pump windows, where they are at hand, and of generated trades."""
    markets = {
        "pump windows": write_pumps(stage.folder / "pumps.parquet", stage.size.divisor),
        "generated": write_market(stage.folder / "generated.parquet", stage.size.of(GENERATED)),
    }
    told: list[Figures] = []
    ratios: list[Ratio] = []
    for number, (name, market) in enumerate(markets.items()):
        if market is None:
            continue
        async with stage.database(f"storage{number}") as url, store.connected(url) as connection:
            await store.load(url, market)
            ours = await (_columnstore(connection) if stage.profile == "timescale" else _rows(connection))
            theirs = await _files(connection, Path(tempfile.mkdtemp(dir=stage.folder)))
        for table, unit in UNITS.items():
            sizes = ours[table] | theirs[table]
            told += [{"case": f"{name}, {unit}: {kind}", "bytes": round(size, 2)} for kind, size in sizes.items()]
            ratios += _ratios(f"bytes of a {unit}, {name}: ", sizes)
    return Outcome(told, ratios, "all rows, as chDB gives them out of a Parquet file (SHA-256)")


def _ratios(what: str, sizes: dict[str, float]) -> list[Ratio]:
    ours, *_ = sizes
    ratios = []
    for kind in list(sizes)[1:]:
        floor, goal = (FLOOR, GOAL) if kind in ASKED else (None, None)
        ratios.append(Ratio(f"{what}{ours} / {kind}", [sizes[ours] / sizes[kind]], floor, goal, more=False))
    return ratios


async def _columnstore(connection: asyncpg.Connection[Any]) -> dict[str, dict[str, float]]:
    """Bytes of a row of each relation, compressed and before."""
    await store.refresh(connection, 1)
    tables = {"trades": "trades", "klines_1s": await connection.fetchval(AGGREGATE)}
    found = {}
    for name, table in tables.items():
        rows = await connection.fetchval(COUNTS[name])
        before = await connection.fetchval("SELECT public.hypertable_size($1)", table)
        await store.compress(connection, table)
        after = await connection.fetchval("SELECT public.hypertable_size($1)", table)
        found[name] = {"klines columnstore": after / rows, "klines rows": before / rows}
    return found


async def _rows(connection: asyncpg.Connection[Any]) -> dict[str, dict[str, float]]:
    """Bytes of a row of each relation, with its indices."""
    found = {}
    for name, table in {"trades": "trades", "klines_1s": "klines_internal.live_klines"}.items():
        rows = await connection.fetchval(COUNTS[table])
        found[name] = {"klines rows": await connection.fetchval("SELECT pg_total_relation_size($1)", table) / rows}
    return found


async def _files(connection: asyncpg.Connection[Any], folder: Path) -> dict[str, dict[str, float]]:
    """Bytes of a row of each relation in other engines' files; RuntimeError unless they hold what ours do."""
    ((price, amount),) = await connection.fetch(PLACES)
    for name, rows in ROWS.items():
        text = rows.format(price=price, amount=amount, both=price + amount)
        await connection.copy_from_query(text, output=folder / f"{name}.tsv")
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "bench.peers.files", str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    answer, _ = await process.communicate(json.dumps({"price": price, "amount": amount}).encode())
    if process.returncode:
        raise RuntimeError("other engines did not take the rows")
    found = {}
    for name, told in json.loads(answer).items():
        with (folder / f"{name}.tsv").open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != told["digest"]:
                raise RuntimeError(f"{name}: chDB gives out other rows")
        found[name] = {kind: size / told["rows"] for kind, size in told["sizes"].items()}
    return found
