"""What the benchmark measures on is what the platform would have written itself."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, select
from sqlmodel import SQLModel

from blog.app import create_app
from blog.database import alembic_config
from tests.benchmarks.databases import creators, email, fill_platform, published
from tests.conftest import client_of, made_database, make_settings
from tests.factories import PASSWORD_HASH, Factory

BLOGS = 25
TIMES = ("created_at", "updated_at", "changed_at", "public_changed_at")
RANDOM = "public_id"
LOGINS = "login_session"


@pytest.fixture
def filled(engine_name: str, new_database: URL) -> URL:
    fill_platform(engine_name, new_database, BLOGS, PASSWORD_HASH)
    return new_database


@pytest.fixture
def migrated(engine_name: str, tmp_path: Path) -> Iterator[URL]:
    with made_database(engine_name, tmp_path) as url:
        alembic.command.upgrade(alembic_config(make_settings(url)), "head")
        yield url


@asynccontextmanager
async def app_over(url: URL) -> AsyncIterator[FastAPI]:
    app = create_app(make_settings(url))
    async with app.router.lifespan_context(app):
        yield app


async def rows_of(app: FastAPI) -> dict[str, list[dict[str, Any]]]:
    """All rows by table; of a moment of writing no more than whether there was one."""
    rows: dict[str, list[dict[str, Any]]] = {}
    async with app.state.database.fresh() as session:
        for table in SQLModel.metadata.sorted_tables:
            columns = [column for column in table.c if column.name != RANDOM]
            found = await session.execute(select(*columns).order_by(*table.primary_key.columns))
            rows[table.name] = [
                {name: value is None if name in TIMES else value for name, value in row._asdict().items()}
                for row in found
            ]
    del rows[LOGINS]
    return rows


async def test_every_row_is_as_the_platform_writes_it_and_it_goes_on(filled: URL, migrated: URL) -> None:
    async with app_over(filled) as app:
        expected = await rows_of(app)
    async with app_over(migrated) as app:
        factory = Factory(app)
        users = [await factory.user(f"Author {n}", email=email(n)) for n in range(1, creators(BLOGS) + 1)]
        for number, blog in enumerate(expected["blog"], 1):
            published_at = datetime.fromtimestamp(published(number), UTC)
            creator = users[number % creators(BLOGS)]
            await factory.blog(creator, blog["title"], blog["body"], published_at=published_at)
        assert await rows_of(app) == expected
    assert len(expected["blog"]) == BLOGS
    # And the platform goes on with what is there.
    async with app_over(filled) as app, client_of(app) as client:
        _, login = await Factory(app).logged_in("Ada")
        answer = await client.post("/blog/", json={"title": "Rare", "body": "Text"}, headers=login)
        assert answer.json()["id"] == BLOGS + 1
        found = await client.get("/blog/?q=rare&fields=id", headers=login)
        assert [blog["id"] for blog in found.json()] == [BLOGS + 1, 1]
        followed = await client.get("/blog/changes?limit=100", headers=login)
        assert [change["id"] for change in followed.json()["changes"]] == list(range(1, BLOGS + 2))
