"""A real client at work in a process of its own, driven by a test, a line of JSON at a time.

To the program go `[id, method, arguments, keywords]`. From it come `{"id", "result"}` or `{"id", "error"}`, from an
asynchronous client `{"begun": id}` before that, and, whenever it likes, `{"event"}`. All waiting has a deadline; what
the program says on its standard error is shown if it fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.clients.environments import PROGRAMS, Environment

DEADLINE = 10.0
# Some clients do not end while a socket is open.
GRACE = 1.0
LINE_BYTES = 32 * 1024 * 1024


class Refused(Exception):
    """The client raised: the name of its exception, and what that said."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Session:
    """A running program."""

    def __init__(self, process: Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self._begun: dict[int, asyncio.Future[None]] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._last: Any = None
        self._count = 0
        self._reader = asyncio.create_task(self._read())

    async def begin(self, method: str, *arguments: Any, **keywords: Any) -> asyncio.Future[Any]:
        """Have an asynchronous client at work on a method; its result to come."""
        answer = self._send(method, arguments, keywords)
        begun = self._begun[self._count] = asyncio.get_running_loop().create_future()
        await self._within(begun)
        return answer

    async def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """The result of a method of the client; raises `Refused`."""
        return await self._within(self._send(method, arguments, keywords))

    async def answer(self, begun: asyncio.Future[Any]) -> Any:
        """The result of a call that was begun; raises `Refused`."""
        return await self._within(begun)

    async def event(self, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next event that is wanted; others before it are dropped."""
        while not wanted(event := await self._within(asyncio.ensure_future(self._events.get()))):
            pass
        return event

    async def end(self) -> None:
        """End it, if it does not end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(GRACE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    def _send(self, method: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> asyncio.Future[Any]:
        assert self._process.stdin is not None
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps([self._count, method, arguments, keywords]).encode() + b"\n")
        return answer

    async def _within(self, wanted: asyncio.Future[Any]) -> Any:
        await asyncio.wait({wanted, self._reader}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            wanted.cancel()
            state = "ended" if self._reader.done() else "is silent"
            raise AssertionError(f"the client {state}, its last event was {self._last}: {self._said()}")
        return wanted.result()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "event" in told:
                self._last = told["event"]
                self._events.put_nowait(self._last)
            elif "begun" in told:
                if begun := self._begun.pop(told["begun"], None):
                    begun.set_result(None)
            elif "error" in told:
                self._answers.pop(told["id"]).set_exception(Refused(*told["error"]))
            else:
                self._answers.pop(told["id"]).set_result(told["result"])

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read()[-4000:].decode(errors="replace")


@asynccontextmanager
async def client_at(environment: Environment, program: str, *arguments: str) -> AsyncIterator[Session]:
    """A program of `tests/clients/programs` in its environment."""
    interpreter = environment.program("node" if program.endswith(".mjs") else "python")
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            interpreter,
            str(PROGRAMS / program),
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=log,
            limit=LINE_BYTES,
            env=surroundings() | {"CLIENTS": str(environment.directory)},
        )
        session = Session(process, log)
        try:
            yield session
        finally:
            await session.end()


def surroundings() -> dict[str, str]:
    """The variables that a client sees: no proxy, as it talks to loopback."""
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return given | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


async def output(directory: Path, *command: str, within: float = DEADLINE, **variables: str) -> str:
    """What a command prints until it ends; fails with what it says on its standard error."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=PIPE, stderr=log, cwd=directory, env=surroundings() | variables
        )
        try:
            async with asyncio.timeout(within):
                printed, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            log.seek(0)
            pytest.fail(f"{command[0]} did not end: {log.read().decode(errors='replace')}")
        log.seek(0)
        assert process.returncode == 0, log.read().decode(errors="replace")
        return printed.decode()


async def read_lines(count: int, *command: str) -> list[str]:
    """The first lines that a command prints, which is then ended."""
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=surroundings())
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE):
            return [(await process.stdout.readline()).decode() for _ in range(count)]
    finally:
        # It may have ended by itself, refused.
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
