"""`/user/`: one class an endpoint, refusals first, in the order in which the server gives them."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import col

from blog.app import create_app
from blog.errors import EmailTaken, UserNotFound
from blog.models import Blog, Role, User
from blog.repository.user import UserRepository
from blog.settings import Settings
from tests.answers import code, count, walk
from tests.conftest import client_of, make_settings, on, until_it_waits, with_settings
from tests.factories import PASSWORD, PASSWORD_HASH, Factory, bearer

ADA = {"name": "Ada", "email": "Ada@Example.com", "password": PASSWORD}


class TestRegister:
    @on("sqlite")
    async def test_closed(self, app: FastAPI) -> None:
        async with with_settings(app, registration="closed") as client:
            assert code(await client.post("/user/", json=ADA)) == (403, "registration_closed")
        assert await count(app, User) == 0

    @pytest.mark.parametrize("again", ["Ada@Example.com", "ada@example.com", "ADA@EXAMPLE.COM", " ada@example.com "])
    async def test_known_address(self, app: FastAPI, client: httpx.AsyncClient, again: str) -> None:
        assert (await client.post("/user/", json=ADA)).status_code == 201
        assert code(await client.post("/user/", json=ADA | {"email": again})) == (409, "email_taken")
        assert await count(app, User) == 1

    @on("sqlite")
    @pytest.mark.parametrize(
        "change",
        [
            {"name": ""},
            {"name": " "},
            {"name": "x" * 101},
            {"name": "two\nlines"},
            {"name": "NUL\0"},
            {"name": None},
            {"email": "ada"},
            {"email": "ada@localhost"},
            {"email": "Ada <ada@example.com>"},
            {"email": "a" * 5_000},
            {"email": "ada@example.com."},
            {"email": "ada@example.com\0"},
            {"email": f"{'x' * 300}@example.com"},
            {"email": f"{'ﷺ' * 30}@example.com"},
            {"password": "1234567"},
            {"password": "x" * 129},
            {"password": "12345678\0"},
            {"password": None},
            *({field: 1} for field in ("id", "created_at", "public_id")),
            *({field: True} for field in ("is_admin", "is_active")),
            {"role": "admin"},
            {"role": "author"},
        ],
    )
    async def test_invalid(self, app: FastAPI, client: httpx.AsyncClient, change: dict[str, Any]) -> None:
        assert code(await client.post("/user/", json=ADA | change)) == (422, "invalid")
        assert await count(app, User) == 0

    @on("sqlite")
    async def test_password_too_short_for_the_settings(self, app: FastAPI) -> None:
        async with with_settings(app, password_min_length=15) as client:
            response = await client.post("/user/", json=ADA | {"password": "x" * 14})
            assert code(response) == (422, "weak_password")
            assert "15" in response.json()["detail"]

    @on("sqlite")
    @pytest.mark.parametrize("password", ["iloveyou", "Lovelace, 1815", "a true Countess", "log in at 127.0.0.1"])
    async def test_weak_password(self, app: FastAPI, client: httpx.AsyncClient, password: str) -> None:
        """Common, or with the name, the address or the site in it; each rule's own test is in test_passwords.py."""
        ada = {"name": "Ada Lovelace", "email": "countess@example.com", "password": password}
        assert code(await client.post("/user/", json=ada)) == (422, "weak_password")
        assert await count(app, User) == 0

    async def test_registered(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/user/", json=ADA)
        assert response.status_code == 201
        user = response.json()
        assert response.headers["location"] == f"/user/{user['id']}"
        assert (user["name"], user["email"], user["role"]) == ("Ada", "Ada@example.com", "author")
        assert set(user) == {
            "id",
            "name",
            "email",
            "about",
            "role",
            "is_active",
            "email_verified_at",
            "created_at",
            "updated_at",
        }
        login = await client.post("/login", data={"username": ADA["email"], "password": PASSWORD})
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert (await client.get("/user/me", headers=headers)).json() == user

    @on("sqlite")
    async def test_readers_by_default_where_settings_say_so(self, app: FastAPI) -> None:
        async with with_settings(app, default_role="reader") as client:
            assert (await client.post("/user/", json=ADA)).json()["role"] == "reader"

    @on("sqlite")
    @pytest.mark.parametrize(
        "password", ["pässwörd 🧵 with spaces", "  at both ends  ", " x" * 64, "x" * 128, "a" * 72 + "b", "kdo2!kfj"]
    )
    async def test_any_password_counts_whole(self, client: httpx.AsyncClient, password: str) -> None:
        await client.post("/user/", json=ADA | {"password": password})
        for attempt in (password[:-1], password + "x", password.swapcase(), password):
            response = await client.post("/login", data={"username": ADA["email"], "password": attempt})
            assert response.status_code == (200 if attempt == password else 401)

    @on("sqlite")
    async def test_one_password_however_it_is_composed(self, client: httpx.AsyncClient) -> None:
        await client.post("/user/", json=ADA | {"password": "e\u0301te\u0301 encore"})
        for spelling in ("\u00e9t\u00e9 encore", "e\u0301te\u0301 encore", "e\u0301t\u00e9 encore"):
            response = await client.post("/login", data={"username": ADA["email"], "password": spelling})
            assert response.status_code == 200

    async def test_ten_at_once(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        for number in range(5):
            user = ADA | {"email": f"ada{number}@example.com"}
            answers = await asyncio.gather(*(client.post("/user/", json=user) for _ in range(10)))
            assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
        assert await count(app, User) == 5

    async def test_two_that_do_not_see_each_other(self, app: FastAPI) -> None:
        """Hashing lets them come one by one; what decides is the index, when both have looked and found nobody."""
        write = app.state.database.write

        async def add(email: str) -> None:
            async with write.begin() as session:
                await UserRepository(session).add("Ada", email, PASSWORD_HASH, role=Role.AUTHOR)

        async with write.begin() as session:
            await UserRepository(session).add("Ada", "ada@example.com", PASSWORD_HASH, role=Role.AUTHOR)
            other = asyncio.create_task(add("ADA@example.com"))
            await asyncio.sleep(0.1)
        with pytest.raises(EmailTaken):
            await other
        assert await count(app, User) == 1


class TestList:
    @on("sqlite")
    async def test_not_admin(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get("/user/?limit=0", headers=login)) == (403, "admin_required")

    @on("sqlite")
    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "role=root", "is_active=maybe", "q=", f"q={'x' * 101}"])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, query: str) -> None:
        login = factory.login(await factory.admin())
        assert code(await client.get(f"/user/?{query}", headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_invalid_cursor(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        assert code(await client.get("/user/?cursor=x", headers=login)) == (422, "invalid_cursor")

    async def test_filters(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        await factory.user("Ändi", email="andi@example.com")
        await factory.user("Bob", role=Role.READER, email="bob@example.com")
        await factory.user("Dan%", is_active=False, email="dan@mail.example.com")
        await factory.user("Eve_", email="eve@example.com")
        for query, names in (
            ("", ["Eve_", "Dan%", "Bob", "Ändi", "Root"]),
            ("role=reader", ["Bob"]),
            ("role=admin&is_active=true", ["Root"]),
            ("is_active=false", ["Dan%"]),
            ("q=ÄNDI", ["Ändi"]),
            ("q=ob", ["Bob"]),
            ("q=MAIL.EXAMPLE", ["Dan%"]),
            ("q=%25", ["Dan%"]),
            ("q=_", ["Eve_"]),
            ("q=\\", []),
            ("q='", []),
        ):
            users = (await client.get(f"/user/?{query}", headers=login)).json()
            assert [user["name"] for user in users] == names, query

    async def test_pages(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        for number in range(4):
            await factory.user(f"User {number}", email=f"user{number}@example.com")
        listed = await walk(client, "/user/?limit=2&q=user", login, limit=2)
        assert [user["name"] for user in listed] == ["User 3", "User 2", "User 1", "User 0"]


class TestUpdateSeveral:
    @on("sqlite")
    async def test_not_admin(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        response = await client.put("/user/", json=[{"id": user.id, "role": "admin"}], headers=login)
        assert code(response) == (403, "admin_required")

    async def test_one_is_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.user(), factory.login(await factory.admin())
        changes = [{"id": user.id, "role": "reader"}, {"id": 2147483647, "role": "reader"}]
        assert code(await client.put("/user/", json=changes, headers=login)) == (404, "user_not_found")
        assert (await client.get("/user/?role=reader", headers=login)).json() == []

    @on("sqlite")
    @pytest.mark.parametrize(
        "changes",
        [
            [],
            {},
            [{"role": "reader"}],
            [{"id": 1, "role": "root"}],
            [{"id": 1}, {"id": 1}],
            [{"id": 1.0, "role": "reader"}],
            [{"id": True, "role": "reader"}],
            [{"id": 1, "is_active": "no"}],
            [{"id": 1, "is_active": None}],
            [{"id": 1, "email": "a@example.com"}],
            [{"id": number} for number in range(1, 102)],
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, changes: Any) -> None:
        login = factory.login(await factory.admin())
        assert code(await client.put("/user/", json=changes, headers=login)) == (422, "invalid")

    async def test_changed(self, client: httpx.AsyncClient, factory: Factory) -> None:
        admin, ada, bob = await factory.admin(), await factory.user("Ada"), await factory.user("Bob")
        changes = [{"id": bob.id, "is_active": False}, {"id": ada.id, "role": "admin", "is_active": True}]
        response = await client.put("/user/", json=changes, headers=factory.login(admin))
        assert response.status_code == 200
        assert [(user["id"], user["role"], user["is_active"]) for user in response.json()] == [
            (bob.id, "author", False),
            (ada.id, "admin", True),
        ]
        assert code(await client.get("/user/me", headers=factory.login(bob))) == (401, "invalid_token")
        assert (await client.get("/user/", headers=factory.login(ada))).status_code == 200

    async def test_many_at_once_in_any_order(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """None waits for the other while the other waits for it."""
        login = factory.login(await factory.admin())
        users = [await factory.user(f"User {number}") for number in range(10)]
        changes = [{"id": user.id, "role": "reader"} for user in users]
        answers = await asyncio.gather(
            *(client.put("/user/", json=changes[:: (-1, 1)[number % 2]], headers=login) for number in range(20))
        )
        assert [answer.status_code for answer in answers] == [200] * 20
        assert [user["id"] for user in answers[0].json()] == [change["id"] for change in changes[::-1]]


class TestOwnRecord:
    async def test_read(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user, login = await factory.logged_in()
        statements.clear()
        me = (await client.get("/user/me", headers=login)).json()
        assert (me["id"], me["email"], me["role"], me["is_active"]) == (user.id, user.email, "author", True)
        assert len(statements) == 1

    @on("sqlite")
    @pytest.mark.parametrize("password", [None, "wrong", "\0", "x" * 5_000])
    async def test_new_address_without_the_password(
        self, client: httpx.AsyncClient, factory: Factory, password: str | None
    ) -> None:
        user, login = await factory.logged_in()
        change = {"email": "new@example.com"} | ({"current_password": password} if password else {})
        assert code(await client.patch("/user/me", json=change, headers=login)) == (403, "wrong_password")
        assert (await client.get("/user/me", headers=login)).json()["email"] == user.email

    async def test_address_of_another(self, client: httpx.AsyncClient, factory: Factory) -> None:
        await factory.user("Bob", email="Bob@example.com")
        _, login = await factory.logged_in()
        change = {"email": "bob@example.com", "current_password": PASSWORD}
        assert code(await client.patch("/user/me", json=change, headers=login)) == (409, "email_taken")

    @on("sqlite")
    @pytest.mark.parametrize(
        "change",
        [{"name": None}, {"name": ""}, {"about": None}, {"about": "x" * 2_001}, {"email": None}, {"role": "admin"}],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, change: dict[str, Any]) -> None:
        _, login = await factory.logged_in()
        assert code(await client.patch("/user/me", json=change, headers=login)) == (422, "invalid")

    async def test_changed(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        change = {"name": "Ada L.", "about": "First.\nSecond 🧵.", "email": "New@example.com"}
        response = await client.patch("/user/me", json=change | {"current_password": PASSWORD}, headers=login)
        assert response.status_code == 200
        me = (await client.get("/user/me", headers=login)).json()
        assert me == response.json()
        assert {field: me[field] for field in change} == change
        for email, status in ((user.email, 401), ("new@EXAMPLE.com", 200)):
            answer = await client.post("/login", data={"username": email, "password": PASSWORD})
            assert answer.status_code == status

    @on("sqlite")
    async def test_name_alone_needs_no_password(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        changed = (await client.patch("/user/me", json={"name": "Ada L."}, headers=login)).json()
        assert (changed["name"], changed["email"]) == ("Ada L.", user.email)
        assert (await client.patch("/user/me", json={}, headers=login)).json() == changed


class TestChangePassword:
    @on("sqlite")
    async def test_wrong_password(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        change = {"current_password": "wrong", "new_password": "a new password"}
        assert code(await client.put("/user/me/password", json=change, headers=login)) == (403, "wrong_password")

    @on("sqlite")
    @pytest.mark.parametrize("password", ["short", "x" * 129, None])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, password: str | None) -> None:
        _, login = await factory.logged_in()
        change = {"current_password": PASSWORD, "new_password": password}
        assert code(await client.put("/user/me/password", json=change, headers=login)) == (422, "invalid")

    @on("sqlite")
    @pytest.mark.parametrize("password", ["iloveyou", "Lovelace, 1815", "a true Countess", "log in at 127.0.0.1"])
    async def test_weak_password(self, client: httpx.AsyncClient, factory: Factory, password: str) -> None:
        user = await factory.user("Lovelace", email="countess@example.com")
        change = {"current_password": PASSWORD, "new_password": password}
        response = await client.put("/user/me/password", json=change, headers=factory.login(user))
        assert code(response) == (422, "weak_password")
        login = await client.post("/login", data={"username": user.email, "password": PASSWORD})
        assert login.status_code == 200

    async def test_every_other_login_is_over(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        others = [await factory.another_login(user) for _ in range(2)]
        others.append(bearer(await factory.personal_token(user)))
        bob, bobs = await factory.logged_in("Bob")
        bobs_script = bearer(await factory.personal_token(bob))
        new = "a new password"
        change = {"current_password": PASSWORD, "new_password": new}
        response = await client.put("/user/me/password", json=change, headers=login)
        assert (response.status_code, response.content) == (204, b"")
        for untouched in (login, bobs, bobs_script):
            assert (await client.get("/user/me", headers=untouched)).status_code == 200
        for other in others:
            assert code(await client.get("/user/me", headers=other)) == (401, "invalid_token")
            assert code(await client.patch("/user/me", json={}, headers=other)) == (401, "invalid_token")
        for password, status in ((PASSWORD, 401), (new, 200)):
            answer = await client.post("/login", data={"username": user.email, "password": password})
            assert answer.status_code == status
        # Once more, from the new login: now the one that was spared before is over too.
        newer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        change = {"current_password": new, "new_password": PASSWORD}
        assert (await client.put("/user/me/password", json=change, headers=newer)).status_code == 204
        assert code(await client.get("/user/me", headers=login)) == (401, "invalid_token")
        assert (await client.get("/user/me", headers=newer)).status_code == 200


@on("sqlite")
class TestPersonalTokens:
    async def test_a_scope_named_twice(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """As the documentation says: a list in which every scope is there once."""
        _, login = await factory.logged_in()
        body = {"name": "Backup", "scopes": ["blog:read", "blog:read"], "expires_at": "2190-01-01T00:00:00Z"}
        response = await client.post("/user/me/tokens", json=body, headers=login)
        assert code(response) == (422, "invalid")
        assert response.json()["errors"][0]["msg"] == "names a scope twice"


class TestWhileAHashIsMade:
    """A hash takes its time and its turn; what happens meanwhile counts."""

    async def test_no_connection_is_held(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On SQLite it would be the one writer's."""
        hasher, held = app.state.passwords, []

        def noting(act: Any) -> Any:
            async def note(*arguments: Any) -> Any:
                held.append([engine.pool.checkedout() for engine in app.state.database.engines])
                return await act(*arguments)

            return note

        user, login = await factory.logged_in()
        monkeypatch.setattr(hasher, "hash", noting(hasher.hash))
        monkeypatch.setattr(hasher, "verify", noting(hasher.verify))
        answers = [
            await client.post("/user/", json=ADA),
            await client.post("/login", data={"username": user.email, "password": PASSWORD}),
            await client.patch(
                "/user/me", json={"email": "a@example.com", "current_password": PASSWORD}, headers=login
            ),
            await client.put(
                "/user/me/password", json={"current_password": PASSWORD, "new_password": PASSWORD}, headers=login
            ),
            await delete(client, user, login, current_password=PASSWORD),
        ]
        assert [answer.status_code for answer in answers] == [201, 200, 200, 204, 204]
        assert held == [[0, 0]] * 6

    async def test_a_reset_is_not_undone(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The owner resets the password while a thief's change of it waits for its turn to hash."""
        user, login = await factory.logged_in()
        reset = await app.state.passwords.hash("the owner's new one")
        hasher = app.state.passwords
        verify = hasher.verify

        async def verify_slowly(password: str, known: str) -> Any:
            verified = await verify(password, known)
            if password == PASSWORD:
                async with app.state.database.write.begin() as session:
                    users = UserRepository(session)
                    found = await users.get(user.id)
                    assert found is not None
                    await users.change_password(found, reset)
            return verified

        monkeypatch.setattr(hasher, "verify", verify_slowly)
        thefts = [
            ("PUT", "/user/me/password", {"current_password": PASSWORD, "new_password": "the thief's new one"}),
            ("PATCH", "/user/me", {"current_password": PASSWORD, "email": "thief@example.com"}),
            ("DELETE", f"/user/{user.id}", {"current_password": PASSWORD}),
        ]
        for method, path, body in thefts:
            async with app.state.database.write.begin() as session:
                users = UserRepository(session)
                found = await users.get(user.id)
                assert found is not None
                await users.change_password(found, PASSWORD_HASH)
            login = await factory.another_login(found)
            assert code(await client.request(method, path, json=body, headers=login)) == (401, "invalid_token")
            assert code(await client.get("/user/me", headers=login)) == (401, "invalid_token")
            form = {"username": user.email, "password": "the owner's new one"}
            assert (await client.post("/login", data=form)).status_code == 200

    async def test_of_many_changes_of_a_password_one_is_acknowledged(
        self, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        user, login = await factory.logged_in()
        changes = [{"current_password": PASSWORD, "new_password": f"new password {number}"} for number in range(6)]
        answers = await asyncio.gather(
            *(client.put("/user/me/password", json=change, headers=login) for change in changes)
        )
        acknowledged = [
            change["new_password"] for change, answer in zip(changes, answers, strict=True) if answer.status_code == 204
        ]
        # The last of them holds: each came after the one before was committed, and confirmed the hash of then.
        works = []
        for change in changes:
            form = {"username": user.email, "password": change["new_password"]}
            if (await client.post("/login", data=form)).status_code == 200:
                works.append(change["new_password"])
        assert len(acknowledged) == 1
        assert works == acknowledged


class TestRead:
    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get("/user/2147483647", headers=login)) == (404, "user_not_found")

    @on("sqlite")
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get("/user/you", headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_address_for_oneself_and_admins(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada = await factory.user()
        bob, admin = await factory.user("Bob"), await factory.admin()
        for viewer, sees in ((ada, True), (bob, False), (admin, True)):
            user = (await client.get(f"/user/{ada.id}", headers=factory.login(viewer))).json()
            assert user.get("email") == (ada.email if sees else None)
            assert set(user) - {"email"} == {"id", "name", "about", "created_at", "blogs"}

    async def test_newest_blogs(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        ada, login = await factory.logged_in()
        blogs = [await factory.blog(ada, f"Blog {number}") for number in range(22)]
        await factory.blog(await factory.user("Bob"))
        statements.clear()
        user = (await client.get(f"/user/{ada.id}", headers=login)).json()
        assert len(statements) == 3
        assert [blog["id"] for blog in user["blogs"]] == [blog.id for blog in blogs[:1:-1]]
        assert set(user["blogs"][0]) == {"id", "title", "status", "published_at"}


class TestUpdate:
    @on("sqlite")
    async def test_not_admin(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        response = await client.patch(f"/user/{user.id}", json={"role": "admin"}, headers=login)
        assert code(response) == (403, "admin_required")
        assert (await client.get("/user/me", headers=login)).json()["role"] == "author"

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        assert code(await client.patch("/user/2147483647", json={}, headers=login)) == (404, "user_not_found")

    @on("sqlite")
    @pytest.mark.parametrize("change", [{"role": None}, {"role": "root"}, {"is_active": None}, {"email": "a@b.co"}])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, change: dict[str, Any]) -> None:
        user, login = await factory.user(), factory.login(await factory.admin())
        assert code(await client.patch(f"/user/{user.id}", json=change, headers=login)) == (422, "invalid")

    async def test_changed(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.user(), factory.login(await factory.admin())
        changed = (await client.patch(f"/user/{user.id}", json={"role": "reader"}, headers=login)).json()
        assert (changed["role"], changed["is_active"]) == ("reader", True)
        changed = (await client.patch(f"/user/{user.id}", json={"is_active": False}, headers=login)).json()
        assert (changed["role"], changed["is_active"]) == ("reader", False)

    @on("sqlite")
    async def test_oneself(self, client: httpx.AsyncClient, factory: Factory) -> None:
        admin = await factory.admin()
        login = factory.login(admin)
        assert (await client.patch(f"/user/{admin.id}", json={"role": "author"}, headers=login)).status_code == 200
        assert code(await client.get("/user/", headers=login)) == (403, "admin_required")


async def delete(
    client: httpx.AsyncClient, user: User, login: dict[str, str], query: str = "", **body: str
) -> httpx.Response:
    return await client.request("DELETE", f"/user/{user.id}{query}", headers=login, json=body or None)


class TestDelete:
    @on("sqlite")
    async def test_another(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        bob = await factory.user("Bob")
        _, login = await factory.logged_in()
        assert code(await delete(client, bob, login, current_password=PASSWORD)) == (403, "admin_required")
        assert await count(app, User) == 2

    @on("sqlite")
    @pytest.mark.parametrize("role", [Role.AUTHOR, Role.ADMIN])
    async def test_oneself_without_the_password(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, role: Role
    ) -> None:
        user, login = await factory.logged_in(role=role)
        assert code(await delete(client, user, login)) == (403, "wrong_password")
        assert code(await delete(client, user, login, current_password="wrong")) == (403, "wrong_password")
        assert await count(app, User) == 1

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        assert code(await client.delete("/user/2147483647", headers=login)) == (404, "user_not_found")

    async def test_user_has_blogs(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        await factory.blog(user)
        assert code(await delete(client, user, login, current_password=PASSWORD)) == (409, "user_has_blogs")
        assert (await count(app, User), await count(app, Blog)) == (1, 1)

    @on("sqlite")
    @pytest.mark.parametrize("query", ["?blogs=keep", "?blogs=reassign", "?to=1", "?blogs=delete&to=1", "?to=0"])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, query: str) -> None:
        user, admin = await factory.user(), await factory.admin()
        assert code(await delete(client, user, factory.login(admin), query)) == (422, "invalid")

    async def test_blogs_go_too(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        await factory.blog(user)
        kept = await factory.blog(await factory.user("Bob"))
        response = await delete(client, user, login, "?blogs=delete", current_password=PASSWORD)
        assert (response.status_code, response.content) == (204, b"")
        assert (await count(app, User), await count(app, Blog)) == (1, 1)
        admin = factory.login(await factory.admin())
        assert (await client.get(f"/blog/{kept.id}", headers=admin)).status_code == 200

    async def test_many_blogs_go_by_parts(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blog.repository.blog.BLOGS_AT_ONCE", 2)
        user, bob, login = await factory.user(), await factory.user("Bob"), factory.login(await factory.admin())
        for _ in range(5):
            await factory.blog(user)
        for whose, query, verb in ((user, f"?blogs=reassign&to={bob.id}", "UPDATE"), (bob, "?blogs=delete", "DELETE")):
            statements.clear()
            assert (await delete(client, whose, login, query)).status_code == 204
            assert len([sql for sql in statements if sql.startswith((f"{verb} blog ", f"{verb} FROM blog "))]) == 3

    async def test_while_the_user_writes(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        user, login = await factory.logged_in()
        writes = [client.post("/blog/", json={"title": "x", "body": "x"}, headers=login) for _ in range(20)]
        going = delete(client, user, login, "?blogs=delete", current_password=PASSWORD)
        gone, *written = await asyncio.gather(going, *writes)
        assert gone.status_code == 204
        assert {answer.status_code for answer in written} <= {201, 401}
        assert (await count(app, User), await count(app, Blog)) == (0, 0)

    @on("postgresql", "mariadb")
    async def test_whoever_writes_meanwhile_is_nobody_any_more(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        user, login = await factory.logged_in()
        async with app.state.database.write.begin() as session:
            await UserRepository(session).lock(user.id)
            writing = asyncio.create_task(client.post("/blog/", json={"title": "x", "body": "x"}, headers=login))
            await until_it_waits(app.state.database, writing)
            await UserRepository(session).remove(user.id)
        assert code(await writing) == (401, "invalid_token")
        assert (await count(app, User), await count(app, Blog)) == (0, 0)

    async def test_while_everybody_writes(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        """One who goes with blogs and one whose blogs go to a third, while all three write: nobody waits in a ring."""
        people = [await factory.logged_in(name) for name in ("Ada", "Bob", "Cyd")]
        (ada, _), (bob, bobs), (cyd, _) = people
        admin = factory.login(await factory.admin())
        tags: Any = {"tags": ["a", "b"]}
        kept = await factory.blog(bob, **tags)
        others = [await factory.blog(user, **tags) for user in (ada, cyd) for _ in range(5)]
        writes = [
            client.post("/blog/", json={"title": "x", "body": "x", **tags}, headers=login)
            for _ in range(8)
            for _, login in people
        ]
        changes = [
            client.patch(f"/blog/{blog.id}", json={"title": f"{number}", "tags": [f"{number}"]}, headers=login)
            for number, blog in enumerate([kept, *others])
            for login in (bobs, admin)
        ]
        deletions = [client.delete(f"/blog/{blog.id}", headers=admin) for blog in others[::2]]
        going = [
            delete(client, ada, admin, "?blogs=delete"),
            delete(client, cyd, admin, f"?blogs=reassign&to={bob.id}"),
        ]
        answers = await asyncio.gather(*writes[:12], *changes[:10], *going, *writes[12:], *changes[10:], *deletions)
        assert {answer.status_code for answer in answers} <= {200, 201, 204, 401, 403, 410}
        assert [answer.status_code for answer in answers[22:24]] == [204, 204]
        async with app.state.database.fresh() as session:
            assert set((await session.scalars(select(col(Blog.creator_id)))).all()) == {bob.id}
        listed = (await client.get("/blog/?limit=100", headers=bobs)).json()
        tagged = {tag["name"]: tag["blogs"] for tag in (await client.get("/tag/?limit=100", headers=bobs)).json()}
        assert tagged == dict(Counter(tag for blog in listed for tag in blog["tags"]))

    @on("sqlite")
    async def test_only_admins_reassign(self, client: httpx.AsyncClient, factory: Factory) -> None:
        bob = await factory.user("Bob")
        user, login = await factory.logged_in()
        query = f"?blogs=reassign&to={bob.id}"
        assert code(await delete(client, user, login, query, current_password=PASSWORD)) == (403, "admin_required")

    async def test_reassigned(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, bob = await factory.user(), await factory.user("Bob")
        blog = await factory.blog(user)
        login = factory.login(await factory.admin())
        response = await delete(client, user, login, "?blogs=reassign&to=2147483647")
        assert code(response) == (404, "user_not_found")
        response = await delete(client, bob, login, "?blogs=reassign&to=2147483647")
        assert code(response) == (404, "user_not_found"), "he has none, and still the other is not there"
        assert code(await delete(client, user, login, f"?blogs=reassign&to={user.id}")) == (409, "user_has_blogs")
        assert (await delete(client, user, login, f"?blogs=reassign&to={bob.id}")).status_code == 204
        assert (await client.get(f"/blog/{blog.id}", headers=login)).json()["creator"]["id"] == bob.id

    async def test_without_blogs(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user, login = await factory.logged_in()
        statements.clear()
        assert (await delete(client, user, login, current_password=PASSWORD)).status_code == 204
        # Who asks, the hold, the user; the images, logins, tokens, links and kept answers, of which one login is
        # there; and that pages may have named somebody who is gone.
        assert len([statement for statement in statements if "login_failure" not in statement]) == 10
        assert code(await client.get("/user/me", headers=login)) == (401, "invalid_token")


async def test_updated_user_is_deleted_meanwhile(client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
    user = await factory.user()
    async with app.state.database.write.begin() as session:
        await UserRepository(session).remove(user.id)
    with pytest.raises(UserNotFound):
        async with app.state.database.write.begin() as session:
            session.add(user)
            await UserRepository(session).update(user, {"name": "Gone"})


async def test_a_replica_reads_pages_but_not_logins(settings: Settings, tmp_path: Any, engine_name: str) -> None:
    if engine_name == "sqlite":
        with pytest.raises(ValueError, match="no replicas"):
            make_settings(database_read_url="sqlite:///other.db")
        return
    replica = make_settings(
        settings.url, database_read_url=settings.url.set(database="blog_that_is_not_there").render_as_string(False)
    )
    app = create_app(replica)
    async with app.router.lifespan_context(app), client_of(app) as client:
        factory = Factory(app)
        user, login = await factory.logged_in()
        assert (await client.get("/user/me", headers=login)).json()["id"] == user.id
        assert (await client.post("/login", data={"username": user.email, "password": PASSWORD})).status_code == 200
        assert code(await client.get("/blog/", headers=login)) == (503, "database_unavailable")
        await delete(client, user, login, current_password=PASSWORD)
