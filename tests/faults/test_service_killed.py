"""F22: the service is killed at any moment and started again. Nothing acknowledged is lost, nobody misses a trade."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.faults.load import assert_held, posting, watching
from tests.faults.oracles import Resources, assert_quiet, assert_released
from tests.servers import Database
from tests.service.processes import Service, service

SYMBOLS = ("PEPE", "WIF")
ROUNDS = [pytest.param(1, id="1"), pytest.param(50, id="50", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


class Supervised:
    """A service on one port that is started again after it was killed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._port = free_port()
        self._run = ExitStack()
        self.url = f"http://127.0.0.1:{self._port}"
        self.logs: list[str] = []
        self.service = self._start()

    def _start(self) -> Service:
        one = self._run.enter_context(service(DATABASE_URL=self._database.url, PORT=str(self._port)))
        one.url()
        return one

    def kill(self) -> None:
        """As the system does when it is out of memory."""
        assert self.service.stop(signal.SIGKILL) == -signal.SIGKILL
        self.close()

    def start(self) -> None:
        """As a supervisor does; it serves."""
        self.service = self._start()

    def close(self) -> None:
        """Stop what runs, and keep its log."""
        self._run.close()
        self.logs.append(self.service.log)


@contextmanager
def supervised(database: Database) -> Iterator[Supervised]:
    one = Supervised(database)
    try:
        yield one
    finally:
        one.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.fault("F22")
@pytest.mark.parametrize("rounds", ROUNDS)
async def test_a_killed_service_loses_and_repeats_nothing(
    plain: Database, rounds: int, figures: Callable[..., None]
) -> None:
    outages = []
    with supervised(plain) as keeper:
        async with posting(keeper.url, *SYMBOLS) as load, watching(keeper.url, SYMBOLS) as pairs:
            load.begin(4)
            await load.more(20)
            before = await Resources.of(keeper.service.process.pid, plain.url)
            for _ in range(rounds):
                await load.more(5)
                await load.moment(0.3)
                killed = time.monotonic()
                await asyncio.to_thread(keeper.kill)
                await asyncio.to_thread(keeper.start)
                outages.append(await load.back(killed))
            account = await assert_held(plain.url, load, pairs)
            codes = {code for pair in pairs.values() for follower in pair.all for code in follower.codes}
            assert codes <= {1006}
            after = await assert_released(keeper.service.process.pid, plain.url, before)
    assert_quiet("".join(keeper.logs))
    figures("F22", kills=rounds, rto_s=max(outages), **account.figures, gaps=0, files=after.files - before.files)
