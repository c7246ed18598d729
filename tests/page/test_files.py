"""The page's files over HTTP: which there are, how they may be kept, and what the browser is told to forbid."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from klines.web import page
from tests.application import send_raw, serving, settings_for
from tests.servers import Database

FRONTEND = Path(__file__).parents[2] / "frontend"
FILES = {
    "index.html": '<script type="module" src="./assets/index-abc.js"></script>',
    "datafeed.js": "export {}",
    "assets/index-abc.js": "import('./x')",
    "assets/icon-abc.svg": "<svg/>",
    "assets/index-abc.css": "a{}",
}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's service expects the page."""
    monkeypatch.setattr(page, "ROUTES", page.routes(tmp_path / "page"))
    return tmp_path / "page"


@pytest.fixture
async def client(directory: Path, plain: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as opened:
        yield opened


def build(directory: Path) -> None:
    for name, text in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/{name}"


async def test_without_a_build_the_page_says_how_to_get_it(client: httpx.AsyncClient, directory: Path) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.json()["code"]) == (503, "page_not_built")
    assert "make page" in answer.json()["detail"]
    assert (await client.get("/api/v1/tokens")).status_code == 200
    # It is there as soon as it is built.
    build(directory)
    assert (await client.get("/")).text == FILES["index.html"]


async def test_whoever_takes_pages_only_gets_the_page(client: httpx.AsyncClient, directory: Path) -> None:
    build(directory)
    assert (await client.get("/", headers={"Accept": "text/html"})).status_code == 200
    assert (await client.get("/udf/time", headers={"Accept": "text/plain"})).status_code == 200
    assert (await client.get("/api/v1/tokens", headers={"Accept": "text/html"})).status_code == 406


@pytest.mark.parametrize("name", FILES)
async def test_a_file_is_served_safely_and_kept_as_long_as_it_may(
    client: httpx.AsyncClient, directory: Path, name: str
) -> None:
    build(directory)
    answer = await client.get(path_of(name))
    assert answer.status_code == 200
    assert answer.text == FILES[name]
    assert answer.headers["content-type"].partition(";")[0] == TYPES[name.rpartition(".")[2]]
    kept = "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache"
    assert answer.headers["cache-control"] == kept
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|\*|http", policy)
    assert {directive.split()[0] for directive in policy.split(";")} >= {"base-uri", "form-action", "frame-ancestors"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    again = await client.get(path_of(name), headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    head = await client.head(path_of(name))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(FILES[name]))


@pytest.mark.parametrize(
    "path",
    [
        "/assets/none.js",
        "/index.html",
        "/secret.txt",
        "/assets/../secret.txt",
        "/assets/..%2fsecret.txt",
        "/assets/%2e%2e/secret.txt",
        "/assets/..%5csecret.txt",
        "/assets//etc/passwd",
        "/assets/",
        "/assets",
        "/..%2f..%2fsecret.txt",
    ],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, directory: Path, path: str) -> None:
    build(directory)
    (directory.parent / "secret.txt").write_text("secret")
    status, body = await send_raw(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode())
    assert status == 404
    assert "secret\n" not in body
    assert '"route_unknown"' in body


def test_the_lock_names_no_registry() -> None:
    lock = (FRONTEND / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') == lock.count('"version": "') > 10
    assert "omit-lockfile-registry-resolved=true" in (FRONTEND / ".npmrc").read_text()


def test_sources_stay_small_and_take_nothing_else_along() -> None:
    sources = [*FRONTEND.glob("src/*.ts"), *FRONTEND.glob("test/*.ts")]
    assert len(sources) > 10
    for file in sources:
        assert len(file.read_text().splitlines()) < 250, file
    taken = {name for file in sources for name in re.findall(r'^[^*\n]* from "([^."][^"]*)"', file.read_text(), re.M)}
    assert taken == {"lightweight-charts", "node:assert/strict", "node:test"}


def test_built_or_not_the_page_holds_nothing_inline(built: None) -> None:
    text = (page.BUILT / page.INDEX).read_text()
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", text)
    datafeed = (page.BUILT / page.DATAFEED).read_text()
    assert not re.search(r"\bimport\b", datafeed), "it stands alone"
    assert "Datafeed" in datafeed.rpartition("export")[2]


def test_the_build_says_what_is_missing_and_ends_well(tmp_path: Path) -> None:
    for tool in ("sh", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    command = ["/bin/sh", str(FRONTEND / "build.sh")]
    for given, code in (({"PAGE_OPTIONAL": "1"}, 0), ({}, 1)):
        environment = {"PATH": str(tmp_path)} | given
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert ended.stderr.count("\n") == 1
        assert "install Node.js" in ended.stderr
