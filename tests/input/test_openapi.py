"""The OpenAPI document tells the truth: Schemathesis calls every operation by it, and no route is missing in it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar

from klines import app
from tests.access.keys import made
from tests.application import serving, settings_for
from tests.servers import Database

HERE = Path(__file__).parent
PHASES = "examples,coverage,fuzzing"
SECONDS = 240

# What the document leaves out, by the beginning of the path, and why.
ELSEWHERE = {
    "/api/v3/": "Binance's dialect, which Binance documents",
    "/udf/": "TradingView's dialect, which TradingView documents",
    "/ws": "sockets, for which OpenAPI has no words; the README has",
    "/stream": "as /ws",
    "/schema": "the document itself",
    "/metrics": "for Prometheus, in its own format",
    "/assets": "a file of the chart page",
    "/datafeed.js": "a file of the chart page",
}


async def schemathesis(url: str, directory: Path, *options: str) -> None:
    """Run it against a service that runs, in a directory for what it keeps; fails with what it found."""
    command = [
        *(str(Path(sys.executable).parent / "st"), "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/schema/openapi.json", "--checks", "all", "--mode", "all"),
        *("--seed", "1", "--continue-on-failure", "--no-color", *options),
    ]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=asyncio.subprocess.STDOUT, cwd=directory
    )
    try:
        async with asyncio.timeout(SECONDS):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
    assert b"Tested: 9" in told, "not every operation of the document was called"


async def test_every_operation_answers_as_the_document_says(plain: Database, tmp_path: Path) -> None:
    async with serving(settings_for(plain)) as url:
        await schemathesis(url, tmp_path, "--phases", PHASES, "--max-examples", "3")


@pytest.mark.slow
async def test_the_same_with_keys_and_more_examples(plain: Database, tmp_path: Path) -> None:
    settings = settings_for(plain, auth="all", klines_read_limit=0, klines_write_limit=0, klines_login_limit=0)
    key = await made(plain, "read", "write")
    async with serving(settings) as url:
        await schemathesis(
            url,
            tmp_path,
            "--phases",
            f"{PHASES},stateful",
            "--max-examples",
            "100",
            "-H",
            f"Authorization: Bearer {key.text}",
        )


def test_every_route_is_in_the_document_or_left_out_for_a_reason(
    plain: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Litestar] = []

    class Noted(Litestar):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            made.append(self)

    monkeypatch.setattr(app, "Litestar", Noted)
    app.create_app(settings_for(plain))
    paths = {route.path for route in made[0].routes}
    documented = {path.replace("}", ":str}") for path in made[0].openapi_schema.paths or {}}
    missing = {path for path in paths - documented - {"/"} if not path.startswith(tuple(ELSEWHERE))}
    assert missing == set()
    assert documented <= paths
    unneeded = {start for start in ELSEWHERE if not any(path.startswith(start) for path in paths)}
    assert unneeded == set()


async def test_the_document_names_refusals_limits_and_keys(plain: Database) -> None:
    documents = {}
    for authority in ("open", "write", "all"):
        async with serving(settings_for(plain, auth=authority)) as url, httpx.AsyncClient(base_url=url) as client:
            documents[authority] = (await client.get("/schema/openapi.json")).json()
    for authority, document in documents.items():
        assert document["components"]["securitySchemes"].keys() == {"key"}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert {"400", "406", "414", "431", "500", "503"} <= operation["responses"].keys(), path
                needed = authority == "all" or (authority == "write" and method in {"put", "post"})
                assert ({} in operation["security"]) == (path.startswith("/health/") or not needed), (
                    authority,
                    method,
                    path,
                )
    post = documents["open"]["paths"]["/api/v1/trades"]["post"]
    assert {"408", "413", "415", "422", "429"} <= post["responses"].keys()
    assert post["requestBody"]["content"].keys() == {"application/json", "application/x-ndjson"}
