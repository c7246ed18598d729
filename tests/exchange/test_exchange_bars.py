"""The exchanges' own published bars, reproduced from their trades: imported by `klines import`, read over REST."""

from __future__ import annotations

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from klines.models import Trade
from tests import oracle
from tests.application import serving, settings_for
from tests.servers import Database
from tests.service.processes import klines
from tests.storage.bars import retire

OHLCV = ("open", "high", "low", "close", "volume")


def imported(database: Database, file: Path, *options: str) -> dict[str, int]:
    """Import a file; the counts it reports."""
    ended = klines("import", str(file), "--json", *options, DATABASE_URL=database.url)
    assert ended.returncode == 0, ended.stderr
    counts: dict[str, int] = json.loads(ended.stdout)
    return counts


def published(file: Path) -> dict[int, dict[str, Decimal]]:
    """An exchange's bars by open time in epoch milliseconds."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return {
        int(row["open_time_ms"]): {name: Decimal(row[name]) for name in row if name != "open_time_ms"} for row in rows
    }


async def bars(client: httpx.AsyncClient, symbol: str, **query: Any) -> dict[int, dict[str, Any]]:
    """All bars of a token over REST, page by page, by open time."""
    found: dict[int, dict[str, Any]] = {}
    query = {"from": 0, "limit": 1000} | query
    while True:
        answer = await client.get(f"/api/v1/klines/{symbol}", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()["klines"]
        found |= {row["open_time"]: row for row in page}
        if len(page) < query["limit"]:
            return found
        query["from"] = page[-1]["open_time"] + 1


def ohlcv(row: dict[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(row[name]) for name in OHLCV}


def whole(theirs: dict[int, dict[str, Decimal]], traded: dict[int, Any]) -> dict[int, dict[str, Decimal]]:
    """The published bars that a tape covers: not the ones in which it begins and ends."""
    return {opened: bar for opened, bar in theirs.items() if min(traded) < opened < max(traded)}


async def filled(
    client: httpx.AsyncClient, symbol: str, interval: str, like: dict[int, Any]
) -> dict[int, dict[str, Any]]:
    """Our bars over the range of others, flat where nothing was traded."""
    return await bars(client, symbol, interval=interval, fill="prev", **{"from": min(like), "to": max(like) + 1})


def counted(rows: dict[int, dict[str, Any]]) -> tuple[int, int]:
    """How many bars have trades, and how many are flat."""
    flat = sum(1 for row in rows.values() if row.get("filled"))
    return len(rows) - flat, flat


def assert_verified(database: Database, symbol: str) -> None:
    verified = klines("verify", symbol, DATABASE_URL=database.url)
    assert verified.returncode == 0, verified.stdout
    assert verified.stdout.count(" 0 differ") == 7


async def test_kraken_xbtusdt_1m(database: Database, client: httpx.AsyncClient, exchange_data: Path) -> None:
    """272 bars with trades and 137 flat ones, trade counts too; trades in 100 ns, cut to microseconds."""
    folder = exchange_data / "kraken-xbtusdt-2025"
    counts = imported(database, folder / "trades.csv", "--column", "time=ts_s_exact")
    assert (counts["inserted"], counts["duplicates"], counts["conflicts"]) == (1000, 0, 0)
    theirs = whole(published(folder / "klines_1m.csv"), await bars(client, "XBTUSDT"))
    ours = await filled(client, "XBTUSDT", "1m", theirs)
    assert {opened: ohlcv(row) for opened, row in ours.items()} == {
        opened: {name: bar[name] for name in OHLCV} for opened, bar in theirs.items()
    }
    assert {opened: row["trades"] for opened, row in ours.items()} == {
        opened: bar["count"] for opened, bar in theirs.items()
    }
    assert counted(ours) == (272, 137)
    assert_verified(database, "XBTUSDT")


async def test_binance_nxsbtc_5m(database: Database, client: httpx.AsyncClient, exchange_data: Path) -> None:
    """1140 bars with trades and 16 flat ones; the file whose pages overlap changes nothing."""
    folder = exchange_data / "binance-nxsbtc-2021-pump"
    counts = imported(database, folder / "trades_with_page_overlap.csv.gz")
    assert (counts["inserted"], counts["duplicates"], counts["conflicts"]) == (28_403, 186, 0)
    again = imported(database, folder / "trades.csv.gz")
    assert (again["inserted"], again["duplicates"], again["conflicts"]) == (0, 28_403, 0)
    theirs = whole(published(folder / "klines_5m.csv"), await bars(client, "NXSBTC", interval="5m"))
    ours = await filled(client, "NXSBTC", "5m", theirs)
    assert {opened: ohlcv(row) for opened, row in ours.items()} == theirs
    assert counted(ours) == (1140, 16)
    assert_verified(database, "NXSBTC")


async def test_binance_nxsbtc_5m_from_the_aggregates(timescale: Database, exchange_data: Path) -> None:
    """The same bars once they have retired: no live bar of that time is left."""
    folder = exchange_data / "binance-nxsbtc-2021-pump"
    imported(timescale, folder / "trades.csv.gz")
    connection = await asyncpg.connect(timescale.url)
    await retire(connection, "1 day")
    assert await connection.fetchval("SELECT count(*) FROM klines_internal.live_klines") == 0
    await connection.close()
    async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
        theirs = whole(published(folder / "klines_5m.csv"), await bars(client, "NXSBTC", interval="5m"))
        ours = await filled(client, "NXSBTC", "5m", theirs)
    assert {opened: ohlcv(row) for opened, row in ours.items()} == theirs
    assert counted(ours) == (1140, 16)
    assert_verified(timescale, "NXSBTC")


async def test_binance_xrpeth_1m_and_5m(database: Database, client: httpx.AsyncClient, exchange_data: Path) -> None:
    """2469 and 706 bars; minutes without trades are absent."""
    folder = exchange_data / "binance-xrpeth-2019-aggtrades"
    assert imported(database, folder / "trades.csv.gz")["inserted"] == 12_477
    for interval, count in (("1m", 2469), ("5m", 706)):
        theirs = published(folder / f"freqtrade_derived_{interval}.csv")
        ours = await bars(client, "XRPETH", interval=interval)
        assert len(theirs) == count
        assert {opened: ohlcv(row) for opened, row in ours.items()} == theirs
    assert_verified(database, "XRPETH")


async def test_pumpfun_swaps_equal_an_independent_fold(
    database: Database, client: httpx.AsyncClient, exchange_data: Path, tmp_path: Path
) -> None:
    """Dozens of swaps in one second, ordered by their place in the block; prices down to 1e-12."""
    swaps, nameless = pump_swaps(exchange_data)
    file = tmp_path / "swaps.csv"
    columns = ("symbol", "seq", "ts_s", "price_sol", "tokens", "side")
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows([[row[name] for name in columns] for row in swaps])
    refused = klines("import", str(file), DATABASE_URL=database.url)
    assert refused.returncode == 2
    assert "price_sol: must be a decimal number" in refused.stderr
    assert "nothing was stored" in refused.stderr
    counts = imported(database, file, "--skip-invalid")
    good = [row for row in swaps if row["price_sol"]]
    assert (counts["inserted"], counts["skipped"]) == (len(good), len(swaps) - len(good))
    assert counts["skipped"] == nameless
    for symbol in sorted({row["symbol"] for row in swaps}):
        tape = [
            Trade(symbol, int(row["seq"]), int(row["ts_s"]) * 1_000_000, row["price_sol"], row["tokens"], row["side"])  # type: ignore[arg-type]
            for row in good
            if row["symbol"] == symbol
        ]
        for interval in oracle.SECONDS:
            ours = await bars(client, symbol, interval=interval)
            expected = oracle.fold(tape, interval)
            assert [opened * 1000 for opened in ours] == list(expected), (symbol, interval)
            for row, bar in zip(ours.values(), expected.values(), strict=True):
                told = {name: Decimal(row[name]) for name in bar._fields}
                assert told == {name: Decimal(value) for name, value in bar._asdict().items()}, (symbol, interval)
        assert_verified(database, symbol)


def pump_swaps(exchange_data: Path) -> tuple[list[dict[str, str]], int]:
    """The swaps with symbols of 12 characters, as a mint of 44 is none; and how many of them have no price."""
    with gzip.open(exchange_data / "pumpfun-swaps" / "swaps.csv.gz", "rt", newline="") as opened:
        rows = [dict(row, symbol=row["mint"][:12].upper()) for row in csv.DictReader(opened)]
    prices = [Decimal(row["price_sol"]) for row in rows if row["price_sol"]]
    assert min(prices) < Decimal("1e-9")
    return rows, sum(not row["price_sol"] for row in rows)
