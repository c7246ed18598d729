"""Whether a listener counts as silent: one that stands proves itself, however quiet the market is."""

from __future__ import annotations

import asyncio

import pytest

from klines.hub import Hub
from klines.listener import Doorbell, Resumed, Silenced
from klines.relay.asks import Asks
from klines.relay.pulse import Pulse
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
