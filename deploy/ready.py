"""Container health check: exit 0 when the service on this container's loopback says it is ready, 1 otherwise.

Reads PORT as the service does. Uses no proxy, follows no redirect, and gives up after four seconds.
"""

from __future__ import annotations

import http.client
import os
import sys

SECONDS = 4


def ready(port: int) -> bool:
    """Whether GET /health/ready on 127.0.0.1:`port` answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not ready(int(os.environ.get("PORT") or "8080")))
