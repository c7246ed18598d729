"""The embedded server as its owner sees it: open it, use its URL, leave it.

While the context is open the service holds the data directory alone, and the server runs with fsync, full page writes,
synchronous commit and data checksums; this is read back from the server, not assumed. Leaving stops the server and
removes nothing. If the service is killed instead, the server goes on, and the next service on the directory adopts it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import quote

from klines.embedded.account import our_account, reason, server_account
from klines.embedded.cluster import ROLE, SERVICE, SOCKET_PORT, ensure_cluster, postmaster_command
from klines.embedded.directory import DataDirectory
from klines.embedded.installation import Installation, discard_other_copies, installation_for
from klines.embedded.keeper import kept_running
from klines.embedded.postmaster import open_postmaster, read_pid_file, running_postmaster
from klines.errors import CannotStart

DATABASE = "klines"
MUST_BE_ON = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")
SCRAM_ROUNDS = 4096
PREPARE = """\
SELECT 'CREATE DATABASE klines' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'klines') \\gexec
\\connect klines
SELECT pg_reload_conf();
SELECT name FROM pg_settings WHERE setting = 'on';
"""


class EmbeddedServer:
    """A context in which the server of `data_dir` runs; entering raises `CannotStart` with one line of reason.

    `tcp_port` opens a loopback port besides the socket, 0 does not; `options` are PostgreSQL settings by name and win
    over ours, except over those that say where the server listens and who may log in. With `keep` a server that dies
    while the context is open is started again.
    """

    def __init__(
        self,
        data_dir: Path,
        tcp_port: int = 0,
        options: Mapping[str, str] = MappingProxyType({}),
        *,
        keep: bool = False,
    ) -> None:
        self._place = DataDirectory.at(data_dir)
        self._tcp_port = tcp_port
        self._options = options
        self._keep = keep
        self._installation: Installation | None = None
        self._open = ExitStack()
        self.tcp_url: str | None = None

    @property
    def url(self) -> str:
        """The URL over the socket, for asyncpg, psql and, with its own scheme, SQLAlchemy."""
        return _socket_url(self._place.sockets, self._tcp_port or SOCKET_PORT)

    @property
    def service_url(self) -> str:
        """The same for `klines_service`, once the role is made: what a service needs, and no superuser."""
        return _socket_url(self._place.sockets, self._tcp_port or SOCKET_PORT, role=SERVICE)

    def binary(self, name: str) -> Path:
        """The path of one PostgreSQL program, such as `psql`; only while the context is open."""
        if self._installation is None:
            raise RuntimeError("the server is not open")
        return self._installation.binary(name)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            account = server_account()
            self._place.prepare(account)
            undo.enter_context(self._place.locked())
            self._place.prepare_sockets(account)
            self._installation = installation_for(account, self._place.path)
            ensure_cluster(self._place, self._installation, account)
            command = postmaster_command(self._place, self._installation, account, self._tcp_port, self._options)
            seat = undo.enter_context(open_postmaster(self._place, command, account))
            discard_other_copies(self._place.path, self._installation)
            self._verify()
            if self._tcp_port:
                self._let_in_by_password(self._place.password())
            if self._keep:
                undo.enter_context(kept_running(seat))
            self._open = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _verify(self) -> None:
        """Create the database when missing, and read back what durability rests on.

        A server that was adopted reads the access rules of this start.
        """
        kept = self._psql("postgres", PREPARE).split()
        off = [name for name in MUST_BE_ON if name not in kept]
        if off:
            raise CannotStart(f"{self._place.path}: the server runs with {', '.join(off)} off, which can lose trades")

    def _let_in_by_password(self, password: str) -> None:
        # A verifier, not the password: a statement can end up in a log.
        self._psql("postgres", f"ALTER ROLE {ROLE} PASSWORD '{scram_verifier(password)}';")
        self.tcp_url = _tcp_url(password, self._tcp_port)

    def _psql(self, database: str, script: str) -> str:
        url = _socket_url(self._place.sockets, self._tcp_port or SOCKET_PORT, database)
        command = [str(self.binary("psql")), "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", url]
        done = our_account().run(command, text=script)
        if done.returncode:
            raise CannotStart(f"{self._place.path}: the server cannot be used: {reason(done.stderr)}")
        return done.stdout


def has_cluster(data_dir: Path) -> bool:
    """Whether a server was ever opened on `data_dir`."""
    return DataDirectory.at(data_dir).cluster.exists()


def running_url(data_dir: Path) -> str | None:
    """The URL of the server that runs on `data_dir` now, whoever started it; starts, locks and creates nothing."""
    cluster = DataDirectory.at(data_dir).cluster
    told = read_pid_file(cluster)
    if told is None or running_postmaster(cluster) is None:
        return None
    return _socket_url(told.sockets, told.port)


def tcp_url(data_dir: Path, port: int) -> str:
    """The loopback URL of a server that was opened with this port, with the password that its owner may read."""
    return _tcp_url(DataDirectory.at(data_dir).password(), port)


def _tcp_url(password: str, port: int) -> str:
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{DATABASE}"


def scram_verifier(password: str) -> str:
    """The form in which PostgreSQL stores a password (RFC 5803), with a fresh salt; the password must be ASCII."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    served = hmac.digest(salted, b"Server Key", "sha256")
    in_text = [base64.b64encode(part).decode() for part in (salt, stored, served)]
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{in_text[0]}${in_text[1]}:{in_text[2]}"


def _socket_url(sockets: Path, port: int, database: str = DATABASE, role: str = ROLE) -> str:
    return f"postgresql://{role}@/{database}?host={quote(str(sockets), safe='')}&port={port}"
