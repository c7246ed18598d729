"""Figures of the live streams, taken from outside. No part of the service; README.md beside this file says how."""
