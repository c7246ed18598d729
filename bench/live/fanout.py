"""What a delivery costs a server: 1,000 clients of one token, 20 updates a second, then as fast as it goes.

Ours reads the updates from PostgreSQL, where they are committed; the others are given the frames that ours sent. The
CPU of an idle server with its clients is taken off first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import psutil

from bench.comparison import Outcome, Ratio, Rounds, Sample, cases, rounds
from bench.live.clients import Clients, Tally
from bench.live.peer import COMMANDS, Peer, peer
from bench.live.setting import BARS, SYMBOLS, Market, clients_of, market, seconds_of
from bench.load import cpu_seconds
from bench.stage import Stage

CLIENTS = 1000
PROCESSES = 2
PERIOD = 0.05
PLACE = 1
OURS = "klines"
PACED_SECONDS, UNPACED_SECONDS, IDLE_SECONDS = 4.0, 2.0, 3.0
RECORDED = 40
# What is under way at the end of a window has this long to arrive, and whoever was let in to be told of updates.
LATE_SECONDS, SETTLE_SECONDS = 0.5, 1.0

# Sends for so many seconds, paced or not; how many updates at the least, where that is known.
Send = Callable[[float, bool], Awaitable[int]]


# Two commits that come close together may be one update of a bar.
LEAST = 0.9


class Fan(NamedTuple):
    """A server with its clients; `idle` are the CPU seconds per second of its processes while nothing is sent."""

    server: Mapping[str, psutil.Process]
    clients: Clients
    size: int
    send: Send
    idle: Mapping[str, float] = MappingProxyType({})

    async def seen(self, send: Callable[[], Awaitable[object]]) -> Tally:
        """What the clients got of something; raises RuntimeError unless all got the same."""
        self.clients.begin(keeps=True)
        await send()
        await asyncio.sleep(LATE_SECONDS)
        got = self.clients.end()
        if [*got.digests.values()] != [self.size] or len(got.one) < RECORDED:
            raise RuntimeError(f"{self.size} clients got different frames: {got.digests}")
        return got

    async def window(self, seconds: float, paced: bool) -> Sample:
        """Deliveries of one window, and what they took; raises RuntimeError when many are missing."""
        before, began = self._cpu(), time.monotonic()
        self.clients.begin()
        updates = await self.send(seconds, paced)
        await asyncio.sleep(LATE_SECONDS)
        took, after, got = time.monotonic() - began, self._cpu(), self.clients.end()
        if got.ended or (paced and got.messages < LEAST * updates * self.size):
            raise RuntimeError(f"{got.messages} frames of {updates} updates, {got.ended} connections ended")
        cpu = {whose: after[whose] - before[whose] - took * self.idle.get(whose, 0) for whose in after}
        return Sample(got.messages, took - LATE_SECONDS, cpu | {"clients": got.cpu})

    async def rested(self, seconds: float) -> Fan:
        """The same, with what it takes while it is idle."""
        before = self._cpu()
        await asyncio.sleep(seconds)
        after = self._cpu()
        return self._replace(idle={whose: (after[whose] - before[whose]) / seconds for whose in after})

    def _cpu(self) -> dict[str, float]:
        return {whose: cpu_seconds(process) for whose, process in self.server.items()}


async def measure(stage: Stage) -> Outcome:
    """Deliveries per CPU second of the server at a steady pace, and deliveries per second without one."""
    async with AsyncExitStack() as stack:
        fans = await _fans(stage, stack)
        paced = await _rounds(stage, fans, PACED_SECONDS, paced=True)
        unpaced = await _rounds(stage, fans, UNPACED_SECONDS, paced=False)
        idle = [{"case": f"{name}, idle", "cores": dict(fan.idle)} for name, fan in fans.items()]
    told = [_named(paced, "20 updates/s"), _named(unpaced, "unpaced")]
    ratios = [
        _per_cpu(paced, OURS, "node ws", floor=0.8, goal=1.5),
        _per_cpu(paced, OURS, "Litestar channels", floor=2, goal=5),
        *(_per_cpu(unpaced, OURS, name, what="unpaced, ") for name in COMMANDS),
    ]
    equal = f"every frame of {RECORDED} updates at each of {stage.size.of(CLIENTS)} clients of each server"
    return Outcome([case for one in told for case in cases(one, "delivery")] + idle, ratios, equal)


async def _rounds(stage: Stage, fans: Mapping[str, Fan], seconds: float, *, paced: bool) -> Rounds:
    length = seconds_of(stage, seconds)
    return await rounds({name: partial(fan.window, length, paced) for name, fan in fans.items()}, stage.size.runs)


def _named(found: Rounds, what: str) -> Rounds:
    return {f"{name}, {what}": samples for name, samples in found.items()}


def _per_cpu(
    found: Rounds, ours: str, theirs: str, *, what: str = "", floor: float | None = None, goal: float | None = None
) -> Ratio:
    pairs = zip(found[ours], found[theirs], strict=True)
    values = [(a.units / a.cpu["server"]) / (b.units / b.cpu["server"]) for a, b in pairs]
    return Ratio(f"{what}deliveries per CPU second of the server: {ours} / {theirs}", values, floor, goal)


async def _fans(stage: Stage, stack: AsyncExitStack) -> dict[str, Fan]:
    """Each with its clients, seen to tell all of them the same."""
    place = await stack.enter_async_context(market(stage))
    service = stack.enter_context(stage.serving(place.url, KLINES_PUSH_INTERVAL="0"))
    paths = [BARS.format(SYMBOLS[PLACE])] * stage.size.of(CLIENTS)
    clients = stack.enter_context(clients_of(service.port, PROCESSES))
    clients.open(paths)
    fans = {OURS: Fan({"server": service.process, "postgresql": stage.postmaster}, clients, len(paths), _ours(place))}
    seen = await fans[OURS].seen(partial(place.writer.paced, [[PLACE]] * RECORDED, PERIOD))
    frames = stage.folder / "frames"
    frames.write_bytes(b"\n".join(seen.one))
    for name in COMMANDS:
        server = await stack.enter_async_context(peer(name, frames))
        clients = stack.enter_context(clients_of(server.port, PROCESSES))
        clients.open(["/updates"] * len(paths), greeted=False)
        await asyncio.sleep(SETTLE_SECONDS)
        fans[name] = Fan({"server": server.process}, clients, len(paths), _theirs(server))
        if (await fans[name].seen(partial(server.obey, "once"))).digests != seen.digests:
            raise RuntimeError(f"clients of {name} got other frames than ours")
    return {name: await fan.rested(seconds_of(stage, IDLE_SECONDS)) for name, fan in fans.items()}


def _ours(place: Market) -> Send:
    async def send(seconds: float, paced: bool) -> int:
        writer = place.writer
        if paced:
            await writer.paced([[PLACE]] * round(seconds / PERIOD), PERIOD)
            return len(writer.committed)
        # Or the disk sets the pace.
        await writer.connection.execute("SET synchronous_commit = off")
        await writer.paced(_for(seconds, [PLACE]), 0)
        await writer.connection.execute("RESET synchronous_commit")
        return len(writer.committed)

    return send


def _theirs(server: Peer) -> Send:
    async def send(seconds: float, paced: bool) -> int:
        how = f"paced {round(seconds / PERIOD)} {PERIOD * 1000:g}" if paced else f"unpaced {seconds * 1000:g}"
        return await server.obey(how)

    return send


def _for(seconds: float, batch: Sequence[int]) -> Iterator[Sequence[int]]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield batch
