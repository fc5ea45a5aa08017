"""All SQL, one module a noun."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    Executable,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    false,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import flag_modified
from sqlmodel import SQLModel, col

from blog.models import Blog, Message, Room
from blog.schemas.types import Page, PageRequest

AnyRow = Row[*tuple[Any, ...]]

MOMENT: ColumnElement[datetime] = bindparam("now", type_=SQLModel.metadata.tables["blog"].c.published_at.type)
"""The moment that decides who sees what."""
VIEWER: ColumnElement[int] = bindparam("viewer_id", type_=Integer)
"""The id of whoever looks."""

IS_OVER = col(Blog.published_at) <= MOMENT
IS_OWN = col(Blog.creator_id) == VIEWER
IS_VISIBLE = or_(and_(col(Blog.is_draft) == false(), IS_OVER), IS_OWN)
"""Whether a blog is there for whoever looks, and so its room."""

MESSAGES_AT_ONCE = 10_000
"""Messages that one statement deletes, so that none outlasts the time a statement has."""

DELETE_MESSAGES = delete(Message).where(
    col(Message.room_id) == bindparam("room"),
    col(Message.number) > bindparam("beyond"),
    col(Message.number) <= bindparam("up_to"),
)

LONG_ROOMS = (
    select(col(Room.id), col(Room.last_number))
    .where(col(Room.blog_id).in_(bindparam("ids", expanding=True)), col(Room.last_number) > bindparam("few"))
    .order_by(col(Room.id))
    .with_for_update()
)


def assign(row: SQLModel, changes: Mapping[str, Any]) -> None:
    """Set columns of a table's object, so that the next flush writes each of them.

    Also the one that is as it was when it was loaded: somebody may have changed it since, and of
    two changes at once the later one shall stand whole.
    """
    for column, value in changes.items():
        setattr(row, column, value)
        flag_modified(row, column)


async def execute(
    session: AsyncSession, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> CursorResult[*tuple[Any, ...]]:
    """Execute a statement on tables' columns in the session's transaction, past its machinery for objects.

    Once for each of several parameters.

    A row costs half of what an object does, and reading is what a blog does most.
    """
    return await (await session.connection()).execute(statement, parameters)


async def affects(session: AsyncSession, statement: Executable, parameters: Mapping[str, Any]) -> bool:
    """Execute a statement that changes or deletes rows; whether there was one."""
    return (await execute(session, statement, parameters)).rowcount > 0


def beyond(
    dialect: str, key: ColumnElement[Any], number: ColumnElement[int], *, descending: bool = False, last: str = "last"
) -> ColumnElement[bool]:
    """Whether a row comes after the bound parameters `last_key` and `last_id` in the order of `key` and `number`."""
    last_key: ColumnElement[Any] = bindparam(f"{last}_key", type_=key.type)
    last_id: ColumnElement[int] = bindparam(f"{last}_id", type_=Integer)
    if dialect == "mysql":  # it finds no index for a comparison of rows, and the other two none for OR
        if descending:
            return or_(key < last_key, and_(key == last_key, number < last_id))
        return or_(key > last_key, and_(key == last_key, number > last_id))
    position, end = tuple_(key, number), tuple_(last_key, last_id)
    return position < end if descending else position > end


async def newest_first(
    session: AsyncSession,
    statement: Select[*tuple[Any, ...]],
    number: Column[int],
    page: PageRequest,
    parameters: Mapping[str, Any],
    *,
    index: str | None = None,
) -> Page[AnyRow]:
    """A page of the rows of `statement`, from the largest `number` down along this index, or that of the number.

    Unless MariaDB is told, it may begin at the index's end, and read all rows down to where the page does.
    """
    if index is not None:
        statement = statement.with_hint(number.table, f"FORCE INDEX ({index})", "mysql")
    if page.after is not None:
        statement = statement.where(number < page.after[0])
    rows = (await execute(session, statement.order_by(number.desc()).limit(page.limit + 1), parameters)).all()
    more = len(rows) > page.limit
    rows = rows[: page.limit]
    return Page(rows, (rows[-1].id,) if more else None)


async def delete_messages(session: AsyncSession, room_id: int, last_number: int, *, of: int = 1) -> None:
    """Delete the messages of a room that goes, one `of` so many at once, but for the few that go with their rows."""
    for beyond_number in range(0, last_number - MESSAGES_AT_ONCE // of, MESSAGES_AT_ONCE):
        cut = {"room": room_id, "beyond": beyond_number, "up_to": beyond_number + MESSAGES_AT_ONCE}
        await execute(session, DELETE_MESSAGES, cut)


async def delete_messages_of_blogs(session: AsyncSession, ids: Collection[int]) -> None:
    """The same for the rooms of blogs that go. They are held, or whoever removes a message waits in a circle."""
    for room in (await execute(session, LONG_ROOMS, {"ids": ids, "few": MESSAGES_AT_ONCE // len(ids)})).all():
        await delete_messages(session, room.id, room.last_number, of=len(ids))
