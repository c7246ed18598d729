"""The command `klines`, many times in the time of one: a process that has imported it forks for every start.

For each line `{"argv", "env"}` on stdin it writes a line `{"code", "told"}` on stdout. Each start is a process with an
environment, an exit code and a stderr of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from typing import Any

from klines.__main__ import main

SECONDS = 20


def start(argv: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Run one command to its end; whoever serves instead of refusing is ended by the alarm."""
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if child == 0:
            _become(argv, env, told.fileno())
        _, status = os.waitpid(child, 0)
        told.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "told": told.read().decode()}


def _become(argv: list[str], env: dict[str, str], stderr: int) -> None:
    code = 0
    try:
        os.dup2(stderr, 2)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        signal.alarm(SECONDS)
        sys.argv = ["klines", *argv]
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 70
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(start(**json.loads(line))) + "\n")
        sys.stdout.flush()
