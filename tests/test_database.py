"""What each engine needs, seen from its connections."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.app import create_app
from blog.database import Database, OneTripCursor, make_engine
from blog.models import Blog, User, now
from blog.repository import login as repository_of_logins
from tests.conftest import make_settings, on
from tests.factories import Factory, blog_row


async def scalar(session: AsyncSession, sql: str) -> Any:
    return await session.scalar(text(sql))


def test_nothing_opens_before_the_first_request(tmp_path: Path) -> None:
    create_app(make_settings(make_url(f"sqlite:///{tmp_path}/blog.db")))
    assert list(tmp_path.iterdir()) == []


class TestSQLite:
    @pytest.fixture
    async def database(self, tmp_path: Path) -> AsyncIterator[Database]:
        database = Database(make_settings(make_url(f"sqlite:///{tmp_path}/blog.db")))
        async with database.write.begin() as session:
            await session.execute(text("CREATE TABLE thing (id INTEGER PRIMARY KEY)"))
        yield database
        await database.aclose()

    async def test_pragmas(self, database: Database) -> None:
        async with database.write.begin() as session:
            assert await scalar(session, "PRAGMA journal_mode") == "wal"
            assert await scalar(session, "PRAGMA synchronous") == 2
            assert await scalar(session, "PRAGMA foreign_keys") == 1
            assert await scalar(session, "PRAGMA busy_timeout") == 2_900
        async with database.read() as session:
            assert await scalar(session, "PRAGMA query_only") == 1
            with pytest.raises(OperationalError, match="readonly"):
                await session.execute(text("DELETE FROM thing"))

    async def test_a_long_read_goes_to_the_thread(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        patient: list[str] = []
        run = OneTripCursor._run_patiently

        def note(cursor: OneTripCursor, sql: str, parameters: Any) -> None:
            assert threading.current_thread() is cursor._connection._thread
            patient.append(sql)
            run(cursor, sql, parameters)

        monkeypatch.setattr(OneTripCursor, "_run_patiently", note)
        count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT count(*) FROM n"
        async with database.read() as session:
            for rows in (10, 100_000, 10):
                assert await scalar(session, count.format(rows)) == rows
        assert [sql for sql in patient if sql.startswith("WITH")] == [count.format(100_000)]

    async def test_migrations_wait_longer_and_check_no_references(self, tmp_path: Path) -> None:
        engine = make_engine(make_settings(make_url(f"sqlite:///{tmp_path}/blog.db")).url, pool_size=1, migrates=True)
        async with engine.connect() as connection:
            assert await connection.scalar(text("PRAGMA busy_timeout")) == 60_000
            assert await connection.scalar(text("PRAGMA foreign_keys")) == 0
        await engine.dispose()

    async def test_a_writer_takes_its_lock_first_and_keeps_no_reader_out(self, database: Database) -> None:
        async with database.write.begin() as session:
            await session.execute(text("SELECT 1"))  # a read, and yet it is the writer from here on
            other = sqlite3.connect(database.engines[0].url.database or "", timeout=0, isolation_level=None)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
            async with database.read() as reader:
                assert await scalar(reader, "SELECT count(*) FROM thing") == 0


class TestEveryEngine:
    async def test_savepoints(self, app: FastAPI, engine_name: str, factory: Factory) -> None:
        user = await factory.user()
        async with app.state.database.write() as session:
            async with session.begin_nested():
                session.add(blog_row(user.id))
            await session.rollback()
        async with app.state.database.fresh() as session:
            assert (await session.scalars(select(col(Blog.id)))).all() == []

    async def test_many_rows_at_once(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        async with app.state.database.write.begin() as session:
            for number in range(50):
                session.add(blog_row(user.id, f"{number}"))
        async with app.state.database.fresh() as session:
            assert len((await session.scalars(select(col(Blog.id)))).all()) == 50

    async def test_reading_begins_no_transaction(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        async with app.state.database.read() as session:
            assert await session.get(User, user.id) is not None
            before = await session.scalar(select(col(User.name)))
            async with app.state.database.write.begin() as writer:
                (await writer.get_one(User, user.id)).name = "Changed"
            # Each statement sees what was committed before it.
            assert (before, await session.scalar(select(col(User.name)))) == ("Ada", "Changed")

    async def test_references_are_checked(self, app: FastAPI) -> None:
        with pytest.raises(IntegrityError):
            async with app.state.database.write.begin() as session:
                session.add(blog_row(2**31 - 1))

    @on("postgresql", "mariadb")
    async def test_what_does_not_fit_is_refused_and_not_cut(self, app: FastAPI, factory: Factory) -> None:
        """SQLite has no lengths: the schemas alone hold them there."""
        user = await factory.user()
        with pytest.raises(DBAPIError):
            async with app.state.database.write.begin() as session:
                session.add(blog_row(user.id, "x" * 201, title_folded="x"))

    async def test_times_are_utc(self, app: FastAPI, factory: Factory) -> None:
        moment = datetime(2026, 11, 21, 10, 30, tzinfo=timezone(timedelta(hours=5)))
        blog = await factory.blog(await factory.user(), published_at=moment)
        async with app.state.database.fresh() as session:
            (found,) = (await session.scalars(select(Blog))).all()
            assert found.published_at == moment
            assert found.published_at.tzinfo == UTC
            assert found.created_at.microsecond == 0
            assert await session.scalar(select(col(Blog.id)).where(col(Blog.published_at) == moment)) == blog.id

    async def test_no_relationship_loads_behind_our_back(self, app: FastAPI, factory: Factory) -> None:
        blog = await factory.blog(await factory.user())
        async with app.state.database.fresh() as session:
            found = await session.get_one(Blog, blog.id)
            with pytest.raises(InvalidRequestError, match="raise"):
                _ = found.creator
            user = await session.get_one(User, blog.creator_id)
            with pytest.raises(InvalidRequestError, match="raise"):
                _ = user.blogs

    async def test_values_stay_out_of_messages(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        with pytest.raises(IntegrityError) as caught:
            async with app.state.database.write.begin() as session:
                session.add(User(**user.model_dump(exclude={"id", "public_id"})))
        assert user.password_hash not in str(caught.value)

    async def test_a_pool_that_is_used_up_is_a_wait_and_not_a_deadlock(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()

        async def rename(number: int) -> None:
            async with app.state.database.write.begin() as session:
                (await session.get_one(User, user.id)).about += f"{number} "

        async def read() -> None:
            async with app.state.database.read() as session:
                await session.get_one(User, user.id)

        await asyncio.gather(*(act for number in range(40) for act in (rename(number), read())))

    @on("mariadb")
    @pytest.mark.parametrize("name", ["END", "ROTATE", "REVOKE"])
    async def test_what_ends_a_login_comes_by_its_primary_key(self, app: FastAPI, factory: Factory, name: str) -> None:
        """Two that come by different indexes wait for each other on MariaDB; the other two lock no index."""
        user = await factory.user()
        await factory.personal_token(user)
        asked = {"login_id": factory.logins[user.id].id, "token_id": 1, "used": "", "next": "", "at": now()}
        asked["until"] = now()
        async with app.state.database.fresh() as session:
            connection = await session.connection()
            compiled = getattr(repository_of_logins, name).compile(dialect=connection.dialect)
            values = tuple(asked[key] for key in compiled.positiontup or ())
            (row,) = (await connection.exec_driver_sql(f"EXPLAIN {compiled}", values)).mappings()
        assert row["key"] == "PRIMARY", dict(row)
