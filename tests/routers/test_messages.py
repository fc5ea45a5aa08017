"""`/room/{room_id}/messages`: one class an endpoint, refusals first, in the order in which the server gives them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlmodel import col

from blog.models import Message, Role, Room
from blog.security.access import ALL, Scope
from tests.answers import code
from tests.clock import Clock
from tests.conftest import commits_fail, on
from tests.factories import Factory

STALE = '"0123456789abcdef0123456789abcdef"'
GONE = 2**31 - 1
NO_ROOM, NO_MESSAGE = (404, "room_not_found"), (404, "message_not_found")
REMOVED = (410, "message_removed")
WEAVES = {"body": "It *weaves* — 織物 🧵."}

POSTED, LISTED, READ, TAKEN = 6, 3, 3, 6
"""Statements: who asks; the room; the message, if one is named; and for a change the room once more, which it holds,
its counter, the message, and what the answer shows. PostgreSQL is told to tell of it, too."""


async def numbers(app: FastAPI, room_id: int) -> list[int]:
    async with app.state.database.fresh() as session:
        statement = select(col(Message.number)).where(col(Message.room_id) == room_id).order_by(col(Message.number))
        return list(await session.scalars(statement))


async def counts(app: FastAPI, room_id: int) -> tuple[int, int]:
    """The number of the room's last message, and how many removals it has seen."""
    async with app.state.database.fresh() as session:
        room = await session.get_one(Room, room_id)
        return room.last_number, room.removals


class TestCreate:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.post("/room/1/messages", json={})) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_WRITE})
        assert code(await client.post("/room/1/messages", json={}, headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        for body in (WEAVES, {}):
            assert code(await client.post(f"/room/{GONE}/messages", json=body, headers=login)) == NO_ROOM

    @on("sqlite")
    @pytest.mark.parametrize(
        "body",
        [
            {},
            [],
            *({"body": body} for body in ("", " \n ", "\u200b\u2800", "NUL \0", "\x1b[2J", "\ufffe", None, 7, ["x"])),
            {"body": "x" * 4_001},
            {"body": "🧵" * 4_001},
            *(WEAVES | {field: 1} for field in ("number", "writer", "writer_id", "html", "room_id", "ref")),
            WEAVES | {"type": "message"},
            WEAVES | {"created_at": "2026-01-01T00:00:00Z"},
        ],
        ids=lambda body: ascii(body)[:40],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, body: Any) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        assert code(await client.post(f"/room/{room.id}/messages", json=body, headers=login)) == (422, "invalid")
        assert await numbers(app, room.id) == []

    @on("sqlite")
    async def test_unrenderable(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        response = await client.post(f"/room/{room.id}/messages", json={"body": "> " * 101 + "x"}, headers=login)
        assert code(response) == (422, "unrenderable")
        assert await numbers(app, room.id) == []

    @on("sqlite")
    @pytest.mark.parametrize("who", ["writer", "owner", "admin"])
    async def test_closed(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, who: str) -> None:
        owner = await factory.user()
        room = await factory.room(owner)
        await client.patch(f"/room/{room.id}", json={"is_closed": True}, headers=factory.login(owner))
        askers = {"writer": await factory.user("Bob"), "owner": owner, "admin": await factory.admin()}
        login = factory.login(askers[who])
        assert code(await client.post(f"/room/{room.id}/messages", json=WEAVES, headers=login)) == (409, "room_closed")
        assert await numbers(app, room.id) == []
        assert (await client.get(f"/room/{room.id}/messages", headers=login)).json() == []

    @pytest.mark.parametrize("role", [Role.READER, Role.AUTHOR])
    async def test_created(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], engine_name: str, role: Role
    ) -> None:
        room = await factory.room(await factory.user())
        user, login = await factory.logged_in("Bob", role=role)
        statements.clear()
        response = await client.post(f"/room/{room.id}/messages", json=WEAVES, headers=login)
        assert len(statements) == POSTED + (engine_name == "postgresql")
        assert response.status_code == 201
        assert response.headers["location"] == f"/room/{room.id}/messages/1"
        message = response.json()
        assert message == WEAVES | {
            "type": "message",
            "number": 1,
            "html": "<p>It <em>weaves</em> — 織物 🧵.</p>\n",
            "writer": {"id": user.id, "name": "Bob"},
            "created_at": message["created_at"],
        }
        written = datetime.strptime(message["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
        assert (await client.get(response.headers["location"], headers=login)).json() == message
        assert (await client.get(f"/room/{room.id}/messages", headers=login)).json() == [message]

    async def test_longest(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        for body in ("🧵" * 4_000, "&" * 4_000, " x\n"):
            response = await client.post(f"/room/{room.id}/messages", json={"body": body}, headers=login)
            assert (await client.get(response.headers["location"], headers=login)).json()["body"] == body

    @on("sqlite")
    async def test_what_is_left_out(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Many messages stand on one page: none has what would be the page's, or another message's."""
        user, login = await factory.logged_in()
        room = await factory.room(user)
        body = "# One\n\nTwo\n===\n\n<b onclick=y>Three</b> [four](javascript:x)[^1] ^[five]\n\n[^1]: six"
        html = (await client.post(f"/room/{room.id}/messages", json={"body": body}, headers=login)).json()["html"]
        assert html == (
            "<p># One</p>\n<p>Two\n===</p>\n<p>&lt;b onclick=y&gt;Three&lt;/b&gt; "
            '[four](javascript:x)<a href="six" rel="noopener">^1</a> ^[five]</p>\n'
        )

    async def test_of_its_own_numbers_each_room(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        rooms = [await factory.room(user) for _ in range(2)]
        for number in (1, 2, 3):
            for room in rooms:
                response = await client.post(f"/room/{room.id}/messages", json=WEAVES, headers=login)
                assert response.json()["number"] == number

    async def test_twenty_at_once_and_refusals_in_between(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        """What is refused takes no number, wherever it is refused."""
        user, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        room = await factory.room(user, slow_mode=3_600)
        url = f"/room/{room.id}/messages"
        assert (await client.post(url, json=WEAVES, headers=other)).json()["number"] == 1
        wrong = [{"body": ""}, {"body": "> " * 101 + "x"}]
        answers = await asyncio.gather(
            *(
                client.post(url, json=body, headers=headers)
                for number in range(20)
                for body, headers in (({"body": f"{number}"}, login), (WEAVES, other), (wrong[number % 2], login))
            )
        )
        statuses = [answer.status_code for answer in answers]
        assert statuses == [201, 429, 422] * 20
        said = [answer.json() for answer in answers if answer.is_success]
        assert sorted(message["number"] for message in said) == list(range(2, 22)) == (await numbers(app, room.id))[1:]
        listed = (await client.get(f"{url}?after=1", headers=login)).json()
        assert listed == sorted(said, key=lambda message: int(message["number"]))

    async def test_a_commit_that_fails_takes_no_number(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}/messages"
        with commits_fail(app):
            response = await client.post(url, json=WEAVES, headers=login)
            assert code(response) == (503, "database_unavailable")
        assert await counts(app, room.id) == (0, 0)
        assert (await client.post(url, json=WEAVES, headers=login)).json()["number"] == 1

    async def test_again_with_its_key(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room, other = await factory.room(user), await factory.room(user)
        headers = login | {"Idempotency-Key": "a"}
        url = f"/room/{room.id}/messages"
        answers = await asyncio.gather(*(client.post(url, json=WEAVES, headers=headers) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert await numbers(app, room.id) == [1]
        await client.patch(f"/room/{room.id}", json={"is_closed": True, "slow_mode": 60}, headers=login)
        again = await client.post(url, json=WEAVES, headers=headers)
        assert (again.content, again.headers["idempotency-replayed"]) == (answers[0].content, "true")
        response = await client.post(url, json={"body": "Other"}, headers=headers)
        assert code(response) == (422, "idempotency_key_reused")
        assert (await client.post(f"/room/{other.id}/messages", json=WEAVES, headers=headers)).status_code == 201

    async def test_as_long_as_the_room_is_there(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        url = f"/room/{room.id}/messages"
        answers = await asyncio.gather(
            *(client.post(url, json=WEAVES, headers=login) for _ in range(10)),
            client.patch(f"/room/{room.id}", json={"is_closed": True}, headers=login),
            *(client.post(url, json=WEAVES, headers=login) for _ in range(10)),
        )
        assert answers[10].status_code == 200
        said = [answer for answer in answers if answer.status_code == 201]
        assert {code(answer) for answer in answers if answer.is_error} <= {(409, "room_closed")}
        assert await numbers(app, room.id) == list(range(1, len(said) + 1))


class TestSlowMode:
    async def test_everybody_waits(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, clock: Clock
    ) -> None:
        room = await factory.room(await factory.user(), slow_mode=30)
        (_, bob), (_, eve) = await factory.logged_in("Bob"), await factory.logged_in("Eve", role=Role.READER)
        url = f"/room/{room.id}/messages"
        for login in (bob, eve):  # each by oneself
            assert (await client.post(url, json=WEAVES, headers=login)).status_code == 201
            for waited, seconds in ((0, 30), (29, 1)):
                clock.passes(waited)
                response = await client.post(url, json=WEAVES, headers=login)
                assert code(response) == (429, "slow_mode")
                assert response.headers["retry-after"] == f"{seconds}"
            clock.passes(1)
            assert (await client.post(url, json=WEAVES, headers=login)).status_code == 201
        assert await numbers(app, room.id) == [1, 2, 3, 4]

    async def test_a_message_that_was_removed_counts(self, client: httpx.AsyncClient, factory: Factory) -> None:
        room = await factory.room(await factory.user(), slow_mode=3_600)
        _, login = await factory.logged_in("Bob")
        url = f"/room/{room.id}/messages"
        assert (await client.post(url, json=WEAVES, headers=login)).status_code == 201
        assert (await client.delete(f"{url}/1", headers=login)).status_code == 204
        assert code(await client.post(url, json=WEAVES, headers=login)) == (429, "slow_mode")

    async def test_what_is_said_elsewhere_does_not(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        rooms = [await factory.room(user, slow_mode=3_600) for _ in range(2)]
        _, login = await factory.logged_in("Bob")
        for room in rooms:
            assert (await client.post(f"/room/{room.id}/messages", json=WEAVES, headers=login)).status_code == 201

    async def test_at_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        room = await factory.room(await factory.user(), slow_mode=3_600)
        _, login = await factory.logged_in("Bob")
        answers = await asyncio.gather(
            *(client.post(f"/room/{room.id}/messages", json=WEAVES, headers=login) for _ in range(10))
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [429] * 9

    @on("sqlite")
    @pytest.mark.parametrize("who", ["owner", "admin"])
    async def test_not_who_keeps_it_in_order(self, client: httpx.AsyncClient, factory: Factory, who: str) -> None:
        owner, admin = await factory.user(), await factory.admin()
        room = await factory.room(owner, slow_mode=3_600)
        url = f"/room/{room.id}/messages"
        login = factory.login(owner if who == "owner" else admin)
        for number in (1, 2):
            assert (await client.post(url, json=WEAVES, headers=login)).json()["number"] == number
        narrow = factory.login(admin, ALL - {Scope.ADMIN})
        assert (await client.post(url, json=WEAVES, headers=narrow)).status_code == (201 if who == "owner" else 429)

    @on("sqlite")
    async def test_of_a_blogs_room_its_creator(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        _, bob = await factory.logged_in("Bob")
        room = (await client.get(f"/blog/{(await factory.blog(ada)).id}/room", headers=bob)).json()
        await client.patch(f"/room/{room['id']}", json={"slow_mode": 3_600}, headers=login)
        url = f"/room/{room['id']}/messages"
        assert [(await client.post(url, json=WEAVES, headers=login)).status_code for _ in range(2)] == [201, 201]
        assert [(await client.post(url, json=WEAVES, headers=bob)).status_code for _ in range(2)] == [201, 429]

    @on("sqlite")
    async def test_off_again(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, owner = await factory.logged_in()
        room = await factory.room(ada, slow_mode=3_600)
        _, login = await factory.logged_in("Bob")
        url = f"/room/{room.id}/messages"
        assert [(await client.post(url, json=WEAVES, headers=login)).status_code for _ in range(2)] == [201, 429]
        await client.patch(f"/room/{room.id}", json={"slow_mode": 0}, headers=owner)
        assert [(await client.post(url, json=WEAVES, headers=login)).status_code for _ in range(2)] == [201, 201]


class TestList:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/room/1/messages")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_READ})
        assert code(await client.get("/room/1/messages", headers=login)) == (403, "insufficient_scope")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/room/{GONE}/messages", headers=login)) == NO_ROOM

    @on("sqlite")
    @pytest.mark.parametrize(
        "query",
        [
            *(f"limit={limit}" for limit in ("0", "-1", "101", "abc", "")),
            *(
                f"{name}={number}"
                for name in ("after", "before")
                for number in ("", "-1", "abc", "1.0", "+1", "01", "00", "1_0", "１", 2**31, 2**63, "9" * 23)
            ),
            "after=1&before=3",
            "after=0&before=0",
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, query: str) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        assert code(await client.get(f"/room/{room.id}/messages?{query}", headers=login)) == (422, "invalid")

    async def test_empty(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        for query in ("", "?after=0", "?after=7", "?before=0", f"?before={GONE}", f"?after={GONE}"):
            response = await client.get(f"/room/{room.id}/messages{query}", headers=login)
            assert response.json() == []
            assert "link" not in response.headers

    async def test_listed(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user = await factory.user()
        room, other = await factory.room(user), await factory.room(user)
        _, login = await factory.logged_in("Bob", role=Role.READER)
        for number in range(1, 25):
            await factory.message(room.id, user, f"{number}")
            await factory.message(other.id, user)
        url = f"/room/{room.id}/messages"

        async def listed(query: str) -> list[int]:
            response = await client.get(f"{url}?{query}", headers=login)
            assert all(message["body"] == str(message["number"]) for message in response.json())
            return [message["number"] for message in response.json()]

        statements.clear()
        assert await listed("") == list(range(1, 21))
        assert len(statements) == LISTED
        assert await listed("after=0") == list(range(1, 21))
        assert await listed("after=22") == [23, 24]
        assert await listed("after=24") == await listed(f"after={GONE}") == await listed("before=1") == []
        assert await listed("after=3&limit=2") == [4, 5]
        assert await listed("before=3") == [1, 2]
        assert await listed("before=24") == list(range(4, 24))
        assert await listed(f"before={GONE}&limit=2") == [23, 24]
        assert await listed("limit=100") == list(range(1, 25))

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    async def test_pages_hold_every_message_once(self, client: httpx.AsyncClient, factory: Factory, limit: int) -> None:
        """What is said and removed meanwhile moves none."""
        user, login = await factory.logged_in()
        room = await factory.room(user)
        for _ in range(6):
            await factory.message(room.id, user)
        url, seen = f"/room/{room.id}/messages?limit={limit}", []
        while url:
            response = await client.get(url, headers=login)
            page = [message["number"] for message in response.json()]
            assert len(page) <= limit
            seen += page
            url = response.links.get("next", {}).get("url", "")
            if page[-1] == 3:
                await client.delete(f"/room/{room.id}/messages/3", headers=login)
                await factory.message(room.id, user)
        assert seen == list(range(1, 8 if limit in (1, 3) else 7))

    @on("sqlite")
    async def test_next_page(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        for _ in range(3):
            await factory.message(room.id, user)
        for path in (f"/room/{room.id}/messages", f"/room/{room.id}/messages/"):
            response = await client.get(f"{path}?limit=2&junk=%ff", headers=login)
            assert response.headers["link"] == f'</room/{room.id}/messages?after=2&limit=2>; rel="next"'
        for query in ("limit=3", "after=1&limit=2", "before=3&limit=1"):
            assert "link" not in (await client.get(f"/room/{room.id}/messages?{query}", headers=login)).headers


class TestRead:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/room/1/messages/1")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_READ})
        assert code(await client.get("/room/1/messages/1", headers=login)) == (403, "insufficient_scope")

    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        room, other = await factory.room(user), await factory.room(user)
        await factory.message(other.id, user)
        assert code(await client.get(f"/room/{GONE}/messages/1", headers=login)) == NO_ROOM
        for number in (1, GONE, GONE + 1, 9_999_999_999):
            assert code(await client.get(f"/room/{room.id}/messages/{number}", headers=login)) == NO_MESSAGE

    @on("sqlite")
    @pytest.mark.parametrize("number", ["0", "-1", "abc", "1.0", "+1", "01", "1_0", "%2001", "１", "9" * 23])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, number: str) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        assert code(await client.get(f"/room/{room.id}/messages/{number}", headers=login)) == (422, "invalid")

    async def test_read(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        await factory.message(room.id, user)
        url = f"/room/{room.id}/messages/1"
        statements.clear()
        response = await client.get(url, headers=login)
        assert len(statements) == READ
        assert "deleted_at" not in response.json()
        etag = response.headers["etag"]
        head = await client.head(url, headers=login)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
        again = await client.get(url, headers=login | {"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        await client.patch("/user/me", json={"name": "Augusta"}, headers=login)
        renamed = await client.get(url, headers=login | {"If-None-Match": etag})
        assert renamed.json() == response.json() | {"writer": {"id": user.id, "name": "Augusta"}}


class TestRemove:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.delete("/room/1/messages/1")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_token_for_less(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), ALL - {Scope.ROOM_WRITE})
        assert code(await client.delete("/room/1/messages/1", headers=login)) == (403, "insufficient_scope")

    async def test_missing(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room, other = await factory.room(user), await factory.room(user)
        await factory.message(other.id, user)
        assert code(await client.delete(f"/room/{GONE}/messages/1", headers=login)) == NO_ROOM
        for number in (1, GONE, GONE + 1, 9_999_999_999):
            assert code(await client.delete(f"/room/{room.id}/messages/{number}", headers=login)) == NO_MESSAGE
        assert await counts(app, other.id) == (1, 0)

    @on("sqlite")
    @pytest.mark.parametrize("role", [Role.READER, Role.AUTHOR])
    async def test_somebody_elses(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, role: Role) -> None:
        user = await factory.user()
        room = await factory.room(user)
        await factory.message(room.id, user)
        _, login = await factory.logged_in("Bob", role=role)
        response = await client.delete(f"/room/{room.id}/messages/1", headers=login)
        assert code(response) == (403, "not_message_writer")
        narrow = factory.login(await factory.admin(), ALL - {Scope.ADMIN})
        response = await client.delete(f"/room/{room.id}/messages/1", headers=narrow)
        assert code(response) == (403, "not_message_writer")
        assert await counts(app, room.id) == (1, 0)

    async def test_of_what_is_not_so_any_more(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        await factory.message(room.id, user)
        url = f"/room/{room.id}/messages/1"
        etag = (await client.get(url, headers=login)).headers["etag"]
        for header in ({"If-Match": STALE}, {"If-None-Match": etag}):
            response = await client.delete(url, headers=login | header)
            assert code(response) == (412, "precondition_failed")
            assert response.headers["etag"] == etag
        assert await counts(app, room.id) == (1, 0)
        assert (await client.delete(url, headers=login | {"If-Match": etag})).status_code == 204
        response = await client.delete(url, headers=login | {"If-Match": etag})
        assert code(response) == (412, "precondition_failed")

    @pytest.mark.parametrize("who", ["writer", "owner", "admin"])
    async def test_removed(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        app: FastAPI,
        statements: list[str],
        engine_name: str,
        who: str,
    ) -> None:
        owner, writer = await factory.user(), await factory.user("Bob", role=Role.READER)
        room = await factory.room(owner)
        for number in (1, 2, 3):
            await factory.message(room.id, writer, f"Text {number}")
        login = factory.login({"writer": writer, "owner": owner, "admin": await factory.admin()}[who])
        url = f"/room/{room.id}/messages"
        before = (await client.get(url, headers=login)).json()
        etag = (await client.get(f"{url}/2", headers=login)).headers["etag"]
        statements.clear()
        response = await client.delete(f"{url}/2", headers=login)
        assert len(statements) == TAKEN + (engine_name == "postgresql")
        assert (response.status_code, response.content) == (204, b"")
        first, removed, last = (await client.get(url, headers=login)).json()
        assert (first, last) == (before[0], before[2])
        assert removed == before[1] | {"body": "", "html": "", "deleted_at": removed["deleted_at"]}
        read = await client.get(f"{url}/2", headers=login | {"If-None-Match": etag})
        assert (read.status_code, read.json()) == (200, removed)
        async with app.state.database.fresh() as session:
            text = (col(Message.body).contains("Text 2"), col(Message.html).contains("Text 2"))
            assert await session.scalar(select(func.count()).select_from(Message).where(text[0] | text[1])) == 0
        assert code(await client.delete(f"{url}/2", headers=login)) == REMOVED
        assert await counts(app, room.id) == (3, 1)
        assert (await client.post(url, json=WEAVES, headers=login)).json()["number"] == 4

    async def test_ten_at_once(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        room = await factory.room(user)
        for _ in range(3):
            await factory.message(room.id, user)
        url = f"/room/{room.id}/messages"
        answers = await asyncio.gather(
            *(client.delete(f"{url}/{number}", headers=login) for number in (1, 3) for _ in range(10)),
            *(client.post(url, json=WEAVES, headers=login) for _ in range(5)),
        )
        for removals in (answers[:10], answers[10:20]):
            assert sorted(answer.status_code for answer in removals) == [204] + [410] * 9
        assert await counts(app, room.id) == (8, 2)
        async with app.state.database.fresh() as session:
            told = select(col(Message.removal)).where(col(Message.removal).is_not(None)).order_by(col(Message.removal))
            assert list(await session.scalars(told)) == [1, 2]

    @on("sqlite")
    async def test_in_a_room_that_is_closed(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """To keep it in order is not to say more in it."""
        user, login = await factory.logged_in()
        room = await factory.room(user)
        await factory.message(room.id, user)
        await client.patch(f"/room/{room.id}", json={"is_closed": True}, headers=login)
        assert (await client.delete(f"/room/{room.id}/messages/1", headers=login)).status_code == 204


class TestWithoutItsWriter:
    """What becomes of messages when whoever wrote them is deleted."""

    async def test_it_stays_and_is_nobodys(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        ada, owner = await factory.logged_in()
        bob = await factory.user("Bob")
        room = await factory.room(ada)
        await factory.message(room.id, bob, "Mine")
        url = f"/room/{room.id}/messages"
        (before,) = (await client.get(url, headers=owner)).json()
        admin = factory.login(await factory.admin())
        assert (await client.delete(f"/user/{bob.id}", headers=admin)).status_code == 204
        assert (await client.get(url, headers=owner)).json() == [before | {"writer": None}]
        assert (await client.get(f"{url}/1", headers=owner)).json() == before | {"writer": None}
        _, login = await factory.logged_in("Bob")
        assert code(await client.delete(f"{url}/1", headers=login)) == (403, "not_message_writer")
        assert (await client.delete(f"{url}/1", headers=owner)).status_code == 204
        assert await counts(app, room.id) == (1, 1)
