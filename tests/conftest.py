"""Markers decide what runs; `.pytest.ini` lists them, and leaves out by default what takes long.

Every test that needs a database runs on each engine that the run was pointed at. SQLite needs nothing.
`BLOG_TEST_POSTGRESQL_URL` and `BLOG_TEST_MARIADB_URL` name servers on which the user may create databases, and on
MariaDB see what other connections do (PROCESS); each run makes a database of its own there and drops it.
`BLOG_TEST_CHROMIUM` is the browser for what only a browser does; one that is installed is found without it.
`BLOG_TEST_COMMONMARK` is the archive that `tests/commonmark.txt` names.

What is missing is left out, and the last line says so. With `BLOG_TEST_COMPLETE` set it is an error, and so is every
skipped test.
"""

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import alembic.command
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from blog.app import create_app
from blog.database import Database, alembic_config, make_engine
from blog.models import Blog, BlogChange, BlogSlug, IdempotencyKey, LoginFailure, Room, RoomPresence, Tag, User
from blog.settings import Settings
from tests.clock import Clock
from tests.factories import Factory
from tests.ports import reserved_port

# Which prints, where several processes run the tests, in the one that reads no other conftest.py.
pytest_plugins = ["tests.endurance.figures"]

# The settings of whoever runs the tests are not the tests'.
for variable in list(os.environ):
    if variable.startswith("BLOG_") and not variable.startswith("BLOG_TEST_"):
        del os.environ[variable]

ROOT = Path(__file__).parent.parent
COMPLETE = bool(os.environ.get("BLOG_TEST_COMPLETE"))
ALL_ENGINES = ("sqlite", "postgresql", "mariadb")
SERVERS = {name: os.environ.get(f"BLOG_TEST_{name.upper()}_URL") for name in ALL_ENGINES[1:]}
ENGINES = [name for name in ALL_ENGINES if name == "sqlite" or SERVERS[name]]
WANTED_BROWSER = os.environ.get("BLOG_TEST_CHROMIUM")
BROWSERS = [WANTED_BROWSER] if WANTED_BROWSER else ["chromium", "chromium-browser", "google-chrome"]
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
JAVA = shutil.which("java")
"""For the Nu HTML checker."""
COMMONMARK = os.environ.get("BLOG_TEST_COMMONMARK")

NEEDS: dict[str, tuple[str | None, str]] = {
    "postgresql": (SERVERS["postgresql"], "set BLOG_TEST_POSTGRESQL_URL"),
    "mariadb": (SERVERS["mariadb"], "set BLOG_TEST_MARIADB_URL"),
    "commonmark": (COMMONMARK, "set BLOG_TEST_COMMONMARK, see tests/commonmark.txt"),
    "browser": (CHROMIUM, "install Chromium or set BLOG_TEST_CHROMIUM"),
    "html_checker": (JAVA, "install Java"),
    "patch": (shutil.which("patch"), "install patch"),
}
"""What tests with these markers need, if it is there, and how to get it."""

TAKE_LONG = ("browser", "processes", "endurance")
"""Markers of what runs only when it is asked for."""

HANG = 300
"""Seconds after which a wait in a test fails; only a hang takes this long."""

MEDIA = Path(tempfile.gettempdir()) / f"blog_test_media_{uuid4().hex[:12]}"
"""Where images are stored unless a test says otherwise; made when the first one is."""

SECRET = "a secret key that only the tests use"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For httpx, which otherwise loads every certificate anew, for longer than a server takes to answer."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="endurance tests with their large numbers, and their bounds of time asserted",
    )


def pytest_configure() -> None:
    missing = [f"{marker} ({cure})" for marker, (found, cure) in NEEDS.items() if not found]
    if COMPLETE and missing:
        raise pytest.UsageError(f"not there to test with: {', '.join(missing)}")


@pytest.hookimpl(tryfirst=True)  # before those are chosen whose markers were asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if (engine := str(parameters.get("engine_name"))) in SERVERS:
            item.add_marker(engine)
    missing = {marker for marker, (found, _) in NEEDS.items() if not found}
    lacking = {item for item in items if missing.intersection(mark.name for mark in item.iter_markers())}
    if lacking:
        config.hook.pytest_deselected(items=list(lacking))
        items[:] = [item for item in items if item not in lacking]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if COMPLETE and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure where the run must be complete: {report.longrepr}"
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(MEDIA, ignore_errors=True)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput") and not config.option.collectonly:
        reporter.write_line(left_out(config))


def left_out(config: pytest.Config) -> str:
    """Return what a run leaves out, and how to run that."""
    missing = [f"{marker} ({cure})" for marker, (found, cure) in NEEDS.items() if not found]
    there = [marker for marker in [*NEEDS, *TAKE_LONG] if NEEDS.get(marker, ("yes", ""))[0]]
    rest = [f"{marker} (-m {marker})" for marker in dict.fromkeys(there) if not is_chosen(config, marker)]
    if not is_chosen(config):
        rest.insert(0, "tests without a marker")
    everything = ' (all of it: -m "")' if rest else ""
    return f"Left out: {', '.join([*missing, *rest]) or 'nothing'}{everything}"


def is_chosen(config: pytest.Config, *markers: str) -> bool:
    """Return whether this run's expression of markers, which reads like one of Python's, takes tests with these."""
    with suppress(SyntaxError):  # of which pytest has told already
        return bool(eval(config.option.markexpr or "True", {}, defaultdict(bool, dict.fromkeys(markers, True))))
    return True


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test on these engines alone, because what it looks at is decided before, or without, the others' SQL.

    What an answer owes to the database is tested on all of them.
    """
    return pytest.mark.parametrize("engine_name", names, indirect=True, scope="session")


async def on_server(url: URL, statement: str) -> None:
    # Dropping a database waits until all that was written is on the disk, for longer on a busy machine than the
    # platform waits for a statement; one that migrates has no such limit.
    engine = make_engine(url, pool_size=1, reads_only=True, migrates=True)
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", params=ALL_ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_database(engine_name: str, tmp_path: Path) -> Iterator[URL]:
    """An empty database for one test alone."""
    with made_database(engine_name, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[URL], None]:
    """A function that brings an empty database to head: a file of SQLite's by copying one that was migrated once."""

    @cache
    def template() -> Path:
        path = tmp_path_factory.mktemp("template") / "blog.db"
        alembic.command.upgrade(alembic_config(make_settings(make_url(f"sqlite:///{path}"))), "head")
        return path

    def upgrade(url: URL) -> None:
        if url.get_backend_name() == "sqlite":
            shutil.copyfile(template(), str(url.database))
        else:
            alembic.command.upgrade(alembic_config(make_settings(url)), "head")

    return upgrade


@pytest.fixture(scope="session")
def databases(
    tmp_path_factory: pytest.TempPathFactory, upgraded: Callable[[URL], None]
) -> Iterator[Callable[[str], URL]]:
    """The database of each engine for all tests that leave no row behind, at head.

    It is kept while tests of the other engines run, because to make one takes longer than most tests.
    """
    with ExitStack() as stack:

        @cache
        def database_of(engine: str) -> URL:
            url = stack.enter_context(made_database(engine, tmp_path_factory.mktemp("database")))
            upgraded(url)
            return url

        yield database_of


@pytest.fixture(scope="session")
def database_url(engine_name: str, databases: Callable[[str], URL]) -> URL:
    return databases(engine_name)


class made_database:  # noqa: N801  (a context manager reads as a verb)
    def __init__(self, engine: str, folder: Path) -> None:
        self.engine = engine
        server = SERVERS.get(engine)
        name = f"blog_test_{uuid4().hex[:12]}"
        self.server = make_url(server) if server else None
        self.url = self.server.set(database=name) if self.server else make_url(f"sqlite:///{folder / name}.db")

    def __enter__(self) -> URL:
        if self.server is not None:
            # latin1 is what an old server gives: the tables must not depend on it.
            options = " CHARACTER SET latin1" if self.engine == "mariadb" else ""
            asyncio.run(on_server(self.admin_url, f"CREATE DATABASE {self.url.database}{options}"))
        return self.url

    def __exit__(self, *_: object) -> None:
        if self.server is not None:
            force = " WITH (FORCE)" if self.engine == "postgresql" else ""
            asyncio.run(on_server(self.admin_url, f"DROP DATABASE {self.url.database}{force}"))

    @property
    def admin_url(self) -> URL:
        assert self.server is not None
        return make_settings(self.server).url


def make_settings(url: URL | None = None, **changes: Any) -> Settings:
    if url is not None:
        changes["database_url"] = url.render_as_string(hide_password=False)
    given: dict[str, Any] = {"secret_key": SECRET, "password_rounds": 4, "media_folder": MEDIA} | changes
    return Settings(_env_file=None, **given)


@pytest.fixture(scope="session")
def settings(database_url: URL) -> Settings:
    return make_settings(database_url)


@pytest.fixture(scope="session")
async def shared_app(settings: Settings, anyio_backend: str) -> AsyncIterator[FastAPI]:
    app = patient_app(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blog.security.passwords.QUEUE_TIMEOUT", HANG)  # which is looked at when a password waits
        async with app.router.lifespan_context(app):
            yield app


def patient_app(settings: Settings) -> FastAPI:
    """An app for many requests at once: what they come to must not depend on what else the machine does meanwhile.

    The tests of deadlines make impatient ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("POOL", "CONNECT", "STATEMENT", "LOCK", "ANSWER"):
            patch.setattr(f"blog.database.{name}_TIMEOUT", HANG)
        return create_app(settings)


@pytest.fixture
async def app(shared_app: FastAPI) -> AsyncIterator[FastAPI]:
    """The app over a database without a row, before the test and after it.

    Rows are deleted rather than rolled back, so that each request goes the whole way: through
    the reading and the writing engine, with a real commit between them.
    """
    yield shared_app
    await delete_all_rows(shared_app.state.database)
    shared_app.state.shelf.doubt()  # by no request that it could know of


async def delete_all_rows(database: Database) -> None:
    async with database.write.begin() as session:
        # The rest goes with its blog or user.
        for table in (Room, RoomPresence, Blog, BlogSlug, BlogChange, Tag, User, LoginFailure, IdempotencyKey):
            await session.execute(delete(table))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


@asynccontextmanager
async def with_settings(app: FastAPI, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another app over the same database."""
    settings: Settings = app.state.settings
    another = patient_app(settings.model_copy(update=changes))
    async with another.router.lifespan_context(another), client_of(another) as client:
        yield client


@pytest.fixture
def settings_apart(new_database: URL, upgraded: Callable[[URL], None]) -> Settings:
    """Those of a database at head for one test alone, whose ids begin at 1 and may go wherever they like."""
    upgraded(new_database)
    return make_settings(new_database)


@pytest.fixture
async def app_apart(settings_apart: Settings) -> AsyncIterator[FastAPI]:
    app = patient_app(settings_apart)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def factory(app: FastAPI) -> Factory:
    return Factory(app)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command finds: a folder of its own and settings in variables, of which none names a database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOG_SECRET_KEY", SECRET)
    monkeypatch.setenv("BLOG_PASSWORD_ROUNDS", "4")


@pytest.fixture
def at_head(environment: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[URL]:
    """The database that commands find: without a row, before the test and after it."""
    monkeypatch.setenv("BLOG_DATABASE_URL", settings.url.render_as_string(hide_password=False))
    yield settings.url

    async def leave() -> None:
        async with aclosing(Database(settings)) as database:
            await delete_all_rows(database)

    asyncio.run(leave())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def statements(app: FastAPI) -> Iterator[list[str]]:
    with statements_of(app) as statements:
        yield statements


@contextmanager
def statements_of(app: FastAPI) -> Iterator[list[str]]:
    """The SQL statements that go to the database, but for those that begin a transaction."""
    seen: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    engines = [engine.sync_engine for engine in app.state.database.engines]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


@contextmanager
def commits_fail(app: FastAPI) -> Iterator[None]:
    """Every commit of this app's writer fails, as one does that meets a full disk."""

    def fail(_: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk full"))

    writer = app.state.database.engines[0].sync_engine
    event.listen(writer, "commit", fail)
    try:
        yield
    finally:
        event.remove(writer, "commit", fail)


@contextmanager
def lost_database(app: FastAPI) -> Iterator[None]:
    """No statement of this app reaches the database."""
    engines = [engine.sync_engine for engine in app.state.database.engines]

    def fail(*_: object) -> None:
        raise OperationalError("execute", {}, Exception("server closed the connection"))

    for engine in engines:
        event.listen(engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", fail)


async def until_it_waits(database: Database, act: asyncio.Task[Any]) -> None:
    """Return once the server reports that this task waits for a lock of another transaction."""
    async with database.fresh() as session:
        waits = {"postgresql": _waits_on_postgresql, "mysql": _waits_on_mariadb}[session.get_bind().dialect.name]
        while not await waits(session):
            assert not act.done(), "it waited for nobody"
            await asyncio.sleep(0.01)


async def _waits_on_postgresql(session: AsyncSession) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await session.scalar(text(waiting)))


async def _waits_on_mariadb(session: AsyncSession) -> bool:
    # Its table innodb_trx is not made anew while somebody looks at it again and again.
    told = str((await session.execute(text("SHOW ENGINE INNODB STATUS"))).one()[2])
    waiting = [part for part in told.split("---TRANSACTION") if "LOCK WAIT" in part]
    found = {int(number) for part in waiting for number in re.findall(r"thread id (\d+)", part)}
    own = await session.scalars(text("SELECT id FROM information_schema.processlist WHERE db = DATABASE()"))
    return not found.isdisjoint(own)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", verify=NO_TLS).is_success
    except httpx.TransportError:
        return False


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a platform that really listens, started in `folder` with the environment as it is.

    What it prints and logs is in `server.log` there.
    """
    port = reserved_port()
    # Not a pipe: nobody reads it while the tests ask, and a server that can't write its log stands still.
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "blog", "serve"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "BLOG_PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        due = time.monotonic() + HANG
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < due, log.read_text()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=HANG)
    assert process.returncode == 0
