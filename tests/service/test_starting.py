"""A server process whose database is away at its start: one line, the code 3, and another one later (F07)."""

from __future__ import annotations

import logging
import signal

import asyncpg
import psutil
import pytest

from klines import server
from klines.app import create_app
from klines.settings import Settings
from tests.servers import Database, Server
from tests.service.processes import service


async def test_a_process_says_in_a_line_why_it_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(Settings(database_url="postgresql://klines@127.0.0.1:1/klines"))
    with server.listen("127.0.0.1", 0) as listener, pytest.raises(SystemExit) as ended:
        await server.Server(server.config(app)).serve(sockets=[listener])
    assert ended.value.code == 3
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in told] == [
        "the service cannot start: the database does not answer",
        "Application startup failed. Exiting.",
    ]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.slow
@pytest.mark.fault("F07")
async def test_the_supervisor_tries_until_a_process_can_start(plain: Database, server: Server) -> None:
    administrator = await asyncpg.connect(server.url)
    with service(DATABASE_URL=plain.url, WORKERS="2") as running:
        running.url()
        running.wait_for(lambda line: "startup complete" in line)
        await administrator.execute(f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS false")
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
        await administrator.execute(ends, plain.name)
        children = psutil.Process(running.process.pid).children()
        next(one for one in children if "resource_tracker" not in " ".join(one.cmdline())).send_signal(signal.SIGKILL)
        for _ in range(2):
            running.wait_for(lambda line: "cannot start: the database does not answer" in line)
        await administrator.execute(f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS true")
        running.wait_for(lambda line: "startup complete" in line)
        assert running.stop() == 0
    assert "Traceback" not in running.log
    assert running.log.count("cannot start") <= 3
    await administrator.close()
