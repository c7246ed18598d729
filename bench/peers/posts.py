"""Posts files of NDJSON to a service on loopback, so many at a time, and tells what it took.

It needs the standard library only. `posts.py PORT IN_FLIGHT FILE…`: bodies are read before the time begins, and each
connection is a thread that takes the next body in order. Writes `{"seconds", "cpu", "inserted"}`; a body that is not
all stored as new is an error.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HEADERS = {"Content-Type": "application/x-ndjson"}


def main(port: int, in_flight: int, files: list[str]) -> None:
    """Post all files and write the figures."""
    bodies = [Path(file).read_bytes() for file in files]
    numbers, turn = itertools.count(), threading.Lock()

    def posted() -> int:
        connection, inserted = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
        while True:
            with turn:
                number = next(numbers)
            if number >= len(bodies):
                return inserted
            connection.request("POST", "/api/v1/trades", bodies[number], HEADERS)
            answer = connection.getresponse()
            text = answer.read()
            receipt = json.loads(text)
            if answer.status != http.HTTPStatus.OK or receipt["inserted"] != receipt["received"]:
                raise RuntimeError(f"{files[number]}: {answer.status} {text[:500]!r}")
            inserted += receipt["inserted"]

    with ThreadPoolExecutor(in_flight) as threads:
        began, cpu = time.monotonic(), time.process_time()
        inserted = sum(one.result() for one in [threads.submit(posted) for _ in range(in_flight)])
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    json.dump({"seconds": seconds, "cpu": cpu, "inserted": inserted}, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
