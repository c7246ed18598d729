"""The HTTP interface: routes, their parameters, and errors as problem documents."""
