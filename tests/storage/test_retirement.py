"""What only the Timescale profile has: aggregates behind the seam, and the raw trades as the judge between the two."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from klines.database import open_engine, reading
from klines.interval import Width
from klines.models import Trade
from klines.queries import klines, tokens
from klines.queries.window import Window
from klines.timestamp import to_datetime, to_us
from klines.writer import TradeWriter
from tests.servers import Database
from tests.storage.bars import assert_bars, retire, stored_trades

OLD = 1_700_000_000_000_000
HOUR = 3_600_000_000

pytestmark = pytest.mark.usefixtures("timescale")


@pytest.fixture
def connection(timescale_connection: asyncpg.Connection[Any]) -> asyncpg.Connection[Any]:
    return timescale_connection


@pytest.fixture
def writer(timescale_writer: TradeWriter) -> TradeWriter:
    return timescale_writer


def tape(count: int, start: int = OLD, first_id: int = 0) -> list[Trade]:
    return [
        Trade("PEPE", first_id + n, start + n * 700_000, f"1.{n:04}", f"{n + 1}.5", "sell" if n % 3 else "buy")
        for n in range(count)
    ]


async def live(connection: asyncpg.Connection[Any]) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM klines_internal.live_klines")
    return count


async def test_a_bar_stays_live_until_its_aggregate_is_equal(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write(tape(100))
    # The seam moves, nothing is refreshed: the aggregates are empty and nothing may be deleted.
    await connection.execute("CALL klines_internal.retire_klines_v1()")
    assert await connection.fetchval("SELECT min(seam) FROM klines_internal.levels") > await connection.fetchval(
        "SELECT to_timestamp(0)"
    )
    assert await live(connection) > 100 * 0.7
    await assert_bars(connection, "PEPE", tape(100))


async def test_a_late_trade_brings_its_bars_back_at_once(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write(tape(100))
    await retire(connection, "1 day")
    assert await live(connection) == 0
    late = Trade("PEPE", 5000, OLD + 10_000_000, "9.9", "3", "buy")
    await writer.write([late])
    assert await live(connection) == 7
    await assert_bars(connection, "PEPE", [*tape(100), late])
    await retire(connection, "1 day")
    assert await live(connection) == 0
    await assert_bars(connection, "PEPE", [*tape(100), late])


async def test_a_late_trade_into_a_compressed_chunk(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    await writer.write(tape(3000))
    await retire(connection, "1 day")
    for relation in ("trades", "klines_internal.aggregate_1s"):
        await connection.execute(f"SELECT compress_chunk(c) FROM show_chunks('{relation}') c")
    late = [Trade("PEPE", 9000 + n, OLD + n * 7_000_000, "7", "1", "buy") for n in range(200)]
    receipt = await writer.write(late + tape(3000))
    assert (receipt.inserted, receipt.duplicates, receipt.conflicts) == (200, 3000, 0)
    await assert_bars(connection, "PEPE", tape(3000) + late)
    await retire(connection, "1 day")
    assert await live(connection) == 0
    await assert_bars(connection, "PEPE", tape(3000) + late)


async def test_writers_during_retirement_lose_nothing(
    timescale: Database, connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    """Late trades keep coming into the very bars that retire, from two writers, while three retirements run."""
    await writer.write(tape(400))
    pieces = [tape(20, OLD + n * 5_000_000 + 13, 10_000 + n * 100) for n in range(30)]

    async def write(part: list[list[Trade]]) -> None:
        for piece in part:
            await writer.write(piece)

    async def retiring() -> None:
        own = await asyncpg.connect(timescale.url)
        for _ in range(3):
            await retire(own, "1 day")
        await own.close()

    await asyncio.gather(write(pieces[::2]), write(pieces[1::2]), retiring())
    everything = [*tape(400), *(trade for piece in pieces for trade in piece)]
    await assert_bars(connection, "PEPE", everything)
    await retire(connection, "1 day")
    await assert_bars(connection, "PEPE", everything)
    assert await live(connection) == 0
    assert await connection.fetchval("SELECT count(*) FROM klines_internal.disagreements") == 0


async def test_a_writer_with_an_old_snapshot_fails_instead_of_splitting_a_bar(
    timescale: Database, connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write(tape(10))
    token = await connection.fetchval("SELECT token_id FROM tokens")
    foreign = await asyncpg.connect(timescale.url)
    async with foreign.transaction(isolation="repeatable_read"):
        await foreign.fetchval("SELECT count(*) FROM trades")
        await retire(connection, "1 day")
        with pytest.raises(asyncpg.SerializationError):
            await foreign.execute(
                "INSERT INTO trades VALUES ($1, 77, to_timestamp($2), 1, 1, 'buy')", token, OLD // 1_000_000
            )
    await foreign.close()
    await assert_bars(connection, "PEPE", tape(10))


async def test_a_wrong_bar_is_found_corrected_and_recorded(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write(tape(100))
    warnings: list[str] = []
    connection.add_log_listener(lambda _, message: warnings.append(message.message))
    await connection.execute("UPDATE klines_internal.live_klines SET high = 99 WHERE seconds = 3600")
    await retire(connection, "1 day")
    await assert_bars(connection, "PEPE", tape(100))
    (found,) = await connection.fetch(
        "SELECT seconds, folded->>'high', truth->>'high' FROM klines_internal.disagreements"
    )
    assert tuple(found) == (3600, "99", "1.0099")
    assert any("differed from its trades" in warning for warning in warnings)


async def test_the_scheduler_runs_the_jobs(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    """The real background workers: policies refresh, the job retires, nobody calls anything by hand."""
    await writer.write(tape(50))
    await connection.execute("UPDATE klines_internal.levels SET keep = INTERVAL '1 hour'")
    rung = asyncio.Event()
    await connection.add_listener("retired", lambda *_: rung.set())
    # Ring when the last live bar goes: the test waits for that, not for a time.
    await connection.execute(
        "CREATE FUNCTION ring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NOT EXISTS (SELECT FROM klines_internal.live_klines) THEN NOTIFY retired; END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER ring AFTER DELETE ON klines_internal.live_klines FOR EACH STATEMENT EXECUTE FUNCTION ring()"
    )
    # Hot windows are days wide; the old trades of this test are the late policies' work.
    for (job,) in await connection.fetch(
        "SELECT job_id FROM timescaledb_information.jobs WHERE job_id >= 1000 AND proc_name <> 'policy_compression'"
    ):
        await connection.execute(
            f"SELECT alter_job({job}, scheduled => true, schedule_interval => INTERVAL '1 s', next_start => now())"
        )
    # A copied database is not looked at for a minute otherwise.
    await connection.execute("SELECT _timescaledb_functions.start_background_workers()")
    await asyncio.wait_for(rung.wait(), 60)
    await assert_bars(connection, "PEPE", tape(50))


async def test_dropping_old_trades_keeps_their_aggregates(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write(tape(100))
    await retire(connection, "1 day")
    before = await connection.fetch("SELECT * FROM klines_1s ORDER BY time")
    # The first call only moves the window of the refreshes; a refresh that began before may still be under way.
    await connection.execute("CALL klines_internal.forget_trades_v1(now() - INTERVAL '7 days')")
    assert len(await stored_trades(connection, "PEPE")) == 100
    await connection.execute("CALL klines_internal.forget_trades_v1(now() - INTERVAL '7 days')")
    assert await stored_trades(connection, "PEPE") == []
    # What the policies would do from now on must not touch what was dropped.
    for (job,) in await connection.fetch(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'"
    ):
        await connection.execute(f"CALL run_job({job})")
    assert await connection.fetch("SELECT * FROM klines_1s ORDER BY time") == before
    assert to_us(before[0]["time"]) == OLD // 1_000_000 * 1_000_000


async def test_trades_are_a_hypertable_with_a_columnstore(connection: asyncpg.Connection[Any]) -> None:
    tables = await connection.fetch(
        "SELECT hypertable::text, segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings"
        " ORDER BY hypertable::text"
    )
    settings = {row["hypertable"]: (row["segmentby"], row["orderby"]) for row in tables}
    assert settings["trades"] == ("token_id", '"time",trade_id')
    assert ("token_id", '"time"') in settings.values()
    policies = await connection.fetchval(
        "SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'"
    )
    assert policies == 14


async def test_retirement_passes_over_a_token_that_is_held(
    timescale: Database, connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write([*tape(20), *(trade._replace(symbol="DOGE") for trade in tape(20))])
    held = await connection.fetchval("SELECT token_id FROM tokens WHERE symbol = 'PEPE'")
    foreign = await asyncpg.connect(timescale.url)
    async with foreign.transaction():
        await foreign.execute("UPDATE klines_internal.feeds SET sequence = sequence WHERE token_id = $1", held)
        await asyncio.wait_for(retire(connection, "1 day"), 30)
        left = await connection.fetch("SELECT DISTINCT token_id FROM klines_internal.live_klines")
        assert [row[0] for row in left] == [held]
    await foreign.close()


async def test_a_page_sees_what_was_recompressed_meanwhile(
    timescale: Database, connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write(tape(300))
    await retire(connection, "1 day")
    await connection.execute("SELECT compress_chunk(c) FROM show_chunks('klines_internal.aggregate_1s') c")
    await writer.write(tape(300, OLD + HOUR // 2, 1000))
    await retire(connection, "1 day")
    token = await connection.fetchval("SELECT token_id FROM tokens")
    async with open_engine(timescale.url) as engine, reading(engine) as reader:
        await tokens.token_id(reader, "PEPE")
        await connection.execute("SELECT compress_chunk(c) FROM show_chunks('klines_internal.aggregate_1s') c")
        bars = await klines.rows(reader, token, Width(1), Window(5000), to_datetime(OLD + HOUR * 2))
    assert len(bars) == await connection.fetchval("SELECT count(*) FROM klines_1s")
