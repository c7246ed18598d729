"""Answers that several wait for: none from before it was asked for, each question read once at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.errors import Unavailable
from klines.web.joint import JointAnswers


class Source:
    """Something that changes, and readings of it that take as long as they are made to."""

    def __init__(self) -> None:
        self.version = 0
        self.begun = 0
        self.at_once: Counter[str] = Counter()
        self.most = 0
        self.held = asyncio.Semaphore(0)
        self.joint = JointAnswers()

    async def read(self, question: str) -> bytes:
        self.begun += 1
        self.at_once[question] += 1
        self.most = max(self.most, self.at_once[question])
        seen = b"%d" % self.version
        try:
            await self.held.acquire()
        finally:
            self.at_once[question] -= 1
        return seen

    async def ask(self, question: str) -> None:
        asked = self.version
        assert int(await self.joint.answer(question, lambda: self.read(question))) >= asked


async def turned() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


STEPS = st.lists(st.sampled_from(["ask a", "ask b", "change", "finish", "leave"]), max_size=60)


@given(STEPS)
def test_no_answer_is_older_than_its_question(steps: list[str]) -> None:
    async def course() -> None:
        source, asking = Source(), list[asyncio.Task[None]]()
        for step in steps:
            if step.startswith("ask"):
                asking.append(asyncio.create_task(source.ask(step)))
            elif step == "leave" and asking:
                asking.pop(len(asking) // 2).cancel()
            elif step == "finish":
                source.held.release()
            else:
                # Whoever was told to ask has asked by now.
                await turned()
                source.version += 1
        await turned()
        assert source.most <= 1
        source.held = asyncio.Semaphore(10**6)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await turned()
        assert not source.joint._under_way
        assert not source.joint._next
        # What was answered was new enough.
        assert all(task.cancelled() or task.exception() is None for task in asking)

    asyncio.run(course())


async def test_those_who_ask_meanwhile_share_the_next_reading() -> None:
    source = Source()
    asking = [asyncio.create_task(source.ask("a"))]
    await turned()
    asking += [asyncio.create_task(source.ask("a")) for _ in range(50)]
    await turned()
    for _ in range(2):
        source.held.release()
    await asyncio.gather(*asking)
    assert source.begun == 2


async def test_a_reading_that_nobody_waits_for_ends() -> None:
    source = Source()
    asking = [asyncio.create_task(source.ask("a")) for _ in range(2)]
    await turned()
    asking[0].cancel()
    await turned()
    assert source.at_once["a"] == 1
    asking[1].cancel()
    await turned()
    assert source.at_once["a"] == 0
    source.held.release()
    await source.ask("a")


async def test_all_who_wait_are_told_of_an_error() -> None:
    async def fail() -> bytes:
        await asyncio.sleep(0)
        raise ValueError("no")

    joint = JointAnswers()
    for answer in await asyncio.gather(*(joint.answer("a", fail) for _ in range(3)), return_exceptions=True):
        assert isinstance(answer, ValueError)
    with pytest.raises(ValueError, match="no"):
        await joint.answer("a", fail)


async def test_who_waits_for_one_that_cannot_be_read_does_not_wait_twice() -> None:
    joint, away, readings = JointAnswers(), asyncio.Event(), 0

    async def read() -> bytes:
        nonlocal readings
        readings += 1
        await away.wait()
        raise Unavailable("the database does not answer", code="database_unavailable")

    asking = [asyncio.create_task(joint.answer("a", read))]
    await turned()
    asking += [asyncio.create_task(joint.answer("a", read)) for _ in range(3)]
    await turned()
    away.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable] * 4
    assert readings == 1
    # Whoever asks from now on is read for again.
    with pytest.raises(Unavailable):
        await joint.answer("a", read)
    assert readings == 2
