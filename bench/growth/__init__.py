"""What everything costs as trades, tokens and sockets grow in number."""
