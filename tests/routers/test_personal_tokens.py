"""Personal tokens: made, used by scripts, deleted."""

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from blog.models import PersonalToken, Role, now
from blog.schemas.types import MAX_ID
from blog.security.access import Scope
from tests.answers import code
from tests.conftest import on
from tests.factories import PASSWORD, Factory, bearer

TOMORROW = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
BACKUP = {"name": "Backup", "scopes": ["blog:read", "user:read"], "expires_at": TOMORROW}


async def kept(app: FastAPI) -> PersonalToken:
    async with app.state.database.fresh() as session:
        return (await session.scalars(select(PersonalToken))).one()  # type: ignore[no-any-return]


async def change(app: FastAPI, **values: Any) -> None:
    async with app.state.database.write.begin() as session:
        await session.execute(update(PersonalToken).values(**values))


class TestCreate:
    @on("sqlite")
    @pytest.mark.parametrize(
        "change",
        [
            {"name": ""},
            {"name": "x" * 101},
            {"name": None},
            {"scopes": []},
            {"scopes": ["everything"]},
            {"scopes": "blog:read"},
            {"scopes": None},
            {"expires_at": None},
            {"expires_at": "2020-01-01T00:00:00Z"},
            {"expires_at": "2027-01-01T00:00:00"},
            {"expires_at": "2027-01-01"},
            {"expires_at": 1_900_000_000},
            {"expires_at": "1900000000"},
            {"expires_at": "2200-01-01T00:00:00Z"},
            {"expires_at": "0001-01-01T00:00:00+23:59"},
            {"expires_at": "9999-12-31T23:59:59-23:59"},
            {"user_id": 1},
            {"token": "x"},
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, change: dict[str, Any]) -> None:
        _, login = await factory.logged_in()
        assert code(await client.post("/user/me/tokens", json=BACKUP | change, headers=login)) == (422, "invalid")

    @on("sqlite")
    @pytest.mark.parametrize("field", list(BACKUP))
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory, field: str) -> None:
        _, login = await factory.logged_in()
        body = {name: value for name, value in BACKUP.items() if name != field}
        assert code(await client.post("/user/me/tokens", json=body, headers=login)) == (422, "invalid")

    @on("sqlite")
    @pytest.mark.parametrize(
        ("role", "scope", "refusal"),
        [(Role.READER, "blog:write", "author_required"), (Role.AUTHOR, "admin", "admin_required")],
    )
    async def test_more_than_the_role_allows(
        self, client: httpx.AsyncClient, factory: Factory, role: Role, scope: str, refusal: str
    ) -> None:
        _, login = await factory.logged_in(role=role)
        response = await client.post("/user/me/tokens", json=BACKUP | {"scopes": [scope]}, headers=login)
        assert code(response) == (403, refusal)

    @on("sqlite")
    async def test_more_than_the_token_that_asks(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), {Scope.USER_WRITE, Scope.BLOG_READ})
        response = await client.post("/user/me/tokens", json=BACKUP, headers=login)
        assert code(response) == (403, "insufficient_scope")
        response = await client.post("/user/me/tokens", json=BACKUP | {"scopes": ["blog:read"]}, headers=login)
        assert response.status_code == 201

    @on("sqlite")
    async def test_by_a_personal_token(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """It might outlive the one that made it."""
        token = await factory.personal_token(await factory.user())
        assert code(await client.post("/user/me/tokens", json=BACKUP, headers=bearer(token))) == (403, "login_required")

    async def test_created(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        response = await client.post("/user/me/tokens", json=BACKUP, headers=login)
        assert response.status_code == 201
        assert response.headers["cache-control"] == "no-store"
        made = response.json()
        token = made.pop("token")
        assert re.fullmatch(r"blog_pat_[\w-]{43}", token)
        assert set(made) == {"id", "name", "scopes", "created_at", "expires_at", "last_used_at"}
        assert (made["name"], made["scopes"]) == ("Backup", ["blog:read", "user:read"])
        assert (made["expires_at"], made["last_used_at"]) == (TOMORROW, None)
        # Shown once, and kept as a digest only.
        shown = await client.get(response.headers["location"], headers=login)
        listed = await client.get("/user/me/tokens", headers=login)
        assert shown.json() == made
        assert listed.json() == [made]
        assert token[9:] not in str((await kept(app)).model_dump())
        assert (await client.get("/user/me", headers=bearer(token))).json()["id"] == user.id

    @on("sqlite")
    async def test_its_user_is_told(
        self, client: httpx.AsyncClient, factory: Factory, caplog: pytest.LogCaptureFixture
    ) -> None:
        user, login = await factory.logged_in()
        with caplog.at_level(logging.INFO, "blog.mail"):
            made = (await client.post("/user/me/tokens", json=BACKUP, headers=login)).json()
        (mail,) = [record for record in caplog.records if record.name == "blog.mail"]
        assert mail.__dict__["fields"] == {"to": user.email, "link": None}
        assert "Backup" in mail.getMessage()
        assert made["token"] not in caplog.text

    async def test_a_time_of_any_zone(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        body = BACKUP | {"expires_at": "2100-01-01T01:30:00.987+05:30"}
        made = (await client.post("/user/me/tokens", json=body, headers=login)).json()
        assert made["expires_at"] == "2099-12-31T20:00:00Z"


class TestUse:
    async def test_one_statement(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        """As with a login; that it was used is noted once a minute, behind an answer."""
        user = await factory.user()
        blog = await factory.blog(user)
        token = bearer(await factory.personal_token(user))
        assert (await client.get(f"/blog/{blog.id}", headers=token)).status_code == 200
        for login in (token, factory.login(user)):
            for method, path, own in (
                ("GET", f"/blog/{blog.id}", 1),
                ("GET", "/user/me", 0),
                ("DELETE", f"/user/me/tokens/{MAX_ID}", 1),
            ):
                statements.clear()
                await client.request(method, path, headers=login)
                assert len(statements) == own + 1

    async def test_last_used(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        token = bearer(await factory.personal_token(user))
        before = now()
        await client.get("/user/me", headers=token)
        (listed,) = (await client.get("/user/me/tokens", headers=login)).json()
        assert f"{before:%Y-%m-%dT%H:%M:%SZ}" <= listed["last_used_at"]
        for age, noted in ((timedelta(seconds=50), False), (timedelta(seconds=70), True)):
            used_at = now() - age
            await change(app, last_used_at=used_at)
            await client.get("/user/me", headers=token)
            assert ((await kept(app)).last_used_at != used_at) is noted

    async def test_expired(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        token = bearer(await factory.personal_token(user))
        assert (await client.get("/user/me", headers=token)).status_code == 200
        await change(app, expires_at=now())
        assert code(await client.get("/user/me", headers=token)) == (401, "invalid_token")
        assert len((await client.get("/user/me/tokens", headers=login)).json()) == 1

    @on("sqlite")
    @pytest.mark.parametrize("tail", ["=", "x", " ", "!!", "\t"])
    async def test_another_spelling(self, client: httpx.AsyncClient, factory: Factory, tail: str) -> None:
        token = await factory.personal_token(await factory.user())
        headers = {"Authorization": f"Bearer {token}{tail}x"}
        assert code(await client.get("/user/me", headers=headers)) == (401, "invalid_token")

    @on("sqlite")
    async def test_no_more_than_the_role(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, admin = await factory.user(), factory.login(await factory.admin())
        token = bearer(await factory.personal_token(user, {Scope.BLOG_WRITE, Scope.ADMIN}))
        assert code(await client.get("/user/", headers=token)) == (403, "admin_required")
        await client.patch(f"/user/{user.id}", json={"role": "reader"}, headers=admin)
        response = await client.post("/blog/", json={"title": "T", "body": "B"}, headers=token)
        assert code(response) == (403, "author_required")


class TestDelete:
    async def test_not_yours(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await factory.personal_token(await factory.user())
        _, bobs = await factory.logged_in("Bob")
        token_id = (await kept(app)).id
        for method in ("GET", "DELETE"):
            response = await client.request(method, f"/user/me/tokens/{token_id}", headers=bobs)
            assert code(response) == (404, "token_not_found")
        assert (await client.get("/user/me", headers=bearer(token))).status_code == 200

    async def test_deleted(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        token = await factory.personal_token(user)
        path = f"/user/me/tokens/{(await kept(app)).id}"
        response = await client.delete(path, headers=login)
        assert (response.status_code, response.content) == (204, b"")
        assert code(await client.get("/user/me", headers=bearer(token))) == (401, "invalid_token")
        assert code(await client.delete(path, headers=login)) == (404, "token_not_found")
        assert (await client.get("/user/me/tokens", headers=login)).json() == []

    async def test_pages(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(5):
            await factory.personal_token(user)
        first = await client.get("/user/me/tokens?limit=3", headers=login)
        rest = await client.get(first.links["next"]["url"], headers=login)
        ids = [token["id"] for token in first.json() + rest.json()]
        assert len(set(ids)) == 5
        assert ids == sorted(ids, reverse=True)
        assert "next" not in rest.links


async def test_a_password_confirmed_by_a_personal_token_ends_it(client: httpx.AsyncClient, factory: Factory) -> None:
    token = bearer(await factory.personal_token(await factory.user()))
    change = {"current_password": PASSWORD, "new_password": "a new password"}
    assert (await client.put("/user/me/password", json=change, headers=token)).status_code == 204
    assert code(await client.get("/user/me", headers=token)) == (401, "invalid_token")
