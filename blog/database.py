"""Engines and session makers, and what SQLite, PostgreSQL and MariaDB each need."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import aiosqlite
import anyio.to_thread
import asyncpg
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from blog.errors import Conflict, DatabaseUnavailable, Refusal, Unstorable
from blog.settings import Settings

ALEMBIC_INI = Path(__file__).parent.parent / "alembic.ini"

POOL_TIMEOUT = 1.9
"""Seconds that a request waits for a free connection, on SQLite for the one writer, before it is 503."""

CONNECT_TIMEOUT = 2
"""Seconds that a server may take to accept a connection."""

STATEMENT_TIMEOUT = 2.5
"""Seconds that a server works on a statement, which each is a walk along an index."""

LOCK_TIMEOUT = 2
"""Seconds that a statement waits for another's lock."""

ANSWER_TIMEOUT = 2.9
"""Seconds after which a server that says nothing, not even that its time is up, is given up.
Waiting for a connection and then for an answer is within the 5 seconds that a request may take to be refused."""

MIGRATION_LOCK_TIMEOUT = 60
"""Seconds that a migration waits for another process's migrations."""

LOST = ("08", "25006", "25P03", "28", "3D", "40", "53", "55", "57", "58")
"""SQLSTATEs and classes of them that say the database is not there for a statement: no connection, a
server that only reads by now, no access, no such database, given way to another, out of resources,
locked, shutting down, a fault of its disk."""

OUTWAITED = ("40001", "40P01", "55P03", 1205, 1213)
"""What PostgreSQL, by SQLSTATE, and MariaDB, by number, say to who waited for a lock too long or in a circle."""

AT_ONCE = 20_000
"""Steps of SQLite's machine, somewhat under a millisecond, that a read may take on the event loop.
A page of twenty blogs with their creators takes 1,500."""

SQLITE_READERS = 4
"""Connections that read a SQLite file; more only wait for the one interpreter lock."""


class Database:
    """Session makers over one database.

    - `read`: no transaction, may be a replica, on SQLite unable to write;
    - `fresh`: no transaction, sees whatever was committed before; `read` itself without a replica;
    - `write`: one transaction; on SQLite the one writer, which takes its lock first.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.url
        self.is_shared = not settings.embedded
        """Whether other processes may write to it: a SQLite file is one process's."""
        pool_size = SQLITE_READERS if settings.embedded else settings.database_pool_size
        writer = make_engine(settings.url, pool_size=1 if settings.embedded else pool_size)
        fresh = make_engine(settings.url, pool_size=pool_size, reads_only=True)
        reader = fresh
        if settings.read_url != settings.url:
            reader = make_engine(settings.read_url, pool_size=pool_size, reads_only=True)
        self.engines = (writer, fresh) if reader is fresh else (writer, fresh, reader)
        self.write = _session_maker(writer)
        self.fresh = _session_maker(fresh)
        self.read = self.fresh if reader is fresh else _session_maker(reader)

    async def is_at_head(self) -> bool:
        """Whether the database's schema is the one this code was written for."""
        async with self.fresh() as session:
            connection = await session.connection()
            heads = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_heads())
        return set(heads) == _heads_of_code()

    @property
    def notifies(self) -> bool:
        """Whether it tells who listens that something has happened."""
        return self._url.get_backend_name() == "postgresql"

    @asynccontextmanager
    async def listening(
        self, channel: str, hear: Callable[[str], None]
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """A connection by which `hear` gets what is notified on a channel of PostgreSQL.

        Gives what finds out whether the connection is alive. Raises OSError when it is not.
        """
        engine = make_engine(self._url, pool_size=1, reads_only=True)
        try:
            async with engine.connect() as connection:
                driver = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)

                async def ask() -> None:
                    try:
                        await driver.fetchval("SELECT 1")
                    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                        raise OSError("the connection that listens is lost") from error

                await driver.add_listener(channel, lambda *notified: hear(str(notified[-1])))
                await ask()
                yield ask
        finally:
            await engine.dispose()

    async def aclose(self) -> None:
        """Close every connection."""
        for engine in self.engines:
            await engine.dispose()


def _session_maker(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    # Answers are built from what is loaded, after the flush and before the commit and never by a late load.
    return async_sessionmaker(engine, expire_on_commit=False, autoflush=False)


def make_engine(url: URL, *, pool_size: int, reads_only: bool = False, migrates: bool = False) -> AsyncEngine:
    """An engine for `url`, with no connection opened yet.

    `reads_only` gives connections with no transactions. One that `migrates` waits for another's
    migrations, and on SQLite checks no foreign keys: dropping a table must not cascade.
    """
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_TIMEOUT,
        "hide_parameters": True,  # a failed statement's values would put e-mail addresses and hashes in the log
    }
    if reads_only:
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True, "pool_reset_on_return": None}
    match url.get_backend_name():
        case "sqlite":
            engine = create_async_engine(url, async_creator=lambda: _connect_to_sqlite(url), **options)
            _prepare_sqlite(engine, reads_only=reads_only, migrates=migrates)
        case "postgresql":
            connect_args = _postgresql_arguments(migrates=migrates)
            engine = create_async_engine(url, pool_pre_ping=True, connect_args=connect_args, **options)
        case _:
            # PostgreSQL's isolation, so that two writers meet alike on both.
            options.setdefault("isolation_level", "READ COMMITTED")
            connect_args = _mysql_arguments(migrates=migrates)
            engine = create_async_engine(url, pool_pre_ping=True, connect_args=connect_args, **options)
            event.listen(engine.sync_engine, "handle_error", _give_up)
    return engine


class ImpatientConnection(asyncpg.Connection):  # type: ignore[misc]
    """asyncpg's, which does not wait for the farewell of a server that said nothing before."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  (asyncpg's signature)
        """Close it; at once where SQLAlchemy gives a timeout, as it does when the connection is lost."""
        if timeout is None:
            await super().close()
        else:
            self.terminate()


def _postgresql_arguments(*, migrates: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {"timeout": CONNECT_TIMEOUT, "connection_class": ImpatientConnection}
    if not migrates:
        arguments["command_timeout"] = ANSWER_TIMEOUT
        arguments["server_settings"] = {
            "statement_timeout": f"{STATEMENT_TIMEOUT}s",
            "lock_timeout": f"{LOCK_TIMEOUT}s",
        }
    return arguments


def _mysql_arguments(*, migrates: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "charset": "utf8mb4"}
    # Too long a text is an error on the other two, never cut.
    settings = "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
    if not migrates:
        arguments["read_timeout"] = ANSWER_TIMEOUT
        settings += f", innodb_lock_wait_timeout = {LOCK_TIMEOUT}"
        # Only MariaDB has such a limit for every statement, and only MariaDB reads this comment.
        settings += f" /*M! , max_statement_time = {STATEMENT_TIMEOUT} */"
    return arguments | {"init_command": f"SET SESSION {settings}"}


def _give_up(context: ExceptionContext) -> None:
    """Do not try a new connection, and wait as long again, when the server says nothing on an old one."""
    if context.is_pre_ping and "read timeout" in str(context.original_exception):
        raise TimeoutError("the database says nothing")


def _prepare_sqlite(engine: AsyncEngine, *, reads_only: bool, migrates: bool) -> None:
    busy_timeout = MIGRATION_LOCK_TIMEOUT if migrates else ANSWER_TIMEOUT
    pragmas = [f"busy_timeout = {busy_timeout * 1000:.0f}"]  # first: journal_mode takes a lock itself
    if reads_only:
        pragmas += ["query_only = ON"]
    else:
        # FULL: what was acknowledged outlives a loss of power, not only of the process.
        pragmas += ["journal_mode = WAL", "synchronous = FULL", f"foreign_keys = {'OFF' if migrates else 'ON'}"]

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        if reads_only:
            cast(OneTripConnection, record.driver_connection).try_at_once()

    if not reads_only:

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that reads and then writes would fail at once if another wrote in between:
            # the lock is taken first, and busy_timeout holds for it.
            connection.exec_driver_sql("BEGIN IMMEDIATE")


class OneTripCursor:
    """The part of `aiosqlite.Cursor` that SQLAlchemy uses, with one trip to the connection's thread
    for a statement and its rows where aiosqlite's own takes four, and none for a read that is short.
    """

    arraysize = 1
    description: Any = None
    rowcount = -1
    lastrowid: int | None = None

    def __init__(self, connection: "OneTripConnection") -> None:
        self._connection = connection
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Any = ()) -> Self:
        """Run one statement and take all its rows along."""
        # The steps of a full text index are not counted: two common words that never meet took a second.
        if self._connection.tries_at_once and " MATCH " not in sql:
            try:
                self._run(sqlite3.Cursor.execute, sql, parameters)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY):
                    raise
            else:
                return self
        await self._connection._execute(self._run_patiently, sql, parameters)  # type: ignore[no-untyped-call]
        return self

    async def executemany(self, sql: str, parameters: Any) -> Self:
        """Run one statement for each set of parameters."""
        await self._connection._execute(self._run, sqlite3.Cursor.executemany, sql, parameters)  # type: ignore[no-untyped-call]
        return self

    def _run(self, execute: Callable[..., object], sql: str, parameters: Any) -> None:
        cursor = self._connection._conn.cursor()
        try:
            execute(cursor, sql, parameters)
            self._rows = cursor.fetchall()
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()

    def _run_patiently(self, sql: str, parameters: Any) -> None:
        with self._connection.patience():
            self._run(sqlite3.Cursor.execute, sql, parameters)

    async def fetchall(self) -> list[Any]:
        """The rows that came with the statement."""
        return self._rows

    async def close(self) -> None:
        """Nothing is open."""


class OneTripConnection(aiosqlite.Connection):
    """A connection whose cursors are `OneTripCursor`.

    One that `tries_at_once` runs a statement on the event loop itself, where a read of a few rows
    costs less than handing it to a thread (1,700 requests a second against 800), and gives up after
    `AT_ONCE` steps or at a lock; then the thread runs it anew. Only for connections that only read.
    """

    tries_at_once = False

    def cursor(self) -> OneTripCursor:  # type: ignore[override]
        """A new cursor, with no trip at all."""
        return OneTripCursor(self)

    def try_at_once(self) -> None:
        """From now on, run short statements on the event loop."""
        self.tries_at_once = True
        self._hurry()

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Steps and time without the bounds of `tries_at_once`, for one statement in the thread."""
        if not self.tries_at_once:
            yield
            return
        self._conn.set_progress_handler(None, 0)
        self._conn.execute(f"PRAGMA busy_timeout = {ANSWER_TIMEOUT * 1000:.0f}")
        try:
            yield
        finally:
            self._hurry()

    def _hurry(self) -> None:
        self._conn.execute("PRAGMA busy_timeout = 0")
        self._conn.set_progress_handler(lambda: True, AT_ONCE)


async def _connect_to_sqlite(url: URL) -> OneTripConnection:
    # With isolation_level None the driver begins nothing behind SQLAlchemy's back. One statement at a
    # time is what the pool sees to, whichever thread runs it.
    connection = OneTripConnection(
        lambda: sqlite3.connect(str(url.database), isolation_level=None, check_same_thread=False), 64
    )
    connection._thread.daemon = True  # a process that ends without closing it ends all the same
    try:
        await connection
    except sqlite3.Error:
        # The thread has a last word for this event loop, which may be closed by then.
        await anyio.to_thread.run_sync(connection._thread.join)
        raise
    return connection


def refusal_for(error: Exception) -> type[Refusal] | None:
    """What an error of the database, or on the way to it, means to whoever asked; None when it is a fault of ours."""
    if isinstance(error, OSError | PoolTimeout):
        return DatabaseUnavailable
    # SQLAlchemy has no class for many of asyncpg's errors, but asyncpg tells their SQLSTATE.
    state = str(getattr(error.orig, "sqlstate", None) or "08") if type(error) is DBAPIError else ""
    if isinstance(error, IntegrityError) or state.startswith("23"):
        return Conflict
    if isinstance(error, DataError | OverflowError) or type(error) is StatementError or state.startswith("22"):
        return Unstorable
    # asyncpg calls a connection that was cut off in the middle of an answer an internal error, and says that it
    # does not support a statement whose table was altered since it was prepared.
    gone = OperationalError | InterfaceError | InternalError | NotSupportedError
    if isinstance(error, gone) or state.startswith(LOST):
        return DatabaseUnavailable
    return None


def was_outwaited(error: DBAPIError) -> bool:
    """Whether a statement was given up because another transaction held what it waited for."""
    cause: Any = error.orig
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorcode == sqlite3.SQLITE_BUSY
    return any(told in OUTWAITED for told in (getattr(cause, "sqlstate", None), *cause.args[:1]))


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration, with these settings for `migrations/env.py`."""
    config = Config(ALEMBIC_INI)
    config.attributes["settings"] = settings
    return config


@cache
def _heads_of_code() -> set[str]:
    return set(ScriptDirectory.from_config(Config(ALEMBIC_INI)).get_heads())
