"""All SQL about rooms, their messages, and who is in them."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import DateTime, Integer, Select, bindparam, case, delete, func, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import SQLModel, col

from blog.errors import BlogNotFound, MessageRemoved, RoomClosed, RoomNotFound, SlowMode
from blog.models import ROOM_LENGTH, Blog, Room, now
from blog.repository import IS_VISIBLE, AnyRow, affects, assign, beyond, delete_messages, execute
from blog.schemas.room import RoomCreate, RoomSort, RoomUpdate
from blog.schemas.types import Page, PageRequest
from blog.security.access import Caller

CHANNEL = "blog_room"
"""Where PostgreSQL tells which room has something new."""

ASKED_AT_ONCE = 1_000
"""Rooms, logins, tokens or processes that one statement asks for."""

PRESENCE_LIFETIME = timedelta(seconds=30)
"""For which somebody is taken to be in a room when nothing more is heard of the process."""

rooms = SQLModel.metadata.tables["room"]
messages = SQLModel.metadata.tables["message"]
users = SQLModel.metadata.tables["user"]
logins = SQLModel.metadata.tables["login_session"]
personal_tokens = SQLModel.metadata.tables["personal_token"]
presences = SQLModel.metadata.tables["room_presence"]

at = bindparam("at", type_=DateTime(timezone=True))
IN_IDS: Any = bindparam("ids", expanding=True)
ROOM = rooms.c.id == bindparam("room_id")

IS_THERE = or_(rooms.c.blog_id.is_(None), IS_VISIBLE)
OWNER = case((rooms.c.blog_id.is_(None), rooms.c.owner_id), else_=col(Blog.creator_id))
SHOWN_OF_ROOM = (
    *(column for column in rooms.c if column.key != "owner_id"),
    users.c.id.label("owner_id"),
    users.c.name.label("owner_name"),
)
READ = (
    select(*SHOWN_OF_ROOM)
    .select_from(rooms)
    .join(Blog, col(Blog.id) == rooms.c.blog_id, isouter=True)
    .join(users, users.c.id == OWNER, isouter=True)
    .where(IS_THERE)
)
READ_BY_ID = READ.where(ROOM)
READ_OF_BLOG = READ.where(rooms.c.blog_id == bindparam("blog_id"))
TITLE_OF_BLOG = select(col(Blog.title), col(Blog.creator_id)).where(col(Blog.id) == bindparam("blog_id"))
HOLD = select(Room).where(ROOM).with_for_update()
DELETE = delete(Room).where(ROOM)

SHOWN = (
    messages.c.number,
    messages.c.body,
    messages.c.html,
    messages.c.created_at,
    messages.c.deleted_at,
    users.c.id.label("writer_id"),
    users.c.name.label("writer_name"),
)
IN_ROOM = messages.c.room_id == bindparam("room_id")
MESSAGES = select(*SHOWN).join(users, users.c.id == messages.c.writer_id, isouter=True).where(IN_ROOM)
MESSAGE = MESSAGES.where(messages.c.number == bindparam("number"))
LIMIT = bindparam("limit", type_=Integer)
MESSAGES_AFTER = MESSAGES.where(messages.c.number > bindparam("number")).order_by(messages.c.number).limit(LIMIT)
MESSAGES_BEFORE = (
    MESSAGES.where(messages.c.number < bindparam("number")).order_by(messages.c.number.desc()).limit(LIMIT)
)
REMOVED_AFTER = (
    select(messages.c.number, messages.c.deleted_at, messages.c.removal)
    .where(IN_ROOM, messages.c.removal > bindparam("removal"))
    .order_by(messages.c.removal)
    .limit(LIMIT)
)
BY_REF = select(messages.c.number).where(
    IN_ROOM, messages.c.writer_id == bindparam("writer"), messages.c.ref == bindparam("ref")
)
# Not in descending order up to the first: MariaDB would look for it among all that was said since.
LAST_OF_WRITER = select(messages.c.created_at).where(
    IN_ROOM,
    messages.c.number
    == select(func.max(messages.c.number))
    .where(IN_ROOM, messages.c.writer_id == bindparam("writer"))
    .correlate(None)
    .scalar_subquery(),
)
COUNT = update(rooms).where(ROOM).values(last_number=bindparam("number"))
ADD = insert(messages)
REMOVE = (
    update(messages)
    .where(
        messages.c.room_id == bindparam("room"),
        messages.c.number == bindparam("taken"),
        messages.c.deleted_at.is_(None),
    )
    .values(body="", html="", deleted_at=at, removal=bindparam("which"))
)
COUNT_REMOVAL = update(rooms).where(ROOM).values(removals=bindparam("which"))
NOTIFY = select(func.pg_notify(CHANNEL, bindparam("told")))

HEADS = select(rooms.c.id, rooms.c.last_number, rooms.c.removals, rooms.c.closed_at).where(rooms.c.id.in_(IN_IDS))
LIVING_LOGINS = (
    select(logins.c.id, users.c.role)
    .join(users, users.c.id == logins.c.user_id)
    .where(logins.c.id.in_(IN_IDS), logins.c.expires_at > at, users.c.is_active)
)
LIVING_TOKENS = (
    select(personal_tokens.c.id, users.c.role)
    .join(users, users.c.id == personal_tokens.c.user_id)
    .where(personal_tokens.c.id.in_(IN_IDS), personal_tokens.c.expires_at > at, users.c.is_active)
)
HIDDEN = (
    select(rooms.c.id, col(Blog.creator_id))
    .join(Blog, col(Blog.id) == rooms.c.blog_id)
    .where(rooms.c.id.in_(IN_IDS), or_(col(Blog.is_draft) == true(), cast("Any", col(Blog.published_at)) > at))
)

PROCESS = presences.c.process == bindparam("of_process")
ARRIVE = insert(presences)
LEAVE = delete(presences).where(
    PROCESS, presences.c.room_id == bindparam("of_room"), presences.c.user_id == bindparam("of_user")
)
STAY = update(presences).where(PROCESS).values(expires_at=at)
LEAVE_ALL = delete(presences).where(PROCESS)
EXPIRED = select(presences.c.process).where(presences.c.expires_at <= at).distinct().limit(ASKED_AT_ONCE)
FORGET = delete(presences).where(presences.c.process.in_(IN_IDS), presences.c.expires_at <= at)
PRESENT = (
    select(presences.c.room_id, users.c.id, users.c.name)
    .join(users, users.c.id == presences.c.user_id)
    .where(presences.c.room_id.in_(IN_IDS), presences.c.process != bindparam("of_process"), presences.c.expires_at > at)
)

ORDERS: dict[RoomSort, tuple[str, bool]] = {
    "-created_at": ("created_at", True),
    "created_at": ("created_at", False),
    "order": ("order", False),
}


@lru_cache
def page_statement(
    dialect: str, sort: RoomSort, *, by_category: bool, before: bool, goes_on: bool
) -> Select[*tuple[Any, ...]]:
    """The statement for one kind of page, built once: a walk along one index, cut before anything is joined to it.

    The walk takes no more than the index has: else MariaDB begins it at its end, and not where the page does.
    """
    name, descending = ORDERS[sort]
    key, number = rooms.c[name], rooms.c.id
    conditions = [rooms.c.is_listed == true()]
    if by_category:
        conditions.append(rooms.c.category == bindparam("category"))
    # A page that goes on from the last one downwards is before all that. Of two bounds on one side SQLite seeks one,
    # and reads whatever is between it and the other.
    if before and not (goes_on and descending):
        conditions.append(rooms.c.created_at < bindparam("before", type_=DateTime(timezone=True)))
    if goes_on:
        conditions.append(beyond(dialect, key, number, descending=descending))

    def ordered(statement: Any, *columns: Any) -> Any:
        return statement.order_by(*(column.desc() if descending else column for column in columns))

    walk = ordered(select(number, key).where(*conditions), key, number).limit(LIMIT).subquery()
    statement = select(*SHOWN_OF_ROOM).select_from(walk).join(rooms, number == walk.c.id)
    statement = statement.join(users, users.c.id == rooms.c.owner_id, isouter=True)
    return cast("Select[*tuple[Any, ...]]", ordered(statement, walk.c[name], walk.c.id))


class RoomRepository:
    """Rooms and messages in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def read(self, room_id: int, *, viewer: Caller) -> AnyRow | None:
        """The room with this id and its owner, if it is there for `viewer`: a blog's is for who sees the blog."""
        asked = {"room_id": room_id, "viewer_id": viewer.user.id, "now": now()}
        return (await execute(self._session, READ_BY_ID, asked)).one_or_none()

    async def read_of_blog(self, blog_id: int, *, viewer: Caller) -> AnyRow | None:
        """The blog's own room, if it has one and `viewer` sees the blog."""
        asked = {"blog_id": blog_id, "viewer_id": viewer.user.id, "now": now()}
        return (await execute(self._session, READ_OF_BLOG, asked)).one_or_none()

    async def page(
        self,
        page: PageRequest,
        *,
        sort: RoomSort = "-created_at",
        category: str | None = None,
        before: datetime | None = None,
    ) -> Page[AnyRow]:
        """Rooms that are no blog's, in the given order, of one category or opened before some moment."""
        dialect = self._session.get_bind().dialect.name
        statement = page_statement(
            dialect,
            sort,
            by_category=category is not None,
            before=before is not None,
            goes_on=page.after is not None,
        )
        asked: dict[str, Any] = {"category": category, "before": before, "limit": page.limit + 1}
        by_time = sort != "order"
        if page.after is not None:
            key, number = page.after
            asked |= {"last_key": datetime.fromtimestamp(key, UTC) if by_time else key, "last_id": number}
        rows = (await execute(self._session, statement, asked)).all()
        if len(rows) <= page.limit:
            return Page(rows, None)
        rows = rows[: page.limit]
        last = rows[-1]
        return Page(rows, (int(last.created_at.timestamp()) if by_time else last.order, last.id))

    async def add(self, owner_id: int, data: RoomCreate) -> Room:
        """A new room of this user's."""
        return await self._add(Room(**data.model_dump(exclude_unset=True), owner_id=owner_id))

    async def add_of_blog(self, blog_id: int) -> Room:
        """The room of a blog, which has none yet. Raises BlogNotFound, and IntegrityError when it has one by now."""
        blog = (await execute(self._session, TITLE_OF_BLOG, {"blog_id": blog_id})).one_or_none()
        if blog is None:
            raise BlogNotFound
        name = blog.title[:ROOM_LENGTH].strip()
        return await self._add(Room(name=name, owner_id=blog.creator_id, blog_id=blog_id, is_listed=False))

    async def hold(self, room_id: int) -> Room:
        """The room with this id, which nobody else writes in until this transaction ends. Raises RoomNotFound."""
        room = await self._session.scalar(HOLD, {"room_id": room_id})
        if room is None:
            raise RoomNotFound
        return room

    async def update(self, room: Room, data: RoomUpdate) -> None:
        """Write what was sent of a room that is held."""
        changes = data.model_dump(exclude_unset=True)
        is_closed = changes.pop("is_closed", None)
        if is_closed is not None and is_closed != (room.closed_at is not None):
            changes["closed_at"] = now() if is_closed else None
        assign(room, changes)
        await self._session.flush()
        await self._tell(room)

    async def remove(self, room: Room) -> None:
        """Delete a room that is held, with all that was said in it."""
        await delete_messages(self._session, room.id, room.last_number)
        await execute(self._session, DELETE, {"room_id": room.id})
        await self._tell(room)

    async def post(
        self, room: Room, writer: Caller, body: str, html: str, *, moderates: bool, ref: str | None = None
    ) -> int:
        """Write a message into a room that is held; one that came under its `ref` before is not written again.

        Gives its number.
        Raises RoomClosed, and SlowMode for somebody who does not moderate.
        """
        mine = {"room_id": room.id, "writer": writer.user.id, "ref": ref}
        if ref is not None:
            before = (await execute(self._session, BY_REF, mine)).scalar()
            if before is not None:
                return int(before)
        if room.closed_at is not None:
            raise RoomClosed
        moment = now()
        if room.slow_mode and not moderates:
            last = await self.last_said(room.id, writer.user.id)
            wait = last + timedelta(seconds=room.slow_mode) - moment if last else timedelta()
            if wait > timedelta():
                raise SlowMode.until(int(wait.total_seconds()))
        number = room.last_number + 1
        await execute(self._session, COUNT, {"room_id": room.id, "number": number})
        set_committed_value(room, "last_number", number)  # or the commit would write it once more
        row = {"room_id": room.id, "number": number, "writer_id": writer.user.id, "ref": ref}
        await execute(self._session, ADD, row | {"body": body, "html": html, "created_at": moment})
        await self._tell(room)
        return number

    async def last_said(self, room_id: int, user_id: int) -> datetime | None:
        """When this user said something in the room for the last time."""
        asked = {"room_id": room_id, "writer": user_id}
        return cast("datetime | None", (await execute(self._session, LAST_OF_WRITER, asked)).scalar())

    async def remove_message(self, room: Room, number: int) -> None:
        """Take away the text of a message in a room that is held. Raises MessageRemoved when it is gone already."""
        which = {"which": room.removals + 1}
        await execute(self._session, COUNT_REMOVAL, {"room_id": room.id} | which)
        set_committed_value(room, "removals", which["which"])
        if not await affects(self._session, REMOVE, {"room": room.id, "taken": number, "at": now()} | which):
            raise MessageRemoved
        await self._tell(room)

    async def read_message(self, room_id: int, number: int) -> AnyRow | None:
        """The message of the room with this number, removed or not."""
        return (await execute(self._session, MESSAGE, {"room_id": room_id, "number": number})).one_or_none()

    async def messages_after(self, room_id: int, number: int, limit: int) -> Sequence[AnyRow]:
        """What was said in the room behind this number, in order."""
        asked = {"room_id": room_id, "number": number, "limit": limit}
        return (await execute(self._session, MESSAGES_AFTER, asked)).all()

    async def messages_before(self, room_id: int, number: int, limit: int) -> Sequence[AnyRow]:
        """The last messages of the room before this number, in order."""
        asked = {"room_id": room_id, "number": number, "limit": limit}
        return (await execute(self._session, MESSAGES_BEFORE, asked)).all()[::-1]

    async def removed_after(self, room_id: int, removal: int, limit: int) -> Sequence[AnyRow]:
        """Number and time of what was removed from the room since this removal, in order."""
        asked = {"room_id": room_id, "removal": removal, "limit": limit}
        return (await execute(self._session, REMOVED_AFTER, asked)).all()

    async def heads(self, ids: Iterable[int]) -> dict[int, AnyRow]:
        """How far each of these rooms is, by id; one that was deleted is missing."""
        return {row.id: row for row in await _each(self._session, HEADS, ids)}

    async def hidden(self, ids: Iterable[int]) -> dict[int, int]:
        """Those of these rooms whose blog nobody but its creator sees, and who that is."""
        return {row.id: row.creator_id for row in await _each(self._session, HIDDEN, ids, at=now())}

    async def living(self, login_ids: Iterable[int], token_ids: Iterable[int]) -> tuple[dict[int, Any], dict[int, Any]]:
        """Those of these logins, and of these personal tokens, that are not over, each with its user's role."""
        found = [
            {row.id: row.role for row in await _each(self._session, statement, ids, at=now())}
            for statement, ids in ((LIVING_LOGINS, login_ids), (LIVING_TOKENS, token_ids))
        ]
        return found[0], found[1]

    async def _add(self, room: Room) -> Room:
        self._session.add(room)
        await self._session.flush()
        return room

    async def _tell(self, room: Room) -> None:
        """Wake whoever listens in other processes, once this is committed. Elsewhere they look by themselves."""
        if self._session.get_bind().dialect.name == "postgresql":
            await execute(self._session, NOTIFY, {"told": str(room.id)})


class PresenceRepository:
    """Who is in rooms by way of other processes, in one session."""

    def __init__(self, session: AsyncSession, process: str) -> None:
        self._session = session
        self._process = process

    async def note(self, arrived: Collection[tuple[int, int]], left: Collection[tuple[int, int]]) -> None:
        """Note who, of which room and user, came by way of this process and who left."""
        if left:
            gone = [{"of_process": self._process, "of_room": room, "of_user": user} for room, user in left]
            await execute(self._session, LEAVE, gone)
        if arrived:
            row = {"process": self._process, "expires_at": now() + PRESENCE_LIFETIME}
            come = [row | {"room_id": room, "user_id": user} for room, user in arrived]
            await execute(self._session, ARRIVE, come)

    async def stay(self) -> int:
        """Say again that all of this process are there, and forget those of processes that say so no more.

        Gives how many of this process there are.
        """
        stays = await execute(self._session, STAY, {"of_process": self._process, "at": now() + PRESENCE_LIFETIME})
        gone = list((await execute(self._session, EXPIRED, {"at": now()})).scalars())
        if gone:
            await execute(self._session, FORGET, {"ids": gone, "at": now()})
        return int(stays.rowcount)

    async def leave(self) -> None:
        """Forget all of this process."""
        await execute(self._session, LEAVE_ALL, {"of_process": self._process})

    async def elsewhere(self, ids: Collection[int]) -> dict[int, dict[int, str]]:
        """Who is in these rooms by way of other processes: names by user and room."""
        found: dict[int, dict[int, str]] = {}
        for row in await _each(self._session, PRESENT, ids, of_process=self._process, at=now()):
            found.setdefault(row.room_id, {})[row.id] = row.name
        return found


async def _each(session: AsyncSession, statement: Any, ids: Iterable[int], **more: Any) -> list[AnyRow]:
    wanted = sorted(ids)
    found: list[AnyRow] = []
    for start in range(0, len(wanted), ASKED_AT_ONCE):
        asked = {"ids": wanted[start : start + ASKED_AT_ONCE]} | more
        found += (await execute(session, statement, asked)).all()
    return found
