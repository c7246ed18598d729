"""The composition root: the one module that knows all parts; one lifespan opens them and, left, closes them."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncEngine

from klines import __version__, logs, migrations
from klines.database import open_engine, open_writers
from klines.errors import CannotStart, KlinesError
from klines.feeds.mock import run_mock_feed
from klines.hub import Hub
from klines.relay.engines import Engines
from klines.relay.lifespan import open_relay
from klines.relay.relay import Pace, Relay
from klines.retention import keep_days, sweep_tape
from klines.settings import Settings, read_settings
from klines.sole import Sole, kept_running
from klines.web import binance, health, klines, page, problem, socket, tokens, trades, udf
from klines.web.binance.streams.market import open_market
from klines.web.binance.streams.tickers import Tickers
from klines.web.gate import gate
from klines.web.services import Dear, Services
from klines.writer import TradeWriter

WRITERS = 4
# A heartbeat comes within five seconds of silence: the relay looks every half second.
IDLE_SECONDS = 4.5

logger = logging.getLogger("klines")


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application for a migrated database at `settings.database_url`."""
    app = Litestar(
        route_handlers=[
            klines.get_klines,
            trades.get_trades,
            trades.post_trades,
            tokens.get_tokens,
            tokens.get_token,
            tokens.put_token,
            health.get_live,
            health.get_ready,
            socket.sockets,
            *binance.ROUTES,
            *udf.ROUTES,
            *page.ROUTES,
        ],
        lifespan=[lambda app: _lifespan(app, settings)],
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
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            use_handler_docstrings=True,
        ),
        logging_config=None,
    )
    return gate(app)


def create_from_environment() -> ASGIApp:
    """The application as a server process makes it; the supervisor has put the database's address in place."""
    settings = read_settings(os.environ)
    logs.configure(settings.log_level)
    return create_app(settings)


@asynccontextmanager
async def _lifespan(app: Litestar, settings: Settings) -> AsyncIterator[None]:
    if not settings.database_url:
        raise CannotStart("DATABASE_URL: the application needs a database; `klines serve` starts an embedded one")
    async with AsyncExitStack() as stack:
        schema = await migrations.check(settings.database_url)
        engine = await stack.enter_async_context(open_engine(settings.database_url, settings.klines_pool_size))
        pool = await stack.enter_async_context(open_writers(settings.database_url, WRITERS))
        writer = TradeWriter(pool, register=settings.klines_register_tokens)
        if settings.mock_data_interval:
            await stack.enter_async_context(run_mock_feed(settings, engine, writer))
        await stack.enter_async_context(kept_running(settings.database_url, Sole.TAPE_SWEEP, sweep_tape))
        if days := settings.klines_trade_retention_days:
            await stack.enter_async_context(
                kept_running(settings.database_url, Sole.RETENTION, partial(keep_days, days))
            )
        token_ids: dict[str, int] = {}

        def forget() -> None:
            token_ids.clear()
            writer.forget_tokens()

        hub, relay = await stack.enter_async_context(_live(settings, engine, forget))
        services = app.state.services = Services(engine, writer, settings, schema, token_ids, relay, hub, Dear())
        app.state.binance_streams = await stack.enter_async_context(
            open_market(relay, hub, Tickers(engine), services.find)
        )
        app.state.places = socket.Places(settings.max_connections)
        if schema.profile:
            logger.info("storage profile %s: %s", *schema.profile)
        yield


@asynccontextmanager
async def _live(
    settings: Settings, engine: AsyncEngine, forget: Callable[[], None]
) -> AsyncIterator[tuple[Hub, Relay]]:
    hub = Hub(idle_seconds=IDLE_SECONDS)
    pace = Pace(settings.klines_push_interval / 1000, settings.klines_close_grace)
    async with (
        open_engine(settings.database_url, by_key=True) as turns,
        open_relay(settings.database_url, Engines(turns, engine), hub, pace, forget) as relay,
    ):
        yield hub, relay


def _services(state: State) -> Services:
    services: Services = state.services
    return services
