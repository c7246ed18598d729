"""Traces by OpenTelemetry, where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to send them; else nothing of it is loaded.

A span is told of each request (by its route template), each batch that is written, and each statement; a W3C
`traceparent` of the client is continued. The SDK's own variables (`OTEL_…`) hold. Sending is done by a thread, from a
bounded queue: a collector that is away costs spans, never requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from klines.errors import CannotStart

if TYPE_CHECKING:
    import asyncpg
    from opentelemetry.trace import Span, Tracer
    from sqlalchemy.ext.asyncio import AsyncEngine

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MAX_STATEMENT = 1024

_tracer: Tracer | None = None


@asynccontextmanager
async def exported(environ: Mapping[str, str]) -> AsyncIterator[None]:
    """Send traces while the context is open, if `environ` says where to; raises `CannotStart` without the SDK."""
    global _tracer  # noqa: PLW0603 - what a process traces to is one thing of the process, as its log is
    asked = any(environ.get(name) for name in ENDPOINTS)
    if not asked or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    provider = _provider(environ)
    before, _tracer = _tracer, provider.get_tracer("klines")
    try:
        yield
    finally:
        _tracer = before
        # It waits for the collector, which may be away.
        await asyncio.to_thread(provider.shutdown)


def _provider(environ: Mapping[str, str]) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as said
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        detail = "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is not installed: install meme-klines[tracing]"
        raise CannotStart(detail, code="tracing_missing") from None
    name = environ.get("OTEL_SERVICE_NAME") or "klines"
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traced:
    """A span, or nothing where nothing is traced."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    def answered(self, name: str, route: str, status: int) -> None:
        """What came of a request."""
        if self._span is None:
            return
        self._span.update_name(name)
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            _failed(self._span)


_NOTHING = Traced()


@contextmanager
def serving(method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Traced]:
    """The span of a request, which continues the client's trace."""
    tracer = _tracer
    if tracer is None:
        yield _NOTHING
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - loaded already
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    parent = TraceContextTextMapPropagator().extract(carrier)
    attributes = {"http.request.method": method}
    with tracer.start_as_current_span(method, parent, SpanKind.SERVER, attributes) as span:
        yield Traced(span)


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """A span of ours within the present one."""
    tracer = _tracer
    if tracer is None:
        yield
        return
    with tracer.start_as_current_span(name, attributes=attributes):
        yield


def watch_reads(engine: AsyncEngine) -> None:
    """Tell a span of each statement of an engine that is made while traces are sent."""
    if _tracer is None:
        return
    from sqlalchemy import event  # noqa: PLC0415 - only where it is traced

    def before(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        context.began_ns = time.time_ns()

    def after(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        _statement_ended(statement, context.began_ns, None)

    def failed(context: Any) -> None:
        began = getattr(context.execution_context, "began_ns", None)
        if began is not None:
            _statement_ended(context.statement or "", began, context.original_exception)

    event.listen(engine.sync_engine, "before_cursor_execute", before)
    event.listen(engine.sync_engine, "after_cursor_execute", after)
    event.listen(engine.sync_engine, "handle_error", failed)


async def watch(connection: asyncpg.Connection[Any]) -> None:
    """Tell a span of each statement that a connection runs directly, where traces are sent as it is made."""
    if _tracer is not None:
        connection.add_query_logger(_ran)


def _ran(query: Any) -> None:
    _statement_ended(query.query, time.time_ns() - int(query.elapsed * 1e9), query.exception)


def _statement_ended(statement: str, began_ns: int, error: BaseException | None) -> None:
    tracer = _tracer
    if tracer is None:
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - loaded already

    text = " ".join(statement.split())[:MAX_STATEMENT]
    # Values are parameters: the text is ours, and the same for everybody.
    attributes = {"db.system.name": "postgresql", "db.query.text": text}
    name = text.partition(" ")[0].upper() or "statement"
    found = tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=began_ns)
    if error is not None:
        _failed(found, type(error).__name__)
    found.end()


def _failed(span: Span, kind: str = "") -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - loaded already

    if kind:
        span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
