"""Which windows are asked for, that all answer the same, and how long each takes."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence

from bench.comparison import Figures, Sample, cases, rounds, spread
from bench.peers.engines import LIMIT, Window
from bench.ranges.market import Market
from bench.ranges.peers import Peer
from bench.trades import START_US

MINUTE = 60
# Of each round and of each check, whatever the size.
WINDOWS = 20


class Asked:
    """A side: each call asks the peer for the next list of windows."""

    def __init__(self, peer: Peer, plan: Sequence[Sequence[Window]]) -> None:
        self.medians: list[float] = []
        self._peer, self._plan = peer, iter(plan)

    async def __call__(self) -> Sample:
        windows = next(self._plan)
        before = self._peer.cpu()
        seconds = await self._peer.ask(windows)
        used = {name: after - before[name] for name, after in self._peer.cpu().items()}
        self.medians.append(statistics.median(seconds))
        return Sample(len(windows), sum(seconds), used)


def drawn(market: Market, seed: int, *, begins: bool) -> list[Window]:
    """Windows of 500 minutes, or of the latest 500 bars; busy tokens more often, as their trades are."""
    pick = random.Random(seed)  # noqa: S311 - the same windows every time
    start, ranks = START_US // 1_000_000, range(1, market.tokens + 1)
    windows = []
    for token in pick.choices(ranks, [1 / rank for rank in ranks], k=WINDOWS):
        until = start + MINUTE * pick.randint(LIMIT, market.seconds // MINUTE)
        windows.append(Window(token, until - LIMIT * MINUTE if begins else None, until))
    return windows


async def agree(peers: Mapping[str, Peer], windows: Sequence[Window]) -> None:
    """RuntimeError unless all give the same rows for every window."""
    first, *others = peers
    expected = await peers[first].check(windows)
    if not any(expected):
        raise RuntimeError(f"{first}: no bars in any window")
    for name in others:
        for window, ours, theirs in zip(windows, expected, await peers[name].check(windows), strict=True):
            if ours != theirs:
                different = next((pair for pair in zip(ours, theirs, strict=False) if pair[0] != pair[1]), None)
                raise RuntimeError(f"{window}: {first} {len(ours)} bars, {name} {len(theirs)}: {different}")


async def asked(
    peers: Mapping[str, Peer], market: Market, runs: int, *, begins: bool
) -> tuple[dict[str, list[Sample]], list[Figures]]:
    """Samples of each peer, and a case of each with the median latency of a window in milliseconds."""
    # No window of a round is one that was asked for before, in the check or in another round.
    seeds = range(1, 2 + runs)
    plan = [drawn(market, 2 * seed + begins, begins=begins) for seed in seeds]
    sides = {name: Asked(peer, plan) for name, peer in peers.items()}
    found = await rounds(sides, runs)
    told = [
        case | {"p50_ms": spread([one * 1000 for one in sides[case["case"]].medians[1:]])}
        for case in cases(found, "page")
    ]
    return found, told
