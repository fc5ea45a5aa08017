"""What no browser sends, at everything that takes a form or shows a page of one's own: refused, and never a fault."""

from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import make_url

from blog.app import create_app
from blog.errors import DatabaseUnavailable
from blog.models import User
from blog.security.opaque import make_cookie, read_cookie
from blog.site import account, desk, discussion
from tests.answers import code
from tests.conftest import ALL_ENGINES, client_of, make_settings, on
from tests.factories import PASSWORD, Factory
from tests.site.browser import COOKIE, Browser, Page
from tests.test_unavailable import no_writes

ROUTERS = (account.router, desk.router, discussion.router, discussion.form_router)
ROUTES = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
]
GETS = [path for method, path in ROUTES if method == "GET"]
POSTS = [path for method, path in ROUTES if method == "POST"]

FIELDS = (
    *("username", "password", "next", "name", "email", "title", "body", "summary", "tags", "slug", "status"),
    *("publish_at", "etag", "about", "current_password", "new_password", "scopes", "role", "is_active"),
)
VALUES = {
    "NUL": "a\x00b",
    "controls": "\x01\x1b[31m\r\n\x85\u2028",
    "long": "x" * 60_000,
    "digits": "9" * 5_000,
    "negative": "-1",
    "direction": "\u202eevil\u2066",
    "noncharacter": "\uffff\U0010ffff",
    "template": "{{ 7 * 7 }}{% raw %}%s%(x)s",
    "quotes": "'\"`;-- </textarea><script>alert(1)</script>",
    "nothing": "",
    "blank": " \t\n\u3164",
}
OF_ENGINES = ("NUL", "digits", "direction", "noncharacter")
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"


def multipart(value: bytes, disposition: str = 'form-data; name="{}"') -> bytes:
    head = "--b\r\nContent-Disposition: {}\r\n\r\n"
    return b"".join(head.format(disposition.format(name)).encode() + value + b"\r\n" for name in FIELDS) + b"--b--\r\n"


BODIES: dict[str, tuple[str, bytes]] = {
    **{kind: (URLENCODED, urlencode(dict.fromkeys(FIELDS, value)).encode()) for kind, value in VALUES.items()},
    "half of a pair": (URLENCODED, "&".join(f"{name}=%ED%A0%80" for name in FIELDS).encode()),
    "no UTF-8": (URLENCODED, b"&".join(name.encode() + b"=\xff\xfe%ff%C0%80" for name in FIELDS)),
    "repeated": (URLENCODED, urlencode([(name, n) for name in FIELDS for n in range(20)]).encode()),
    "of too many fields": (URLENCODED, b"a=1&" * 5_000),
    "broken escapes": (URLENCODED, b"&&==;;%%%zz=%&title=%u0041&=&"),
    "no form": ("application/json", b'{"title": "T", "body": "B"}'),
    "broken JSON": ("application/json", b"{"),
    "text": ("text/plain", b"title=T"),
    "no type": ("", b"title=T"),
    "unknown type": ("a/b/c; charset=\xff", b"title=T"),
    "missing": (URLENCODED, b""),
    "in parts": (MULTIPART, multipart(b"x")),
    "in parts of nothing": (MULTIPART, b""),
    "in parts without an end": (MULTIPART, multipart(b"x")[:-9]),
    "in parts without a boundary": ("multipart/form-data", multipart(b"x")),
    "files": (MULTIPART, multipart(b"x", 'form-data; name="{}"; filename="a"')),
    "in halves of pairs": (f"{MULTIPART}; charset=unicode_escape", multipart(rb"\ud800")),
    "in no coding": (f"{MULTIPART}; charset=undefined", multipart(b"x")),
    "in a coding of hosts": (f"{MULTIPART}; charset=idna", multipart(b"xn--a.\xff")),
}
SENT = {
    "username": "root@example.com",
    "password": PASSWORD,
    "name": "Ada",
    "email": "ada@example.com",
    "title": "T",
    "body": "B",
    "status": "draft",
    "role": "author",
    "is_active": "true",
    "scopes": "blog:read",
    "current_password": PASSWORD,
    "new_password": "another horse battery",
}
"""What every form takes."""
NAMES = dict.fromkeys(("{blog_id:id}", "{user_id}", "{session_id}", "{token_id}", "{number}"), "1") | {
    "{slug}": "notes"
}
NUMBERS = ("0", "007", "2147483648", "9999999999", "99999999999", "9" * 5_000, "1.5", "%00", "٣")


@pytest.fixture
async def ada(factory: Factory) -> User:
    """An admin, with something behind every address."""
    user = await factory.admin()
    post = await factory.blog(user, "Notes", "It weaves.", slug="notes")
    assert post.slug == "notes"
    await factory.personal_token(user)
    return user


@pytest.fixture
async def browser(client: httpx.AsyncClient, ada: User) -> Browser:
    browser = Browser(client)
    await browser.log_in(ada)
    return browser


async def addresses(client: httpx.AsyncClient, browser: Browser, user: User, headers: dict[str, str]) -> dict[str, str]:
    """What stands for the ids in paths."""
    (post,) = (await client.get("/blog/?fields=id", headers=headers)).json()
    (session, *_) = (await client.get("/user/me/sessions", headers=headers)).json()
    (token,) = (await client.get("/user/me/tokens", headers=headers)).json()
    found = {
        "{blog_id:id}": post["id"],
        "{user_id}": user.id,
        "{session_id}": session["id"],
        "{token_id}": token["id"],
    }
    return NAMES | {name: str(number) for name, number in found.items()}


def token_of(browser: Browser) -> str:
    """What its forms have in them."""
    cookie = read_cookie(browser.cookie)
    assert cookie is not None
    return cookie.form_token


def filled(path: str, ids: dict[str, str]) -> str:
    for name, number in ids.items():
        path = path.replace(name, number)
    assert "{" not in path
    return path


class Answers:
    """What requests were answered, by path."""

    def __init__(self) -> None:
        self._let_in: dict[str, bool] = {}
        self._faults: list[tuple[Any, ...]] = []

    def note(self, path: str, response: httpx.Response, *asked: str) -> None:
        is_turned_away = response.headers.get("location", "").startswith("/login?") or response.status_code == 403
        self._let_in[path] = self._let_in.get(path, False) or not is_turned_away
        if response.status_code >= 500:
            self._faults.append((path, *asked, response.status_code))

    def assert_no_fault(self, *turned_away: str) -> None:
        """And that each path, but for these, looked at what it was sent rather than turned it away."""
        assert self._faults == []
        assert {path for path, is_let_in in self._let_in.items() if not is_let_in} <= {*turned_away}


async def send(client: httpx.AsyncClient, browser: Browser, ada: User, factory: Factory, kind: str) -> Answers:
    media_type, body = BODIES[kind]
    ids = await addresses(client, browser, ada, factory.login(ada))
    answers = Answers()
    for path in POSTS:
        await browser.log_in(ada)  # what was sent before may have ended the login
        own = browser.headers | {"X-Form-Token": token_of(browser)}
        headers = httpx.Headers({**own, "Content-Type": media_type}, encoding="latin-1")
        answers.note(path, await client.post(filled(path, ids), content=body, headers=headers))
    return answers


@pytest.mark.parametrize(
    ("engine_name", "kind"),
    # What text may hold differs between engines; the rest is refused or taken before they are asked.
    [(name, kind) for name in ALL_ENGINES for kind in VALUES if name == "sqlite" or kind in OF_ENGINES],
    indirect=["engine_name"],
    scope="session",
)
async def test_values(client: httpx.AsyncClient, browser: Browser, ada: User, factory: Factory, kind: str) -> None:
    answers = await send(client, browser, ada, factory, kind)
    answers.assert_no_fault("/desk/account/password")  # which turns away who does not know the current one


@on("sqlite")
@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind not in VALUES])
async def test_bodies(client: httpx.AsyncClient, browser: Browser, ada: User, factory: Factory, kind: str) -> None:
    answers = await send(client, browser, ada, factory, kind)
    answers.assert_no_fault("/desk/account/password")  # which turns away who does not know the current one


@pytest.mark.parametrize("number", NUMBERS)
async def test_paths(client: httpx.AsyncClient, browser: Browser, ada: User, factory: Factory, number: str) -> None:
    known = await addresses(client, browser, ada, factory.login(ada))
    answers = Answers()
    for (method, path), name in product(ROUTES, known):
        if name not in path:
            continue
        headers = browser.headers | {"X-Form-Token": token_of(browser)}
        response = await client.request(method, filled(path, known | {name: number}), headers=headers)
        answers.note(path, response, method)
    answers.assert_no_fault()


def queries_of(dependant: Any) -> set[str]:
    """Names of what a route reads from a query."""
    return {field.alias for field in dependant.query_params}.union(*map(queries_of, dependant.dependencies))


QUERIES = sorted(
    (route.path, name)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and route.methods == {"GET"}
    for name in queries_of(route.dependant)
)


async def test_queries(client: httpx.AsyncClient, browser: Browser, ada: User, factory: Factory) -> None:
    assert {name for _, name in QUERIES} == {"before", "q", "next", "status", "diff"}
    ids = await addresses(client, browser, ada, factory.login(ada))
    places = ("0-0", "9999999999-9999999999", "-1--1", "1-", "2147483648", "9999999999", "1", "/\ufffd")
    answers = Answers()
    for path, name in QUERIES:
        queries = [urlencode({name: value}) for value in (*VALUES.values(), *places)]
        for query in (*queries, f"{name}=%ED%A0%80&{name}=%ff&{name}"):
            page = await browser.get(f"{filled(path, ids)}?{query}")
            answers.note(path, page.response, query[:50])
    answers.assert_no_fault()


@on("sqlite")
@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "null", "http://127.0.0.1:8000@evil.example"])
async def test_origins(browser: Browser, origin: str) -> None:
    for path in ("/login", "/desk/new"):
        page = await browser.post(path, {}, Origin=origin)
        assert page.response.status_code == 403, path


@on("sqlite")
async def test_a_file_beside_a_form_in_another_coding(browser: Browser, client: httpx.AsyncClient) -> None:
    """The API's, too."""
    headers = browser.headers | {"X-Form-Token": token_of(browser), "Content-Type": f"{MULTIPART}; Charset='undefined'"}
    for path in ("/desk/media", "/media/", "/login"):
        response = await client.post(path, content=multipart(b"x"), headers=headers | {"Accept": "application/json"})
        assert code(response) == (400, "bad_request"), path


READ_ONLY = ("/forgotten", "/desk/preview")
NEED_NO_DATABASE = {("GET", "/login"), ("GET", "/register"), ("GET", "/forgotten")}


class TestLostDatabase:
    """A page says so, whatever was asked for or sent."""

    def assert_told(self, page: Page, path: str) -> None:
        assert page.response.status_code == 503, path
        assert page.response.headers["content-type"].startswith("text/html"), path
        assert int(page.response.headers["retry-after"]) > 0
        # Beside a form, so that what was typed is not lost, or on a page of its own.
        assert DatabaseUnavailable.detail in f"{page.told} {page.main}", path

    async def test_that_is_not_there(self, tmp_path: Path) -> None:
        lost = create_app(make_settings(make_url(f"sqlite:///{tmp_path}/missing/blog.db")))
        async with lost.router.lifespan_context(lost), client_of(lost) as client:
            browser = Browser(client)
            browser.headers["Cookie"] = f"{COOKIE}={make_cookie()}"
            for method, path in ROUTES:
                url = filled(path, NAMES)
                if (method, path) in NEED_NO_DATABASE:
                    assert (await browser.get(url)).response.status_code == 200
                elif method == "GET":
                    self.assert_told(await browser.get(url), path)
                else:
                    fields = SENT | {"form_token": token_of(browser)}
                    self.assert_told(await browser.post(url, fields), path)

    async def test_that_takes_no_writes(
        self, app: FastAPI, client: httpx.AsyncClient, browser: Browser, ada: User, factory: Factory
    ) -> None:
        ids = await addresses(client, browser, ada, factory.login(ada))
        fields = SENT | {"form_token": token_of(browser)}
        for moment in ("begin", "commit"):
            async with no_writes(app, at=moment):
                for path in POSTS:
                    page = await browser.post(filled(path, ids), fields)
                    if path in READ_ONLY:
                        assert page.response.status_code == 200, path
                    elif path != "/desk/media":
                        self.assert_told(page, path)
                for path in GETS:
                    status = (await browser.get(filled(path, ids))).response.status_code
                    assert status in (200, 404), path
