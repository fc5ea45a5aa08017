"""count failed logins

Revision ID: 8b1d0c6f2a47
Revises: 54fef35644d9
Create Date: 2026-11-22 02:40:11.204517+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "8b1d0c6f2a47"
down_revision = "54fef35644d9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "login_failure",
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_failure")),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index(op.f("ix_login_failure_expires_at"), "login_failure", ["expires_at"])


def downgrade() -> None:
    op.drop_table("login_failure")
