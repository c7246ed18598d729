"""Logging of a process: lines on standard error, one per event, as text or as JSON.

No input can forge a line: control characters are escaped, and a traceback, which in text goes on below its line, is
indented. What is long is cut. What looks like a credential is not shown, wherever in a line it stands: header fields
that carry one, API keys, tickets, passwords of URLs and of connection strings.
"""

from __future__ import annotations

import copy
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_MESSAGE = 4 * 1024
MAX_TRACEBACK = 16 * 1024
HIDDEN = "[redacted]"

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being served, or empty: it stands in every line that is logged for it."""

# Bidirectional marks and line separators too: they make a line look like another one.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_FIELDS = r"(?:proxy-)?authorization|x-api-key|x-mbx-apikey|(?:set-)?cookie"
_WORDS = r"[a-z_]*password|passwd|passfile|secret|ticket|api_?key|access_token|signature"
_SECRETS = (
    (re.compile(r"(kl[kt]_)\w+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_FIELDS})(\\?[\"']?\s*[:=,]\s*(?:b?\\?[\"'])?)[^\"'\r\n]+"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{8,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s:/@\"']{0,255}:)[^\s\"']{0,1024}@"), rf"\1{HIDDEN}@"),
    (re.compile(rf"(?i)\b({_WORDS})(\\?[\"']?\s*[:=]\s*(?:b?\\?[\"'])?)[^\s\"'&,;)}}]+"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:key|token)=)[^\s\"'&]+"), rf"\1{HIDDEN}"),
)


def redacted(text: str) -> str:
    """The text without what looks like a credential."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def one_line(text: str) -> str:
    """The text with its control characters escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def configure(level: str, form: Literal["text", "json"] = "text") -> None:
    """Set up the root logger; the database's drivers and the migrations speak only when something is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # The exporter of traces tells of each attempt that failed, with its traceback.
    for name in ("alembic", "asyncio", "sqlalchemy", "uvicorn.access", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)


class Text(logging.Formatter):
    """One line per event; a traceback follows indented."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and what stands below it."""
        own = copy.copy(record)
        # Another formatter may have left there what it made of the traceback.
        own.exc_text = None
        return super().format(own)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line itself."""
        record.message = one_line(redacted(_cut(record.message)))
        of = f" (request {name})" if (name := request_id.get()) else ""
        return super().formatMessage(record) + of

    def formatException(self, ei: Any) -> str:
        """A traceback as it may stand below a line."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """As `formatException`."""
        return _indented(stack_info)


class Json(JsonFormatter):
    """One JSON object per event: time, level, logger, message, request, what else the event carries, and exc_info."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level", "name": "logger"})

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """The fields, each as it may be shown."""
        super().add_fields(log_data, record, message_dict)
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        # The server's own, the message once more for a terminal.
        log_data.pop("color_message", None)
        if name := request_id.get():
            log_data["request"] = name
        for field, value in log_data.items():
            log_data[field] = _shown(field, value)


def _shown(field: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else str(value)
    # The end of a traceback says most.
    cut = text[-MAX_TRACEBACK:] if field in {"exc_info", "stack_info"} else _cut(text)
    # JSON escapes what is below a space itself.
    return redacted(cut).replace("\x7f", "\\x7f")


def _indented(text: str) -> str:
    lines = redacted(text[-MAX_TRACEBACK:]).splitlines()
    return "\n".join("    " + one_line(line) for line in lines)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}… ({len(text)} characters)"
