"""klines: trades in, exact candlesticks and live streams out, on a database that analysts can query.

The flow, in the direction in which modules may import each other (`tests/house` holds them to it)::

    feeds, importer, web ──► writer ──► trades ─trigger─► live bars ──► aggregates
                                                             │
                             web ◄── queries ◄── klines_1s … klines_1d

Start with `interval`, `tables` and `alembic/sql/0001_trades_and_klines`, then `writer` and `queries`.
"""

__version__ = "0.1.0"
