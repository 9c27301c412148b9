"""Alembic's entry: runs the migrations on the connection, and with the tables, that `colocd.store.schema` hands over."""

from alembic import context

if context.is_offline_mode():
    raise RuntimeError("coloc migrates a database it is connected to; there is no offline mode")

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    compare_type=True,
    compare_server_default=True,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
