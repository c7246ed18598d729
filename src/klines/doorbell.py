"""The payload of a notification that says which tokens changed. Pure."""

from __future__ import annotations

import re

ANY_TOKEN = "*"
MAX_IDS = 4_000  # more do not fit into a payload
MAX_ID = 2**31 - 1

_IDS = re.compile(rf"[0-9]{{1,10}}(?:,[0-9]{{1,10}}){{0,{MAX_IDS - 1}}}")


def token_ids(payload: object) -> frozenset[int]:
    """The token ids of a payload, empty when it is not a list of them."""
    if not isinstance(payload, str) or not _IDS.fullmatch(payload):
        return frozenset()
    tokens = frozenset(map(int, payload.split(",")))
    return tokens if max(tokens) <= MAX_ID else frozenset()
