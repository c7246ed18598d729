"""${message}."""

from alembic import op
from klines.revision import apply

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    apply(op, revision)
