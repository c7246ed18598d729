"""Copies a database to another server, in whatever storage profile that one allows: `klines db copy`.

Order of reading: `copying` (the course of a copy), `ends` (the two databases, and what is refused), `contents` (what is
carried over, and how), `comparison` (that both hold the same), `statements` (the SQL). Whatever ends a copy, the next
one goes on: it carries over what the other side does not have yet.
"""
