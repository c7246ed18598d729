"""What is counted when it happens. Every label has few values, whatever clients send: see each family's labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from klines.metrics.family import Across, Family, Kind, Sample

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# A trade that is imported may be years old; beyond a minute it is no longer a lag.
AGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
CODES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4008, 4400, 4401, 4500})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
OTHER = "other"

# Of families that are not ours.
_ACROSS: dict[str, Across] = {
    "process_start_time_seconds": "min",
    "process_max_fds": "min",
    "process_open_fds": "max",
}


class Instruments:
    """Counters, gauges and histograms of one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            "klines_http_request_seconds",
            "Requests by route template, method and class of status, and how long they took",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=registry,
        )
        self._sent = Counter("klines_http_response_bytes", "Bytes of response bodies", registry=registry)
        self._serving = Gauge("klines_http_requests_in_progress", "Requests that are being served", registry=registry)
        kind = ("kind",)
        self._connections = Gauge("klines_connections", "Open WebSockets by kind", kind, registry=registry)
        self._openings = Counter("klines_connection_openings", "WebSockets that were accepted", kind, registry=registry)
        self._closes = Counter(
            "klines_connection_closes", "WebSockets that ended, by close code", (*kind, "code"), registry=registry
        )
        self._refusals = Counter(
            "klines_connection_refusals", "Upgrades refused, by class of status", (*kind, "status"), registry=registry
        )
        self._turned_away = Counter(
            "klines_refusals", "Answers before any route, by who gave them and code", ("by", "code"), registry=registry
        )
        self.batches = Counter("klines_ingest_batches", "Batches by outcome", ("outcome",), registry=registry)
        self.received = Counter("klines_ingest_trades_received", "Trades in batches", registry=registry)
        self.trades = Counter("klines_ingest_trades", "Trades of stored batches", ("outcome",), registry=registry)
        self.ingest = Histogram(
            "klines_ingest_seconds", "How long a batch took to be stored", buckets=SECONDS, registry=registry
        )
        self.writing = Gauge("klines_ingest_batches_in_progress", "Batches that are being stored", registry=registry)
        self.stored_lag = Histogram(
            "klines_trade_stored_lag_seconds",
            "From the time of a batch's newest trade to its commit",
            buckets=AGES,
            registry=registry,
        )
        self.loop_lag = Histogram(
            "klines_event_loop_lag_seconds", "How late a timer of the event loop ran", buckets=LAGS, registry=registry
        )
        for outcome in ("stored", "refused", "unavailable", "unknown"):
            self.batches.labels(outcome)
        for outcome in ("inserted", "duplicate", "conflict"):
            self.trades.labels(outcome)
        ProcessCollector(registry=registry)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A request is being served."""
        self._serving.inc()
        try:
            yield
        finally:
            self._serving.dec()

    def served(self, route: str, method: str, status: int, seconds: float, sent: int) -> None:
        """A request was answered; `route` is one of the service's templates."""
        method = method if method in METHODS else OTHER
        self._requests.labels(route, method, f"{status // 100}xx").observe(seconds)
        self._sent.inc(sent)

    def opened(self, kind: str) -> None:
        """A WebSocket was accepted."""
        self._connections.labels(kind).inc()
        self._openings.labels(kind).inc()

    def closed(self, kind: str, code: int) -> None:
        """A WebSocket that was accepted has ended."""
        self._connections.labels(kind).dec()
        self._closes.labels(kind, str(code) if code in CODES else OTHER).inc()

    def turned_away(self, by: Literal["server", "gate"], code: str) -> None:
        """A request was refused before any route; codes are the service's own words, a few dozen."""
        self._turned_away.labels(by, code).inc()

    def refused(self, kind: str, status: int) -> None:
        """An upgrade was refused."""
        self._refusals.labels(kind, f"{status // 100}xx").inc()

    def families(self) -> Iterable[Family]:
        """All of them as they are now."""
        for metric in self._registry.collect():
            kind: Kind = "gauge" if metric.type not in {"counter", "histogram"} else metric.type  # type: ignore[assignment]
            samples = [
                Sample(one.name, dict(one.labels), one.value)
                for one in metric.samples
                if not one.name.endswith("_created")
            ]
            yield Family(metric.name, kind, metric.documentation, samples, _ACROSS.get(metric.name, "sum"))
