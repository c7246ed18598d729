"""The HTTP and WebSocket server: its listening socket, its configuration, and processes that leave when told.

A process leaves within `GRACE_SECONDS` of the first SIGTERM or SIGINT, whatever its clients do, and at once at the
second. What the kernel buffers for one client is bounded, and a client that acknowledges nothing is dropped.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

import uvicorn
from litestar.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from klines.app import create_from_environment
from klines.errors import CannotStart
from klines.web.connection import Connection
from klines.web.http import Http
from klines.web.room import OTHER_FILES, open_files

GRACE_SECONDS = 5
"""Connections are aborted a second before (`Connection.DRAIN`), so that the application still closes in order."""
CHILD_MARGIN = 2
BACKLOG = 2048
SEND_BUFFER = 64 * 1024
USER_TIMEOUT_MS = 10_000
MAX_MESSAGE = 64 * 1024
KEEP_ALIVE_SECONDS = 15

logger = logging.getLogger("klines")


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """The listening socket, inherited by child processes; accepted sockets inherit its options.

    Without a bound of its own one stuck reader takes megabytes of the kernel. Raises `CannotStart`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotStart(f"cannot listen on HOST {host} PORT {port}: {reason}") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        listener.set_inheritable(True)
        yield listener


def config(app: ASGIApp | Callable[[], ASGIApp] | str, **changes: Any) -> uvicorn.Config:
    """Our choices for uvicorn; `changes` are further arguments of `uvicorn.Config`, or other choices."""
    choices: dict[str, Any] = {
        "loop": "uvloop",
        "http": Http,
        "ws": Connection,
        "ws_max_size": MAX_MESSAGE,
        "ws_per_message_deflate": False,
        "ws_ping_interval": 20.0,
        "ws_ping_timeout": 20.0,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        # Its default believes what programs of this machine say of their clients; see `klines.web.client`.
        "proxy_headers": False,
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "backlog": BACKLOG,
        "timeout_graceful_shutdown": GRACE_SECONDS,
    }
    return uvicorn.Config(app, **choices | changes)


class Server(uvicorn.Server):
    """One process: the first SIGTERM or SIGINT drains, a second leaves at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for each of the signals."""
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)


class Supervisor(Multiprocess):
    """The parent of several processes: leaves soon after their grace whatever they do, and at once at a second signal.

    The children are uvicorn's own servers, which a second SIGTERM does not hurry: a Ctrl-C at a terminal reaches them
    twice, from the terminal and from the parent.
    """

    def handle_int(self) -> None:
        """The first signal, or a second one within the half second in which uvicorn collects them."""
        self._count()
        super().handle_int()

    def handle_term(self) -> None:
        """As `handle_int`."""
        self._count()
        super().handle_term()

    def join_all(self) -> None:
        """Wait for the children, then end those that are still there."""
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + CHILD_MARGIN
        children = [child.process for child in self.processes]
        while (left := [child for child in children if child.is_alive()]) and not self._hurried():
            if time.monotonic() > deadline:
                logger.warning("%d server processes did not leave in time", len(left))
                break
            wait([child.sentinel for child in left], 0.1)
        for child in left:
            child.kill()
        super().join_all()

    def _count(self) -> None:
        if self.should_exit.is_set():
            self.signal_queue.append(signal.SIGTERM)

    def _hurried(self) -> bool:
        return signal.SIGINT in self.signal_queue or signal.SIGTERM in self.signal_queue


def create_in_process() -> ASGIApp:
    """The application of a server process, which leaves when its supervisor is gone."""
    leave_with_parent()
    return create_from_environment()


def leave_with_parent() -> None:
    """In a process of the supervisor: leave, as at SIGTERM, when the supervisor is gone. Elsewhere nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def allow_open_files(connections: int) -> None:
    """Raise this process's limit of open files as far as it may; one warning if `connections` do not fit even so."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on every platform

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # A platform may have a limit below the one it tells.
        logger.debug("the limit of open files stays at %d", soft)
    files = open_files()
    if files is not None and files < connections + OTHER_FILES:
        logger.warning("MAX_CONNECTIONS %d does not fit the limit of open files, %d", connections, files)
