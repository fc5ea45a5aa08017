"""All SQL about revisions; `repository/blog.py` writes them."""

from typing import Any, cast

from sqlalchemy import Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.models import BlogRevision, User
from blog.repository import AnyRow, execute, newest_first
from blog.schemas.types import Page, PageRequest

LISTED: Select[*tuple[Any, ...]] = (
    select(
        col(BlogRevision.number),
        col(BlogRevision.number).label("id"),
        col(BlogRevision.title),
        col(BlogRevision.created_at),
        col(User.id).label("editor_id"),
        col(User.name).label("editor_name"),
    )
    .join(User, col(User.id) == col(BlogRevision.editor_id), isouter=True)
    .where(col(BlogRevision.blog_id) == bindparam("blog"))
)
FIND = LISTED.where(col(BlogRevision.number) == bindparam("number"))
READ = FIND.add_columns(col(BlogRevision.body))


class RevisionRepository:
    """Revisions of blogs in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(self, page: PageRequest, blog_id: int) -> Page[AnyRow]:
        """Revisions of this blog without their bodies, the newest first."""
        return await newest_first(self._session, LISTED, cast("Any", col(BlogRevision.number)), page, {"blog": blog_id})

    async def get(self, blog_id: int, number: int, *, whole: bool = True) -> AnyRow | None:
        """The revision of this blog with this number; without its body unless it shall be whole."""
        named = {"blog": blog_id, "number": number}
        row: AnyRow | None = (await execute(self._session, READ if whole else FIND, named)).one_or_none()
        return row
