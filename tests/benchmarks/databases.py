"""Databases of one run: made, filled with one INSERT … SELECT a table, and dropped.

The platform's schema comes from its migrations, the tutorial's from its own tables; both hold the same blogs.
Blog n is published n seconds after FIRST, so that whatever is written while measuring comes after all of them.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import alembic.command
import sqlalchemy as sa

from blog.database import alembic_config, make_engine
from blog.models import Blog, Role, User
from tests.benchmarks import tutorial
from tests.benchmarks.bare import BODY
from tests.conftest import SERVERS, make_settings, on_server

FIRST = datetime(2020, 1, 1, tzinfo=UTC)
SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
AFTERWARDS = {
    "sqlite": ["ANALYZE"],
    # Else autovacuum comes while we measure.
    "postgresql": ["SELECT setval(pg_get_serial_sequence('blog', 'id'), max(id)) FROM blog", "VACUUM ANALYZE"],
    "mariadb": ["ANALYZE TABLE `user`, `blog`"],
}


def creators(blogs: int) -> int:
    return max(10, blogs // 100)


def email(creator: int) -> str:
    return f"author{creator}@example.com"


def public_id(creator: int) -> str:
    return f"{10**9 + creator:032}"


def published(blog: int) -> int:
    """When that was, in Unix time."""
    return int(FIRST.timestamp()) + blog


@contextmanager
def made(engine: str, folder: Path) -> Iterator[sa.URL]:
    """An empty database of its own, dropped at the end."""
    name = f"blog_bench_{uuid4().hex[:12]}"
    if engine == "sqlite":
        yield sa.make_url(f"sqlite:///{folder / name}.db")
        return
    server = sa.make_url(str(SERVERS[engine]))
    admin = make_settings(server).url
    asyncio.run(on_server(admin, f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name)
    finally:
        asyncio.run(on_server(admin, f"DROP DATABASE {name}{' WITH (FORCE)' if engine == 'postgresql' else ''}"))


def fill_platform(engine: str, url: sa.URL, blogs: int, password_hash: str) -> None:
    settings = make_settings(url)
    alembic.command.upgrade(alembic_config(settings), "head")

    async def fill() -> None:
        database = make_engine(settings.url, pool_size=1)
        async with database.execution_options(isolation_level="AUTOCOMMIT").begin() as connection:
            await connection.run_sync(_fill_platform, engine, blogs, password_hash)
        await database.dispose()

    asyncio.run(fill())


def fill_tutorial(engine: str, url: sa.URL, blogs: int) -> None:
    # Not by make_engine: that leaves a SQLite file in WAL mode, of which the tutorial knows nothing.
    database = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    tutorial.Base.metadata.create_all(database)
    with database.begin() as connection:
        _fill_tutorial(connection, engine, blogs)
    database.dispose()


def _fill_platform(connection: sa.Connection, engine: str, blogs: int, password_hash: str) -> None:
    n, name, moment = _numbers(engine, creators(blogs))
    identifier = public_id(0)[:22] + sa.cast(n + 10**9, sa.String(10))
    row = {"id": n, "name": "Author " + name, "name_folded": "author " + name}
    row |= dict.fromkeys(("email", "email_folded"), "author" + name + "@example.com")
    row |= dict.fromkeys(("public_id", "login_generation"), identifier)
    row |= dict.fromkeys(("created_at", "updated_at"), moment)
    row |= {"about": "", "password_hash": password_hash, "role": Role.AUTHOR, "is_active": True}
    _insert(connection, User, row)
    n, name, moment = _numbers(engine, blogs)
    row = {"id": n, "title": "Blog " + name, "title_folded": "blog " + name, "body": BODY}
    row |= {"creator_id": n % creators(blogs) + 1}
    row |= dict.fromkeys(("created_at", "updated_at", "published_at"), moment)
    _insert(connection, Blog, row)
    _complete(connection, engine)


def _fill_tutorial(connection: sa.Connection, engine: str, blogs: int) -> None:
    n, name, _ = _numbers(engine, creators(blogs))
    row = {"id": n, "name": "Author " + name, "email": "author" + name + "@example.com", "password": ""}
    _insert(connection, tutorial.User, row)
    n, name, _ = _numbers(engine, blogs)
    row = {"id": n, "title": "Blog " + name, "body": BODY, "creator_id": n % creators(blogs) + 1}
    _insert(connection, tutorial.Blog, row)
    _complete(connection, engine)


def _complete(connection: sa.Connection, engine: str) -> None:
    for command in AFTERWARDS[engine]:
        connection.exec_driver_sql(command)


def _insert(connection: sa.Connection, model: Any, row: dict[str, Any]) -> None:
    table: sa.Table = model.__table__
    columns = [
        value if isinstance(value, sa.ColumnElement) else sa.literal(value, table.c[name].type)
        for name, value in row.items()
    ]
    connection.execute(sa.insert(table).from_select(list(row), sa.select(*columns)))


def _numbers(engine: str, count: int) -> tuple[sa.ColumnElement[int], sa.ColumnElement[str], sa.ColumnElement[Any]]:
    """The numbers from 1 to `count`: as numbers, as text, and as moments so many seconds after FIRST."""
    n: sa.ColumnElement[int]
    moment: sa.ColumnElement[Any]
    if engine == "sqlite":
        numbers = sa.select(sa.literal(1).label("n")).cte(recursive=True)
        n = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < count)).c.n
        moment = sa.func.strftime("%Y-%m-%d %H:%M:%S.000000", n + published(0), "unixepoch")
    elif engine == "postgresql":
        n = sa.func.generate_series(1, count).table_valued(sa.column("n", sa.Integer)).render_derived().c.n
        moment = sa.func.to_timestamp(n + published(0))
    else:
        n = sa.table(f"seq_1_to_{count}", sa.column("seq", sa.Integer)).c.seq
        moment = sa.func.timestampadd(sa.text("SECOND"), n, FIRST)
    return n, sa.cast(n, sa.String(10)), moment
