"""The command `klines`: one line and an exit code for every error (1 failed, 2 usage or bad input, 3 cannot start)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import cast

import click

from klines import __version__, settings
from klines.errors import KlinesError

# Module and name of each command. Only the one that is asked for is loaded: the service's own modules take a second.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "db": ("db", "db_group"),
    "import": ("import_trades", "import_command"),
    "keys": ("keys", "keys_group"),
    "mock": ("mock", "mock_command"),
    "serve": ("serve", "serve_command"),
    "verify": ("verify", "verify_command"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        return cast(click.Command, getattr(importlib.import_module(f"klines.cli.{module}"), name))

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
