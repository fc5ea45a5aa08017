"""What becomes of a request when the database refuses, waits, says nothing or is not there."""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import alembic.command
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, insert, make_url, text
from sqlalchemy.exc import DBAPIError, InternalError, NotSupportedError, OperationalError, ProgrammingError

from blog.app import create_app
from blog.database import alembic_config, refusal_for
from blog.dependencies import Session
from blog.errors import Conflict, DatabaseUnavailable, Refusal, Unstorable
from blog.models import LoginFailure, now
from blog.settings import Settings
from tests.answers import code
from tests.conftest import client_of, make_settings
from tests.factories import Factory

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

    async def test_too_long(self, settings: Settings, app: FastAPI, engine_name: str) -> None:
        if engine_name == "sqlite":
            return  # it knows no lengths, so the schemas hold them
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

    async def test_for_a_statement(self, hurried: httpx.AsyncClient, engine_name: str) -> None:
        if engine_name == "sqlite":
            return  # nobody but us works on it, and a thread that works can't be told to stop
        sql = {"postgresql": "SELECT pg_sleep(30)", "mariadb": "SELECT SLEEP(30) FROM alembic_version"}[engine_name]
        assert code(await hurried.get("/run", params={"sql": sql})) == UNAVAILABLE
        assert (await hurried.get("/run?sql=SELECT 1")).status_code == 200


class TestSilence:
    async def test_of_a_server(self, hasty: None, engine_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes connections, as a frozen one does, and says nothing."""
        if engine_name == "sqlite":
            return
        monkeypatch.setattr("blog.dependencies.READY_TIMEOUT", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = make_url(f"{engine_name}://u:p@127.0.0.1:{silent.getsockname()[1]}/blog")
            async with running(make_settings(url)) as (_, client):
                asked = [client.get("/run?sql=SELECT 1"), client.post("/run?sql=SELECT 1"), client.get("/ready")]
                answers = await asyncio.gather(*asked, client.get("/health"))
        assert [code(answer) for answer in answers[:3]] == [UNAVAILABLE] * 3
        assert answers[3].status_code == 200


@pytest.mark.parametrize(
    ("kind", "state", "refusal"),
    [
        (DBAPIError, "25006", DatabaseUnavailable),  # a server that became a standby
        (DBAPIError, "40P01", DatabaseUnavailable),
        (DBAPIError, "57P03", DatabaseUnavailable),
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
