"""`klines keys`: makes, lists, ends and replaces API keys. A key is shown once, alone on standard output."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cli.target import existing_database, explained, privileged, target_database
from klines.credential import ID_LENGTH, KEY_PREFIX, SCOPES, digest, new_key
from klines.database import open_engine, reading
from klines.errors import BadRequest, Conflict, NotFound, echo
from klines.keyring import MAX_KEYS
from klines.queries import keys
from klines.queries.keys import Listed
from klines.timestamp import LATEST_US, TimeError, iso_us, to_datetime, to_us

MAX_NAME = 64
# A service that is broken into makes no key that outlasts it.
UNPRIVILEGED = "this login may not make or end keys: take the one that `klines db upgrade` takes for DATABASE_URL"
_SPAN = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_ID = re.compile(f"[0-9A-Za-z]{{{ID_LENGTH}}}", re.ASCII)


@click.group("keys")
def keys_group() -> None:
    """API keys: create, list, revoke, rotate. A running service knows of a change within seconds.

    The login of the service may only list them; whoever upgrades the schema makes and ends them.
    """


@keys_group.command("create")
@click.argument("name")
@click.option("--scopes", default="read", show_default=True, help=f"of {' '.join(SCOPES)}, joined by commas")
@click.option("--expires", help="such as 30d, 12h, or an ISO-8601 time with an offset; without it the key lasts")
def create_command(name: str, scopes: str, expires: str | None) -> None:
    """Make a key and print it, this once."""
    _refuse_bad_name(name)
    asked = _scopes(scopes)
    until = _moment(expires, datetime.now(UTC)) if expires else None
    click.echo(_run(lambda connection: _made(connection, name, asked, until), makes=True))


@keys_group.command("list")
def list_command() -> None:
    """List all keys, without what is secret in them: id, scopes, times in UTC, state, name."""
    rows: list[tuple[str, ...]] = [("ID", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE", "NAME")]
    now = datetime.now(UTC)
    rows += [_row(key, now) for key in _run(keys.listing)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@keys_group.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke_command(key_id: str) -> None:
    """End a key now; its sockets are closed within five seconds."""
    _refuse_bad_id(key_id)
    _run(lambda connection: _revoked(connection, key_id))


@keys_group.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--grace", default="24h", show_default=True, help="how long the old key lives on, such as 24h or 0s")
@click.option("--expires", help="as for create; without it the new key lasts as long as the old one was made to")
def rotate_command(key_id: str, grace: str, expires: str | None) -> None:
    """Make a key with the same name and scopes, print it, and let the old one end after the grace."""
    _refuse_bad_id(key_id)
    now = datetime.now(UTC)
    ends, until = now + _span("--grace", grace), _moment(expires, now) if expires else None
    click.echo(_run(lambda connection: _rotated(connection, key_id, ends, until)))


async def _made(connection: AsyncConnection, name: str, scopes: list[str], until: datetime | None) -> str:
    if await keys.count(connection) >= MAX_KEYS:
        raise Conflict(f"{MAX_KEYS} keys are good already, and a service knows no more: revoke some")
    made = new_key()
    await keys.add(connection, made.key_id, digest(made.text), name, scopes, until)
    lasts = f"until {_shown(until)}" if until else "until it is revoked"
    click.echo(f"key {made.key_id} ({', '.join(scopes)}) for {name}, good {lasts}; it is shown this once", err=True)
    return made.text


async def _revoked(connection: AsyncConnection, key_id: str) -> None:
    key = await _found(connection, key_id)
    if key.revoked_at is not None:
        click.echo(f"key {key_id} was revoked at {_shown(key.revoked_at)}", err=True)
        return
    await keys.revoke(connection, key_id)
    click.echo(f"key {key_id} ({key.name}) is revoked", err=True)


async def _rotated(connection: AsyncConnection, key_id: str, ends: datetime, until: datetime | None) -> str:
    old, now = await _found(connection, key_id), datetime.now(UTC)
    if (state := _state(old, now)) in {"revoked", "expired"}:
        raise Conflict(f"key {key_id} is {state}: `klines keys create` makes another one")
    if until is None and old.expires_at is not None:
        until = now + (old.expires_at - old.created_at)
    text = await _made(connection, old.name, old.scopes, until)
    if old.expires_at is None or ends < old.expires_at:
        await keys.expire(connection, key_id, ends)
    click.echo(f"key {key_id} ends at {_shown(min(ends, old.expires_at or ends))}", err=True)
    return text


async def _found(connection: AsyncConnection, key_id: str) -> Listed:
    key = await keys.one(connection, key_id)
    if key is None:
        raise NotFound(f"no key has the id {key_id}: `klines keys list` shows those there are")
    return key


def _run(work: Callable[[AsyncConnection], Awaitable[Any]], *, makes: bool = False) -> Any:
    async def run(url: str) -> Any:
        async with open_engine(url) as engine, reading(engine) as connection:
            with privileged(UNPRIVILEGED):
                result = await work(connection)
            await connection.commit()
            return result

    # Only the first key may come before the first start.
    with target_database() if makes else existing_database() as url, explained():
        return asyncio.run(run(url))


def _row(key: Listed, now: datetime) -> tuple[str, ...]:
    times = (key.created_at, key.expires_at, key.last_used_at)
    return (key.key_id, ",".join(key.scopes), *map(_shown, times), _state(key, now), key.name)


def _state(key: Listed, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "good"


def _shown(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "-"


def _scopes(text: str) -> list[str]:
    asked = [part.strip() for part in text.split(",")]
    wrong = [one for one in asked if one not in SCOPES]
    if wrong:
        raise BadRequest(f"--scopes {echo(text)}: {echo(wrong[0])} is none of {' '.join(SCOPES)}", code="scopes")
    return [scope for scope in SCOPES if scope in asked]


def _moment(text: str, now: datetime) -> datetime:
    if _SPAN.fullmatch(text):
        return now + _span("--expires", text)
    try:
        time_us = iso_us(text)
    except TimeError as error:
        raise BadRequest(f"--expires {echo(text)}: {error}, or a span such as 30d", code="expires") from None
    if not to_us(now) < time_us < LATEST_US:
        raise BadRequest(f"--expires {echo(text)}: must lie ahead", code="expires")
    return to_datetime(time_us)


def _span(name: str, text: str) -> timedelta:
    found = _SPAN.fullmatch(text)
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if span is None or span > timedelta(days=36500):
        raise BadRequest(f"{name} {echo(text)}: must be a number and one of s m h d w, 100 years at most", code="span")
    return span


def _refuse_bad_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise BadRequest(f"NAME {echo(name)}: must be 1 to {MAX_NAME} printable characters", code="name")


def _refuse_bad_id(text: str) -> None:
    if text.startswith(KEY_PREFIX):
        # Never shown again, not even here: what stands in a command line is for every user of the machine to see.
        raise BadRequest("ID: the 12 characters between the two underscores, not the key itself", code="id")
    if _ID.fullmatch(text) is None:
        raise BadRequest(
            f"ID {echo(text)}: must be the {ID_LENGTH} characters that `klines keys list` shows", code="id"
        )
