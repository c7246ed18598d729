"""An import stores exactly the trades of its file, once, or nothing; cut off and run again, it completes."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import click.testing
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.cli.import_trades import import_command
from klines.errors import BadRequest, InvalidItems, KlinesError, Unavailable
from klines.importer import reader, slices
from klines.importer.progress import Step, shown_on
from klines.importer.reader import Batch, ReadOptions, open_trades
from klines.importer.slices import Shares
from klines.importer.staging import SESSIONS, import_trades
from klines.models import Receipt, Trade, columns_of
from klines.timestamp import to_datetime
from klines.writer import TradeWriter
from tests.oracle import stored
from tests.servers import Database
from tests.storage.bars import assert_bars, stored_trades

HEADER = "symbol,trade_id,time_us,price,amount,side\n"
DAY_US = 86_400_000_000
START_US = time.time_ns() // 1000 - 3 * DAY_US
SYMBOLS = ("AAA", "BBB", "$CCC")
DEADLINE_SECONDS = 20


def tape(length: int, seed: int = 1) -> list[Trade]:
    """Distinct trades of three tokens over three days, in order, some of them at the same microsecond."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    times = sorted(START_US + chance.randrange(3 * DAY_US) // 2 * 2 for _ in range(length // 2)) * 2
    return [
        Trade(
            chance.choice(SYMBOLS),
            number,
            time_us,
            f"0.{chance.randrange(1, 10**9):09}",
            f"{chance.randrange(1, 10**6)}.5",
            chance.choice(("buy", "sell")),
        )
        for number, time_us in enumerate(sorted(times))
    ]


def csv_of(trades: list[Trade]) -> str:
    return HEADER + "".join(",".join(map(str, trade)) + "\n" for trade in trades)


async def run_import(
    database: Database,
    path: Path,
    *,
    slice_rows: int = 7,
    register: bool = True,
    on_progress: Any = None,
    **options: Any,
) -> Receipt:
    with open_trades(path, ReadOptions(**options)) as trades:
        return await import_trades(
            database.url,
            trades.batches(),
            register=register,
            slice_rows=slice_rows,
            on_progress=on_progress or (lambda step: None),
        )


def put(file: Path, content: str | bytes) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Small batches and slices, so that a short file has many of both.
    monkeypatch.setattr(reader, "BATCH_ROWS", 10)
    return tmp_path / "trades.csv"


async def everything(connection: asyncpg.Connection[Any]) -> list[Trade]:
    return [trade for symbol in SYMBOLS for trade in await stored_trades(connection, symbol)]


async def assert_stored(connection: asyncpg.Connection[Any], trades: list[Trade]) -> None:
    assert sorted(await everything(connection)) == sorted(trades)
    for symbol in SYMBOLS:
        await assert_bars(connection, symbol, [trade for trade in trades if trade.symbol == symbol])


async def counts(connection: asyncpg.Connection[Any]) -> tuple[int, int]:
    """Stored trades and known tokens."""
    row = await connection.fetchrow("SELECT (SELECT count(*) FROM trades), (SELECT count(*) FROM tokens)")
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("slice_rows", [1, 7, 20, 100])
async def test_all_trades_are_stored_and_once(
    database: Database, connection: asyncpg.Connection[Any], file: Path, slice_rows: int
) -> None:
    trades = tape(40)
    put(file, csv_of(trades))

    assert await run_import(database, file, slice_rows=slice_rows) == Receipt(40, 40, 0, 0)
    assert await run_import(database, file, slice_rows=slice_rows) == Receipt(40, 0, 40, 0)
    await assert_stored(connection, trades)


async def test_a_shuffled_and_packed_file_stores_the_same(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    trades = tape(60)
    shuffled = random.Random(2).sample(trades, len(trades))  # noqa: S311
    put(file, gzip.compress(csv_of(shuffled).encode()))

    assert await run_import(database, file) == Receipt(60, 60, 0, 0)
    await assert_stored(connection, trades)


async def test_json_lines_store_the_same(database: Database, connection: asyncpg.Connection[Any], file: Path) -> None:
    trades = tape(20)
    put(file, b"\n".join(msgspec.json.encode(trade._asdict()) for trade in trades))

    assert await run_import(database, file) == Receipt(20, 20, 0, 0)
    await assert_stored(connection, trades)


@pytest.mark.parametrize("slice_rows", [1, 3, 1000])
async def test_of_equal_identities_the_first_of_the_file_stays(
    database: Database, connection: asyncpg.Connection[Any], file: Path, slice_rows: int
) -> None:
    trades = tape(20)
    same = [trade._replace(symbol=trade.symbol.lower(), price=trade.price + "00") for trade in trades[:8]]
    other = [trade._replace(price="7.7") for trade in trades[:5]] + [trades[9]._replace(amount="7.7")]
    put(file, csv_of([*trades, *same, *other]))

    assert await run_import(database, file, slice_rows=slice_rows) == Receipt(34, 20, 8, 6)
    await assert_stored(connection, trades)


async def test_stored_trades_win_over_the_file(
    database: Database, connection: asyncpg.Connection[Any], writer: TradeWriter, file: Path
) -> None:
    trades = tape(30)
    await writer.write(trades[10:20])
    changed = [trade._replace(amount="1") if trade in trades[15:25] else trade for trade in trades]
    put(file, csv_of(changed))

    assert await run_import(database, file) == Receipt(30, 20, 5, 5)
    await assert_stored(connection, [*changed[:10], *trades[10:20], *changed[20:]])


async def test_one_bad_row_and_nothing_is_stored(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    trades = tape(40)
    put(file, csv_of([*trades, trades[0]._replace(price="-1")]))

    with pytest.raises(InvalidItems, match=r":42: price: must be greater than 0 \(here '-1'\); nothing was stored"):
        await run_import(database, file)
    assert await counts(connection) == (0, 0)

    assert await run_import(database, file, skip_invalid=True) == Receipt(40, 40, 0, 0)
    await assert_stored(connection, trades)


async def test_a_file_that_breaks_off_stores_nothing(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    packed = gzip.compress(csv_of(tape(5000)).encode())
    put(file, packed[:-100])

    with pytest.raises(BadRequest, match="truncated"):
        await run_import(database, file)
    assert await counts(connection) == (0, 0)


async def test_only_skipped_rows_store_nothing(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    put(file, HEADER + "A,1,1,1,1,buy\n")

    assert await run_import(database, file, skip_invalid=True) == Receipt(0, 0, 0, 0)
    assert await counts(connection) == (0, 0)


async def test_unknown_symbols_are_refused_where_registration_is_off(
    database: Database, connection: asyncpg.Connection[Any], writer: TradeWriter, file: Path
) -> None:
    trades = tape(30)
    put(file, csv_of(trades))
    known = next(trade for trade in trades if trade.symbol == "BBB")
    await writer.write([known])

    with pytest.raises(InvalidItems) as caught:
        await run_import(database, file, register=False)
    assert caught.value.code == "symbol_unknown"
    assert [error.loc for error in caught.value.errors] == ["$CCC", "AAA"]
    assert await counts(connection) == (1, 1)

    await writer.write([trade._replace(symbol=symbol) for trade in trades[:1] for symbol in SYMBOLS])
    before = await everything(connection)
    receipt = await run_import(database, file, register=False)
    assert receipt.inserted == len(stored([*before, *trades])) - len(before)


async def test_trades_that_were_forgotten_stay_so(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    trades = tape(30)
    put(file, csv_of(trades))
    await connection.execute("UPDATE klines_internal.retention SET floor = $1", to_datetime(trades[15].time_us + 1))

    with pytest.raises(InvalidItems, match="older than the retained") as caught:
        await run_import(database, file)
    assert caught.value.code == "trades_not_forgotten"
    assert await counts(connection) == (0, 0)


class Interrupted(Exception):
    """What stops an import in the middle."""


async def test_an_import_that_was_cut_off_completes_when_it_is_run_again(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    trades = tape(40)
    put(file, csv_of(random.Random(3).sample(trades, 40)))  # noqa: S311

    def stop(step: Step) -> None:
        if step.phase == "storing" and step.rows >= 14:
            raise Interrupted

    with pytest.raises(Interrupted):
        await run_import(database, file, on_progress=stop)
    kept = 0
    for symbol in SYMBOLS:
        # The oldest ones of every token: bars grew in the order of time.
        found = [trade.time_us for trade in await stored_trades(connection, symbol)]
        assert sorted(found) == [trade.time_us for trade in trades if trade.symbol == symbol][: len(found)]
        kept += len(found)
    assert 14 <= kept < 40

    assert await run_import(database, file) == Receipt(40, 40 - kept, kept, 0)
    await assert_stored(connection, trades)


async def test_a_connection_lost_while_checking_is_unavailable(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    put(file, csv_of(tape(40)))
    loop = asyncio.get_running_loop()

    def cut(batches: Iterator[Batch]) -> Iterator[Batch]:
        yield next(batches)
        asyncio.run_coroutine_threadsafe(kill(connection), loop).result(DEADLINE_SECONDS)
        yield from batches

    with open_trades(file, ReadOptions()) as opened, pytest.raises(Unavailable):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await import_trades(
                database.url, cut(opened.batches()), register=True, slice_rows=7, on_progress=lambda step: None
            )
    assert await counts(connection) == (0, 0)


async def test_a_connection_lost_while_storing_is_unavailable(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    put(file, csv_of(tape(40)))
    storing = asyncio.Event()

    def seen(step: Step) -> None:
        if step.phase == "storing":
            storing.set()

    async with asyncio.timeout(DEADLINE_SECONDS):
        async with connection.transaction():
            # The first slice waits for this lock, so the session ends in the middle of it.
            await connection.execute("LOCK TABLE trades IN EXCLUSIVE MODE")
            running = asyncio.create_task(run_import(database, file, on_progress=seen))
            await storing.wait()
            await kill(connection)
        with pytest.raises(Unavailable):
            await running
    assert await counts(connection) == (0, 0)
    assert await run_import(database, file) == Receipt(40, 40, 0, 0)


async def kill(connection: asyncpg.Connection[Any]) -> None:
    done = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'klines import'"
    )
    assert done == SESSIONS


async def test_a_cancelled_import_ends_at_once(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    put(file, csv_of(tape(40)))
    staged = asyncio.Event()

    def seen(step: Step) -> None:
        if step.rows:
            staged.set()

    running = asyncio.create_task(run_import(database, file, on_progress=seen))
    async with asyncio.timeout(DEADLINE_SECONDS):
        await staged.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert await counts(connection) == (0, 0)


async def test_a_cancelled_import_leaves_no_thread_in_the_file(database: Database) -> None:
    loop = asyncio.get_running_loop()
    inside, ended = asyncio.Event(), threading.Event()
    too_early: list[bool] = []

    def slow() -> Iterator[Batch]:
        loop.call_soon_threadsafe(inside.set)
        too_early.append(ended.wait(0.3))
        yield Batch([], columns_of([]), 0, 1.0)

    running = asyncio.create_task(
        import_trades(database.url, slow(), register=True, slice_rows=7, on_progress=lambda step: None)
    )
    running.add_done_callback(lambda _: ended.set())
    async with asyncio.timeout(DEADLINE_SECONDS):
        await inside.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert too_early == [False]


async def test_live_writers_go_on_beside_an_import(
    database: Database, connection: asyncpg.Connection[Any], writer: TradeWriter, file: Path
) -> None:
    trades = tape(200)
    live = [trade._replace(trade_id=trade.trade_id + 1000, price="3") for trade in trades]
    both = [trade for trade in trades if trade.trade_id % 5 == 0]
    put(file, csv_of(trades))

    async def write() -> Receipt:
        total = Receipt(0, 0, 0, 0)
        for start in range(0, 200, 20):
            total += await writer.write([*live[start : start + 20], *both[start // 5 : start // 5 + 4]])
        return total

    imported, written = await asyncio.gather(run_import(database, file, slice_rows=11), write())

    assert imported.inserted + written.inserted == 400
    assert (imported + written).duplicates == len(both)
    assert (imported + written).conflicts == 0
    await assert_stored(connection, [*trades, *live])


# Both sessions lose, so three times may be once and twice.
@pytest.mark.parametrize(("failures", "stores"), [(1, True), (2, True), (3 * SESSIONS, False)])
async def test_a_slice_that_lost_against_other_writers_is_repeated(
    database: Database, connection: asyncpg.Connection[Any], file: Path, failures: int, stores: bool
) -> None:
    # A sequence is not rolled back, so it counts the attempts.
    await connection.execute(f"""
        CREATE SEQUENCE attempts;
        CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('attempts') <= {failures} THEN
                RAISE EXCEPTION 'lost' USING ERRCODE = 'deadlock_detected';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER lose BEFORE INSERT ON trades FOR EACH STATEMENT EXECUTE FUNCTION lose();
    """)
    put(file, csv_of(tape(40)))

    if stores:
        assert await run_import(database, file) == Receipt(40, 40, 0, 0)
        await assert_stored(connection, tape(40))
    else:
        with pytest.raises(Unavailable, match="other writers"):
            await run_import(database, file)
        assert await counts(connection) == (0, 0)


def two_tokens() -> list[Trade]:
    """Of two tokens, which go to two sessions; the first trade of each token comes first."""
    trades = [Trade(symbol, n, START_US + n * 1_000_000, "1", "1", "buy") for n in range(20) for symbol in SYMBOLS[:2]]
    return sorted(trades, key=lambda trade: trade.time_us)


@asynccontextmanager
async def first_token_locked(connection: asyncpg.Connection[Any], writer: TradeWriter) -> AsyncIterator[None]:
    """Whoever stores trades of it waits."""
    await writer.write(two_tokens()[:2])
    async with connection.transaction():
        locked = "SELECT symbol FROM tokens JOIN klines_internal.feeds USING (token_id) WHERE symbol = $1 FOR UPDATE"
        assert await connection.fetchval(locked, SYMBOLS[0]) == SYMBOLS[0]
        yield


async def test_the_sessions_do_not_wait_for_each_other(
    database: Database, connection: asyncpg.Connection[Any], writer: TradeWriter, file: Path
) -> None:
    trades = two_tokens()
    put(file, csv_of(trades))
    half_stored = asyncio.Event()

    def seen(step: Step) -> None:
        if step == Step("storing", 20, 0.5):
            half_stored.set()

    async with asyncio.timeout(DEADLINE_SECONDS):
        async with first_token_locked(connection, writer):
            running = asyncio.create_task(run_import(database, file, on_progress=seen))
            await half_stored.wait()
        assert await running == Receipt(40, 38, 2, 0)
    await assert_stored(connection, trades)


async def test_what_fails_in_one_session_ends_the_other(
    database: Database, connection: asyncpg.Connection[Any], writer: TradeWriter, file: Path
) -> None:
    """The caller gets it as it is, although the other session still waits for a lock."""
    trades = two_tokens()
    old = trades[-1]._replace(trade_id=99, time_us=START_US - 1_000_000)
    put(file, csv_of([trades[0], old, *trades[1:]]))
    await connection.execute("UPDATE klines_internal.retention SET floor = $1", to_datetime(START_US))

    async with first_token_locked(connection, writer):
        with pytest.raises(InvalidItems, match="older than the retained"):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await run_import(database, file)
    assert sorted(await everything(connection)) == sorted(trades[:2])


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ABCDEFGH"), st.integers(0, 99)), max_size=30), max_size=5),
    st.integers(1, 4),
    st.integers(0, 8),
)
def test_every_trade_is_in_the_one_share_of_its_token(
    batches: list[list[tuple[str, int]]], count: int, placed: int
) -> None:
    shares, owners = Shares(count), dict[str, int]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(slices, "MAX_PLACED", placed)
        for batch in batches:
            trades = [Trade(symbol, number, START_US, "1", "2", "buy") for symbol, number in batch]
            divided = [list(share) for share in shares.divided(columns_of(trades))]
            for place, share in enumerate(divided):
                assert all(owners.setdefault(trade.symbol, place) == place for trade in share)
            # Nothing is lost, and each share has the order of the batch.
            assert divided == [[trade for trade in trades if owners[trade.symbol] == place] for place in range(count)]


def test_shares_are_of_about_one_size() -> None:
    """Tokens are busy by Zipf's law: the busiest ones decide."""
    chance = random.Random(4)  # noqa: S311
    weights = [1 / rank for rank in range(1, 51)]
    symbols = chance.choices([f"T{number}" for number in range(50)], weights, k=20_000)
    trades = [Trade(symbol, number, START_US, "1", "1", "buy") for number, symbol in enumerate(symbols)]
    shares, sizes = Shares(2), [0, 0]
    for start in range(0, 20_000, 1000):
        for place, share in enumerate(shares.divided(columns_of(trades[start : start + 1000]))):
            sizes[place] += len(share)
    assert sum(sizes) == 20_000
    assert min(sizes) > 9000


async def test_nothing_is_left_behind(database: Database, connection: asyncpg.Connection[Any], file: Path) -> None:
    put(file, csv_of(tape(40)))
    await run_import(database, file)
    put(file, csv_of(tape(40)) + "bad\n")
    with pytest.raises(InvalidItems):
        await run_import(database, file)

    left = """
        SELECT (SELECT count(*) FROM pg_class WHERE relpersistence = 't' OR relname LIKE '%incoming%')
             + (SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'klines import' AND datname = current_database())
    """
    # A session ends a moment after its client has gone.
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await connection.fetchval(left):
            pass


async def test_progress_counts_both_phases(database: Database, file: Path) -> None:
    put(file, csv_of(tape(40)))
    steps: list[Step] = []
    await run_import(database, file, on_progress=steps.append)

    checking = [step for step in steps if step.phase == "checking"]
    storing = [step for step in steps if step.phase == "storing"]
    assert steps == checking + storing
    assert [step.rows for step in checking] == [10, 20, 30, 40]
    stored_rows = [step.rows for step in storing]
    assert (stored_rows[0], stored_rows[-1]) == (0, 40)
    assert all(0 < after - before <= 7 for before, after in pairwise(stored_rows))
    assert checking[-1].share == storing[-1].share == 1.0


# --- The command


def invoke(database: Database, *arguments: str | Path, **environ: str) -> click.testing.Result:
    runner = click.testing.CliRunner()
    variables = {"DATABASE_URL": database.url} | environ
    return runner.invoke(import_command, list(map(str, arguments)), env=variables)


def test_the_command_prints_one_line(database: Database, file: Path) -> None:
    put(file, csv_of(tape(40)) + "bad\n")

    done = invoke(database, file, "--skip-invalid")
    assert done.exception is None
    assert done.stdout.startswith("received 40, inserted 40, duplicates 0, conflicts 0, skipped 1, ")
    assert done.stdout.endswith(" rows/s\n")
    assert done.stdout.count("\n") == 1
    assert done.stderr == f"{file}:42: has 1 fields, the header has 6\n"

    again = msgspec.json.decode(invoke(database, file, "--skip-invalid", "--json").stdout)
    assert {name: again[name] for name in ("received", "inserted", "duplicates", "conflicts", "skipped")} == {
        "received": 40,
        "inserted": 0,
        "duplicates": 40,
        "conflicts": 0,
        "skipped": 1,
    }
    assert again["rows_per_second"] > 0


def test_the_command_passes_its_options_and_settings(database: Database, file: Path) -> None:
    ahead = (time.time_ns() // 1000 + 120_000_000) // 1000
    put(file, f"n\twhen\tp\tq\tb\n1\t{ahead}\t1\t2\tsell\n")
    options = ("--symbol", "zzz", "--column", "trade_id=n", "--column", "time=when", "--column", "side=b")

    assert _error(invoke(database, file, *options)).endswith("(here '" + str(ahead) + "'); nothing was stored")
    wide = {"KLINES_MAX_FUTURE_SECONDS": "600"}
    assert "must not be before" in _error(invoke(database, file, *options, "--time-unit", "us", **wide))
    assert "'n\\twhen" in _error(invoke(database, file, *options, "--delimiter", ",", **wide))
    assert "one character" in _error(invoke(database, file, *options, "--delimiter", "ab", **wide))
    assert "ZZZ" in _error(invoke(database, file, *options, KLINES_REGISTER_TOKENS="false", **wide))
    assert "inserted 1," in invoke(database, file, *options, "--delimiter", "tab", "--format", "csv", **wide).stdout


def _error(result: click.testing.Result) -> str:
    assert isinstance(result.exception, KlinesError)
    assert result.exception.exit_code == 2
    assert result.stdout == ""
    return result.exception.detail


def test_a_missing_file_is_told_before_a_database_is_sought(tmp_path: Path) -> None:
    runner = click.testing.CliRunner()
    result = runner.invoke(
        import_command, [str(tmp_path / "none")], env={"DATABASE_URL": "postgresql://nowhere.invalid"}
    )

    assert "no such file" in _error(result)


class Terminal(io.StringIO):
    """A stream that claims to be one."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with shown_on(stream) as show:
        show(Step("checking", 5000, 0.5))
        show(Step("storing", 1234, 1.0))

    assert "checking" in stream.getvalue()
    assert "50%" in stream.getvalue()
    assert "1,234 rows" in stream.getvalue()


def test_a_file_gets_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 10)
    stream = io.StringIO()
    with shown_on(stream) as show:
        for number in range(100):
            show(Step("checking", number, number / 100))

    lines = stream.getvalue().splitlines()
    assert 3 <= len(lines) <= 15
    assert all(line.startswith("checking: ") and line.isprintable() for line in lines)


async def test_a_file_over_many_days_goes_in_slices_of_few(
    database: Database, connection: asyncpg.Connection[Any], file: Path
) -> None:
    """Every day is a chunk, and every chunk that a transaction touches is a lock of the server's."""
    trades = [Trade("AAA", day, 1_300_000_000_000_000 + day * DAY_US, "1", "1", "buy") for day in range(350)]
    file.write_text(csv_of(trades))
    steps: list[Step] = []
    assert await run_import(database, file, slice_rows=20_000, on_progress=steps.append) == Receipt(350, 350, 0, 0)
    assert [step.rows for step in steps if step.phase == "storing"] == [0, 100, 200, 300, 350]
    assert await connection.fetchval("SELECT count(*) FROM klines_1d") == 350


@pytest.mark.parametrize(("late_s", "order"), [(59, [0, 1, 2, 3]), (61, [0, 2, 1, 3])])
async def test_a_file_that_is_nearly_in_order_keeps_its_own(
    database: Database, connection: asyncpg.Connection[Any], file: Path, late_s: int, order: list[int]
) -> None:
    """The tape tells in which order the slices were committed."""
    seconds = (0, 100, 100 - late_s, 200)
    trades = [Trade("AAA", n, START_US + s * 1_000_000, "1", "1", "buy") for n, s in enumerate(seconds)]
    file.write_text(csv_of(trades))
    assert await run_import(database, file, slice_rows=1) == Receipt(4, 4, 0, 0)
    taped = await connection.fetch("SELECT trade_ids FROM klines_internal.tape ORDER BY sequence")
    assert [number for row in taped for number in row["trade_ids"]] == order
