"""The characters a mock token can have: frozen records of numbers that `klines.feeds.market` brings to life.

Money is in quote units, time in seconds, every share and probability in 0..1. A character goes round its phases for
ever; a phase says how busy the market is and where its fair value drifts.
"""

from __future__ import annotations

import msgspec

from klines.errors import InvalidSettings, InvalidSymbol, echo
from klines.symbol import canonical_symbol

MAX_TOKENS = 50


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a market's life.

    `seconds` is its mean length (each one lasts 0.5 to 1.5 times that), `rate` its mean trades per second. The fair
    value glides to a multiple drawn from `aim`, of the character's price or, when `relative`, of where it stands; it
    arrives after the `glide` share of the phase. `size` scales the orders.
    """

    name: str
    seconds: float
    rate: float
    aim: tuple[float, float]
    relative: bool = False
    glide: float = 1.0
    size: float = 1.0


class Character(msgspec.Struct, frozen=True, kw_only=True):
    """What a market is like, as numbers."""

    name: str
    price: float  # where it lives, quote per base
    span: float  # flow turns round beyond price * span and price / span
    depth: float  # quote side of the pool at `price`
    size: float  # median order
    size_sigma: float  # log-normal spread of orders
    whales: float  # share of orders with a Pareto tail
    whale_size: float  # smallest whale, in median orders
    dust: float  # share of orders a thousand times smaller
    max_share: float  # largest order, as a share of the pool's quote side
    excitation: float  # orders that one order sets off, below 1
    decay: float  # per second: how fast that excitement fades
    split: float  # probability that one more fill of the same order follows
    pull: float  # how strongly a gap to the fair value decides the side, per log unit
    herding: float  # how strongly the last side decides the next, in log odds
    wander: float  # standard deviation of the fair value's own walk, in log units
    wander_seconds: float  # how long that walk remembers
    noise: float  # standard deviation of a print round the pool's price, in log units
    phases: tuple[Phase, ...]


MAJOR = Character(
    name="major",
    price=2.35,
    span=3,
    depth=2_000_000,
    size=140,
    size_sigma=1.4,
    whales=0.01,
    whale_size=15,
    dust=0.04,
    max_share=0.01,
    excitation=0.65,
    decay=0.8,
    split=0.3,
    pull=40,
    herding=0.3,
    wander=0.015,
    wander_seconds=3600,
    noise=0.0001,
    phases=(
        Phase(name="calm", seconds=900, rate=2.4, aim=(0.98, 1.02)),
        Phase(name="busy", seconds=300, rate=5, aim=(0.95, 1.06), size=1.4),
    ),
)

LAUNCH = Character(
    name="launch",
    price=0.000000028,
    span=300,
    depth=30,
    size=0.12,
    size_sigma=1.2,
    whales=0.015,
    whale_size=10,
    dust=0.08,
    max_share=0.12,
    excitation=0.75,
    decay=1.5,
    split=0.4,
    pull=6,
    herding=0.5,
    wander=0.12,
    wander_seconds=240,
    noise=0.001,
    phases=(
        Phase(name="gather", seconds=1200, rate=0.6, aim=(1.0, 1.8)),
        Phase(name="pump", seconds=540, rate=6.5, aim=(12, 90), size=1.5),
        Phase(name="rug", seconds=14, rate=36, aim=(0.05, 0.1), relative=True, glide=0.15, size=10),
        Phase(name="bounce", seconds=240, rate=4, aim=(1.6, 3), relative=True, glide=0.4),
        Phase(name="fade", seconds=900, rate=0.3, aim=(0.6, 1.1), glide=0.8),
    ),
)

DEAD = Character(
    name="dead",
    price=0.00000041,
    span=2,
    depth=90,
    size=0.04,
    size_sigma=1.0,
    whales=0.003,
    whale_size=8,
    dust=0.15,
    max_share=0.02,
    excitation=0.2,
    decay=0.05,
    split=0.04,
    pull=30,
    herding=0.0,
    wander=0.005,
    wander_seconds=43200,
    noise=0.0002,
    phases=(Phase(name="still", seconds=21600, rate=1 / 170, aim=(0.98, 1.02)),),
)

MICRO = Character(
    name="micro",
    price=0.000000000012,
    span=10,
    depth=40_000,
    size=7,
    size_sigma=1.6,
    whales=0.02,
    whale_size=12,
    dust=0.03,
    max_share=0.01,
    excitation=0.7,
    decay=1.0,
    split=0.3,
    pull=15,
    herding=0.4,
    wander=0.08,
    wander_seconds=1800,
    noise=0.0005,
    phases=(
        Phase(name="idle", seconds=700, rate=1.2, aim=(0.8, 1.25)),
        Phase(name="rush", seconds=250, rate=4.5, aim=(0.6, 1.8), size=1.5),
    ),
)

CHARACTERS = {character.name: character for character in (MAJOR, LAUNCH, DEAD, MICRO)}


def parse_tokens(text: str) -> dict[str, Character]:
    """Read `MOCK_TOKENS`, "SYMBOL=character,…", as `{canonical symbol: character}` in the order given.

    Raises `InvalidSettings` naming the rule: 1 to `MAX_TOKENS` items, each with a valid symbol that no other item
    repeats and a known character.
    """
    items = text.split(",") if text.strip() else []
    if not items:
        raise InvalidSettings("MOCK_TOKENS: empty, expected SYMBOL=character,…")
    if len(items) > MAX_TOKENS:
        raise InvalidSettings(f"MOCK_TOKENS: {len(items)} tokens, at most {MAX_TOKENS}")
    tokens: dict[str, Character] = {}
    for item in items:
        symbol, character = _parse_item(item.strip())
        if symbol in tokens:
            raise InvalidSettings(f"MOCK_TOKENS: symbol {echo(symbol)} is repeated")
        tokens[symbol] = character
    return tokens


def _parse_item(item: str) -> tuple[str, Character]:
    if not item:
        raise InvalidSettings("MOCK_TOKENS: an empty item, expected SYMBOL=character,…")
    name, equals, kind = (part.strip() for part in item.partition("="))
    if not equals:
        raise InvalidSettings(f"MOCK_TOKENS: {echo(item)} is not SYMBOL=character")
    if kind not in CHARACTERS:
        raise InvalidSettings(f"MOCK_TOKENS: unknown character {echo(kind)}, expected one of {', '.join(CHARACTERS)}")
    try:
        return canonical_symbol(name), CHARACTERS[kind]
    except InvalidSymbol as error:
        raise InvalidSettings(f"MOCK_TOKENS: symbol {echo(name)}: {error.detail}") from None
