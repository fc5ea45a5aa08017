"""Who is measured, and what each is asked."""

import importlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import httpx
from jose import jwt

from blog.security.cursors import Cursors
from blog.security.tokens import AccessTokens
from tests.benchmarks import databases, tutorial
from tests.benchmarks.bare import BODY
from tests.benchmarks.load import Probe, Server, running
from tests.conftest import SECRET, make_settings
from tests.factories import PASSWORD

REQUESTS = CONSTANT, ONE, FIRST_PAGE, LAST_PAGE, ALL, WRITE, LOGIN, MEANWHILE = (
    "one constant blog",
    "GET /blog/{id}",
    "GET /blog/?limit=20",
    "GET /blog/?limit=20, last page",
    "GET /blog/, all",
    "POST /blog/",
    "POST /login",
    "GET /blog/{id} during logins",
)
BARE, FASTAPI, TUTORIAL, PLATFORM = "bare uvicorn", "FastAPI", "tutorial", "platform"

LIMIT = 20
LOGINS_AT_ONCE = 4
MOST_LISTED = 10_000
"""Blogs that the tutorial's shape is asked to list: that is a gigabyte already."""

LIFETIME = timedelta(hours=1)
TOKENS = AccessTokens(SECRET, str(make_settings().base_url), LIFETIME)
DRIVERS = {"sqlite": "sqlite3", "postgresql": "psycopg", "mariadb": "pymysql"}


class Contestant(NamedTuple):
    """A running server and what it is asked: the probes of one tuple at the same time."""

    name: str
    server: Server
    app: str
    reads: Sequence[tuple[Probe, ...]]
    writes: Sequence[tuple[Probe, ...]] = ()
    blogs: int = 0
    variables: dict[str, str] = {}  # noqa: RUF012  (nobody changes it)
    token: Callable[[], str] = str


@contextmanager
def floor(name: str, app: str, folder: Path) -> Iterator[Contestant]:
    """A server that asks no database."""
    with running(app, {}, folder) as server:
        yield Contestant(name, server, app, [(Probe(CONSTANT, "/"),)])


@contextmanager
def platform(engine: str, blogs: int, password_hash: str, folder: Path) -> Iterator[Contestant]:
    app, last = "blog.main:app", _last_page()
    with databases.made(engine, folder) as url:
        databases.fill_platform(engine, url, blogs, password_hash)
        variables = {"BLOG_DATABASE_URL": url.render_as_string(hide_password=False), "BLOG_SECRET_KEY": SECRET}
        with running(app, variables, folder) as server:
            _assert_last(server, last)
            reads = [(_one(ONE, blogs),), (Probe(FIRST_PAGE, f"/blog/?limit={LIMIT}"),), (last,), _logins(blogs)]
            yield Contestant(PLATFORM, server, app, reads, [(_write(),)], blogs, variables, _token)


@contextmanager
def tutorial_shape(engine: str, blogs: int, folder: Path) -> Iterator[Contestant]:
    app = "tests.benchmarks.tutorial:app"
    with databases.made(engine, folder) as url:
        url = url.set(drivername=databases.SYNC_DRIVERS[engine])
        databases.fill_tutorial(engine, url, blogs)
        text = url.render_as_string(hide_password=False)
        variables = {"TUTORIAL_DATABASE_URL": text, "TUTORIAL_SECRET_KEY": SECRET}
        with running(app, variables, folder) as server:
            reads = [(_one(ONE, blogs),)]
            if blogs <= MOST_LISTED:
                reads.append((Probe(ALL, "/blog/", alone=True),))
            yield Contestant(TUTORIAL, server, app, reads, [(_write(),)], blogs, variables, _tutorial_token)


def missing_driver(engine: str) -> str | None:
    """The driver that the tutorial's shape wants and does not find: nobody else here needs a synchronous one."""
    try:
        importlib.import_module(DRIVERS[engine])
    except ImportError:
        return DRIVERS[engine]
    return None


def _one(request: str, blogs: int) -> Probe:
    return Probe(request, "/blog/7", ids=blogs)


def _write() -> Probe:
    return Probe(WRITE, "/blog/", "POST", json.dumps({"title": "A new blog", "body": BODY}))


def _last_page() -> Probe:
    """With the cursor to which the page before the last links."""
    cursor = Cursors(SECRET).write("/blog/?", (databases.published(LIMIT + 1), LIMIT + 1))
    return Probe(LAST_PAGE, f"/blog/?{urlencode({'limit': LIMIT, 'cursor': cursor})}")


def _assert_last(server: Server, probe: Probe) -> None:
    answer = httpx.get(server.url + probe.path, headers={"Authorization": f"Bearer {_token()}"}, trust_env=False)
    assert [blog["id"] for blog in answer.raise_for_status().json()] == list(range(LIMIT, 0, -1))
    assert "Link" not in answer.headers


def _logins(blogs: int) -> tuple[Probe, Probe]:
    form = urlencode({"username": databases.email(1), "password": PASSWORD})
    login = Probe(LOGIN, "/login", "POST", form, "application/x-www-form-urlencoded", connections=LOGINS_AT_ONCE)
    return login, _one(MEANWHILE, blogs)


def _token() -> str:
    return TOKENS.issue(databases.public_id(1), databases.public_id(1))


def _tutorial_token() -> str:
    claims = {"sub": databases.email(1), "exp": int(time.time() + LIFETIME.total_seconds())}
    return jwt.encode(claims, SECRET, tutorial.ALGORITHM)
