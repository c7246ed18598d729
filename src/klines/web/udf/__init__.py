"""TradingView's UDF dialect under `/udf`: the same reads in the words of its charting library.

The format is the one of the library's page "UDF" and of the adapter that comes with the library. That adapter tells
success from failure by the member `s` of the body and never looks at the HTTP status; so does this dialect:

* what a client asked wrongly is `{"s": "error", "errmsg": "…"}` with status 200, as the format has it;
* what is our fault is the same body with status 500 or 503, for the sake of proxies and monitors; who asks too much or
  may not ask gets it with 429, 401 or 403.

Parameters that no rule names are ignored: charts add their own (`currencyCode`, `unitId`, `session`). There is no
stream in UDF; a chart polls `history`.
"""

from __future__ import annotations

from litestar import Router
from litestar.types import ControllerRouterHandler

from klines.errors import KlinesError
from klines.web.udf.answers import from_anything, from_klines_error
from klines.web.udf.history import get_history
from klines.web.udf.marks import get_marks, get_timescale_marks
from klines.web.udf.quotes import get_quotes, get_time
from klines.web.udf.symbols import get_config, get_search, get_symbol

ROUTES: list[ControllerRouterHandler] = [
    Router(
        "/udf",
        route_handlers=[
            get_config,
            get_symbol,
            get_search,
            get_history,
            get_time,
            get_quotes,
            get_marks,
            get_timescale_marks,
        ],
        include_in_schema=False,
        exception_handlers={KlinesError: from_klines_error, Exception: from_anything},
    )
]
