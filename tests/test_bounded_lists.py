"""Every list costs as much with thousands of rows as with 200 of everything, whoever asks: counted by the engine.

Left out is what grows with more than its answer: users by a part of their name or address, for which an admin looks
through all of them; tags for somebody with many drafts, which are counted; searches among many unpublished blogs of
one's own; and what MariaDB does for a search, which finds all matches before it takes the newest.
"""

import json
import math
import re
import sqlite3
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import delete, event, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlmodel import SQLModel, col

from blog.models import (
    Blog,
    BlogChange,
    BlogRevision,
    BlogSlug,
    BlogTag,
    BlogText,
    ChangeCounter,
    LoginSession,
    Message,
    OneTimeLink,
    PersonalToken,
    Purpose,
    Reading,
    Role,
    Room,
    Status,
    Tag,
    User,
    now,
)
from blog.repository.blog import ORDERS
from blog.repository.login import MOST_LOGINS, LoginRepository
from blog.repository.room import ORDERS as ORDERS_OF_ROOMS
from blog.repository.room import RoomRepository
from blog.search import terms_of
from blog.security.access import ALL
from blog.security.opaque import COOKIE, make_cookie
from blog.site import account, desk, discussion, feeds, pages
from tests.conftest import client_of
from tests.factories import LIFETIMES, Factory, blog_row

T = TypeVar("T")

FEW = 200
MANY = {"sqlite": 2_000, "postgresql": 6_000, "mariadb": 2_000}
"""Blocks hold many rows: of fewer, PostgreSQL would look at hardly more than is not grudged."""

TIMES = 3
"""An index of more rows has another level or two, and PostgreSQL's page of one has fewer of those that are wanted."""

LEAST = {"sqlite": 2_000, "postgresql": 100, "mariadb": 100}
"""Steps of SQLite's machine, blocks that PostgreSQL looks at, rows that MariaDB reads: what no list is grudged."""

COUNTED = 50
"""Steps of SQLite's machine that are counted together."""

LEAST_OF_SEARCH = {"sqlite": 4_000, "postgresql": 400}
"""The same for a search, which takes up to 60 of its matches, however many more there are; of few there are fewer."""

ANALYZE = {
    "sqlite": [],  # nobody does it there
    "postgresql": ["ANALYZE"],
    "mariadb": [
        "ANALYZE TABLE blog, blog_change, blog_revision, blog_slug, blog_tag, blog_text, login_session, message,"
        " one_time_link, personal_token, reading, room, tag, user"
    ],
}
TABLES = ("room", "blog", "blog_slug", "blog_change", "tag", "user")
"""With which all others go."""

PAST, FUTURE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
TAGS = ("all", "few", "hidden")
A_FEW = 5
"""Users, links and the like of a kind that is rare however many others there are."""

NO_LISTS = {"/robots.txt", "/static/{name}", "/link", "/login", "/register", "/forgotten", "/desk/new"}
"""Pages that show none."""

PAGES = {
    "/": ["/", "/?before={time}-0"],
    "/tags/{tag:path}": ["/tags/all", "/tags/few", "/tags/all?before={time}-0"],
    "/authors/{user_id}": ["/authors/{rare}", "/authors/{busy}", "/authors/{busy}?before={time}-0"],
    "/archive": ["/archive"],
    "/archive/{year}/{month}": ["/archive/2026/1", "/archive/2026/1?before={time}-0"],
    "/search": ["/search?q=common", "/search?q=scarce", '/search?q="common words"+scarce', "/search?q=nowhere"],
    "/posts/{slug}": ["/posts/middle"],
    "/posts/{slug}/discussion": ["/posts/middle/discussion", "/posts/middle/discussion?before={message}"],
    "/feed.{kind}": ["/feed.atom", "/feed.json"],
    "/tags/{tag:path}/feed.{kind}": ["/tags/all/feed.rss"],
    "/authors/{user_id}/feed.{kind}": ["/authors/{busy}/feed.atom"],
    "/sitemap.xml": ["/sitemap.xml"],
    "/sitemap-{number}.xml": ["/sitemap-{part}.xml"],
    "/desk": ["/desk", "/desk?status=draft", "/desk?status=published", "/desk?before={time}-0"],
    "/desk/{blog_id:id}": ["/desk/{blog}"],
    "/desk/{blog_id:id}/revisions": ["/desk/{blog}/revisions"],
    "/desk/{blog_id:id}/revisions/{number}": ["/desk/{blog}/revisions/1"],
    "/desk/readers": ["/desk/readers"],
    "/desk/account": ["/desk/account"],
    "/desk/users": ["/desk/users"],
}
"""What is asked for of every page that shows a list."""

SEARCHES: list[dict[str, Any]] = [{}, {"sort": "title"}, {"sort": "-published_at"}, {"tag": "all"}, {"tag": "few"}]


def blogs_of(number: int, rare: User, busy: User) -> Iterator[Blog]:
    """Of which one in 40 is the rare author's; of the other's, half are drafts, and these come first by title.

    Those to come are 60, however many blogs there are: a list by title has to look at them.
    """
    for place in range(number):
        author = rare if place % 40 == 0 else busy
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
        middle = rows[number - number // 10]
        middle.slug = "middle"
        session.add(BlogSlug(slug="middle", blog_id=middle.id))
        await session.execute(insert(BlogText), [text_of(row, place) for place, row in enumerate(rows)])
        await fill_rooms(session, rows, middle, rare, busy)
        await fill_users(session, number, rare)
    async with app.state.database.engines[1].connect() as connection:
        for statement in ANALYZE[engine]:
            await connection.exec_driver_sql(statement)


def text_of(blog: Blog, place: int) -> dict[str, Any]:
    """What searches find a blog by: one word in all of them, another in one of 20, wherever there are more."""
    text = "common words" + (" scarce" if place % 20 == 0 else "")
    marks = [f"author {blog.creator_id}", *(f"tag {tag}" for tag in blog.tags)]
    return {"blog_id": blog.id, "text": text, "terms": terms_of(blog.title, text, marks)}


async def fill_users(session: AsyncSession, number: int, rare: User) -> None:
    """Users of whom the oldest few are no readers or blocked, and logins, tokens, links and readers of the rare one.

    The oldest few links are invitations.
    """
    users = [
        User(
            name="x",
            name_folded="x",
            email=f"user{place:06}@example.com",
            email_folded=f"user{place:06}@example.com",
            password_hash="",
            role=Role.AUTHOR if place < A_FEW * 2 else Role.READER,
            is_active=not A_FEW <= place < A_FEW * 3,
        )
        for place in range(number)
    ]
    session.add_all(users)
    of_user: dict[str, Any] = {"user_id": rare.id, "expires_at": FUTURE}
    names = [f"{place:064}" for place in range(number)]
    # Nobody has more.
    logins = [
        {
            "public_id": name[:32:-1],
            "family_digest": name,
            "refresh_digest": "",
            "scope": "",
            "user_agent": "",
            "address": "",
        }
        for name in names[: MOST_LOGINS - A_FEW]
    ]
    tokens = [{"name": "x", "token_digest": name, "scope": ""} for name in names]
    kinds = [Purpose.INVITATION if place < A_FEW else Purpose.PASSWORD_RESET for place in range(number)]
    links = [
        {"token_digest": name, "purpose": kind, "role": Role.AUTHOR} for name, kind in zip(names, kinds, strict=True)
    ]
    for table, rows in ((LoginSession, logins), (PersonalToken, tokens), (OneTimeLink, links)):
        await session.execute(insert(table), [of_user | row for row in rows])
    days = [{"day": (now() - timedelta(days=place)).date(), "readers": 1} for place in range(number)]
    await session.execute(insert(Reading), [{"creator_id": rare.id, "blog_id": 0} | day for day in days])


async def fill_rooms(session: AsyncSession, blogs: Sequence[Blog], middle: Blog, rare: User, busy: User) -> None:
    """A room of each blog and as many others, of which one in 20 is of the rare category, and what is said in two."""
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
    of_middle = (await session.execute(select(col(Room.id)).where(col(Room.blog_id) == middle.id))).scalar_one()
    message = {"body": "x", "html": "x", "created_at": PAST}
    writers = [(busy if place < number // 2 else rare).id for place in range(number)]
    said = [message | {"number": place, "writer_id": writer} for place, writer in enumerate(writers, 1)]
    for room in (talked_in, of_middle):
        await session.execute(insert(Message), [row | {"room_id": room} for row in said])


def requests_for_rooms(app: FastAPI, number: int, room_id: int) -> Iterator[str]:
    """Every list of rooms and of what is said in one, from its first page, from the middle and from its end."""
    place = number * 3 // 4
    time = PAST + timedelta(minutes=place)
    for sort, category, before in product(ORDERS_OF_ROOMS, (None, "common", "rare"), (None, time)):
        if sort != "order" or before is None:
            filters = {"sort": sort, "category": category, "before": before and f"{before:%Y-%m-%dT%H:%M:%SZ}"}
            middles = [PAST + timedelta(minutes=minutes) for minutes in (place // 2, 25)]
            keys = [f"{place:06}"] if sort == "order" else [int(middle.timestamp()) for middle in middles]
            yield from starts(app, "/room/", filters, *((key, 0) for key in keys))
    for query in ("", f"?after={place}", f"?before={place}", f"?before={number}&limit=100", f"?after={number}"):
        yield f"/room/{room_id}/messages{query}"


def starts(app: FastAPI, path: str, filters: dict[str, Any], *positions: tuple[Any, ...]) -> Iterator[str]:
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
        # Drafts come first by title, and what is scheduled last by time.
        both: list[Any] = titles if sort == "title" else times
        is_first = (status is Status.DRAFT) if sort == "title" else (status is not Status.SCHEDULED)
        middles_of = both if status is None else both[:1] if is_first else both[1:]
        yield from starts(app, "/blog/", filters, *((middle, 0) for middle in middles_of))
    if blog_id is not None:  # one's own drafts of a tag are counted, so not for who has many
        yield from starts(app, "/tag/", {}, ("tag",))
    if blog_id is not None:
        yield from starts(app, f"/blog/{blog_id}/revisions", {}, (number // 2,))
    for user in users:
        yield f"/user/{user.id}"


def searches(users: Sequence[User]) -> Iterator[str]:
    """Every kind of search: of what all blogs have, of what few have, and of both."""
    for words, filters in product(("common", "scarce", "common scarce", '"common words"'), SEARCHES):
        yield f"/blog/?{urlencode({'q': words} | filters)}"
    for user in users:
        yield f"/blog/?{urlencode({'q': 'common', 'author': user.id})}"
    if users[0].name == "Rare":
        yield "/blog/?q=common&status=draft"
        yield "/blog/?q=common&status=scheduled"


def requests_for_admins(app: FastAPI, middle: int) -> Iterator[str]:
    for role, is_active in product((None, *Role), (None, True, False)):
        filters = {"role": role, "is_active": None if is_active is None else str(is_active).lower()}
        yield from starts(app, "/user/", filters, (middle,))
    yield from starts(app, "/invitation/", {}, (middle,))


def lists_of(app: FastAPI) -> set[str]:
    """The paths of all lists that OpenAPI knows."""
    return {
        path
        for path, methods in app.openapi()["paths"].items()
        if any(parameter["name"] == "limit" for parameter in methods.get("get", {}).get("parameters", ()))
    }


def pages_of_site() -> set[str]:
    return {
        route.path
        for module in (account, desk, discussion, feeds, pages)
        for route in module.router.routes
        if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    }


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
        done += COUNTED
        return 0

    with closing(sqlite3.connect(file)) as connection:
        connection.set_progress_handler(count, COUNTED)
        for statement, parameters in statements:
            connection.execute(statement, parameters).fetchall()
    return done


class Cost(NamedTuple):
    """What a request came to: what the engine did, and in how many statements."""

    work: int
    statements: int


class Meter:
    def __init__(self, app: FastAPI, client: httpx.AsyncClient, engine: str) -> None:
        self._engine = app.state.database.engines[1]
        self._name = engine
        self._client = client
        self._shelf = app.state.shelf
        self.found: dict[str, Cost] = {}
        self.paths: dict[str, str] = {}

    async def measure(self, key: str, path: str, login: dict[str, str]) -> httpx.Response:
        """Note what the statements of one request cost; the answer. Nothing is kept from one to the next."""
        self._shelf._pages.clear()
        self._shelf.doubt()
        self.paths[key] = path
        self.found[key], answer = await self.cost_of(self.ask(path, login))
        return answer

    async def ask(self, path: str, login: dict[str, str]) -> httpx.Response:
        answer = await self._client.get(path, headers=login)
        assert answer.status_code == 200, (path, answer.text)
        return answer

    async def cost_of(self, work: Awaitable[T]) -> tuple[Cost, T]:
        """What the statements of some work cost, and what comes of it."""
        seen: list[Any] = []

        def note(_conn: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
            seen.append((statement, parameters))

        event.listen(self._engine.sync_engine, "before_cursor_execute", note)
        result = await work
        event.remove(self._engine.sync_engine, "before_cursor_execute", note)
        if self._name == "sqlite":
            return Cost(steps(self._engine.url.database, seen), len(seen)), result
        async with self._engine.connect() as connection:
            costs = [await cost(connection, self._name, *each) for each in seen]
        return Cost(sum(costs), len(seen)), result


async def in_browser(app: FastAPI, user: User) -> dict[str, str]:
    """The headers of a browser in a new login of this user's."""
    cookie = make_cookie()
    async with app.state.database.write.begin() as session:
        await LoginRepository(session).add(user.id, cookie, ALL, LIFETIMES, user_agent="", address="")
    return {"Accept": "text/html", "Cookie": f"{COOKIE}={cookie}"}


async def measured(app: FastAPI, client: httpx.AsyncClient, factory: Factory, engine: str, number: int) -> Meter:
    rare, rare_login = await factory.logged_in("Rare")
    busy, busy_login = await factory.logged_in("Busy")
    root, admin_login = await factory.logged_in("Root", role=Role.ADMIN)
    at_desk = {user.id: await in_browser(app, user) for user in (rare, busy, root)}
    await fill(app, engine, number, rare, busy)
    meter = Meter(app, client, engine)
    async with app.state.database.fresh() as session:
        (blog_id,) = (await session.execute(text("SELECT min(id) FROM blog"))).one()
        (room_id,) = (await session.execute(text("SELECT max(id) FROM room"))).one()
        (user_id,) = (await session.execute(select(func.max(col(User.id))))).one()
        (login_id,) = (await session.execute(text("SELECT max(id) FROM login_session"))).one()
        (token_id,) = (await session.execute(text("SELECT max(id) FROM personal_token"))).one()
        for user in (rare, busy):
            rooms = RoomRepository(session)
            meter.found[f"{user.name}: last said"], _ = await meter.cost_of(rooms.last_said(room_id, user.id))
    for place, path in enumerate(requests_for_rooms(app, number, room_id)):
        await meter.measure(f"rooms {place}", path, rare_login)
    for place, path in enumerate(requests_for_admins(app, user_id - number // 2)):
        await meter.measure(f"admin {place}", path, admin_login)
    for kind, middle in (("sessions", login_id - MOST_LOGINS // 2), ("tokens", token_id - number // 2)):
        for place, path in enumerate(starts(app, f"/user/me/{kind}", {}, (middle,))):
            await meter.measure(f"{kind} {place}", path, rare_login)
    values = {"rare": rare.id, "busy": busy.id, "blog": blog_id, "message": number // 2}
    values |= {"time": int((PAST + timedelta(minutes=number - number // 10)).timestamp())}
    values |= {"part": -(-(blog_id + number - number // 10) // 100)}
    for template, addresses in PAGES.items():
        for place, address in enumerate(addresses):
            login = at_desk[root.id if "users" in template else rare.id]
            await meter.measure(f"{template} {place}", address.format(**values), login)
    await meter.measure("/desk of the busy one", "/desk", at_desk[busy.id])
    for user, login in ((rare, rare_login), (busy, busy_login)):
        others = [busy] if user is rare else []
        await measure_blogs(app, meter, number, [user, *others], blog_id if user is rare else None, login)
    return meter


async def measure_blogs(
    app: FastAPI, meter: Meter, number: int, users: Sequence[User], blog_id: int | None, login: dict[str, str]
) -> None:
    name = users[0].name
    for place, path in enumerate(searches(users)):
        await meter.measure(f"{name}: search {place}", path, login)
    for place, path in enumerate(requests(app, number, users, blog_id)):
        await meter.measure(f"{name} {place}", path, login)
    since = None
    for page in ("first", "second", "third"):
        path = "/blog/changes" + ("" if since is None else f"?since={since}")
        answer = (await meter.measure(f"{name}: changes, {page}", path, login)).json()
        since = answer["cursor"]
    while answer["changes"]:
        answer = (await meter.ask(f"/blog/changes?limit=100&since={answer['cursor']}", login)).json()
    await meter.measure(f"{name}: changes, last", f"/blog/changes?since={answer['cursor']}", login)


def least_of(path: str, engine: str) -> float:
    """What an engine is not grudged for the answer at this path."""
    return LEAST_OF_SEARCH.get(engine, math.inf) if "q=" in path else LEAST[engine]


async def test_no_list_grows_with_what_is_stored(
    app_apart: FastAPI, engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same ids each time: what PostgreSQL's search looks at depends on them."""
    monkeypatch.setattr("blog.repository.page.MAPPED", 100)
    app, factory = app_apart, Factory(app_apart)
    async with client_of(app) as client:
        few = (await measured(app, client, factory, engine_name, FEW)).found
        async with app.state.database.write.begin() as session:
            for table in TABLES:
                await session.execute(delete(SQLModel.metadata.tables[table]))
        meter = await measured(app, client, factory, engine_name, MANY[engine_name])
    many, paths = meter.found, meter.paths
    assert few.keys() == many.keys()
    grown = {
        f"{key} {paths.get(key)}": f"{few[key]} → {many[key]}"
        for key in few
        if many[key].statements != few[key].statements
        or many[key].work > TIMES * max(few[key].work, least_of(paths.get(key, ""), engine_name))
    }
    assert not grown, json.dumps(grown, indent=1, ensure_ascii=False)
    asked = {path.partition("?")[0] for path in paths.values()}
    shapes = {path: re.sub(r"{\w+}", "[^/]+", path) for path in lists_of(app)}
    assert not {path for path, shape in shapes.items() if not any(re.fullmatch(shape, path) for path in asked)}
    assert pages_of_site() == PAGES.keys() | NO_LISTS
