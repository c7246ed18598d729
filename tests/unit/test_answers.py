"""`klines.web.answers` by itself: when an answer stands, and how much is held."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from klines.errors import Unavailable
from klines.interval import Width
from klines.queries.klines import Page
from klines.queries.versions import Version
from klines.web.answers import MAX_ANSWERS, MAX_BODY, MAX_BYTES, Answer, Answers, Question
from klines.web.joint import JointAnswers

NOW = 1_700_000_000_000
WIDTHS = st.sampled_from([Width(1), Width(60), Width(45), Width(604_800), Width(86_400, 3600)])


def question(token_id: int, width: Width = Width(60), fill: str = "none") -> Question:  # noqa: B008 - a constant
    return Question(token_id, width, 500, None, None, "prev" if fill == "prev" else "none")


@given(
    WIDTHS, st.integers(-3, 3), st.integers(0, 10**9), st.integers(-(10**9), 10**9), st.sampled_from(["none", "prev"])
)
def test_an_answer_stands_only_while_time_changes_nothing(
    width: Width, ahead: int, at_ms: int, later_ms: int, fill: str
) -> None:
    made_ms = NOW + at_ms
    last_ms = width.floor(made_ms) + ahead * width.milliseconds
    answer = Answer(question(1, width, fill), Page("", last_ms, "1 1"), b"", made_ms)
    assert answer.stands(made_ms)
    moment_ms = made_ms + later_ms
    if answer.stands(moment_ms):
        for open_ms in range(last_ms - 5 * width.milliseconds, last_ms + 1, width.milliseconds):
            end_ms = open_ms + width.milliseconds
            assert (end_ms <= made_ms) == (end_ms <= moment_ms) or end_ms < last_ms
        assert fill == "none" or width.floor(made_ms) == width.floor(moment_ms)


class Desk:
    """Answers whose pages are made up; counts what was read, and what was asked of versions."""

    def __init__(self) -> None:
        self.answers = Answers(JointAnswers())
        self.read = 0
        self.now: Version = "1 1"
        self.away = False
        self.reading = asyncio.Event()

    async def ask(self, token_id: int, size: int = 10) -> bytes:
        asked = question(token_id)

        async def version(_: int) -> Version:
            if self.away:
                raise Unavailable("away")
            return self.now

        async def read() -> Answer:
            self.read += 1
            now = self.now
            self.reading.set()
            await asyncio.sleep(0)
            return Answer(asked, Page("", NOW - 60_000, now), b"x" * size, NOW)

        return (await self.answers.answer(asked, NOW, version, read)).body


async def test_what_is_held_is_sent_again_until_its_version_changes() -> None:
    desk = Desk()
    for expected, version, away in ((1, "1 1", False), (1, "1 1", False), (2, "1 2", False), (3, "1 2", True)):
        desk.now, desk.away = version, away
        await desk.ask(1)
        assert desk.read == expected


async def test_what_is_held_is_bounded_and_the_oldest_use_goes_first() -> None:
    desk = Desk()
    for token_id in range(3):
        await desk.ask(token_id, MAX_BYTES // 20)
    await desk.ask(0)
    for token_id in range(3, 21):
        await desk.ask(token_id, MAX_BYTES // 20)
    before = desk.read
    await desk.ask(0)
    assert desk.read == before
    await desk.ask(1)
    assert desk.read == before + 1
    await desk.ask(99, MAX_BODY + 1)
    await desk.ask(99, MAX_BODY + 1)
    assert desk.read == before + 3


async def test_small_answers_are_bounded_too() -> None:
    desk = Desk()
    for token_id in range(MAX_ANSWERS + 1):
        await desk.ask(token_id, 0)
    await desk.ask(1)
    assert desk.read == MAX_ANSWERS + 1
    await desk.ask(0)
    assert desk.read == MAX_ANSWERS + 2


async def test_what_is_being_read_when_all_is_forgotten_is_not_held() -> None:
    desk = Desk()
    asking = asyncio.create_task(desk.ask(1))
    await desk.reading.wait()
    desk.answers.forget()
    await asking
    await desk.ask(1)
    assert desk.read == 2
    await desk.ask(1)
    assert desk.read == 2
