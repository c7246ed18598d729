"""`/api/v1/tokens`: what is known of tokens, and their last 24 hours."""

from __future__ import annotations

import msgspec
from litestar import Response, get, put, route
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from klines.database import reading
from klines.errors import BadRequest, InvalidItems, ItemError, TooLarge, UnknownToken
from klines.exact import InexactError, decimal_text
from klines.models import Token, TokenFacts
from klines.queries import tokens
from klines.symbol import canonical_symbol
from klines.web.admission.limits import ALL_TOKENS, spend
from klines.web.body import JSON, read_body
from klines.web.parameters import choice, documented, integer, read, words
from klines.web.schemas import TokensAnswer
from klines.web.services import Given, Incoming, Services

# Each with its last 24 hours.
TOKENS_PER_WEIGHT = 50
MAX_FACTS = 16 * 1024
MAX_METADATA = 8 * 1024

RULES = (
    words("search", "part of a symbol or a name, case-insensitive", max_length=64),
    choice("sort", "symbol, or by the last 24 hours: most first", tokens.SORTS, "symbol"),
    integer("limit", "most tokens in the answer", default=100, low=1, high=1000),
    integer("offset", "tokens to pass over", default=0, low=0, high=1_000_000),
)

_facts = msgspec.json.Decoder(TokenFacts)


@get(
    "/api/v1/tokens",
    operation_class=documented(RULES),
    responses={200: ResponseSpec(TokensAnswer, description="One page of tokens")},
    summary="Tokens with their last 24 hours",
)
async def get_tokens(request: Incoming, services: Given) -> Response[bytes]:
    """Tokens that match, sorted."""
    query = read(request.scope["query_string"], RULES)
    # What sorts by the last 24 hours reads those of every token, however few are wanted.
    of_all = 0 if query["sort"] in tokens.BY_NAME else ALL_TOKENS
    spend(request.scope, of_all + query["limit"] // TOKENS_PER_WEIGHT)

    async def listed() -> bytes:
        async with reading(services.engine) as connection:
            return msgspec.json.encode(TokensAnswer(await tokens.listing(connection, services.now(), **query)))

    body = await services.joint.answer(("tokens", *query.values()), listed)
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@route("/api/v1/tokens/{token_symbol:str}", http_method=["OPTIONS"], status_code=204, include_in_schema=False)
async def options_token(token_symbol: FromPath[str]) -> Response[None]:
    """What may be done with a token; the framework's own answer knows the first of its routes only."""
    return Response(None, headers={"Allow": "GET, OPTIONS, PUT"})


@get(
    "/api/v1/tokens/{token_symbol:str}",
    responses={200: ResponseSpec(Token, description="The token")},
    summary="One token",
)
async def get_token(request: Incoming, token_symbol: FromPath[str], services: Given) -> Response[Token]:
    """The token with its last 24 hours."""
    read(request.scope["query_string"], ())
    return Response(await _one(services, canonical_symbol(token_symbol)), headers={"Cache-Control": "no-store"})


@put(
    "/api/v1/tokens/{token_symbol:str}",
    request_max_body_size=MAX_FACTS,
    responses={
        200: ResponseSpec(Token, description="Replaced"),
        201: ResponseSpec(Token, description="Registered"),
    },
    summary="Say what is known of a token",
)
async def put_token(request: Incoming, token_symbol: FromPath[str], services: Given) -> Response[Token]:
    """Replaces name, base, quote, decimals, supply and metadata; registers a new symbol."""
    read(request.scope["query_string"], ())
    symbol = canonical_symbol(token_symbol)
    _, body = await read_body(request, JSON)
    created = await services.writer.put_token(symbol, _checked(body))
    return Response(await _one(services, symbol), status_code=201 if created else 200)


async def _one(services: Services, symbol: str) -> Token:
    async with reading(services.engine) as connection:
        token = await tokens.one(connection, symbol, services.now())
    if token is None:
        raise UnknownToken(f"no token is called {symbol}", code="symbol_unknown")
    return token


def _checked(body: bytes) -> TokenFacts:
    try:
        facts = _facts.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidItems(str(error), code="token_invalid") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", code="json_invalid") from None
    if len(msgspec.json.encode(facts.metadata)) > MAX_METADATA:
        raise TooLarge(f"metadata: at most {MAX_METADATA} bytes", code="metadata_too_large")
    if "\\u0000" in msgspec.json.encode(facts).decode():
        raise InvalidItems("text must not hold a NUL", code="token_invalid")
    if facts.supply is None:
        return facts
    try:
        return msgspec.structs.replace(facts, supply=decimal_text(facts.supply))
    except InexactError as error:
        raise InvalidItems("supply", code="token_invalid", errors=(ItemError("supply", str(error)),)) from None
