"""Traces: what a collector receives by OTLP/HTTP, decoded; and nothing of it is loaded where nobody asks for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from klines import tracing
from klines.errors import CannotStart
from tests.application import serving, settings_for
from tests.observe.test_metrics import trades
from tests.servers import Database

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Span] = []
        self.names: set[str] = set()


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        told = ExportTraceServiceRequest()
        told.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        for of_resource in told.resource_spans:
            named = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            self.server.names.add(named["service.name"])
            self.server.spans += [span for of_scope in of_resource.scope_spans for span in of_scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "klines-test")
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, str | int]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


async def test_requests_batches_and_statements_are_traced(plain: Database, collector: Collector) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert (await client.post("/api/v1/trades", json=trades(1), headers=headers)).status_code == 200
        assert (await client.get("/api/v1/klines/PEPE-SOL?interval=1m", headers=headers)).status_code == 200
        assert (await client.get("/api/v1/klines/SECRET-NAME", headers={"traceparent": "nonsense"})).status_code == 404
    assert collector.names == {"klines-test"}
    spans = {span.span_id: span for span in collector.spans}
    of_trace = [span for span in spans.values() if span.trace_id.hex() == TRACE]
    requests = {span.name: span for span in of_trace if span.parent_span_id.hex() == PARENT}
    assert set(requests) == {"POST /api/v1/trades", "GET /api/v1/klines/{token_symbol}"}
    post = requests["POST /api/v1/trades"]
    assert post.kind == Span.SPAN_KIND_SERVER
    told = {"http.request.method": "POST", "http.route": "/api/v1/trades", "http.response.status_code": 200}
    assert attributes(post) == told
    (ingest,) = [span for span in of_trace if span.name == "ingest"]
    assert (ingest.parent_span_id, attributes(ingest)) == (post.span_id, {"trades": 1})
    statements = [span for span in of_trace if span.kind == Span.SPAN_KIND_CLIENT]
    inserts = [span for span in statements if "INTO public.trades" in str(attributes(span)["db.query.text"])]
    assert [span.parent_span_id for span in inserts] == [ingest.span_id]
    read = requests["GET /api/v1/klines/{token_symbol}"]
    assert [span for span in statements if span.parent_span_id == read.span_id]
    assert all(post.start_time_unix_nano <= span.start_time_unix_nano < span.end_time_unix_nano for span in statements)
    assert "SECRET-NAME" not in str(collector.spans), "templates and parameters, no values"
    assert [span for span in spans.values() if span.trace_id.hex() != TRACE and span.name.startswith("GET ")]


def test_nothing_is_loaded_where_nobody_asks() -> None:
    look = "import sys, klines.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    ended = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "[]"


async def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(CannotStart, match="tracing"):
        async with tracing.exported({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}):
            pass
