"""The composition root: the one module that knows all parts; one lifespan opens them and, left, closes them."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from typing import Any

import asyncpg
import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncEngine

from klines import __version__, logs, migrations, tracing
from klines.background import running
from klines.breaker import Breaker
from klines.database import open_engine, open_writers
from klines.dear import Dear, connections
from klines.errors import CannotStart, KlinesError
from klines.feeds.mock import run_mock_feed
from klines.hub import Hub
from klines.metrics import shared, sources
from klines.metrics.ingest import MeasuredWriter
from klines.metrics.metrics import Metrics
from klines.metrics.standing import DatabaseStanding
from klines.queries import roles
from klines.relay.engines import Engines
from klines.relay.lifespan import open_relay
from klines.relay.relay import Pace, Relay
from klines.retention import keep_days, sweep_tape
from klines.settings import Settings, read_settings
from klines.sole import Holder, Sole, kept_running
from klines.watch import end_long_sessions
from klines.web import binance, health, klines, observe, page, problem, socket, tokens, trades, udf
from klines.web import metrics as scraped
from klines.web.admission import tickets
from klines.web.admission.access import open_access
from klines.web.admission.gate import gate
from klines.web.admission.intake import Intake
from klines.web.answers import Answers
from klines.web.binance.streams.market import open_market
from klines.web.binance.streams.tickers import Tickers
from klines.web.document import Document
from klines.web.joint import JointAnswers
from klines.web.leaving import noticed
from klines.web.probe import open_probe
from klines.web.services import Services
from klines.web.versions import open_versions

WRITERS = 4
# A heartbeat comes within five seconds of silence: the relay looks every half second.
IDLE_SECONDS = 4.5

logger = logging.getLogger("klines")


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application for a migrated database at `settings.database_url`."""
    metrics = Metrics(shared.directory())
    app = Litestar(
        route_handlers=[
            klines.get_klines,
            trades.get_trades,
            trades.post_trades,
            tokens.get_tokens,
            tokens.options_token,
            tokens.get_token,
            tokens.put_token,
            health.get_live,
            health.get_ready,
            scraped.get_metrics,
            tickets.post_ticket,
            socket.sockets,
            *binance.ROUTES,
            *udf.ROUTES,
            *page.ROUTES,
        ],
        middleware=[observe.routed],
        lifespan=[lambda app: _lifespan(app, settings, metrics)],
        dependencies={"services": Provide(_services, sync_to_thread=False)},
        exception_handlers={
            KlinesError: problem.from_klines_error,
            HTTPException: problem.from_http_exception,
            Exception: problem.from_anything,
        },
        openapi_config=OpenAPIConfig(
            title="klines",
            version=__version__,
            path="/schema",
            render_plugins=[Document(settings)],
            use_handler_docstrings=True,
        ),
        logging_config=None,
    )
    gated = gate(app, settings, metrics.instruments)
    return observe.Observed(gated, metrics.instruments, settings.klines_access_log, gated.share)


def create_from_environment() -> ASGIApp:
    """The application as a server process makes it; the supervisor has put the database's address in place."""
    settings = read_settings(os.environ)
    logs.configure(settings.log_level, settings.klines_log_format)
    return create_app(settings)


@asynccontextmanager
async def _lifespan(app: Litestar, settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    if not settings.database_url:
        raise CannotStart("DATABASE_URL: the application needs a database; `klines serve` starts an embedded one")
    async with tracing.exported(os.environ), AsyncExitStack() as stack:
        enter, state = stack.enter_async_context, app.state
        schema = await migrations.check(settings.database_url)
        reader, writing = await _addressed(settings)
        state.access = await enter(open_access(writing))
        services, pool = await enter(_served(settings, schema, reader, writing.database_url, metrics))
        state.services = services
        await enter(_at_work(writing, services))
        tickers = Tickers(services.engine)
        state.binance_streams = await enter(open_market(services.relay, services.hub, tickers, services.find))
        state.metrics = metrics
        state.leaving = stack.enter_context(noticed())
        await enter(_measured(metrics, services, pool, state.binance_streams.hub))
        # On the developer's own machine all clients are one.
        each = 0 if settings.authority == "open" else settings.klines_client_connections
        state.places = socket.Places(settings.max_connections, each)
        if schema.profile:
            logger.info("storage profile %s: %s", *schema.profile)
        yield


@asynccontextmanager
async def _served(
    settings: Settings, schema: migrations.Status, reader: str, writer_url: str, metrics: Metrics
) -> AsyncIterator[tuple[Services, asyncpg.Pool[Any]]]:
    """What routes and streams use, and the pool of the writer."""
    breaker, size, token_ids = Breaker(), connections(settings.klines_pool_size), dict[str, int]()
    dear, register = Dear(size), settings.klines_register_tokens
    async with (
        open_engine(reader, size, autocommit=True, breaker=breaker) as engine,
        open_writers(writer_url, WRITERS) as pool,
    ):
        writer = MeasuredWriter(pool, register=register, breaker=breaker, instruments=metrics.instruments)

        joint = JointAnswers()
        answers = Answers(joint)

        def forget() -> None:
            token_ids.clear()
            writer.forget_tokens()
            answers.forget()

        async with (
            _live(settings, reader, engine, dear, forget) as (hub, relay),
            open_probe(writer_url) as probe,
            open_versions(reader, answers.forget) as versions,
        ):
            relay.pulse.recovered = breaker.close
            with closing(Intake()) as intake:
                services = Services(
                    engine, writer, settings, schema, token_ids, relay, hub, dear, intake, breaker, probe, joint,
                    answers, versions,
                )  # fmt: skip
                yield services, pool


@asynccontextmanager
async def _at_work(settings: Settings, services: Services) -> AsyncIterator[None]:
    """What is done besides answering: the mock feed, and what one process of all does for the database."""
    jobs: list[tuple[Sole, Callable[[Holder], Awaitable[None]]]] = [(Sole.TAPE_SWEEP, sweep_tape)]
    if days := settings.klines_trade_retention_days:
        jobs.append((Sole.RETENTION, partial(keep_days, days)))
    if seconds := settings.klines_analyst_seconds:
        jobs.append((Sole.ANALYST_WATCH, partial(end_long_sessions, seconds)))
    async with AsyncExitStack() as stack:
        if settings.mock_data_interval:
            await stack.enter_async_context(run_mock_feed(settings, services.engine, services.writer))
        for job, work in jobs:
            await stack.enter_async_context(kept_running(settings.database_url, job, work))
        yield


async def _addressed(settings: Settings) -> tuple[str, Settings]:
    """The address to read at, and the settings of who writes: the login in the role for the work, where it may."""
    found = await roles.addresses(settings.database_url)
    if found.excess:
        logger.warning("whoever breaks into the service has all of the database: %s", found.excess)
    return found.reading, msgspec.structs.replace(settings, database_url=found.writing)


@asynccontextmanager
async def _live(
    settings: Settings, reader: str, engine: AsyncEngine, dear: Dear, forget: Callable[[], None]
) -> AsyncIterator[tuple[Hub, Relay]]:
    hub = Hub(idle_seconds=IDLE_SECONDS)
    pace = Pace(settings.klines_push_interval / 1000, settings.klines_close_grace)
    async with (
        open_engine(reader, by_key=True) as turns,
        open_relay(reader, Engines(turns, engine, dear), hub, pace, forget) as relay,
    ):
        yield hub, relay


@asynccontextmanager
async def _measured(
    metrics: Metrics, services: Services, pool: asyncpg.Pool[Any], binance_hub: Hub
) -> AsyncIterator[None]:
    settings, found = services.settings, services.schema.profile
    standing = DatabaseStanding(services.engine, seams=found is not None and found.profile == "timescale")
    metrics.watch(
        partial(sources.of_build, settings.workers, settings.mock_data_interval / 1000),
        partial(sources.of_hubs, {"native": services.hub, "binance": binance_hub}),
        partial(sources.of_pulse, services.relay.pulse),
        partial(sources.of_breaker, services.breaker, services.writer),
        partial(sources.of_intake, services.intake),
        partial(sources.of_pools, {"reads": services.engine}, pool),
        standing.families,
    )
    async with metrics.at_work(), running("reading of how the database stands", standing.keep_reading, 1.0):
        yield


def _services(state: State) -> Services:
    services: Services = state.services
    return services
