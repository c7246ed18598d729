"""The storage profile: `timescale` or `plain`, decided once by the first migration and written into the database.

Only migrations ask for it. The SQL of a revision is `common.sql`, then `<profile>.sql`, beside the migrations;
a revision has `common` or both profile files, so that no profile can be forgotten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from klines.errors import CannotStart

Profile = Literal["timescale", "plain"]
PROFILES: tuple[Profile, ...] = ("timescale", "plain")

MINIMUM_SERVER = 160000
# 2.29.0 lets hot and late policies run side by side on a hierarchy; 2.29.2 has the wrong-result fixes since.
MINIMUM_TIMESCALE = (2, 29, 2)

AVAILABLE = """
    SELECT coalesce(installed_version, default_version) FROM pg_available_extensions WHERE name = 'timescaledb'
"""

SCHEMA = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'timescaledb'"


class Choice(NamedTuple):
    """A profile and, in words, why it was chosen."""

    profile: Profile
    reason: str


def choose(connection: Connection, wanted: str) -> Choice:
    """Decide for a new database; `wanted` is `auto`, `timescale` or `plain`. Raises `CannotStart`."""
    refuse_unfit_server(connection)
    if wanted == "plain":
        return Choice("plain", "asked for")
    found = _timescale(connection)
    if wanted == "timescale" and found.profile == "plain":
        raise CannotStart(f"KLINES_STORAGE_PROFILE=timescale: {found.reason}", code="profile_impossible")
    return found


def refuse_unfit_server(connection: Connection) -> None:
    """Raise `CannotStart` for a server that neither profile can use."""
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < MINIMUM_SERVER:
        raise CannotStart(f"PostgreSQL {version // 10000} is too old: 16 or newer is needed", code="server_too_old")
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise CannotStart(f"the database is encoded in {encoding}: UTF8 is needed", code="encoding")


def stored(connection: Connection) -> Choice | None:
    """What the database says of itself; None before the first migration."""
    function = "klines_internal.storage_profile()"
    if connection.execute(text("SELECT to_regprocedure(:name)"), {"name": function}).scalar() is None:
        return None
    query = f"SELECT {function}, obj_description('{function}'::regprocedure, 'pg_proc')"
    profile, reason = connection.execute(text(query)).one()
    return Choice(profile, reason or "")


def sql_files(folder: Path, profile: Profile) -> list[Path]:
    """The SQL of one revision in the order in which it runs."""
    return [file for name in ("common", profile) if (file := folder / f"{name}.sql").exists()]


def _timescale(connection: Connection) -> Choice:
    version = connection.execute(text(AVAILABLE)).scalar()
    if version is None:
        return Choice("plain", "the server has no TimescaleDB")
    # A setting of the loader: the edition's own are there only once the extension is.
    if connection.execute(text("SELECT current_setting('timescaledb.disable_load', true)")).scalar() is None:
        return Choice("plain", f"TimescaleDB {version} is installed but not in shared_preload_libraries")
    if tuple(int(part) for part in version.split("-")[0].split(".")) < MINIMUM_TIMESCALE:
        needed = ".".join(map(str, MINIMUM_TIMESCALE))
        return Choice("plain", f"TimescaleDB {version} is too old: {needed} is needed")
    return _edition(connection, version)


def _edition(connection: Connection, version: str) -> Choice:
    trial = connection.begin_nested()
    try:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public"))
        licence = connection.execute(text("SHOW timescaledb.license")).scalar_one()
        schema = connection.execute(text(SCHEMA)).scalar_one()
    except DBAPIError as error:
        trial.rollback()
        return Choice("plain", f"TimescaleDB {version} cannot be created here: {error.orig}")
    if licence != "timescale":
        trial.rollback()
        return Choice("plain", f"TimescaleDB {version} is the Apache edition: continuous aggregates need Community")
    if schema != "public":
        trial.rollback()
        return Choice("plain", f"TimescaleDB {version} lives in the schema {schema}: public is needed")
    trial.commit()
    return Choice("timescale", f"TimescaleDB {version} Community")
