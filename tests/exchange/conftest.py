"""Real trades with the exchanges' own bars. They are not part of the project: without them the tests skip by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PLACES = (os.environ.get("TEST_EXCHANGE_DATA", ""), str(Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def exchange_data() -> Path:
    for place in PLACES:
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip("real exchange data: TEST_EXCHANGE_DATA names no directory")
