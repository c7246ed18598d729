"""The roles of the service, each with the least that its work needs."""

from alembic import op
from sqlalchemy import text

from klines.revision import apply

revision = "0008_roles"
down_revision = "0007_keys"


def upgrade() -> None:
    apply(op, revision)
    # After both files of the revision: it hands over and grants what they made.
    op.execute(text("SELECT klines_internal.grant_roles_v1()"))
