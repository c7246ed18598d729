"""The examples of `docs/clients.md`: cut out, pointed at the service of a test, and run."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.clients.environments import ROOT, Environment
from tests.clients.market import WIF, Bar, Market, dense, now_ms, row
from tests.clients.session import output

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
HOST = "127.0.0.1:8080"
# For all of an example; some load most of that time on a machine that has more to do.
PROGRAM_SECONDS = 40


def titles(level: int) -> list[str]:
    """The sections of a level that have an example."""
    return re.findall(rf"^{'#' * level} (.+)\n(?:(?!###? ).*\n)*?```", PAGE, re.M)


def block(title: str, language: str, level: int = 2) -> str:
    """The example of a section."""
    section = re.split(r"\n###? ", PAGE.partition(f"\n{'#' * level} {title}\n")[2])[0]
    (found,) = re.findall(rf"```{language}\n(.*?)```", section, re.S)
    return str(found)


def commands(title: str, market: Market, key: str | None = None) -> list[list[str]]:
    """The commands of a section, at the test's service; with a key those that show it."""
    text = block(title, "console", 3 if key else 2).replace(HOST, host(market)).replace("$API_KEY", key or "$API_KEY")
    return [shlex.split(line) for line in text.split("$ ")[1:]]


def host(market: Market) -> str:
    """Where the test's service is, as it stands in place of `HOST`."""
    return market.url.removeprefix("http://")


async def printed(
    environment: Environment, market: Market, directory: Path, text: str, **variables: str
) -> list[list[str]]:
    """The words of each line that an example prints."""
    python = environment.requirements.suffix == ".txt"
    # npm finds its packages from where the script is.
    directory = directory if python else environment.directory
    script = directory / ("example.py" if python else "example.mjs")
    script.write_text(text.replace(HOST, host(market)), "utf-8")
    program = environment.program("python" if python else "node")
    lines = await output(directory, program, str(script), within=PROGRAM_SECONDS, **variables)
    return [line.split() for line in lines.splitlines()]


@asynccontextmanager
async def trading(market: Market) -> AsyncIterator[None]:
    """A trade every now and then, until the example has ended."""

    async def trade() -> None:
        while True:
            await market.trade_now(WIF)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(trade())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def latest(market: Market, interval: str, begin: int, count: int) -> list[Bar]:
    """So many bars from a moment on, gaps filled; the last of them is the present one."""
    found = dense(await market.bars(WIF, interval), interval, begin, now_ms() + 1)
    assert count <= len(found) <= count + 1, "a bucket may have begun since"
    return found[:count]


async def rows(market: Market, printed: list[list[str]]) -> list[list[str]]:
    """What five rows of Binance's must be."""
    bars = await latest(market, "1m", int(printed[0][0]), 5)
    return [[str(one) for one in row(bar, "1m")] for bar in bars]


async def sold(market: Market) -> dict[int, list[str]]:
    """The words that examples print for each stored trade: id, price, amount."""
    return {one.trade_id: [str(one.trade_id), one.price, one.amount] for one in await market.trades(WIF)}


def consecutive(told: list[list[str]], least: int) -> list[int]:
    """The ids that an example printed, which must follow each other."""
    ids = [int(words[0]) for words in told]
    assert len(ids) >= least
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    return ids


async def until(shown: Callable[[], Awaitable[Any]], wanted: Callable[[], Awaitable[Any]]) -> None:
    """Look until what is shown is what is wanted; fails with both after a while."""
    deadline = asyncio.get_running_loop().time() + 10
    while (found := await shown()) != (right := await wanted()):
        assert asyncio.get_running_loop().time() < deadline, (found[-3:], right[-3:])
