"""`/udf/history`: bars in columns, ascending, only those with trades; the open one too if it opens before `to`.

`to` is exclusive. With `countback` the answer is the latest that many bars before `to`, wherever they lie, and `from`
is only a hint. Without it the bars that open in `[from, to)`, the latest `MAX_BARS` of them; but if these are fewer
than two, the latest two before `to`: TradingView's adapter fails with "Not enough bars" on a poll that brings one bar
after another, and a chart that gets nothing for a gap believes that history begins there.

So `no_data` means what the library takes it for: no bar before `to` at all. There is no `nextTime`; its unit is told
differently by the library's page (milliseconds), its examples and its own server (seconds).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from litestar import Response, get

from klines.dear import is_dear
from klines.errors import BadRequest
from klines.interval import Width
from klines.queries import klines
from klines.queries.window import Window
from klines.web.admission.limits import page_weight, spend
from klines.web.services import Given, Incoming
from klines.web.udf.answers import answer
from klines.web.udf.query import Query, find_token
from klines.web.udf.resolution import FEWEST, parse_resolution

MAX_BARS = 5000


class Bar(msgspec.Struct, frozen=True):
    """What the dialect shows of a bar: open time in epoch milliseconds, decimals as text."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str


_bars = msgspec.json.Decoder(list[Bar])


@get("/history")
async def get_history(request: Incoming, services: Given) -> Response[bytes]:
    """Columns `t` (epoch seconds), `o`, `h`, `l`, `c`, `v` (base volume)."""
    query = Query(request)
    symbol = query.required("symbol")
    width = parse_resolution(query.required("resolution"))
    window, from_ms = _window(query, width)
    spend(request.scope, page_weight(window.limit, width.parts) - 1)
    async with services.reading(dear=is_dear(window.limit, width)) as connection:
        _, token_id = await find_token(services, connection, symbol)
        page = await klines.page(connection, token_id, width, window, services.now())
    bars = bars_of(page.json)
    inside = [bar for bar in bars if bar.open_time >= from_ms]
    return answer(_columns(inside if len(inside) >= FEWEST else bars[-FEWEST:]))


def bars_of(json: str) -> list[Bar]:
    """The bars of a page (`klines.queries.klines.Page`), ascending."""
    return _bars.decode(f"[{json}]")


def _window(query: Query, width: Width) -> tuple[Window, int]:
    """The window to read, and the first open time wanted of it, in epoch milliseconds."""
    most = min(MAX_BARS, width.most)
    end = query.seconds("to")
    if end is None:
        raise BadRequest("to is missing", code="to_missing")
    if (limit := query.count("countback", most)) is not None:
        return Window(limit, to_us=end * 1_000_000), 0
    begin = query.seconds("from")
    if begin is None:
        raise BadRequest("from is missing, and so is countback", code="from_missing")
    if begin > end:
        raise BadRequest("from lies after to", code="range_reversed")
    # Buckets that open in a range are as many as it has bars at most: so the latest bars before its end hold them.
    buckets = (width.ceil(end * 1000) - width.ceil(begin * 1000)) // width.milliseconds
    return Window(min(max(buckets, FEWEST), most), to_us=end * 1_000_000), begin * 1000


def _columns(bars: Sequence[Bar]) -> bytes:
    if not bars:
        return b'{"s":"no_data"}'
    columns = {
        "t": [str(bar.open_time // 1000) for bar in bars],
        "o": [bar.open for bar in bars],
        "h": [bar.high for bar in bars],
        "l": [bar.low for bar in bars],
        "c": [bar.close for bar in bars],
        "v": [bar.volume for bar in bars],
    }
    # Decimal text is a JSON number as it stands.
    members = ",".join(f'"{name}":[{",".join(texts)}]' for name, texts in columns.items())
    return f'{{"s":"ok",{members}}}'.encode()
