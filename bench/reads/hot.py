"""`hot`: one page asked for again and again, against a route of the same application that has its bytes at hand.

`rest`: a token that does not trade meanwhile. `trading`: one that trades 20 times a second, so that its last bar
changes as often, and every answer must hold all trades that were committed before it was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bench.comparison import Outcome, Ratio, Rounds, Side, cases, ratio, rounds
from bench.reads.generator import wrk
from bench.reads.market import MINUTE_MS, PAGE, Market, market, page, path, same
from bench.stage import Service, Stage

CONNECTIONS = (1, 16, 64)
HEADLINE = 16
FLOOR, GOAL = 0.40, 0.80
SECONDS = 2
TRADE_SECONDS = 0.05
PEER = str(Path(__file__).parents[1] / "peers" / "static.py")
STATIC = "/api/static"

TRADE = """
INSERT INTO trades (token_id, trade_id, time, price, amount, side)
VALUES ($1, $2, clock_timestamp(), 0.00105, 1.5, 'buy')
"""


async def measure(stage: Stage) -> Outcome:
    """Requests per second, each over 1, 16 and 64 connections."""
    file = stage.folder / "static.json"
    async with market(stage, 2) as found:
        with stage.serving(found.url, program=(PEER,), BENCH_STATIC=str(file)) as service:
            equal = await _checked(found, service, file)
            samples = await rounds(_sides(stage, found, service), stage.size.runs)
            samples |= await rounds(_trading(stage, found, service), stage.size.runs)
    ratios = [_ratio(samples, "rest", "static", count) for count in CONNECTIONS]
    ratios.append(ratio(samples, f"trading {HEADLINE}", f"static beside trading {HEADLINE}"))
    return Outcome(cases(samples, "request"), ratios, equal)


def _ratio(samples: Rounds, ours: str, theirs: str, count: int) -> Ratio:
    asked = count == HEADLINE
    floor, goal = (FLOOR, GOAL) if asked else (None, None)
    return ratio(samples, f"{ours} {count}", f"{theirs} {count}", floor=floor, goal=goal)


async def _checked(found: Market, service: Service, file: Path) -> str:
    """The page must be what the rows say; then the peer gets its bytes."""
    rest = found.recent[0]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
        body = (await client.get(path(rest))).content
        expected = await page(found.connection, rest, rest.end_ms - PAGE * MINUTE_MS, rest.end_ms)
        if not same(body, expected):
            raise RuntimeError("the page is not what the rows say")
        await asyncio.to_thread(file.write_bytes, body)
        again = [(await client.get(address)).content for address in (path(rest), STATIC)]
        if again != [body, body]:
            raise RuntimeError("the page, asked for again, or the static route says something else")
    return f"a page of {PAGE} bars ({len(body):,} bytes): service, static route and SQL rows"


def _sides(stage: Stage, found: Market, service: Service) -> dict[str, Side]:
    run = partial(wrk, stage, service)
    return {
        f"{name} {count}": partial(run, address, count, stage.size.of(SECONDS))
        for count in CONNECTIONS
        for name, address in (("rest", path(found.recent[0])), ("static", STATIC))
    }


def _trading(stage: Stage, found: Market, service: Service) -> dict[str, Side]:
    """Both while a token trades: what its writer uses of the machine is missing to both."""
    run = partial(wrk, stage, service)

    async def beside(address: str, count: int) -> Any:
        async with _traded(found):
            return await run(address, count, stage.size.of(SECONDS))

    addresses = (("trading", path(found.recent[1])), ("static beside trading", STATIC))
    return {f"{name} {count}": partial(beside, address, count) for count in (HEADLINE,) for name, address in addresses}


@asynccontextmanager
async def _traded(found: Market) -> AsyncIterator[None]:
    """While it is open, the second token trades 20 times a second, on a connection of its own."""
    connection = await asyncpg.connect(found.url)
    task = asyncio.create_task(_trade(connection, found.recent[1].token_id))
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await connection.close()


async def _trade(connection: asyncpg.Connection[Any], token_id: int) -> None:
    number = await connection.fetchval(
        "SELECT coalesce(max(trade_id), 0) + 1 FROM trades WHERE token_id = $1", token_id
    )
    due = asyncio.get_running_loop().time()
    while True:
        await connection.execute(TRADE, token_id, number)
        number, due = number + 1, due + TRADE_SECONDS
        await asyncio.sleep(due - asyncio.get_running_loop().time())
