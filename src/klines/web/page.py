"""The chart page at `/` and the JS datafeed at `/datafeed.js`: what the front end's build put into the package.

Only the files that the build made are served, read once and kept: what does not stand in that list does not exist,
however its path is written. Assets carry a hash in their names and may be kept for ever; the rest is asked for again
each time (`ETag`). Without a build `GET /` says how to get one, and the rest of the service works.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from litestar import Response, get
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from klines.errors import NotFound, Unavailable
from klines.web.services import Incoming

BUILT = Path(__file__).parent.parent / "page"
INDEX, DATAFEED = "index.html", "datafeed.js"
ASSETS = "assets/"
# Not the platform's table, which may call a script plain text.
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MAX_FILES = 64
MAX_BYTES = 4 * 1024 * 1024

# No inline scripts or styles, nothing of other hosts: what a token is called can never become code.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class File(NamedTuple):
    """A file of the build."""

    body: bytes
    media_type: str
    etag: str


class Page:
    """The files below a directory by their relative path; read at the first use after the build is there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, File] = {}

    def file(self, path: str) -> File:
        """The file with this path; raises `Unavailable` before the build, `NotFound` for what it did not make."""
        if not self._files:
            self._files = _read(self._directory)
        if not self._files:
            detail = "the chart page is not built: in a checkout `make page` does it (Node.js 18.13 or newer, npm)"
            raise Unavailable(detail, code="page_not_built")
        found = self._files.get(path)
        if found is None:
            raise NotFound(f"the page has no file {path!r}", code="route_unknown")
        return found


def routes(directory: Path) -> list[ControllerRouterHandler]:
    """The routes of a page that was built into `directory`."""
    page = Page(directory)

    @get("/", include_in_schema=False, sync_to_thread=True)
    def get_page(request: Incoming) -> Response[bytes]:
        return _answer(request, page.file(INDEX), "no-cache")

    @get(f"/{DATAFEED}", include_in_schema=False, sync_to_thread=True)
    def get_datafeed(request: Incoming) -> Response[bytes]:
        return _answer(request, page.file(DATAFEED), "no-cache")

    @get(f"/{ASSETS}{{name:str}}", include_in_schema=False, sync_to_thread=True)
    def get_asset(request: Incoming, name: FromPath[str]) -> Response[bytes]:
        return _answer(request, page.file(ASSETS + name), "public, max-age=31536000, immutable")

    return [get_page, get_datafeed, get_asset]


def _answer(request: Incoming, file: File, cache_control: str) -> Response[bytes]:
    headers = HEADERS | {"ETag": file.etag, "Cache-Control": cache_control}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(b"", status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


def _read(directory: Path) -> dict[str, File]:
    """The files of the build; none before its index is there."""
    if not (directory / INDEX).is_file():
        return {}
    found = sorted(path for path in directory.rglob("*") if path.is_file())[:MAX_FILES]
    return {path.relative_to(directory).as_posix(): _file(path) for path in found if path.stat().st_size <= MAX_BYTES}


def _file(path: Path) -> File:
    body = path.read_bytes()
    media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    return File(body, media_type, f'"{blake2b(body, digest_size=12).hexdigest()}"')


ROUTES = routes(BUILT)
