"""Every SELECT of the service. Functions take a connection and answer values, or JSON that PostgreSQL has built.

REST, streams and dialects read through the same functions, so a bar is the same number wherever it is seen.
"""
