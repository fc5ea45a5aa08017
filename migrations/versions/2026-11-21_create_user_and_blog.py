"""create user and blog

Revision ID: 54fef35644d9
Revises:
Create Date: 2026-11-21 23:20:18.677838+00:00
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "54fef35644d9"
down_revision = None
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {
    "sqlite_autoincrement": True,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "user",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("name_folded", sa.String(200), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_folded", sa.String(254), nullable=False),
        sa.Column("about", long_text(), nullable=False),
        sa.Column("password_hash", sa.String(128), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("login_generation", sa.String(32), nullable=False),
        sa.Column("spared_token_id", sa.String(32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("public_id", name=op.f("uq_user_public_id")),
        sa.UniqueConstraint("email_folded", name=op.f("uq_user_email_folded")),
        **TABLE,
    )
    op.create_index(op.f("ix_user_role_id"), "user", ["role", "id"])

    op.create_table(
        "blog",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column(
            "title_folded",
            sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("body", long_text(), nullable=False),
        sa.Column("creator_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blog")),
        sa.ForeignKeyConstraint(["creator_id"], ["user.id"], name=op.f("fk_blog_creator_id_user"), ondelete="RESTRICT"),
        **TABLE,
    )
    op.create_index(op.f("ix_blog_published_at_id"), "blog", ["published_at", "id"])
    op.create_index(op.f("ix_blog_title_folded_id"), "blog", ["title_folded", "id"])
    op.create_index(op.f("ix_blog_creator_id_published_at_id"), "blog", ["creator_id", "published_at", "id"])
    op.create_index(op.f("ix_blog_creator_id_title_folded_id"), "blog", ["creator_id", "title_folded", "id"])


def downgrade() -> None:
    op.drop_table("blog")
    op.drop_table("user")
