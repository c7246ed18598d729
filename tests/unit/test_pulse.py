"""Whether a listener counts as silent: one that stands proves itself, however quiet the market is."""

from __future__ import annotations

import asyncio

import pytest

from klines.hub import Hub
from klines.listener import Doorbell, Resumed, Silenced
from klines.relay.asks import Asks
from klines.relay.pulse import PULSE_SECONDS, STALE_SECONDS, Pulse
from klines.relay.schedule import Schedule
from klines.web.health import SILENT_SECONDS


async def test_only_one_that_fell_silent_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    pulse = Pulse(Hub(), Schedule(0.02), Asks())
    now += 2
    assert pulse.silent_seconds == 2, "since the start"
    pulse.heard(Resumed())
    now += 100 * SILENT_SECONDS
    assert pulse.silent_seconds == 0, "a market without trades is no fault"
    pulse.heard(Doorbell(None))
    pulse.heard(Silenced())
    assert pulse.silent_seconds == 0
    now += SILENT_SECONDS + 1
    assert pulse.silent_seconds == SILENT_SECONDS + 1
    pulse.heard(Silenced())
    assert pulse.silent_seconds == SILENT_SECONDS + 1, "told twice, it does not begin anew"
    pulse.heard(Resumed())
    assert pulse.silent_seconds == 0


async def test_what_the_event_loop_was_late_is_not_held_against_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    pulse = Pulse(Hub(), Schedule(0.02), Asks())
    pulse.succeeded(now, 0)
    beating = asyncio.create_task(pulse.beat())

    async def later(seconds: float) -> None:
        nonlocal now
        now += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    await later(0)
    await later(10 * STALE_SECONDS)
    assert pulse.state == "live", "it was blocked, and could not read what had come"
    pulse.succeeded(now, 0)
    states = []
    for _ in range(round(STALE_SECONDS / PULSE_SECONDS) + 1):
        states.append(str(pulse.state))
        await later(PULSE_SECONDS)
    assert states == ["live"] * len(states)
    assert str(pulse.state) == "stale"
    beating.cancel()
