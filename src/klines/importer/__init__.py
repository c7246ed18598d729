"""Trades from a file: the whole file is checked before anything is stored, then stored slice by slice."""
