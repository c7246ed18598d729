"""What a migration's body calls: runs the revision's SQL files in the profile of the database."""

from __future__ import annotations

from typing import Any, cast

from alembic import context
from alembic.operations import Operations
from sqlalchemy import Connection, text

from klines import profile
from klines.migrations import folder

# Whoever waits for a strong lock has everybody else queue behind it: less than what a writer bears, then room for them.
LOCK_TIMEOUT = "500ms"
# A migration names every schema, so that nothing of another login can stand in for what it means.
SEARCH_PATH = "pg_catalog, pg_temp"


def decide_profile(operations: Operations) -> profile.Choice:
    """Choose the profile of a new database: the first revision's only question to the outside."""
    wanted = context.config.attributes.get("wanted_profile", "auto")
    return profile.choose(operations.get_bind(), wanted)


def apply(operations: Operations, revision: str, choice: profile.Choice | None = None) -> None:
    """Run `alembic/sql/<revision>/common.sql`, then the profile's file, inside the migration's transaction."""
    connection = operations.get_bind()
    chosen = choice or profile.stored(connection)
    if chosen is None:
        raise RuntimeError("the first revision decides the profile")
    for file in profile.sql_files(folder() / "sql" / revision, chosen.profile):
        execute_script(connection, file.read_text(encoding="utf-8"))


def execute_script(connection: Connection, script: str) -> None:
    """Run a script of several statements, which a prepared statement cannot hold, in the connection's transaction."""
    # A statement through SQLAlchemy comes first: it opens the transaction that the raw connection then joins.
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    raw = cast(Any, connection.connection.dbapi_connection)
    # Alembic's own table is found in the path that the login has.
    pinned = f"SET LOCAL search_path = {SEARCH_PATH};\n{script}\n;SET LOCAL search_path TO DEFAULT"
    raw.run_async(lambda driver: driver.execute(pinned))
