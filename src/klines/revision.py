"""What a migration's body calls: runs the revision's SQL files in the profile of the database."""

from __future__ import annotations

from typing import Any, cast

from alembic import context
from alembic.operations import Operations
from sqlalchemy import Connection, text

from klines import profile
from klines.migrations import folder

# A migration under traffic gives up rather than queue every writer behind its lock.
LOCK_TIMEOUT = "5s"


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
    raw.run_async(lambda driver: driver.execute(script))
