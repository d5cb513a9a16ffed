"""Alembic's entry: runs the steps on the connection that ``keysvc.store.migrate`` hands over."""

from alembic import context

from keysvc.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
