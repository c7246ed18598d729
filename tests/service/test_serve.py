"""`klines serve` as a person runs it: start, mock feed, stop, start again, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from klines.queries import roles
from tests.servers import Database, reachable_directory, run
from tests.service.processes import DEADLINE, get, klines, service

MOCK = {"MOCK_DATA_INTERVAL": "20", "MOCK_HISTORY_MINUTES": "5"}


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with reachable_directory() as directory:
        yield directory


def test_from_nothing_to_moving_bars_and_back(data_dir: Path) -> None:
    with service(KLINES_DATA_DIR=str(data_dir), **MOCK) as first:
        url = first.url()
        first.has_said(lambda line: "runs the mock feed" in line)
        assert json.loads(get(f"{url}/health/ready"))["ready"] is True
        status = klines("db", "status", KLINES_DATA_DIR=str(data_dir))
        assert (status.returncode, status.stdout.splitlines()[0]) == (0, "revision 0008_roles of 0008_roles")
        address = klines("db", "url", KLINES_DATA_DIR=str(data_dir)).stdout.strip()
        run(lambda: _wait_for_trades(address))
        run(lambda: _is_no_administrator(address))
        assert "is a superuser" not in status.stdout + first.log
        verified = klines("verify", "wifhat-usdc", KLINES_DATA_DIR=str(data_dir))
        assert verified.returncode == 0, verified.stdout
        assert verified.stdout.count(" 0 differ") == 7
        counted = klines("db", "psql", "-Atc", "SELECT count(*) > 0 FROM klines_1m", KLINES_DATA_DIR=str(data_dir))
        assert counted.stdout.strip() == "t", counted.stderr
        assert first.stop() == 0
        assert "Traceback" not in first.log
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    with service(KLINES_DATA_DIR=str(data_dir)) as second:
        bars = json.loads(get(f"{second.url()}/api/v1/klines/wifhat-usdc?interval=1h"))["klines"]
        assert bars, "the second start keeps the data"
        assert second.stop(signal.SIGINT) == 0
        assert "Traceback" not in second.log


async def _is_no_administrator(address: str) -> None:
    """The service's sessions are those of a login that cannot become more, whatever it runs."""
    connection = await asyncpg.connect(address)
    inside = await connection.fetch(
        "SELECT DISTINCT usename, rolsuper FROM pg_stat_activity JOIN pg_roles ON rolname = usename"
        " WHERE application_name = 'klines' AND datname = 'klines'"
    )
    assert [tuple(row) for row in inside] == [(roles.SERVICE, False)]
    await connection.close()
    connection = await asyncpg.connect(address.replace("//klines@", f"//{roles.SERVICE}@") + "&role=klines_reader")
    for role in ("klines", "klines_owner", "klines_migrator", "pg_execute_server_program"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"SELECT set_config('role', '{role}', false)")
    await connection.execute("SELECT set_config('role', 'none', false)")
    for beyond in ("SELECT pg_read_file('PG_VERSION')", "COPY tokens TO PROGRAM 'true'", "SELECT * FROM pg_authid"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(beyond)
    await connection.close()


async def _wait_for_trades(address: str) -> None:
    """Wait until the database itself has announced three batches."""
    connection = await asyncpg.connect(address)
    heard: list[str] = []
    enough = asyncio.Event()

    def hear(_: object, __: int, ___: str, payload: object) -> None:
        heard.append(str(payload))
        if len(heard) >= 3:
            enough.set()

    await connection.add_listener("klines_v1", hear)
    await asyncio.wait_for(enough.wait(), 30)
    await connection.close()


def test_a_second_service_on_the_directory_is_refused_in_one_line(data_dir: Path) -> None:
    with service(KLINES_DATA_DIR=str(data_dir)) as first:
        first.url()
        second = klines("serve", PORT="0", KLINES_DATA_DIR=str(data_dir))
        assert second.returncode == 3
        assert second.stderr.strip().startswith("klines: ")
        assert str(data_dir) in second.stderr
        assert "Traceback" not in second.stderr


def test_a_killed_service_loses_nothing_and_its_server_is_adopted(data_dir: Path) -> None:
    with service(KLINES_DATA_DIR=str(data_dir)) as first:
        first.url()
        postmaster = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]
        first.stop(signal.SIGKILL)
    with service(KLINES_DATA_DIR=str(data_dir)) as second:
        second.url()
        assert (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0] == postmaster


def test_several_workers_and_one_mock_feed(plain: Database) -> None:
    with service(DATABASE_URL=plain.url, WORKERS="2", **MOCK) as running:
        url = running.url()
        running.has_said(lambda line: "runs the mock feed" in line)
        run(lambda: _wait_for_trades(plain.url))
        assert json.loads(get(f"{url}/health/ready"))["ready"] is True
        assert running.stop() == 0
        assert running.log.count("runs the mock feed") == 1
    assert klines("verify", "MOONCAT-SOL", DATABASE_URL=plain.url).returncode == 0


def test_another_process_takes_the_mock_feed_over(plain: Database) -> None:
    with service(DATABASE_URL=plain.url, **MOCK) as first:
        first.has_said(lambda line: "runs the mock feed" in line)
        with service(DATABASE_URL=plain.url, **MOCK) as second:
            second.url()
            first.stop(signal.SIGKILL)
            second.wait_for(lambda line: "runs the mock feed" in line)
            run(lambda: _wait_for_trades(plain.url))
    assert klines("verify", "PEPEWEI-USDC", DATABASE_URL=plain.url).returncode == 0


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("PORT", "70000", "PORT='70000': must be <= 65535"),
        ("PORT", "ten", "PORT='ten': must be an integer"),
        ("WORKERS", "0", "WORKERS='0': must be >= 1"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL='loud': must be one of debug info warning error"),
        ("MOCK_DATA_INTERVAL", "-1", "MOCK_DATA_INTERVAL='-1': must be >= 0"),
        ("MOCK_DATA_INTERVALL", "1", "MOCK_DATA_INTERVALL: no such setting, did you mean MOCK_DATA_INTERVAL?"),
        ("KLINES_DATADIR", "x", "KLINES_DATADIR: no such setting, did you mean KLINES_DATA_DIR?"),
        ("DATABASE_URL", "sqlite://", "DATABASE_URL: must start with postgresql://"),
        ("DATABASE_URL", "postgresql://klines@127.0.0.1:1/klines", "the database cannot be used: "),
        ("DATABASE_PASSWORD_FILE", "/nowhere", "DATABASE_PASSWORD_FILE: needs a DATABASE_URL with a user"),
        ("MOCK_TOKENS", "A=calm", "MOCK_TOKENS"),
        ("KLINES_DATA_DIR", "/proc/nowhere", "/proc/nowhere"),
        ("HOST", "192.0.2.1", "cannot listen on HOST 192.0.2.1 PORT 0"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(data_dir: Path, setting: str, value: str, said: str) -> None:
    good = {"PORT": "0", "MOCK_DATA_INTERVAL": "1", "KLINES_DATA_DIR": str(data_dir)}
    ended = klines("serve", **(good | {setting: value}))
    assert ended.returncode == 3, ended.stderr
    assert ended.stderr.startswith(f"klines: {said}") or said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


def test_a_busy_port_is_named(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = klines("serve", PORT=port, KLINES_DATA_DIR=str(data_dir))
    assert ended.returncode == 3
    assert f"cannot listen on HOST 127.0.0.1 PORT {port}" in ended.stderr


def test_an_empty_database_is_refused_with_the_command(plain: Database) -> None:
    run(lambda: _execute(plain.url, "DROP TABLE alembic_version"))
    ended = klines("serve", PORT="0", DATABASE_URL=plain.url)
    assert ended.returncode == 3
    assert ended.stderr.strip().endswith("run `klines db upgrade`")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def test_help_lists_every_setting() -> None:
    told = klines("--help").stdout
    for name in ("PORT", "HOST", "DATABASE_URL", "MOCK_DATA_INTERVAL", "KLINES_STORAGE_PROFILE"):
        assert name in told


def test_usage_errors_exit_with_2() -> None:
    assert klines("serve", "--fast").returncode == 2
    assert klines("verify", "NO SUCH", DATABASE_URL="postgresql://x@127.0.0.1:1/x").returncode == 2


def test_looking_makes_no_database(tmp_path: Path) -> None:
    for command in (["verify", "PEPE"], ["db", "psql"], ["db", "url"]):
        ended = klines(*command, KLINES_DATA_DIR=str(tmp_path / "none"))
        assert (ended.returncode, str(tmp_path / "none") in ended.stderr) == (2, True), ended.stderr
    assert not (tmp_path / "none").exists()


def test_stopping_leaves_no_process(data_dir: Path) -> None:
    with service(KLINES_DATA_DIR=str(data_dir), WORKERS="2") as running:
        running.url()
        started = psutil.Process(running.process.pid).children(recursive=True)
        started.append(psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])))
        assert len(started) > 2
        assert running.stop() == 0
    assert psutil.wait_procs(started, timeout=10)[1] == []


def test_a_url_may_carry_what_libpq_reads(plain: Database) -> None:
    told = klines("db", "status", DATABASE_URL=f"{plain.url}&sslmode=prefer")
    assert told.returncode == 0, told.stderr


def test_a_url_that_the_driver_cannot_read_is_one_line(plain: Database) -> None:
    for url in (f"{plain.url}&nonsense=1", "postgresql://[::1/klines", f"{plain.url}&sslmode=sometimes"):
        ended = klines("serve", PORT="0", DATABASE_URL=url)
        assert ended.returncode == 3, ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


def test_the_reason_of_a_refusing_server_is_told(plain: Database) -> None:
    nowhere = plain.url.replace(plain.name, "no_such_database")
    for command in (["serve"], ["db", "status"], ["db", "upgrade"], ["verify", "PEPE"]):
        ended = klines(*command, PORT="0", DATABASE_URL=nowhere)
        assert ended.returncode == 3, ended.stderr
        assert ended.stderr.strip() == 'klines: the database cannot be used: database "no_such_database" does not exist'


def test_the_loopback_address_is_told_with_its_password(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with service(KLINES_DATA_DIR=str(data_dir), KLINES_POSTGRES_PORT=port) as running:
        running.url()
        told = klines("db", "url", KLINES_DATA_DIR=str(data_dir), KLINES_POSTGRES_PORT=port)
        address = told.stdout.strip()
        assert f"@127.0.0.1:{port}/klines" in address
        run(lambda: _execute(address, "SELECT count(*) FROM klines_1m"))


# SIGTERM as the first connection to the database is made, inside code that is made from text, as libraries make it.
TERM_IN_MADE_CODE = """\
import os, signal, sys

def hook(event, arguments):
    if event == "socket.connect" and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        exec("os.kill(os.getpid(), signal.SIGTERM)\\nfor _ in range(10): pass")

sys.addaudithook(hook)
"""


def test_sigterm_in_code_made_from_text_is_no_crash(plain: Database, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(TERM_IN_MADE_CODE)
    with service(DATABASE_URL=plain.url, PYTHONPATH=str(tmp_path)) as stopped:
        assert stopped.process.wait(DEADLINE) == 0
