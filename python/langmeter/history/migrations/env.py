"""Alembic's environment: runs the revisions within the transaction that `schema` hands over."""

from alembic import context

from langmeter.history.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # of SQLite too, because `schema` begins its transactions itself
)
context.run_migrations()
