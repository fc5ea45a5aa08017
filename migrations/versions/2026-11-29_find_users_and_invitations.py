"""find users and invitations

Revision ID: a53e0d9c7b18
Revises: 7be25f10c94a
Create Date: 2026-11-29 23:41:17.308512+00:00
"""

from alembic import op

revision = "a53e0d9c7b18"
down_revision = "7be25f10c94a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_user_is_active_id"), "user", ["is_active", "id"])
    op.create_index(op.f("ix_user_is_active_role_id"), "user", ["is_active", "role", "id"])
    op.create_index(op.f("ix_one_time_link_purpose_id"), "one_time_link", ["purpose", "id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_one_time_link_purpose_id"), table_name="one_time_link")
    op.drop_index(op.f("ix_user_is_active_role_id"), table_name="user")
    op.drop_index(op.f("ix_user_is_active_id"), table_name="user")
