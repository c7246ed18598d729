"""Bad input: the whole catalogue B01 to B109 sent for real, and test kits of outsiders pointed at the service."""
