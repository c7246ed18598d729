"""`klines import`: the trades of a CSV or JSONL file, plain or gzip, all checked before the first one is stored."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path
from typing import cast, get_args

import click
import msgspec

from klines.cli.target import target_database
from klines.errors import BadRequest
from klines.importer.columns import chosen_columns
from klines.importer.progress import shown_on
from klines.importer.reader import ReadOptions, TradeFile, open_trades
from klines.importer.rows import Format
from klines.importer.staging import SLICE_ROWS, import_trades
from klines.importer.values import UNITS, TimeUnit
from klines.models import Receipt
from klines.queries import roles
from klines.settings import Settings, read_settings

GC_OBJECTS = 100_000

_NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t"}


class Outcome(msgspec.Struct, frozen=True):
    """What an import did: the receipt of the trades, the bad rows that were skipped, and how long it all took."""

    received: int
    inserted: int
    duplicates: int
    conflicts: int
    skipped: int
    seconds: float
    rows_per_second: int

    def __str__(self) -> str:
        return (
            f"received {self.received}, inserted {self.inserted}, duplicates {self.duplicates}, "
            f"conflicts {self.conflicts}, skipped {self.skipped}, {self.rows_per_second} rows/s"
        )


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(get_args(Format)), help="what FILE is; default: by its first byte")
@click.option("--delimiter", help="between the fields of CSV: one character or 'tab'; default: by the header")
@click.option("--column", "columns", multiple=True, metavar="FIELD=NAME", help="the column of a field; repeatable")
@click.option("--symbol", help="the symbol of every row")
@click.option(
    "--time-unit",
    type=click.Choice(("auto", *UNITS)),
    default="auto",
    help="of every time; auto: by the column's suffix (_s _ms _us _ns), else by the first row",
)
@click.option("--skip-invalid", is_flag=True, help="import the good rows of a file that has bad ones")
@click.option("--slice-rows", type=click.IntRange(1, 1_000_000), default=SLICE_ROWS, show_default=True, hidden=True)
@click.option("--json", "as_json", is_flag=True, help="print the result as one JSON object")
def import_command(
    file: Path,
    form: str | None,
    delimiter: str | None,
    columns: tuple[str, ...],
    symbol: str | None,
    time_unit: str,
    skip_invalid: bool,
    slice_rows: int,
    as_json: bool,
) -> None:
    """Store the trades of FILE (CSV with a header, or one JSON object per line; gzip is fine).

    All rows are checked first: one bad row, and nothing is stored. Importing a file again changes nothing. Columns
    are found by their names; FIELD is one of symbol trade_id time price amount side.
    """
    # Rows are many small objects without cycles: to look for some in them took a fifth of the reading.
    gc.set_threshold(GC_OBJECTS)
    settings = read_settings(os.environ)
    options = ReadOptions(
        form=cast(Format | None, form),
        delimiter=_delimiter(delimiter),
        columns=chosen_columns(columns),
        symbol=symbol,
        time_unit=None if time_unit == "auto" else cast(TimeUnit, time_unit),
        skip_invalid=skip_invalid,
        max_future_seconds=settings.klines_max_future_seconds,
    )
    with open_trades(file, options) as trades:
        outcome = _imported(trades, settings, slice_rows)
        for fault in trades.faults.first:
            click.echo(f"{fault.loc}: {fault.msg}", err=True)
    click.echo(msgspec.json.encode(outcome) if as_json else outcome)


def _imported(trades: TradeFile, settings: Settings, slice_rows: int) -> Outcome:
    with target_database() as url, shown_on(sys.stderr) as on_progress:
        start = time.monotonic()
        address = asyncio.run(roles.addresses(url)).writing
        receipt: Receipt = asyncio.run(
            import_trades(
                address,
                trades.batches(),
                register=settings.klines_register_tokens,
                slice_rows=slice_rows,
                on_progress=on_progress,
            )
        )
        seconds = time.monotonic() - start
    rate = round(receipt.received / max(seconds, 1e-3))
    return Outcome(
        **msgspec.structs.asdict(receipt), skipped=trades.faults.count, seconds=seconds, rows_per_second=rate
    )


def _delimiter(text: str | None) -> str | None:
    if text is None:
        return None
    character = _NAMED_DELIMITERS.get(text, text)
    if len(character) != 1 or character in '"\r\n':
        raise BadRequest("--delimiter: must be one character, no quote and no line end", code="delimiter_invalid")
    return character
