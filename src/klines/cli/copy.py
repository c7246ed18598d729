"""`klines db copy`: everything of the present database into one on another server, also between storage profiles."""

from __future__ import annotations

import asyncio
import os
import sys

import click
import msgspec

from klines.cli.target import existing_database, explained
from klines.errors import BadRequest, Unavailable
from klines.importer.progress import shown_on
from klines.settings import read_settings
from klines.transfer.copying import Copied, copy_database
from klines.transfer.ends import prepare


@click.command("copy")
@click.option("--to", "target", required=True, metavar="URL", help="an empty database: postgresql://…")
@click.option("--verify/--no-verify", default=True, help="compare every bar of every interval at the end (default)")
@click.option("--json", "as_json", is_flag=True, help="print the result as one JSON object")
def copy_command(target: str, verify: bool, as_json: bool) -> None:
    """Copy the present database (the embedded one, also while it serves, or DATABASE_URL) into the one at URL.

    That one is migrated first, in the profile that its server allows (KLINES_STORAGE_PROFILE). Interrupted, the same
    command goes on where it was; run again after the writers have stopped, it carries over what they wrote last.
    The password may be left out of URL and given as PGPASSWORD. Exit 1 if a bar differs.
    """
    settings = read_settings(os.environ)
    if not target.startswith(("postgresql://", "postgres://")):
        raise BadRequest("--to: must start with postgresql://", code="copy_target_invalid")
    profile, seconds = settings.klines_storage_profile, settings.klines_migration_seconds
    with existing_database() as source:
        with explained():
            asyncio.run(prepare(source, target, profile, seconds))
        copied = _copied(source, target, verify=verify)
    _tell(copied, as_json=as_json)
    if copied.bars_different:
        raise SystemExit(1)


def _copied(source: str, target: str, *, verify: bool) -> Copied:
    with shown_on(sys.stderr) as on_progress:
        try:
            return asyncio.run(copy_database(source, target, verify=verify, on_progress=on_progress))
        except Unavailable as error:
            detail = f"{error.detail}; the same command goes on where this one was"
            raise Unavailable(detail, code=error.code) from error


def _tell(copied: Copied, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(copied))
        return
    for one in copied.differences:
        click.echo(f"{one.symbol} {one.interval.value} {one.time.isoformat()}: {one.source} here, {one.target} there")
    click.echo(copied)
