"""`/metrics`: what the service measures of itself, for Prometheus."""

from __future__ import annotations

import re

from litestar import Response, get

from klines.web.parameters import read
from klines.web.services import Incoming

_OPEN_METRICS = re.compile(r"(^|,)\s*application/openmetrics-text\s*(;|,|$)")


@get("/metrics", include_in_schema=False)
async def get_metrics(request: Incoming) -> Response[bytes]:
    """The metrics of all server processes in Prometheus's text format, or as OpenMetrics where that is accepted."""
    read(request.scope["query_string"], ())
    accepted = _OPEN_METRICS.search(request.headers.get("accept", "")) is not None
    body, media_type = request.app.state.metrics.text(openmetrics=accepted)
    # Set whole: the framework would add a character set to one that has its own.
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
