"""The account that PostgreSQL runs as, and commands run as that account.

PostgreSQL refuses root. Started as root, the service therefore hands the server to the system account `klines`,
which it creates if need be; started as anybody else, the server runs as that account. No directory is ever opened
to more accounts for this. Commands get no shell, no terminal, a fixed working directory, an environment of few
names (no secret of the service, no `PG…` variable) and a time limit.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from klines.errors import CannotStart

ACCOUNT = "klines"
COMMAND_SECONDS = 60
SAYS_WHY = re.compile(r"\b(?:error|fatal)\b", re.IGNORECASE)
PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
PROBE = 'for f in "$@"; do [ -{flag} "$f" ] || {{ printf %s "$f"; exit 1; }}; done'


class Account(msgspec.Struct, frozen=True):
    """An account of this machine; `switched` says that it is another one than ours, which only root can reach."""

    name: str
    uid: int
    gid: int
    switched: bool

    def run(
        self, argv: Sequence[str | Path], *, text: str = "", seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end and capture both outputs; `CannotStart` when it cannot be run or does not end in time."""
        try:
            return subprocess.run(  # noqa: S603 - a fixed program without a shell
                argv,
                input=text,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                cwd="/",
                env=environment(),
                user=self.uid if self.switched else None,
                group=self.gid if self.switched else None,
                extra_groups=[] if self.switched else None,
                check=False,
            )
        except OSError as error:
            raise CannotStart(f"{argv[0]}: cannot be run as {self.name}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise CannotStart(f"{argv[0]}: no end after {seconds:.0f} s") from None

    def spawn(self, argv: Sequence[str | Path], output: int) -> subprocess.Popen[bytes]:
        """Start a process that outlives us: in its own session, both outputs to the descriptor `output`."""
        try:
            return subprocess.Popen(  # noqa: S603 - a fixed program without a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment(),
                start_new_session=True,
                user=self.uid if self.switched else None,
                group=self.gid if self.switched else None,
                extra_groups=[] if self.switched else None,
                umask=0o077,
            )
        except OSError as error:
            raise CannotStart(f"{argv[0]}: cannot be run as {self.name}: {error.strerror}") from None

    def first_closed(self, directories: Iterable[Path]) -> Path | None:
        """The first of `directories` that the account cannot enter; asks the system, so ACLs count."""
        return self._first_failing("x", directories)

    def first_unreadable(self, files: Iterable[Path]) -> Path | None:
        """The first of `files` that the account cannot read."""
        return self._first_failing("r", files)

    def _first_failing(self, flag: str, paths: Iterable[Path]) -> Path | None:
        if not self.switched:
            return None
        found = self.run(["/bin/sh", "-c", PROBE.format(flag=flag), "sh", *paths])
        return Path(found.stdout) if found.returncode else None


def reason(stderr: str) -> str:
    """The line in which a program says why it failed: the first with an error, else the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["it gave no reason"]
    return next((line for line in lines if SAYS_WHY.search(line)), lines[-1])


def environment() -> dict[str, str]:
    """What PostgreSQL's programs get to see: English messages, UTC, nothing that steers libpq or the server."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"}


def our_account() -> Account:
    """The account that runs this process; `CannotStart` without a name, as peer authentication needs one."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise CannotStart(f"user id {uid} has no name on this machine, and PostgreSQL needs one") from None
    return Account(name, uid, os.getegid(), switched=False)


def server_account() -> Account:
    """The account for PostgreSQL: ours, or as root the system account `klines`, created when missing."""
    if os.geteuid() != 0:
        return our_account()
    account = _lookup() or _create()
    if account.uid == 0:
        raise CannotStart(f"the account {ACCOUNT} has user id 0, and PostgreSQL refuses to run as root")
    return account


def _lookup() -> Account | None:
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switched=True)


def _create() -> Account:
    if shutil.which("useradd"):
        argv = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
    elif shutil.which("adduser"):
        argv = ["adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", ACCOUNT]
    else:
        raise CannotStart(f"PostgreSQL refuses root, and no useradd is here to create the account {ACCOUNT}")
    made = our_account().run(argv)
    # Looked up even after a failure: another service may have created it in the same moment.
    account = _lookup()
    if account is None:
        raise CannotStart(f"PostgreSQL refuses root, and {argv[0]} cannot create {ACCOUNT}: {reason(made.stderr)}")
    return account
