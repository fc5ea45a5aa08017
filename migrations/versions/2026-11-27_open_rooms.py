"""open rooms

Revision ID: d41c8f0a6e35
Revises: b2f60e8c9d17
Create Date: 2026-11-27 08:10:41.118254+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "d41c8f0a6e35"
down_revision = "b2f60e8c9d17"
branch_labels = None
depends_on = None


def long_text() -> sa.Text:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def upgrade() -> None:
    op.create_table(
        "room",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("category", sa.String(100), nullable=False),
        sa.Column("description", sa.String(100), nullable=False),
        sa.Column("room_type", sa.String(100), nullable=False),
        sa.Column("order", sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql"), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("blog_id", sa.Integer(), nullable=True),
        sa.Column("is_listed", sa.Boolean(), nullable=False),
        sa.Column("slow_mode", sa.Integer(), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("removals", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_room")),
        sa.UniqueConstraint("blog_id", name=op.f("uq_room_blog_id")),
        sa.ForeignKeyConstraint(["blog_id"], ["blog.id"], name=op.f("fk_room_blog_id_blog"), ondelete="CASCADE"),
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    for columns in (("order",), ("category", "created_at"), ("category", "order"), ("created_at",)):
        indexed = ["is_listed", *columns, "id"]
        op.create_index(op.f(f"ix_room_{'_'.join(indexed)}"), "room", indexed)
    op.create_table(
        "message",
        sa.Column("room_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("writer_id", sa.Integer(), nullable=False),
        sa.Column("ref", sa.String(64), nullable=True),
        sa.Column("body", long_text(), nullable=False),
        sa.Column("html", long_text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removal", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("room_id", "number", name=op.f("pk_message")),
        sa.ForeignKeyConstraint(["room_id"], ["room.id"], name=op.f("fk_message_room_id_room"), ondelete="CASCADE"),
        sqlite_autoincrement=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index(op.f("ix_message_room_id_removal"), "message", ["room_id", "removal"])
    op.create_index(op.f("ix_message_room_id_writer_id_number"), "message", ["room_id", "writer_id", "number"])
    op.create_index(op.f("ix_message_room_id_writer_id_ref"), "message", ["room_id", "writer_id", "ref"], unique=True)
    op.create_table(
        "room_presence",
        sa.Column("process", sa.String(32), nullable=False),
        sa.Column("room_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("process", "room_id", "user_id", name=op.f("pk_room_presence")),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
    op.create_index(op.f("ix_room_presence_room_id_expires_at"), "room_presence", ["room_id", "expires_at"])
    op.create_index(op.f("ix_room_presence_expires_at"), "room_presence", ["expires_at"])


def downgrade() -> None:
    op.drop_table("room_presence")
    op.drop_table("message")
    op.drop_table("room")
