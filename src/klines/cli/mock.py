"""`klines mock`: the mock feed alone, into a database that a service elsewhere serves."""

from __future__ import annotations

import asyncio
import os

import click
import msgspec

from klines import logs
from klines.cli.target import target_database
from klines.database import open_engine, open_writers
from klines.feeds.mock import run_mock_feed
from klines.queries import roles
from klines.settings import Settings, read_settings
from klines.writer import TradeWriter

DEFAULT_INTERVAL_MS = 250


@click.command("mock")
def mock_command() -> None:
    """Write the simulated market until interrupted (MOCK_DATA_INTERVAL, MOCK_SEED, MOCK_TOKENS)."""
    settings = read_settings(os.environ)
    logs.configure(settings.log_level)
    with target_database() as url:
        interval = settings.mock_data_interval or DEFAULT_INTERVAL_MS
        asyncio.run(_run(msgspec.structs.replace(settings, database_url=url, mock_data_interval=interval)))


async def _run(settings: Settings) -> None:
    found = await roles.addresses(settings.database_url)
    writing = msgspec.structs.replace(settings, database_url=found.writing)
    async with (
        open_engine(found.reading) as engine,
        open_writers(found.writing, 1) as pool,
        run_mock_feed(writing, engine, TradeWriter(pool, register=True)),
    ):
        await asyncio.Event().wait()
