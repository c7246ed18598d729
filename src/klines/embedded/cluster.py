"""The database cluster: made whole or not at all, open to two accounts, started with settings that keep what it stored.

Nobody is trusted: the socket asks the system who connects (`peer`) and lets the service's account and PostgreSQL's own
account be the role `klines`, and the service's be `klines_service` too, which is no superuser: a service that logs in
as that cannot become the other in its session. TCP, loopback only, asks for the password (`scram-sha-256`). The access
rules and all settings are passed at every start, so what lies in the cluster cannot weaken them.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from klines.embedded.account import Account, our_account, reason
from klines.embedded.directory import DataDirectory, give, refused, replace_file
from klines.embedded.installation import Installation
from klines.errors import CannotStart

ROLE = "klines"
SERVICE = "klines_service"
SOCKET_PORT = 5432
INITDB_SECONDS = 900
UNFINISHED_PREFIX = "postgres.new-"
INITDB_OPTIONS = (
    f"--username={ROLE}",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--data-checksums",
    "--auth-local=peer",
    "--auth-host=scram-sha-256",
    "--no-instructions",
)
HBA = """\
local  all          all                peer map=klines
local  replication  all                peer map=klines
host   all          all  127.0.0.1/32  scram-sha-256
"""
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "jit": "off",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "autovacuum_naptime": "15s",
    "max_connections": "200",
    # Every chunk that a statement touches is a lock, and a token's history has a chunk for every day.
    "max_locks_per_transaction": "1024",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "log_destination": "stderr",
}
TIMESCALEDB_SETTINGS = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    "timescaledb.max_background_workers": "16",
    "max_worker_processes": "40",
}

log = logging.getLogger("klines.embedded")


def ensure_cluster(place: DataDirectory, installation: Installation, account: Account) -> None:
    """Make the cluster when there is none; `CannotStart` when what is there is not one that this server can open."""
    for unfinished in place.path.glob(f"{UNFINISHED_PREFIX}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    with refused(place.cluster):
        if not place.cluster.exists() or (place.cluster.is_dir() and not any(place.cluster.iterdir())):
            _initialise(place, installation, account)
        _check(place.cluster, installation, account)


def _initialise(place: DataDirectory, installation: Installation, account: Account) -> None:
    log.info("creating a database cluster in %s", place.cluster)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED_PREFIX, dir=place.path))
    try:
        give(unfinished, account)
        command = [str(installation.binary("initdb")), f"--pgdata={unfinished}", *INITDB_OPTIONS]
        made = account.run(command, seconds=INITDB_SECONDS)
        if made.returncode:
            raise CannotStart(f"{place.cluster}: initdb failed: {reason(made.stderr)}")
        unfinished.rename(place.cluster)
        _sync(place.path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _check(cluster: Path, installation: Installation, account: Account) -> None:
    try:
        major = (cluster / "PG_VERSION").read_text("ascii").strip()
    except FileNotFoundError:
        raise CannotStart(f"{cluster}: not a PostgreSQL data directory, it has no PG_VERSION") from None
    if major != installation.major:
        raise CannotStart(
            f"{cluster}: made by PostgreSQL {major}, but this is PostgreSQL {installation.major}; "
            "dump it with the old version, or set KLINES_DATA_DIR elsewhere"
        )
    owner = cluster.stat().st_uid
    if owner != account.uid:
        raise CannotStart(f"{cluster}: belongs to user id {owner}, but PostgreSQL runs as {account.name}")


def write_access_rules(place: DataDirectory, account: Account) -> dict[str, str]:
    """Write who may log in, and return the settings that make the server read it."""
    mode = 0o640 if account.switched else 0o600
    names = dict.fromkeys((our_account().name, account.name))
    ident = "".join(f'klines "{name}" "{ROLE}"\n' for name in names)
    ident += f'klines "{our_account().name}" "{SERVICE}"\n'
    settings = {}
    for setting, text in (("hba_file", HBA), ("ident_file", ident)):
        path = place.path / f"pg_{setting.removesuffix('_file')}.conf"
        with refused(path):
            replace_file(path, text, mode, account.gid if account.switched else -1)
        settings[setting] = str(path)
    return settings


def postmaster_command(
    place: DataDirectory, installation: Installation, account: Account, tcp_port: int, options: Mapping[str, str]
) -> list[str]:
    """The whole command line of the postmaster; `options` win over our settings, except over where it listens."""
    reached = write_access_rules(place, account) | {
        "listen_addresses": "127.0.0.1" if tcp_port else "",
        "port": str(tcp_port or SOCKET_PORT),
        "unix_socket_directories": f'"{place.sockets}"',
        "unix_socket_permissions": "0700",
    }
    taken = sorted(reached.keys() & options.keys())
    if taken:
        raise CannotStart(f"{taken[0]}: set by the embedded server itself, not by an option")
    settings = SETTINGS | {"wal_compression": _wal_compression(place, installation, account)}
    settings |= TIMESCALEDB_SETTINGS if installation.has_timescaledb else {}
    passed = settings | dict(options) | reached
    binary = str(installation.binary("postgres"))
    return [binary, "-D", str(place.cluster), *(word for kv in passed.items() for word in ("-c", "=".join(kv)))]


def _wal_compression(place: DataDirectory, installation: Installation, account: Account) -> str:
    """The best method that this build knows; the server itself is asked."""
    ask = [str(installation.binary("postgres")), "-D", str(place.cluster), "-C", "wal_compression", "-c"]
    known = (m for m in ("lz4", "pglz") if account.run([*ask, f"wal_compression={m}"]).returncode == 0)
    return next(known, "off")
