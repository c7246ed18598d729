"""The lines that a test and a client exchange (`tests/clients/session.py`), on the client's side."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

_writing = threading.Lock()


def tell(message: dict[str, Any]) -> None:
    """One line to the test, from any thread."""
    with _writing:
        sys.stdout.write(json.dumps(message, default=_shown) + "\n")
        sys.stdout.flush()


def event(value: Any) -> None:
    """Something that happened."""
    tell({"event": value})


def answer_calls(find: Callable[[str], Callable[..., Any]]) -> None:
    """Call what the test names, one after the other, until it has no more to call."""
    for line in sys.stdin:
        number, name, arguments, keywords = json.loads(line)
        try:
            tell({"id": number, "result": find(name)(*arguments, **keywords)})
        except Exception as error:  # the test judges every error
            tell({"id": number, "error": [type(error).__name__, str(error)]})


async def answer_calls_together(find: Callable[[str], Callable[..., Any]]) -> None:
    """The same with coroutines, beside each other."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def answer(line: bytes) -> None:
        number, name, arguments, keywords = json.loads(line)
        try:
            tell({"id": number, "result": await find(name)(*arguments, **keywords)})
        except Exception as error:  # the test judges every error
            tell({"id": number, "error": [type(error).__name__, str(error)]})

    at_work = set()
    async for line in reader:
        at_work.add(task := asyncio.create_task(answer(line)))
        task.add_done_callback(at_work.discard)
        # By now it has come to where it waits.
        await asyncio.sleep(0)
        tell({"begun": json.loads(line)[0]})
    for task in at_work:
        task.cancel()


def _shown(value: Any) -> Any:
    return (
        value.model_dump(by_alias=True, exclude={"additional_properties"})
        if hasattr(value, "model_dump")
        else list(value)
    )
