"""The schema: brings a database to the newest revision, and says where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from klines import profile
from klines.database import open_engine, reading
from klines.errors import CannotStart


class Status(NamedTuple):
    """Where a database stands: its revision (None: empty), the newest one, and its profile with the reason."""

    current: str | None
    newest: str
    profile: profile.Choice | None


def folder() -> Path:
    """The migrations: inside the package in a wheel, at the top of a checkout."""
    inside = Path(__file__).parent / "alembic"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "alembic"


async def upgrade(url: str, wanted_profile: str = "auto") -> Status:
    """Bring the database at `url` to the newest revision; other processes that try the same wait for this one."""
    async with open_engine(url) as engine, reading(engine) as connection:
        await connection.run_sync(_upgrade, wanted_profile)
        await connection.commit()
        return await connection.run_sync(_status)


async def status(url: str) -> Status:
    """Where the database at `url` stands; changes nothing."""
    async with open_engine(url) as engine, reading(engine) as connection:
        return await connection.run_sync(_status)


async def check(url: str) -> Status:
    """The status of a database that this version can serve; raises `CannotStart` saying what to do otherwise."""
    found = await status(url)
    if found.current != found.newest:
        where = f"at revision {found.current}" if found.current else "empty"
        raise CannotStart(
            f"the database is {where}, this version needs {found.newest}: run `klines db upgrade`", code="schema"
        )
    return found


def _config(connection: Connection, wanted_profile: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.attributes.update(connection=connection, wanted_profile=wanted_profile)
    return config


def _upgrade(connection: Connection, wanted_profile: str) -> None:
    command.upgrade(_config(connection, wanted_profile), "head")


def _status(connection: Connection) -> Status:
    profile.refuse_unfit_server(connection)
    newest = ScriptDirectory(str(folder())).get_current_head()
    found = profile.stored(connection)
    if found and found.profile == "timescale":
        _refuse_missing_timescale(connection)
    current = MigrationContext.configure(connection).get_current_revision()
    return Status(current, str(newest), found)


def _refuse_missing_timescale(connection: Connection) -> None:
    licence = connection.execute(text("SELECT current_setting('timescaledb.license', true)")).scalar()
    if licence != "timescale":
        what = "does not preload TimescaleDB" if licence is None else f"runs TimescaleDB's {licence} edition"
        raise CannotStart(f"the database has the timescale profile, but the server {what}", code="profile_lost")
