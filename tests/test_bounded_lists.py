"""Every list costs as much with 6,000 blogs and rooms as with 200, whoever asks for what: counted by the engine."""

import json
import sqlite3
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from blog.models import Blog, BlogChange, BlogRevision, BlogTag, ChangeCounter, Message, Room, Status, Tag, User
from blog.repository.blog import ORDERS
from blog.repository.room import ORDERS as ORDERS_OF_ROOMS
from blog.repository.room import RoomRepository
from tests.factories import Factory, blog_row

T = TypeVar("T")

FEW, MANY = 200, 6_000
TIMES = 3
"""An index of more rows has another level or two, and PostgreSQL's page of one has fewer of those that are wanted."""

LEAST = {"sqlite": 2_000, "postgresql": 100, "mariadb": 100}
"""Steps of SQLite's machine, blocks that PostgreSQL looks at, rows that MariaDB reads: what no list is grudged."""

ANALYZE = {
    "sqlite": [],  # nobody does it there
    "postgresql": ["ANALYZE"],
    "mariadb": ["ANALYZE TABLE blog, user, tag, blog_tag, blog_change, blog_revision, room, message"],
}
PAST, FUTURE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
TAGS = ("all", "few", "hidden")


def blogs_of(number: int, rare: User, busy: User) -> Iterator[Blog]:
    """Of which one in 50 is the rare author's; of the other's, half are drafts, and these come first by title.

    Those to come are 60, however many blogs there are: a list by title has to look at them.
    """
    for place in range(number):
        author = rare if place % 50 == 0 else busy
        kind = 2 if place >= number // 2 else 0
        if place in range(number // 2, number // 2 + 60) or place == 0:
            kind = 1
        title = f"{kind}{place:06}"
        published_at = (FUTURE if kind == 1 else PAST) + timedelta(minutes=place)
        tags = ["all"] + (["few"] if place % (number // 20) == 0 else []) + (["hidden"] if kind < 2 else [])
        yield blog_row(author.id, title, is_draft=kind == 0, published_at=published_at, tags=tags)


async def fill(app: FastAPI, engine: str, number: int, rare: User, busy: User) -> None:
    async with app.state.database.write.begin() as session:
        rows = list(blogs_of(number, rare, busy))
        names = [*TAGS, *(f"tag {place:06}" for place in range(number // 4))]
        drafts = {name: name.startswith("tag") and int(name[4:]) < 20 for name in names}
        session.add_all(rows)
        session.add_all(tags := [Tag(name=name) for name in names])
        await session.flush()
        of_tag: dict[str, list[Blog]] = {name: [row for row in rows if name in row.tags] for name in TAGS}
        hidden = [row for row in rows if row.is_draft and row.creator_id == busy.id]
        shown = [row for row in rows if not row.is_draft and row.published_at < FUTURE]
        for place, name in enumerate(names[len(TAGS) :]):
            of_tag[name] = [(hidden if drafts[name] else shown)[place % 40]]
        tagged = []
        for tag in tags:
            tag.blogs = sum(not row.is_draft for row in of_tag[tag.name])
            for row in of_tag[tag.name]:
                given: dict[str, Any] = {
                    "blog_id": row.id,
                    "tag_id": tag.id,
                    "creator_id": row.creator_id,
                    "is_draft": row.is_draft,
                }
                tagged.append(given | {"published_at": row.published_at, "title_folded": row.title_folded})
        changes = [
            {
                "blog_id": row.id,
                "creator_id": row.creator_id,
                "number": turn,
                "created_number": turn,
                "changed_at": PAST,
                "public_number": turn if in_sight else None,
                "public_since": None if row.is_draft else turn,
                "public_changed_at": PAST if in_sight else None,
                "due_at": row.published_at if row.published_at >= FUTURE else None,
                "was_public": False,
            }
            for turn, row in enumerate(rows, 2)
            for in_sight in [not row.is_draft and row.published_at < FUTURE]
        ]
        revision = {"title": "x", "body": "x", "editor_id": rare.id, "created_at": PAST}
        revisions = [revision | {"blog_id": rows[0].id, "number": place + 1} for place in range(number)]
        for table, values in ((BlogTag, tagged), (BlogChange, changes), (BlogRevision, revisions)):
            await session.execute(insert(table), values)
        (await session.get_one(ChangeCounter, 1)).number += number + 2
        await fill_rooms(session, rows, rare, busy)
    async with app.state.database.engines[1].connect() as connection:
        for statement in ANALYZE[engine]:
            await connection.exec_driver_sql(statement)


async def fill_rooms(session: AsyncSession, blogs: Sequence[Blog], rare: User, busy: User) -> None:
    """A room of each blog and as many others, of which one in 20 is of the rare category, and what is said in one."""
    number = len(blogs)
    of_blogs: list[dict[str, Any]] = [
        {"owner_id": blog.creator_id, "blog_id": blog.id, "is_listed": False} for blog in blogs
    ]
    others: list[dict[str, Any]] = [
        {
            "owner_id": rare.id if place % 50 == 0 else busy.id,
            "category": "rare" if place % (number // 20) == 0 else "common",
            "order": f"{place:06}",
            "created_at": PAST + timedelta(minutes=place),
        }
        for place in range(number)
    ]
    session.add_all([Room(name="x", **row) for row in [*of_blogs, *others]])
    await session.flush()
    talked_in = (await session.execute(select(func.max(Room.id)))).scalar_one()
    message = {"room_id": talked_in, "body": "x", "html": "x", "created_at": PAST}
    writers = [(busy if place < number // 2 else rare).id for place in range(number)]
    said = [message | {"number": place, "writer_id": writer} for place, writer in enumerate(writers, 1)]
    await session.execute(insert(Message), said)


def requests_for_rooms(app: FastAPI, number: int, room_id: int) -> Iterator[str]:
    """Every list of rooms and of what is said in one, from its first page, from the middle and from its end."""
    place = number * 3 // 4
    time = PAST + timedelta(minutes=place)
    for sort, category, before in product(ORDERS_OF_ROOMS, (None, "common", "rare"), (None, time)):
        if sort != "order" or before is None:
            filters = {"sort": sort, "category": category, "before": before and f"{before:%Y-%m-%dT%H:%M:%SZ}"}
            middles = [PAST + timedelta(minutes=minutes) for minutes in (place // 2, 25)]
            keys = [f"{place:06}"] if sort == "order" else [int(middle.timestamp()) for middle in middles]
            yield from pages(app, "/room/", filters, *((key, 0) for key in keys))
    for query in ("", f"?after={place}", f"?before={place}", f"?before={number}&limit=100", f"?after={number}"):
        yield f"/room/{room_id}/messages{query}"


def pages(app: FastAPI, path: str, filters: dict[str, Any], *positions: tuple[Any, ...]) -> Iterator[str]:
    """The first page of this list, and those that go on from these positions."""
    known = sorted((name, str(value)) for name, value in filters.items() if value is not None)
    yield f"{path}?{urlencode(known)}"
    for position in positions:
        cursor = app.state.cursors.write(f"{path}?{urlencode(known)}", position)
        yield f"{path}?{urlencode([*known, ('cursor', cursor)])}"


def requests(app: FastAPI, number: int, users: Sequence[User], blog_id: int | None) -> Iterator[str]:
    """Every list of blogs and what is theirs, from its first page and from the middle."""
    middles = [PAST + timedelta(minutes=number * 3 // 4), FUTURE + timedelta(minutes=number // 2 + 30)]
    times, titles = [int(moment.timestamp()) for moment in middles], ["0", "2"]
    for sort, author, tag, status in product(ORDERS, (None, *users), (None, "all", "hidden"), (None, *Status)):
        filters: dict[str, Any] = {"sort": sort, "author": author and author.id, "tag": tag, "status": status}
        for middle in titles if sort == "title" else times:
            yield from pages(app, "/blog/", filters, (cast("Any", middle), 0))
    if blog_id is not None:  # one's own drafts of a tag are counted, so not for who has many
        yield from pages(app, "/tag/", {}, ("tag",))
    if blog_id is not None:
        yield from pages(app, f"/blog/{blog_id}/revisions", {}, (number // 2,))
    for user in users:
        yield f"/user/{user.id}"


async def cost(connection: AsyncConnection, engine: str, statement: str, parameters: Any) -> int:
    """What an engine does to answer this."""
    if engine == "postgresql":
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
        (plan,) = (await connection.exec_driver_sql(explain, parameters)).scalar_one()
        return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
    await connection.exec_driver_sql("FLUSH STATUS")
    (await connection.exec_driver_sql(statement, parameters)).all()
    rows = (await connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'")).all()
    return sum(int(cast("Any", row)[1]) for row in rows)


def steps(file: str, statements: Sequence[tuple[str, Any]]) -> int:
    done = 0

    def count() -> int:
        nonlocal done
        done += 10
        return 0

    with closing(sqlite3.connect(file)) as connection:
        connection.set_progress_handler(count, 10)
        for statement, parameters in statements:
            connection.execute(statement, parameters).fetchall()
    return done


class Meter:
    def __init__(self, app: FastAPI, client: httpx.AsyncClient, engine: str) -> None:
        self._engine = app.state.database.engines[1]
        self._name = engine
        self._client = client

    async def measure(self, path: str, login: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """What the statements of one request cost, and the answer."""
        cost, answer = await self.cost_of(self._client.get(path, headers=login))
        assert answer.status_code == 200, (path, answer.text)
        return cost, answer.json()

    async def cost_of(self, work: Awaitable[T]) -> tuple[int, T]:
        """What the statements of some work cost, and what comes of it."""
        seen: list[Any] = []

        def note(_conn: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
            seen.append((statement, parameters))

        event.listen(self._engine.sync_engine, "before_cursor_execute", note)
        result = await work
        event.remove(self._engine.sync_engine, "before_cursor_execute", note)
        if self._name == "sqlite":
            return steps(self._engine.url.database, seen), result
        async with self._engine.connect() as connection:
            costs = [await cost(connection, self._name, *each) for each in seen]
        return sum(costs), result


async def costs(
    app: FastAPI, client: httpx.AsyncClient, factory: Factory, engine: str, number: int
) -> tuple[dict[str, int], dict[str, str]]:
    rare, rare_login = await factory.logged_in("Rare")
    busy, busy_login = await factory.logged_in("Busy")
    await fill(app, engine, number, rare, busy)
    meter = Meter(app, client, engine)
    found: dict[str, int] = {}
    paths: dict[str, str] = {}
    async with app.state.database.fresh() as session:
        (blog_id,) = (await session.execute(text("SELECT min(id) FROM blog"))).one()
        (room_id,) = (await session.execute(text("SELECT max(id) FROM room"))).one()
    for place, path in enumerate(requests_for_rooms(app, number, room_id)):
        found[f"rooms {place}"], _ = await meter.measure(path, rare_login)
        paths[f"rooms {place}"] = path
    async with app.state.database.fresh() as session:
        for user in (rare, busy):
            rooms = RoomRepository(session)
            found[f"{user.name}: last said"], _ = await meter.cost_of(rooms.last_said(room_id, user.id))
    for name, login in (("rare", rare_login), ("busy", busy_login)):
        authors = (rare, busy) if name == "rare" else (busy,)
        for place, path in enumerate(requests(app, number, authors, blog_id if name == "rare" else None)):
            found[f"{name} {place}"], _ = await meter.measure(path, login)
            paths[f"{name} {place}"] = path
        since = None
        for page in ("first", "second", "third"):
            path = "/blog/changes" + ("" if since is None else f"?since={since}")
            found[f"{name}: changes, {page}"], answer = await meter.measure(path, login)
            since = answer["cursor"]
        while answer["changes"]:
            query: dict[str, Any] = {"limit": 100, "since": answer["cursor"]}
            answer = (await client.get("/blog/changes", params=query, headers=login)).json()
        found[f"{name}: changes, last"], _ = await meter.measure(f"/blog/changes?since={answer['cursor']}", login)
    return found, paths


async def test_no_list_grows_with_what_is_stored(
    app: FastAPI, client: httpx.AsyncClient, factory: Factory, engine_name: str
) -> None:
    few, _ = await costs(app, client, factory, engine_name, FEW)
    async with app.state.database.write.begin() as session:
        for table in ("room", "blog", "blog_change", "tag"):
            await session.execute(text(f"DELETE FROM {table}"))
    many, paths = await costs(app, client, factory, engine_name, MANY)
    assert few.keys() == many.keys()
    least = LEAST[engine_name]
    grown = {
        f"{key} {paths.get(key)}": (few[key], many[key]) for key in few if many[key] > TIMES * max(few[key], least)
    }
    assert not grown, json.dumps(grown, indent=1)
