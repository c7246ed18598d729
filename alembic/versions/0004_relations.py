"""The relations that SQL users may rely on."""

from alembic import op

from klines.revision import apply

revision = "0004_relations"
down_revision = "0003_klines"


def upgrade() -> None:
    apply(op, revision)
