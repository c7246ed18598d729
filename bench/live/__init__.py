"""Figures of the live streams: fan-out, latency, and the memory of connections."""
