"""API keys, what was done with them, and the tickets of browsers."""

from alembic import op

from klines.revision import apply

revision = "0007_keys"
down_revision = "0006_analyst"


def upgrade() -> None:
    apply(op, revision)
