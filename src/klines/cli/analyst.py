"""`klines db analyst`: lets the read-only role of analysts log in, and tells its address once it was seen to work."""

from __future__ import annotations

from pathlib import Path

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cli.login import Login, let_in, password_option
from klines.errors import Conflict
from klines.queries import analyst


@click.command("analyst")
@password_option
def analyst_command(password_file: Path | None) -> None:
    """Let the read-only role klines_analyst log in, and print its address.

    Every run sets the password, for all databases of the server: who used the old one must be told the new one. The
    address holds a password that was made up, which is shown this once; one from a file is not shown.
    """
    told = (
        f"{analyst.ROLE} may read, but only an administrator can let it in:"
        f" ALTER ROLE {analyst.ROLE} LOGIN PASSWORD '…'"
    )
    let_in(Login(analyst.ROLE, _ready, told), password_file)


async def _ready(connection: AsyncConnection) -> list[str]:
    missing = await analyst.grant(connection)
    await connection.commit()
    if missing:
        raise Conflict(missing)
    return list((await analyst.standing(connection)).excess)
