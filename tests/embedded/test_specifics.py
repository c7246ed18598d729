"""F52: what only an embedded server meets, each with its outcome: it serves or says why not, and is never two.

The cases stand one by one, with all their rules, in `test_embedded_server`; here they are counted and timed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from klines.embedded import EmbeddedServer
from klines.embedded.account import server_account
from tests.embedded.test_embedded_server import (
    ask,
    base,
    data_dir,
    kill,
    line_with,
    orphan,
    postmaster_of,
    refusal,
    service,
)

__all__ = ["base", "data_dir"]
pytestmark = [pytest.mark.timeout(280), pytest.mark.fault("F52")]

MEGABYTE = 2**20


def postmasters(data_dir: Path) -> int:
    """How many processes lead a server on the cluster: their parents serve it not."""
    cluster = os.path.realpath(data_dir / "postgres")
    found = {}
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == cluster and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process.ppid()
        except psutil.Error:
            continue
    return sum(parent not in found for parent in found.values())


def test_a_pid_file_whose_pid_is_somebody_elses(data_dir: Path, figures: Callable[..., None]) -> None:
    with EmbeddedServer(data_dir):
        killed = postmaster_of(data_dir)
        told = (data_dir / "postgres" / "postmaster.pid").read_text().split("\n", 1)[1]
        kill(killed)
    account = server_account()
    with subprocess.Popen(["sleep", "600"], user=account.uid if account.switched else None) as unrelated:
        try:
            file = data_dir / "postgres" / "postmaster.pid"
            file.write_text(f"{unrelated.pid}\n{told}")
            os.chown(file, account.uid, -1)
            begun = time.monotonic()
            with EmbeddedServer(data_dir) as server:
                seconds = time.monotonic() - begun
                assert ask(server, "SELECT 1") == ["1"]
                assert unrelated.poll() is None
                assert postmasters(data_dir) == 1
        finally:
            unrelated.kill()
    figures("F52", outcome="started, the other process untouched", rto_s=seconds, postmasters=1)


def test_two_services_and_an_orphan(data_dir: Path, figures: Callable[..., None]) -> None:
    left = orphan(data_dir)
    begun = time.monotonic()
    with EmbeddedServer(data_dir) as server:
        seconds = time.monotonic() - begun
        assert postmaster_of(data_dir) == left
        with service(data_dir) as second:
            told = line_with(second, "refused")
            assert second.wait(10) == 3
        assert f"pid {os.getpid()}" in told
        assert ask(server, "SELECT 1") == ["1"]
        assert postmasters(data_dir) == 1
    assert postmasters(data_dir) == 0
    figures("F52", outcome="orphan adopted, second service refused with exit 3", rto_s=seconds, postmasters=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="root may write everywhere: plays another account, which needs root")
def test_a_directory_that_cannot_be_written(base: Path, figures: Callable[..., None]) -> None:
    (base / "file").write_text("")
    # Not even root may create below a file of the kernel's.
    told = [refusal(base / "file" / "data"), refusal(Path("/proc/klines"))]
    assert all(str(path) in line for path, line in zip((base / "file", "/proc/klines"), told, strict=True))
    figures("F52", outcome="refused in one line that names the path", lines=len(told))


@pytest.mark.slow
def test_a_long_replay_is_waited_for(data_dir: Path, figures: Callable[..., None]) -> None:
    options = {"max_wal_size": "4GB", "checkpoint_timeout": "1h", "wal_compression": "off"}
    with EmbeddedServer(data_dir, options=options) as server:
        start = ask(server, "CHECKPOINT; SELECT pg_current_wal_lsn()")[-1]
        ask(
            server,
            "CREATE TABLE kept AS SELECT n, repeat(md5(n::text), 30) AS filler FROM generate_series(1, 350000) n",
        )
        written = int(ask(server, f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint")[0])
        assert written >= 300 * MEGABYTE
        postmaster_of(data_dir).send_signal(signal.SIGKILL)
    begun = time.monotonic()
    with EmbeddedServer(data_dir, options=options) as server:
        seconds = time.monotonic() - begun
        assert ask(server, "SELECT count(*) FROM kept") == ["350000"]
        ask(server, "DROP TABLE kept")
        assert postmasters(data_dir) == 1
    figures("F52", outcome="recovered", rto_s=seconds, wal_mb=written / MEGABYTE, lost=0)
