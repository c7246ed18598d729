"""`klines serve` with one more route, which answers with the bytes of a file: `python bench/peers/static.py serve`.

It stands below the same gate and the same observation as the routes of the service. `BENCH_STATIC` names the file.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from litestar import Response, get

from klines.__main__ import main
from klines.web import page


@cache
def body() -> bytes:
    """The bytes, read once, at the first request."""
    return Path(os.environ["BENCH_STATIC"]).read_bytes()


@get("/api/static", include_in_schema=False)
async def get_static() -> Response[bytes]:
    """The least that a route of the application can do."""
    return Response(body(), media_type="application/json")


if __name__ == "__main__":
    page.ROUTES = [*page.ROUTES, get_static]
    main()
