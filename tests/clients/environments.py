"""Where real clients live: each in an environment of its own under `build/clients`, made from pinned requirements.

A quick one is made when a test wants it. The others are made by `make test-clients`, which is this module run; without
it their tests are skipped by name. An environment is made anew when its requirements change.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HERE = ROOT / "build" / "clients"
REQUIREMENTS = Path(__file__).parent / "requirements"
PROGRAMS = Path(__file__).parent / "programs"
# For all tests that want a quick one together; `make test-clients` has more patience.
QUICK_SECONDS = 60
INSTALL_SECONDS = 280


class CannotInstall(Exception):
    """Why an environment cannot be made here."""


class Environment(NamedTuple):
    """A client's environment: `name` is that of its requirements, `.txt` for pip or `.json` for npm."""

    name: str
    quick: bool = False

    @property
    def directory(self) -> Path:
        """Where it is."""
        return HERE / self.name

    @property
    def requirements(self) -> Path:
        """What it is made from."""
        found = REQUIREMENTS / f"{self.name}.txt"
        return found if found.exists() else found.with_suffix(".json")

    def program(self, name: str) -> str:
        """A program that was installed with it, or that is on the PATH for those of npm."""
        return name if self.requirements.suffix == ".json" else str(self.directory / "bin" / name)

    def installed(self) -> bool:
        """Whether it is there, made from the present requirements."""
        stamp = self.directory / "made-from"
        return stamp.exists() and stamp.read_text() == self._stamp()

    def install(self, seconds: float = INSTALL_SECONDS) -> None:
        """Make it in this time, unless it is there; raises `CannotInstall`."""
        HERE.mkdir(parents=True, exist_ok=True)
        with (HERE / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.installed():
                return
            shutil.rmtree(self.directory, ignore_errors=True)
            (self._npm if self.requirements.suffix == ".json" else self._pip)(seconds)
            (self.directory / "made-from").write_text(self._stamp())

    def wanted(self) -> None:
        """Skip the test that asks, by name and with the reason, unless the environment is there or quickly made."""
        if self.installed():
            return
        if not self.quick:
            pytest.skip(f"{self.name} is not installed: make test-clients installs it")
        if (reason := _quickly(self)) is not None:
            pytest.skip(f"{self.name} cannot be installed: {reason}")

    def _stamp(self) -> str:
        return f"{sha256(self.requirements.read_bytes()).hexdigest()} {sys.version_info[:2]}"

    def _pip(self, seconds: float) -> None:
        _run(seconds, sys.executable, "-m", "venv", str(self.directory))
        pip = (self.program("python"), "-m", "pip", "install", "-q", "--disable-pip-version-check")
        _run(seconds, *pip, "--prefer-binary", "-r", str(self.requirements))

    def _npm(self, seconds: float) -> None:
        if shutil.which("npm") is None or shutil.which("node") is None:
            raise CannotInstall("there is no Node.js on this machine")
        self.directory.mkdir()
        shutil.copy(self.requirements, self.directory / "package.json")
        _run(seconds, "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", str(self.directory))


CCXT = Environment("ccxt", quick=True)
PYTHON_BINANCE = Environment("python-binance")
CONNECTOR = Environment("binance-connector")
SDK = Environment("binance-sdk-spot")
WEBSOCAT = Environment("websocat")
FREQTRADE = Environment("freqtrade")
NPM = Environment("npm")
ALL = (CCXT, PYTHON_BINANCE, CONNECTOR, SDK, WEBSOCAT, NPM, FREQTRADE)


@cache
def _quickly(environment: Environment) -> str | None:
    """Make a quick environment, at the first call; why not, if it cannot be made."""
    try:
        environment.install(QUICK_SECONDS)
    except CannotInstall as error:
        return str(error)
    return None


def _run(seconds: float, *command: str) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=os.environ)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{command[0]} took longer than {seconds:.0f} s") from None
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise CannotInstall(f"{Path(command[0]).name}: {lines[-1]}")


def install_all() -> None:
    """Make them all; those that cannot be made are named, and their tests will be skipped."""
    for environment in ALL:
        try:
            environment.install()
        except CannotInstall as error:
            sys.stderr.write(f"{environment.name}: {error}\n")


if __name__ == "__main__":
    install_all()
