"""Letting a role log in: `klines db analyst` and `klines db service` are this with a role each.

The role is made ready, refused if it may more than it is for, given its password, and seen to work before its address
is told. Every run does all of it again.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import asyncpg
import click
from sqlalchemy.ext.asyncio import AsyncConnection

from klines import migrations
from klines.cli.target import explained, privileged, running_database
from klines.database import connected, open_engine, reading
from klines.embedded.server import DATABASE, scram_verifier
from klines.errors import BadRequest, CannotStart, Conflict
from klines.queries import logins
from klines.settings import Settings, read_settings

MIN_PASSWORD, MAX_PASSWORD = 12, 1024
GENERATED_BYTES = 32
# What libpq reads from an address about who logs in: the owner's, not the role's.
OWNERS = {"user", "password", "passfile", "sslcert", "sslkey", "sslpassword", "service", "role"}

password_option = click.option(
    "--password-file", type=click.Path(path_type=Path), help="one line with the password; without it one is made up"
)


class Login(NamedTuple):
    """A role that may log in.

    `ready` makes it able to do its work and returns what it may beyond that, in words; raises `Conflict` when it
    cannot. `told` is for an administrator to do where the login that runs this may not.
    """

    role: str
    ready: Callable[[AsyncConnection], Awaitable[list[str]]]
    told: str


def let_in(login: Login, password_file: Path | None) -> None:
    """Give the role a password and print its address, with the password only where it was made up here."""
    settings = read_settings(os.environ)
    password = _from_file(password_file) if password_file else secrets.token_urlsafe(GENERATED_BYTES)
    with explained():
        address = asyncio.run(_let_in(login, settings, password))
        asyncio.run(_try(login.role, address, password))
    click.echo(address if password_file else _with_password(address, password))


async def _let_in(login: Login, settings: Settings, password: str) -> str:
    """Make ready, check and set the password; the address without it."""
    url = running_database(settings)
    await migrations.check(url)
    async with open_engine(url) as engine, reading(engine) as connection:
        address = address_of(login.role, url) if settings.database_url else await _embedded(login.role, connection)
        with privileged(login.told):
            excess = await login.ready(connection)
            if excess:
                said = " and ".join(excess)
                raise Conflict(f"{login.role} {said}: it gets no password before that is taken away")
            await logins.let_in(connection, login.role, scram_verifier(password))
        await connection.commit()
    return address


async def _embedded(role: str, connection: AsyncConnection) -> str:
    port = await logins.tcp_port(connection)
    if port is None:
        raise CannotStart(
            "the embedded server listens on no port, and its socket is the service's alone:"
            " start the service with KLINES_POSTGRES_PORT",
            code="no_port",
        )
    return f"postgresql://{role}@127.0.0.1:{port}/{DATABASE}"


async def _try(role: str, address: str, password: str) -> None:
    """Log in at the address: what keeps the role out is said here, not to whom it was given to."""
    try:
        connection = await connected(_with_password(address, password))
    except (asyncpg.PostgresError, OSError) as error:
        raise Conflict(f"{role} has its password, but the server does not let it in: {error}") from error
    await connection.close()


def address_of(role: str, owner_url: str) -> str:
    """The owner's address with the role in place of the owner, and without a password."""
    parts = urlsplit(owner_url)
    place = parts.netloc.rpartition("@")[2]
    query = [(name, value) for name, value in parse_qsl(parts.query) if name not in OWNERS]
    asked = f"?{urlencode(query)}" if query else ""
    return f"postgresql://{role}@{place}{parts.path}{asked}"


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
