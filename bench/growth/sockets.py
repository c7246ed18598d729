"""One, a hundred and two thousand sockets, on one token and spread over many: how late, and what a frame costs."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import asyncpg

from bench.comparison import Figures, spread
from bench.live.clients import Clients
from bench.live.setting import clients_of
from bench.live.writer import Writer
from bench.load import cpu_seconds
from bench.stage import Service, Stage
from bench.trades import symbols
from klines.writer import REGISTER, TOKEN_IDS

SOCKETS = (1, 100, 2000)
TOKENS = 100
# Five commits a second: two thousand sockets of one token then take ten thousand frames, with room left for reading.
PERIOD = 0.2
WINDOW_SECONDS = 1.6
LATE_SECONDS = 0.3
PROCESSES = 2


class Window(NamedTuple):
    """Median nanoseconds from the return of a commit to the frame, and CPU microseconds of the service for a frame."""

    late_ns: float
    cpu_us: float
    frames: int
    reader_cpu: float


async def by_sockets(stage: Stage) -> list[Figures]:
    """Cases of both spreads, a fresh service for each; the windows of a number of sockets follow one another."""
    async with stage.database("sockets") as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(REGISTER, symbols(TOKENS))
            ids = {row["symbol"]: row["token_id"] for row in await connection.fetch(TOKEN_IDS, symbols(TOKENS))}
            writer = Writer(connection, [ids[symbol] for symbol in symbols(TOKENS)])
            # A socket of a token is open when it has a snapshot, with trades or without.
            return [
                case
                for spread_over, words in ((1, "one token"), (TOKENS, f"{TOKENS} tokens"))
                for case in await _spread(stage, url, writer, spread_over, words)
            ]
        finally:
            await connection.close()


async def _spread(stage: Stage, url: str, writer: Writer, tokens: int, words: str) -> list[Figures]:
    found: dict[int, list[Window]] = {}
    for wanted in map(stage.size.of, SOCKETS):
        paths = [f"/ws/transactions/{symbol}" for symbol in symbols(min(tokens, wanted))]
        with (
            stage.serving(url, MAX_CONNECTIONS=str(2 * SOCKETS[-1])) as service,
            clients_of(service.port, PROCESSES) as clients,
        ):
            clients.open(list(itertools.islice(itertools.cycle(paths), wanted)))
            windows = [await _window(service, clients, writer, len(paths)) for _ in range(1 + stage.size.runs)]
            found[wanted] = windows[1:]
    return [case for sockets in found for case in _cases(found, sockets, words)]


async def _window(service: Service, clients: Clients, writer: Writer, tokens: int) -> Window:
    before = cpu_seconds(service.process)
    clients.begin(keeps=True)
    await writer.paced(_batches(tokens), PERIOD)
    await asyncio.sleep(LATE_SECONDS)
    spent = cpu_seconds(service.process) - before
    got = clients.end()
    arrivals: Any = zip(got.arrivals[::2], got.arrivals[1::2], strict=True)
    late = [at - writer.committed[trade] for at, trade in arrivals]
    return Window(statistics.median(late), spent / got.messages * 1e6, got.messages, got.cpu)


def _batches(tokens: int) -> Iterator[list[int]]:
    """A trade of one token each, in turn."""
    places = itertools.cycle(range(tokens))
    return ([next(places)] for _ in range(int(WINDOW_SECONDS / PERIOD)))


def _cases(found: dict[int, list[Window]], sockets: int, words: str) -> Iterator[Figures]:
    mine, least = found[sockets], found[SOCKETS[0]]
    for series, name, scale, values, smallest in (
        ("commit to client", "p50_ms", 1e-6, [one.late_ns for one in mine], [one.late_ns for one in least]),
        ("CPU of a frame", "cpu_us", 1, [one.cpu_us for one in mine], [one.cpu_us for one in least]),
    ):
        ratios = [value / small for value, small in zip(values, smallest, strict=True)]
        yield {
            "case": f"{series}, {words}, {sockets:,} sockets",
            "series": f"{series}, {words}",
            "axis": "sockets",
            "at": sockets,
            "least": SOCKETS[0],
            name: spread([value * scale for value in values])["median"],
            "frames": sum(one.frames for one in mine),
            "reader_cpu_s": spread([one.reader_cpu for one in mine])["median"],
            "ratio": spread(ratios)["median"],
            "ratios": ratios,
        }
