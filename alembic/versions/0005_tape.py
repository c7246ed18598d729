"""The tape: the latest trades in commit order, for live streams and their cursors."""

from alembic import op

from klines.revision import apply

revision = "0005_tape"
down_revision = "0004_relations"


def upgrade() -> None:
    apply(op, revision)
