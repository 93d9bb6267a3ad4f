"""The tables of the first version."""

from alembic import op

from swift_middleware.database import schema

revision = "0001"
down_revision = None


def upgrade():
    schema.metadata.create_all(op.get_bind())
