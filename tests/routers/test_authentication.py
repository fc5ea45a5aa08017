"""`POST /login`, and what every route that wants a token does without a good one."""

import json
import warnings
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from passlib.hash import bcrypt
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import OperationalError

from blog.app import create_app
from blog.dependencies import Session
from blog.models import Role, User
from blog.repository.user import UserRepository
from blog.security.tokens import AccessTokens
from blog.settings import Settings
from tests.answers import code
from tests.conftest import SECRET, client_of, make_settings
from tests.factories import PASSWORD, Factory

with warnings.catch_warnings(record=True):  # Authlib would rather have httpx2, and insists on saying so
    from authlib.integrations.httpx_client import AsyncOAuth2Client

WRONG = "another password"


async def log_in(client: httpx.AsyncClient, username: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    return await client.post("/login", data={"username": username, "password": password} | more)


class TestLogIn:
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

    async def test_other_grant_type(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await log_in(client, user.email, grant_type="client_credentials")
        assert code(response) == (400, "unsupported_grant_type")
        assert response.json()["error"] == "unsupported_grant_type"

    async def test_json(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await client.post("/login", json={"username": user.email, "password": PASSWORD})
        assert code(response) == (415, "unsupported_media_type")
        assert response.json()["error"] == "invalid_request"

    async def test_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await client.post("/login", params={"username": user.email, "password": PASSWORD})
        assert code(response) == (400, "invalid_request")

    async def test_file_for_a_field(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/login", files={"username": b"x"}, data={"password": PASSWORD})
        assert code(response) == (400, "invalid_request")

    async def test_get(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/login")
        assert code(response) == (405, "method_not_allowed")
        assert response.headers["allow"] == "POST"

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
        user = await factory.user()
        await log_in(client, user.email, WRONG)
        await log_in(client, "nobody@example.com", WRONG)
        await log_in(client, "not an address", WRONG)
        assert rounds == ["v=2,t=2b,r=4"] * 3

    @pytest.mark.parametrize(
        "username",
        ["Ada <ada@example.com>", "\0", "a\0@example.com", "x" * 5_000, "a@b", "' OR 1=1", "%ff", "\ufffe"],
    )
    async def test_hostile_username(self, client: httpx.AsyncClient, username: str) -> None:
        assert code(await log_in(client, username)) == (401, "invalid_grant")

    @pytest.mark.parametrize("password", ["\0", f"{PASSWORD}\0", "x" * 5_000, "x" * 129, PASSWORD + " ", PASSWORD[:-1]])
    async def test_hostile_password(self, client: httpx.AsyncClient, factory: Factory, password: str) -> None:
        user = await factory.user()
        assert code(await log_in(client, user.email, password)) == (401, "invalid_grant")

    @pytest.mark.parametrize("content", [b"username=%ff%fe&password=%ff", b"username=\xff&password=\xff"])
    async def test_hostile_bytes(self, client: httpx.AsyncClient, content: bytes) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert code(await client.post("/login", content=content, headers=form)) == (401, "invalid_grant")

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
        assert token == {"access_token": token["access_token"], "token_type": "bearer", "expires_in": 900}
        me = await client.get("/user/me", headers={"Authorization": f"bearer {token['access_token']}"})
        assert me.json()["email"] == user.email

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user = await factory.user()
        statements.clear()
        await log_in(client, user.email)
        assert len(statements) == 5  # the user, and for the count of failures: look, count, look, take back

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

    async def test_a_stock_client(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        blog = await factory.blog(user)
        transport = httpx.ASGITransport(app)
        async with AsyncOAuth2Client(transport=transport, base_url="http://127.0.0.1:8000") as client:
            token = await client.fetch_token("/login", username=user.email, password=PASSWORD)
            assert token["expires_in"] == 900
            assert (await client.get(f"/blog/{blog.id}")).json()["title"] == blog.title


class TestBearer:
    """What every route that wants a token does with a bad one; each kind of forgery is in test_tokens.py."""

    async def test_every_route_but_the_public_ones(self, client: httpx.AsyncClient, app: FastAPI) -> None:
        public = {("post", "/login"), ("post", "/user/"), ("get", "/health"), ("get", "/ready")}
        asked = 0
        for path, operations in app.openapi()["paths"].items():
            for method in operations:
                if (method, path) not in public:
                    url = path.replace("{blog_id}", "1").replace("{user_id}", "1")
                    response = await client.request(method, url, json={})
                    assert code(response) == (401, "not_authenticated"), (method, path)
                    assert response.headers["www-authenticate"] == 'Bearer realm="blog"'
                    forged = await client.request(method, url, json={}, headers={"Authorization": "Bearer x.y.z"})
                    assert code(forged) == (401, "invalid_token"), (method, path)
                    assert forged.headers["www-authenticate"] == 'Bearer realm="blog", error="invalid_token"'
                    asked += 1
        assert asked == 14

    @pytest.mark.parametrize("value", ["", "Bearer", "Basic YWRhOmFkYQ==", "Token x"])
    async def test_other_authorization(self, client: httpx.AsyncClient, value: str) -> None:
        response = await client.get("/user/me", headers={"Authorization": value})
        assert response.status_code == 401

    async def test_two_authorization_headers(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        twice = [*login.items(), *login.items()]
        assert code(await client.get("/user/me", headers=twice)) == (401, "invalid_token")

    async def test_token_in_the_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        token = login["Authorization"].removeprefix("Bearer ")
        assert code(await client.get(f"/user/me?access_token={token}")) == (401, "not_authenticated")

    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    async def test_user_is_blocked(self, client: httpx.AsyncClient, factory: Factory, method: str) -> None:
        user, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        for is_active in (False, True):
            await client.patch(f"/user/{user.id}", json={"is_active": is_active}, headers=admin)
            # Unblocking brings no old login back.
            assert code(await client.request(method, "/user/me", headers=login)) == (401, "invalid_token")
        assert (await log_in(client, user.email)).status_code == 200

    async def test_user_is_inactive_and_the_login_is_not_ended(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        user, login = await factory.logged_in()
        async with app.state.database.write.begin() as session:
            (await session.get_one(User, user.id)).is_active = False
        assert code(await client.get("/user/me", headers=login)) == (401, "invalid_token")

    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    async def test_user_is_deleted_and_made_again(
        self, client: httpx.AsyncClient, factory: Factory, method: str
    ) -> None:
        user, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        await client.delete(f"/user/{user.id}", headers=admin)
        assert code(await client.request(method, "/user/me", headers=login)) == (401, "invalid_token")
        again = await factory.user(email=user.email)
        assert again.id > user.id
        assert code(await client.request(method, "/user/me", headers=login)) == (401, "invalid_token")

    async def test_token_of_another_deployment(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        settings = make_settings()
        for secret, issuer in (("z" * 32, str(settings.base_url)), (SECRET, "https://other.example/")):
            token = AccessTokens(secret, issuer, settings.access_token_lifetime).issue(
                user.public_id, user.login_generation
            )
            response = await client.get("/user/me", headers={"Authorization": f"Bearer {token}"})
            assert code(response) == (401, "invalid_token")
        same = AccessTokens(SECRET, str(settings.base_url), settings.access_token_lifetime)
        token = same.issue(user.public_id, user.login_generation)
        assert (await client.get("/user/me", headers={"Authorization": f"Bearer {token}"})).status_code == 200


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
    async def test_a_fault_of_ours_is_not_called_a_lost_database(self, settings: Settings, engine_name: str) -> None:
        # What each engine calls wrong; SQLite calls it all an operational error, and is not asked.
        faults = {
            "sqlite": [],
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

        def fail(_: object) -> None:
            raise OperationalError("COMMIT", {}, Exception("disk full"))

        writer = app.state.database.engines[0].sync_engine
        event.listen(writer, "commit", fail)
        try:
            response = await client.post("/blog/", json={"title": "Lost", "body": "?"}, headers=login)
        finally:
            event.remove(writer, "commit", fail)
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


async def test_no_answer_holds_a_hash(client: httpx.AsyncClient, factory: Factory) -> None:
    admin = await factory.user("Root", role=Role.ADMIN)
    user, login = await factory.logged_in()
    blog = await factory.blog(user)
    answers = [
        await client.get(url, headers=headers)
        for headers in (login, factory.login(admin))
        for url in ("/user/me", f"/user/{user.id}", "/user/", "/blog/", f"/blog/{blog.id}")
    ]
    for secret in ("$2b$", "$bcrypt", "password", user.public_id, user.login_generation):
        assert secret not in json.dumps([answer.json() for answer in answers])
