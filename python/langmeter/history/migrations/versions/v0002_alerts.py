"""The table of leases and states of alerts."""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table: one row for each rule, with the process that judges it."""
    whole = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
    op.create_table(
        "langmeter_alert",
        sql.Column("rule", sql.Text, primary_key=True),
        sql.Column("holder", sql.Text, nullable=False),
        sql.Column("until", whole, nullable=False),
        sql.Column("state", sql.Text, nullable=False),
        sqlite_strict=True,
        if_not_exists=True,
    )
