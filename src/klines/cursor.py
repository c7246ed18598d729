"""Where in a token's feed a stream stands: the text a client gives back to continue right after a message. Pure.

A stream of trades stands behind a number of trades. A stream of bars also stands at a moment, up to which it has told
bars closed, in epoch milliseconds; and since one read of the feed can make several messages, `ahead` says how far in
the feed the bars that had ended by that moment already are.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from klines.errors import BadRequest, echo

_TEXT = re.compile(r"([0-9a-f]{12})\.([0-9]{1,10})\.([0-9]{1,18})(?:\.([0-9]{1,6})\.([0-9]{1,15})\.([0-9]{1,18}))?")


class Stream(NamedTuple):
    """What a socket carries: the bars of one width of a token, or with 0 seconds its trades."""

    token_id: int
    seconds: int = 0


class Place(NamedTuple):
    """A place in a token's feed: behind `sequence` trades; the rest is for bars, and 0 without."""

    sequence: int
    moment_ms: int = 0
    ahead: int = 0


class Cursor(NamedTuple):
    """A place in one stream of the database called `epoch`."""

    epoch: str
    stream: Stream
    place: Place

    def __str__(self) -> str:
        sequence, moment_ms, ahead = self.place
        text = f"{self.epoch}.{self.stream.token_id}.{sequence}"
        return f"{text}.{self.stream.seconds}.{moment_ms}.{ahead}" if self.stream.seconds else text


def parse_cursor(text: str, stream: Stream) -> Cursor:
    """The cursor of this stream in `text`; raises `BadRequest` for anything else, another stream's cursor included."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise BadRequest(f"cursor {echo(text)}: not a cursor of ours", code="cursor_invalid")
    epoch, token_id, sequence, seconds, moment_ms, ahead = found.groups(default="0")
    if Stream(int(token_id), int(seconds)) != stream:
        raise BadRequest(f"cursor {echo(text)}: belongs to another stream", code="cursor_invalid")
    return Cursor(epoch, stream, Place(int(sequence), int(moment_ms), int(ahead)))
