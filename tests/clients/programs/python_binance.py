"""python-binance by REST, pointed at a base URL."""

# mypy: disable-error-code="import-not-found,misc"

from __future__ import annotations

import sys

import binance
from answering import answer_calls


class Client(binance.Client):
    """The client as it is, elsewhere."""

    API_URL = sys.argv[1] + "/api"


client = Client()
answer_calls(lambda name: getattr(client, name))
