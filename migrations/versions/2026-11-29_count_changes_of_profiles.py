"""count changes of profiles

Revision ID: c92f47b1e06d
Revises: a53e0d9c7b18
Create Date: 2026-11-29 23:57:44.190236+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "c92f47b1e06d"
down_revision = "a53e0d9c7b18"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "profile_counter",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile_counter")),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.execute("INSERT INTO profile_counter (id, number) VALUES (1, 1)")
    op.drop_index(op.f("ix_user_updated_at"), table_name="user")


def downgrade() -> None:
    op.create_index(op.f("ix_user_updated_at"), "user", ["updated_at"])
    op.drop_table("profile_counter")
