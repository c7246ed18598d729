"""The HTTP and WebSocket server: its listening socket, its configuration, and processes that leave when told.

Of several processes, one that cannot start after others have served is started again and again, ever less often.
A process leaves within `GRACE_SECONDS` of the first SIGTERM or SIGINT, whatever its clients do, and at once at the
second. What the kernel buffers for one client is bounded, and a client that acknowledges nothing is dropped.
"""

from __future__ import annotations

import logging
import math
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
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from klines.app import create_from_environment
from klines.errors import CannotStart
from klines.web.transport.connection import Connection
from klines.web.transport.http import Http
from klines.web.transport.room import OTHER_FILES, open_files

GRACE_SECONDS = 5
"""Connections are aborted a second before (`Connection.DRAIN`), so that the application still closes in order."""
CHILD_MARGIN = 2
BACKLOG = 2048
SEND_BUFFER = 64 * 1024
USER_TIMEOUT_MS = 10_000
MAX_MESSAGE = 64 * 1024
KEEP_ALIVE_SECONDS = 15
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Before a process that could not start is started again, in seconds."""
PING_SECONDS = 1.0
SILENT_SECONDS = 60.0
"""After which a process that lives and says nothing is ended: on a busy machine its imports alone may take long."""

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
        # Its default believes what programs of this machine say of their clients; see `klines.web.admission.client`.
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
    twice, from the terminal and from the parent. `failed`: no process has ever served.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.failed = False
        self._served = False
        # By the place of a process that could not start: when the next one is started there, and the pause before.
        self._due: dict[int, tuple[float, float]] = {}
        # By place too: when the process there last answered, or was first looked at.
        self._heard: dict[int, float] = {}

    def keep_subprocess_alive(self) -> None:
        """Look after each process; uvicorn's own would give up all of them when one cannot start."""
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            due = self._due.get(index)
            if self._lives(index, process):
                self._see(index, process)
            elif due is None or not math.isfinite(due[0]):
                self._died(index, process)
            elif time.monotonic() >= due[0]:
                self._due[index] = (math.inf, due[1])
                self._start(index)

    def _lives(self, index: int, process: Process) -> bool:
        if not process.process.is_alive():
            return False
        now = time.monotonic()
        since = self._heard.setdefault(index, now)
        if process.ping(PING_SECONDS):
            self._heard[index] = time.monotonic()
            return True
        return now - since < SILENT_SECONDS

    def _see(self, index: int, process: Process) -> None:
        if (not self._served or index in self._due) and process.is_ready():
            self._served = True
            self._due.pop(index, None)

    def _died(self, index: int, process: Process) -> None:
        process.kill()
        process.join()
        if process.exitcode != STARTUP_FAILURE:
            logger.warning("server process %s ended with %s; another takes its place", process.pid, process.exitcode)
            self._start(index)
        elif not self._served:
            self.failed = True
            self.should_exit.set()
        else:
            _, before = self._due.get(index, (0.0, FIRST_PAUSE / 2))
            pause = min(2 * before, LONGEST_PAUSE)
            self._due[index] = (time.monotonic() + pause, pause)

    def _start(self, index: int) -> None:
        self._heard.pop(index, None)
        self.processes[index] = process = Process(self.config, self.sockets)
        process.start()

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
