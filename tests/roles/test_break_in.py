"""What who has broken into the service's session cannot do: forge bars and records, forget trades, fill the disk."""

from __future__ import annotations

import pytest

from klines.queries import roles
from klines.queries.analyst import ROLE as ANALYST
from tests.roles.logins import connected
from tests.roles.test_verbs import tried
from tests.servers import Database

INTERNAL = "klines_internal"
DENIED, REFUSED = "42501", "22023"
TOO_MUCH = [
    f"SELECT {INTERNAL}.{call}"
    for call in (
        *(f"{name}_v1({before})" for name in ("raise_floor", "forget_below") for before in (
            "'infinity'", "'-infinity'", "NULL", "now()", "now() + INTERVAL '1 day'", "now() - INTERVAL '22 hours'"
        )),
        *(f"forget_tape_v1({seconds})" for seconds in ("-1e9", "0", "59", "NULL", "'NaN'", "'infinity'", "1e300")),
        *(f"end_analyst_sessions_v1({seconds})" for seconds in ("-1", "0", "NULL", "86401")),
    )
]  # fmt: skip
FLOODS = {
    "fill the log": "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))",
    "fill the log in bytes": "SELECT pg_logical_emit_message(true, 'x', '\\x00'::bytea)",
    "leave snapshots": "SELECT pg_export_snapshot()",
    "run a program of one's own": "DO $$ BEGIN END $$",
}


@pytest.mark.parametrize("ticket", ["now() + INTERVAL '61 s'", "'infinity'"])
async def test_a_ticket_ends_within_a_minute(prepared: Database, ticket: str) -> None:
    stored = f"INSERT INTO {INTERNAL}.tickets (digest, expires_at) VALUES (sha256('a'), now() + INTERVAL '30 s')"
    async with connected(prepared.url, roles.WRITER) as connection:
        assert await tried(connection, stored) == "done"
        assert await tried(connection, stored.replace("now() + INTERVAL '30 s'", ticket)) == "23514"
        assert await tried(connection, f"{stored}; UPDATE {INTERNAL}.tickets SET expires_at = {ticket}") == "23514"
        whenever = stored.replace("(digest,", "(made_at, digest,").replace("(sha256", "('infinity', sha256")
        assert await tried(connection, whenever) == DENIED


async def test_what_was_revoked_stays_revoked(prepared: Database) -> None:
    made = f"INSERT INTO {INTERNAL}.api_keys VALUES (repeat('b', 12), sha256('b'), 'old', '{{read}}')"
    ended = f"UPDATE {INTERNAL}.api_keys SET revoked_at = now() WHERE name = 'old'"
    async with connected(prepared.url) as owner:
        assert await tried(owner, f"{made}; {ended}; {ended.replace('now()', 'revoked_at')}") == "done"
        assert await tried(owner, f"{made}; {ended}; {ended.replace('now()', 'NULL')}") == "0A000"


@pytest.mark.parametrize("role", [roles.WRITER, roles.READER, ANALYST])
async def test_nobody_makes_our_triggers_his_own(prepared: Database, role: str) -> None:
    async with connected(prepared.url) as administrator:
        await administrator.execute(f"GRANT TEMPORARY ON DATABASE {prepared.name} TO klines_reader, {ANALYST}")
    try:
        async with connected(prepared.url, role) as connection:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute("CREATE TEMP TABLE forged AS SELECT * FROM trades LIMIT 0")
            answers = {
                name: await tried(
                    connection,
                    "CREATE TRIGGER forging AFTER INSERT ON forged REFERENCING NEW TABLE AS inserted"
                    f" FOR EACH STATEMENT EXECUTE FUNCTION {INTERNAL}.{name}_v1()",
                )
                for name in ("fold_trades", "tape_trades", "note_key_event")
            }
    finally:
        async with connected(prepared.url) as administrator:
            await administrator.execute(f"REVOKE TEMPORARY ON DATABASE {prepared.name} FROM klines_reader, {ANALYST}")
    assert set(answers.values()) == {DENIED}, answers


async def test_nothing_inside_is_everybodys(prepared: Database) -> None:
    everybodys = (
        "SELECT p.oid::regprocedure FROM pg_proc AS p, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a"
        f" WHERE a.grantee = 0 AND p.pronamespace = '{INTERNAL}'::regnamespace"
    )
    acting = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'klines_internal'::regnamespace"
        " AND (prosecdef OR provolatile = 'v') AND has_function_privilege($1, oid, 'EXECUTE') ORDER BY 1"
    )
    async with connected(prepared.url) as connection:
        assert await connection.fetch(everybodys) == []
        assert await connection.fetch(acting, roles.READER) == []
        assert [row[0] for row in await connection.fetch(acting, roles.WRITER)] == [
            "end_analyst_sessions_v1", "forget_below_v1", "forget_tape_v1", "raise_floor_v1",
        ]  # fmt: skip
        # What a later migration makes in the owner's name.
        await connection.execute("SET ROLE klines_owner")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"CREATE FUNCTION {INTERNAL}.later() RETURNS integer LANGUAGE sql RETURN 1")
        assert await connection.fetch(everybodys) == []
        await transaction.rollback()


async def test_the_market_is_not_forgotten(prepared: Database) -> None:
    async with connected(prepared.url, roles.WRITER) as connection:
        answers = {statement: await tried(connection, statement) for statement in TOO_MUCH}
        assert {statement: answer for statement, answer in answers.items() if answer != REFUSED} == {}
        may = f"SELECT {INTERNAL}.raise_floor_v1(now() - INTERVAL '1 day')"
        assert await tried(connection, may) == "done"


@pytest.mark.parametrize("role", [roles.WRITER, roles.READER, ANALYST])
async def test_who_may_not_write_fills_no_disk(prepared: Database, role: str) -> None:
    async with connected(prepared.url, role) as connection:
        answers = {what: await tried(connection, statement) for what, statement in FLOODS.items()}
        assert set(answers.values()) == {DENIED}, answers
        rung = await tried(connection, "SELECT pg_notify('klines_v1', '1')")
        assert rung == (DENIED if role == ANALYST else "done")
