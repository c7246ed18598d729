"""Releases with known holes stay out: of the locks, and of what runs here. Works offline; pip-audit knows more."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
import yaml

from klines.profile import MINIMUM_TIMESCALE
from tests.servers import Server, run

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")


class Floor(NamedTuple):
    """The oldest release that may be used, and what is wrong with those before it."""

    package: str
    least: str
    reason: str


FLOORS = [
    Floor("litestar", "2.22", "CVE-2026-25479 hosts by pattern, CVE-2026-48060 HTML in a cookie, X-Forwarded-Host"),
    Floor("uvicorn", "0.52.1", "no back-pressure on WebSockets since 0.50: one slow client grew memory without bound"),
    Floor(
        "websockets", "17", "the release whose protocol objects our own connection class is built on and tested with"
    ),
    Floor("sqlalchemy", "2.1.9", "issue 13241: connections that the server had ended came back into the pool"),
    Floor("asyncpg", "0.32", "the release our handling of ended connections is tested with"),
    Floor("h11", "0.16", "CVE-2025-43859: chunked bodies with a wrong end, which smuggles requests"),
    Floor("msgspec", "0.22", "the release whose reading of numbers and text the table of bad input was written for"),
    Floor("requests", "2.32.4", "CVE-2024-47081: credentials sent to the wrong host"),
    Floor("urllib3", "2.6.3", "CVE-2026-21441: bodies unpacked without bound while a redirect is followed"),
    Floor("protobuf", "6.31.1", "CVE-2025-4565: nesting without bound"),
]

# Of each PostgreSQL we run on: the minor release of 2026-05-14, which closed eleven holes (CVE-2026-6472 and others).
POSTGRES = {16: 14, 17: 10, 18: 4}


def numbers(text: str) -> tuple[int, ...]:
    """A version as numbers, without what a pre-release adds."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0]))


def locked(name: str) -> dict[str, str]:
    """`{package: version}` of a lock."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_name_no_release_with_a_known_hole(lock: str) -> None:
    pins = locked(lock)
    assert {"litestar", "uvicorn", "websockets", "sqlalchemy"} <= pins.keys()
    bad = [
        f"{floor.package} {pins[floor.package]} < {floor.least}: {floor.reason}"
        for floor in FLOORS
        if floor.package in pins and numbers(pins[floor.package]) < numbers(floor.least)
    ]
    assert bad == []


def test_what_runs_here_is_what_is_locked() -> None:
    pins = locked("requirements-test.lock")
    for floor in FLOORS:
        if floor.package in pins:
            assert version(floor.package) == pins[floor.package], f"{floor.package}: run `make test` again"


def test_the_project_asks_for_no_release_below_a_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = dict(
        re.findall(r"^([a-z0-9-]+)(?:\[[a-z]+\])?>=([0-9.]+)", "\n".join(project["dependencies"]), re.MULTILINE)
    )
    assert {"litestar", "uvicorn", "websockets", "sqlalchemy", "asyncpg", "msgspec"} <= asked.keys()
    floors = {floor.package: floor.least for floor in FLOORS}
    assert {name for name, least in asked.items() if numbers(least) < numbers(floors.get(name, "0"))} == set()


def test_the_postgresql_of_the_tests_has_no_known_hole(server: Server) -> None:
    major, minor = run(lambda: _version(server.url))
    assert minor >= POSTGRES.get(major, 0), f"PostgreSQL {major}.{minor} is older than {major}.{POSTGRES[major]}"


async def _version(url: str) -> tuple[int, int]:
    connection = await asyncpg.connect(url)
    number = int(await connection.fetchval("SHOW server_version_num"))
    await connection.close()
    return divmod(number, 10_000)


def test_timescale_has_no_known_hole() -> None:
    # 2.29.1 has the fixes 10360, 10379 and 10386 of permissions and bounds.
    assert MINIMUM_TIMESCALE >= (2, 29, 1)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    tag = compose["services"]["database"]["image"].partition(":")[2]
    timescale, _, postgres = tag.partition("-pg")
    assert (numbers(timescale) >= MINIMUM_TIMESCALE, int(postgres) in POSTGRES) == (True, True)
