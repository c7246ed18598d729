"""The embedded PostgreSQL server, the default database: owned by one service, private to one account, crash-safe.

Order of reading: `server` (what a caller sees), `postmaster` (the process), `keeper` (that
starts it again), `remains` (what a dead one leaves), `cluster` (what it serves and with which
settings), `directory` (what lies where, and who may hold it), `installation` (the binaries), `account` (who runs it).
"""

from __future__ import annotations

from klines.embedded.installation import wheel_binary
from klines.embedded.server import EmbeddedServer, has_cluster, running_url, tcp_url

__all__ = ["EmbeddedServer", "has_cluster", "running_url", "tcp_url", "wheel_binary"]
