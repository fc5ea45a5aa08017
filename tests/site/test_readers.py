"""Counting readers: once a day each, and nobody is stored."""

from datetime import date
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from blog.database import Database
from blog.models import Reading, User
from blog.site.readers import ANY_POST, Readers
from tests.factories import Factory
from tests.site.browser import Browser

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
async def ada(factory: Factory) -> User:
    return await factory.user("Ada")


@pytest.fixture
def readers(app: FastAPI) -> Readers:
    return Readers(app.state.database)


def read(
    readers: Readers, creator: int, blog: int = 1, *, client: str = "192.0.2.7", user_agent: str = FIREFOX
) -> None:
    readers.count(blog, creator, client=client, user_agent=user_agent)


async def stored(app: FastAPI) -> dict[tuple[int, int], int]:
    database: Database = app.state.database
    async with database.fresh() as session:
        rows = await session.scalars(select(Reading))
        return {(row.creator_id, row.blog_id): row.readers for row in rows}


async def test_once_a_day_each(app: FastAPI, ada: User, readers: Readers) -> None:
    for blog in (1, 1, 2):
        read(readers, ada.id, blog)
    read(readers, ada.id, 1, client="192.0.2.8")
    await readers.store()
    assert await stored(app) == {(ada.id, 1): 2, (ada.id, 2): 1, (ada.id, ANY_POST): 2}
    read(readers, ada.id, 1)
    read(readers, ada.id, 1, client="192.0.2.9")
    await readers.store()
    assert await stored(app) == {(ada.id, 1): 3, (ada.id, 2): 1, (ada.id, ANY_POST): 3}


@pytest.mark.parametrize("user_agent", ["", "curl/8.5.0", "Googlebot/2.1", "python-httpx/0.28", "Feedly/1.0"])
async def test_no_programs(app: FastAPI, ada: User, readers: Readers, user_agent: str) -> None:
    read(readers, ada.id, user_agent=user_agent)
    await readers.store()
    assert await stored(app) == {}


async def test_another_day(ada: User, readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    read(readers, ada.id)
    salt, known = readers._salt, set(readers._known)
    monkeypatch.setattr(readers, "_day", date(2020, 1, 1))  # as if that had been yesterday's
    read(readers, ada.id)
    assert readers._salt != salt
    assert readers._known.isdisjoint(known)
    assert sum(count for (_, post, _), count in readers._read.items() if post == 1) == 2


async def test_a_creator_who_is_gone(app: FastAPI, ada: User, readers: Readers) -> None:
    read(readers, ada.id + 1)
    read(readers, ada.id)
    await readers.store()
    assert set(await stored(app)) == {(ada.id, 1), (ada.id, ANY_POST)}


async def test_two_workers_at_once(app: FastAPI, ada: User, readers: Readers) -> None:
    other = Readers(app.state.database)
    read(readers, ada.id)
    read(other, ada.id, client="192.0.2.8")
    await readers.store()
    await other.store()
    assert (await stored(app))[ada.id, ANY_POST] == 2


async def test_a_lost_database(
    app: FastAPI, ada: User, readers: Readers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read(readers, ada.id)

    class Lost:
        def begin(self) -> Any:
            raise OperationalError("", {}, Exception("lost"))

    with monkeypatch.context() as patch:
        patch.setattr(readers, "_database", type("Database", (), {"write": Lost()})())
        await readers.store()
    assert "readers are not stored just now" in caplog.text
    assert await stored(app) == {}
    await readers.store()
    assert (await stored(app))[ada.id, 1] == 1


async def test_as_pages_are_read(app: FastAPI, ada: User, factory: Factory, client: httpx.AsyncClient) -> None:
    post = await factory.blog(ada)
    for headers in ({"User-Agent": FIREFOX}, {"User-Agent": FIREFOX}, {"User-Agent": f"{FIREFOX} 2"}, {}):
        assert (await client.get("/posts/notes", headers=headers)).status_code == 200
    await app.state.readers.store()
    assert await stored(app) == {(ada.id, post.id): 2, (ada.id, ANY_POST): 2}
    browser = Browser(client)
    await browser.log_in(ada)
    assert "2 readers in 90 days, at most 2 on one." in (await browser.get("/desk/readers")).main
    async with app.state.database.fresh() as session:
        for table in SQLModel.metadata.sorted_tables:
            told = str((await session.execute(select(table))).all())
            assert "Firefox" not in told, table.name
