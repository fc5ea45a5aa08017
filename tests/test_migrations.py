"""`alembic` as admins run it, on an empty database of each engine."""

import asyncio
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from html import escape
from pathlib import Path
from typing import Any, cast

import alembic.command
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from blog import __main__ as command_line
from blog import markdown
from blog.database import Database, alembic_config, make_engine
from blog.models import User
from blog.repository.blog import BlogRepository
from blog.schemas.types import PageRequest
from blog.security.access import ALL, Caller
from blog.settings import Settings
from tests.conftest import HANG, SECRET, made_database, make_settings, on

ROOT = Path(__file__).parent.parent
VERSIONS = ROOT / "migrations" / "versions"
NUMBERED = {"blog", "login_session", "media", "one_time_link", "personal_token", "room", "tag", "user"}
TABLES = NUMBERED | {
    "alembic_version",
    "blog_change",
    "blog_revision",
    "blog_slug",
    "blog_tag",
    "blog_text",
    "change_counter",
    "idempotency_key",
    "login_failure",
    "message",
    "profile_counter",
    "reading",
    "room_presence",
}
INDEX = {"blog_terms", "blog_terms_config", "blog_terms_data", "blog_terms_idx"}

# As a migration that an older version of the platform made would be found: by hand, not by today's models.
USER = """INSERT INTO {user} (id, public_id, name, name_folded, email, email_folded, about, password_hash, role,
    is_active, created_at, updated_at) VALUES
    (1, 'x', 'Ada', 'ada', 'ada@example.com', 'ada@example.com', '', '', 'author', {true}, {at}, {at})"""
GENERATION_OF_LOGINS = (("is_active,", "is_active, login_generation,"), ("{true},", "{true}, 'x',"))
BEFORE_LOGINS_WERE_ROWS = "8b1d0c6f2a47"
BLOG = """INSERT INTO blog (id, title, title_folded, body, creator_id, created_at, updated_at, published_at) VALUES
    (1, 'T', 't', 'B', 1, {at}, {at}, {at}), (2, 'T', 't', 'B', 1, {at}, {at}, {at})"""


@pytest.fixture
def config(new_database: URL) -> Config:
    return alembic_config(make_settings(new_database))


def run_on(url: URL, act: Any) -> Any:
    async def run() -> Any:
        engine = make_engine(make_settings(url).url, pool_size=1)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(act)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def tables(url: URL) -> set[str]:
    """Without those that SQLite's index of words is made of, while there is one."""
    found = set(run_on(url, lambda connection: inspect(connection).get_table_names()))
    return found - INDEX if found >= INDEX else found


def schema(url: URL) -> Any:
    def read(connection: Connection) -> Any:
        inspector = inspect(connection)
        return {
            table: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)],
                sorted(str(index["column_names"]) for index in inspector.get_indexes(table)),
                sorted(str(constraint["column_names"]) for constraint in inspector.get_unique_constraints(table)),
                inspector.get_foreign_keys(table),
            )
            for table in sorted(inspector.get_table_names())
        }

    return run_on(url, read)


def fill(url: URL, *, user: str = USER) -> None:
    def insert(connection: Connection) -> None:
        quote = connection.dialect.identifier_preparer.quote
        values = {"user": quote("user"), "true": "true", "at": "'2026-01-01 00:00:00'"}
        connection.execute(text(user.format(**values)))
        connection.execute(text(BLOG.format(**values)))

    run_on(url, insert)


def counts(url: URL) -> tuple[int, int]:
    def count(connection: Connection) -> tuple[int, int]:
        users = connection.dialect.identifier_preparer.quote("user")
        return tuple(connection.scalar(text(f"SELECT count(*) FROM {name}")) for name in (users, "blog"))

    found: tuple[int, int] = run_on(url, count)
    return found


def insert_blog(connection: Connection) -> None:
    """One more, with the id that the engine gives it; PostgreSQL's counter has not seen the ones of `fill`."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT setval('blog_id_seq', greatest(3, nextval('blog_id_seq')) - 1)"))
    columns = "title, title_folded, body, creator_id, created_at, updated_at, published_at"
    at = "'2026-01-01 00:00:00'"
    connection.execute(text(f"INSERT INTO blog ({columns}) VALUES ('T', 't', 'B', 1, {at}, {at}, {at})"))


def sqlite_sql(url: URL, table: str) -> str:
    sql = text("SELECT sql FROM sqlite_master WHERE name = :table")
    return str(run_on(url, lambda connection: connection.scalar(sql, {"table": table})))


@contextmanager
def another_migration(config: Config, folder: Path, body: str) -> Iterator[None]:
    """A migration after head, that lives in a folder of the test's."""
    head = ScriptDirectory.from_config(config).get_current_head()
    (folder / "2026-12-01_another.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = 'another'\ndown_revision = {head!r}\nbranch_labels = depends_on = None\n"
        f"def upgrade():\n{body}\n"
        "def downgrade():\n    pass\n"
    )
    config.set_main_option("version_locations", f"{VERSIONS}{os.pathsep}{folder}")
    yield


VERSION = "SELECT version_num FROM alembic_version"


async def is_at_head(settings: Settings) -> bool:
    async with aclosing(Database(settings)) as database:
        return await database.is_at_head()


class TestFiles:
    def test_names_are_dated_whole_and_in_the_order_of_the_chain(self) -> None:
        script = ScriptDirectory.from_config(alembic_config(make_settings()))
        chain = list(script.walk_revisions())[::-1]
        names = [Path(str(revision.path)).name for revision in chain]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d_[a-z0-9]+(_[a-z0-9]+)*\.py", name) for name in names)
        assert sorted(path.name for path in VERSIONS.glob("*.py")) == sorted(names), "a file is off the chain"
        assert len({name[11:] for name in names}) == len(names)
        dates = [name[:10] for name in names]
        assert dates == sorted(dates)
        assert len(script.get_heads()) == 1
        for revision, name in zip(chain, names, strict=True):
            assert revision.doc.lower().replace(" ", "_") == name[11:-3]

    def test_a_name_is_not_taken_twice_and_never_cut(self, tmp_path: Path) -> None:
        config = alembic_config(make_settings(make_url(f"sqlite:///{tmp_path}/blog.db")))
        config.set_main_option("version_locations", str(tmp_path))
        message = "say at length " * 12 + "what this migration does"
        alembic.command.revision(config, message)
        (made,) = tmp_path.glob("*.py")
        assert made.stem[11:] == message.replace(" ", "_")
        before = made.read_text()
        compile(before, made, "exec")
        with pytest.raises(CommandError, match="exists: say in other words"):
            alembic.command.revision(config, message, head="base", splice=True)
        assert made.read_text() == before


class TestUpgrade:
    def test_from_nothing_and_back(self, config: Config, new_database: URL) -> None:
        settings = make_settings(new_database)
        assert not asyncio.run(is_at_head(settings))
        alembic.command.upgrade(config, "head")
        assert tables(new_database) == TABLES
        assert asyncio.run(is_at_head(settings))
        made = schema(new_database)
        alembic.command.downgrade(config, "base")
        assert tables(new_database) == {"alembic_version"}
        alembic.command.upgrade(config, "head")
        assert schema(new_database) == made
        if new_database.get_backend_name() == "sqlite":
            for table in NUMBERED:
                assert "AUTOINCREMENT" in sqlite_sql(new_database, table)

    def test_nobody_is_there_yet(self, config: Config, new_database: URL) -> None:
        """Least of all an admin with a password that everybody knows."""
        alembic.command.upgrade(config, "head")
        for table in (sa.table(name) for name in TABLES - {"alembic_version", "change_counter", "profile_counter"}):
            rows = sa.select(sa.func.count()).select_from(table)
            assert run_on(new_database, lambda connection, rows=rows: connection.scalar(rows)) == 0, table

    def test_the_models_are_what_the_migrations_make(self, config: Config) -> None:
        alembic.command.upgrade(config, "head")
        alembic.command.check(config)

    def test_the_check_sees_a_difference(self, config: Config, new_database: URL) -> None:
        alembic.command.upgrade(config, "head")
        drop = "DROP INDEX ix_user_role_id" + (" ON user" if new_database.get_backend_name() == "mariadb" else "")
        run_on(new_database, lambda connection: connection.execute(text(drop)))
        with pytest.raises(CommandError, match="New upgrade operations"):
            alembic.command.check(config)

    def test_again_keeps_every_row(self, config: Config, new_database: URL) -> None:
        alembic.command.upgrade(config, "head")
        fill(new_database)
        alembic.command.upgrade(config, "head")
        alembic.command.stamp(config, "head")
        assert counts(new_database) == (1, 2)

    def test_from_a_version_before_logins_were_rows(self, config: Config, new_database: URL) -> None:
        alembic.command.upgrade(config, BEFORE_LOGINS_WERE_ROWS)
        user = USER
        for new, old in GENERATION_OF_LOGINS:
            user = user.replace(new, old)
        fill(new_database, user=user)
        alembic.command.upgrade(config, "head")
        assert counts(new_database) == (1, 2)
        made = schema(new_database)
        alembic.command.downgrade(config, BEFORE_LOGINS_WERE_ROWS)
        assert counts(new_database) == (1, 2)
        alembic.command.upgrade(config, "head")
        assert counts(new_database) == (1, 2)
        assert schema(new_database) == made

    @on("postgresql", "mariadb")
    def test_text_is_compared_by_code_point_whatever_the_server_gives(self, config: Config, new_database: URL) -> None:
        """All text on MariaDB; on PostgreSQL, where equal text is the same anyhow, what is sorted."""
        alembic.command.upgrade(config, "head")
        of_columns = "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE "
        if new_database.get_backend_name() == "mariadb":
            found = rows_of(new_database, f"{of_columns} table_schema = DATABASE() AND collation_name IS NOT NULL")
            own = [row for row in found if row[0] != "alembic_version"]
            assert {tuple(row) for row in own if row[2] != "utf8mb4_bin"} == {("blog_text", "terms", "ascii_bin")}
            assert {row[0] for row in own} >= {"blog", "blog_slug", "message", "room", "tag", "user"}
        else:
            found = rows_of(new_database, f"{of_columns} table_schema = 'public' AND collation_name = 'C'")
            assert {tuple(row)[:2] for row in found} == {
                ("blog", "title_folded"),
                ("blog_tag", "title_folded"),
                ("room", "order"),
                ("tag", "name"),
            }

    def test_offline(self, config: Config) -> None:
        config.output_buffer = io.StringIO()
        alembic.command.upgrade(config, "head", sql=True)
        sql = config.output_buffer.getvalue()
        assert "CREATE TABLE blog" in sql
        assert "INSERT INTO alembic_version" in sql
        config.output_buffer = io.StringIO()
        alembic.command.downgrade(config, "head:base", sql=True)
        assert "DROP TABLE blog" in config.output_buffer.getvalue()

    @pytest.mark.processes
    def test_three_at_once(self, new_database: URL, tmp_path: Path) -> None:
        environment = os.environ | {
            "BLOG_DATABASE_URL": new_database.render_as_string(hide_password=False),
            "BLOG_SECRET_KEY": SECRET,
        }
        upgrade = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes = [subprocess.Popen(upgrade, cwd=tmp_path, env=environment, **pipes) for _ in range(3)]  # type: ignore[call-overload]
        outputs = [process.communicate(timeout=HANG)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], outputs
        assert tables(new_database) == TABLES
        assert sum("Running upgrade" in output for output in outputs) == 1


SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
# What every version takes alike, or two of them would migrate one database at once.
TAKE_LOCK = {
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": "SELECT pg_advisory_lock(hashtext('blog.migrations'))",
    "mariadb": "SELECT GET_LOCK(CONCAT('blog.', LEFT(DATABASE(), 59)), 0)",
}
IS_WAITED_FOR = {
    "postgresql": "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
    " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND state = 'User lock'",
}


@contextmanager
def another_migrates(url: URL) -> Iterator[Callable[[], bool]]:
    """Another machine has the lock of those who migrate this database; gives whether somebody waits for it."""
    name = url.get_backend_name()
    engine = sa.create_engine(url.set(drivername=SYNC_DRIVERS[name]), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(TAKE_LOCK[name])
        try:
            yield lambda: bool(connection.exec_driver_sql(IS_WAITED_FOR[name]).scalar())
        finally:
            connection.invalidate()  # closed, and the lock with it
    engine.dispose()


class TestLock:
    @on("postgresql", "mariadb")
    def test_one_waits_for_another(self, config: Config, new_database: URL) -> None:
        with ThreadPoolExecutor(1) as pool:
            with another_migrates(new_database) as is_waited_for:
                upgrade = pool.submit(alembic.command.upgrade, config, "head")
                while not is_waited_for():
                    assert not upgrade.done()
                    time.sleep(0.01)
                assert tables(new_database) == set()
            upgrade.result()
        assert tables(new_database) == TABLES

    def test_but_not_without_an_end(self, config: Config, new_database: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("blog.database.MIGRATION_LOCK_TIMEOUT", 1)
        with another_migrates(new_database), pytest.raises((CommandError, DBAPIError)):
            alembic.command.upgrade(config, "head")
        assert tables(new_database) == set()
        alembic.command.upgrade(config, "head")
        assert tables(new_database) == TABLES

    @on("mariadb")
    def test_nobody_waits_for_those_of_another_database(
        self, config: Config, new_database: URL, engine_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Though all databases of a server share the names of locks."""
        monkeypatch.setattr("blog.database.MIGRATION_LOCK_TIMEOUT", 1)
        with made_database(engine_name, tmp_path) as other, another_migrates(other):
            alembic.command.upgrade(config, "head")
        assert tables(new_database) == TABLES


STEP_ONE = "54fef35644d9"
BEFORE_SLUGS = "c3e7a95d1f08"
LONG = "word " * 40
TITLES = {
    1: "Notes on the engine",
    2: "Notes on the engine",
    3: "NOTES — on the: Engine!",
    4: "織物の話 2",
    5: "🧵🪡",
    6: "🧵🪡",
    7: LONG[:199] + "!",
    8: LONG[:199] + "?",
    9: "notes-on-the-engine-2",
    10: "Blog 5",
    11: "x" * 200,
}
SLUGS = {1: "notes-on-the-engine", 4: "織物の話-2", 5: "blog-5", 7: "-".join(["word"] * 18), 11: "x" * 91}
BODIES = {1: "It *weaves*.", 2: "織物 🧵", 3: "> " * 150 + "deep & <b>", 4: "y" * 200_000}


def fill_as_step_one(url: URL) -> None:
    """With what a database of the first version holds."""
    user = USER
    for new, old in GENERATION_OF_LOGINS:
        user = user.replace(new, old)
    insert = text(
        "INSERT INTO blog (id, title, title_folded, body, creator_id, created_at, updated_at, published_at)"
        " VALUES (:id, :title, :title, :body, 1, '2026-01-01 00:00:00', '2026-01-02 00:00:00', '2026-01-03 00:00:00')"
    )

    def run(connection: Connection) -> None:
        quote = connection.dialect.identifier_preparer.quote
        connection.execute(text(user.format(user=quote("user"), true="true", at="'2026-01-01 00:00:00'")))
        for number, title in TITLES.items():
            body = BODIES.get(number, "Text")
            connection.execute(insert, {"id": number, "title": title, "body": body})

    run_on(url, run)


def rows_of(url: URL, sql: str) -> list[Any]:
    return list(run_on(url, lambda connection: connection.execute(text(sql)).all()))


class TestFromStepOne:
    @pytest.fixture
    def filled(self, config: Config, new_database: URL) -> URL:
        alembic.command.upgrade(config, STEP_ONE)
        fill_as_step_one(new_database)
        alembic.command.upgrade(config, "head")
        return new_database

    def test_every_row_is_there_and_has_a_slug(self, filled: URL) -> None:
        rows = rows_of(filled, "SELECT id, title, body, slug, is_draft, version, revision FROM blog ORDER BY id")
        assert {row.id: row.title for row in rows} == TITLES
        assert [row.body for row in rows] == [BODIES.get(number, "Text") for number in TITLES]
        slugs = {row.id: row.slug for row in rows}
        assert len(set(slugs.values())) == len(slugs)
        assert {number: slugs[number] for number in SLUGS} == SLUGS
        assert all(slugs[number].startswith("notes-on-the-engine") for number in (1, 2, 3, 9))
        assert all(1 <= len(slug) <= 100 for slug in slugs.values())
        assert dict(rows_of(filled, "SELECT blog_id, slug FROM blog_slug")) == slugs
        assert {(bool(row.is_draft), row.version, row.revision) for row in rows} == {(False, 1, 1)}
        revisions = rows_of(filled, "SELECT blog_id, number, title, editor_id FROM blog_revision")
        assert {row.blog_id: row.title for row in revisions} == TITLES
        assert {(row.number, row.editor_id) for row in revisions} == {(1, 1)}
        changes = rows_of(filled, "SELECT blog_id, number, public_number, public_since FROM blog_change")
        assert {row.blog_id for row in changes} == set(TITLES)
        assert {tuple(row)[1:] for row in changes} == {(1, 1, 1)}

    def test_down_and_up_again(self, config: Config, filled: URL) -> None:
        made = schema(filled)
        before = rows_of(filled, "SELECT id, title, slug FROM blog ORDER BY id")
        alembic.command.downgrade(config, BEFORE_SLUGS)
        assert counts(filled) == (1, len(TITLES))
        alembic.command.upgrade(config, "head")
        assert rows_of(filled, "SELECT id, title, slug FROM blog ORDER BY id") == before
        assert schema(filled) == made

    def test_not_down_while_something_is_hidden(self, config: Config, filled: URL) -> None:
        before = rows_of(filled, "SELECT id, title, slug FROM blog ORDER BY id")
        for change, hidden in (
            ("is_draft = true WHERE id = 1", 1),
            ("published_at = '2100-01-01 00:00:00' WHERE id = 2", 2),
            ("is_draft = false WHERE id = 1", 1),
        ):
            change_it = text(f"UPDATE blog SET {change}")
            run_on(filled, lambda connection, change_it=change_it: connection.execute(change_it))
            with pytest.raises(CommandError, match=f"{hidden} blogs are no public ones"):
                alembic.command.downgrade(config, BEFORE_SLUGS)
            assert rows_of(filled, "SELECT id, title, slug FROM blog ORDER BY id") == before

    def test_rendered_and_found(
        self, filled: URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BLOG_DATABASE_URL", filled.render_as_string(hide_password=False))
        monkeypatch.setenv("BLOG_SECRET_KEY", SECRET)
        monkeypatch.setattr("blog.__main__.RENDERED_AT_ONCE", 4)
        for number in (len(TITLES), 0):
            command_line.render()
            output, errors = capsys.readouterr()
            assert output == f"{number} blogs were rendered.\n"
            assert ("the body of blog 3 cannot be turned into a page" in errors) == (number > 0)
        html = dict(rows_of(filled, "SELECT id, html FROM blog"))
        assert html[1].strip() == "<p>It <em>weaves</em>.</p>"
        assert html[3] == f"<pre>{escape(BODIES[3])}</pre>"
        assert {row.renderer for row in rows_of(filled, "SELECT renderer FROM blog")} == {markdown.VERSION}

        async def search(q: str) -> list[int]:
            async with aclosing(Database(make_settings(filled))) as database, database.fresh() as session:
                user = await session.get_one(User, 1)
                page = PageRequest(20, None)
                found = await BlogRepository(session).search(page, q, viewer=Caller(cast("Any", user), ALL))
                return [row["id"] for row in found.rows]

        assert asyncio.run(search("weaves")) == [1]
        assert sorted(asyncio.run(search("織物"))) == [2, 4]
        assert sorted(asyncio.run(search("engine"))) == [1, 2, 3, 9]
        assert asyncio.run(search("deep")) == [3]


class TestFailingMigration:
    def test_leaves_the_schema_as_it_was(self, config: Config, new_database: URL, tmp_path: Path) -> None:
        alembic.command.upgrade(config, "head")
        fill(new_database)
        before = schema(new_database)
        body = (
            "    op.create_table('half', sa.Column('id', sa.Integer(), primary_key=True))\n"
            "    op.execute('DELETE FROM blog')\n    op.execute('SELECT nonsense FROM nowhere')"
        )
        with another_migration(config, tmp_path, body), pytest.raises(DBAPIError):
            alembic.command.upgrade(config, "heads")
        if new_database.get_backend_name() == "mariadb":
            # Its DDL commits by itself; what is promised there is that the version does not say it was done.
            (version,) = run_on(new_database, lambda connection: connection.scalars(text(VERSION)).all())
            assert version == ScriptDirectory.from_config(alembic_config(make_settings())).get_current_head()
        else:
            assert schema(new_database) == before
            assert counts(new_database) == (1, 2)

    def test_batch_alteration_deletes_nothing(self, config: Config, new_database: URL, tmp_path: Path) -> None:
        """SQLite makes the table anew.

        With foreign keys on, dropping the old one would take all blogs along; and the new one must not
        forget which ids were handed out before.
        """
        alembic.command.upgrade(config, "head")
        fill(new_database)
        run_on(new_database, insert_blog)
        run_on(new_database, lambda connection: connection.execute(text("DELETE FROM blog WHERE id = 3")))
        body = "    with op.batch_alter_table('user', recreate='always') as batch:\n"
        body += "        batch.alter_column('name', existing_type=sa.String(100), type_=sa.String(150))\n"
        body += "    with op.batch_alter_table('blog', recreate='always') as batch:\n"
        body += "        batch.alter_column('title', existing_type=sa.String(200), type_=sa.String(250))"
        if new_database.get_backend_name() != "sqlite":
            body = body.replace(", recreate='always'", "")
        with another_migration(config, tmp_path, body):
            alembic.command.upgrade(config, "heads")
        assert counts(new_database) == (1, 2)
        if new_database.get_backend_name() == "sqlite":
            assert "AUTOINCREMENT" in sqlite_sql(new_database, "user")
        run_on(new_database, insert_blog)
        assert run_on(new_database, lambda connection: connection.scalar(text("SELECT max(id) FROM blog"))) == 4
        assert "150" in str({name: kind for name, kind, _ in schema(new_database)["user"][0]}["name"])

    def test_orphans_are_refused(self, config: Config, new_database: URL, tmp_path: Path) -> None:
        alembic.command.upgrade(config, "head")
        fill(new_database)
        table = "user" if new_database.get_backend_name() != "postgresql" else '"user"'
        with (
            another_migration(config, tmp_path, f"    op.execute('DELETE FROM {table}')"),
            pytest.raises((CommandError, DBAPIError)),
        ):
            alembic.command.upgrade(config, "heads")
        assert counts(new_database) == (1, 2)
