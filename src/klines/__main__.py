"""The command `klines`: one line and an exit code for every error (1 failed, 2 usage or bad input, 3 cannot start)."""

from __future__ import annotations

import sys

import click

from klines import __version__, settings
from klines.cli.db import db_group
from klines.cli.import_trades import import_command
from klines.cli.keys import keys_group
from klines.cli.mock import mock_command
from klines.cli.serve import serve_command
from klines.cli.verify import verify_command
from klines.errors import KlinesError


class _Commands(click.Group):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (f"{name}={default}" if default else name, description)
            for name, (default, description) in settings.variables().items()
        ]
        with formatter.section("Settings (environment, with their defaults)"):
            formatter.write_dl(rows)


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="klines")
def commands() -> None:
    """Exact candlesticks for meme-token platforms."""


for command in (serve_command, import_command, mock_command, db_group, keys_group, verify_command):
    commands.add_command(command)


def main() -> None:
    """Run a command and leave with its exit code."""
    try:
        commands.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KlinesError as error:
        click.echo(f"klines: {error.detail}", err=True)
        # The detail says the first one already.
        for item in error.errors[1:]:
            click.echo(f"  {item.loc}: {item.msg}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
