"""The table of spans."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table of snapshots by span, and the index of those that are in no roll-up yet."""
    whole = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
    op.create_table(
        "langmeter_span",
        sql.Column("level", whole, primary_key=True, autoincrement=False),
        sql.Column("ended", whole, primary_key=True, autoincrement=False),
        sql.Column("host", sql.Text, primary_key=True),
        sql.Column("version", sql.Text, primary_key=True),
        sql.Column("process", sql.Text, primary_key=True),
        sql.Column("number", whole, primary_key=True, autoincrement=False),
        sql.Column("started", whole, nullable=False),
        sql.Column("rolled", whole, nullable=False),
        sql.Column("data", sql.LargeBinary, nullable=False),
        sqlite_strict=True,
        if_not_exists=True,
    )
    op.create_index(
        "langmeter_span_unrolled",
        "langmeter_span",
        ["ended"],
        if_not_exists=True,
        sqlite_where=sql.text("rolled = 0"),
        postgresql_where=sql.text("rolled = 0"),
    )
