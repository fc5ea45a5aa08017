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

from blog.security import access
from blog.security.cursors import Cursors
from blog.security.tokens import AccessTokens
from tests.benchmarks import databases, tutorial
from tests.benchmarks.bare import BODY
from tests.benchmarks.load import Probe, Server, running
from tests.conftest import SECRET, make_settings
from tests.factories import PASSWORD

SEARCHES = {
    "a word of 1 blog in 100,000": "rare",
    "of 1 in 1,000": "thousandth",
    "of 1 in 10": "tenth",
    "of every second": "second",
    "two common words": "second third",
    "a phrase": '"loom weaves flowers"',
    "no blog's word": "nowhere",
}
"""What is searched for: see WORDS in `databases`."""

PAGES = {"home": "/", "post": "/posts/blog-7", "feed": "/feed.atom"}
KEPT, ANEW = "a kept {}", "a {} made anew"

CONSTANT, ONE, FIRST_PAGE, LAST_PAGE, ALL, WRITE, LOGIN, MEANWHILE, *FOUND = REQUESTS = (
    "one constant blog",
    "GET /blog/{id}",
    "GET /blog/?limit=20",
    "GET /blog/?limit=20, last page",
    "GET /blog/, all",
    "POST /blog/",
    "POST /login",
    "GET /blog/{id} during logins",
    *(f"?q= {kind}" for kind in SEARCHES),
    *(form.format(page) for page in PAGES for form in (KEPT, ANEW)),
)
FOUND = FOUND[: len(SEARCHES)]
BARE, FASTAPI, STARLETTE, TUTORIAL, PLATFORM = "bare uvicorn", "FastAPI", "Starlette", "tutorial", "platform"

LIMIT = 20
LOGINS_AT_ONCE = 4
MOST_LISTED = 10_000
"""Blogs that the tutorial's shape is asked to list: that is a gigabyte already."""

LIFETIME = timedelta(hours=1)
TOKENS = AccessTokens([SECRET], make_settings().issuer)
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
            reads += [(_search(server, kind, blogs),) for kind in SEARCHES]
            for page, path in PAGES.items():
                # What has a query that no page knows is not kept.
                reads += [(Probe(KEPT.format(page), path),), (Probe(ANEW.format(page), f"{path}?anew"),)]
            yield Contestant(PLATFORM, server, app, reads, [(_write(),)], blogs, variables, token)


@contextmanager
def constant_pages(platform: Contestant, folder: Path) -> Iterator[Contestant]:
    """As many bytes as each page of this platform has."""
    app = "tests.benchmarks.page:app"
    with running(app, {}, folder) as server:
        sizes = {page: len(_page(platform.server, path)) for page, path in PAGES.items()}
        reads = [(Probe(KEPT.format(page), f"/{size}"),) for page, size in sizes.items()]
        yield Contestant(STARLETTE, server, app, reads, blogs=platform.blogs)


def _page(server: Server, path: str) -> bytes:
    answer = httpx.get(server.url + path, trust_env=False)
    assert answer.headers["ETag"], "not kept"
    return answer.raise_for_status().content


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
    cursor = Cursors([SECRET]).write("/blog/?", (databases.published(LIMIT + 1), LIMIT + 1))
    return Probe(LAST_PAGE, f"/blog/?{urlencode({'limit': LIMIT, 'cursor': cursor})}")


def _assert_last(server: Server, probe: Probe) -> None:
    answer = httpx.get(server.url + probe.path, headers={"Authorization": f"Bearer {token()}"}, trust_env=False)
    assert [blog["id"] for blog in answer.raise_for_status().json()] == list(range(LIMIT, 0, -1))
    assert "Link" not in answer.headers


def _search(server: Server, kind: str, blogs: int) -> Probe:
    """The first page of what is found, which is asked once to see that it is there."""
    probe = Probe(f"?q= {kind}", f"/blog/?{urlencode({'q': SEARCHES[kind], 'limit': LIMIT})}")
    answer = httpx.get(server.url + probe.path, headers={"Authorization": f"Bearer {token()}"}, trust_env=False)
    assert len(answer.raise_for_status().json()) == min(LIMIT, databases.holding(SEARCHES[kind], blogs)), kind
    return probe


def _logins(blogs: int) -> tuple[Probe, Probe]:
    form = urlencode({"username": databases.email(1), "password": PASSWORD})
    login = Probe(LOGIN, "/login", "POST", form, "application/x-www-form-urlencoded", connections=LOGINS_AT_ONCE)
    return login, _one(MEANWHILE, blogs)


def token() -> str:
    return TOKENS.issue(databases.public_id(1), databases.LOGIN, access.ALL, seconds=int(LIFETIME.total_seconds()))


def _tutorial_token() -> str:
    claims = {"sub": databases.email(1), "exp": int(time.time() + LIFETIME.total_seconds())}
    return jwt.encode(claims, SECRET, tutorial.ALGORITHM)
