"""A real browser, driven over its DevTools protocol: pages of a test, loaded from the address of the service."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
# A page that DevTools fills in has no address, so the browser takes it for one from outside.
TRUSTING = "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets"
MAX_MESSAGE = 32 * 1024 * 1024
DEADLINE = 30


class Page:
    """A tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._session: str | None = None
        self._count = 0
        self._files: Mapping[str, bytes] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def open(self, url: str, files: Mapping[str, bytes]) -> None:
        """Load the first of the files as if the service had them all, as a reverse proxy before it would."""
        self._files = files
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self.command("Fetch.enable", patterns=[{"urlPattern": f"{url}/{name}"} for name in files])
        await self.command("Page.navigate", url=f"{url}/{next(iter(files))}")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression; nothing while the page has none."""
        found = await self.command("Runtime.evaluate", expression=f"JSON.stringify({expression})", returnByValue=True)
        return json.loads(found["result"].get("value") or "[]") if "exceptionDetails" not in found else []

    async def command(self, method: str, **parameters: Any) -> Any:
        """The result of a DevTools command."""
        async with asyncio.timeout(DEADLINE):
            answer = await self._send(method, parameters)
            return await answer

    async def end(self) -> None:
        """The browser is to go."""
        self._session = None
        await self.command("Browser.close")
        await self._reader

    async def _send(self, method: str, parameters: dict[str, Any]) -> asyncio.Future[Any]:
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        asked: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        await self._connection.send(json.dumps(asked | ({"sessionId": self._session} if self._session else {})))
        return answer

    async def _read(self) -> None:
        while (message := await self._received()) is not None:
            told = json.loads(message)
            if told.get("method") == "Fetch.requestPaused":
                await self._serve(told["params"])
            elif answer := self._answers.pop(told.get("id"), None):
                assert "error" not in told, told
                answer.set_result(told["result"])

    async def _received(self) -> str | bytes | None:
        with suppress(ConnectionClosed):
            return await self._connection.recv()
        return None

    async def _serve(self, paused: dict[str, Any]) -> None:
        name = paused["request"]["url"].rpartition("/")[2]
        kind = "text/html" if name.endswith(".html") else "text/javascript"
        given = {
            "requestId": paused["requestId"],
            "responseCode": 200,
            "responseHeaders": [{"name": "Content-Type", "value": f"{kind}; charset=utf-8"}],
            "body": b64encode(self._files[name]).decode(),
        }
        await self._send("Fetch.fulfillRequest", given)


@asynccontextmanager
async def chromium(directory: Path) -> AsyncIterator[Page]:
    """A browser of its own; skips where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    process = await asyncio.create_subprocess_exec(
        program, *OPTIONS, TRUSTING, f"--user-data-dir={directory}", stderr=PIPE
    )
    drain = None
    try:
        async with asyncio.timeout(DEADLINE):
            address = await _address(process)
        assert process.stderr is not None
        drain = asyncio.create_task(process.stderr.read())
        async with connect(address, max_size=MAX_MESSAGE, proxy=None) as connection:
            page = Page(connection)
            yield page
            await page.end()
        async with asyncio.timeout(DEADLINE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if drain is not None:
            await drain


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        _, mark, address = line.decode().partition("DevTools listening on ")
        if mark:
            return address.strip()
    pytest.fail("the browser ended")
