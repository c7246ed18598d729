"""`klines db service`: makes the login of the service, and tells its address once it was seen to work."""

from __future__ import annotations

from pathlib import Path

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cli.login import Login, let_in, password_option
from klines.queries import roles


@click.command("service")
@password_option
def service_command(password_file: Path | None) -> None:
    """Make the login klines_service, which can store and read and nothing more, and print its address.

    Every run sets the password, for all databases of the server: a service that uses the old one must be given the new
    one. The address holds a password that was made up, which is shown this once; one from a file is not shown.
    """
    told = (
        f"only an administrator can let {roles.SERVICE} in: CREATE ROLE {roles.SERVICE} LOGIN PASSWORD '…'"
        f" IN ROLE {roles.WRITER}, {roles.READER}"
    )
    let_in(Login(roles.SERVICE, _ready, told), password_file)


async def _ready(connection: AsyncConnection) -> list[str]:
    await roles.make_service(connection)
    return await roles.service_excess(connection)
