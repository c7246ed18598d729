"""What the service measures of itself, for Prometheus: the only package that knows its client library.

Events are counted by `instruments`; what objects count on their own is read from them at the scrape, by `sources`; what
only the database knows is read by `standing` in the background, so that a scrape never waits. `shared` makes the answer
of one process that of all.
"""
