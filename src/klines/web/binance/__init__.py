"""The Binance Spot dialect, REST and WebSocket: a layer over the same reads and the same hub."""

from __future__ import annotations

from litestar.types import ControllerRouterHandler

from klines.web.binance.rest import ROUTER

ROUTES: list[ControllerRouterHandler] = [ROUTER]
