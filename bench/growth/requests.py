"""What is asked of a market, each as a side of a comparison: the median time of one request, and whose CPU it took."""

from __future__ import annotations

import http.client
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator

import psutil

from bench.comparison import Sample
from bench.growth.market import DAYS, Market
from bench.live.wire import Client
from bench.load import cpu_seconds

BATCH = 5_000
READS, POSTS = 20, 2
# Trades that are posted have ids of their own, behind all that a market was filled with.
FIRST_ID = 10**9

Ask = Callable[[], None]


class Requests:
    """Requests to one market over a connection that stays open; raises RuntimeError for a refusal."""

    def __init__(self, market: Market, postmaster: psutil.Process) -> None:
        self._market, self._postmaster = market, postmaster
        self._connection = http.client.HTTPConnection("127.0.0.1", market.service.port, timeout=60)
        self._ids = itertools.count(FIRST_ID)
        self._batches = self._spread()

    def asks(self) -> dict[str, tuple[Ask, int]]:
        """By series: one request, and how often it is made for a sample."""
        bars = (f"/api/v1/klines/{symbol}?limit=500" for symbol in self._busy())
        trades = (f"/api/v1/trades/{symbol}" for symbol in self._busy())
        streams = (f"/ws/klines/{symbol}/1m?history=100" for symbol in self._busy())
        return {
            "GET 500 bars": (self._get(bars), READS),
            "GET 500 closed bars": (self._get(self._closed()), READS),
            "GET 100 trades": (self._get(trades), READS),
            "GET tokens": (self._get(itertools.repeat("/api/v1/tokens")), READS),
            "GET tokens by volume": (self._get(itertools.repeat("/api/v1/tokens?sort=volume")), READS),
            "GET all tickers": (self._get(itertools.repeat("/api/v3/ticker/24hr")), READS),
            "stream opening": (self._opening(streams), READS),
            "POST 5,000 trades": (self._post, POSTS),
        }

    def sample(self, ask: Ask, times: int) -> Sample:
        """So many times one request; the seconds are those of the median one."""
        whose = {"service": self._market.service.process, "postgres": self._postmaster, "client": psutil.Process()}
        before = {name: _cpu(name, process) for name, process in whose.items()}
        took = []
        for _ in range(times):
            began = time.perf_counter()
            ask()
            took.append(time.perf_counter() - began)
        spent = {name: _cpu(name, process) - before[name] for name, process in whose.items()}
        return Sample(times, statistics.median(took) * times, spent)

    def _busy(self) -> Iterator[str]:
        """Tokens that have the bars asked for, each in turn: nobody asks the same twice in a sample."""
        return itertools.cycle(self._market.symbols[:READS])

    def _closed(self) -> Iterator[str]:
        """Ranges of the busiest token, each with a beginning of its own."""
        begin = int(time.time() - DAYS * 86_400) // 60 * 60_000
        for minute in itertools.count():
            since = begin + minute % 1_440 * 60_000
            yield f"/api/v1/klines/{self._market.symbols[0]}?limit=500&from={since}&to={since + 500 * 60_000}"

    def _get(self, paths: Iterator[str]) -> Ask:
        return lambda: self._answered("GET", next(paths))

    def _opening(self, paths: Iterator[str]) -> Ask:
        def ask() -> None:
            Client(self._market.service.port, next(paths)).socket.close()

        return ask

    def _post(self) -> None:
        self._answered("POST", "/api/v1/trades", next(self._batches))

    def _spread(self) -> Iterator[bytes]:
        """Batches over all tokens in turn, of the last minute."""
        while True:
            now = time.time_ns() // 1_000_000
            names = itertools.islice(itertools.cycle(self._market.symbols), BATCH)
            trades = [
                {"symbol": symbol, "trade_id": number, "time": now - 60_000 + place * 12}
                | {"price": "0.00012345", "amount": "1.5", "side": "buy"}
                for place, (symbol, number) in enumerate(zip(names, self._ids, strict=False))
            ]
            yield json.dumps({"trades": trades}).encode()

    def _answered(self, method: str, path: str, body: bytes | None = None) -> None:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {told[:200]!r}")


def _cpu(name: str, process: psutil.Process) -> float:
    # Of ourselves alone: whatever else runs below us is somebody's already.
    if name != "client":
        return cpu_seconds(process)
    used = process.cpu_times()
    return used.user + used.system
