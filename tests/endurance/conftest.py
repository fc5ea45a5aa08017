"""Servers and figures of the tests of endurance.

PostgreSQL and MariaDB are started from the programs that are installed here; nothing else needs to run.

- `--full` takes the large ones of the numbers in `numbers.py`, and asserts times.
- `BLOG_TEST_TOLERANCE` is how many times as long as demanded things may take then, 1 by default; a machine that does
  other things too needs more. What may be lost is nothing in any case.
- With `BLOG_TEST_COMPLETE` these tests fail without the programs of one of the engines.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from uuid import uuid4

import alembic.command
import pytest
import sqlalchemy as sa

from blog.database import alembic_config
from tests.conftest import ALL_ENGINES, COMPLETE, make_settings
from tests.endurance.figures import Figures
from tests.endurance.numbers import FULL, SMALL, Numbers
from tests.endurance.servers import SERVERS, DatabaseServer

FOLDER = Path(__file__).parent
ENGINES = [name for name in ALL_ENGINES if name == "sqlite" or SERVERS[name].is_installed()]

NUMBERS: Numbers = SMALL
"""Those of this run: set before a module of tests here is imported."""


def pytest_configure(config: pytest.Config) -> None:
    global NUMBERS
    NUMBERS = FULL if config.getoption("--full") else SMALL


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not make a test of each operation of the API only to deselect it."""
    is_left_out = "not endurance" in config.option.markexpr
    return True if is_left_out and collection_path.name == "test_schema.py" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker("endurance")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    # The collector of our own process would be seen as the platform's slowness: 100 ms at a time.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
    figures = getattr(item, "funcargs", {}).get("figures")
    if figures is not None and figures.missed:
        pytest.fail("\n".join(figures.missed), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _all_engines() -> None:
    missing = set(ALL_ENGINES) - set(ENGINES)
    if COMPLETE and missing:
        raise pytest.UsageError(f"no server to test {', '.join(sorted(missing))} on: install it")


@pytest.fixture(scope="session", autouse=True)
def _end_servers_on_sigterm() -> Iterator[None]:
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module", autouse=True)
def _short_switch_interval() -> Iterator[None]:
    interval = sys.getswitchinterval()
    # Ten clients' threads that each keep the interpreter for 5 ms would be seen as the platform's slowness, too.
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    tolerance = float(os.environ.get("BLOG_TEST_TOLERANCE", "1")) if NUMBERS.is_full else None
    return Figures(request.node, tolerance)


DatabaseMaker = Callable[[str, Path], sa.URL]


@pytest.fixture(scope="session")
def make_database() -> Iterator[DatabaseMaker]:
    """A function that makes a database at head: in this folder, or on a server that no test stops."""
    with ExitStack() as stack:

        @cache
        def server_of(engine: str) -> DatabaseServer:
            return stack.enter_context(SERVERS[engine]())

        def make(engine: str, folder: Path) -> sa.URL:
            if engine in SERVERS:
                url = server_of(engine).make_database(f"blog_{uuid4().hex[:12]}")
            else:
                url = sa.make_url(f"sqlite:///{folder / 'blog.db'}")
            migrate(url)
            return url

        yield make


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, make_database: DatabaseMaker, tmp_path: Path) -> sa.URL:
    return make_database(request.param, tmp_path)


@pytest.fixture(params=ENGINES[1:])
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A server of the test's own, with a database at head."""
    with SERVERS[request.param]() as server:
        migrate(server.url)
        yield server


def migrate(url: sa.URL) -> None:
    alembic.command.upgrade(alembic_config(make_settings(url)), "head")
