"""Resolutions: how charts name the width of a bar. Pure.

`60` is sixty minutes, `15S` fifteen seconds, `D` and `1D` a day, `W` a week (TradingView's page "Resolution"). Our own
names are taken too, as some clients send them (ccxt's mercado: `15m`). They differ only by case, so `1M` is what it is
everywhere in the field: a month, which no bar here is wide.
"""

from __future__ import annotations

import re

from klines.errors import BadRequest, echo
from klines.interval import Width, parse_interval

SECONDS = ("1", "5", "15", "30")
MINUTES = ("1", "3", "5", "15", "30", "45", "60", "90", "120", "240", "360", "720")
DAYS = ("1", "3")
WEEKS = ("1",)
LADDER = (
    *(f"{number}S" for number in SECONDS),
    *MINUTES,
    *(f"{number}D" for number in DAYS),
    *(f"{number}W" for number in WEEKS),
)
# A poll asks for two bars; a width of which not even these can be made of stored ones is none.
FEWEST = 2

_RESOLUTION = re.compile(r"([1-9][0-9]{0,5})?([SHDW])|([1-9][0-9]{0,5})", re.ASCII)


def parse_resolution(text: str) -> Width:
    """The width called `text`; raises `BadRequest`."""
    found = _RESOLUTION.fullmatch(text)
    name = text
    if found is not None:
        name = f"{found[3]}m" if found[3] else f"{found[1] or 1}{found[2].lower()}"
    try:
        width = parse_interval(name)
    except BadRequest:
        width = None
    if width is None or width.most < FEWEST:
        rule = "must be minutes such as 60, or a number with S, D or W, up to a week; months are not served"
        raise BadRequest(f"resolution {echo(text)}: {rule}", code="resolution_invalid")
    return width
