"""The OpenAPI document of the native API: what the framework knows of the routes, and what only we know.

Every refusal is listed with the problem that it carries, every body with its rules, and every operation with the key
that it takes where this service runs (`AUTH`). The dialects are documented by their makers, sockets by the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from klines.models import TokenFacts
from klines.settings import Settings
from klines.timestamp import EARLIEST_US
from klines.trade_input import MAX_JSON_TRADES
from klines.trade_rules import MAX_TRADE_ID
from klines.web.admission.access import needed
from klines.web.body import JSON, NDJSON
from klines.web.parameters import NO_NUL
from klines.web.problem import MEDIA_TYPE, Problem

Schema = dict[str, Any]

SYMBOL = r"^(?!\.{1,2}$)[\p{L}\p{Nd}$._:-]{1,32}$"
# A positive decimal below 10^24 with at most 36 decimals, as text.
DECIMAL = r"^(?=[0.]*[1-9])[0-9]{1,24}(\.[0-9]{1,36})?$"
# From 1s to 1w.
INTERVAL = (
    r"^(([1-9][0-9]{0,4}|[1-5][0-9]{5}|60[0-3][0-9]{3}|604[0-7][0-9]{2}|604800)s"
    r"|([1-9][0-9]{0,3}|100[0-7][0-9]|10080)m|([1-9][0-9]?|1[0-5][0-9]|16[0-8])h|[1-7]d|1w)$"
)

REFUSALS = {
    "400": "What was sent cannot be read, or a parameter breaks its rule",
    "401": "No API key, or one that is not valid",
    "403": "The API key or the Origin does not allow it",
    "404": "No token has this symbol",
    "406": "The answer is JSON, which Accept does not allow",
    "408": "The body did not arrive in time",
    "413": "More bytes or more items than one request may carry",
    "414": "The address is longer than 8 KiB",
    "415": "A media type or an encoding that is not read here",
    "422": "Well-formed, but an item breaks a rule; nothing was stored",
    "429": "The share of this key or client is used up",
    "431": "More than 100 header fields, or more than 32 KiB of them",
    "500": "A fault of ours",
    "503": "The database cannot answer now, or there is no room",
}
OF_EVERYTHING = frozenset({"400", "401", "403", "406", "414", "429", "431", "500", "503"})
OF_BODIES = frozenset({"408", "413", "415", "422"})
RETRY = frozenset({"429", "503"})
HEALTH = "/health/"

EXAMPLE = {"symbol": "PEPE", "trade_id": 1, "time": 1700000000000, "price": "0.0123", "amount": "1000", "side": "buy"}


class Document(JsonRenderPlugin):
    """Serves the document, completed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(path=["/", "/openapi.json"])
        self._settings = settings

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as JSON; the framework asks for it once."""
        return self.render_json(request, completed(openapi_schema, self._settings))


def completed(found: Schema, settings: Settings) -> Schema:
    """The document of these routes as the service has them with these settings; `found` itself is left alone."""
    paths = {path: _path(path, operations, settings) for path, operations in found["paths"].items()}
    schemas = found["components"]["schemas"] | _schemas()
    components = found["components"] | {"schemas": schemas, "securitySchemes": KEYS, "responses": _responses()}
    return found | {"paths": paths, "components": components}


KEYS = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as `klines keys create` makes them. Or in `X-API-Key`, but in one of them only.",
    }
}


def _path(path: str, operations: Schema, settings: Settings) -> Schema:
    return {method: _operation(path, method, operation, settings) for method, operation in operations.items()}


def _operation(path: str, method: str, found: Schema, settings: Settings) -> Schema:
    given = dict(found)
    given["parameters"] = [_parameter(one) for one in found.get("parameters", [])]
    if (body := BODIES.get((method, path))) is not None:
        given["requestBody"] = {"required": True, "content": body}
    given["responses"] = _answers(path, found["responses"], bodied=body is not None)
    scope = needed(settings.authority, method.upper(), path)
    # A key that is shown is checked even where none is needed.
    given["security"] = [{"key": []}] if scope else [{}, {"key": []}]
    if scope:
        given["description"] = f"{found.get('description', '')}\n\nTakes an API key with the scope `{scope}`."
    return given


def _answers(path: str, found: Schema, *, bodied: bool) -> Schema:
    codes = OF_EVERYTHING | (OF_BODIES if bodied else frozenset())
    codes |= {"404"} if "{token_symbol}" in path else frozenset()
    if path.startswith(HEALTH):
        # Health is told to everybody.
        codes -= {"401", "403", "429"}
    refusals = {code: {"$ref": f"#/components/responses/{code}"} for code in sorted(codes)}
    kept = {code: answer for code, answer in found.items() if code < "400"}
    if path == f"{HEALTH}ready":
        refusals["503"] = found["200"] | {"description": "It cannot serve, and why"}
    return kept | refusals


def _parameter(found: Schema) -> Schema:
    if found["name"] == "token_symbol":
        rule = "1 to 32 letters, digits or $ . _ - :, but not . or .."
        return found | {"description": rule, "schema": {"type": "string", "pattern": SYMBOL, "examples": ["PEPE"]}}
    if found["name"] == "interval":
        return found | {"schema": found["schema"] | {"pattern": INTERVAL}}
    return found


def _responses() -> Schema:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answers: Schema = {code: {"description": told, "content": content} for code, told in REFUSALS.items()}
    seconds = {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "description": "seconds to wait", "required": True}
    for code in RETRY:
        answers[code]["headers"] = {"Retry-After": seconds}
    scheme = {"schema": {"type": "string"}, "description": "how to show a key", "required": True}
    answers["401"]["headers"] = {"WWW-Authenticate": scheme}
    return answers


def _schemas() -> Schema:
    _, made = msgspec.json.schema_components((Problem, TokenFacts), ref_template="#/components/schemas/{name}")
    facts = made["TokenFacts"]
    members = {name: _without_nul(rule) for name, rule in facts["properties"].items()}
    members["supply"] = {"anyOf": [{"type": "string", "pattern": DECIMAL}, {"type": "null"}]}
    members["metadata"] = {"$ref": "#/components/schemas/Metadata"}
    facts = facts | {"properties": members}
    return {**made, "TokenFacts": facts, "Metadata": METADATA, "Value": VALUE, "Trade": TRADE, "Trades": TRADES}


def _without_nul(rule: Schema) -> Schema:
    """A text that PostgreSQL can store."""
    if "anyOf" in rule:
        return rule | {"anyOf": [_without_nul(one) for one in rule["anyOf"]]}
    return rule | {"pattern": NO_NUL} if rule.get("type") == "string" else rule


METADATA: Schema = {
    "type": "object",
    "description": "any JSON object of at most 8 KiB",
    "propertyNames": {"pattern": NO_NUL},
    "additionalProperties": {"$ref": "#/components/schemas/Value"},
}
VALUE: Schema = {
    "anyOf": [
        {"type": ["null", "boolean", "number"]},
        {"type": "string", "pattern": NO_NUL},
        {"type": "array", "items": {"$ref": "#/components/schemas/Value"}},
        {"$ref": "#/components/schemas/Metadata"},
    ]
}
NUMBER: Schema = {
    "oneOf": [
        {"type": "string", "pattern": DECIMAL},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e24},
    ],
    "description": "an exact decimal, taken from its text; at most 36 decimals",
}
TIME: Schema = {
    "oneOf": [
        {"type": "integer", "minimum": EARLIEST_US // 1000},
        {"type": "string", "format": "date-time"},
        {"type": "null"},
    ],
    "description": "epoch milliseconds, or ISO-8601 with an offset; from 2009 until a minute from now",
}
TRADE: Schema = {
    "type": "object",
    "description": "one execution, identified by symbol, trade_id and time",
    "properties": {
        "symbol": {"type": "string", "pattern": SYMBOL},
        "trade_id": {"type": "integer", "minimum": 0, "maximum": MAX_TRADE_ID},
        "time": TIME,
        "time_us": {
            "type": "integer",
            "minimum": EARLIEST_US,
            "description": "the same in epoch microseconds; may stand in its place",
        },
        "price": NUMBER,
        "amount": NUMBER,
        "side": {"type": "string", "enum": ["buy", "sell"], "description": "of the taker"},
    },
    "required": ["symbol", "trade_id", "price", "amount", "side"],
    "anyOf": [{"required": ["time"]}, {"required": ["time_us"]}],
    "additionalProperties": False,
}
TRADES: Schema = {
    "type": "object",
    "properties": {
        "trades": {"type": "array", "items": {"$ref": "#/components/schemas/Trade"}, "maxItems": MAX_JSON_TRADES}
    },
    "required": ["trades"],
    "additionalProperties": False,
}
BODIES: Mapping[tuple[str, str], Schema] = {
    ("post", "/api/v1/trades"): {
        JSON: {"schema": {"$ref": "#/components/schemas/Trades"}, "example": {"trades": [EXAMPLE]}},
        NDJSON: {"schema": {"type": "string", "description": "a Trade per line"}},
    },
    ("put", "/api/v1/tokens/{token_symbol}"): {
        JSON: {"schema": {"$ref": "#/components/schemas/TokenFacts"}, "example": {"name": "Pepe", "decimals": 6}},
    },
}
