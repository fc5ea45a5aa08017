"""Logins: refreshed, listed, ended."""

import asyncio
import hashlib
import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import alembic.command
import httpx
import pytest
from fastapi import FastAPI
from jose import jwt
from sqlalchemy import select, update
from sqlmodel import col

from blog.database import alembic_config
from blog.models import LoginSession, Role, User, now
from tests.answers import code, count, walk
from tests.conftest import SECRET, client_of, made_database, make_settings, on, serving, with_settings
from tests.factories import PASSWORD, Factory, bearer

METADATA = "/.well-known/oauth-authorization-server"


async def log_in(client: httpx.AsyncClient, user: User, **more: str) -> dict[str, Any]:
    response = await client.post("/login", data={"username": user.email, "password": PASSWORD} | more)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def refresh(client: httpx.AsyncClient, token: str, **more: str) -> httpx.Response:
    return await client.post("/login", data={"grant_type": "refresh_token", "refresh_token": token} | more)


async def status(client: httpx.AsyncClient, token: str) -> int:
    return (await client.get("/user/me", headers=bearer(token))).status_code


async def change_login(app: FastAPI, **values: Any) -> None:
    """Of every login there is."""
    async with app.state.database.write.begin() as session:
        await session.execute(update(LoginSession).values(**values))


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "blog.security"]


class TestScopes:
    @on("sqlite")
    @pytest.mark.parametrize("scope", ["everything", "blog:read everything", "BLOG:READ", "blog:read,blog:write", "\0"])
    async def test_unknown(self, client: httpx.AsyncClient, factory: Factory, scope: str) -> None:
        user = await factory.user()
        form = {"username": user.email, "password": PASSWORD, "scope": scope}
        response = await client.post("/login", data=form)
        assert code(response) == (400, "invalid_scope")
        assert response.json()["error"] == "invalid_scope"
        assert response.headers["cache-control"] == "no-store"

    @on("sqlite")
    async def test_none_that_the_role_allows(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user(role=Role.READER)
        form = {"username": user.email, "password": PASSWORD, "scope": "admin blog:write"}
        assert code(await client.post("/login", data=form)) == (400, "invalid_scope")

    @on("sqlite")
    @pytest.mark.parametrize(
        ("role", "scope", "granted"),
        [
            (Role.READER, "", "blog:read room:read room:write user:read user:write"),
            (Role.AUTHOR, "", "blog:read blog:write room:read room:write user:read user:write"),
            (Role.ADMIN, "", "blog:read blog:write room:read room:write user:read user:write admin"),
            (Role.AUTHOR, "user:read blog:read", "blog:read user:read"),
            (Role.AUTHOR, "  blog:read   admin blog:read ", "blog:read"),
        ],
    )
    async def test_granted(
        self, client: httpx.AsyncClient, factory: Factory, role: Role, scope: str, granted: str
    ) -> None:
        token = await log_in(client, await factory.user(role=role), scope=scope)
        assert token["scope"] == granted
        assert jwt.get_unverified_claims(token["access_token"])["scope"] == granted

    async def test_the_role_is_that_of_now(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """An access token loses what its user may not do any more; a login gains what its user may do from now on."""
        user, admin = await factory.user(), factory.login(await factory.admin())
        token = await log_in(client, user)
        blog = {"title": "Notes", "body": "Text"}
        await client.patch(f"/user/{user.id}", json={"role": "reader"}, headers=admin)
        response = await client.post("/blog/", json=blog, headers=bearer(token["access_token"]))
        assert code(response) == (403, "author_required")
        token = (await refresh(client, token["refresh_token"])).json()
        assert "blog:write" not in token["scope"]
        await client.patch(f"/user/{user.id}", json={"role": "author"}, headers=admin)
        response = await client.post("/blog/", json=blog, headers=bearer(token["access_token"]))
        assert code(response) == (403, "insufficient_scope")
        token = (await refresh(client, token["refresh_token"])).json()
        response = await client.post("/blog/", json=blog, headers=bearer(token["access_token"]))
        assert response.status_code == 201


class TestRefresh:
    @on("sqlite")
    @pytest.mark.parametrize("token", ["", " "])
    async def test_missing(self, client: httpx.AsyncClient, token: str) -> None:
        response = await refresh(client, token)
        assert response.status_code == 400
        assert response.json()["error"] == ("invalid_request" if not token else "invalid_grant")

    @on("sqlite")
    @pytest.mark.parametrize(
        "token",
        ["x", "blog_rt_", f"blog_rt_{'x' * 75}", f"blog_rt_{'é' * 75}", f"blog_rt_{'x' * 76}", "\0", "x" * 9_999],
    )
    async def test_unknown(self, client: httpx.AsyncClient, token: str) -> None:
        response = await refresh(client, token)
        assert code(response) == (400, "invalid_refresh_token")
        assert response.json()["error"] == "invalid_grant"
        assert response.headers["cache-control"] == "no-store"

    @on("sqlite")
    async def test_an_access_token_refreshes_nothing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        assert code(await refresh(client, token["access_token"])) == (400, "invalid_refresh_token")
        assert await status(client, token["refresh_token"]) == 401

    async def test_more_than_was_granted(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user(), scope="blog:read")
        response = await refresh(client, token["refresh_token"], scope="blog:read blog:write")
        assert code(response) == (400, "invalid_scope")
        # That was no use of it.
        assert (await refresh(client, token["refresh_token"])).status_code == 200

    async def test_refreshed(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        first = await log_in(client, user)
        response = await refresh(client, first["refresh_token"])
        assert response.headers["cache-control"] == "no-store"
        second = response.json()
        assert set(second) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
        assert (second["token_type"], second["expires_in"], second["scope"]) == ("bearer", 900, first["scope"])
        assert second["refresh_token"] != first["refresh_token"]
        assert second["access_token"] != first["access_token"]
        for token in (first, second):
            assert await status(client, token["access_token"]) == 200

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        token = await log_in(client, await factory.user())
        statements.clear()
        assert (await refresh(client, token["refresh_token"])).status_code == 200
        assert len(statements) == 2

    @on("sqlite")
    async def test_narrower_for_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        first = await log_in(client, await factory.user())
        second = (await refresh(client, first["refresh_token"], scope="blog:read")).json()
        assert second["scope"] == "blog:read"
        assert await status(client, second["access_token"]) == 403
        third = (await refresh(client, second["refresh_token"])).json()
        assert third["scope"] == first["scope"]

    @pytest.mark.parametrize("generations", [1, 3])
    async def test_used_again(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        caplog: pytest.LogCaptureFixture,
        generations: int,
    ) -> None:
        """All of the login is over: what came of the token since, and the access tokens of each."""
        user = await factory.user()
        other = await log_in(client, user)
        family = [await log_in(client, user)]
        for _ in range(generations):
            family.append((await refresh(client, family[-1]["refresh_token"])).json())
        with caplog.at_level(logging.INFO, "blog.security"):
            response = await refresh(client, family[0]["refresh_token"])
        assert code(response) == (400, "invalid_refresh_token")
        assert "refresh_token_reused" in events(caplog)
        for token in family:
            assert await status(client, token["access_token"]) == 401
            assert code(await refresh(client, token["refresh_token"])) == (400, "invalid_refresh_token")
        assert await status(client, other["access_token"]) == 200
        assert (await refresh(client, other["refresh_token"])).status_code == 200

    async def test_ten_at_once_leave_one_living_branch_at_most(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        user = await factory.user()
        for _ in range(5):
            token = await log_in(client, user)
            answers = await asyncio.gather(*(refresh(client, token["refresh_token"]) for _ in range(10)))
            assert {answer.status_code for answer in answers} <= {200, 400}
            made = [answer.json() for answer in answers if answer.status_code == 200]
            assert len(made) <= 1
            # The rest were uses of a used one, whoever made them.
            living = [token for token in made if (await refresh(client, token["refresh_token"])).status_code == 200]
            assert living == []

    async def test_one_that_is_guessed_ends_nothing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        text = token["refresh_token"]
        guessed = "blog_rt_" + ("A" if text[8] != "A" else "B") + text[9:]
        assert code(await refresh(client, guessed)) == (400, "invalid_refresh_token")
        assert await status(client, token["access_token"]) == 200

    async def test_kept_as_digests_only(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        text = token["refresh_token"]
        assert re.fullmatch(r"blog_rt_[\w-]{75}", text)
        async with app.state.database.fresh() as session:
            (login,) = (
                await session.scalars(select(LoginSession).order_by(col(LoginSession.id).desc()).limit(1))
            ).all()
        kept = str(login.model_dump())
        assert text[8:40] not in kept
        assert text[40:] not in kept
        assert login.refresh_digest == hashlib.sha256(text[40:].encode()).hexdigest()


class TestLifetimes:
    async def test_idle(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        await change_login(app, expires_at=now())
        assert code(await refresh(client, token["refresh_token"])) == (400, "invalid_refresh_token")
        # Its access token is over with it.
        assert await status(client, token["access_token"]) == 401

    async def test_each_use_begins_the_idle_time_anew(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        token = await log_in(client, await factory.user())
        await change_login(app, expires_at=now() + timedelta(minutes=1))
        token = (await refresh(client, token["refresh_token"])).json()
        (login, *_) = (await client.get("/user/me/sessions", headers=bearer(token["access_token"]))).json()
        assert login["expires_at"] > (now() + timedelta(days=13)).isoformat()

    async def test_absolute(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        await change_login(app, created_at=now() - timedelta(days=90) + timedelta(seconds=100))
        token = (await refresh(client, token["refresh_token"])).json()
        assert 90 <= token["expires_in"] <= 100
        await change_login(app, created_at=now() - timedelta(days=90))
        token = (await refresh(client, token["refresh_token"])).json()
        assert await status(client, token["access_token"]) == 401
        assert code(await refresh(client, token["refresh_token"])) == (400, "invalid_refresh_token")

    @on("sqlite")
    async def test_they_are_settings(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        short = {"access_token_lifetime": 60, "refresh_token_lifetime": 600, "login_lifetime": 1200}
        durations = {name: timedelta(seconds=seconds) for name, seconds in short.items()}
        async with with_settings(app, **durations) as client:
            token = await log_in(client, user)
            assert token["expires_in"] == 60
            (login, *_) = (await client.get("/user/me/sessions", headers=bearer(token["access_token"]))).json()
            assert login["expires_at"] <= (now() + timedelta(seconds=600)).isoformat().replace("+00:00", "Z")

    async def test_the_oldest_of_too_many_goes(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blog.repository.login.MOST_LOGINS", 3)
        user, login = await factory.logged_in()
        tokens = [await log_in(client, user) for _ in range(3)]
        assert await count(app, LoginSession) == 3
        assert (await client.get("/user/me", headers=login)).status_code == 401
        for token in tokens:
            assert await status(client, token["access_token"]) == 200

    async def test_those_that_expired_go(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        for _ in range(3):
            await log_in(client, user)
        assert await count(app, LoginSession) == 4
        await change_login(app, expires_at=now())
        await log_in(client, user)
        assert await count(app, LoginSession) == 1


class TestSessions:
    async def test_list(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        await factory.logged_in("Bob")
        form = {"username": user.email, "password": PASSWORD, "scope": "user:read blog:read"}
        response = await client.post("/login", data=form, headers={"User-Agent": "x" * 500})
        login = bearer(response.json()["access_token"])
        sessions = (await client.get("/user/me/sessions", headers=login)).json()
        assert [session["current"] for session in sessions] == [True, False]
        newest = sessions[0]
        assert set(newest) == {
            "id",
            "user_agent",
            "address",
            "scope",
            "created_at",
            "last_used_at",
            "expires_at",
            "current",
        }
        assert (newest["user_agent"], newest["address"]) == ("x" * 200, "127.0.0.1")
        assert newest["scope"] == "blog:read user:read"
        assert sessions[1]["user_agent"] == "factory"

    async def test_one_that_expired_is_none(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        login = await factory.another_login(user)
        async with app.state.database.write.begin() as session:
            (await session.get_one(LoginSession, factory.logins[user.id].id)).expires_at = now()
        sessions = (await client.get("/user/me/sessions", headers=login)).json()
        assert [session["current"] for session in sessions] == [True]

    async def test_when_it_was_used_last(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        await change_login(app, last_used_at=now() - timedelta(days=1))
        before = f"{now():%Y-%m-%dT%H:%M:%SZ}"
        token = (await refresh(client, token["refresh_token"])).json()
        used, other = (await client.get("/user/me/sessions", headers=bearer(token["access_token"]))).json()
        assert used["last_used_at"] >= before > other["last_used_at"]

    async def test_pages(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(4):
            await factory.another_login(user)
        found = [row["id"] for row in await walk(client, "/user/me/sessions?limit=2", login, limit=2)]
        assert len(set(found)) == 5
        assert found == sorted(found, reverse=True)

    async def test_not_yours(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        bob, bobs = await factory.logged_in("Bob")
        for session_id in (factory.logins[bob.id].id, 2**31 - 1, 2**33):
            response = await client.delete(f"/user/me/sessions/{session_id}", headers=login)
            assert code(response) == (404, "session_not_found")
        assert (await client.get("/user/me", headers=bobs)).status_code == 200

    async def test_ended(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        token = await log_in(client, user)
        (newest, first) = (await client.get("/user/me/sessions", headers=login)).json()
        response = await client.delete(f"/user/me/sessions/{newest['id']}", headers=login)
        assert (response.status_code, response.content) == (204, b"")
        assert await status(client, token["access_token"]) == 401
        assert code(await refresh(client, token["refresh_token"])) == (400, "invalid_refresh_token")
        assert (await client.get("/user/me/sessions", headers=login)).json() == [first]
        again = await client.delete(f"/user/me/sessions/{newest['id']}", headers=login)
        assert code(again) == (404, "session_not_found")
        # One may end the login that asks, too.
        assert (await client.delete(f"/user/me/sessions/{first['id']}", headers=login)).status_code == 204
        assert (await client.get("/user/me", headers=login)).status_code == 401


class TestLogOut:
    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    async def test_over_at_once(self, client: httpx.AsyncClient, factory: Factory, method: str) -> None:
        user = await factory.user()
        mine, other = await log_in(client, user), await log_in(client, user)
        response = await client.post("/logout", headers=bearer(mine["access_token"]))
        assert (response.status_code, response.content) == (204, b"")
        refused = await client.request(method, "/user/me", json={}, headers=bearer(mine["access_token"]))
        assert code(refused) == (401, "invalid_token")
        assert code(await refresh(client, mine["refresh_token"])) == (400, "invalid_refresh_token")
        assert code(await client.post("/logout", headers=bearer(mine["access_token"]))) == (401, "invalid_token")
        assert await status(client, other["access_token"]) == 200

    @on("sqlite")
    async def test_whatever_the_scope(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user(), scope="room:read")
        assert (await client.post("/logout", headers=bearer(token["access_token"]))).status_code == 204

    async def test_personal_token(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        token, other = await factory.personal_token(user), await factory.personal_token(user)
        assert (await client.post("/logout", headers=bearer(token))).status_code == 204
        assert await status(client, token) == 401
        assert await status(client, other) == 200
        assert (await client.get("/user/me", headers=login)).status_code == 200


class TestRevoke:
    @on("sqlite")
    async def test_malformed(self, client: httpx.AsyncClient) -> None:
        for content in ({}, {"token": ""}):
            response = await client.post("/revoke", data=content)
            assert code(response) == (400, "invalid_request")
            assert response.json()["error"] == "invalid_request"
        assert code(await client.post("/revoke", json={"token": "x"})) == (415, "unsupported_media_type")

    @on("sqlite")
    @pytest.mark.parametrize("token", ["x", "\0", "é" * 500, "a.b.c", "blog_pat_x", f"blog_rt_{'x' * 75}", "x" * 9_999])
    async def test_unknown(self, client: httpx.AsyncClient, token: str) -> None:
        response = await client.post("/revoke", data={"token": token, "token_type_hint": "access_token"})
        assert (response.status_code, response.content) == (200, b"")

    @pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
    @pytest.mark.parametrize("hint", [{}, {"token_type_hint": "refresh_token"}, {"token_type_hint": "nonsense"}])
    async def test_login(self, client: httpx.AsyncClient, factory: Factory, kind: str, hint: dict[str, str]) -> None:
        user = await factory.user()
        first, other = await log_in(client, user), await log_in(client, user)
        token = (await refresh(client, first["refresh_token"])).json()
        for _ in range(2):  # the second finds nothing, and says the same
            response = await client.post("/revoke", data={"token": token[kind]} | hint)
            assert (response.status_code, response.content) == (200, b"")
        for gone in (first, token):
            assert await status(client, gone["access_token"]) == 401
            assert code(await refresh(client, gone["refresh_token"])) == (400, "invalid_refresh_token")
        assert await status(client, other["access_token"]) == 200

    async def test_a_used_refresh_token_too(self, client: httpx.AsyncClient, factory: Factory) -> None:
        first = await log_in(client, await factory.user())
        second = (await refresh(client, first["refresh_token"])).json()
        await client.post("/revoke", data={"token": first["refresh_token"]})
        assert await status(client, second["access_token"]) == 401

    async def test_personal_token(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await factory.personal_token(await factory.user())
        assert (await client.post("/revoke", data={"token": token})).status_code == 200
        assert await status(client, token) == 401

    @on("sqlite")
    async def test_forged(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        header, payload, signature = token["access_token"].split(".")
        forged = f"{header}.{payload}.{signature[::-1]}"
        assert (await client.post("/revoke", data={"token": forged})).status_code == 200
        assert await status(client, token["access_token"]) == 200


class TestEndedByOthers:
    """By a new password, a block, the end of the account; each ends refresh tokens and personal tokens too."""

    @pytest.mark.parametrize("by", ["password", "block", "delete"])
    async def test_over(self, client: httpx.AsyncClient, factory: Factory, by: str) -> None:
        user, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        token, personal = await log_in(client, user), await factory.personal_token(user)
        if by == "password":
            change = {"current_password": PASSWORD, "new_password": "a new password"}
            assert (await client.put("/user/me/password", json=change, headers=login)).status_code == 204
            assert (await client.get("/user/me", headers=login)).status_code == 200
        elif by == "block":
            for is_active in (False, True):
                await client.patch(f"/user/{user.id}", json={"is_active": is_active}, headers=admin)
        else:
            assert (await client.delete(f"/user/{user.id}", headers=admin)).status_code == 204
        assert await status(client, token["access_token"]) == 401
        assert await status(client, personal) == 401
        assert code(await refresh(client, token["refresh_token"])) == (400, "invalid_refresh_token")

    async def test_a_login_does_not_outlive_a_change_of_password_that_it_met(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody logs in with the old password while its owner changes it."""
        user, login = await factory.logged_in()
        attempt = app.state.attempts.attempt

        def meanwhile(*arguments: Any) -> Any:
            monkeypatch.setattr(app.state.attempts, "attempt", attempt)

            class Attempt:
                async def __aenter__(self) -> Any:
                    self.real = attempt(*arguments)
                    return await self.real.__aenter__()

                async def __aexit__(self, *error: Any) -> Any:
                    left = await self.real.__aexit__(*error)
                    change = {"current_password": PASSWORD, "new_password": "a new password"}
                    assert (await client.put("/user/me/password", json=change, headers=login)).status_code == 204
                    return left

            return Attempt()

        monkeypatch.setattr(app.state.attempts, "attempt", meanwhile)
        response = await client.post("/login", data={"username": user.email, "password": PASSWORD})
        assert code(response) == (401, "invalid_grant")
        assert len((await client.get("/user/me/sessions", headers=login)).json()) == 1


class TestAtOnce:
    """Whatever ends a login meets whatever else does; none waits for the other in vain."""

    async def test_every_way_out(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        for _ in range(8):
            token = await log_in(client, user)
            login = bearer(token["access_token"])
            session = (await client.get("/user/me/sessions?limit=1", headers=login)).json()[0]["id"]
            answers = await asyncio.gather(
                client.post("/logout", headers=login),
                client.delete(f"/user/me/sessions/{session}", headers=login),
                *(client.post("/revoke", data={"token": token[kind]}) for kind in ("access_token", "refresh_token")),
                *(refresh(client, token["refresh_token"]) for _ in range(3)),
                client.post("/login", data={"username": user.email, "password": PASSWORD}),
            )
            assert {answer.status_code for answer in answers} <= {200, 204, 400, 401, 404}
            assert answers[-1].status_code == 200
            assert await status(client, token["access_token"]) == 401

    async def test_a_block(self, client: httpx.AsyncClient, factory: Factory) -> None:
        admin = factory.login(await factory.admin())
        for _ in range(5):
            user = await factory.user()
            tokens = [await log_in(client, user) for _ in range(3)]
            answers = await asyncio.gather(
                *(refresh(client, token["refresh_token"]) for token in tokens),
                *(client.post("/logout", headers=bearer(token["access_token"])) for token in tokens),
                client.patch(f"/user/{user.id}", json={"is_active": False}, headers=admin),
            )
            assert {answer.status_code for answer in answers} <= {200, 204, 400, 401}
            for token in tokens:
                assert await status(client, token["access_token"]) == 401


@on("sqlite")
class TestKeys:
    async def test_a_secret_is_changed_and_nobody_is_logged_out(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        settings, new = app.state.settings, "a new secret key that is long enough"
        changed = {"secret_key": type(settings.secret_key)(new)}
        old = {"other_secret_keys": frozenset({settings.secret_key})}
        async with client_of(app) as before:
            token = await log_in(before, user)
            await factory.blog(user)
            await factory.blog(user)
            page = await before.get("/blog/?limit=1", headers=bearer(token["access_token"]))
        for changes, good in ((changed | old, True), (changed, False)):
            async with with_settings(app, **changes) as client:
                assert await status(client, token["access_token"]) == (200 if good else 401)
                renewed = await refresh(client, token["refresh_token"])
                token["refresh_token"] = renewed.json()["refresh_token"]
                fresh = bearer(renewed.json()["access_token"])
                assert (await client.get("/user/me", headers=fresh)).status_code == 200
                goes_on = await client.get(page.links["next"]["url"], headers=fresh)
                assert goes_on.status_code == (200 if good else 422)
        async with client_of(app) as client:  # which does not know the new one
            assert (await client.get("/user/me", headers=fresh)).status_code == 401


@on("sqlite")
class TestMetadata:
    async def test_as_rfc_8414_has_it(self, client: httpx.AsyncClient) -> None:
        response = await client.get(METADATA)
        assert response.status_code == 200
        metadata = response.json()
        assert metadata["issuer"] == "http://127.0.0.1:8000"
        assert metadata["token_endpoint"] == "http://127.0.0.1:8000/login"
        assert metadata["revocation_endpoint"] == "http://127.0.0.1:8000/revoke"
        assert metadata["scopes_supported"] == [
            "blog:read",
            "blog:write",
            "room:read",
            "room:write",
            "user:read",
            "user:write",
            "admin",
        ]
        assert metadata["grant_types_supported"] == ["password", "refresh_token"]
        assert metadata["response_types_supported"] == ["none"]

    async def test_the_issuer_is_that_of_the_tokens(self, client: httpx.AsyncClient, factory: Factory) -> None:
        token = await log_in(client, await factory.user())
        claims = jwt.get_unverified_claims(token["access_token"])
        assert claims["iss"] == claims["aud"] == (await client.get(METADATA)).json()["issuer"]


@pytest.mark.processes
@on("postgresql", "mariadb")
def test_two_processes_and_one_database(engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever logs out through one is refused by the other at once, whatever the token; SQLite has one process."""
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    with made_database(engine_name, tmp_path) as url:
        alembic.command.upgrade(alembic_config(make_settings(url)), "head")
        monkeypatch.setenv("BLOG_DATABASE_URL", url.render_as_string(hide_password=False))
        monkeypatch.setenv("BLOG_SECRET_KEY", SECRET)
        monkeypatch.setenv("BLOG_PASSWORD_ROUNDS", "4")
        monkeypatch.setenv("BLOG_BASE_URL", "https://blog.example.com")  # one issuer, as behind a balancer
        with serving(folders[0]) as one, serving(folders[1]) as other, httpx.Client() as client:
            user = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
            assert client.post(f"{one}/user/", json=user).status_code == 201
            for act in ("logout", "revoke", "refresh twice", "delete"):
                form = {"username": user["email"], "password": PASSWORD}
                token = client.post(f"{one}/login", data=form).json()
                login = bearer(token["access_token"])
                for _ in range(20):
                    assert client.get(f"{other}/user/me", headers=login).status_code == 200
                again = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
                if act == "logout":
                    assert client.post(f"{one}/logout", headers=login).status_code == 204
                elif act == "revoke":
                    assert client.post(f"{one}/revoke", data={"token": token["refresh_token"]}).status_code == 200
                elif act == "refresh twice":
                    assert client.post(f"{one}/login", data=again).status_code == 200
                    assert client.post(f"{other}/login", data=again).status_code == 400
                else:
                    (session, *_) = client.get(f"{one}/user/me/sessions", headers=login).json()
                    ended = client.delete(f"{one}/user/me/sessions/{session['id']}", headers=login)
                    assert ended.status_code == 204
                assert client.get(f"{other}/user/me", headers=login).status_code == 401
                assert client.get(f"{one}/user/me", headers=login).status_code == 401
                assert client.post(f"{other}/login", data=again).status_code == 400
