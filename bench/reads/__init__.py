"""Figures of reads over HTTP: what is asked for again and again, and what nobody asked for yet."""
