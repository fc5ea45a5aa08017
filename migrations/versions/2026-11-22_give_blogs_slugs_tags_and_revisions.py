"""give blogs slugs tags and revisions

Revision ID: 5a9e1c7d2b64
Revises: 7c41d09be853
Create Date: 2026-11-22 09:01:33.417902+00:00
"""

import re
import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql

revision = "5a9e1c7d2b64"
down_revision = "7c41d09be853"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {
    "sqlite_autoincrement": True,
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
KEYED = {**TABLE, "sqlite_autoincrement": False}

BATCH = 1_000
SLUG_LENGTH = 91
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")

BLOG = sa.table(
    "blog",
    sa.column("id", sa.Integer),
    sa.column("title", sa.String),
    sa.column("slug", sa.String),
    sa.column("is_draft", sa.Boolean),
    sa.column("published_at", sa.DateTime(timezone=True)),
)
SLUG = sa.table("blog_slug", sa.column("slug", sa.String), sa.column("blog_id", sa.Integer))

OLD_INDEXES = (
    ["published_at", "id"],
    ["title_folded", "id"],
    ["creator_id", "published_at", "id"],
    ["creator_id", "title_folded", "id"],
)
NEW_INDEXES = (
    ["is_draft", "published_at", "id"],
    ["is_draft", "title_folded", "id"],
    ["creator_id", "is_draft", "published_at", "id"],
    ["creator_id", "is_draft", "title_folded", "id"],
    ["renderer"],
)


def long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def by_code_point(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def slug_of(title: str) -> str:
    """As the platform made slugs on this day."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", title).casefold())
    words = "".join(
        character if unicodedata.category(character)[0] in "LMN" else " " for character in BLANK.sub("", text)
    )
    slug = unicodedata.normalize("NFC", "-".join(words.split()))
    if len(slug) > SLUG_LENGTH:
        cut = slug.rfind("-", SLUG_LENGTH // 2, SLUG_LENGTH + 1)
        slug = slug[: cut if cut > 0 else SLUG_LENGTH].rstrip("-")
    return slug


def give_slugs() -> None:
    """Each blog a slug of its title; the oldest of several with one title has it alone."""
    connection = op.get_bind()
    taken: set[str] = set()
    last = 0
    page = sa.select(BLOG.c.id, BLOG.c.title).where(BLOG.c.id > sa.bindparam("last")).order_by(BLOG.c.id).limit(BATCH)
    while rows := connection.execute(page, {"last": last}).all():
        given = []
        for number, title in rows:
            base = slug_of(title)
            slug = base or f"blog-{number}"
            while slug in taken:
                slug = f"{base or 'blog'}-{number}" if slug == base else f"{slug}-{number}"
            taken.add(slug)
            given.append({"slug": slug, "blog_id": number})
        connection.execute(sa.insert(SLUG), given)
        connection.execute(
            sa.update(BLOG).where(BLOG.c.id == sa.bindparam("blog")).values(slug=sa.bindparam("new")),
            [{"blog": row["blog_id"], "new": row["slug"]} for row in given],
        )
        last = rows[-1].id


def upgrade() -> None:
    op.create_table(
        "blog_slug",
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column("blog_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_blog_slug")),
        **KEYED,
    )
    op.create_table(
        "blog_revision",
        sa.Column("blog_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("body", long_text(), nullable=False),
        sa.Column("editor_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("blog_id", "number", name=op.f("pk_blog_revision")),
        sa.ForeignKeyConstraint(
            ["blog_id"], ["blog.id"], name=op.f("fk_blog_revision_blog_id_blog"), ondelete="CASCADE"
        ),
        **KEYED,
    )
    op.create_table(
        "tag",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", by_code_point(50), nullable=False),
        sa.Column("blogs", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tag")),
        sa.UniqueConstraint("name", name=op.f("uq_tag_name")),
        **TABLE,
    )
    op.create_table(
        "blog_tag",
        sa.Column("blog_id", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.Integer(), nullable=False),
        sa.Column("creator_id", sa.Integer(), nullable=False),
        sa.Column("is_draft", sa.Boolean(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("title_folded", by_code_point(200), nullable=False),
        sa.PrimaryKeyConstraint("blog_id", "tag_id", name=op.f("pk_blog_tag")),
        sa.ForeignKeyConstraint(["blog_id"], ["blog.id"], name=op.f("fk_blog_tag_blog_id_blog"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tag_id"], ["tag.id"], name=op.f("fk_blog_tag_tag_id_tag")),
        **KEYED,
    )
    for columns in (
        ["tag_id", "is_draft", "published_at", "blog_id"],
        ["tag_id", "is_draft", "title_folded", "blog_id"],
        ["creator_id", "tag_id", "is_draft", "published_at", "blog_id"],
        ["creator_id", "tag_id", "is_draft", "title_folded", "blog_id"],
    ):
        op.create_index(op.f(f"ix_blog_tag_{'_'.join(columns)}"), "blog_tag", columns)
    op.create_table(
        "blog_change",
        sa.Column("blog_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("creator_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_number", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("public_number", sa.Integer(), nullable=True),
        sa.Column("public_since", sa.Integer(), nullable=True),
        sa.Column("public_changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("was_public", sa.Boolean(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("blog_id", name=op.f("pk_blog_change")),
        **KEYED,
    )
    for columns in (["creator_id", "number", "blog_id"], ["public_number", "blog_id"], ["due_at", "blog_id"]):
        op.create_index(op.f(f"ix_blog_change_{'_'.join(columns)}"), "blog_change", columns)
    op.create_table(
        "change_counter",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_counter")),
        **KEYED,
    )
    op.execute("INSERT INTO change_counter (id, number) VALUES (1, 1)")

    # With defaults no row is written for them, and SQLite need not make the table anew. What a body looks like is for
    # `python -m blog render`, which finds what version 0 rendered.
    empty = sa.text("('')" if op.get_context().dialect.name == "mysql" else "''")  # what MySQL wants for long text
    for column in (
        sa.Column("slug", sa.String(100), nullable=False, server_default=""),
        sa.Column("summary", sa.String(500), nullable=False, server_default=""),
        sa.Column("html", long_text(), nullable=False, server_default=empty),
        sa.Column("renderer", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("tags", sa.String(1020), nullable=False, server_default=""),
        sa.Column("is_draft", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("revision", sa.Integer(), nullable=False, server_default="1"),
    ):
        op.add_column("blog", column)
    if context.is_offline_mode():
        prefix = "CONCAT('blog-', id)" if op.get_context().dialect.name == "mysql" else "'blog-' || id"
        op.execute(f"UPDATE blog SET slug = {prefix}")  # noqa: S608  (one of the two above)
        op.execute("INSERT INTO blog_slug (slug, blog_id) SELECT slug, id FROM blog")
    else:
        give_slugs()
    op.execute(
        "INSERT INTO blog_revision (blog_id, number, title, body, editor_id, created_at)"
        " SELECT id, 1, title, body, creator_id, updated_at FROM blog"
    )
    op.execute(
        "INSERT INTO blog_change (blog_id, creator_id, number, created_number, changed_at, public_number, public_since,"
        " public_changed_at, was_public) SELECT id, creator_id, 1, 1, updated_at, 1, 1, updated_at, false FROM blog"
    )
    for columns in NEW_INDEXES:
        op.create_index(op.f(f"ix_blog_{'_'.join(columns)}"), "blog", columns)
    for columns in OLD_INDEXES:
        op.drop_index(op.f(f"ix_blog_{'_'.join(columns)}"), "blog")


def downgrade() -> None:
    hidden = sa.or_(BLOG.c.is_draft == sa.true(), BLOG.c.published_at > sa.func.current_timestamp())
    if not context.is_offline_mode():
        number = op.get_bind().scalar(sa.select(sa.func.count()).select_from(BLOG).where(hidden))
        if number:
            raise CommandError(f"{number} blogs are no public ones, and would be: publish or delete them first")
    for columns in OLD_INDEXES:
        op.create_index(op.f(f"ix_blog_{'_'.join(columns)}"), "blog", columns)
    for columns in NEW_INDEXES:
        op.drop_index(op.f(f"ix_blog_{'_'.join(columns)}"), "blog")
    for name in ("slug", "summary", "html", "renderer", "tags", "is_draft", "version", "revision"):
        op.drop_column("blog", name)
    for table in ("change_counter", "blog_change", "blog_tag", "tag", "blog_revision", "blog_slug"):
        op.drop_table(table)
