"""Decide the storage profile and write it down; everything later asks the database."""

from alembic import op
from sqlalchemy import text

from klines.revision import apply, decide_profile

revision = "0001_storage_profile"
down_revision = None


def upgrade() -> None:
    choice = decide_profile(op)
    apply(op, revision, choice)
    reason = choice.reason.replace("'", "''")
    op.execute(text(f"COMMENT ON FUNCTION klines_internal.storage_profile() IS '{reason}'"))
