"""What each role may not, verb by verb: every row is refused with 42501; and what it may, so that rows can fail."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from klines.queries.analyst import ROLE as ANALYST
from klines.queries.roles import READER, WRITER
from tests.roles.logins import connected
from tests.servers import Database

INTERNAL = "klines_internal"
EVERYBODY = {
    "change a trade": "UPDATE trades SET price = 1",
    "delete trades": "DELETE FROM trades",
    "truncate trades": "TRUNCATE trades",
    "delete a token": "DELETE FROM tokens",
    "rename a token": "UPDATE tokens SET symbol = 'MINE'",
    "choose a token's id": "INSERT INTO tokens (token_id, symbol) OVERRIDING SYSTEM VALUE VALUES (9, 'MINE')",
    "write a bar": f"UPDATE {INTERNAL}.live_klines SET close = 1",
    "delete bars": f"DELETE FROM {INTERNAL}.live_klines",
    "write a feed": f"UPDATE {INTERNAL}.feeds SET sequence = 0",
    "shorten the tape": f"DELETE FROM {INTERNAL}.tape",
    "move a seam": f"UPDATE {INTERNAL}.levels SET seam = 'infinity'",
    "move the floor": f"UPDATE {INTERNAL}.retention SET floor = 'infinity'",
    "make a key": f"INSERT INTO {INTERNAL}.api_keys VALUES (repeat('a', 12), sha256('a'), 'mine', '{{admin}}')",
    "end a key": f"UPDATE {INTERNAL}.api_keys SET revoked_at = now()",
    "make a key last": f"UPDATE {INTERNAL}.api_keys SET revoked_at = NULL, expires_at = NULL",
    "widen a key": f"UPDATE {INTERNAL}.api_keys SET scopes = '{{admin}}'",
    "take over a key": f"UPDATE {INTERNAL}.api_keys SET digest = sha256('a')",
    "delete a key": f"DELETE FROM {INTERNAL}.api_keys",
    "rewrite what was done to keys": f"UPDATE {INTERNAL}.key_events SET who = 'me'",
    "write the schema's revision": "UPDATE alembic_version SET version_num = 'mine'",
    "create in public": "CREATE TABLE public.mine (id integer)",
    "create inside": f"CREATE FUNCTION {INTERNAL}.mine() RETURNS integer LANGUAGE sql RETURN 1",
    "create a schema": "CREATE SCHEMA mine",
    "drop": "DROP TABLE trades",
    "alter": "ALTER TABLE trades DISABLE TRIGGER trades_fold",
    "replace the fold": f"ALTER FUNCTION {INTERNAL}.fold_trades_v1() RESET ALL",
    "lock out writers": "LOCK TABLE trades IN ACCESS EXCLUSIVE MODE",
    "make a large object": "SELECT lo_create(0)",
    "write a file": "COPY tokens TO '/dev/null'",
    "run a program": "COPY tokens TO PROGRAM 'true'",
    "read a file": "SELECT pg_read_file('PG_VERSION')",
    "become the owner": "SET ROLE klines_owner",
    "make a role": "CREATE ROLE mine",
    "let itself in as the owner": "ALTER ROLE klines_owner CONNECTION LIMIT 10",
}
READERS = {
    "store a trade": "INSERT INTO trades SELECT token_id, 2, now(), 1, 1, 'buy' FROM tokens",
    "register a token": "INSERT INTO tokens (symbol) VALUES ('MINE')",
    "change what is known of a token": "UPDATE tokens SET name = 'Mine'",
    "read keys": f"SELECT * FROM {INTERNAL}.api_keys",
    "read tickets": f"SELECT * FROM {INTERNAL}.tickets",
    "forget trades": f"SELECT {INTERNAL}.forget_below_v1(now())",
    "raise the floor": f"SELECT {INTERNAL}.raise_floor_v1(now())",
    "forget the tape": f"SELECT {INTERNAL}.forget_tape_v1(60)",
    "end analysts": f"SELECT {INTERNAL}.end_analyst_sessions_v1(1)",
    "make a temporary table": "CREATE TEMP TABLE mine (id integer)",
    "take the service's locks": "SELECT pg_try_advisory_lock(1)",
}
ANALYSTS = {
    "read bars behind the views": f"SELECT * FROM {INTERNAL}.live_klines",
    "read the tape": f"SELECT * FROM {INTERNAL}.tape",
    "read the schema's revision": "SELECT * FROM alembic_version",
}
TABLES = {WRITER: EVERYBODY, READER: EVERYBODY | READERS, ANALYST: EVERYBODY | READERS | ANALYSTS}
ALLOWED = {
    READER: ["SELECT * FROM trades", "SELECT * FROM klines_1d", f"SELECT * FROM {INTERNAL}.tape", "LISTEN klines_v1"],
    WRITER: [
        READERS["store a trade"],
        READERS["register a token"],
        READERS["change what is known of a token"],
        READERS["read keys"],
        f"UPDATE {INTERNAL}.api_keys SET last_used_at = now()",
        READERS["forget the tape"],
        READERS["end analysts"],
        READERS["make a temporary table"],
        READERS["take the service's locks"],
    ],
    ANALYST: ["SELECT * FROM trades", "SELECT * FROM tokens", "SELECT * FROM klines_1d"],
}


async def tried(connection: asyncpg.Connection[Any], statement: str) -> str:
    """What the server says to a statement, of which nothing stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    finally:
        await transaction.rollback()
    return "done"


@pytest.mark.parametrize("role", TABLES)
async def test_it_may_not(prepared: Database, role: str) -> None:
    async with connected(prepared.url, role) as connection:
        await connection.execute("SET default_transaction_read_only = off")
        answers = {what: await tried(connection, statement) for what, statement in TABLES[role].items()}
    assert {what: answer for what, answer in answers.items() if answer != "42501"} == {}


@pytest.mark.parametrize("role", [WRITER, READER, ANALYST])
async def test_none_leaves_a_job_behind(prepared: Database, role: str) -> None:
    if prepared.profile == "plain":
        pytest.skip("a plain database has no jobs")
    async with connected(prepared.url, role) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="function add_job"):
            await connection.execute("SELECT add_job('pg_catalog.now', INTERVAL '1 second')")


@pytest.mark.parametrize("role", ALLOWED)
async def test_it_may(prepared: Database, role: str) -> None:
    async with connected(prepared.url, role) as connection:
        answers = {statement: await tried(connection, statement) for statement in ALLOWED[role]}
    assert set(answers.values()) == {"done"}, answers


async def test_the_owner_owns_all_of_ours_and_nobody_can_come_in_as_it(prepared: Database) -> None:
    async with connected(prepared.url) as connection:
        strangers = await connection.fetch(
            "SELECT oid::regclass FROM pg_class WHERE relowner <> 'klines_owner'::regrole"
            " AND (relnamespace = 'klines_internal'::regnamespace OR relname ~ '^_(compressed_)?hyper_'"
            "      OR oid IN ('trades'::regclass, 'tokens'::regclass, 'klines_1d'::regclass))"
        )
        assert strangers == []
        owner = await connection.fetchrow(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolconnlimit, rolpassword FROM pg_authid"
            " WHERE rolname = 'klines_owner'"
        )
        assert tuple(owner or ()) == (False, False, False, 0, None)


async def test_everything_that_acts_for_its_owner_has_a_pinned_path(prepared: Database) -> None:
    async with connected(prepared.url) as connection:
        acting = await connection.fetch(
            "SELECT oid::regprocedure::text, proconfig FROM pg_proc"
            " WHERE prosecdef AND pronamespace = 'klines_internal'::regnamespace"
        )
    assert len(acting) >= 7
    assert {tuple(row[1] or ()) for row in acting} == {("search_path=pg_catalog, pg_temp",)}
