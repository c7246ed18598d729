"""How many decimals a token's price is shown with: derived from the price, as there is no fixed tick. Pure."""

from __future__ import annotations

# Of the leading digits; an exchange shows five or six of a price.
SIGNIFICANT = 6
MAX_DECIMALS = 18


def price_decimals(price: str | None) -> int:
    """Decimals for a price given as fixed-point text: as many as it has, and at least six significant digits' worth.

    Between 2 and `MAX_DECIMALS`; 8 for a token without a trade. `0.00000123` has 5 zeros before its digits: 11.
    """
    if price is None:
        return 8
    whole, _, fraction = price.partition(".")
    if whole.strip("0"):
        wanted = SIGNIFICANT - len(whole.lstrip("0"))
    else:
        wanted = SIGNIFICANT + len(fraction) - len(fraction.lstrip("0"))
    return min(max(wanted, len(fraction), 2), MAX_DECIMALS)
