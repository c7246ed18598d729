"""The README cannot lie: its tables, commands, SQL and requests are checked against the code, or run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import asyncpg
import click
import httpx
import pytest
from litestar import Router

from klines.__main__ import commands
from klines.hub import Hub
from klines.queries.tickers import MAX_TOKENS
from klines.retention import TAPE_SECONDS
from klines.server import MAX_MESSAGE
from klines.settings import Settings, variables
from klines.tables import metadata
from klines.trade_input import MAX_JSON_TRADES, MAX_NDJSON_LINES
from klines.web import binance, body, trades, udf
from klines.web.admission import deadline, gate, intake, limits, tickets
from klines.web.binance.streams.address import BURST, MESSAGES_PER_SECOND
from klines.web.binance.streams.names import KLINE, OF_DAYS, OF_TRADES
from klines.web.binance.streams.session import MAX_STREAMS
from klines.web.socket import RULES
from klines.web.transport.http import MAX_HEAD, Http
from tests.servers import Database

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DECISIONS = (ROOT / "docs" / "decisions.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_every_setting_with_its_default() -> None:
    table = README.partition("## Settings")[2].partition("## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| (.*) \|$", table, re.M)
    assert [(name, default, text) for name, default, text in rows] == [
        (name, default, text) for name, (default, text) in variables().items()
    ]


def test_every_command() -> None:
    context = click.Context(commands)
    told = set(re.findall(r"^\| `klines ([a-z ]+?)(?: [A-Z]+)?` \|", README, re.M))
    known = set()
    for name in commands.list_commands(context):
        command = commands.get_command(context, name)
        known |= (
            {f"{name} {sub}" for sub in command.list_commands(context)} if isinstance(command, click.Group) else {name}
        )
    assert told == known


def test_every_relation_and_column() -> None:
    table = README.partition("## SQL")[2].partition("```")[0]
    for name, relation in metadata.tables.items():
        assert f"`{name}`" in table
        if name != "tokens":
            assert ", ".join(column.name for column in relation.columns) in table


async def test_every_route(plain_client: httpx.AsyncClient) -> None:
    document = (await plain_client.get("/schema")).json()
    served = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    native = README.partition("## REST")[2].partition("\n## ")[0]
    # Metrics are no JSON, and for operators.
    assert set(re.findall(r"^\| `((?:GET|POST|PUT) \S+)` \|", native, re.M)) == served | {"GET /metrics"}


def test_every_route_and_stream_of_the_dialects() -> None:
    routers = [one for one in (*binance.ROUTES, *udf.ROUTES) if isinstance(one, Router)]
    served = {f"GET {route.path}" for router in routers for route in router.routes if "{" not in route.path}
    assert set(re.findall(r"`(GET /(?:api/v3|udf)/\S+)`", README)) == served
    kinds = {KLINE, *OF_TRADES, *OF_DAYS}
    assert set(re.findall(r"`<symbol>@([A-Za-z]+)", README)) == kinds
    assert set(re.findall(r"`!(\w+)@arr`", README)) == OF_DAYS
    assert f"at most {MAX_STREAMS} on a connection" in README
    assert f"more than {MESSAGES_PER_SECOND} messages a second, after a burst of {BURST}" in README
    assert f"the {MAX_TOKENS:,} tokens traded last" in README


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= set(targets)


def test_files_that_are_named_exist() -> None:
    for name in re.findall(r"[`(]((?:src|docs|alembic)/[\w/.]+)[`)]", README + DECISIONS):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:queries/)?\w+\.py)`", README + DECISIONS):
        assert (ROOT / "src" / "klines" / name).exists(), name


@pytest.mark.parametrize("statement", blocks("sql"))
async def test_sql_runs(database: Database, statement: str) -> None:
    connection = await asyncpg.connect(database.url)
    await connection.execute("INSERT INTO tokens (symbol) VALUES ('MOONCAT-SOL')")
    await connection.execute(
        "INSERT INTO trades SELECT token_id, n + 1, now() - n * INTERVAL '9 s', 1 + n, 2, 'buy'"
        " FROM tokens, generate_series(1, 100) n"
    )
    query = re.sub(r"^--.*\n", "", statement, flags=re.M).strip()
    if query.startswith("INSERT"):
        assert await connection.execute(query) == "INSERT 0 1"
        assert await connection.fetchval("SELECT sum(trades)::int FROM klines_1s") == 101
    else:
        assert await connection.fetch(query)
    await connection.close()


async def test_requests_are_answered(plain_client: httpx.AsyncClient) -> None:
    seen = 0
    await plain_client.put("/api/v1/tokens/WIFHAT-USDC", json={})
    for block in blocks("console"):
        for line in re.sub(r"\\\n", "", block).split("$ ")[1:]:
            words = shlex.split(line)
            if words[0] != "curl":
                continue
            url = next(word for word in words if word.startswith("http://127.0.0.1:8080")).removeprefix(
                "http://127.0.0.1:8080"
            )
            if "-d" in words:
                body = json.loads(words[words.index("-d") + 1])
                answer = await plain_client.post(url, json=body)
            else:
                answer = await plain_client.get(url)
            assert answer.status_code == 200, (line, answer.text)
            seen += 1
    assert seen == 3


def test_make_needs_nothing_but_python() -> None:
    said = subprocess.run(["make", "-n", "serve"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert "uv " not in said
    assert "docker" not in said


def test_every_socket_and_message_type() -> None:
    part = README.partition("## WebSockets")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `/ws/(\w+)/", part, re.M)) == set(RULES)
    for kind, (history, _) in RULES.items():
        row = next(line for line in part.splitlines() if line.startswith(f"| `/ws/{kind}/"))
        assert f"default {history.default}, at most {history.schema['maximum']}" in row
    sources = "".join(file.read_text() for file in (ROOT / "src" / "klines" / "relay").glob("*.py"))
    types = set(re.findall(r'"type":"(\w+)"', sources)) | {"kline", "revision"}
    assert set(re.findall(r"^\| `(\w+)` \| (?:`|as)", part, re.M)) == types


def test_figures_of_the_streams() -> None:
    hub = Hub()
    assert f"more than {hub.max_bytes // 1024} KiB or {hub.max_frames} messages" in README
    assert f"nothing was read for {hub.stuck_seconds:.0f} s" in README
    assert f"trades stay on the tape for {TAPE_SECONDS // 60} minutes" in README
    assert "262144" in (ROOT / "alembic/sql/0005_tape/common.sql").read_text()
    assert "262,144 of a token" in README
    assert f"more than {MAX_MESSAGE // 1024} KiB" in README


def test_figures_of_the_limits() -> None:
    part = README.partition("## Limits")[2].partition("\n## ")[0]
    kib, mib = 1024, 1024 * 1024
    assert f"{gate.MAX_TARGET // kib} KiB; {MAX_HEAD // kib} KiB; {gate.MAX_HEADERS} |" in part
    assert f"{trades.MAX_BODY // mib} MiB; {MAX_JSON_TRADES:,}, as NDJSON {MAX_NDJSON_LINES:,} |" in part
    assert f"| {Http.HEAD:.0f} s; {body.BODY_SECONDS:.0f} s |" in part
    assert f"{intake.MAX_BYTES // mib} MiB, {intake.MAX_BATCHES} batches" in part
    assert f"| {deadline.READ_SECONDS:.0f} s, a write {deadline.WRITE_SECONDS:.0f} s |" in part
    assert f"1 per {limits.ROWS_PER_WEIGHT} rows, plus 1 per {limits.PARTS_PER_WEIGHT:,} stored bars" in part
    assert f'"read";q={Settings().klines_read_limit};w={limits.SECONDS}`' in part
    assert f"within {tickets.TICKET_SECONDS} s" in README


def test_every_fault_that_is_told_is_injected() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))
    injected = set(re.findall(r'mark\.fault\("(F\d\d)"', sources))
    told = set(re.findall(r"\((F\d\d)\)", README.partition("## Under faults")[2].partition("\n## ")[0]))
    assert len(told) > 10
    assert told <= injected
