"""Logging of a process: lines on standard error, one per event."""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure(level: str) -> None:
    """Set up the root logger; the database's drivers and the migrations speak only when something is wrong."""
    logging.basicConfig(format=FORMAT, level=level.upper(), force=True)
    for name in ("alembic", "asyncio", "sqlalchemy", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
