"""keep readers and find changed users

Revision ID: 7be25f10c94a
Revises: d41c8f0a6e35
Create Date: 2026-11-27 08:41:02.604417+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "7be25f10c94a"
down_revision = "d41c8f0a6e35"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_user_updated_at"), "user", ["updated_at"])
    op.create_table(
        "reading",
        sa.Column("creator_id", sa.Integer(), nullable=False),
        sa.Column("blog_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("readers", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["user.id"], name=op.f("fk_reading_creator_id_user"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("creator_id", "blog_id", "day", name=op.f("pk_reading")),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def downgrade() -> None:
    op.drop_table("reading")
    op.drop_index(op.f("ix_user_updated_at"), table_name="user")
