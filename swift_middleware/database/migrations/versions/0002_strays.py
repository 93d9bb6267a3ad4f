"""Slots that are given back more than once."""

from alembic import op

from swift_middleware.database import schema

revision = "0002"
down_revision = "0001"


def upgrade():
    # A new database has it from the first version, which makes what there is by now.
    schema.stray.create(op.get_bind(), checkfirst=True)
