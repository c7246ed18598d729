"""From the database to the sockets: what doorbells announce is read once and told to everyone who watches."""
