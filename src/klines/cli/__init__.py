"""The commands of `klines`, one module each."""
