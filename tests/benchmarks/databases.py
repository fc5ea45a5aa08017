"""Databases of one run: made, filled with one INSERT … SELECT a table, and dropped.

The platform's schema comes from its migrations, the tutorial's from its own tables; both hold the same blogs.
The platform's rows are those that it would have written itself, as a test sees to. Blog n is published n seconds after
FIRST, so that whatever is written while measuring comes after all of them.
"""

import asyncio
import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import alembic.command
import sqlalchemy as sa
from sqlmodel import SQLModel

from blog.database import alembic_config, make_engine
from blog.markdown import VERSION, render
from blog.models import (
    Blog,
    BlogChange,
    BlogRevision,
    BlogSlug,
    BlogText,
    ChangeCounter,
    LoginSession,
    Role,
    User,
)
from blog.search import query_of, terms_of, token_of_mark
from blog.security.access import ALL, write_scopes
from tests.benchmarks import tutorial
from tests.benchmarks.bare import BODY
from tests.conftest import SERVERS, make_settings, on_server

LOGIN = "0" * 32
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
AFTERWARDS = {
    "sqlite": ["ANALYZE"],
    # Else autovacuum comes while we measure.
    "postgresql": [
        *(
            f"SELECT setval(pg_get_serial_sequence('\"{table}\"', 'id'), max(id)) FROM \"{table}\""
            for table in ("user", "blog")
        ),
        "VACUUM ANALYZE",
    ],
    "mariadb": ["ANALYZE TABLE `user`, `blog`"],
}

PROSE = BODY[:700]
"""What every blog says behind its words, with which it has some 1,000 characters."""

WORDS = {"rare": 100_000, "thousandth": 1_000, "tenth": 10, "third": 3, "second": 2}
"""Words that are in one of so many blogs."""

REMAINDER = 1
"""Of those blogs' numbers, so that each word is in some blog, however few there are, and all in some together."""

VARIETY = {f"v{number:o}x": int(10 * 10 ** (number / 10)) for number in range(40)}
"""Beginnings of other words, one of each in every blog, and how many different ones there are: 10 to 80,000. In
octal digits: a word with a 9 has a token of another kind."""

# An index of words is made of what is there in a tenth of the time that it takes to add each blog to it.
INDEXES = {
    "sqlite": (
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'blog_text'",
        [f"DROP TRIGGER blog_text_{event}" for event in ("insert", "update", "delete")],
        ["INSERT INTO blog_terms (blog_terms) VALUES ('rebuild')"],
    ),
    "postgresql": (
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_blog_text_vector'",
        ["DROP INDEX ix_blog_text_vector"],
        ["SET maintenance_work_mem = '512MB'"],
    ),
    "mariadb": (
        "SELECT 'CREATE FULLTEXT INDEX ix_blog_text_terms ON blog_text (terms)'",
        # Without its index the table keeps numbers for it, which are no rows' that come meanwhile, unless made anew.
        ["DROP INDEX ix_blog_text_terms ON blog_text", "ALTER TABLE blog_text FORCE"],
        [],
    ),
}
"""What tells how to make it, what drops it, and what comes before it is made anew."""


def creators(blogs: int) -> int:
    return max(10, blogs // 100)


def email(creator: int) -> str:
    return f"author{creator}@example.com"


def public_id(creator: int) -> str:
    return f"{10**9 + creator:032}"


def published(blog: int) -> int:
    """When that was, in Unix time."""
    return int(FIRST.timestamp()) + blog


def holding(words: str, blogs: int) -> int:
    """How many blogs have all these words."""
    if words.startswith('"'):
        return blogs  # it is in PROSE
    often = math.lcm(*(WORDS.get(word, blogs + REMAINDER) for word in words.split()))
    return len(range(REMAINDER, blogs + 1, often)) if words.split()[0] in WORDS else 0


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
        database = make_engine(settings.url, pool_size=1, migrates=True)  # which has no limit for a statement
        async with database.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.run_sync(_fill_platform, engine, blogs, password_hash)
        await database.dispose()

    asyncio.run(fill())


def fill_tutorial(engine: str, url: sa.URL, blogs: int) -> None:
    # Not by make_engine: that leaves a SQLite file in WAL mode, of which the tutorial knows nothing.
    database = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    tutorial.Base.metadata.create_all(database)
    with database.connect() as connection:
        _fill_tutorial(connection, engine, blogs)
    database.dispose()


def _fill_platform(connection: sa.Connection, engine: str, blogs: int, password_hash: str) -> None:
    n, name, moment = _numbers(engine, creators(blogs))
    identifier = public_id(0)[:22] + sa.cast(n + 10**9, sa.String(10))
    row = {"id": n, "name": "Author " + name, "name_folded": "author " + name}
    row |= dict.fromkeys(("email", "email_folded"), "author" + name + "@example.com")
    row["public_id"] = identifier
    row |= dict.fromkeys(("created_at", "updated_at"), moment)
    row |= {"about": "", "password_hash": password_hash, "role": Role.AUTHOR, "is_active": True}
    _insert(connection, User, row)
    n, _, moment = _numbers(engine, blogs)
    row = {"id": n, "title": _title(n), "title_folded": _title(n, "blog "), "slug": _title(n, "blog-"), "summary": ""}
    row |= {"body": _body(n), "html": sa.func.replace(render("body").html, "body", _body(n)), "renderer": VERSION}
    row |= {"tags": [], "creator_id": n % creators(blogs) + 1, "is_draft": False, "version": 1, "revision": 1}
    row |= dict.fromkeys(("created_at", "updated_at", "published_at"), moment)
    _insert(connection, Blog, row)
    blog = SQLModel.metadata.tables["blog"].c
    _insert(connection, BlogSlug, {"slug": blog.slug, "blog_id": blog.id})
    row = {"blog_id": blog.id, "number": 1, "title": blog.title, "body": blog.body}
    _insert(connection, BlogRevision, row | {"editor_id": blog.creator_id, "created_at": blog.created_at})
    row = {"blog_id": blog.id, "creator_id": blog.creator_id, "was_public": False}
    # The first change has number 2: an empty database begins with 1.
    row |= dict.fromkeys(("number", "created_number", "public_number", "public_since"), blog.id + 1)
    row |= dict.fromkeys(("changed_at", "public_changed_at"), blog.created_at)
    _insert(connection, BlogChange, row)
    connection.execute(sa.update(ChangeCounter).values(number=blogs + 1))
    _fill_search(connection, engine, creators(blogs))
    row = {"user_id": 1, "public_id": LOGIN, "family_digest": "", "refresh_digest": "", "scope": write_scopes(ALL)}
    row |= {"user_agent": "", "address": "", "expires_at": FIRST + timedelta(days=36_500)}
    row |= dict.fromkeys(("created_at", "last_used_at"), FIRST)
    connection.execute(sa.insert(LoginSession).values(row))
    _complete(connection, engine)


def _fill_search(connection: sa.Connection, engine: str, creators: int) -> None:
    definition, drops, before = INDEXES[engine]
    index = [str(sql) for sql in connection.exec_driver_sql(definition).scalars()]
    for command in drops:
        connection.exec_driver_sql(command)
    number = sa.Column("creator_id", sa.Integer, primary_key=True)
    marks = sa.Table("mark", sa.MetaData(), number, sa.Column("token", sa.String(80)), prefixes=["TEMPORARY"])
    marks.create(connection, checkfirst=False)
    rows = [{"creator_id": n, "token": f"{token_of_mark(f'author {n}')} "} for n in range(1, creators + 1)]
    connection.execute(sa.insert(marks), rows)
    blog = SQLModel.metadata.tables["blog"].c
    mark = sa.select(marks.c.token).where(number == blog.creator_id).scalar_subquery()
    terms = sa.func.replace(terms_of("Blog title", f"words {PROSE}"), "title", _digits(blog.id))
    terms = sa.func.replace(terms, f"{_token('words')} ", _words(blog.id, encoded=True))
    _insert(connection, BlogText, {"blog_id": blog.id, "terms": mark.concat(terms), "text": blog.body})
    for command in [*before, *index]:
        connection.exec_driver_sql(command)


def _title(n: sa.ColumnElement[int], word: str = "Blog ") -> sa.ColumnElement[str]:
    return sa.literal(word).concat(_digits(n))


def _body(n: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    return _words(n).concat(PROSE)


def _words(n: sa.ColumnElement[int], *, encoded: bool = False) -> sa.ColumnElement[str]:
    """The words of blog `n` that are not in each, or their tokens, which for words without a 9 begin as these do."""
    begin = _token if encoded else str
    parts: list[sa.ColumnElement[str]] = [
        sa.case((n % often == REMAINDER, f"{begin(word)} "), else_="") for word, often in WORDS.items()
    ]
    for place, (word, different) in enumerate(VARIETY.items()):
        number = (sa.cast(n, sa.BigInteger) * (7_919 + 2 * place) + place) % different
        parts.append(sa.literal(begin(word)).concat(_digits(number)).concat(" "))
    return functools.reduce(lambda words, word: words.concat(word), parts)


def _token(word: str) -> str:
    return str(query_of(word)).strip('"')


def _digits(number: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    """The number with an x for each 9: see VARIETY."""
    return sa.func.replace(sa.cast(number, sa.String(10)), "9", "x")


def _fill_tutorial(connection: sa.Connection, engine: str, blogs: int) -> None:
    n, name, _ = _numbers(engine, creators(blogs))
    row = {"id": n, "name": "Author " + name, "email": "author" + name + "@example.com", "password": ""}
    _insert(connection, tutorial.User, row)
    n, _, _ = _numbers(engine, blogs)
    row = {"id": n, "title": _title(n), "body": _body(n), "creator_id": n % creators(blogs) + 1}
    _insert(connection, tutorial.Blog, row)
    _complete(connection, engine)


def _complete(connection: sa.Connection, engine: str) -> None:
    for command in AFTERWARDS[engine]:
        connection.exec_driver_sql(command)
    connection.commit()


def _insert(connection: sa.Connection, model: Any, row: dict[str, Any]) -> None:
    table: sa.Table = model.__table__
    columns = [
        value if isinstance(value, sa.ColumnElement) else sa.literal(value, table.c[name].type)
        for name, value in row.items()
    ]
    connection.execute(sa.insert(table).from_select(list(row), sa.select(*columns)))
    # Where SQLite has begun a transaction all the same: all tables at once would be gigabytes in its log.
    connection.commit()


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
