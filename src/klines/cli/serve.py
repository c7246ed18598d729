"""`klines serve`: the service, with the embedded database where no other is given."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from klines import logs
from klines.cli.target import owned_database
from klines.errors import CannotStart
from klines.feeds.character import parse_tokens
from klines.settings import Settings, read_settings

GRACE_SECONDS = 5
BACKLOG = 2048


@click.command("serve")
def serve_command() -> None:
    """Serve until interrupted. Every setting is an environment variable: see `klines --help`."""
    settings = read_settings(os.environ)
    parse_tokens(settings.mock_tokens)
    logs.configure(settings.log_level)
    with _stopped_by_signal(), _listening(settings) as listener, owned_database(settings) as url:
        # The server's processes read their settings as this one did.
        if not settings.database_url:
            os.environ["DATABASE_URL"] = url
        _run(settings, listener)


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """SIGTERM and SIGINT leave the context instead of ending the process: what was opened gets closed."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotStart(f"cannot listen on HOST {settings.host} PORT {settings.port}: {reason}") from None
    with listener:
        listener.set_inheritable(True)
        yield listener


def _run(settings: Settings, listener: socket.socket) -> None:
    config = uvicorn.Config(
        "klines.app:create_from_environment",
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    host, port = listener.getsockname()[:2]
    click.echo(f"klines serves on http://{f'[{host}]' if ':' in host else host}:{port}", err=True)
    if settings.workers > 1:
        Multiprocess(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise CannotStart("the service did not start; the log says why")
