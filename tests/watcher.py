"""Ends what a test run leaves behind when it is killed: servers and services in its directories, and the directories.

It is a process of its own. It reads the directories of the run from a pipe, which ends with the run, however that ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

SECONDS = 20
# What a service is told of the directory that its database lies in.
SETTINGS = ("KLINES_DATA_DIR", "DATABASE_URL")


def watch(directory: Path) -> None:
    """From now on nothing in this directory outlives the run."""
    pipe = _started().stdin
    assert pipe is not None
    pipe.write(f"{directory}\n".encode())
    pipe.flush()


@cache
def _started() -> subprocess.Popen[bytes]:
    # A session of its own: what ends the run by its terminal must not end the watcher.
    process = subprocess.Popen([sys.executable, "-P", __file__], stdin=subprocess.PIPE, cwd="/", start_new_session=True)
    atexit.register(_leave, process)
    return process


def _leave(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def _end(directory: Path) -> None:
    """The services first: they would start their server again."""
    _signal(signal.SIGKILL, lambda process: _is_told_of(process, directory.name))
    for number in (signal.SIGQUIT, signal.SIGKILL):
        _signal(number, lambda process: _is_server_in(process, directory))
    shutil.rmtree(directory, ignore_errors=True)


def _signal(number: signal.Signals, wanted: Callable[[psutil.Process], bool]) -> None:
    found = list(_found(wanted))
    for process in found:
        with suppress(psutil.Error):
            process.send_signal(number)
    psutil.wait_procs(found, SECONDS)


def _found(wanted: Callable[[psutil.Process], bool]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and wanted(process):
                yield process


def _is_told_of(process: psutil.Process, name: str) -> bool:
    environment = process.environ()
    return any(name in environment.get(setting, "") for setting in SETTINGS)


def _is_server_in(process: psutil.Process, directory: Path) -> bool:
    return process.name() == "postgres" and any(word.startswith(f"{directory}/") for word in process.cmdline())


if __name__ == "__main__":
    for made in [Path(line.rstrip("\n")) for line in sys.stdin]:
        if made.exists():
            _end(made)
