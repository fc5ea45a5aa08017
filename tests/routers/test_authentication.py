"""`POST /login`, and what every route that wants a token does without a good one."""

import json
import re
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from jose import jwt
from passlib.hash import bcrypt
from sqlalchemy import make_url, text

from blog.app import create_app
from blog.dependencies import Session
from blog.models import Role, User
from blog.repository.user import UserRepository
from blog.security.access import ALL
from blog.security.tokens import AccessTokens
from blog.settings import Settings
from tests.answers import code
from tests.conftest import SECRET, client_of, commits_fail, make_settings, on
from tests.factories import PASSWORD, Factory, bearer
from tests.test_app import UNPROTECTED

WRONG = "another password"


async def log_in(client: httpx.AsyncClient, username: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    return await client.post("/login", data={"username": username, "password": password} | more)


class TestLogIn:
    @on("sqlite")
    @pytest.mark.parametrize(
        "form",
        [
            {},
            {"username": "ada@example.com"},
            {"password": PASSWORD},
            {"username": "", "password": ""},
            {"grant_type": "password"},
        ],
    )
    async def test_missing_field(self, client: httpx.AsyncClient, form: dict[str, str]) -> None:
        response = await client.post("/login", data=form)
        assert code(response) == (400, "invalid_request")
        assert response.json()["error"] == "invalid_request"
        assert response.headers["cache-control"] == "no-store"

    @on("sqlite")
    async def test_other_grant_type(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await log_in(client, user.email, grant_type="client_credentials")
        assert code(response) == (400, "unsupported_grant_type")
        assert response.json()["error"] == "unsupported_grant_type"

    @on("sqlite")
    async def test_json(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await client.post("/login", json={"username": user.email, "password": PASSWORD})
        assert code(response) == (415, "unsupported_media_type")
        assert response.json()["error"] == "invalid_request"

    @on("sqlite")
    async def test_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await client.post("/login", params={"username": user.email, "password": PASSWORD})
        assert code(response) == (400, "invalid_request")

    @on("sqlite")
    async def test_file_for_a_field(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/login", files={"username": b"x"}, data={"password": PASSWORD})
        assert code(response) == (400, "invalid_request")

    @on("sqlite")
    async def test_get(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/login")
        assert code(response) == (405, "method_not_allowed")
        assert response.headers["allow"] == "POST"

    @on("sqlite")
    @pytest.mark.parametrize("accept", [None, "", "*/*", "application/json"])
    async def test_accept_without_html(self, client: httpx.AsyncClient, factory: Factory, accept: str | None) -> None:
        """Or without an Accept header at all: only a client that names HTML is answered with a page."""
        user = await factory.user()
        del client.headers["Accept"]
        if accept is not None:
            client.headers["Accept"] = accept
        response = await log_in(client, user.email)
        assert response.request.headers.get("Accept") == accept
        assert response.status_code == 200
        assert response.json()["token_type"] == "bearer"
        assert "set-cookie" not in response.headers
        assert code(await log_in(client, user.email, WRONG)) == (401, "invalid_grant")

    async def test_unknown_user_and_wrong_password_are_one_answer(
        self, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        user, blocked = await factory.user(), await factory.user("Bob", is_active=False)
        wrong = await log_in(client, user.email, WRONG)
        assert code(wrong) == (401, "invalid_grant")
        assert wrong.json()["error"] == "invalid_grant"
        assert wrong.json()["error_description"]
        assert wrong.headers["www-authenticate"].startswith("Bearer ")
        assert wrong.headers["cache-control"] == "no-store"
        for other in (
            await log_in(client, "nobody@example.com", PASSWORD),
            await log_in(client, blocked.email, PASSWORD),
            await log_in(client, blocked.email, WRONG),
        ):
            assert (other.status_code, other.content) == (wrong.status_code, wrong.content)
            assert other.headers.keys() == wrong.headers.keys()
            assert {name for name, value in other.headers.items() if value != wrong.headers[name]} <= {
                "ratelimit",
                "x-request-id",
            }

    async def test_unknown_user_and_wrong_password_cost_one_hash(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = app.state.passwords._context
        verify, rounds = context.verify_and_update, []

        def note(password: str, known: str) -> Any:
            rounds.append(known.split("$")[2])
            return verify(password, known)

        monkeypatch.setattr(context, "verify_and_update", note)
        user, blocked = await factory.user(), await factory.user("Bob", is_active=False)
        await log_in(client, user.email, WRONG)
        for password in (WRONG, PASSWORD):
            await log_in(client, blocked.email, password)
        await log_in(client, "nobody@example.com", WRONG)
        await log_in(client, "not an address", WRONG)
        assert rounds == ["v=2,t=2b,r=4"] * 5

    @pytest.mark.parametrize(
        "username",
        ["Ada <ada@example.com>", "\0", "a\0@example.com", "x" * 5_000, "a@b", "' OR 1=1", "%ff", "\ufffe"],
    )
    async def test_hostile_username(self, client: httpx.AsyncClient, username: str) -> None:
        assert code(await log_in(client, username)) == (401, "invalid_grant")

    @on("sqlite")
    @pytest.mark.parametrize("password", ["\0", f"{PASSWORD}\0", "x" * 5_000, "x" * 129, PASSWORD + " ", PASSWORD[:-1]])
    async def test_hostile_password(self, client: httpx.AsyncClient, factory: Factory, password: str) -> None:
        user = await factory.user()
        assert code(await log_in(client, user.email, password)) == (401, "invalid_grant")

    @pytest.mark.parametrize("content", [b"username=%ff%fe&password=%ff", b"username=\xff&password=\xff"])
    async def test_hostile_bytes(self, client: httpx.AsyncClient, content: bytes) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert code(await client.post("/login", content=content, headers=form)) == (401, "invalid_grant")

    @on("sqlite")
    @pytest.mark.parametrize("kind", ["bcrypt", "nonsense", ""])
    async def test_stored_hash_of_another_kind(self, client: httpx.AsyncClient, factory: Factory, kind: str) -> None:
        user = await factory.user(password_hash=f"{kind}$2b$04$short")
        assert code(await log_in(client, user.email)) == (401, "invalid_grant")

    @pytest.mark.parametrize("change", [str, str.upper, lambda email: f" {email} "])
    async def test_logged_in(self, client: httpx.AsyncClient, factory: Factory, change: Any) -> None:
        user = await factory.user(email="Ada.Lovelace@Example.com")
        response = await log_in(client, change(user.email), grant_type="password", scope="", client_id="x")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        token = response.json()
        assert token == {
            "access_token": token["access_token"],
            "token_type": "bearer",
            "expires_in": 900,
            "refresh_token": token["refresh_token"],
            "scope": "blog:read blog:write room:read room:write user:read user:write",
        }
        me = await client.get("/user/me", headers={"Authorization": f"bearer {token['access_token']}"})
        assert me.json()["email"] == user.email

    async def test_a_name_of_the_program_that_cannot_be_stored(
        self, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        """PostgreSQL has no NUL, and nobody should be kept out for what a program calls itself."""
        user = await factory.user()
        form = {"username": user.email, "password": PASSWORD}
        response = await client.post("/login", data=form, headers={"User-Agent": "a\0b"})
        assert response.status_code == 200
        bearer = {"Authorization": f"Bearer {response.json()['access_token']}"}
        (login, _) = (await client.get("/user/me/sessions", headers=bearer)).json()
        assert login["user_agent"] == "a\ufffdb"

    @on("sqlite")
    async def test_what_a_token_tells(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """The user by an id that stays and is nothing else, and nobody's name, address or row."""
        user = await factory.user("Ada Lovelace", email="countess@example.com")
        tokens = [(await log_in(client, user.email)).json()["access_token"] for _ in range(2)]
        change = {"current_password": PASSWORD, "new_password": "a new password"}
        await client.put("/user/me/password", json=change, headers=bearer(tokens[0]))
        tokens.append((await log_in(client, user.email, "a new password")).json()["access_token"])
        told = [jwt.get_unverified_claims(token) for token in tokens]
        assert {claims["sub"] for claims in told} == {user.public_id}
        assert UUID(user.public_id).version == 4
        assert len({claims["sid"] for claims in told}) == 3
        assert len({claims["jti"] for claims in told}) == 3
        for claims in told:
            assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti", "sid", "scope"}
            assert not {user.id, str(user.id), user.name, user.email} & set(claims.values())

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user = await factory.user()
        statements.clear()
        await log_in(client, user.email)
        # The user; for the count of failures: look, count, look, take back; for the login: hold the user, clear, add.
        assert len(statements) == 8

    async def test_an_old_hash_is_upgraded(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, statements: list[str]
    ) -> None:
        user = await factory.user(password_hash=bcrypt.using(rounds=4).hash(PASSWORD))
        assert code(await log_in(client, user.email, WRONG)) == (401, "invalid_grant")
        assert (await log_in(client, user.email)).status_code == 200
        async with app.state.database.fresh() as session:
            upgraded = await UserRepository(session).get(user.id)
        assert upgraded is not None
        assert upgraded.password_hash.startswith("$bcrypt-sha256$")
        statements.clear()
        assert (await log_in(client, user.email)).status_code == 200
        assert not [statement for statement in statements if statement.startswith("UPDATE user")]


class TestBearer:
    """What every route that wants a token does with a bad one; each kind of forgery is in test_tokens.py."""

    @on("sqlite")
    async def test_every_route_but_the_public_ones(self, client: httpx.AsyncClient, app: FastAPI) -> None:
        asked = 0
        for path, operations in app.openapi()["paths"].items():
            for method in operations:
                if f"{method} {path}" not in UNPROTECTED:
                    url = re.sub(r"\{\w+\}", "1", path)
                    response = await client.request(method, url, json={})
                    assert code(response) == (401, "not_authenticated"), (method, path)
                    assert response.headers["www-authenticate"] == 'Bearer realm="blog"'
                    forged = await client.request(method, url, json={}, headers={"Authorization": "Bearer x.y.z"})
                    assert code(forged) == (401, "invalid_token"), (method, path)
                    assert forged.headers["www-authenticate"] == 'Bearer realm="blog", error="invalid_token"'
                    asked += 1
        assert asked == 43

    @on("sqlite")
    @pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 5_000])
    async def test_before_a_body_that_nobody_can_read(self, client: httpx.AsyncClient, content: bytes) -> None:
        for headers, refused in (({}, "not_authenticated"), (bearer("x.y.z"), "invalid_token")):
            json_headers = headers | {"Content-Type": "application/json"}
            assert code(await client.post("/blog/", content=content, headers=json_headers)) == (401, refused)

    @on("sqlite")
    @pytest.mark.parametrize("value", ["", "Bearer", "Basic YWRhOmFkYQ==", "Token x"])
    async def test_other_authorization(self, client: httpx.AsyncClient, value: str) -> None:
        response = await client.get("/user/me", headers={"Authorization": value})
        assert response.status_code == 401

    @on("sqlite")
    async def test_two_authorization_headers(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        twice = [*login.items(), *login.items()]
        assert code(await client.get("/user/me", headers=twice)) == (401, "invalid_token")

    @on("sqlite")
    async def test_token_in_the_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        token = login["Authorization"].removeprefix("Bearer ")
        assert code(await client.get(f"/user/me?access_token={token}")) == (401, "not_authenticated")

    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    async def test_user_is_blocked(self, client: httpx.AsyncClient, factory: Factory, method: str) -> None:
        user, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        assert (await client.get("/user/me", headers=login)).status_code == 200
        for is_active in (False, True):
            await client.patch(f"/user/{user.id}", json={"is_active": is_active}, headers=admin)
            # Unblocking brings no old login back.
            assert code(await client.request(method, "/user/me", headers=login)) == (401, "invalid_token")
        assert (await log_in(client, user.email)).status_code == 200

    async def test_user_is_inactive_and_the_login_is_not_ended(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        user, login = await factory.logged_in()
        script, refresh_token = bearer(await factory.personal_token(user)), await factory.refresh_token(user)
        async with app.state.database.write.begin() as session:
            (await session.get_one(User, user.id)).is_active = False
        for headers in (login, script):
            assert code(await client.get("/user/me", headers=headers)) == (401, "invalid_token")
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        assert code(await client.post("/login", data=form)) == (400, "invalid_refresh_token")

    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    async def test_user_is_deleted_and_made_again(
        self, client: httpx.AsyncClient, factory: Factory, method: str
    ) -> None:
        admin = factory.login(await factory.admin())
        user, login = await factory.logged_in()  # the newest, whose id would be the next one's
        assert (await client.get("/user/me", headers=login)).status_code == 200
        await client.delete(f"/user/{user.id}", headers=admin)
        assert code(await client.request(method, "/user/me", headers=login)) == (401, "invalid_token")
        again = await factory.user(email=user.email)
        assert again.id > user.id
        assert code(await client.request(method, "/user/me", headers=login)) == (401, "invalid_token")

    async def test_of_one_user_in_the_login_of_another(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        ada, bob = await factory.user("Ada"), await factory.user("Bob")
        token = app.state.tokens.issue(ada.public_id, factory.logins[bob.id].public_id, ALL, seconds=900)
        assert code(await client.get("/user/me", headers=bearer(token))) == (401, "invalid_token")

    @on("sqlite")
    async def test_token_of_another_deployment(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        issuer, login = make_settings().issuer, factory.logins[user.id].public_id
        for secret, other_issuer in (("z" * 32, issuer), (SECRET, "https://other.example")):
            token = AccessTokens([secret], other_issuer).issue(user.public_id, login, ALL, seconds=900)
            response = await client.get("/user/me", headers={"Authorization": f"Bearer {token}"})
            assert code(response) == (401, "invalid_token")
        token = AccessTokens([SECRET], issuer).issue(user.public_id, login, ALL, seconds=900)
        assert (await client.get("/user/me", headers={"Authorization": f"Bearer {token}"})).status_code == 200


@on("sqlite")
class TestRefusalsOfTheFramework:
    async def test_unknown_path(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/nowhere")) == (404, "not_found")

    async def test_method_not_allowed(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/blog/1")
        assert code(response) == (405, "method_not_allowed")
        assert response.headers["allow"]

    async def test_no_redirect_to_the_host_of_the_request(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/blog", headers={"Host": "evil.example"})
        assert code(response) == (400, "unknown_host")
        assert "evil" not in response.text

    @pytest.mark.parametrize(
        ("content", "refusal"),
        [
            (b"{", (422, "invalid")),
            (b"", (422, "invalid")),
            (b"null", (422, "invalid")),
            (b'{"title": NaN, "body": 1e999}', (422, "invalid")),
            (b"[" * 5_000, (400, "bad_request")),
            (b'{"title": ' + b"9" * 5_000 + b"}", (400, "bad_request")),
            (b"\xff", (400, "bad_request")),
        ],
    )
    async def test_unreadable_body(
        self, client: httpx.AsyncClient, factory: Factory, content: bytes, refusal: tuple[int, str]
    ) -> None:
        _, login = await factory.logged_in()
        response = await client.post("/blog/", content=content, headers=login | {"content-type": "application/json"})
        assert code(response) == refusal

    async def test_what_was_sent_is_not_repeated(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/user/", json={"name": "Ada", "password": "S3cret!", "admin": "S3cret!"})
        assert code(response) == (422, "invalid")
        assert {tuple(fault["loc"]) for fault in response.json()["errors"]} == {
            ("body", "email"),
            ("body", "password"),
            ("body", "admin"),
        }
        assert "S3cret" not in response.text

    async def test_a_thousand_faults_are_a_short_answer(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/user/", json={f"{number}" + "x" * 500: 1 for number in range(1_000)})
        assert code(response) == (422, "invalid")
        assert len(response.json()["errors"]) == 20
        assert len(response.content) < 5_000


class TestDatabaseIsLost:
    @on("postgresql", "mariadb")  # SQLite calls it all an operational error
    async def test_a_fault_of_ours_is_not_called_a_lost_database(self, settings: Settings, engine_name: str) -> None:
        faults = {
            "postgresql": ["SELECT nonsense", "SELECT FROM WHERE"],
            "mariadb": ["SELECT nonsense FROM", "SELECT * FROM nowhere"],
        }
        app = create_app(settings)

        async def fail(session: Session, sql: str) -> None:
            await session.execute(text(sql))

        app.add_api_route("/fail", fail)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            for sql in faults[engine_name]:
                assert (await client.get("/fail", params={"sql": sql})).status_code == 500, sql

    async def test_a_commit_that_fails_is_not_acknowledged(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        user, login = await factory.logged_in()
        with commits_fail(app):
            response = await client.post("/blog/", json={"title": "Lost", "body": "?"}, headers=login)
        assert code(response) == (503, "database_unavailable")
        assert response.headers["retry-after"]
        assert (await client.get(f"/blog/?author={user.id}", headers=login)).json() == []

    async def test_no_server(self, engine_name: str, tmp_path: Any) -> None:
        urls = {
            "sqlite": f"sqlite:///{tmp_path}/missing/blog.db",
            "postgresql": "postgresql://nobody@127.0.0.1:9/blog",
            "mariadb": "mariadb://nobody@127.0.0.1:9/blog",
        }
        app = create_app(make_settings(make_url(urls[engine_name])))
        async with app.router.lifespan_context(app), client_of(app) as client:
            assert code(await log_in(client, "ada@example.com")) == (503, "database_unavailable")


@on("sqlite")
async def test_no_answer_holds_a_hash(client: httpx.AsyncClient, factory: Factory) -> None:
    admin = await factory.user("Root", role=Role.ADMIN)
    user, login = await factory.logged_in()
    blog = await factory.blog(user)
    answers = [
        await client.get(url, headers=headers)
        for headers in (login, factory.login(admin))
        for url in ("/user/me", f"/user/{user.id}", "/user/", "/blog/", f"/blog/{blog.id}")
    ]
    for secret in ("$2b$", "$bcrypt", "password", "digest", user.public_id, factory.logins[user.id].public_id):
        assert secret not in json.dumps([answer.json() for answer in answers])
