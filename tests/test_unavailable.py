"""What becomes of a request when the database refuses, waits, says nothing or is not there."""

import asyncio
import re
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import alembic.command
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, event, func, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, InternalError, NotSupportedError, OperationalError, ProgrammingError

from blog.app import create_app
from blog.database import alembic_config, refusal_for
from blog.dependencies import Session
from blog.errors import Conflict, DatabaseUnavailable, Refusal, Unstorable
from blog.links import LinkMailer
from blog.models import LoginFailure, Media, OneTimeLink, PersonalToken, Purpose, Role, now
from blog.repository.link import LinkRepository
from blog.security.access import ALL
from blog.security.opaque import LINK, PERSONAL, make, make_refresh_token
from blog.settings import Settings
from tests.answers import code
from tests.conftest import HANG, client_of, make_settings, on
from tests.factories import PASSWORD, Factory, bearer
from tests.images import image_of

UNAVAILABLE = (503, "database_unavailable")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that are made from now on wait for less long."""
    for name, seconds in {"POOL": 0.2, "CONNECT": 0.3, "STATEMENT": 0.3, "ANSWER": 0.5}.items():
        monkeypatch.setattr(f"blog.database.{name}_TIMEOUT", seconds)
    monkeypatch.setattr("blog.database.LOCK_TIMEOUT", 1)  # MariaDB takes whole seconds


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    app = create_app(settings)

    async def run(session: Session, sql: str) -> None:
        await session.execute(text(sql))

    app.add_api_route("/run", run, methods=["GET", "POST"])
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield app, client


@pytest.fixture
async def hurried(hasty: None, settings: Settings, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that waits for less long, over the same database as `app`."""
    async with running(settings) as (_, client):
        yield client


class TestRefused:
    """Errors that no schema foresaw."""

    @pytest.mark.parametrize(
        ("row", "refusal"),
        [
            ({"failures": 2**63}, (422, "unstorable")),
            ({"expires_at": datetime(2026, 1, 1)}, (422, "unstorable")),  # noqa: DTZ001  (without a zone)
            ({}, (409, "conflict")),
        ],
    )
    async def test_by_the_database_or_its_driver(
        self,
        settings: Settings,
        app: FastAPI,
        row: dict[str, Any],
        refusal: tuple[int, str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        given = {"key": "k", "failures": 1, "expires_at": now()}
        other = create_app(settings)

        async def add(session: Session) -> None:
            if not row:
                await session.execute(insert(LoginFailure), [given])
            await session.execute(insert(LoginFailure), [given | row])

        other.add_api_route("/add", add, methods=["POST"])
        async with other.router.lifespan_context(other), client_of(other) as client:
            response = await client.post("/add")
        assert code(response) == refusal
        assert str(2**63) not in response.text + caplog.text

    @on("postgresql", "mariadb")
    async def test_too_long(self, settings: Settings, app: FastAPI, engine_name: str) -> None:
        """SQLite knows no lengths, so the schemas hold them there."""
        async with running(settings) as (_, client):
            values = "VALUES ('" + "k" * 33 + "', 1, '2026-01-01')"
            sql = f'INSERT INTO login_failure ("key", failures, expires_at) {values}'
            sql = sql.replace('"', "`") if engine_name == "mariadb" else sql
            assert code(await client.post("/run", params={"sql": sql})) == (422, "unstorable")


class TestWaiting:
    async def test_for_a_lock(
        self, hurried: httpx.AsyncClient, app: FastAPI, factory: Factory, engine_name: str, database_url: URL
    ) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        path = f"/blog/{blog.id}"
        if engine_name == "sqlite":
            other = sqlite3.connect(str(database_url.database), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            response = await hurried.patch(path, json={"title": "Locked"}, headers=login)
            reading = await hurried.get(path, headers=login)
            other.execute("ROLLBACK")
            other.close()
        else:
            async with app.state.database.write.begin() as session:
                await session.execute(text("SELECT id FROM blog WHERE id = :id FOR UPDATE"), {"id": blog.id})
                response = await hurried.patch(path, json={"title": "Locked"}, headers=login)
                reading = await hurried.get(path, headers=login)
        assert code(response) == UNAVAILABLE
        assert int(response.headers["retry-after"]) > 0
        assert reading.json()["title"] == blog.title
        assert (await hurried.patch(path, json={"title": "Free"}, headers=login)).json()["title"] == "Free"

    async def test_for_a_connection(self, hasty: None, settings: Settings, app: FastAPI) -> None:
        async with running(settings.model_copy(update={"database_pool_size": 1})) as (small, client):
            async with small.state.database.write.begin() as session:
                await session.execute(text("SELECT 1"))
                assert code(await client.post("/run?sql=SELECT 1")) == UNAVAILABLE
                assert (await client.get("/health")).status_code == 200
            assert (await client.post("/run?sql=SELECT 1")).status_code == 200

    @on("postgresql", "mariadb")
    async def test_for_a_statement(self, hurried: httpx.AsyncClient, engine_name: str) -> None:
        """On SQLite nobody but us works, and a thread that works can't be told to stop."""
        sql = {"postgresql": "SELECT pg_sleep(30)", "mariadb": "SELECT SLEEP(30) FROM alembic_version"}[engine_name]
        assert code(await hurried.get("/run", params={"sql": sql})) == UNAVAILABLE
        assert (await hurried.get("/run?sql=SELECT 1")).status_code == 200


class TestSilence:
    @on("postgresql", "mariadb")
    async def test_of_a_server(self, hasty: None, engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes connections, as a frozen one does, and says nothing."""
        monkeypatch.setattr("blog.dependencies.READY_TIMEOUT", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = make_url(f"{engine_name}://u:p@127.0.0.1:{silent.getsockname()[1]}/blog")
            async with running(make_settings(url)) as (_, client):
                asked = [client.get("/run?sql=SELECT 1"), client.post("/run?sql=SELECT 1"), client.get("/ready")]
                answers = await asyncio.gather(*asked, client.get("/health"))
        assert [code(answer) for answer in answers[:3]] == [UNAVAILABLE] * 3
        assert answers[3].status_code == 200

    @on("postgresql", "mariadb")
    async def test_of_a_server_that_has_spoken(
        self, hasty: None, app: FastAPI, database_url: URL, engine_name: str
    ) -> None:
        """Its connections are there still, as they are of one that is cut off from the network."""
        async with relay_to(database_url) as (port, came, cut_off):
            url = database_url.set(host="127.0.0.1", port=port)
            async with running(make_settings(url)) as (_, client):
                for method in ("GET", "POST"):
                    assert (await client.request(method, "/run?sql=SELECT 1")).status_code == 200
                cut_off()
                before = len(came)
                try:
                    async with asyncio.timeout(HANG):
                        for method in ("GET", "POST"):
                            assert code(await client.request(method, "/run?sql=SELECT 1")) == UNAVAILABLE
                finally:  # or who waits in vain would do so for ever
                    for connection in came:
                        connection.close()
                if engine_name == "mariadb":
                    assert len(came) == before  # nobody waits for another connection after that


@asynccontextmanager
async def relay_to(url: URL) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter], Callable[[], None]]]:
    """A port by which a server is reached, who came, and what lets nothing through any more, without a word."""
    cut, came = asyncio.Event(), list[asyncio.StreamWriter]()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                if not cut.is_set():
                    writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        port = url.port or {"postgresql": 5432, "mariadb": 3306}[url.get_backend_name()]
        there_reader, there_writer = await asyncio.open_connection(url.host, port)
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], came, cut.set


BODIES: dict[str, Any] = {
    "POST /user/": {"name": "Bob", "email": "bob@example.com", "password": PASSWORD},
    "PUT /user/": [{"id": 1, "role": "reader"}],
    "PATCH /user/me": {"name": "Bob"},
    "PUT /user/me/password": {"current_password": PASSWORD, "new_password": PASSWORD},
    "POST /user/me/tokens": {"name": "Script", "scopes": ["blog:read"], "expires_at": "2190-01-01T00:00:00Z"},
    "PATCH /user/{user_id}": {"role": "reader"},
    "POST /blog/": {"title": "Notes", "body": "Text"},
    "PUT /blog/{blog_id}": {"title": "Notes", "body": "Text"},
    "PATCH /blog/{blog_id}": {"title": "Notes"},
    "POST /password-reset": {"email": "bob@example.com"},
    "POST /password-reset/confirm": {"token": make(LINK), "password": PASSWORD},
    "POST /email-verification": {"email": "bob@example.com"},
    "POST /email-verification/confirm": {"token": make(LINK)},
    "POST /invitation/": {},
}
FORMS: dict[str, list[dict[str, str]]] = {
    "POST /login": [
        {"username": "bob@example.com", "password": PASSWORD},
        {"grant_type": "refresh_token", "refresh_token": str(make_refresh_token())},
    ],
    "POST /revoke": [{"token": make(PERSONAL)}, {"token": str(make_refresh_token())}],
}
NEEDS_NO_DATABASE = {"GET /health", "GET /.well-known/oauth-authorization-server", "GET /media/{name}"}


class TestLost:
    """No server is there, or no file."""

    @pytest.fixture
    async def lost(self, engine_name: str, tmp_path: Path) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        url = f"sqlite:///{tmp_path}/missing/blog.db"
        url = url if engine_name == "sqlite" else f"{engine_name}://u:p@127.0.0.1:{port}/blog"
        async with running(make_settings(make_url(url))) as (app, client):
            yield app, client

    @pytest.mark.parametrize("kind", ["login", "personal token"])
    async def test_every_operation(self, lost: tuple[FastAPI, httpx.AsyncClient], kind: str) -> None:
        app, client = lost
        access = app.state.tokens.issue("0" * 32, "1" * 32, ALL, seconds=900)
        login = bearer(access if kind == "login" else make(PERSONAL))
        asked = 0
        for path, operations in create_app(make_settings()).openapi()["paths"].items():
            for method in map(str.upper, operations):
                operation, url = f"{method} {path}", re.sub(r"{\w+}", "1", path)
                if operation in NEEDS_NO_DATABASE:
                    continue
                for form in FORMS.get(operation, [{}]):
                    body = {"data": form} if form else {"json": BODIES[operation]} if operation in BODIES else {}
                    response = await client.request(method, url, headers=login, **body)
                    assert code(response) == UNAVAILABLE, operation
                    assert int(response.headers["retry-after"]) > 0
                    asked += 1
        assert asked == 53

    async def test_what_needs_none(self, lost: tuple[FastAPI, httpx.AsyncClient]) -> None:
        _, client = lost
        for path in ("/health", "/.well-known/oauth-authorization-server", "/link"):
            assert (await client.get(path)).status_code == 200, path
        assert code(await client.get(f"/media/{'0' * 32}.png")) == (404, "media_not_found")

    async def test_revocation_of_an_access_token(self, lost: tuple[FastAPI, httpx.AsyncClient]) -> None:
        """RFC 7009, section 2.2.1: the client must take it that the token still exists."""
        app, client = lost
        access = app.state.tokens.issue("0" * 32, "1" * 32, ALL, seconds=900)
        assert code(await client.post("/revoke", data={"token": access})) == UNAVAILABLE


@asynccontextmanager
async def no_writes(app: FastAPI, *, at: str = "begin") -> AsyncIterator[None]:
    """Every transaction that would write finds at its begin, or at its commit, that the database is lost."""
    writer = app.state.database.engines[0].sync_engine

    def fail(*_: object) -> None:
        raise OperationalError(at, {}, Exception("server closed the connection"))

    event.listen(writer, at, fail)
    try:
        yield
    finally:
        event.remove(writer, at, fail)


class TestLostHalfway:
    """What was refused can be asked for again: what is good once is good still."""

    @pytest.mark.parametrize("at", ["begin", "commit"])
    @pytest.mark.parametrize(
        "act",
        [
            "refresh",
            "revoke",
            "log out",
            "end a login",
            "make a token",
            "delete a token",
            "reset",
            "verify",
            "register",
            "invite",
            "upload",
            "delete an image",
        ],
    )
    async def test_once_more(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, act: str, at: str
    ) -> None:
        user, login = await factory.logged_in()
        admin = await factory.admin()
        refresh_token, personal_token = await factory.refresh_token(user), await factory.personal_token(user)
        links = {}
        async with app.state.database.write.begin() as session:
            for purpose in Purpose:
                owner, role = (admin, Role.AUTHOR) if purpose is Purpose.INVITATION else (user, None)
                _, links[purpose] = await LinkRepository(session).add(
                    owner.id, purpose, timedelta(hours=1), email="bob@example.com", role=role
                )
        (token,) = (await client.get("/user/me/tokens", headers=login)).json()
        uploading: dict[str, Any] = {"files": {"file": image_of("png")}}
        image = (await client.post("/media/", headers=login, **uploading)).json()["url"]
        refreshing = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        resetting = {"token": links[Purpose.PASSWORD_RESET], "password": PASSWORD}
        registering = BODIES["POST /user/"] | {"invitation": links[Purpose.INVITATION]}
        request: dict[str, Any]
        path, status, request = {
            "refresh": ("/login", 200, {"data": refreshing}),
            "revoke": ("/revoke", 200, {"data": {"token": personal_token}}),
            "log out": ("/logout", 204, {}),
            "end a login": (f"/user/me/sessions/{factory.logins[user.id].id}", 204, {}),
            "make a token": ("/user/me/tokens", 201, {"json": BODIES["POST /user/me/tokens"]}),
            "delete a token": (f"/user/me/tokens/{token['id']}", 204, {}),
            "reset": ("/password-reset/confirm", 204, {"json": resetting}),
            "verify": ("/email-verification/confirm", 204, {"json": {"token": links[Purpose.EMAIL_VERIFICATION]}}),
            "register": ("/user/", 201, {"json": registering}),
            "invite": ("/invitation/", 201, {"json": {}}),
            "upload": ("/media/", 201, uploading),
            "delete an image": (image, 204, {}),
        }[act]
        method = "DELETE" if act in ("end a login", "delete a token", "delete an image") else "POST"
        headers = factory.login(admin) if act == "invite" else login
        async with no_writes(app, at=at):
            assert code(await client.request(method, path, headers=headers, **request)) == UNAVAILABLE
        # Neither more nor less is there than before.
        assert len((await client.get("/user/me/tokens", headers=login)).json()) == 1
        assert len((await client.get("/user/me/sessions", headers=login)).json()) == 2
        assert len((await client.get("/invitation/", headers=factory.login(admin))).json()) == 1
        assert (await client.get(image)).status_code == 200
        async with app.state.database.fresh() as session:
            assert await session.scalar(select(func.count()).select_from(Media)) == 1
        assert (await client.request(method, path, headers=headers, **request)).status_code == status


class TestBehindAnAnswer:
    """What is done once the answer is out fails for itself: it is logged, and nobody is the worse for it."""

    async def test_the_use_of_a_personal_token(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, caplog: pytest.LogCaptureFixture
    ) -> None:
        user = await factory.user()
        token = await factory.personal_token(user)
        login = bearer(token)
        async with no_writes(app):
            assert (await client.get("/user/me", headers=login)).json()["id"] == user.id
        (record,) = [record for record in caplog.records if record.name == "blog.dependencies"]
        assert record.getMessage() == "the use of a personal token was not noted: OperationalError"
        assert record.exc_info is None
        assert token not in caplog.text
        (seen,) = (await client.get("/user/me/tokens", headers=login)).json()
        assert seen["last_used_at"] is None
        (seen,) = (await client.get("/user/me/tokens", headers=login)).json()
        assert seen["last_used_at"] is not None  # of the use just now

    async def test_the_use_of_a_personal_token_whose_row_is_locked(
        self, hurried: httpx.AsyncClient, app: FastAPI, factory: Factory, caplog: pytest.LogCaptureFixture
    ) -> None:
        user = await factory.user()
        login = bearer(await factory.personal_token(user))
        async with app.state.database.write.begin() as session:
            await session.execute(update(PersonalToken).values(name="Locked"))
            assert (await hurried.get("/user/me", headers=login)).json()["id"] == user.id
        assert "the use of a personal token was not noted" in caplog.text
        assert (await hurried.get("/user/me/tokens", headers=login)).status_code == 200

    @pytest.mark.parametrize("path", ["/password-reset", "/email-verification"])
    async def test_a_link(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, caplog: pytest.LogCaptureFixture, path: str
    ) -> None:
        caplog.set_level("INFO")
        user = await factory.user()
        unknown = await client.post(path, json={"email": "nobody@example.com"})
        async with no_writes(app):
            response = await client.post(path, json={"email": user.email})
        assert (response.status_code, response.content) == (unknown.status_code, unknown.content) == (202, b"")
        assert response.headers.keys() == unknown.headers.keys()
        assert "no link was made: OperationalError" in caplog.text
        assert user.email not in caplog.text
        caplog.clear()
        # Nothing is kept of it: whoever asks again need not wait.
        assert (await client.post(path, json={"email": user.email})).status_code == 202
        assert [record.name for record in caplog.records].count("blog.mail") == 1

    async def test_a_link_for_who_registers(
        self, app: FastAPI, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The user is there, and asks for a link when it does not come."""
        async with running(settings.model_copy(update={"email_verification": True})) as (strict, client):
            links: LinkMailer = strict.state.link_mailer
            send = links.send_email_verification

            async def send_later(*arguments: Any) -> None:
                async with no_writes(strict):
                    await send(*arguments)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(links, "send_email_verification", send_later)
                assert (await client.post("/user/", json=BODIES["POST /user/"])).status_code == 201
            assert "no link was made: OperationalError" in caplog.text
            form = {"username": "bob@example.com", "password": PASSWORD}
            assert code(await client.post("/login", data=form)) == (401, "email_not_verified")
            assert (await client.post("/email-verification", json={"email": "bob@example.com"})).status_code == 202
        async with app.state.database.fresh() as session:
            assert await session.scalar(select(func.count()).select_from(OneTimeLink)) == 1


@pytest.mark.parametrize(
    ("kind", "state", "refusal"),
    [
        (DBAPIError, "25006", DatabaseUnavailable),  # a server that became a standby
        (DBAPIError, "08006", DatabaseUnavailable),
        (DBAPIError, "25P03", DatabaseUnavailable),  # a transaction in which nothing happened for too long
        (DBAPIError, "28P01", DatabaseUnavailable),
        (DBAPIError, "3D000", DatabaseUnavailable),
        (DBAPIError, "40P01", DatabaseUnavailable),
        (DBAPIError, "53300", DatabaseUnavailable),  # as many connections as the server takes
        (DBAPIError, "55P03", DatabaseUnavailable),
        (DBAPIError, "57P03", DatabaseUnavailable),
        (DBAPIError, "58030", DatabaseUnavailable),
        (DBAPIError, "23505", Conflict),
        (DBAPIError, "22003", Unstorable),
        (DBAPIError, "42601", None),
        (InternalError, None, DatabaseUnavailable),
        (NotSupportedError, None, DatabaseUnavailable),  # a table was altered while it was served
        (OperationalError, None, DatabaseUnavailable),
        (ProgrammingError, None, None),
    ],
)
def test_refusal_for(kind: type[DBAPIError], state: str | None, refusal: type[Refusal] | None) -> None:
    cause = type("Cause", (Exception,), {"sqlstate": state})()
    assert refusal_for(kind("SELECT 1", {}, cause)) is refusal


class TestReady:
    async def test_at_head(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/ready")
        assert (response.status_code, response.json()) == (200, {"status": "ready"})

    async def test_of_another_schema(self, new_database: URL) -> None:
        settings = make_settings(new_database)
        config = alembic_config(settings)
        await asyncio.to_thread(alembic.command.upgrade, config, "head")
        await asyncio.to_thread(alembic.command.downgrade, config, "-1")
        async with running(settings) as (_, client):
            response = await client.get("/ready")
            assert code(response) == (503, "schema_outdated")
            assert "alembic upgrade head" in response.json()["detail"]
            assert response.headers["retry-after"]
            assert (await client.get("/health")).json() == {"status": "alive"}
            await asyncio.to_thread(alembic.command.upgrade, config, "head")
            assert (await client.get("/ready")).status_code == 200
