"""The deployment files keep our rules: confined containers, nothing exposed, secrets as files, everything pinned."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatch
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from klines.errors import InvalidSettings
from klines.server import GRACE_SECONDS
from klines.settings import read_settings, variables

TOP = Path(__file__).parents[2]
OURS = ("migrate", "roles", "service", "analyst")
SECRETS = {
    "database": ["database_password"],
    "migrate": ["database_password"],
    "roles": ["database_password", "service_password"],
    "service": ["service_password"],
    "analyst": ["database_password", "analyst_password"],
    "grafana": ["analyst_password", "grafana_password"],
    "prometheus": ["metrics_key"],
}
PASSWORDS = {"klines": "database_password", "klines_service": "service_password"}
JOBS = 17

each_service = pytest.mark.parametrize("name", SECRETS)


class Instruction(NamedTuple):
    stage: int
    word: str
    rest: str


@cache
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((TOP / "docker-compose.yml").read_text("utf-8")))


def service(name: str) -> dict[str, Any]:
    return dict(compose()["services"][name])


@cache
def dockerfile() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (TOP / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line.partition(" ") for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]
    stages = accumulate(word == "FROM" for word, _, _ in lines)
    return [Instruction(stage, word, rest) for stage, (word, _, rest) in zip(stages, lines, strict=True)]


def final(word: str) -> list[str]:
    """What the last stage says with this instruction."""
    steps = dockerfile()
    return [step.rest for step in steps if step.word == word and step.stage == steps[-1].stage]


def copied_from_context() -> set[str]:
    copies = [step.rest.split() for step in dockerfile() if step.word in {"COPY", "ADD"} and "--from=" not in step.rest]
    return {source.removeprefix("./").rstrip("/") for words in copies for source in words[:-1] if source[:2] != "--"}


def interpolated(value: object) -> str:
    """The value as it is when nothing is set outside: `${NAME:-default}` is its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def server_settings() -> dict[str, str]:
    words = service("database")["command"]
    assert (words[0], set(words[1::2])) == ("postgres", {"-c"})
    return dict(word.split("=", 1) for word in words[2::2])


@each_service
def test_a_container_is_confined(name: str) -> None:
    given = service(name)
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert not given.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "extends"}
    assert any(mount.startswith("/tmp:") and "size=" in mount for mount in given["tmpfs"])  # noqa: S108
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", given["user"]), "a number, and not root"


@each_service
def test_a_container_is_bounded(name: str) -> None:
    given = service(name)
    assert given["pids_limit"] > 0
    assert re.fullmatch(r"\d+[mg]", given["mem_limit"])
    assert given["logging"]["driver"] == "json-file"
    assert given["logging"]["options"].keys() == {"max-size", "max-file"}
    assert name == "database" or float(interpolated(given["cpus"])) <= 1, "a limit above one core fails on one core"


@pytest.mark.parametrize("name", ["database", "service", "grafana", "prometheus"])
def test_what_stays_up_is_watched_restarted_and_has_time_to_stop(name: str) -> None:
    given = service(name)
    assert given["restart"] == "unless-stopped"
    assert given["healthcheck"]["test"][0] == "CMD"
    assert given["healthcheck"]["retries"] > 0
    assert given["ulimits"]["nofile"]["soft"] >= 65536
    assert int(given["stop_grace_period"].removesuffix("s")) > 2 * GRACE_SECONDS


def test_images_are_pinned() -> None:
    images = [given["image"] for given in compose()["services"].values()]
    images += [step.rest.split()[0] for step in dockerfile() if step.word == "FROM"]
    for image in images:
        repository, _, tag = image.partition(":")
        assert tag, f"{image} has no tag"
        assert "latest" not in tag
        assert "." not in repository, f"{image} names a registry's host"
    assert service("database")["image"] == "timescale/timescaledb:2.29.2-pg18"


def test_only_what_serves_people_is_published_and_only_on_loopback() -> None:
    assert [name for name, given in compose()["services"].items() if "ports" in given] == ["service", "grafana"]
    assert [interpolated(port) for port in service("service")["ports"]] == ["127.0.0.1:8080:8080"]
    assert [interpolated(port) for port in service("grafana")["ports"]] == ["127.0.0.1:3000:3000"]
    assert service("database")["networks"] == ["backend"]
    assert compose()["networks"]["backend"] == {"internal": True}


def test_each_starts_after_what_it_needs() -> None:
    assert compose()["services"].keys() == SECRETS.keys()
    assert service("migrate")["depends_on"] == {"database": {"condition": "service_healthy"}}
    commands = [service(name)["command"][:2] for name in OURS]
    assert commands == [["db", "upgrade"], ["db", "service"], ["serve"], ["db", "analyst"]]
    assert [service(name)["restart"] for name in ("migrate", "roles", "analyst")] == ["no", "no", "no"]
    assert service("roles")["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert service("service")["depends_on"]["roles"] == {"condition": "service_completed_successfully"}
    assert service("analyst")["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert service("grafana")["depends_on"]["analyst"] == {"condition": "service_completed_successfully"}
    # By TCP: the image's temporary server of the first start listens on the socket only.
    assert {"pg_isready", "--host=127.0.0.1"} <= set(service("database")["healthcheck"]["test"])


@each_service
def test_secrets_are_files(name: str) -> None:
    for variable, value in service(name)["environment"].items():
        if re.search("PASSWORD|SECRET|TOKEN|KEY", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in SECRETS[name]
        assert "://" not in str(value) or urlsplit(value).password is None
    assert service(name)["secrets"] == SECRETS[name]
    assert "env_file" not in service(name)


def test_the_secret_stays_out_of_the_image() -> None:
    secrets = compose()["secrets"]
    assert secrets.keys() == {name for names in SECRETS.values() for name in names}
    for name, secret in secrets.items():
        assert {key: interpolated(value) for key, value in secret.items()} == {"file": f"./secrets/{name}"}
    assert not [source for source in copied_from_context() if "secret" in source]
    assert not re.search("PASSWORD|SECRET", (TOP / "Dockerfile").read_text("utf-8"))


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_one_that_the_service_understands(name: str) -> None:
    given = service(name)
    environment = {key: interpolated(value) for key, value in given["environment"].items()}
    assert environment.keys() <= variables().keys() | {"DATABASE_PASSWORD_FILE"}
    environment.pop("DATABASE_PASSWORD_FILE")
    settings = read_settings(environment)
    login = "klines_service" if name == "service" else "klines"
    assert settings.database_url == f"postgresql://{login}@database/klines"
    assert given["environment"]["DATABASE_PASSWORD_FILE"] == f"/run/secrets/{PASSWORDS[login]}"
    assert settings.mock_data_interval == 0, "made-up trades must be asked for"
    assert name != "service" or "${MOCK_DATA_INTERVAL:-0}" in given["environment"].values(), "and can be"


PROFILED = {"analyst", "grafana", "prometheus"}


def test_a_container_that_others_reach_is_not_open() -> None:
    given = {name: interpolated(value) for name, value in service("service")["environment"].items()}
    assert (given["HOST"], given["AUTH"], given["KLINES_TRUSTED_PROXIES"]) == ("0.0.0.0", "write", "")  # noqa: S104
    given.pop("DATABASE_PASSWORD_FILE")
    assert read_settings(given).authority == "write"
    with pytest.raises(InvalidSettings, match="AUTH=open"):
        read_settings(given | {"AUTH": "open"})
    text = (TOP / "docker-compose.yml").read_text("utf-8")
    # Who serves can make no key.
    assert set(re.findall(r"docker compose (.*) keys create", text)) == {"run --rm migrate", "run --rm -T migrate"}
    assert json.loads(final("ENTRYPOINT")[0]) == ["klines"], "so that `run migrate keys` is `klines keys`"


def unit() -> dict[str, list[str]]:
    """The settings of the systemd unit; one may be given more than once."""
    settings: dict[str, list[str]] = {}
    for line in (TOP / "deploy/systemd/klines.service").read_text("utf-8").splitlines():
        name, found, value = line.partition("=")
        if found and line[:1] != "#":
            settings.setdefault(name, []).append(value)
    return settings


def test_the_systemd_unit_confines_as_the_container_does() -> None:
    given = unit()
    switched = ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictSUIDSGID", "LockPersonality")
    assert all(given[name] == ["yes"] for name in switched)
    assert (given["User"], given["ProtectSystem"], given["CapabilityBoundingSet"]) == (["klines"], ["strict"], [""])
    assert given["LoadCredential"][0].partition(":")[0] == "database_password"
    assert not [value for value in given["Environment"] if re.search("PASSWORD=|SECRET|KEY", value)]
    assert int(given["TimeoutStopSec"][0]) > 2 * GRACE_SECONDS
    assert (given["MemoryMax"], given["TasksMax"], given["LimitNOFILE"]) == (["1G"], ["256"], ["65536"])
    if program := shutil.which("systemd-analyze"):
        command = [program, "security", "--offline=true", "--threshold=20", str(TOP / "deploy/systemd/klines.service")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout


def test_nobody_needs_what_only_dashboards_need() -> None:
    assert {name for name, given in compose()["services"].items() if "profiles" in given} == PROFILED
    always = compose()["services"].keys() - PROFILED
    assert {need for name in always for need in SECRETS[name]} == set(PASSWORDS.values())
    assert {need for name in always for need in service(name).get("depends_on", {})} <= always


def test_only_what_runs_once_can_be_the_administrator() -> None:
    """Who breaks into the service finds no password of a superuser."""
    holders = {name for name, names in SECRETS.items() if "database_password" in names} - {"database"}
    assert holders == {"migrate", "roles", "analyst"}
    assert {service(name)["restart"] for name in holders} == {"no"}


def test_the_services_password_is_the_one_that_is_set() -> None:
    option, file = service("roles")["command"][2:]
    assert (option, file) == ("--password-file", service("service")["environment"]["DATABASE_PASSWORD_FILE"])


def test_the_analysts_password_is_the_one_that_the_dashboards_use() -> None:
    option, file = service("analyst")["command"][2:]
    assert (option, file) == ("--password-file", "/run/secrets/analyst_password")
    source = yaml.safe_load((TOP / "deploy/grafana/provisioning/datasources/klines.yaml").read_text("utf-8"))
    assert source["datasources"][0]["secureJsonData"] == {"password": f"$__file{{{file}}}"}


def test_what_the_dashboards_are_mounted_from_exists() -> None:
    mounts = [mount.split(":") for mount in service("grafana")["volumes"]]
    assert mounts[0] == ["grafana", "/var/lib/grafana"]
    assert "grafana" in compose()["volumes"]
    for source, target, mode in mounts[1:]:
        assert list((TOP / source).iterdir()), source
        assert (target.startswith("/etc/grafana/"), mode) == (True, "ro")
    given = service("grafana")["environment"]
    home = given["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert [source for source, target, _ in mounts[1:] if (TOP / source / Path(home).name).exists()], home
    assert (given["GF_AUTH_ANONYMOUS_ENABLED"], given["GF_USERS_ALLOW_SIGN_UP"]) == ("false", "false")


def test_the_server_keeps_what_it_stored_and_has_workers_for_every_job() -> None:
    settings = server_settings()
    assert not settings.keys() & {"fsync", "full_page_writes", "synchronous_commit"}
    assert JOBS < int(settings["timescaledb.max_background_workers"]) < int(settings["max_worker_processes"])
    assert (settings["jit"], settings["timezone"], settings["timescaledb.telemetry_level"]) == ("off", "UTC", "off")
    assert (settings["max_wal_size"], settings["checkpoint_timeout"]) == ("4GB", "15min")
    data = service("database")["environment"]["PGDATA"]
    volume, _, mounted = service("database")["volumes"][0].partition(":")
    assert volume in compose()["volumes"]
    assert data.startswith(f"{mounted}/"), "the data would lie outside the volume"


def test_every_copied_source_exists_and_reaches_the_build() -> None:
    rules = [rule for rule in (TOP / ".dockerignore").read_text("utf-8").splitlines() if rule[:1] != "#"]
    assert rules[0] == "*", "what is not named must not reach the build"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied_from_context()
    for source in copied_from_context():
        assert (TOP / source).exists(), source
        assert not any(fnmatch(source, rule.removeprefix("**/")) for rule in rules[1:])


def test_the_build_sees_all_that_the_wheel_is_made_of() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["project"]["readme"], *wheel["packages"], *wheel["force-include"]}
    assert all(any(Path(path).is_relative_to(source) for source in copied_from_context()) for path in needed)


def test_the_build_installs_nothing_without_its_hash() -> None:
    installs = [step for line in dockerfile() if line.word == "RUN" for step in line.rest.split(" && ")]
    installs = [step for step in installs if re.search(r"\bpip\b.* (install|wheel) ", step)]
    assert len(installs) == 3
    assert all("--require-hashes" in step or "--no-index" in step for step in installs)
    packages = [step for line in dockerfile() for step in line.rest.split(" && ") if re.match(r"npm\b", step)]
    assert packages == ["npm ci", "npm run build"]
    assert not re.search(r"https?://|index-url", (TOP / "Dockerfile").read_text("utf-8"))


def test_the_final_stage_only_runs() -> None:
    stages = [step.rest for step in dockerfile() if step.word == "FROM"]
    assert final("FROM") == [stage.removesuffix(" AS build") for stage in stages if stage.endswith(" AS build")]
    assert not [run for run in final("RUN") if re.search(r"\b(apt|apt-get|pip|npm|curl|wget)\b", run)]
    assert final("USER") == ["10001:10001"]
    assert {service(name)["user"] for name in OURS} == {"10001:10001"}
    assert json.loads(final("ENTRYPOINT")[0]) == ["klines"]
    assert json.loads(final("CMD")[0]) == ["serve"]
    assert {"PYTHONUNBUFFERED=1", "HOST=0.0.0.0"} <= set(final("ENV")[0].split())


def test_image_and_compose_check_health_alike() -> None:
    check = json.loads(final("HEALTHCHECK")[0].partition(" CMD ")[2])
    assert service("service")["healthcheck"]["test"] == ["CMD", *check]
    assert f"deploy/ready.py {check[-1]}" in [step.rest for step in dockerfile() if step.word == "COPY"]


class Service(BaseHTTPRequestHandler):
    """Answers /health/ready with its status, everything else with 404."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class UnreadyService(Service):
    status = 503


def health_check(port: int) -> int:
    command = [sys.executable, str(TOP / "deploy/ready.py")]
    return subprocess.run(command, env=os.environ | {"PORT": str(port)}, timeout=30, check=False).returncode


@pytest.mark.parametrize(("handler", "code"), [(Service, 0), (UnreadyService, 1)])
def test_the_health_check_says_what_the_service_says(handler: type[Service], code: int) -> None:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        server.timeout = 30
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert health_check(server.server_port) == code
        thread.join(timeout=30)
    assert health_check(server.server_port) == 1, "nobody listens any more"
