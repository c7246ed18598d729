"""Which methods only read: for keys, budgets, origins and deadlines alike."""

from __future__ import annotations

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""The safe methods of RFC 9110, 9.2.1, but for TRACE, which no route takes."""
