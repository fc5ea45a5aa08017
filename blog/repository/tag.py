"""All SQL about tags; `repository/blog.py` writes them."""

from functools import cache
from typing import Any, cast

from sqlalchemy import Select, bindparam, false, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.models import BlogChange, BlogTag, Tag, now
from blog.repository import MOMENT, VIEWER, AnyRow, execute
from blog.schemas.types import Page, PageRequest
from blog.security.access import Caller

IS_TO_COME = cast("Any", col(BlogChange.due_at)) > MOMENT, col(BlogChange.creator_id) != VIEWER
OWN_DRAFTS = (
    select(func.count())
    .where(col(BlogTag.tag_id) == col(Tag.id), col(BlogTag.is_draft) == true(), col(BlogTag.creator_id) == VIEWER)
    .scalar_subquery()
)


@cache
def page_statement(dialect: str, *, goes_on: bool) -> Select[str, int]:
    """The statement for one kind of page, built once.

    Counted are only the few blogs that are still to come and one's own drafts, however many have the tag.
    """
    listed: Any = select(col(Tag.name))
    if dialect == "mysql":
        # It would look through all that have a tag: for all tags at once it starts from those that are due.
        counted = (
            select(col(BlogTag.tag_id), func.count().label("blogs"))
            .join(BlogChange, col(BlogChange.blog_id) == col(BlogTag.blog_id))
            .where(*IS_TO_COME)
            .group_by(col(BlogTag.tag_id))
            .subquery("to_come")
        )
        listed = listed.join(counted, counted.c.tag_id == col(Tag.id), isouter=True)
        to_come: Any = func.coalesce(counted.c.blogs, 0)
    else:  # which would do so for all at once, and for each walk along one index
        to_come = (
            select(func.count())
            .where(
                col(BlogTag.tag_id) == col(Tag.id),
                col(BlogTag.is_draft) == false(),
                col(BlogTag.published_at) > MOMENT,
                col(BlogTag.creator_id) != VIEWER,
            )
            .scalar_subquery()
        )
    seen = col(Tag.blogs) - to_come + OWN_DRAFTS
    if goes_on:
        listed = listed.where(col(Tag.name) > bindparam("last_name"))
    statement: Select[str, int] = listed.add_columns(seen.label("blogs")).where(seen > 0)
    return statement.order_by(col(Tag.name)).limit(bindparam("limit"))


class TagRepository:
    """Tags in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(self, page: PageRequest, *, viewer: Caller) -> Page[AnyRow]:
        """Tags of blogs that `viewer` sees, and how many these are, by name."""
        dialect = self._session.get_bind().dialect.name
        statement = page_statement(dialect, goes_on=page.after is not None)
        parameters = {"viewer_id": viewer.user.id, "now": now(), "limit": page.limit + 1}
        if page.after is not None:
            parameters |= {"last_name": page.after[0]}
        rows = (await execute(self._session, statement, parameters)).all()
        more = len(rows) > page.limit
        rows = rows[: page.limit]
        return Page(rows, (rows[-1].name,) if more else None)
