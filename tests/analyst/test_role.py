"""What the role klines_analyst may read, in both profiles, and that it may do nothing else."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from klines.queries.analyst import ROLE
from klines.tables import metadata
from tests.analyst.market import Market, as_analyst
from tests.servers import Database

REFUSED = {
    "write": "INSERT INTO public.trades SELECT token_id, 1, now(), 1, 1, 'buy' FROM public.tokens",
    "change": "UPDATE public.tokens SET name = 'Pepe'",
    "delete": "DELETE FROM public.trades",
    "create": "CREATE TABLE public.mine (id integer)",
    "look inside": "SELECT * FROM klines_internal.live_klines",
    "call": "SELECT klines_internal.grant_analyst_v1()",
    "register": "INSERT INTO public.tokens (symbol) VALUES ('MINE')",
    "lock out writers": "LOCK TABLE public.trades IN EXCLUSIVE MODE",
}


@pytest.mark.parametrize("relation", list(metadata.tables))
async def test_it_reads_all_of_the_contract(market: Market, relation: str) -> None:
    owner = await asyncpg.connect(market.database.url)
    wanted = await owner.fetch(f"SELECT * FROM {relation} ORDER BY 1, 2, 3")
    await owner.close()
    async with as_analyst(market.database) as connection:
        assert wanted
        assert await connection.fetch(f"SELECT * FROM {relation} ORDER BY 1, 2, 3") == wanted


@pytest.mark.parametrize("what", REFUSED)
async def test_it_may_not(market: Market, what: str) -> None:
    connection = await asyncpg.connect(market.database.url)
    # Not because the session is read-only, which it could change: because of its rights.
    await connection.execute(f"SET ROLE {ROLE}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with connection.transaction():
            await connection.execute(REFUSED[what])
    await connection.close()


async def test_nothing_else_of_ours_is_open_to_it(market: Market) -> None:
    """No table, view or sequence beyond the contract that it could read with the schemas that it may use."""
    async with as_analyst(market.database) as connection:
        found = await connection.fetch(
            "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname IN ('public', 'klines_internal')"
            " AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')"
        )
        assert {row[0] for row in found} == set(metadata.tables)
        writable = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S')"
            " AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AND relnamespace::regnamespace::text"
            " NOT LIKE 'pg_%' AND relname <> 'pg_settings'"
        )
        assert writable == 0


async def test_the_aggregates_are_closed_to_it(market: Market) -> None:
    if market.database.profile != "timescale":
        pytest.skip("a plain database has no aggregates")
    async with as_analyst(market.database) as connection:
        hidden = await connection.fetch(
            "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
            " FROM timescaledb_information.continuous_aggregates"
            " UNION ALL SELECT 'klines_internal.aggregate_1s'"
            " UNION ALL SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_inherits ON inhrelid = c.oid"
            " WHERE inhparent IN (SELECT oid FROM pg_class WHERE relname LIKE '\\_materialized\\_hypertable%')"
        )
    assert len(hidden) > 14
    owner = await asyncpg.connect(market.database.url)
    await owner.execute(f"SET ROLE {ROLE}")
    for row in hidden:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.fetch(f"SELECT * FROM {row[0]} LIMIT 1")
    await owner.close()


async def test_a_chunk_that_comes_later_is_readable_and_so_are_its_bars(database: Database) -> None:
    owner = await asyncpg.connect(database.url)
    await owner.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    for day in ("2019-05-05", "2024-05-05"):
        await owner.execute(f"INSERT INTO trades SELECT token_id, 1, '{day} 05:05:05Z', 2, 3, 'buy' FROM tokens")
    await owner.close()
    async with as_analyst(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM trades") == 2
        assert await connection.fetchval("SELECT sum(close) FROM klines_4h") == 4


async def test_its_sessions_are_read_only_and_bounded(market: Market) -> None:
    async with as_analyst(market.database) as connection:
        role: Any = await connection.fetchrow("SELECT rolconnlimit, rolconfig FROM pg_roles WHERE rolname = $1", ROLE)
    assert role["rolconnlimit"] == 20
    assert {"default_transaction_read_only=on", "statement_timeout=60s", "TimeZone=UTC"} <= set(role["rolconfig"])
    assert "idle_in_transaction_session_timeout=60s" in role["rolconfig"]
