"""Autobahn's WebSocket suite against our protocol class: an outsider's reading of RFC 6455.

It is a Python 2.7 package: `AUTOBAHN_SUITE` is its directory, `AUTOBAHN_PYTHON` the interpreter, else `python2.7` on
the PATH:

    python2.7 -m pip install --target SUITE autobahntestsuite==25.10.1 && touch SUITE/zope/__init__.py
    AUTOBAHN_SUITE=SUITE pytest -m slow tests/input/test_autobahn.py
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from klines.web.transport.connection import EXTENSION
from tests.application import serving_app
from tests.service.test_connection import lifespan

SECONDS = 240
# Limits and speed (9), compression (12, 13), which is off. Binary messages (1.2) are not taken: 1003.
LEFT_OUT = ["9.*", "12.*", "13.*", "1.2.*"]
# As the suite has them: a peer may fail at once where the suite would let it go on.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
# A close in the middle of a message is answered with 1002 instead of its own code, as websockets means it.
KNOWN = {"7.1.5"}


@pytest.fixture
def suite() -> tuple[str, dict[str, str]]:
    """An interpreter that has the suite, and its environment."""
    environment = dict(os.environ) | {"PYTHONPATH": os.environ.get("AUTOBAHN_SUITE", "")}
    found = os.environ.get("AUTOBAHN_PYTHON") or shutil.which("python2.7")
    if not found:
        pytest.skip("no python2.7 on the PATH, and no AUTOBAHN_PYTHON")
    probe = subprocess.run([found, "-c", "import autobahntestsuite"], env=environment, capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("autobahntestsuite is not installed there, and AUTOBAHN_SUITE names no directory that has it")
    return found, environment


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back what it hears."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    scope["extensions"][EXTENSION]["connection"].hears()
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


@pytest.mark.slow
async def test_no_case_of_autobahn_fails(
    suite: tuple[str, dict[str, str]], tmp_path: Path, figures: Callable[..., None]
) -> None:
    python, environment = suite
    async with serving_app(echo) as url:
        server = {"url": url.replace("http", "ws") + "/", "agent": "klines"}
        plan = {"outdir": str(tmp_path / "out"), "servers": [server], "cases": ["*"], "exclude-cases": LEFT_OUT}
        (tmp_path / "plan.json").write_text(json.dumps(plan | {"exclude-agent-cases": {}}))
        command = [python, "-m", "autobahntestsuite.wstest", "-m", "fuzzingclient", "-s", str(tmp_path / "plan.json")]
        pipe, out = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=out, cwd=tmp_path, env=environment)
        try:
            async with asyncio.timeout(SECONDS):
                told, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, told.decode()
    cases = json.loads((tmp_path / "out/index.json").read_text())["klines"]
    counts = Counter(case["behavior"] for case in cases.values())
    figures("T1", cases=len(cases), **{name.lower().replace("-", "_"): number for name, number in counts.items()})
    bad = {name: case for name, case in cases.items() if {case["behavior"], case["behaviorClose"]} - GOOD}
    assert bad.keys() <= KNOWN, bad
    assert len(cases) > 200
