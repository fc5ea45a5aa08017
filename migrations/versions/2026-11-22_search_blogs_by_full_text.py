"""search blogs by full text

Revision ID: 7c41d09be853
Revises: e8d3a4f7150c
Create Date: 2026-11-22 08:59:12.604183+00:00
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMTEXT

revision = "7c41d09be853"
down_revision = "e8d3a4f7150c"
branch_labels = None
depends_on = None

TABLE: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}

# Each engine's index of the terms. It is no part of the models: no two engines have the same.
INDEX = {
    "sqlite": (
        # Nothing asks it for the length of a blog.
        "CREATE VIRTUAL TABLE blog_terms USING fts5"
        " (terms, content='blog_text', content_rowid='blog_id', tokenize='ascii', columnsize=0)",
        # A batch alteration of blog_text makes that table anew, and has to make these anew then.
        "CREATE TRIGGER blog_text_insert AFTER INSERT ON blog_text BEGIN"
        " INSERT INTO blog_terms (rowid, terms) VALUES (new.blog_id, new.terms); END",
        "CREATE TRIGGER blog_text_delete AFTER DELETE ON blog_text BEGIN"
        " INSERT INTO blog_terms (blog_terms, rowid, terms) VALUES ('delete', old.blog_id, old.terms); END",
        "CREATE TRIGGER blog_text_update AFTER UPDATE ON blog_text"
        " WHEN old.terms <> new.terms OR old.blog_id <> new.blog_id BEGIN"
        " INSERT INTO blog_terms (blog_terms, rowid, terms) VALUES ('delete', old.blog_id, old.terms);"
        " INSERT INTO blog_terms (rowid, terms) VALUES (new.blog_id, new.terms); END",
    ),
    "postgresql": (
        # The blocks of ids that a blog is in stand among its words: see LEVELS in blog/search.py.
        "ALTER TABLE blog_text ADD COLUMN vector tsvector GENERATED ALWAYS AS"
        " (to_tsvector('simple', terms) || array_to_tsvector(ARRAY["
        + ", ".join(f"'b{level}x' || (blog_id >> {level})::text" for level in (10, 14, 18, 22))
        + "])) STORED",
        # Else what was written lately lies in a list that each search reads from end to end.
        "CREATE INDEX ix_blog_text_vector ON blog_text USING gin (vector) WITH (fastupdate = off)",
    ),
    "mysql": ("CREATE FULLTEXT INDEX ix_blog_text_terms ON blog_text (terms)",),
}


def upgrade() -> None:
    op.create_table(
        "blog_text",
        sa.Column("blog_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "terms",
            sa.Text().with_variant(MEDIUMTEXT(charset="ascii", collation="ascii_bin"), "mysql"),
            nullable=False,
        ),
        sa.Column(
            "text",
            sa.Text().with_variant(MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("blog_id", name=op.f("pk_blog_text")),
        sa.ForeignKeyConstraint(["blog_id"], ["blog.id"], name=op.f("fk_blog_text_blog_id_blog"), ondelete="CASCADE"),
        **TABLE,
    )
    for statement in INDEX[op.get_context().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("blog_text")
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TABLE blog_terms")
