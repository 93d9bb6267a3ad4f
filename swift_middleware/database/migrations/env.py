"""Run by alembic; the connection is handed in by :mod:`swift_middleware.database.engine`."""

from alembic import context

from swift_middleware.database import schema

context.configure(connection=context.config.attributes["connection"],
                  target_metadata=schema.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
