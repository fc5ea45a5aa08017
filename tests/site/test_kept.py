"""Pages that are made once: for how long each is kept, how it is given, and what becomes of it without a database."""

import asyncio
import gzip
import logging
import time
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.datastructures import Headers

from blog.app import create_app
from blog.models import Blog, User
from blog.repository.page import PageRepository
from blog.settings import Settings
from blog.site.kept import takes_gzip
from tests.conftest import HANG, client_of, lost_database, on
from tests.factories import PASSWORD, Factory
from tests.site.conftest import Document

HTML = {"Accept": "text/html"}
BODY = "It weaves algebraical patterns, as a loom weaves flowers. " * 40


@pytest.fixture
async def post(app: FastAPI, factory: Factory) -> tuple[User, Blog]:
    author = await factory.user("Ada")
    blog = await factory.blog(author, "Notes", BODY, tags=["looms"])
    app.state.shelf.doubt()
    return author, blog


@pytest.fixture
def long_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks again by itself: only for a reason."""
    monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", 1_000)


@pytest.fixture
async def settled(post: tuple[User, Blog], long_looks: None) -> None:
    """A post, and nobody who looks for anything else."""


@pytest.fixture
async def elsewhere(settings: Settings, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another worker over the same database."""
    other = create_app(settings)
    async with other.router.lifespan_context(other), client_of(other) as client:
        yield client


async def read(client: httpx.AsyncClient, path: str = "/posts/notes", **headers: str) -> httpx.Response:
    return await client.get(path, headers=HTML | headers)


def title(response: httpx.Response) -> str:
    return Document(response).texts(".//h1")[0]


def kept(app: FastAPI) -> set[tuple[str, bytes]]:
    return set(app.state.shelf._pages)


class TestOnce:
    @on("sqlite")
    async def test_is_made_once_and_then_given(
        self, client: httpx.AsyncClient, settled: None, post: tuple[User, Blog], statements: list[str]
    ) -> None:
        author, _ = post
        for path in (
            "/",
            "/posts/notes",
            "/tags/looms",
            f"/authors/{author.id}",
            "/archive",
            "/feed.atom",
            "/sitemap.xml",
        ):
            first = await read(client, path)
            statements.clear()
            second = await read(client, path)
            assert statements == []
            assert second.content == first.content
            assert second.headers["etag"] == first.headers["etag"]

    async def test_whether_anything_changed_is_asked_now_and_then(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        settled: None,
        statements: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        await read(client)
        monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", -1)
        statements.clear()
        await read(client)
        assert len(statements) == 1
        assert "max(blog_change.public_number)" in statements[0]

    @on("sqlite")
    async def test_by_two_at_once(self, client: httpx.AsyncClient, settled: None) -> None:
        answers = await asyncio.gather(*(read(client) for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1

    async def test_a_draft_that_is_saved_throws_no_page_away(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        settled: None,
        post: tuple[User, Blog],
        statements: list[str],
    ) -> None:
        await read(client)
        login = factory.login(post[0])
        draft = {"title": "Hidden", "body": "Text", "status": "draft"}
        created = await client.post("/blog/", json=draft, headers=login)
        await client.patch(f"/blog/{created.json()['id']}", json={"body": "More", "tags": ["looms"]}, headers=login)
        await client.delete(f"/blog/{created.json()['id']}", headers=login)
        statements.clear()
        await read(client)
        assert len(statements) == 1, "not the state alone"

    @on("sqlite")
    @pytest.mark.parametrize(
        "path", ["/posts/notes?x=1", "/posts/notes?before=1-1", "/?x", "/?before=", "/?before=9999999999-1&x=1"]
    )
    async def test_one_with_a_query_of_anybodys_is_not_kept(
        self, app: FastAPI, client: httpx.AsyncClient, post: tuple[User, Blog], path: str
    ) -> None:
        for page in ("/archive?before=1-1", "/feed.atom?before=1-1", "/search?q=notes", "/search", path):
            before = kept(app)
            assert (await read(client, page)).status_code == 200
            assert kept(app) - before <= {("/", b"before=")}

    @on("sqlite")
    @pytest.mark.parametrize(
        "path", ["/nowhere", "/posts/nowhere", "/tags/Looms", "/?before=1-1", "/blog/x", "/user/me"]
    )
    async def test_what_is_no_page_is_not_kept(
        self, app: FastAPI, client: httpx.AsyncClient, post: tuple[User, Blog], path: str
    ) -> None:
        before = kept(app)
        assert (await read(client, path)).status_code != 200
        assert kept(app) == before


class TestChange:
    async def test_is_shown_by_who_made_it_at_once(
        self, client: httpx.AsyncClient, factory: Factory, settled: None, post: tuple[User, Blog]
    ) -> None:
        _, blog = post
        login = factory.login(post[0])
        assert title(await read(client)) == "Notes"
        for number in range(5):
            await client.patch(f"/blog/{blog.id}", json={"title": f"Notes {number}"}, headers=login)
            assert title(await read(client)) == f"Notes {number}"
            assert f"Notes {number}" in (await read(client, "/")).text
            assert f"Notes {number}" in (await read(client, "/feed.rss")).text
        await client.delete(f"/blog/{blog.id}", headers=login)
        assert (await read(client)).status_code == 410

    async def test_is_shown_by_every_other_worker_soon(
        self,
        client: httpx.AsyncClient,
        elsewhere: httpx.AsyncClient,
        factory: Factory,
        post: tuple[User, Blog],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        author, blog = post
        monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", 0.01)
        login = factory.login(author)
        assert title(await read(elsewhere)) == "Notes"
        await client.patch(f"/blog/{blog.id}", json={"title": "Engines"}, headers=login)
        await self.comes_true(elsewhere, lambda page: title(page) == "Engines")
        await client.patch("/user/me", json={"name": "Countess"}, headers=login)
        await self.comes_true(elsewhere, lambda page: "Countess" in page.text)
        await client.delete(f"/blog/{blog.id}", headers=login)
        await self.comes_true(elsewhere, lambda page: page.status_code == 410)

    async def comes_true(self, client: httpx.AsyncClient, is_true: Any) -> None:
        due = time.monotonic() + HANG
        while not is_true(await read(client)):
            assert time.monotonic() < due
            await asyncio.sleep(0.01)

    async def test_of_a_profile_is_one_of_every_page(
        self, client: httpx.AsyncClient, factory: Factory, settled: None, post: tuple[User, Blog]
    ) -> None:
        login = factory.login(post[0])
        path = f"/authors/{post[0].id}"
        for name, number in product(("name", "about"), range(5)):
            await read(client, path)
            await client.patch("/user/me", json={name: f"Countess {number}"}, headers=login)
            assert f"Countess {number}" in (await read(client, path)).text

    async def test_that_no_page_shows_throws_none_away(
        self, client: httpx.AsyncClient, factory: Factory, settled: None, post: tuple[User, Blog], statements: list[str]
    ) -> None:
        root = factory.login(await factory.admin())
        await read(client)
        new = {"name": "Bob", "email": "bob@example.com", "password": PASSWORD}
        assert (await client.post("/user/", json=new)).status_code == 201
        for change in ({"role": "reader"}, {"is_active": False}):
            assert (await client.patch(f"/user/{post[0].id}", json=change, headers=root)).status_code == 200
        statements.clear()
        await read(client)
        assert len(statements) == 1, "not the state alone"

    async def test_somebody_who_goes_is_named_no_more(
        self, client: httpx.AsyncClient, factory: Factory, settled: None, post: tuple[User, Blog]
    ) -> None:
        root = factory.login(await factory.admin())
        bob = await factory.user("Bob")
        room = (await client.get(f"/blog/{post[1].id}/room", headers=factory.login(bob))).json()
        await client.post(f"/room/{room['id']}/messages", json={"body": "Well woven."}, headers=factory.login(bob))
        assert "Bob" in (await read(client)).text
        assert (await client.delete(f"/user/{bob.id}", headers=root)).status_code == 204
        page = (await read(client)).text
        assert "Well woven." in page
        assert "Bob" not in page

    async def test_of_what_renders_is_one_of_every_page(
        self, app: FastAPI, client: httpx.AsyncClient, settled: None, post: tuple[User, Blog]
    ) -> None:
        """Bodies are rendered again past this process, and not as a change of theirs."""
        async with app.state.database.write.begin() as session:
            await session.execute(update(Blog).values(html="<p>Before</p>", renderer=0))
        app.state.shelf.doubt()
        assert "Before" in (await read(client)).text
        async with app.state.database.write.begin() as session:
            await session.execute(update(Blog).values(html="<p>After</p>", renderer=1))
        app.state.shelf.doubt()
        assert "After" in (await read(client)).text

    async def test_that_is_refused_is_none(
        self, client: httpx.AsyncClient, settled: None, post: tuple[User, Blog], statements: list[str]
    ) -> None:
        await read(client)
        assert (await client.patch(f"/blog/{post[1].id}", json={"title": "x"})).status_code == 401
        statements.clear()
        await read(client)
        assert statements == []

    async def test_while_somebody_looks_is_not_overlooked(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        settled: None,
        post: tuple[User, Blog],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Who looked before it learns of it late, and must not be believed."""
        await read(client)
        assert "Engines" not in (await read(client, "/")).text
        looked, told = asyncio.Event(), asyncio.Event()
        state = PageRepository.state
        holds = iter([True])
        held: set[asyncio.Task[Any]] = set()

        async def hold_up_the_first(self: PageRepository) -> Any:
            found = await state(self)
            if next(holds, False):
                held.update(filter(None, [asyncio.current_task()]))
                looked.set()
                await told.wait()
            return found

        monkeypatch.setattr(PageRepository, "state", hold_up_the_first)
        monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", -1)
        early = asyncio.create_task(read(client))
        await looked.wait()
        monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", 1_000)
        await client.patch(f"/blog/{post[1].id}", json={"title": "Engines"}, headers=factory.login(post[0]))
        wait = asyncio.wait

        async def let_go_whom_somebody_waits_for(looks: Any, **limit: Any) -> Any:
            """Whoever still waits for the first look is told what it saw, rather than never anything."""
            if not held.isdisjoint(looks):
                told.set()
            return await wait(looks, **limit)

        monkeypatch.setattr("blog.site.kept.asyncio.wait", let_go_whom_somebody_waits_for)
        assert title(await read(client)) == "Engines"
        told.set()
        await asyncio.wait([*held, early])  # the request may have been answered before the look is over
        assert "Engines" in (await read(client, "/")).text
        assert title(await read(client)) == "Engines"


class TestDiscussed:
    """A page that shows what was said of a post is kept like any other, for as long as nobody says anything."""

    async def test_is_given_until_something_is_said_removed_or_closed(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        settled: None,
        post: tuple[User, Blog],
        statements: list[str],
    ) -> None:
        root, bob = factory.login(await factory.admin()), factory.login(await factory.user("Bob"))
        room = f"/room/{(await client.get(f'/blog/{post[1].id}/room', headers=bob)).json()['id']}"
        for method, path, body, login, shown in [
            ("POST", f"{room}/messages", {"body": "Well woven."}, bob, "Well woven."),
            ("POST", f"{room}/messages", {"body": "Indeed."}, root, "Indeed."),
            ("DELETE", f"{room}/messages/1", None, bob, "This message was removed."),
            ("PATCH", room, {"is_closed": True}, root, "It is closed"),
        ]:
            before = await read(client)
            assert shown not in before.text
            assert (await client.request(method, path, json=body, headers=login)).is_success
            first = await read(client)
            assert shown in first.text
            statements.clear()
            assert (await read(client)).content == first.content
            assert statements == [], "it was made once more before anybody looked"
            app.state.shelf.doubt()
            assert (await read(client)).content == first.content
            assert len(statements) == 2, "not the state and the rooms alone"
            statements.clear()
            assert (await read(client)).content == first.content
            assert statements == []

    async def test_what_is_said_elsewhere_is_seen_with_the_next_look(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        elsewhere: httpx.AsyncClient,
        factory: Factory,
        settled: None,
        post: tuple[User, Blog],
    ) -> None:
        bob = factory.login(await factory.user("Bob"))
        room = (await client.get(f"/blog/{post[1].id}/room", headers=bob)).json()["id"]
        for body in ("Well woven.", "Indeed."):
            assert body not in (await read(client)).text
            said = await elsewhere.post(f"/room/{room}/messages", json={"body": body}, headers=bob)
            assert said.status_code == 201
            assert body not in (await read(client)).text, "this worker has not looked yet"
            app.state.shelf.doubt()
            assert body in (await read(client)).text


@on("sqlite")
class TestGiven:
    async def test_not_to_who_has_it(self, client: httpx.AsyncClient, settled: None) -> None:
        for path in ("/", "/posts/notes", "/feed.atom", "/sitemap.xml"):
            first = await read(client, path)
            etag = first.headers["etag"]
            assert etag.startswith('W/"')
            for asked in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
                again = await read(client, path, **{"If-None-Match": asked})
                assert again.status_code == 304
                assert again.content == b""
                assert "content-type" not in again.headers
                for name in ("etag", "cache-control", "vary", "content-security-policy"):
                    assert again.headers[name] == first.headers[name]
            assert (await read(client, path, **{"If-None-Match": '"x", W/"y"'})).status_code == 200

    async def test_a_changed_one_has_another_tag(
        self, client: httpx.AsyncClient, factory: Factory, settled: None, post: tuple[User, Blog]
    ) -> None:
        etag = (await read(client)).headers["etag"]
        await client.patch(f"/blog/{post[1].id}", json={"title": "Engines"}, headers=factory.login(post[0]))
        again = await read(client, **{"If-None-Match": etag})
        assert again.status_code == 200
        assert again.headers["etag"] != etag

    @pytest.mark.parametrize(
        ("accepted", "is_packed"),
        [
            ("gzip", True),
            ("GZip", True),
            ("x-gzip", True),
            ("deflate, gzip;q=0.5", True),
            ("br, gzip; q=1.0, *;q=0", True),
            ("gzip;q=0.001", True),
            ("gzip;q=0", False),
            ("gzip; q=0.000, br", False),
            ("gzip ;q=0", False),
            ("", False),
            ("identity", False),
            ("br", False),
            ("notgzip", False),
            ("gzipped", False),
        ],
    )
    async def test_compressed_to_who_can_read_that(
        self, client: httpx.AsyncClient, settled: None, accepted: str, is_packed: bool
    ) -> None:
        assert takes_gzip(Headers({"Accept-Encoding": accepted})) is is_packed
        plain = await read(client, **{"Accept-Encoding": "identity"})
        for _ in range(2):
            response = await read(client, **{"Accept-Encoding": accepted})
            assert (response.headers.get("content-encoding") == "gzip") is is_packed
            assert response.headers["vary"] == "Accept-Encoding"
            assert response.headers["etag"] == plain.headers["etag"]
            assert response.content == plain.content
            is_less = int(response.headers["content-length"]) < len(plain.content)
            assert is_less is is_packed

    async def test_the_compressed_one_is_made_once(
        self, client: httpx.AsyncClient, settled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await read(client)
        monkeypatch.setattr(gzip, "compress", lambda *_, **__: pytest.fail("compressed once more"))
        assert (await read(client)).headers["content-encoding"] == "gzip"

    async def test_a_long_one(self, client: httpx.AsyncClient, factory: Factory, settled: None) -> None:
        """Compressed in a thread."""
        author = await factory.user()
        await factory.blog(author, "Long", "word " * 39_000)
        response = await read(client, "/posts/long")
        assert len(response.content) > 190_000
        assert int(response.headers["content-length"]) < 10_000


@on("sqlite")
class TestRoom:
    async def test_is_not_exceeded_and_who_was_asked_for_last_stays(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        settled: None,
        statements: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        author = await factory.user()
        for number in range(8):
            await factory.blog(author, f"More {number}", BODY)
        shelf = app.state.shelf
        shelf._pages.clear()
        shelf._size = 0
        app.state.shelf.doubt()
        monkeypatch.setattr("blog.site.kept.ROOM", 40_000)
        await read(client)
        for number in range(8):
            await read(client, f"/posts/more-{number}")
            statements.clear()
            await read(client)
            assert statements == []
            assert shelf._size <= 40_000
            assert shelf._size == sum(page.size for page in shelf._pages.values())
        names = {path for path, _ in kept(app)}
        assert "/posts/notes" in names
        assert "/posts/more-7" in names
        assert "/posts/more-0" not in names

    async def test_one_that_is_larger_than_all_of_it_is_given_all_the_same(
        self, app: FastAPI, client: httpx.AsyncClient, settled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blog.site.kept.ROOM", 100)
        for _ in range(2):
            assert title(await read(client)) == "Notes"
            assert app.state.shelf._size == 0


class TestWithoutDatabase:
    async def test_what_is_kept_goes_on_and_the_rest_is_refused(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        settled: None,
        post: tuple[User, Blog],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await read(client)
        monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", -1)
        with lost_database(app), caplog.at_level(logging.ERROR):
            assert title(await read(client)) == "Notes"
            app.state.shelf.doubt()
            assert title(await read(client)) == "Notes"
            for path in ("/tags/looms", "/search?q=notes", "/posts/other", "/feed.atom", "/sitemap.xml"):
                refused = await read(client, path)
                assert refused.status_code == 503
                assert title(refused) == "Not now"
                assert int(refused.headers["retry-after"]) > 0
            stylesheet = Document(refused).links(rel="stylesheet")[0]
            assert (await read(client, stylesheet)).status_code == 200
            program = await client.get("/feed.json", headers={"Accept": "application/json"})
            assert program.json()["code"] == "database_unavailable"
        assert "server closed the connection" in caplog.text
        assert (await read(client, "/tags/looms")).status_code == 200

    async def test_who_never_reached_it_refuses(
        self, settings: Settings, app: FastAPI, post: tuple[User, Blog]
    ) -> None:
        other = create_app(settings)
        async with other.router.lifespan_context(other), client_of(other) as client:
            with lost_database(other):
                refused = await read(client)
                assert refused.status_code == 503
                assert title(refused) == "Not now"
            assert title(await read(client)) == "Notes"

    async def test_one_that_says_nothing_holds_up_nobody(
        self, client: httpx.AsyncClient, settled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await read(client)
        thawed, looks = asyncio.Event(), 0
        state = PageRepository.state

        async def freeze(self: PageRepository) -> Any:
            nonlocal looks
            looks += 1
            await thawed.wait()
            return await state(self)

        monkeypatch.setattr(PageRepository, "state", freeze)
        monkeypatch.setattr("blog.site.kept.LOOKED_AT_EVERY", -1)
        for _ in range(3):
            answers = await asyncio.gather(*(read(client) for _ in range(3)))
            assert [title(answer) for answer in answers] == ["Notes"] * 3
        assert looks == 1, "each waits for a connection of its own"
        thawed.set()
        assert title(await read(client)) == "Notes"
