"""klines: trades in, exact candlesticks and live streams out, on a database that analysts can query.

The flow, in the direction in which modules may import each other (`tests/house` holds them to it)::

    feeds, importer, web ──► writer ──► trades ─trigger─► live bars ──► aggregates
                                          │  └─trigger─► tape, NOTIFY    │
                             web ◄── queries ◄── klines_1s … klines_1d ──┘
                              ▲         │
                             hub ◄── relay ◄── listener

Start with `interval`, `tables` and `alembic/sql/0003_klines`, then `writer` and `queries`; for the streams `cursor`,
`queries.changes`, `relay` and `hub`, after `alembic/sql/0005_tape`. Database objects carry a version
(`fold_trades_v1`), so that a later migration can bring a new one beside the old.
"""

__version__ = "0.1.0"
