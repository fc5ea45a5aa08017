"""`/room/` and blogs' rooms: one class an endpoint, refusals first, in the order in which the server gives them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import IntegrityError

from blog.errors import BlogNotFound, RoomNotFound
from blog.models import Message, Role, Room, User
from blog.repository.room import RoomRepository
from blog.security.access import ALL, Scope
from tests.answers import code, count, walk
from tests.clock import Clock
from tests.conftest import on
from tests.factories import Factory

STALE = '"0123456789abcdef0123456789abcdef"'
GONE = 2**31 - 1
NO_ROOM = (404, "room_not_found")
LOOMS: dict[str, Any] = {
    "name": "Looms",
    "category": "weaving",
    "description": "What they weave.",
    "room_type": "chat",
    "order": "10",
    "slow_mode": 5,
}
TEXTS = ("name", "category", "description", "room_type", "order")
DAY = datetime(2026, 1, 1, tzinfo=UTC)

CREATED, LISTED, READ = 3, 2, 2
CHANGED, DELETED = 5, 4
"""Statements: who asks; whether it is there and theirs; the row; the change or the deletion; what the answer shows.
PostgreSQL is told to tell of it, too."""


async def is_nowhere(client: httpx.AsyncClient, room_id: int, login: dict[str, str]) -> None:
    """Whatever this login asks of the room or of what is said in it."""
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("GET", "/messages", None),
        ("POST", "/messages", {"body": "x"}),
        ("GET", "/messages/1", None),
        ("DELETE", "/messages/1", None),
    ):
        response = await client.request(method, f"/room/{room_id}{path}", json=body, headers=login)
        assert code(response) == NO_ROOM, (method, path)


async def opened(app: FastAPI, owner: User, rows: Sequence[dict[str, Any]]) -> list[int]:
    """Rooms with these columns, one after another."""
    made = [Room(owner_id=owner.id, **{"name": "Looms"} | row) for row in rows]
    async with app.state.database.write.begin() as session:
        for room in made:
            session.add(room)
            await session.flush()
    return [room.id for room in made]


class TestCreate:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.post("/room/", json={})) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_WRITE})
        assert code(await client.post("/room/", json=LOOMS, headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    async def test_reader(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        _, login = await factory.logged_in(role=Role.READER)
        for body in (LOOMS, {}):
            assert code(await client.post("/room/", json=body, headers=login)) == (403, "author_required")
        assert await count(app, Room) == 0

    @on("sqlite")
    @pytest.mark.parametrize(
        "body",
        [
            {},
            [],
            {"category": "weaving"},
            *({"name": name} for name in ("", " ", "\u200b", "two\nlines", "x" * 101, "NUL \0", None, 7)),
            *(LOOMS | {field: "🧵" * 101} for field in TEXTS),
            *(LOOMS | {field: "two\nlines"} for field in TEXTS),
            *(LOOMS | {field: None} for field in LOOMS),
            *(LOOMS | {"slow_mode": seconds} for seconds in (-1, 21_601, 2**63, 0.5, 5.0, "5", True)),
            *(LOOMS | {field: 1} for field in ("id", "owner_id", "owner", "blog_id", "is_listed", "last_number")),
            LOOMS | {"is_closed": True},
            LOOMS | {"closed_at": "2026-01-01T00:00:00Z"},
        ],
        ids=lambda body: ascii(body)[-40:],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, body: Any) -> None:
        _, login = await factory.logged_in()
        assert code(await client.post("/room/", json=body, headers=login)) == (422, "invalid")
        assert await count(app, Room) == 0

    @pytest.mark.parametrize("role", [Role.AUTHOR, Role.ADMIN])
    async def test_created(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], role: Role
    ) -> None:
        user, login = await factory.logged_in(role=role)
        statements.clear()
        response = await client.post("/room/", json=LOOMS | {"name": " Looms\t"}, headers=login)
        assert len(statements) == CREATED
        assert response.status_code == 201
        room = response.json()
        assert response.headers["location"] == f"/room/{room['id']}"
        assert room == LOOMS | {
            "id": room["id"],
            "owner": {"id": user.id, "name": user.name},
            "blog_id": None,
            "created_at": room["created_at"],
            "closed_at": None,
        }
        written = datetime.strptime(room["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
        assert (await client.get(response.headers["location"], headers=login)).json() == room

    @on("sqlite")
    async def test_defaults(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        room = (await client.post("/room/", json={"name": "Looms"}, headers=login)).json()
        assert {field: room[field] for field in LOOMS} == dict.fromkeys(TEXTS, "") | {"name": "Looms", "slow_mode": 0}

    async def test_longest(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        longest = dict.fromkeys(TEXTS, "🧵" * 100) | {"slow_mode": 21_600}
        response = await client.post("/room/", json=longest, headers=login)
        room = (await client.get(response.headers["location"], headers=login)).json()
        assert {field: room[field] for field in longest} == longest

    async def test_again_with_its_key(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        _, login = await factory.logged_in()
        headers = login | {"Idempotency-Key": "a"}
        answers = await asyncio.gather(*(client.post("/room/", json=LOOMS, headers=headers) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.headers["location"] for answer in answers}) == 1
        response = await client.post("/room/", json=LOOMS | {"name": "Other"}, headers=headers)
        assert code(response) == (422, "idempotency_key_reused")
        assert await count(app, Room) == 1

    async def test_an_id_is_not_handed_out_twice(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        newest = await factory.room(user)
        await client.delete(f"/room/{newest.id}", headers=login)
        assert (await factory.room(user)).id > newest.id


class TestList:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/room/")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_READ})
        assert code(await client.get("/room/", headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    @pytest.mark.parametrize(
        "query",
        [
            *(f"limit={limit}" for limit in ("0", "-1", "101", "abc", "")),
            *(f"sort={sort}" for sort in ("", "-order", "name", "id", "order;drop table room", "created_at,id")),
            *(f"before={time}" for time in ("", "now", "1", "2026-01-01", "2026-01-01T00:00:00")),
            "before=2026-01-01T00:00:00+01:00",  # a plus is a space, unless it is written as %2B
            "before=2026-01-01T00:00:00Z&sort=order",
            f"category={'x' * 101}",
            "category=two%0alines",
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, query: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/room/?{query}", headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_cursor_of_another_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(2):
            await factory.room(user, category="weaving")
        queries = ["", "sort=created_at", "sort=order", "category=weaving", "before=2100-01-01T00:00:00Z"]
        for query in queries:
            url = (await client.get(f"/room/?{query}&limit=1", headers=login)).links["next"]["url"]
            assert len((await client.get(url, headers=login)).json()) == 1
            cursor = url.split("cursor=")[1]
            for other in set(queries) - {query}:
                response = await client.get(f"/room/?{other}&cursor={cursor}", headers=login)
                assert code(response) == (422, "invalid_cursor")

    @on("sqlite")
    async def test_empty(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        response = await client.get("/room/", headers=login)
        assert response.json() == []
        assert "link" not in response.headers

    async def test_newest_first_with_owners(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, statements: list[str]
    ) -> None:
        (ada, login), bob = await factory.logged_in(role=Role.READER), await factory.user("Bob")
        ids = await opened(app, ada, [{"created_at": DAY}, {"created_at": DAY + timedelta(days=1)}])
        ids += await opened(app, bob, [{"created_at": DAY + timedelta(days=1)}])
        statements.clear()
        rooms = (await client.get("/room/", headers=login)).json()
        assert len(statements) == LISTED
        assert [room["id"] for room in rooms] == ids[::-1]
        assert [room["owner"]["name"] for room in rooms] == ["Bob", "Ada", "Ada"]
        for room in rooms:
            assert (await client.get(f"/room/{room['id']}", headers=login)).json() == room

    async def test_default_page(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        await opened(app, user, [{}] * 21)
        response = await client.get("/room/", headers=login)
        assert len(response.json()) == 20
        rest = await client.get(response.links["next"]["url"], headers=login)
        assert len(rest.json()) == 1
        assert "link" not in rest.headers

    async def test_pages_hold_every_room_once(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        """Equal times, equal orders, and orders that engines put each in their own way."""
        user, login = await factory.logged_in()
        orders = ["zebra", "Apple", "apple", "", "10", "apple", "中", "_", "ＡＰＰＬＥ", "9", "a", "a!"]
        rows: list[dict[str, Any]] = [
            {"order": order, "category": "weaving" if number % 3 else "", "created_at": DAY + timedelta(number // 4)}
            for number, order in enumerate(orders)
        ]
        ids = await opened(app, user, rows)
        stored = [row | {"id": number} for row, number in zip(rows, ids, strict=True)]
        early = {"before": "2026-01-03T01:00:00+01:00"}
        orders_and_bounds = [*product(("-created_at", "created_at"), ({}, early)), ("order", {})]
        for limit, (sort, before), category in product(
            (1, 2, 3, 100), orders_and_bounds, ({}, {"category": "weaving"})
        ):
            query = {"limit": str(limit), "sort": sort} | before | category
            name = sort.removeprefix("-")
            expected = sorted(
                (
                    row
                    for row in stored
                    if (row["category"] or not category) and (row["created_at"] < DAY + timedelta(days=2) or not before)
                ),
                key=lambda row: (row[name], row["id"]),
                reverse=sort.startswith("-"),
            )
            listed = await walk(client, f"/room/?{httpx.QueryParams(query)}", login, limit=limit)
            assert [room["id"] for room in listed] == [row["id"] for row in expected], query

    async def test_of_no_category(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        plain = await factory.room(user)
        await factory.room(user, category="weaving")
        assert [room["id"] for room in (await client.get("/room/?category=", headers=login)).json()] == [plain.id]
        for category in ("WEAVING", "weav", "%", "'"):
            response = await client.get("/room/", params={"category": category}, headers=login)
            assert response.json() == []
        spaced = await client.get("/room/", params={"category": " weaving "}, headers=login)
        assert len(spaced.json()) == 1

    @pytest.mark.parametrize("sort", ["-created_at", "order"])
    async def test_stable_while_rows_come_and_go(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, sort: str
    ) -> None:
        user, login = await factory.logged_in()
        last_first = sort == "-created_at"
        places = range(6)[::-1] if last_first else range(6)
        rooms = {place: (await factory.room(user, order=f"{place:02}")).id for place in places}
        if last_first:
            rooms = dict(enumerate(sorted(rooms.values(), reverse=True)))
        first = await client.get(f"/room/?limit=2&sort={sort}", headers=login)
        assert [room["id"] for room in first.json()] == [rooms[0], rooms[1]]
        await client.delete(f"/room/{rooms[1]}", headers=login)  # the last row of the page read
        await client.delete(f"/room/{rooms[3]}", headers=login)  # one that was to come
        await factory.room(user, order="00")
        rest = await client.get(first.links["next"]["url"].replace("limit=2", "limit=9"), headers=login)
        assert [room["id"] for room in rest.json()] == [rooms[place] for place in (2, 4, 5)]

    async def test_rooms_of_blogs_are_elsewhere(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        blog, room = await factory.blog(user), await factory.room(user)
        assert (await client.get(f"/blog/{blog.id}/room", headers=login)).status_code == 200
        for query in ("", "?sort=order", "?sort=created_at", "?category="):
            assert [row["id"] for row in (await client.get(f"/room/{query}", headers=login)).json()] == [room.id]


class TestRead:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/room/1")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_READ})
        assert code(await client.get("/room/1", headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        for room_id in (GONE, GONE + 1, 9_999_999_999):
            assert code(await client.get(f"/room/{room_id}", headers=login)) == NO_ROOM

    @on("sqlite")
    @pytest.mark.parametrize("room_id", ["0", "-1", "abc", "1.0", "+1", "1_0", "%2001", "１", "9" * 23])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, room_id: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/room/{room_id}", headers=login)) == (422, "invalid")

    async def test_read(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        room = await factory.room(await factory.user())
        _, login = await factory.logged_in("Bob", role=Role.READER)
        statements.clear()
        response = await client.get(f"/room/{room.id}", headers=login)
        assert len(statements) == READ
        assert response.json()["owner"] == {"id": room.owner_id, "name": "Ada"}
        etag = response.headers["etag"]
        head = await client.head(f"/room/{room.id}", headers=login)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
        again = await client.get(f"/room/{room.id}", headers=login | {"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)

    async def test_many_at_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """None holds a connection while it waits for another one, or all would."""
        user, login = await factory.logged_in()
        room = await factory.room(user)
        await factory.message(room.id, user)
        for path in ("", "/messages", "/messages/1"):
            answers = await asyncio.gather(*(client.get(f"/room/{room.id}{path}", headers=login) for _ in range(40)))
            assert {answer.status_code for answer in answers} == {200}

    @on("sqlite")
    async def test_its_tag_changes_with_what_is_shown(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url, seen = f"/room/{room.id}", set()

        async def note() -> None:
            response = await client.get(url, headers=login)
            assert response.headers["etag"] not in seen
            seen.add(response.headers["etag"])

        await note()
        for field, value in {**dict.fromkeys(TEXTS, "Other"), "slow_mode": 7, "is_closed": True}.items():
            response = await client.patch(url, json={field: value}, headers=login)
            assert response.headers["etag"] == (await client.get(url, headers=login)).headers["etag"]
            await note()
        await client.patch("/user/me", json={"name": "Augusta"}, headers=login)
        await note()

    @on("sqlite")
    async def test_what_is_said_is_no_change_of_it(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        before = await client.get(f"/room/{room.id}", headers=login)
        await factory.message(room.id, user)
        await client.delete(f"/room/{room.id}/messages/1", headers=login)
        assert (await client.get(f"/room/{room.id}", headers=login)).headers["etag"] == before.headers["etag"]


class TestUpdate:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.patch("/room/1", json={})) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_WRITE})
        assert code(await client.patch("/room/1", json={}, headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.patch(f"/room/{GONE}", json={}, headers=login)) == NO_ROOM

    @on("sqlite")
    @pytest.mark.parametrize("role", [Role.READER, Role.AUTHOR])
    async def test_not_the_owner(self, client: httpx.AsyncClient, factory: Factory, role: Role) -> None:
        user, owner = await factory.logged_in()
        room = await factory.room(user)
        await factory.message(room.id, user)
        _, login = await factory.logged_in("Bob", role=role)
        before = (await client.get(f"/room/{room.id}", headers=owner)).json()
        for body in ({"name": "Mine"}, {"is_closed": True}, {"name": ""}):
            response = await client.patch(f"/room/{room.id}", json=body, headers=login)
            assert code(response) == (403, "not_room_owner")
        assert (await client.get(f"/room/{room.id}", headers=owner)).json() == before

    @on("sqlite")
    async def test_admin_whose_token_is_not_good_for_that(self, client: httpx.AsyncClient, factory: Factory) -> None:
        room = await factory.room(await factory.user())
        login = factory.login(await factory.admin(), ALL - {Scope.ADMIN})
        response = await client.patch(f"/room/{room.id}", json={"name": "Mine"}, headers=login)
        assert code(response) == (403, "not_room_owner")

    @on("sqlite")
    @pytest.mark.parametrize(
        "body",
        [
            [],
            {"owner": 1},
            {"closed_at": None},
            {"blog_id": 1},
            {"name": ""},
            *({field: None} for field in LOOMS),
            *({"is_closed": value} for value in (None, 1, "true", 0)),
            {"slow_mode": 21_601},
        ],
        ids=ascii,
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, body: Any) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        assert code(await client.patch(f"/room/{room.id}", json=body, headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_of_what_is_not_so_any_more(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}"
        read = await client.get(url, headers=login)
        for header in ({"If-Match": STALE}, {"If-None-Match": read.headers["etag"]}):
            response = await client.patch(url, json={"name": "Other"}, headers=login | header)
            assert code(response) == (412, "precondition_failed")
            assert response.headers["etag"] == read.headers["etag"]
        assert (await client.get(url, headers=login)).json() == read.json()

    @pytest.mark.parametrize("by_admin", [False, True])
    async def test_changed(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], engine_name: str, by_admin: bool
    ) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        before = (await client.get(f"/room/{room.id}", headers=login)).json()
        if by_admin:
            login = factory.login(await factory.admin())
        statements.clear()
        response = await client.patch(f"/room/{room.id}", json=LOOMS, headers=login)
        assert len(statements) == CHANGED + (engine_name == "postgresql")
        assert response.status_code == 200
        assert response.json() == before | LOOMS
        read = await client.get(f"/room/{room.id}", headers=login)
        assert (read.json(), read.headers["etag"]) == (response.json(), response.headers["etag"])

    @on("sqlite")
    @pytest.mark.parametrize("field", LOOMS)
    async def test_the_rest_stays(self, client: httpx.AsyncClient, factory: Factory, field: str) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user, **LOOMS)
        url = f"/room/{room.id}"
        before = (await client.get(url, headers=login)).json()
        change = {field: 0 if field == "slow_mode" else "Other"}
        assert (await client.patch(url, json={}, headers=login)).json() == before
        assert (await client.patch(url, json=change, headers=login)).json() == before | change
        if field != "name":
            emptied = {field: 0 if field == "slow_mode" else ""}
            assert (await client.patch(url, json=emptied, headers=login)).json() == before | emptied

    async def test_closed_and_opened_again(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}"
        assert (await client.patch(url, json={"is_closed": False}, headers=login)).json()["closed_at"] is None
        closed_at = clock.after(0)
        for change in ({"is_closed": True}, {"is_closed": True}, {"name": "Other"}):
            assert (await client.patch(url, json=change, headers=login)).json()["closed_at"] == closed_at
            clock.passes(60)
        response = await client.post(f"{url}/messages", json={"body": "x"}, headers=login)
        assert code(response) == (409, "room_closed")
        assert (await client.patch(url, json={"is_closed": False}, headers=login)).json()["closed_at"] is None
        assert (await client.post(f"{url}/messages", json={"body": "x"}, headers=login)).json()["number"] == 1

    async def test_of_twenty_with_one_tag_one_succeeds(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}"
        conditional = login | {"If-Match": (await client.get(url, headers=login)).headers["etag"]}
        answers = await asyncio.gather(
            *(client.patch(url, json={"name": f"Room {number}"}, headers=conditional) for number in range(20))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 19
        (changed,) = [answer.json() for answer in answers if answer.is_success]
        assert (await client.get(url, headers=login)).json() == changed

    async def test_twenty_at_once_and_what_is_said_meanwhile(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Neither takes back what the other wrote."""
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}"
        answers = await asyncio.gather(
            *(client.patch(url, json={TEXTS[n % 5]: f"{n}"}, headers=login) for n in range(20)),
            *(client.post(f"{url}/messages", json={"body": f"{n}"}, headers=login) for n in range(20)),
        )
        assert {answer.status_code for answer in answers} == {200, 201}
        said = (await client.get(f"{url}/messages?limit=100", headers=login)).json()
        assert [message["number"] for message in said] == list(range(1, 21))
        shown = (await client.get(url, headers=login)).json()
        assert all(int(shown[field]) % 5 == place for place, field in enumerate(TEXTS))

    @on("sqlite")
    async def test_room_of_a_blog(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        room = (await client.get(f"/blog/{(await factory.blog(user)).id}/room", headers=other)).json()
        url = f"/room/{room['id']}"
        assert code(await client.patch(url, json=LOOMS, headers=other)) == (403, "not_room_owner")
        assert (await client.patch(url, json=LOOMS, headers=login)).json() == room | LOOMS


class TestDelete:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.delete("/room/1")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_WRITE})
        assert code(await client.delete("/room/1", headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.delete(f"/room/{GONE}", headers=login)) == NO_ROOM

    @on("sqlite")
    @pytest.mark.parametrize("role", [Role.READER, Role.AUTHOR])
    async def test_not_the_owner(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, role: Role) -> None:
        room = await factory.room(await factory.user())
        _, login = await factory.logged_in("Bob", role=role)
        assert code(await client.delete(f"/room/{room.id}", headers=login)) == (403, "not_room_owner")
        assert await count(app, Room) == 1

    @on("sqlite")
    @pytest.mark.parametrize("by_admin", [False, True])
    async def test_room_of_a_blog(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, by_admin: bool
    ) -> None:
        user, login = await factory.logged_in()
        room = (await client.get(f"/blog/{(await factory.blog(user)).id}/room", headers=login)).json()
        if by_admin:
            login = factory.login(await factory.admin())
        for header in ({}, {"If-Match": STALE}):
            response = await client.delete(f"/room/{room['id']}", headers=login | header)
            assert code(response) == (409, "room_of_blog")
        assert await count(app, Room) == 1

    @on("sqlite")
    async def test_of_what_is_not_so_any_more(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        etag = (await client.get(f"/room/{room.id}", headers=login)).headers["etag"]
        response = await client.delete(f"/room/{room.id}", headers=login | {"If-Match": STALE})
        assert code(response) == (412, "precondition_failed")
        assert response.headers["etag"] == etag
        assert await count(app, Room) == 1
        assert (await client.delete(f"/room/{room.id}", headers=login | {"If-Match": etag})).status_code == 204

    @pytest.mark.parametrize("by_admin", [False, True])
    async def test_deleted(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        app: FastAPI,
        statements: list[str],
        engine_name: str,
        by_admin: bool,
    ) -> None:
        user, login = await factory.logged_in()
        room, other = await factory.room(user), await factory.room(user)
        for number in (room.id, other.id):
            await factory.message(number, user)
        if by_admin:
            login = factory.login(await factory.admin())
        statements.clear()
        response = await client.delete(f"/room/{room.id}", headers=login)
        assert len(statements) == DELETED + (engine_name == "postgresql")
        assert (response.status_code, response.content) == (204, b"")
        assert (await count(app, Room), await count(app, Message)) == (1, 1)
        await is_nowhere(client, room.id, login)

    async def test_ten_at_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        answers = await asyncio.gather(*(client.delete(f"/room/{room.id}", headers=login) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [204] + [404] * 9

    async def test_while_others_talk(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}"
        answers = await asyncio.gather(
            *(client.post(f"{url}/messages", json={"body": f"{n}"}, headers=login) for n in range(10)),
            client.delete(url, headers=login),
            *(client.patch(url, json={"name": f"{n}"}, headers=login) for n in range(10)),
        )
        assert {answer.status_code for answer in answers} <= {200, 201, 204, 404}
        assert answers[10].status_code == 204
        assert (await count(app, Room), await count(app, Message)) == (0, 0)

    async def test_with_more_messages_than_one_statement_deletes(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        app: FastAPI,
        statements: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("blog.repository.MESSAGES_AT_ONCE", 3)
        user, login = await factory.logged_in()
        room, other = await factory.room(user), await factory.room(user)
        for _ in range(11):
            await factory.message(room.id, user)
            await factory.message(other.id, user)
        statements.clear()
        assert (await client.delete(f"/room/{room.id}", headers=login)).status_code == 204
        cut = [statement for statement in statements if statement.startswith("DELETE FROM message")]
        assert len(cut) == 3  # what is left of at most three goes with the room
        assert (await count(app, Room), await count(app, Message)) == (1, 11)


class TestOfBlog:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/blog/1/room")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_READ})
        assert code(await client.get("/blog/1/room", headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    @pytest.mark.parametrize("blog_id", ["0", "-1", "abc", "1.0", "+1", "9" * 23])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, blog_id: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/blog/{blog_id}/room", headers=login)) == (422, "invalid")

    async def test_missing(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        _, login = await factory.logged_in()
        for blog_id in (GONE, GONE + 1):
            assert code(await client.get(f"/blog/{blog_id}/room", headers=login)) == (404, "blog_not_found")
        assert await count(app, Room) == 0

    @pytest.mark.parametrize("status", ["draft", "scheduled"])
    async def test_of_what_others_do_not_see(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, status: str
    ) -> None:
        """Whether they ask for it before its creator has or later, by the blog, by itself or for what is said in it."""
        user, login = await factory.logged_in()
        later: dict[str, Any] = {"published_at": datetime(2100, 1, 1, tzinfo=UTC)} if status == "scheduled" else {}
        blog = await factory.blog(user, status=status, **later)
        others = [(await factory.logged_in("Bob"))[1], factory.login(await factory.admin())]
        url = f"/blog/{blog.id}/room"
        for other in others:
            assert code(await client.get(url, headers=other)) == (404, "blog_not_found")
        assert await count(app, Room) == 0
        room = (await client.get(url, headers=login)).json()
        await factory.message(room["id"], user)
        for other in others:
            assert code(await client.get(url, headers=other)) == (404, "blog_not_found")
            await is_nowhere(client, room["id"], other)
        await client.patch(f"/blog/{blog.id}", json={"status": "published"}, headers=login)
        for other in others:
            assert (await client.get(url, headers=other)).json() == room

    async def test_of_a_blog_that_was_deleted(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        asked, never = await factory.blog(user), await factory.blog(user)
        room = (await client.get(f"/blog/{asked.id}/room", headers=login)).json()
        await factory.message(room["id"], user)
        for blog in (asked, never):
            await client.delete(f"/blog/{blog.id}", headers=login)
            for who in (login, other):
                assert code(await client.get(f"/blog/{blog.id}/room", headers=who)) == (410, "blog_deleted")
        assert code(await client.get(f"/room/{room['id']}", headers=login)) == NO_ROOM
        assert (await count(app, Room), await count(app, Message)) == (0, 0)

    @pytest.mark.parametrize("reader", [False, True])
    async def test_made_on_first_need(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, statements: list[str], reader: bool
    ) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user, "🧵" * 200)
        if reader:
            _, login = await factory.logged_in("Bob", role=Role.READER)
        assert await count(app, Room) == 0
        first = await client.get(f"/blog/{blog.id}/room", headers=login)
        assert first.status_code == 200
        room = first.json()
        assert room == dict.fromkeys(TEXTS, "") | {
            "id": room["id"],
            "name": "🧵" * 100,
            "slow_mode": 0,
            "owner": {"id": user.id, "name": user.name},
            "blog_id": blog.id,
            "created_at": room["created_at"],
            "closed_at": None,
        }
        statements.clear()
        again = await client.get(f"/blog/{blog.id}/room", headers=login)
        assert len(statements) == READ
        assert (again.json(), again.headers["etag"]) == (room, first.headers["etag"])
        itself = await client.get(f"/room/{room['id']}", headers=login)
        assert (itself.json(), itself.headers["etag"]) == (room, first.headers["etag"])
        unchanged = await client.get(f"/blog/{blog.id}/room", headers=login | {"If-None-Match": first.headers["etag"]})
        assert unchanged.status_code == 304
        assert await count(app, Room) == 1

    async def test_ten_at_once_make_one(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        answers = await asyncio.gather(*(client.get(f"/blog/{blog.id}/room", headers=login) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert await count(app, Room) == 1

    async def test_made_while_its_blog_is_deleted(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        answers = await asyncio.gather(
            *(client.get(f"/blog/{blog.id}/room", headers=login) for _ in range(5)),
            client.delete(f"/blog/{blog.id}", headers=login),
            *(client.get(f"/blog/{blog.id}/room", headers=login) for _ in range(5)),
        )
        assert answers[5].status_code == 204
        assert {answer.status_code for answer in answers} <= {200, 204, 404, 410}
        assert await count(app, Room) == 0

    async def test_of_two_who_make_it_one_is_refused(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        """What whoever comes second is told, and looks again."""
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        await client.get(f"/blog/{blog.id}/room", headers=login)
        with pytest.raises(IntegrityError):
            async with app.state.database.write.begin() as session:
                await RoomRepository(session).add_of_blog(blog.id)
        with pytest.raises(BlogNotFound):
            async with app.state.database.write.begin() as session:
                await RoomRepository(session).add_of_blog(GONE)

    async def test_it_is_whoevers_the_blog_is(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, of_ada = await factory.logged_in()
        bob, of_bob = await factory.logged_in("Bob")
        blog = await factory.blog(ada)
        room = (await client.get(f"/blog/{blog.id}/room", headers=of_ada)).json()
        await factory.message(room["id"], ada, "Mine")
        admin = factory.login(await factory.admin())
        given = await client.delete(f"/user/{ada.id}?blogs=reassign&to={bob.id}", headers=admin)
        assert given.status_code == 204
        shown = (await client.get(f"/blog/{blog.id}/room", headers=of_bob)).json()
        assert shown == room | {"owner": {"id": bob.id, "name": "Bob"}}
        assert (await client.get(f"/room/{room['id']}", headers=of_bob)).json() == shown
        (message,) = (await client.get(f"/room/{room['id']}/messages", headers=of_bob)).json()
        assert (message["writer"], message["body"]) == (None, "Mine")
        assert (await client.patch(f"/room/{room['id']}", json={"name": "x"}, headers=of_bob)).status_code == 200
        assert (await client.delete(f"/room/{room['id']}/messages/1", headers=of_bob)).status_code == 204


class TestWithoutItsOwner:
    """What becomes of rooms when whoever opened them is deleted."""

    async def test_it_stays_and_is_nobodys(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, of_ada = await factory.logged_in()
        bob, of_bob = await factory.logged_in("Bob")
        admin = factory.login(await factory.admin())
        room = await factory.room(ada)
        for writer in (ada, bob):
            await factory.message(room.id, writer)
        before = (await client.get(f"/room/{room.id}", headers=of_ada)).json()
        assert (await client.delete(f"/user/{ada.id}", headers=admin)).status_code == 204
        read = (await client.get(f"/room/{room.id}", headers=of_bob)).json()
        assert read == before | {"owner": None}
        assert (await client.get("/room/", headers=of_bob)).json() == [read]
        assert code(await client.patch(f"/room/{room.id}", json={}, headers=of_bob)) == (403, "not_room_owner")
        assert (await client.patch(f"/room/{room.id}", json={}, headers=admin)).json() == read
        response = await client.post(f"/room/{room.id}/messages", json={"body": "x"}, headers=of_bob)
        assert response.json()["number"] == 3
        messages = (await client.get(f"/room/{room.id}/messages", headers=of_bob)).json()
        assert [message["writer"] and message["writer"]["name"] for message in messages] == [None, "Bob", "Bob"]
        assert (await client.delete(f"/room/{room.id}", headers=admin)).status_code == 204

    async def test_who_comes_next_does_not_get_it(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada = await factory.user()
        room = await factory.room(ada)
        await factory.message(room.id, ada)
        admin = factory.login(await factory.admin())
        assert (await client.delete(f"/user/{ada.id}", headers=admin)).status_code == 204
        _, login = await factory.logged_in()
        assert (await client.get(f"/room/{room.id}", headers=login)).json()["owner"] is None
        assert code(await client.delete(f"/room/{room.id}", headers=login)) == (403, "not_room_owner")
        assert code(await client.delete(f"/room/{room.id}/messages/1", headers=login)) == (403, "not_message_writer")

    @pytest.mark.parametrize(("at_once", "cuts"), [(3, 6), (9, 2), (10_000, 0)])
    async def test_blogs_that_go_with_their_creator_take_their_rooms_along(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        app: FastAPI,
        statements: list[str],
        monkeypatch: pytest.MonkeyPatch,
        at_once: int,
        cuts: int,
    ) -> None:
        """However many messages are in them together, no statement deletes more than some."""
        monkeypatch.setattr("blog.repository.MESSAGES_AT_ONCE", at_once)
        ada, of_ada = await factory.logged_in()
        bob, of_bob = await factory.logged_in("Bob")
        blogs = [await factory.blog(ada) for _ in range(3)] + [await factory.blog(bob)]
        rooms = [(await client.get(f"/blog/{blog.id}/room", headers=of_bob)).json()["id"] for blog in blogs]
        for _ in range(8):
            for room in rooms[1:]:
                await factory.message(room, bob)
        own = await factory.room(ada)
        await factory.message(own.id, ada)
        statements.clear()
        response = await client.request(
            "DELETE",
            f"/user/{ada.id}?blogs=delete",
            json={"current_password": "correct horse battery"},
            headers=of_ada,
        )
        assert response.status_code == 204
        cut = [statement for statement in statements if statement.startswith("DELETE FROM message")]
        assert len(cut) == cuts
        assert (await count(app, Room), await count(app, Message)) == (2, 9)


class TestRepository:
    async def test_held_when_it_is_gone(self, app: FastAPI) -> None:
        with pytest.raises(RoomNotFound):
            async with app.state.database.write.begin() as session:
                await RoomRepository(session).hold(GONE)
