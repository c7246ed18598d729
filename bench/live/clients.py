"""Clients in processes of their own, and those processes as a benchmark sees them.

The time of a frame is when the process learned that there is something to read; what is in it is looked at after the
window. A process of clients
ends when the benchmark's end of its pipe is closed, however the benchmark ends.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import selectors
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

from bench.live.wire import DEADLINE, Client

PIECE = 65536


class Tally(NamedTuple):
    """What clients got in a window; `cpu` is in seconds.

    Of kept messages also `arrivals`, monotonic nanoseconds and trade ids by turns, by digest how many clients got the
    same messages, and those of one of the clients.
    """

    messages: int
    ended: int
    cpu: float
    arrivals: list[int]
    digests: Counter[str]
    one: list[bytes]


class _Process:
    """Inside a process of clients: opens some, counts a window, tells of it."""

    def __init__(self, pipe: Connection, port: int) -> None:
        self.pipe, self.port = pipe, port
        self.clients: list[Client] = []
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe, selectors.EVENT_READ)
        self.begin(False)

    def run(self) -> None:
        """Read and obey until the pipe is closed."""
        with suppress(EOFError):
            while True:
                ready, now = self.selector.select(), time.monotonic_ns()
                for key, _ in ready:
                    self.take(key.data, now) if key.data else self.obey(*self.pipe.recv())

    def obey(self, command: str, *given: Any) -> None:
        """Carry out one command of the benchmark; all but `begin` are answered."""
        if command == "begin":
            self.begin(*given)
            return
        self.pipe.send(self.open(*given) if command == "open" else self.end())

    def open(self, paths: Sequence[str], buffer: int, greeted: bool) -> int:
        """Open clients; those with a receive buffer of their own never read again."""
        opened = [Client(self.port, path, buffer, greeted) for path in paths]
        self.clients += opened
        for client in () if buffer else opened:
            self.selector.register(client.socket, selectors.EVENT_READ, client)
        return len(opened)

    def begin(self, keeps: bool) -> None:
        """Begin a window; `keeps` the arrivals too."""
        self.keeps, self.count, self.ended, self.cpu = keeps, 0, 0, time.process_time()
        self.kept: list[tuple[int, Client, bytes]] = []

    def end(self) -> Tally:
        """End the window."""
        cpu = time.process_time() - self.cpu
        arrivals: list[int] = []
        told: dict[Client, list[bytes]] = {}
        for now, client, message in self.kept:
            told.setdefault(client, []).append(message)
            for trade in client.trades(message):
                arrivals += (now, trade)
        digests = Counter(hashlib.sha256(b"\n".join(messages)).hexdigest() for messages in told.values())
        return Tally(self.count, self.ended, cpu, arrivals, digests, next(iter(told.values()), []))

    def take(self, client: Client, now: int) -> None:
        """Read what one client has."""
        data = b""
        with suppress(ConnectionError):
            data = client.socket.recv(PIECE)
        if not data:
            self.ended += 1
            self.selector.unregister(client.socket)
        for message in client.messages(data):
            self.count += 1
            if self.keeps:
                self.kept.append((now, client, message))


def serve(pipe: Connection, port: int) -> None:
    """The whole life of a process of clients; Ctrl-C is for the benchmark, which then closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Process(pipe, port).run()


class Clients:
    """Processes of clients of the server at a port; raises TimeoutError or EOFError when one of them fails."""

    def __init__(self, port: int, processes: int) -> None:
        self.port = port
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        spawn = multiprocessing.get_context("spawn")
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(theirs, port), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def open(self, paths: Sequence[str], buffer: int = 0, *, greeted: bool = True) -> None:
        """Open a client per path; returns when all have their first message, if the server greets them with one.

        With a `buffer` (bytes) they never read.
        """
        for number, pipe in enumerate(self._pipes):
            pipe.send(("open", paths[number :: len(self._pipes)], buffer, greeted))
        self._answers()

    def begin(self, keeps: bool = False) -> None:
        """Begin a window; `keeps` the arrivals too."""
        for pipe in self._pipes:
            pipe.send(("begin", keeps))

    def end(self) -> Tally:
        """End the window; what all of them got."""
        for pipe in self._pipes:
            pipe.send(("end",))
        tallies: list[Tally] = self._answers()
        digests = Counter[str]()
        for tally in tallies:
            digests.update(tally.digests)
        return Tally(
            sum(tally.messages for tally in tallies),
            sum(tally.ended for tally in tallies),
            sum(tally.cpu for tally in tallies),
            [arrival for tally in tallies for arrival in tally.arrivals],
            digests,
            tallies[0].one,
        )

    def _answers(self) -> list[Any]:
        if not all(pipe.poll(DEADLINE) for pipe in self._pipes):
            raise TimeoutError("the clients do not answer")
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join(10)
            if process.is_alive():
                process.kill()
