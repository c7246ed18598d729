"""`klines db analyst`: lets the read-only role of analysts log in, and tells its address once it was seen to work."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import asyncpg
import click
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from klines import migrations
from klines.cli.target import explained, running_database
from klines.database import connected, open_engine, reading
from klines.embedded.server import DATABASE, scram_verifier
from klines.errors import BadRequest, CannotStart, Conflict
from klines.queries import analyst
from klines.settings import Settings, read_settings

MIN_PASSWORD, MAX_PASSWORD = 12, 1024
GENERATED_BYTES = 32
INSUFFICIENT_PRIVILEGE = "42501"
# What libpq reads from an address about who logs in: the owner's, not the analyst's.
OWNERS = {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword", "service"}


@click.command("analyst")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="one line with the password; without it one is made up"
)
def analyst_command(password_file: Path | None) -> None:
    """Let the read-only role klines_analyst log in, and print its address.

    Every run sets the password, for all databases of the server: who used the old one must be told the new one. The
    address holds a password that was made up, which is shown this once; one from a file is not shown.
    """
    settings = read_settings(os.environ)
    password = _from_file(password_file) if password_file else secrets.token_urlsafe(GENERATED_BYTES)
    with explained():
        address = asyncio.run(_let_in(settings, running_database(settings), password))
        asyncio.run(_try(address, password))
    click.echo(address if password_file else _with_password(address, password))


async def _let_in(settings: Settings, url: str, password: str) -> str:
    """Grant, check and set the password; the address without it."""
    await migrations.check(url)
    async with open_engine(url) as engine, reading(engine) as connection:
        address = analyst_address(settings.database_url) if settings.database_url else await _embedded(connection)
        missing = await analyst.grant(connection)
        await connection.commit()
        if missing:
            raise Conflict(missing)
        found = await analyst.standing(connection)
        if found.excess:
            said = " and ".join(found.excess)
            raise Conflict(f"{analyst.ROLE} {said}: it gets no password before that is taken away")
        await _set_password(connection, password)
    return address


async def _embedded(connection: AsyncConnection) -> str:
    port = await analyst.tcp_port(connection)
    if port is None:
        raise CannotStart(
            "the embedded server listens on no port, and its socket is the service's alone:"
            " start the service with KLINES_POSTGRES_PORT",
            code="no_port",
        )
    return f"postgresql://{analyst.ROLE}@127.0.0.1:{port}/{DATABASE}"


async def _set_password(connection: AsyncConnection, password: str) -> None:
    try:
        await analyst.let_in(connection, scram_verifier(password))
        await connection.commit()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise Conflict(
            f"{analyst.ROLE} may read, but only an administrator can let it in: "
            f"ALTER ROLE {analyst.ROLE} LOGIN PASSWORD '…'"
        ) from None


async def _try(address: str, password: str) -> None:
    """Log in at the address and read: what keeps the role out is said here, not to the analyst."""
    try:
        connection = await connected(_with_password(address, password))
    except (asyncpg.PostgresError, OSError) as error:
        raise Conflict(f"{analyst.ROLE} has its password, but the server does not let it in: {error}") from error
    await connection.close()


def analyst_address(owner_url: str) -> str:
    """The owner's address with the analyst in place of the owner, and without a password."""
    parts = urlsplit(owner_url)
    place = parts.netloc.rpartition("@")[2]
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in OWNERS]
    asked = f"?{urlencode(query)}" if query else ""
    return f"postgresql://{analyst.ROLE}@{place}{parts.path}{asked}"


def _with_password(address: str, password: str) -> str:
    return address.replace("@", f":{quote(password, safe='')}@", 1)


def _from_file(file: Path) -> str:
    try:
        with file.open(encoding="ascii") as opened:
            password = opened.read(MAX_PASSWORD + 1).rstrip("\n")
    except OSError as error:
        raise BadRequest(f"--password-file: {file}: {error.strerror}", code="password_file") from None
    except UnicodeDecodeError:
        password = ""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or not password.isprintable():
        raise BadRequest(
            f"--password-file: {file}: must hold one line of {MIN_PASSWORD} to {MAX_PASSWORD} ASCII characters",
            code="password_file",
        )
    return password
