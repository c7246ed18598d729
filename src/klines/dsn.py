"""What libpq reads in a URL and the driver does not: `connect_timeout`. Pure."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

MAX_DIGITS = 6


def split(url: str, otherwise: float) -> tuple[str, float]:
    """The URL as the driver reads it, and the seconds that it gives a connection to open; raises `ValueError`.

    None, or 0, which is no end to libpq, is `otherwise`.
    """
    address, mark, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    told = [value for name, value in pairs if name == "connect_timeout"]
    if not told:
        return url, otherwise
    if not told[-1].isascii() or not told[-1].isdigit() or len(told[-1]) > MAX_DIGITS:
        raise ValueError(f"connect_timeout={told[-1]}: must be a number of seconds")
    kept = urlencode([pair for pair in pairs if pair[0] != "connect_timeout"])
    return f"{address}{mark if kept else ''}{kept}", float(told[-1]) or otherwise
