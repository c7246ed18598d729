"""The settings: one frozen record, read once from the environment, refused in one line when a value is wrong."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin
from urllib.parse import quote

import msgspec
import platformdirs
from msgspec import Meta

from klines.errors import InvalidSettings
from klines.network import hosts, networks, origins

OUR_PREFIXES = ("KLINES_", "MOCK_")
NEAR_ENOUGH = 0.9
MAX_PASSWORD = 1024
MAX_PORT = 65_535
# Of each of the hosts, which a comma separates; what stands before an @ is no host.
_PORT = re.compile(r":([0-9]+)(?=,|$)", re.ASCII)


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Every setting by its environment variable; the descriptions are what `klines --help` and the README print."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 lets the system choose")] = 8080
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe level that is logged")
    ] = "info"
    klines_log_format: Annotated[
        Literal["text", "json"], Meta(description="text: a line per event for people; json: an object per line")
    ] = "text"
    klines_access_log: Annotated[
        Literal["off", "errors", "all"],
        Meta(description="requests and sockets that are logged; errors: what failed on our side, at most 20 a second"),
    ] = "errors"
    workers: Annotated[int, Meta(ge=1, le=64, description="server processes on the same port")] = 1
    auth: Annotated[
        Literal["", "open", "write", "all"],
        Meta(description="what needs an API key: open nothing, write writing, all reading too; empty: see the README"),
    ] = ""
    database_url: Annotated[
        str, Meta(description="PostgreSQL 16 or newer, as postgresql://…; empty: the embedded server")
    ] = ""
    database_password_file: Annotated[
        str, Meta(description="file that holds the password for DATABASE_URL, as a container's secret does")
    ] = ""
    klines_data_dir: Annotated[
        str, Meta(description="directory of the embedded server; empty: the platform's user data directory")
    ] = ""
    klines_postgres_port: Annotated[
        int, Meta(ge=0, le=65535, description="loopback TCP port of the embedded server; 0: no TCP")
    ] = 0
    klines_storage_profile: Annotated[
        Literal["auto", "timescale", "plain"],
        Meta(description="profile for a new database; auto: timescale where the server has the Community edition"),
    ] = "auto"
    klines_migration_seconds: Annotated[
        int, Meta(ge=1, le=86400, description="how long a migration may try to get the locks it needs")
    ] = 120
    klines_pool_size: Annotated[int, Meta(ge=1, le=100, description="reading connections per process, at least 2")] = 5
    klines_register_tokens: Annotated[
        bool, Meta(description="register an unknown symbol at its first trade; false: refuse the trade")
    ] = True
    klines_max_future_seconds: Annotated[
        int, Meta(ge=0, le=3600, description="how far ahead of the clock a trade's time may lie")
    ] = 60
    klines_closed_max_age: Annotated[
        int, Meta(ge=0, le=86400, description="seconds a shared cache may keep an answer in which every bar is closed")
    ] = 0
    max_connections: Annotated[
        int, Meta(ge=0, le=1_000_000, description="WebSockets per server process; one more is refused with 503")
    ] = 10_000
    klines_client_connections: Annotated[
        int, Meta(ge=0, le=1_000_000, description="WebSockets per key or client and process, unless open; 0: no limit")
    ] = 1000
    klines_trusted_proxies: Annotated[
        str, Meta(description="proxies in front whose X-Forwarded-For is believed: addresses or networks, by comma")
    ] = ""
    klines_hosts: Annotated[
        str, Meta(description="names in Host that are served besides localhost, by comma; empty: any, on loopback none")
    ] = ""
    klines_allowed_origins: Annotated[
        str, Meta(description="origins of web pages elsewhere that may read and connect, by comma; *: any")
    ] = ""
    klines_analyst_seconds: Annotated[
        int, Meta(ge=0, le=86400, description="end analysts' statements and transactions that last longer; 0: never")
    ] = 120
    klines_read_limit: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="weight of reads a minute per key or client; 0: no limit")
    ] = 6000
    klines_write_limit: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="rows written a minute per key or client; 0: no limit")
    ] = 600_000
    klines_upgrade_limit: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="WebSockets opened a minute per key or client; 0: no limit")
    ] = 1200
    klines_login_limit: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="failed logins a minute per client; 0: no limit")
    ] = 10
    klines_push_interval: Annotated[
        int,
        Meta(ge=0, le=10_000, description="least milliseconds between two pushes of one token; the first is at once"),
    ] = 10
    klines_close_grace: Annotated[
        int,
        Meta(ge=0, le=60_000, description="milliseconds after its interval that a bar waits for late commits to close"),
    ] = 500
    klines_trade_retention_days: Annotated[
        int, Meta(ge=0, le=36500, description="drop raw trades older than this, bars stay; 0: keep all")
    ] = 0
    mock_data_interval: Annotated[
        int, Meta(ge=0, le=60000, description="milliseconds between mock batches; 0: no mock feed")
    ] = 0
    mock_seed: Annotated[int, Meta(ge=0, description="seed of the mock market: same seed, same market")] = 1
    mock_tokens: Annotated[
        str, Meta(description="mock tokens as SYMBOL=character, comma separated; characters: major launch dead micro")
    ] = "WIFHAT-USDC=major,MOONCAT-SOL=launch,GRAVE-SOL=dead,PEPEWEI-USDC=micro"
    mock_history_minutes: Annotated[
        int, Meta(ge=0, le=10080, description="minutes of history the mock feed writes for a token without trades")
    ] = 180

    @property
    def authority(self) -> Literal["open", "write", "all"]:
        """What needs a key: AUTH, or `open` where nobody else can reach the service, on loopback without proxies."""
        return self.auth or ("open" if alone(self) else "write")

    @property
    def data_dir(self) -> Path:
        """Where the embedded server keeps its data; as root outside `/root`, which its own account cannot enter."""
        if self.klines_data_dir:
            return Path(self.klines_data_dir).expanduser().absolute()
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            return Path("/var/lib/klines")
        return Path(platformdirs.user_data_dir("klines"))


def variables() -> dict[str, tuple[str, str]]:
    """`{NAME: (default, description)}` in the order of the record: the source of the help text and of the README."""
    told = {}
    for field in msgspec.structs.fields(Settings):
        description = next(
            (m.extra_json_schema or {}).get("description") or m.description
            for m in field.type.__metadata__
            if isinstance(m, Meta)
        )
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        told[field.encode_name] = (default, str(description))
    return told


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings from `environ`; raises `InvalidSettings` naming the variable and the rule it breaks."""
    known = variables()
    for name in environ:
        _refuse_unknown(name, known)
    given = {name: environ[name] for name in known if environ.get(name, "") != ""}
    if "LOG_LEVEL" in given:
        given["LOG_LEVEL"] = given["LOG_LEVEL"].lower()
    settings = Settings()
    for name, value in given.items():
        try:
            settings = msgspec.structs.replace(settings, **_convert(name, value))
        except msgspec.ValidationError as error:
            raise InvalidSettings(f"{name}={value!r}: {_rule(name, str(error))}") from None
    return _checked(settings)


def alone(settings: Settings) -> bool:
    """Whether only programs of this machine reach the service: it listens on loopback, and no proxy is announced."""
    try:
        loopback = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = False
    return loopback and not settings.klines_trusted_proxies


def _refuse_unknown(name: str, known: Collection[str]) -> None:
    if name in known:
        return
    ours = name.startswith(OUR_PREFIXES)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if ours else NEAR_ENOUGH)
    if ours or (near and "_" in name):
        raise InvalidSettings(f"{name}: no such setting" + (f", did you mean {near[0]}?" if near else ""))


def _rule(name: str, message: str) -> str:
    field = next(field for field in msgspec.structs.fields(Settings) if field.encode_name == name)
    wanted = field.type.__origin__
    if get_origin(wanted) is Literal:
        return "must be one of " + " ".join(get_args(wanted))
    # "Expected `int` >= 1 - at `$.PORT`" in words
    rule = message.partition(" - at ")[0].replace("Expected `int`, got `str`", "must be an integer")
    return rule.replace("Expected `int`", "must be").replace("Expected `bool`, got `str`", "must be true or false")


def _convert(name: str, value: str) -> dict[str, object]:
    one = msgspec.convert({name: value}, Settings, strict=False)
    return {name.lower(): getattr(one, name.lower())}


def _checked(settings: Settings) -> Settings:
    url = settings.database_url
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise InvalidSettings("DATABASE_URL: must start with postgresql://")
    if any(int(port) > MAX_PORT for port in _PORT.findall(url.partition("://")[2].partition("/")[0])):
        raise InvalidSettings(f"DATABASE_URL: a port must be at most {MAX_PORT}")
    if settings.auth == "open" and not alone(settings):
        raise InvalidSettings("AUTH=open: only where HOST is a loopback address and KLINES_TRUSTED_PROXIES is empty")
    networks(settings.klines_trusted_proxies)
    origins(settings.klines_allowed_origins)
    hosts(settings.klines_hosts)
    if settings.database_password_file:
        return msgspec.structs.replace(settings, database_url=_with_password(url, settings.database_password_file))
    return settings


def _with_password(url: str, file: str) -> str:
    scheme, _, rest = url.partition("://")
    user, at, place = rest.partition("@")
    if not at or ":" in user:
        raise InvalidSettings("DATABASE_PASSWORD_FILE: needs a DATABASE_URL with a user and without a password")
    try:
        with Path(file).open(encoding="utf-8") as opened:
            password = opened.read(MAX_PASSWORD + 1).rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidSettings(f"DATABASE_PASSWORD_FILE: {file}: {reason}") from None
    if not password or len(password) > MAX_PASSWORD or not password.isprintable():
        raise InvalidSettings(
            f"DATABASE_PASSWORD_FILE: {file}: must hold one line of at most {MAX_PASSWORD} characters"
        )
    return f"{scheme}://{user}:{quote(password, safe='')}@{place}"
