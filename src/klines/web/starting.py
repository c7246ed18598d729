"""A start that fails for a known reason is told in one line, by the server, whose process then ends with 3.

The framework would make the whole traceback the message, and the server log it once more.
"""

from __future__ import annotations

from typing import Any

from litestar.types import ASGIApp

from klines.errors import KlinesError


async def lifespan_in_words(app: ASGIApp, scope: Any, receive: Any, send: Any) -> None:
    """Run the application's lifespan; what `KlinesError` ended its start is the server's message, without more."""
    held: list[Any] = []

    async def told(message: Any) -> None:
        if message["type"] == "lifespan.startup.failed":
            held.append(message)
        else:
            await send(message)

    try:
        await app(scope, receive, told)
    except BaseException as error:
        known = _known(error)
        if held and known is not None:
            await send(held[0] | {"message": f"the service cannot start: {known.detail}"})
            return
        for message in held:
            await send(message)
        raise


def _known(error: BaseException) -> KlinesError | None:
    # The framework makes a group of what its lifespans raise.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, KlinesError) else None
