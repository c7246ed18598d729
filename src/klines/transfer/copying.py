"""The course of a copy: what was forgotten first, then all trades, then what came meanwhile until both are level.

Resuming needs no notes: a copy carries over what the other side lacks, however far the last one came. A source whose
writers never rest is caught up with pass by pass, each shorter than the one before; the comparison at the end stills
each token for a moment and so finds both equal, also then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import asyncpg
import msgspec

from klines.database import translated
from klines.errors import CannotStart, Conflict
from klines.importer.progress import Step
from klines.transfer import statements
from klines.transfer.comparison import MAX_SHOWN, Difference, compare
from klines.transfer.contents import SLICE_ROWS, Token, put_forgotten, put_keys, put_tokens, put_trades
from klines.transfer.ends import Ends, open_ends

MAX_PASSES = 50

OnProgress = Callable[[Step], None]


class Copied(msgspec.Struct, frozen=True):
    """What a copy did: trades and forgotten bars that it carried over, bars that it compared, and how many differed."""

    tokens: int
    keys: int
    trades: int
    forgotten_bars: int
    passes: int
    bars_compared: int
    bars_different: int
    seconds: float
    differences: list[Difference] = []

    def __str__(self) -> str:
        compared = f"{self.bars_compared} bars compared, {self.bars_different} differ"
        return (
            f"{self.tokens} tokens, {self.keys} keys, {self.trades} trades and {self.forgotten_bars} bars of forgotten"
            f" trades copied in {self.seconds:.1f} s; {compared if self.bars_compared else 'no bars compared'}"
        )


async def copy_database(
    source_url: str, target_url: str, *, verify: bool = True, on_progress: OnProgress = lambda _: None
) -> Copied:
    """Copy the database at `source_url`, which may be in use, into the prepared one at `target_url`.

    Raises `BadRequest` for a target that holds something else, `CannotStart` for a login that may not do it, `Conflict`
    for what the target refuses to store, and `Unavailable` when either does not answer: then another run goes on.
    """
    start = time.monotonic()
    with translated():
        try:
            async with open_ends(source_url, target_url) as ends:
                keys = await put_keys(ends)
                forgotten = await _forgotten(ends, on_progress)
                tokens, trades, passes = await _level(ends, on_progress)
                bars, different, shown = await _compared(ends, tokens, on_progress) if verify else (0, 0, [])
        except asyncpg.InsufficientPrivilegeError as error:
            detail = f"the database cannot be used: {error}; a copy needs logins that own their databases"
            raise CannotStart(detail, code="copy_forbidden") from None
        except asyncpg.IntegrityConstraintViolationError as error:
            raise Conflict(f"--to: does not take a row: {error}", code="copy_refused") from None
    seconds = time.monotonic() - start
    return Copied(len(tokens), keys, trades, forgotten, passes, bars, different, seconds, shown)


async def _forgotten(ends: Ends, on_progress: OnProgress) -> int:
    if ends.floor <= ends.floor_before:
        return 0
    tokens, put = await put_tokens(ends), 0
    for number, token in enumerate(tokens, 1):
        put += await put_forgotten(ends, token)
        on_progress(Step("bars", put, number / len(tokens)))
    # Last: as long as it is not raised, the next run carries all of them over again.
    await ends.target.execute(statements.RAISE_FLOOR, ends.floor)
    return put


async def _level(ends: Ends, on_progress: OnProgress) -> tuple[list[Token], int, int]:
    """All tokens, how many trades were carried over, and in how many passes."""
    course = _Course(await _missing(ends), on_progress)
    seen: dict[int, int] = {}
    for number in range(1, MAX_PASSES + 1):
        # First the numbers: what is committed after them is the next pass's.
        sequences = dict(await ends.source.fetch(statements.SEQUENCES))
        tokens = await put_tokens(ends)
        changed = [token for token in tokens if sequences.get(token.source_id) != seen.get(token.source_id)]
        before = course.new
        for token in changed:
            course.new += await put_trades(ends, token, course.on_slice)
        if not changed or (number > 1 and course.new - before < SLICE_ROWS):
            break
        seen = sequences
    return tokens, course.new, number


async def _missing(ends: Ends) -> int:
    theirs = await ends.source.fetchval(statements.COUNT, ends.floor)
    ours = await ends.target.fetchval(statements.COUNT, ends.floor)
    return max(1, int(theirs) - int(ours))


class _Course:
    """Counts the rows of a copy against those that were missing when it began."""

    def __init__(self, missing: int, on_progress: OnProgress) -> None:
        self.new = 0
        self._rows = 0
        self._missing = missing
        self._on_progress = on_progress

    def on_slice(self, rows: int) -> None:
        self._rows += rows
        self._on_progress(Step("copying", self._rows, min(1.0, self._rows / self._missing)))


async def _compared(ends: Ends, tokens: list[Token], on_progress: OnProgress) -> tuple[int, int, list[Difference]]:
    bars, different, shown = 0, 0, list[Difference]()
    for number, token in enumerate(tokens, 1):
        verdict = await compare(ends, token)
        bars, different = bars + verdict.bars, different + verdict.different
        shown += verdict.shown[: MAX_SHOWN - len(shown)]
        on_progress(Step("comparing", bars, number / len(tokens)))
    return bars, different, shown
