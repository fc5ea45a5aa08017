"""Servers and figures of the tests of endurance.

PostgreSQL and MariaDB are started from the programs that are installed here; nothing else needs to run.

- `BLOG_TEST_ENGINES` names engines that must be tested: a run without the programs of one fails.
- `BLOG_TEST_CYCLES` is how often a server is killed, 25 by default.
- `BLOG_TEST_OUTAGE` is for how many seconds a database is away or locked, 10 by default.
- `BLOG_TEST_WRITING` is for how many seconds clients write while others follow and page, 30 by default.
- `BLOG_TEST_TOLERANCE` is how many times as long as demanded things may take, 1 by default; a machine that does
  other things too needs more. What may be lost is nothing in any case.
"""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import alembic.command
import pytest
import sqlalchemy as sa

from blog.database import alembic_config
from tests import conftest as above
from tests.conftest import ALL_ENGINES, make_settings
from tests.endurance.servers import SERVERS, DatabaseServer

ENGINES = [name for name in ALL_ENGINES if name == "sqlite" or SERVERS[name].is_installed()]

# What the run says of its engines, and whether one is missing, is a matter of programs here and not of addresses.
above.ENGINES[:] = ENGINES
above.CURE = "install its server"

# Told to end, a run ends its servers first.
signal.signal(signal.SIGTERM, signal.default_int_handler)

CYCLES = int(os.environ.get("BLOG_TEST_CYCLES", "25"))
OUTAGE = float(os.environ.get("BLOG_TEST_OUTAGE", "10"))
WRITING = float(os.environ.get("BLOG_TEST_WRITING", "30"))
TOLERANCE = float(os.environ.get("BLOG_TEST_TOLERANCE", "1"))

# Ten clients' threads that each keep the interpreter for 5 ms would be seen as the platform's slowness.
sys.setswitchinterval(0.0005)


@dataclass
class Figures:
    """What the platform is held to and what was seen of it. One that is missed fails the test once it is through."""

    test: str
    missed: list[str] = field(default_factory=list)

    def at_most(self, what: str, demanded: float, seen: float, *, slack: float = 0.0) -> None:
        """Seconds. `slack` is what the machine may add without the platform being at fault; the table shows it."""
        tolerated = (demanded + slack) * TOLERANCE
        verdict = "" if seen <= demanded else "within slack" if seen <= tolerated else "MISSED"
        self._note(what, f"≤ {demanded:g} s", f"{seen:.3g} s", verdict)

    def at_least(self, what: str, demanded: int, seen: int) -> None:
        """How many there were: a test in which nothing happened proves nothing."""
        self._note(what, f"≥ {demanded}", str(seen), "" if seen >= demanded else "MISSED")

    def no_more_than(self, what: str, demanded: int, seen: int, unit: str) -> None:
        """Of something that takes no longer on a busy machine, and so has no tolerance."""
        self._note(what, f"≤ {demanded} {unit}", f"{seen} {unit}", "" if seen <= demanded else "MISSED")

    def equal(self, what: str, demanded: object, seen: object) -> None:
        self._note(what, str(demanded), str(seen), "" if seen == demanded else "MISSED")

    def seen(self, what: str, seen: object) -> None:
        """Nothing is demanded of this one."""
        self._note(what, "", str(seen), "")

    def _note(self, what: str, demanded: str, seen: str, verdict: str) -> None:
        table.append((self.test, what, demanded, seen, verdict))
        if verdict == "MISSED":
            self.missed.append(f"{what}: demanded {demanded}, seen {seen}")


table: list[tuple[str, str, str, str, str]] = []


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node.name.removeprefix("test_"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    # The collector of our own process would be seen as the platform's slowness, too: 100 ms at a time.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
    figures = getattr(item, "funcargs", {}).get("figures")
    if figures is not None and figures.missed:
        pytest.fail("\n".join(figures.missed), pytrace=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not table:
        return
    terminalreporter.section("demanded and seen")
    widths = [max(len(row[column]) for row in table) for column in (1, 2, 3)]
    test = None
    for row in table:
        if row[0] != test:
            test = row[0]
            terminalreporter.write_line(test, bold=True)
        cells = "  ".join(text.ljust(width) for text, width in zip(row[1:4], widths, strict=True))
        terminalreporter.write_line(f"  {cells}  {row[4]}".rstrip(), red=row[4] == "MISSED")


@contextmanager
def database_at_head(engine: str, folder: Path) -> Iterator[sa.URL]:
    """A database of the test's own, on a server of its own."""
    with ExitStack() as stack:
        if engine in SERVERS:
            url = stack.enter_context(SERVERS[engine]()).url
        else:
            url = sa.make_url(f"sqlite:///{folder / 'blog.db'}")
        migrate(url)
        yield url


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.URL]:
    with database_at_head(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=ENGINES[1:])
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A server of the test's own, with a database at head."""
    with SERVERS[request.param]() as server:
        migrate(server.url)
        yield server


def migrate(url: sa.URL) -> None:
    alembic.command.upgrade(alembic_config(make_settings(url)), "head")
