"""Connections as the server's protocols see them, below the application: what one may take, and how it ends.

Order of reading: `http` (until an upgrade), `connection` (after it), then what they use.
"""
