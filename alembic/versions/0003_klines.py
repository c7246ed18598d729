"""Bars of every interval, folded from the trades by a trigger."""

from alembic import op

from klines.revision import apply

revision = "0003_klines"
down_revision = "0002_trades"


def upgrade() -> None:
    apply(op, revision)
