"""A file as lines of text: a regular file, plain or gzip, UTF-8, with a few pieces of it in memory at the most.

Every way in which a file can be no such text is a `BadRequest` that names the file and, where there is one, the line.
"""

from __future__ import annotations

import io
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from klines.errors import BadRequest, echo

PIECE_BYTES = 256 * 1024
MAX_LINE_BYTES = 1024 * 1024
BOMB_BYTES = 64 * 1024 * 1024
BOMB_RATIO = 1000

_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
_LINE_END = re.compile(rb"[\r\n]")
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """The file at `path`, which may be a symbolic link to it; raises `BadRequest`."""
    name = str(path) if str(path).isprintable() else echo(str(path))
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
            raise refusal(name, f"must be a regular file, this is {kind}")
        file = path.open("rb", buffering=0)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(name, error) from None
    with file:
        yield Source(name, file, found.st_size)


class Source:
    """One pass over a file; `name` is how messages call it."""

    def __init__(self, name: str, file: io.RawIOBase, size: int) -> None:
        self.name = name
        self._file = file
        self._size = size
        self._position = 0

    @property
    def share(self) -> float:
        """How much of the file has been read, 0 to 1."""
        return self._position / self._size if self._size else 1.0

    def lines(self) -> Iterator[str]:
        """The lines with their ends, without a byte order mark; raises `BadRequest`, at the latest possible moment."""
        return chain.from_iterable(io.StringIO(block, newline="") for block in self._blocks())

    def _blocks(self) -> Iterator[str]:
        """Text that ends where a line ends."""
        line, rest = 1, b""
        for piece in self._whole_ends():
            first = _LINE_END.search(piece)
            if len(rest) + (first.start() if first else len(piece)) > MAX_LINE_BYTES:
                raise refusal(self.name, f"the line is longer than {MAX_LINE_BYTES} bytes", line)
            cut = max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
            block, rest = (rest + piece[:cut], piece[cut:]) if cut else (b"", rest + piece)
            if block:
                yield self._text(block, line)
                line += _line_ends(block)
        if rest:
            yield self._text(rest, line)

    def _whole_ends(self) -> Iterator[bytes]:
        """The pieces, none of which ends inside of a CRLF."""
        held = b""
        for piece in self._pieces():
            joined = held + piece
            held = b"\r" if joined.endswith(b"\r") else b""
            yield joined.removesuffix(b"\r") if held else joined
        if held:
            yield held

    def _text(self, block: bytes, line: int) -> str:
        nul = block.find(b"\0")
        if nul >= 0:
            raise refusal(self.name, "holds a NUL byte: it must be UTF-8 text", line + _line_ends(block[:nul]))
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            raise refusal(self.name, "must be UTF-8", line + _line_ends(block[: error.start])) from None
        return text.removeprefix("\ufeff") if line == 1 else text

    def _pieces(self) -> Iterator[bytes]:
        piece = self._read()
        if piece.startswith(_GZIP):
            yield from self._inflated(piece)
            return
        while piece:
            yield piece
            piece = self._read()

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        """What is in a gzip file of one or more members."""
        produced = 0
        while data or (data := self._read()):
            member = zlib.decompressobj(wbits=_GZIP_WINDOW)
            while not member.eof:
                if not data and not (data := self._read()):
                    raise refusal(self.name, "the gzip file is truncated")
                try:
                    piece = member.decompress(data, PIECE_BYTES)
                except zlib.error:
                    raise refusal(self.name, "the gzip file is damaged") from None
                data = member.unconsumed_tail or member.unused_data
                produced += len(piece)
                if produced > BOMB_BYTES and produced > BOMB_RATIO * (self._position - len(data)):
                    raise refusal(self.name, f"the gzip file expands more than {BOMB_RATIO} times")
                if piece:
                    yield piece

    def _read(self) -> bytes:
        try:
            piece = self._file.read(PIECE_BYTES) or b""
        except OSError as error:
            raise _unreadable(self.name, error) from None
        self._position += len(piece)
        if self._position > self._size:
            raise refusal(self.name, "grew while it was read")
        return piece


def refusal(name: str, rule: str, line: int | None = None) -> BadRequest:
    """What to raise for a file that cannot be read to its end."""
    place = name if line is None else f"{name}:{line}"
    return BadRequest(f"{place}: {rule}; nothing was stored", code="file_invalid")


def _unreadable(name: str, error: OSError | ValueError) -> BadRequest:
    reason = error.strerror if isinstance(error, OSError) else None
    return refusal(name, f"cannot be read: {(reason or 'no such name').lower()}")


def _line_ends(block: bytes) -> int:
    return block.count(b"\n") + (block.count(b"\r") - block.count(b"\r\n") if b"\r" in block else 0)
