"""What each engine needs, seen from its connections."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from sqlalchemy import event, false, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.app import create_app
from blog.database import Database, OneTripCursor, make_engine
from blog.markdown import render
from blog.models import Blog, IdempotencyKey, PersonalToken, Purpose, Room, User, now
from blog.repository import beyond, delete_messages_of_blogs, idempotency, link, login
from blog.repository.blog import BlogRepository
from blog.repository.link import LinkRepository
from blog.repository.login import PersonalTokenRepository
from blog.repository.room import RoomRepository
from blog.repository.user import UserRepository
from blog.schemas.blog import BlogWrite
from blog.settings import Settings
from tests.conftest import make_settings, on, until_it_waits
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

    async def test_a_read_that_meets_a_lock_waits_in_the_thread(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As it does beside somebody who repairs the file, or copies it."""
        loop, patient = asyncio.get_running_loop(), asyncio.Event()
        run = OneTripCursor._run_patiently

        def note(cursor: OneTripCursor, sql: str, parameters: Any) -> None:
            loop.call_soon_threadsafe(patient.set)
            run(cursor, sql, parameters)

        with closing(sqlite3.connect(tmp_path / "blog.db", isolation_level=None)) as other:
            other.execute("CREATE TABLE thing (id INTEGER PRIMARY KEY)")
            database = Database(make_settings(make_url(f"sqlite:///{tmp_path}/blog.db")))
            async with aclosing(database), database.read() as session:
                assert await scalar(session, "SELECT count(*) FROM thing") == 0
                monkeypatch.setattr(OneTripCursor, "_run_patiently", note)
                other.execute("BEGIN EXCLUSIVE")
                other.execute("INSERT INTO thing VALUES (1)")
                reading = asyncio.create_task(scalar(session, "SELECT count(*) FROM thing"))
                waiting = asyncio.create_task(patient.wait())
                await asyncio.wait({waiting, reading}, return_when="FIRST_COMPLETED")
                other.execute("COMMIT")
                assert await reading == 1
                await waiting

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


class TestServers:
    """What each connection asks of its server, whatever that does by itself."""

    @on("postgresql")
    async def test_postgresql(self, settings: Settings) -> None:
        async with aclosing(Database(settings)) as database:
            for sessions in (database.write, database.read):
                async with sessions() as session:
                    assert await scalar(session, "SHOW statement_timeout") == "2500ms"
                    assert await scalar(session, "SHOW lock_timeout") == "2s"
                    assert await scalar(session, "SHOW transaction_isolation") == "read committed"

    @on("mariadb")
    async def test_mariadb(self, settings: Settings) -> None:
        async with aclosing(Database(settings)) as database:
            for sessions in (database.write, database.read):
                async with sessions() as session:
                    assert await scalar(session, "SELECT @@sql_mode") == "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
                    assert await scalar(session, "SELECT @@innodb_lock_wait_timeout") == 2
                    assert await scalar(session, "SELECT @@max_statement_time") == 2.5
                    assert await scalar(session, "SELECT @@character_set_connection") == "utf8mb4"
            async with database.write() as session:
                assert await scalar(session, "SELECT @@tx_isolation") == "READ-COMMITTED"

    @on("postgresql", "mariadb")
    async def test_a_migration_works_as_long_as_it_takes(self, settings: Settings, engine_name: str) -> None:
        limit = {"postgresql": "SHOW statement_timeout", "mariadb": "SELECT @@max_statement_time"}[engine_name]
        engine = make_engine(settings.url, pool_size=1, migrates=True)
        async with engine.connect() as connection:
            found = str(await connection.scalar(text(limit)))
        await engine.dispose()
        assert found.rstrip("0.") == ""

    @on("postgresql", "mariadb")
    async def test_a_connection_that_was_lost_meanwhile_is_not_given_to_anybody(
        self, settings: Settings, engine_name: str
    ) -> None:
        asked, kill = {
            "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
            "mariadb": ("SELECT connection_id()", "KILL {}"),
        }[engine_name]
        async with aclosing(Database(settings)) as database, aclosing(Database(settings)) as other:
            for sessions in (database.write, database.read):
                async with sessions() as session:
                    lost = await scalar(session, asked)
                async with other.read() as session:
                    await session.execute(text(kill.format(lost)))
                async with sessions() as session:
                    assert await scalar(session, asked) != lost


@on("postgresql", "mariadb")
class TestHeld:
    """What one transaction holds no other gets before it ends. SQLite has one writer."""

    @pytest.mark.parametrize(
        "what", ["room", "long room of a blog", "user who asks", "user", "several users", "personal token"]
    )
    async def test_nobody_else_gets_it(
        self, app: FastAPI, factory: Factory, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        monkeypatch.setattr("blog.repository.MESSAGES_AT_ONCE", 1)
        user = await factory.user()
        blog = await factory.blog(user)
        await factory.personal_token(user)
        async with app.state.database.write.begin() as session:
            room = await RoomRepository(session).add_of_blog(blog.id)
        for _ in range(2):
            await factory.message(room.id, user)
        async with app.state.database.fresh() as session:
            token = (await session.scalars(select(PersonalToken))).one()
        acts: dict[str, tuple[Callable[[AsyncSession], Awaitable[object]], Any]] = {
            "room": (lambda session: RoomRepository(session).hold(room.id), Room),
            "long room of a blog": (lambda session: delete_messages_of_blogs(session, [blog.id]), Room),
            "user who asks": (lambda session: UserRepository(session).hold(user), User),
            "user": (lambda session: UserRepository(session).lock(user.id), User),
            "several users": (lambda session: UserRepository(session).get_many([user.id]), User),
            "personal token": (lambda session: PersonalTokenRepository(session).lock(token.id), PersonalToken),
        }
        hold, held = acts[what]
        free = select(held.id).with_for_update(skip_locked=True)
        async with app.state.database.write.begin() as session:
            await hold(session)
            async with app.state.database.write.begin() as other:
                assert (await other.scalars(free)).all() == []
        async with app.state.database.write.begin() as other:
            assert len((await other.scalars(free)).all()) == 1

    async def test_whoever_writes_a_blog_is_not_deleted_meanwhile(
        self, app: FastAPI, factory: Factory, engine_name: str
    ) -> None:
        user = await factory.user()
        held = select(col(User.id)).with_for_update(skip_locked=True)
        # On MariaDB nobody changes what others share.
        changed = select(col(User.id)).with_for_update(skip_locked=True, key_share=engine_name == "postgresql")
        async with app.state.database.write.begin() as session:
            data = BlogWrite(title="Notes", body="Text")
            await BlogRepository(session).add(cast("Any", user), data, render("Text"))
            async with app.state.database.write.begin() as other:
                assert (await other.scalars(held)).all() == []
                assert len((await other.scalars(changed)).all()) == (engine_name == "postgresql")

    async def test_changes_of_blogs_are_numbered_in_the_order_of_their_commits(self, app: FastAPI) -> None:
        async def change() -> int:
            async with app.state.database.write.begin() as session:
                return await BlogRepository(session).take_turn()

        async with app.state.database.write.begin() as session:
            number = await BlogRepository(session).take_turn()
            next_one = asyncio.create_task(change())
            await until_it_waits(app.state.database, next_one)
        assert await next_one == number + 1

    async def test_rendering_again_waits_for_whoever_writes_blogs(self, app: FastAPI) -> None:
        """It writes many of them at once, and so would others, in another order."""

        async def render_again() -> None:
            async with app.state.database.write.begin() as session:
                await BlogRepository(session).render_again([])

        async with app.state.database.write.begin() as session:
            await BlogRepository(session).take_turn()
            rendering = asyncio.create_task(render_again())
            await until_it_waits(app.state.database, rendering)
        await rendering


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

    @on("postgresql")
    @pytest.mark.parametrize("descending", [False, True])
    async def test_a_page_that_goes_on_begins_where_it_does(self, app: FastAPI, *, descending: bool) -> None:
        """The index is entered there, not walked from its end, which costs few blocks unless there are very many."""
        key: Any = col(Blog.published_at)
        number: Any = col(Blog.id)
        order = (key.desc(), number.desc()) if descending else (key, number)
        place = beyond("postgresql", key, number, descending=descending)
        statement = select(number).where(col(Blog.is_draft) == false(), place).order_by(*order)
        async with app.state.database.fresh() as session:
            connection = await session.connection()
            literal = statement.params(last_key=now(), last_id=7).compile(
                dialect=connection.dialect, compile_kwargs={"literal_binds": True}
            )
            driver: Any = (await connection.get_raw_connection()).driver_connection
            async with driver.transaction():
                for way in ("seqscan", "bitmapscan", "sort"):  # which are right for the few rows that are there
                    await driver.execute(f"SET LOCAL enable_{way} = off")
                plan = [row[0] for row in await driver.fetch(f"EXPLAIN {literal}")]
        (condition,) = (line for line in plan if "Index Cond" in line)
        assert "ROW(published_at, id)" in condition, plan

    @on("mariadb")
    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param(getattr(module, name), id=f"{module.__name__.rpartition('.')[2]}.{name}")
            for module, names in {
                login: ("END", "END_ALL", "ROTATE", "REVOKE"),
                link: ("USE", "FORGET"),
                idempotency: ("TAKE", "FORGET"),
            }.items()
            for name in names
        ],
    )
    async def test_what_is_to_go_is_found_by_its_primary_key(
        self, app: FastAPI, factory: Factory, statement: Any
    ) -> None:
        """Two that come by different indexes wait for each other on MariaDB; the other two lock no index."""
        user = await factory.user()
        await factory.personal_token(user)
        login_id = factory.logins[user.id].id
        asked = {"login_id": login_id, "token_id": 1, "link_id": 1, "ids": [login_id, 1], "keys": ["x", "y"]}
        asked |= {"used": "", "next": "", "at": now(), "until": now()}
        async with app.state.database.write.begin() as session:
            await LinkRepository(session).add(user.id, Purpose.INVITATION, timedelta(days=1))
            session.add_all(IdempotencyKey(key=key, answer="", user_id=user.id, expires_at=now()) for key in "xyz")
        async with app.state.database.fresh() as session:
            connection = await session.connection()
            seen: list[tuple[str, Any]] = []

            def note(_conn: object, _cursor: object, sql: str, values: Any, *_: object) -> tuple[str, Any]:
                seen.append((sql, values))
                return "SELECT 1", ()

            event.listen(connection.sync_connection, "before_cursor_execute", note, retval=True)
            await connection.execute(statement, asked)
            event.remove(connection.sync_connection, "before_cursor_execute", note)
            ((sql, values),) = seen
            (row,) = (await connection.exec_driver_sql(f"EXPLAIN {sql}", values)).mappings()
        assert row["key"] == "PRIMARY", dict(row)
