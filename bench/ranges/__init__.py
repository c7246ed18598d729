"""Bars out of many trades, and the space that trades and bars take, beside other engines."""
