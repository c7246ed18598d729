"""Tokens and trades."""

from alembic import op

from klines.revision import apply

revision = "0002_trades"
down_revision = "0001_storage_profile"


def upgrade() -> None:
    apply(op, revision)
