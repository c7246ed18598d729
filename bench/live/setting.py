"""What the benchmarks of the live streams run against: a database with tokens, their writer, services with clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import asyncpg

from bench.live.clients import Clients
from bench.live.writer import Writer
from bench.stage import Service, Stage
from klines.writer import REGISTER, TOKEN_IDS

SYMBOLS = [f"BENCH{number:03}-SOL" for number in range(200)]
QUIET = "QUIET-SOL"
TRADES, BARS = "/ws/transactions/{}", "/ws/klines/{}/1s"
# Clients of a token without trades that every service has from the start: whatever the first client costs is paid.
WARM = 10


class Market(NamedTuple):
    """A migrated database at `url` with `SYMBOLS`, and the only one who writes trades of them."""

    stage: Stage
    url: str
    writer: Writer

    @contextmanager
    def serving(self, processes: int = 1, **variables: str) -> Iterator[tuple[Service, Clients]]:
        """A fresh service in its own process, and processes for its clients."""
        with self.stage.serving(self.url, **variables) as service, clients_of(service.port, processes) as clients:
            clients.open([BARS.format(QUIET)] * WARM)
            yield service, clients


@asynccontextmanager
async def market(stage: Stage) -> AsyncIterator[Market]:
    """A market in a database of its own."""
    async with stage.database("live") as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(REGISTER, [*SYMBOLS, QUIET])
            ids = {row["symbol"]: row["token_id"] for row in await connection.fetch(TOKEN_IDS, SYMBOLS)}
            yield Market(stage, url, Writer(connection, [ids[symbol] for symbol in SYMBOLS]))
        finally:
            await connection.close()


@contextmanager
def clients_of(port: int, processes: int) -> Iterator[Clients]:
    """Processes for the clients of a server; RuntimeError if one of them fails."""
    clients = Clients(port, processes)
    try:
        yield clients
    except (EOFError, TimeoutError, ConnectionError) as error:
        raise RuntimeError("the clients failed") from error
    finally:
        clients.close()


def seconds_of(stage: Stage, seconds: float) -> float:
    """The length of a window: so long in a full run, a tenth of it and at least one second in a trial."""
    return seconds if stage.size.divisor == 1 else max(1.0, seconds / 10)
