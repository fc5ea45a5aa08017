"""keep logins as rows

Revision ID: c3e7a95d1f08
Revises: 8b1d0c6f2a47
Create Date: 2026-11-22 05:50:32.918274+00:00
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "c3e7a95d1f08"
down_revision = "8b1d0c6f2a47"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {
    "sqlite_autoincrement": True,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    op.create_table(
        "login_session",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("family_digest", sa.String(64), nullable=False),
        sa.Column("refresh_digest", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("user_agent", sa.String(200), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_session")),
        sa.UniqueConstraint("public_id", name=op.f("uq_login_session_public_id")),
        sa.UniqueConstraint("family_digest", name=op.f("uq_login_session_family_digest")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_login_session_user_id_user"), ondelete="CASCADE"
        ),
        **TABLE,
    )
    op.create_index(op.f("ix_login_session_user_id_id"), "login_session", ["user_id", "id"])

    op.create_table(
        "personal_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("token_digest", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_personal_token")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_personal_token_token_digest")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_personal_token_user_id_user"), ondelete="CASCADE"
        ),
        **TABLE,
    )
    op.create_index(op.f("ix_personal_token_user_id_id"), "personal_token", ["user_id", "id"])

    op.create_table(
        "one_time_link",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_digest", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(254), nullable=True),
        sa.Column("role", sa.String(16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_one_time_link")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_one_time_link_token_digest")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user.id"], name=op.f("fk_one_time_link_user_id_user"), ondelete="CASCADE"
        ),
        **TABLE,
    )
    op.create_index(op.f("ix_one_time_link_user_id_purpose_id"), "one_time_link", ["user_id", "purpose", "id"])

    op.add_column("user", sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True))
    # Tokens name a login's row from now on, so whoever is logged in logs in once more.
    op.drop_column("user", "spared_token_id")
    op.drop_column("user", "login_generation")


def downgrade() -> None:
    # No token has this generation: whoever is logged in logs in once more.
    op.add_column("user", sa.Column("login_generation", sa.String(32), nullable=False, server_default=""))
    op.add_column("user", sa.Column("spared_token_id", sa.String(32), nullable=True))
    op.drop_column("user", "email_verified_at")
    op.drop_table("one_time_link")
    op.drop_table("personal_token")
    op.drop_table("login_session")
