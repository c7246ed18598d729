"""`klines db`: the schema, the addresses, and a shell on the database."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import click

from klines import migrations
from klines.cli.analyst import analyst_command
from klines.cli.copy import copy_command
from klines.cli.service import service_command
from klines.cli.target import existing_database, explained, granted, running_database
from klines.database import open_engine, reading
from klines.embedded import EmbeddedServer, running_url, tcp_url, wheel_binary
from klines.errors import CannotStart
from klines.queries import analyst, roles
from klines.settings import Settings, read_settings


@click.group("db")
def db_group() -> None:
    """The database: upgrade, status, copy, url, service, analyst, psql."""


db_group.add_command(analyst_command)
db_group.add_command(copy_command)
db_group.add_command(service_command)


@db_group.command("upgrade")
def upgrade_command() -> None:
    """Bring the schema to the newest revision."""
    settings = read_settings(os.environ)
    url = settings.database_url or running_url(settings.data_dir)
    if url:
        with explained():
            _tell(asyncio.run(_upgrade(url, settings)))
        return
    with EmbeddedServer(settings.data_dir, settings.klines_postgres_port) as server:
        _tell(asyncio.run(_upgrade(server.url, settings)))


@db_group.command("status")
def status_command() -> None:
    """Say which revision and which storage profile the database has; exit 1 when it is not the newest."""
    settings = read_settings(os.environ)
    with explained():
        standing = asyncio.run(_status(running_database(settings), given=bool(settings.database_url)))
    _tell(standing)
    found = standing.schema
    if found.current != found.newest:
        raise SystemExit(1)


@db_group.command("url")
def url_command() -> None:
    """Print the address of the database; with KLINES_POSTGRES_PORT the loopback one, password included."""
    settings = read_settings(os.environ)
    url = running_database(settings)
    if settings.klines_postgres_port and not settings.database_url:
        url = tcp_url(settings.data_dir, settings.klines_postgres_port)
    click.echo(url)


@db_group.command("psql", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql_command(arguments: tuple[str, ...]) -> None:
    """Open psql on the database; ARGUMENTS go to psql."""
    with existing_database() as url:
        # The arguments of a process are for everyone to see, its environment is not.
        parts = urlsplit(url)
        environment = {**os.environ, "PGPASSWORD": unquote(parts.password)} if parts.password else None
        address = url.replace(f":{parts.password}@", "@", 1) if parts.password else url
        command = [_psql(), address, *arguments]
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)  # noqa: S603


def _psql() -> str:
    try:
        binary: Path | str | None = wheel_binary("psql")
    except CannotStart:
        binary = shutil.which("psql")
    if not binary:
        raise CannotStart("psql: not found, neither with the embedded server nor on the PATH")
    return str(binary)


class Standing(NamedTuple):
    """Where a database stands: its schema, its analysts, and what the roles of the service are not, or not yet."""

    schema: migrations.Status
    analysts: analyst.Standing
    left: list[str]
    excess: str | None = None


async def _upgrade(url: str, settings: Settings) -> Standing:
    found = await migrations.upgrade(url, settings.klines_storage_profile, settings.klines_migration_seconds)
    left = await granted(url)
    async with open_engine(url) as engine, reading(engine) as connection:
        analysts = await analyst.standing(connection)
        if analysts.missing:
            # Not only in its migration: roles come and go without the database.
            await analyst.grant(connection)
            await connection.commit()
            analysts = await analyst.standing(connection)
        return Standing(found, analysts, left)


async def _status(url: str, *, given: bool) -> Standing:
    found = await migrations.status(url)
    async with open_engine(url) as engine, reading(engine) as connection:
        left = await roles.left(connection)
        # With the embedded server this command has the owner's login, and the service another one.
        excess = await roles.login_excess(connection) if given and found.profile else None
        return Standing(found, await analyst.standing(connection), left, excess)


def _tell(standing: Standing) -> None:
    found = standing.schema
    click.echo(f"revision {found.current or 'none'} of {found.newest}")
    if found.profile:
        click.echo(f"storage profile {found.profile.profile}: {found.profile.reason}")
        for said in standing.left or ["the service reads and writes with the least that it needs"]:
            click.echo(f"roles: {said}")
        if standing.excess:
            click.echo(f"warning: {standing.excess}")
    click.echo(f"analysts: {_words(standing.analysts)}")


def _words(analysts: analyst.Standing) -> str:
    if analysts.missing:
        return f"no: {analysts.missing}"
    if analysts.excess:
        return f"{analyst.ROLE} {' and '.join(analysts.excess)}, which is more than reading"
    login = "reads and may log in" if analysts.may_log_in else "reads; `klines db analyst` lets it log in"
    return f"{analyst.ROLE} {login}"
