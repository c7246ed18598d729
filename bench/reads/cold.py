"""`cold`: ranges of 500 bars that nobody asked for yet, against asyncpg executing the very statement of the service.

The yardstick is one prepared statement per connection, on connections of its own, with the same parameters in the same
order. `recent` bars are live; `retired` ones come from the aggregates, which only the Timescale profile has.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bench.comparison import Outcome, Ratio, Rounds, Sample, Side, cases, ratio, rounds
from bench.load import cpu_seconds
from bench.reads.generator import wrk
from bench.reads.market import MINUTE_MS, PAGE, Market, Token, market, page, path, same
from bench.stage import Service, Stage
from klines.interval import Width
from klines.queries import klines
from klines.queries.direct import compiled
from klines.queries.window import Window

CONNECTIONS = (1, 4)
FLOOR, GOAL = 0.50, 0.80
SECONDS = 3
TOKENS = 8
RETIRED_TOKENS = 3
CHECKED = 40
# Has no divisor in common with the number of minutes: neighbours are far apart, and none comes twice.
STRIDE = 769
# Less than a minute: it makes another range, but not another page.
JITTER = 59_999
# Every run of a side begins at a number of its own, so that no range is asked for twice.
NUMBERS = 1_000_003
WIDTH = Width(60)

SCRIPT = """
local number, tokens = {first}, {{{symbols}}}
request = function()
   number = number + 1
   local from = {first_ms} + number * {stride} % {minutes} * {minute_ms} - number % {jitter}
   return wrk.format("GET", string.format("/api/v1/klines/%s?interval=1m&limit={page}&from=%.0f&to=%.0f",
      tokens[number % #tokens + 1], from, from + {page} * {minute_ms}))
end
"""


async def measure(stage: Stage) -> Outcome:
    """Pages per second, each over 1 and 4 connections."""
    retired = RETIRED_TOKENS if stage.profile == "timescale" else 0
    async with market(stage, TOKENS, retired) as found:
        kinds = {"recent": found.recent} | ({"retired": found.retired} if retired else {})
        with stage.serving(found.url) as service:
            for tokens in kinds.values():
                await _check(found, service, tokens)
            samples = await rounds(_sides(stage, found, service, kinds), stage.size.runs)
    equal = f"{CHECKED} pages of {PAGE} bars of each kind: service, asyncpg and SQL rows"
    return Outcome(cases(samples, "page"), list(_ratios(samples, kinds)), equal)


def _sides(stage: Stage, found: Market, service: Service, kinds: dict[str, list[Token]]) -> dict[str, Side]:
    numbers = itertools.count(NUMBERS, NUMBERS)
    sides: dict[str, Side] = {}
    for (name, tokens), count in itertools.product(kinds.items(), CONNECTIONS):
        sides[f"{name} {count}"] = partial(_ours, stage, service, tokens, count, numbers)
        sides[f"asyncpg {name} {count}"] = partial(_theirs, stage, found, tokens, count, numbers)
    return sides


def _ratios(samples: Rounds, kinds: dict[str, list[Token]]) -> Iterator[Ratio]:
    for name, count in itertools.product(kinds, CONNECTIONS):
        yield ratio(samples, f"{name} {count}", f"asyncpg {name} {count}", floor=FLOOR, goal=GOAL)


async def _check(found: Market, service: Service, tokens: list[Token]) -> None:
    """Ranges all over the tokens, the first and the last among them."""
    statement = Statement()
    prepared = await found.connection.prepare(statement.text)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
        for number in range(CHECKED):
            token, from_ms = asked(tokens, number)
            expected = await page(found.connection, token, from_ms, from_ms + PAGE * MINUTE_MS)
            body = (await client.get(path(token, from_ms))).content
            inside = await prepared.fetchval(*statement.values(token, from_ms))
            if len(expected["klines"]) != PAGE or not same(body, expected) or inside.encode() not in body:
                raise RuntimeError(f"page {number} is not what the rows say")


async def _ours(stage: Stage, service: Service, tokens: list[Token], count: int, numbers: Iterator[int]) -> Sample:
    script = stage.folder / "cold.lua"
    _write(script, tokens, next(numbers))
    return await wrk(stage, service, "/", count, stage.size.of(SECONDS), script)


async def _theirs(stage: Stage, found: Market, tokens: list[Token], count: int, numbers: Iterator[int]) -> Sample:
    statement = Statement()
    connections = [await asyncpg.connect(found.url) for _ in range(count)]
    prepared = [await one.prepare(statement.text) for one in connections]
    numbered = itertools.count(next(numbers) + 1)

    async def ask(one: Any) -> int:
        for done in itertools.count():
            if time.perf_counter() >= end:
                return done
            await one.fetch(*statement.values(*asked(tokens, next(numbered))))
        raise AssertionError

    began, before = time.perf_counter(), (time.process_time(), cpu_seconds(stage.postmaster))
    end = began + stage.size.of(SECONDS)
    done = sum(await asyncio.gather(*map(ask, prepared)))
    seconds = time.perf_counter() - began
    used = {"asyncpg": time.process_time() - before[0], "postgres": cpu_seconds(stage.postmaster) - before[1]}
    for connection in connections:
        await connection.close()
    return Sample(done, seconds, used)


def asked(tokens: list[Token], number: int) -> tuple[Token, int]:
    """The token, and the beginning of the range with this number; `SCRIPT` makes the same ones."""
    first = tokens[0]
    from_ms = first.first_ms + number * STRIDE % _minutes(first) * MINUTE_MS - number % JITTER
    return tokens[number % len(tokens)], from_ms


class Statement:
    """What the statement of a page with both ends compiles to."""

    def __init__(self) -> None:
        self._compiled = compiled(klines.statement(WIDTH, Window(PAGE, 0, 0).shape))
        self.text = self._compiled.text

    def values(self, token: Token, from_ms: int) -> list[Any]:
        """Its parameters for the range of 500 minutes from a time."""
        window = Window(PAGE, from_ms * 1000, (from_ms + PAGE * MINUTE_MS) * 1000)
        return self._compiled.arguments(window.values(token.token_id) | {"now": datetime.now(UTC)})


def _write(script: Path, tokens: list[Token], first: int) -> None:
    symbols = ", ".join(f'"{token.symbol}"' for token in tokens)
    script.write_text(
        SCRIPT.format(
            first=first,
            symbols=symbols,
            first_ms=tokens[0].first_ms,
            stride=STRIDE,
            minutes=_minutes(tokens[0]),
            minute_ms=MINUTE_MS,
            jitter=JITTER,
            page=PAGE,
        )
    )


def _minutes(token: Token) -> int:
    # So that every range is full.
    return (token.end_ms - token.first_ms) // MINUTE_MS - PAGE
