"""keep images

Revision ID: b2f60e8c9d17
Revises: 5a9e1c7d2b64
Create Date: 2026-11-22 09:04:17.302811+00:00
"""

import sqlalchemy as sa
from alembic import op

revision = "b2f60e8c9d17"
down_revision = "5a9e1c7d2b64"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "media",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.String(20), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media")),
        sa.UniqueConstraint("name", name=op.f("uq_media_name")),
        sa.ForeignKeyConstraint(["owner_id"], ["user.id"], name=op.f("fk_media_owner_id_user"), ondelete="CASCADE"),
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index(op.f("ix_media_owner_id_size"), "media", ["owner_id", "size"])


def downgrade() -> None:
    op.drop_table("media")
