"""The role that analysts read with."""

from alembic import op

from klines.revision import apply

revision = "0006_analyst"
down_revision = "0005_tape"


def upgrade() -> None:
    apply(op, revision)
