"""A feed is an async iterator of batches of trades, whatever they come from: a simulation, a file or an exchange."""
