"""`klines verify`: recompute a token's bars from its trades and report any difference."""

from __future__ import annotations

import asyncio

import click

from klines.cli.target import existing_database
from klines.database import open_engine, reading
from klines.errors import UnknownToken
from klines.interval import NAMES, Interval
from klines.queries import roles, tokens, verify
from klines.symbol import canonical_symbol


@click.command("verify")
@click.argument("symbol")
@click.option("--interval", "names", multiple=True, type=click.Choice(NAMES), help="only these; default: all")
def verify_command(symbol: str, names: tuple[str, ...]) -> None:
    """Recompute the bars of SYMBOL from its raw trades; exit 1 if any stored bar differs."""
    intervals = [Interval(name) for name in names or NAMES]
    canonical = canonical_symbol(symbol)
    with existing_database() as url:
        differing = asyncio.run(_verify(url, canonical, intervals))
    if differing:
        raise SystemExit(1)


async def _verify(url: str, symbol: str, intervals: list[Interval]) -> int:
    differing = 0
    address = (await roles.addresses(url)).reading
    async with open_engine(address, statement_seconds=0) as engine:
        async with reading(engine) as connection:
            token_id = await tokens.token_id(connection, symbol)
        if token_id is None:
            raise UnknownToken(f"no token is called {symbol}", code="symbol_unknown")
        for interval in intervals:
            async with reading(engine) as connection:
                verdict = await verify.compare(connection, token_id, interval)
            differing += verdict.different
            # Outside of reading: a reader of the output who goes away is no trouble with the database.
            click.echo(f"{interval.value}: {verdict.compared} bars compared, {verdict.different} differ")
            for difference in verdict.shown:
                click.echo(f"  {difference.time.isoformat()}  stored {_text(difference.stored)}")
                click.echo(f"  {' ' * 25}  trades {_text(difference.folded)}")
    return differing


def _text(values: tuple[object, ...] | None) -> str:
    if values is None:
        return "no bar"
    return " ".join(f"{name}={value}" for name, value in zip(verify.VALUES, values, strict=True))
