"""What stands between a connection and the routes: well-formed, permitted, within its share, in time.

Order of reading: `gate` (the order of it all), `access` (keys and scopes), `limits` (shares), then the rest.
"""
