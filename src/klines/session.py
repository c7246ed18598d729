"""What sessions of ours are set to, whatever their login or database has: PostgreSQL's settings by name."""

from __future__ import annotations

# Tables are in public; everything else names its schema.
PATH = {"search_path": "public, pg_temp"}

# For a connection that stands as long as its process: silence does not end it, but a host that is gone does, within
# half a minute. The server would otherwise keep what the connection holds there for hours.
LASTING = {
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}

BY_KEY = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
