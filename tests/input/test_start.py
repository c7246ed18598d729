"""B96 to B109: bad settings and bad surroundings: exit 3 and one line that names the thing and the rule."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest

from tests.application import serving, settings_for
from tests.servers import Database, Server, run

SECRET = "hunter2"
NOWHERE = f"postgresql://klines:{SECRET}@127.0.0.1:1/klines"


class Start(NamedTuple):
    """A start that is refused: what is set, and what the line says."""

    number: str
    said: str
    env: dict[str, str]
    command: tuple[str, ...] = ("serve",)
    code: int = 3


def setting(number: str, name: str, value: str, said: str) -> Start:
    """One setting with a value that breaks its rule."""
    return Start(number, f"{name}={value!r}: {said}", {name: value})


CASES = [
    Start("B96", "MAX_CONECTIONS: no such setting, did you mean MAX_CONNECTIONS?", {"MAX_CONECTIONS": "5"}),
    Start("B96", "KLINES_POOLSIZE: no such setting, did you mean KLINES_POOL_SIZE?", {"KLINES_POOLSIZE": "5"}),
    Start("B96", "KLINES_COFFEE: no such setting", {"KLINES_COFFEE": "1"}),
    Start("B96", "DATABASE_URI: no such setting, did you mean DATABASE_URL?", {"DATABASE_URI": NOWHERE}),
    setting("B97", "MAX_CONNECTIONS", "-1", "must be >= 0"),
    setting("B97", "MAX_CONNECTIONS", "ten", "must be an integer"),
    setting("B97", "MAX_CONNECTIONS", "1.5", "must be an integer"),
    setting("B97", "MAX_CONNECTIONS", "1000000000", "must be <= 1000000"),
    setting("B97", "MAX_CONNECTIONS", "\uff15", "must be an integer"),
    setting("B97", "WORKERS", "0", "must be >= 1"),
    setting("B97", "KLINES_POOL_SIZE", "1000", "must be <= 100"),
    setting("B98", "PORT", "70000", "must be <= 65535"),
    setting("B98", "PORT", "-1", "must be >= 0"),
    Start("B98", "cannot listen on HOST 192.0.2.1 PORT 0", {"HOST": "192.0.2.1"}),
    Start("B98", "cannot listen on HOST no.such.host.invalid PORT 0", {"HOST": "no.such.host.invalid"}),
    Start(
        "B99",
        "DATABASE_URL: a port must be at most 65535",
        {"DATABASE_URL": f"postgresql://klines:{SECRET}@127.0.0.1:99999/klines"},
    ),
    Start("B99", "DATABASE_URL: must start with postgresql://", {"DATABASE_URL": "sqlite://"}),
    Start("B99", "DATABASE_URL: must start with postgresql://", {"DATABASE_URL": f"host=127.0.0.1 password={SECRET}"}),
    *[
        Start("B99", "the database cannot be used: ", {"DATABASE_URL": url})
        for url in (
            f"postgresql://klines:{SECRET}@[::1/klines",
            f"postgresql://klines:{SECRET}@[::1]:1/klines",
            f"postgresql://klines:{SECRET}%40%3A%2F%25@127.0.0.1:1/klines",
            f"postgresql://klines:{SECRET}@127.0.0.1:port/klines",
            f"postgresql://klines:{SECRET}@127.0.0.1:1/klines?sslmode=sometimes",
            "postgresql:///klines?host=/no/such/directory",
        )
    ],
    Start("B99", "DATABASE_PASSWORD_FILE: needs a DATABASE_URL", {"DATABASE_PASSWORD_FILE": "/nowhere"}),
    Start(
        "B99",
        "DATABASE_PASSWORD_FILE: /nowhere: No such file",
        {"DATABASE_URL": "postgresql://klines@127.0.0.1:1/klines", "DATABASE_PASSWORD_FILE": "/nowhere"},
    ),
    Start("B100", "the database cannot be used: ", {"DATABASE_URL": NOWHERE}),
    Start("B100", "the database cannot be used: ", {"DATABASE_URL": NOWHERE}, ("db", "status")),
    Start("B100", "the database cannot be used: ", {"DATABASE_URL": NOWHERE}, ("verify", "PEPE")),
    # Intervals cannot be set, and bars outlive their trades: retention has nothing to contradict.
    setting("B104", "KLINES_TRADE_RETENTION_DAYS", "-1", "must be >= 0"),
    setting("B104", "KLINES_TRADE_RETENTION_DAYS", "forever", "must be an integer"),
    Start("B107", "/proc/nowhere", {"KLINES_DATA_DIR": "/proc/nowhere"}),
    Start("B107", "/dev/null/klines", {"KLINES_DATA_DIR": "/dev/null/klines"}),
    Start("B108", "AUTH=open: only where HOST is a loopback address", {"HOST": "0.0.0.0", "AUTH": "open"}),  # noqa: S104
    Start("B108", "AUTH=open: only where", {"AUTH": "open", "KLINES_TRUSTED_PROXIES": "192.0.2.1"}),
    setting("B108", "AUTH", "none", "must be one of"),
    Start("B102", "KLINES_ALLOWED_ORIGINS", {"KLINES_ALLOWED_ORIGINS": "https://good.example/path"}),
    Start("B38", "KLINES_TRUSTED_PROXIES", {"KLINES_TRUSTED_PROXIES": "everybody"}),
    setting("B109", "KLINES_LOG_FORMAT", "xml", "must be one of text json"),
    setting("B109", "LOG_LEVEL", "loud", "must be one of debug info warning error"),
    Start("B109", "MOCK_TOKENS", {"MOCK_TOKENS": "A=calm"}),
    Start("B109", "No such command", {}, ("server",), 2),
    Start("B109", "No such option", {}, ("serve", "--debug"), 2),
    Start("B109", "symbol 'A B'", {"DATABASE_URL": NOWHERE}, ("verify", "A B"), 2),
]


class Starts:
    """Starts of `klines`, each a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, *argv: str, **env: str) -> dict[str, Any]:
        """The exit code, and what was told on stderr."""
        assert self._process.stdin is not None and self._process.stdout is not None
        asked = {"argv": argv, "env": {"PORT": "0", "PATH": os.environ["PATH"]} | env}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@pytest.fixture(scope="module")
def started() -> Iterator[Starts]:
    command = [sys.executable, "-m", "tests.input.starts"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Starts(process)


def test_the_table(started: Starts) -> None:
    wrong = []
    for case in CASES:
        found = started(*case.command, **case.env)
        told = found["told"]
        lines = told.strip().splitlines()
        if (
            found["code"] != case.code
            or case.said not in told
            or SECRET in told
            or (len(lines) != 1 and case.code == 3)
        ):
            wrong.append(f"{case.number} {case.env}: expected {case.code} {case.said!r}, got {found}")
    assert not wrong, "\n".join(wrong)


def test_b98_a_port_that_is_taken(started: Starts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = started("serve", PORT=port, DATABASE_URL=NOWHERE)
    assert (ended["code"], f"cannot listen on HOST 127.0.0.1 PORT {port}" in ended["told"]) == (3, True), ended


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def test_b101_a_schema_that_is_not_ours(started: Starts, plain: Database) -> None:
    for revision, said in (("0005_tape", "run `klines db upgrade`"), ("9999_future", "")):
        run(partial(_execute, plain.url, f"UPDATE alembic_version SET version_num = '{revision}'"))
        ended = started("serve", DATABASE_URL=plain.url)
        assert (ended["code"], len(ended["told"].strip().splitlines())) == (3, 1), ended
        assert revision in ended["told"] and said in ended["told"], ended


def test_b105_a_database_in_another_encoding(started: Starts, server: Server) -> None:
    name = f"klines_latin_{os.getpid()}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc")
    try:
        ended = started("db", "upgrade", DATABASE_URL=server.database_url(name))
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert (ended["code"], "UTF8" in ended["told"]) == (3, True), ended


ODD = {
    "DateStyle": "'German, DMY'",
    "IntervalStyle": "'sql_standard'",
    "TimeZone": "'Asia/Kathmandu'",
    "extra_float_digits": "-15",
    "bytea_output": "'escape'",
    "standard_conforming_strings": "on",
    "xmlbinary": "'hex'",
    "lc_messages": "'C'",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "'serializable'",
}
PATHS = ("klines/狗?interval=1s", "klines/狗?interval=1d&fill=prev", "trades/狗", "klines/狗?interval=7m")
TRADES = [
    {
        "symbol": "狗",
        "trade_id": n,
        "time": 1_700_000_100_000 + n * 7,
        "price": f"0.{n:09}",
        "amount": "3",
        "side": "buy",
    }
    for n in range(1, 50)
]


async def _answers(database: Database) -> list[bytes]:
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as client:
        posted = await client.post("/api/v1/trades", json={"trades": TRADES})
        reads = [await client.get(f"/api/v1/{path}") for path in PATHS]
        return [answer.content for answer in (posted, *reads)]


async def test_b105_a_server_with_other_habits(server: Server, plain: Database) -> None:
    with server.database("plain") as odd:
        changes = [f"ALTER DATABASE {odd.name} SET {name} = {value}" for name, value in ODD.items()]
        await _execute(odd.url, *changes)
        assert await _answers(odd) == await _answers(plain)


def test_b105_the_surroundings_of_the_process(plain: Database, tmp_path: Path) -> None:
    file = tmp_path / "trades.csv"
    file.write_text("symbol,trade_id,time,price,amount,side\n狗,1,2023-11-14T22:15:00Z,0.5,2,buy\n", "utf-8")
    given = {
        "DATABASE_URL": plain.url,
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    command = [sys.executable, "-m", "klines", "import", str(file)]
    ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    seen = run(lambda: _fetch(plain.url))
    assert seen == [("狗", 1_700_000_100)]


async def _fetch(url: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        "SELECT symbol, extract(epoch FROM time)::bigint FROM trades JOIN tokens USING (token_id)"
    )
    await connection.close()
    return [(row[0], row[1]) for row in rows]
