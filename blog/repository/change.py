"""All SQL about what became of blogs; `repository/blog.py` writes it."""

from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.models import BlogChange, ChangeCounter, now
from blog.repository import MOMENT, VIEWER, AnyRow, beyond, execute
from blog.schemas.types import MAX_ID
from blog.security.access import Caller

Kind = Literal["created", "updated", "deleted"]

BLOG: Any = col(BlogChange.blog_id)
IS_OWN = col(BlogChange.creator_id) == VIEWER
NUMBER: ColumnElement[int] = bindparam("number", type_=Integer)
SHOWN: tuple[Any, ...] = (
    BLOG,
    col(BlogChange.creator_id),
    col(BlogChange.created_number),
    col(BlogChange.public_since),
    col(BlogChange.due_at),
    col(BlogChange.deleted_at),
)


class Position(NamedTuple):
    """How far somebody has followed: to this change of this blog, and to what was due then, up to this blog."""

    number: int
    blog_id: int
    at: int
    due_id: int

    @property
    def moment(self) -> datetime:
        """The moment up to which what came into sight by itself was seen."""
        return datetime.fromtimestamp(self.at, UTC)


class Entry(NamedTuple):
    """What became of a blog."""

    blog_id: int
    kind: Kind
    at: datetime


START = Position(0, 0, 0, MAX_ID)


@cache
def _due_statement(dialect: str) -> Select[*tuple[Any, ...]]:
    """Blogs that came into sight by themselves, and of whose writing there is nothing more to tell."""
    due_at = col(BlogChange.due_at)
    # Not with OR, for which SQLite would use other indexes and sort what they find.
    written = case((IS_OWN, col(BlogChange.number)), else_=func.coalesce(col(BlogChange.public_number), 0))
    return (
        select(*SHOWN)
        .where(
            beyond(dialect, cast("Any", due_at), BLOG),
            cast("Any", due_at) <= MOMENT,
            written <= NUMBER,
        )
        .order_by(due_at, BLOG)
        .limit(bindparam("limit"))
    )


@cache
def _written_statement(dialect: str) -> Select[*tuple[Any, ...]]:
    """Blogs that were written, in the order of the changes: one's own as one sees them, others' as everybody does.

    One's own that others see, too, are found by both walks, so that neither has to look for the next one that is its.
    After the last comes a row without a creator: the number of the last change of all, seen or not.
    """

    def walk(number: Any, at: Any, *conditions: ColumnElement[bool]) -> Any:
        statement = select(*SHOWN, number.label("number"), at.label("at"))
        statement = statement.where(beyond(dialect, number, BLOG), *conditions).order_by(number, BLOG)
        return select(statement.limit(bindparam("rows")).subquery())

    is_due = or_(col(BlogChange.due_at).is_(None), cast("Any", col(BlogChange.due_at)) <= MOMENT)
    public_number, number = col(BlogChange.public_number), col(BlogChange.number)
    public = walk(
        public_number,
        col(BlogChange.public_changed_at),
        or_(~IS_OWN, public_number == number),
        or_(col(BlogChange.was_public) == true(), and_(col(BlogChange.public_since).is_not(None), is_due)),
    )
    own = walk(number, col(BlogChange.changed_at), IS_OWN)
    nothing = [null().label(cast("Any", column).key) for column in SHOWN[1:]]
    end = select(literal(MAX_ID).label("blog_id"), *nothing, col(ChangeCounter.number), null().label("at"))
    written = union(public, own, end).subquery()
    return select(written).order_by(written.c.number, written.c.blog_id).limit(bindparam("rows"))


class ChangeRepository:
    """What became of blogs, in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def since(self, position: Position, limit: int, *, viewer: Caller) -> tuple[list[Entry], Position]:
        """What became since then of blogs that `viewer` sees or saw, and how far this goes.

        A clock that is behind another worker's must not hide what was shown before, so time does not go back.
        """
        dialect = self._session.get_bind().dialect.name
        moment = max(now(), position.moment)
        asked = {"viewer_id": viewer.user.id, "now": moment, "number": position.number, "limit": limit}
        last = {"last_key": position.moment, "last_id": position.due_id}
        due = await execute(self._session, _due_statement(dialect), asked | last)
        entries = [Entry(row.blog_id, _kind_of_due(row, viewer, position), row.due_at) for row in due]
        if len(entries) == limit:
            return entries, position._replace(at=int(entries[-1].at.timestamp()), due_id=entries[-1].blog_id)
        limit -= len(entries)
        # One row more, or the last change of all would stand behind a page that others come after.
        last = {"last_key": position.number, "last_id": position.blog_id, "rows": limit + 1}
        rows = (await execute(self._session, _written_statement(dialect), asked | last)).all()
        written = [row for row in rows if row.creator_id is not None][:limit]
        entries += [Entry(row.blog_id, _kind_of_written(row, viewer, position, moment), row.at) for row in written]
        end = rows[-1] if len(rows) <= limit or rows[-1].creator_id is None else written[-1]
        return entries, Position(end.number, end.blog_id, int(moment.timestamp()), MAX_ID)


def _kind_of_due(row: AnyRow, viewer: Caller, since: Position) -> Kind:
    is_known = row.creator_id == viewer.user.id and row.created_number <= since.number
    return "updated" if is_known else "created"


def _kind_of_written(row: AnyRow, viewer: Caller, since: Position, moment: datetime) -> Kind:
    if row.creator_id == viewer.user.id:
        if row.deleted_at is not None:
            return "deleted"
        return "created" if row.created_number > since.number else "updated"
    if row.public_since is None or (row.due_at is not None and row.due_at > moment):
        return "deleted"
    return "created" if row.public_since > since.number else "updated"
