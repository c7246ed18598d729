"""The command `klines` as a process of its own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEADLINE = 60


def klines(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "klines", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


class Service:
    """A running `klines serve`: its URL, and its log line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._fresh.put(line)
        self._fresh.put(None)

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        """The next line of the log that is wanted."""
        while True:
            line = self._fresh.get(timeout=DEADLINE)
            assert line is not None, "".join(self.lines)
            self.lines.append(line)
            if wanted(line):
                return line

    def has_said(self, wanted: Callable[[str], bool]) -> str:
        """The first line of the log that is wanted, said already or still to come."""
        return next(filter(wanted, self.lines), None) or self.wait_for(wanted)

    def url(self) -> str:
        """Its address, once it serves there."""
        address = self.wait_for(lambda line: "klines serves on" in line).split()[-1]
        self.wait_for(lambda line: "startup complete" in line)
        return address

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        while (line := self._fresh.get_nowait()) is not None:
            self.lines.append(line)
        return code

    @property
    def log(self) -> str:
        """Everything it has said so far."""
        return "".join(self.lines)


@contextmanager
def service(*prefix: str, **environment: str) -> Iterator[Service]:
    """A `klines serve` on a port of its own, stopped at the end if it still runs; `prefix` is what runs it."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "klines", "serve"],
        env=os.environ | {"PORT": "0"} | environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running = Service(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.stop()
        assert process.stderr is not None
        process.stderr.close()


def get(url: str) -> bytes:
    """The body of a GET on loopback."""
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:  # noqa: S310 - an address of our own
        body: bytes = answer.read()
        return body
