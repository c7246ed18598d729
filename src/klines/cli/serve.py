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

from klines import logs, server
from klines.cli.target import owned_database
from klines.errors import CannotStart
from klines.feeds.character import parse_tokens
from klines.metrics import shared
from klines.settings import Settings, read_settings


@click.command("serve")
def serve_command() -> None:
    """Serve until interrupted. Every setting is an environment variable: see `klines --help`."""
    settings = read_settings(os.environ)
    parse_tokens(settings.mock_tokens)
    logs.configure(settings.log_level, settings.klines_log_format)
    with (
        _stopped_by_signal(),
        server.listen(settings.host, settings.port) as listener,
        owned_database(settings, keep=True) as url,
    ):
        # The server's processes read their settings as this one did.
        if not settings.database_url:
            os.environ["DATABASE_URL"] = url
        _run(settings, listener)


class _Stopped(KeyboardInterrupt):
    """A signal told the process to leave.

    Of a class of its own: CPython remembers that a plain KeyboardInterrupt has left code made from text (`exec`, as
    libraries use it to make classes), also if it is caught further out, and `python -m` then ends by SIGINT instead of
    with its exit code.
    """


@contextmanager
def _stopped_by_signal() -> Iterator[None]:
    """SIGTERM and SIGINT leave the context instead of ending the process: what was opened gets closed."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(settings: Settings, listener: socket.socket) -> None:
    config = server.config(
        "klines.server:create_in_process", factory=True, workers=settings.workers, log_level=settings.log_level
    )
    server.allow_open_files(settings.max_connections)
    host, port = listener.getsockname()[:2]
    click.echo(f"klines serves on http://{f'[{host}]' if ':' in host else host}:{port}", err=True)
    if settings.workers > 1:
        with shared.exchange():
            supervisor = server.Supervisor(config, sockets=[listener])
            supervisor.run()
        started = not supervisor.failed
    else:
        process = server.Server(config)
        process.run(sockets=[listener])
        started = process.started
    if not started:
        raise CannotStart("the service did not start; the log says why")
