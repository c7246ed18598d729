"""Faults injected for real; every test ends by the oracles and reports one line of figures."""
