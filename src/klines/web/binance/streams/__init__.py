"""Binance's WebSocket streams: a layer over the same hub and relay as the native ones, without a truth of its own.

`address` is where clients come in, `session` one of them, `market` what all of them watch, `source` one native stream,
`dense` its bars without gaps, `tickers` the 24 hours.
"""
