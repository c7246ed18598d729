"""What objects of the service count on their own, read at the scrape: hot paths pay nothing for it."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Any, Protocol

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from klines import __version__
from klines.breaker import Breaker
from klines.hub import Hub
from klines.metrics.family import Family, Sample, counter, gauge, gauges, histogram
from klines.relay.pulse import Pulse
from klines.writer import TradeWriter


def of_build(workers: int, mock_seconds: float) -> Iterable[Family]:
    """What runs, and how it was told to run."""
    told = {"version": __version__, "python": platform.python_version()}
    yield gauge("klines_build_info", "What is running", 1, "max", **told)
    yield gauge("klines_workers", "Server processes that answer", 1)
    yield gauge("klines_workers_wanted", "Server processes that were asked for", workers, "max")
    yield gauge("klines_mock_data_interval_seconds", "Between mock batches; 0: no mock feed", mock_seconds, "max")


def of_hubs(hubs: dict[str, Hub]) -> Iterable[Family]:
    """Who is served, and what waits for those who read slowly."""
    waiting = {name: hub.waiting() for name, hub in hubs.items()}
    each = {name: float(len(sizes)) for name, sizes in waiting.items()}
    yield gauges("klines_hub_subscribers", "Connections that a hub serves", "hub", each)
    each = {name: float(sum(sizes)) for name, sizes in waiting.items()}
    yield gauges("klines_hub_waiting_bytes", "Frames that wait for slow connections", "hub", each)
    each = {name: float(max(sizes, default=0)) for name, sizes in waiting.items()}
    yield gauges("klines_hub_waiting_bytes_largest", "Of the connection with the most", "hub", each, "max")
    topics = {name: float(len(hub.topics())) for name, hub in hubs.items()}
    yield gauges("klines_hub_topics", "Streams that somebody watches", "hub", topics)
    conflated = sum(hub.conflated for hub in hubs.values())
    yield counter("klines_hub_conflated_frames", "Frames that a newer state replaced while they waited", conflated)


def of_pulse(pulse: Pulse) -> Iterable[Family]:
    """Whether the streams are live, how fast they are, and how the listener does."""
    yield gauge("klines_streams_live", "1: the streams are live; 0: stale", pulse.state == "live", "min")
    yield gauge("klines_listener_up", "1: listening to the database", pulse.listening, "min")
    yield gauge("klines_listener_silent_seconds", "Since the listener was last heard", pulse.silent_seconds, "max")
    yield counter("klines_listener_resumes", "Times that listening began", pulse.resumed)
    yield histogram("klines_relay_turn_seconds", "How long reading and publishing what changed took", pulse.turns)
    yield histogram("klines_push_lag_seconds", "From the doorbell of a commit to the frames in the hub", pulse.pushes)
    yield counter("klines_relay_tokens_read", "Tokens that turns have read", pulse.read)


def of_breaker(breaker: Breaker, writer: TradeWriter) -> Iterable[Family]:
    """Whether the database is asked, and what waits for it."""
    states = {state: float(breaker.state == state) for state in ("closed", "open", "probing")}
    yield gauges("klines_breaker_state", "1 at what the breaker of a process is", "state", states)
    changes = [Sample("klines_breaker_changes_total", {"state": one}, n) for one, n in breaker.changes.items()]
    yield Family("klines_breaker_changes", "counter", "Times that the breaker became so", changes)
    yield counter("klines_breaker_refused", "Uses of the database that the breaker refused", breaker.refused)
    yield gauge("klines_ingest_batches_waiting", "Batches that wait for a connection", writer.waiting)


class Intake(Protocol):
    """The room for batches on their way in."""

    bytes: int
    batches: int
    refused: int


def of_intake(intake: Intake) -> Iterable[Family]:
    """What is on its way in, and what there was no room for."""
    yield gauge("klines_intake_bytes", "Bytes of bodies that arrive, are parsed or wait", intake.bytes)
    yield gauge("klines_intake_batches", "Bodies that arrive, are parsed or wait", intake.batches)
    yield counter("klines_intake_refused", "Bodies for which there was no room", intake.refused)


def of_pools(engines: dict[str, AsyncEngine], writers: asyncpg.Pool[Any]) -> Iterable[Family]:
    """Connections to the database that are in use, and those there may be."""
    used: dict[str, float] = {"writers": writers.get_size() - writers.get_idle_size()}
    most: dict[str, float] = {"writers": writers.get_max_size()}
    for name, engine in engines.items():
        if isinstance(engine.pool, QueuePool):
            used[name], most[name] = engine.pool.checkedout(), engine.pool.size()
    yield gauges("klines_pool_in_use", "Connections of a pool that are in use", "pool", used)
    yield gauges("klines_pool_size", "Connections that a pool may have", "pool", most)
