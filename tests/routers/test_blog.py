"""`/blog/`: one class an endpoint, refusals first, in the order in which the server gives them."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from blog.errors import BlogDeleted, InvalidToken
from blog.markdown import render
from blog.models import Blog, Role, fold
from blog.repository.blog import LISTED_FIELDS, STATEMENTS_KEPT, BlogRepository, found_statement, page_statement
from blog.repository.user import UserRepository
from blog.schemas.blog import BlogWrite
from tests.answers import code, count, walk
from tests.conftest import on
from tests.factories import Factory

TITLE = "Notes on the engine"
WRITTEN = 10
"""Statements of a change of title and body: who asks; whether it is theirs; the turn; the row; the change in five
tables; what the answer shows."""
DELETED = 9
BODY = "It weaves *algebraical* patterns — 織物 🧵.\n\nAs a loom does."


class TestCreate:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.post("/blog/", json={})) == (401, "not_authenticated")

    @on("sqlite")
    async def test_reader(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        _, login = await factory.logged_in(role=Role.READER)
        response = await client.post("/blog/", json={"title": TITLE, "body": BODY}, headers=login)
        assert code(response) == (403, "author_required")
        assert await count(app, Blog) == 0

    @on("sqlite")
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"title": TITLE},
            {"title": "", "body": BODY},
            {"title": "   ", "body": BODY},
            {"title": "\u200b\u200d", "body": BODY},
            {"title": "two\nlines", "body": BODY},
            {"title": "x" * 201, "body": BODY},
            {"title": "NUL \0", "body": BODY},
            {"title": TITLE, "body": "NUL \0"},
            {"title": TITLE, "body": "\ufffe"},
            {"title": TITLE, "body": " \n "},
            {"title": TITLE, "body": "x" * 200_001},
            {"title": TITLE, "body": None},
            {"title": 7, "body": BODY},
            {"title": TITLE, "body": BODY, "creator_id": 1},
            {"title": TITLE, "body": BODY, "id": 1},
            [],
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, body: Any) -> None:
        _, login = await factory.logged_in()
        assert code(await client.post("/blog/", json=body, headers=login)) == (422, "invalid")
        assert await count(app, Blog) == 0

    @on("sqlite")
    async def test_lone_surrogate(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        content = rb'{"title": "\ud800", "body": "x"}'
        response = await client.post("/blog/", content=content, headers=login | {"content-type": "application/json"})
        assert code(response) == (422, "invalid")

    async def test_created(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        response = await client.post("/blog/", json={"title": f" {TITLE} ", "body": BODY}, headers=login)
        assert response.status_code == 201
        blog = response.json()
        assert response.headers["location"] == f"/blog/{blog['id']}"
        assert (blog["title"], blog["body"]) == (TITLE, BODY)
        assert blog["creator"] == {"id": user.id, "name": user.name, "email": user.email}
        assert blog["created_at"] == blog["updated_at"] == blog["published_at"]
        written = datetime.strptime(blog["created_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
        assert (await client.get(response.headers["location"], headers=login)).json() == blog

    async def test_longest(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        longest = {"title": "🧵" * 200, "body": "🧵" * 200_000}
        response = await client.post("/blog/", json=longest, headers=login)
        blog = (await client.get(response.headers["location"], headers=login)).json()
        assert (blog["title"], blog["body"]) == (longest["title"], longest["body"])

    async def test_title_that_grows_when_folded(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        response = await client.post("/blog/", json={"title": "ﷺ" * 200, "body": BODY}, headers=login)
        assert response.status_code == 201

    async def test_an_id_is_not_handed_out_twice(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        newest = await factory.blog(user)
        await client.delete(f"/blog/{newest.id}", headers=login)
        assert (await factory.blog(user)).id > newest.id

    async def test_creator_deleted_meanwhile(self, app: FastAPI, factory: Factory) -> None:

        user = await factory.user()
        async with app.state.database.write.begin() as session:
            await UserRepository(session).remove(user.id)
        with pytest.raises(InvalidToken):
            async with app.state.database.write.begin() as session:
                data = BlogWrite(title=TITLE, body=BODY)
                await BlogRepository(session).add(cast(Any, user), data, render(BODY))


class TestList:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/blog/")) == (401, "not_authenticated")

    @on("sqlite")
    @pytest.mark.parametrize(
        "query",
        [
            *(f"limit={limit}" for limit in ("0", "-1", "101", "abc", "1e9", "+5", "1_0", "1.0", str(2**63), "")),
            *(f"author={author}" for author in ("0", "-1", "abc", str(2**31), str(2**64), "+1", "1_0", "1.0", "１")),
            *(f"sort={sort}" for sort in ("", "id", "-title", "id;drop table blog", "published_at,id")),
            *(f"fields={fields}" for fields in ("", "email", "id,", "id;body", "creator.email")),
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, query: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/blog/?{query}", headers=login)) == (422, "invalid")

    async def test_order_that_is_given_twice(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """The last one counts, on the next page too, and a cursor of one is none of the other."""
        ada, login = await factory.logged_in()
        for title in ("a", "b", "c"):
            await factory.blog(ada, title)
        one, other = "sort=title&sort=-published_at", "sort=-published_at&sort=title"
        for query, titles in ((one, "cba"), (other, "abc")):
            url = f"/blog/?{query}&limit=1"
            for title in titles:
                response = await client.get(url, headers=login)
                assert [row["title"] for row in response.json()] == [title]
                url = response.links.get("next", {}).get("url", "")
            assert not url
        cursor = (await client.get(f"/blog/?{one}&limit=1", headers=login)).links["next"]["url"].split("cursor=")[1]
        assert code(await client.get(f"/blog/?{other}&cursor={cursor}", headers=login)) == (422, "invalid_cursor")

    def test_statements_that_are_kept(self) -> None:
        """Those that are asked for again, but not one for each set of fields that somebody thinks of."""
        for fields in combinations(LISTED_FIELDS, 3):
            page_statement("sqlite", fields, "title")
            found_statement(fields)
        for build in (page_statement, found_statement):
            assert build.cache_info().currsize == STATEMENTS_KEPT

    @on("sqlite")
    async def test_cursor_of_nobody_and_of_another_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(3):
            await factory.blog(user)
        cursor = (await client.get("/blog/?limit=1&sort=title", headers=login)).links["next"]["url"].split("cursor=")[1]
        for query in (f"cursor={cursor}", f"sort=published_at&cursor={cursor}", "cursor=WzFd.x", "cursor="):
            assert code(await client.get(f"/blog/?{query}", headers=login)) == (422, "invalid_cursor")
        assert (await client.get(f"/blog/?sort=title&limit=2&cursor={cursor}", headers=login)).status_code == 200

    async def test_next_page_of_a_long_query(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(2):
            await factory.blog(user, "".join(chr(0x4E00 + number * 37 % 20_000) for number in range(200)))
        junk = "".join(chr(97 + number * number % 26) for number in range(5_000))
        response = await client.get(f"/blog/?limit=1&sort=title&junk={junk}", headers=login)
        assert len((await client.get(response.links["next"]["url"], headers=login)).json()) == 1

    @on("sqlite")
    async def test_empty(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        response = await client.get("/blog/", headers=login)
        assert response.json() == []
        assert "link" not in response.headers

    async def test_newest_first_with_creators(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        bob = await factory.user("Bob")
        first, second = await factory.blog(ada, "First", "1"), await factory.blog(bob, "Second", "2")
        newest, oldest = (await client.get("/blog/", headers=login)).json()
        for listed, blog in ((oldest, first), (newest, second)):
            read = (await client.get(f"/blog/{blog.id}", headers=login)).json()
            assert read.pop("html") == f"<p>{blog.body}</p>\n"
            assert listed == read
        assert oldest["creator"] == {"id": ada.id, "name": "Ada", "email": ada.email}
        assert newest["creator"] == {"id": bob.id, "name": "Bob"}

    @on("sqlite")
    async def test_admins_see_addresses(self, client: httpx.AsyncClient, factory: Factory) -> None:
        bob, admin = await factory.user("Bob"), await factory.admin()
        blog = await factory.blog(bob)
        login = factory.login(admin)
        listed = (await client.get("/blog/", headers=login)).json()[0]
        assert listed["creator"]["email"] == bob.email
        read = (await client.get(f"/blog/{blog.id}", headers=login)).json()
        assert read["creator"] == listed["creator"]

    async def test_default_page(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(21):
            await factory.blog(user)
        response = await client.get("/blog/", headers=login)
        assert len(response.json()) == 20
        rest = await client.get(response.links["next"]["url"], headers=login)
        assert len(rest.json()) == 1
        assert "link" not in rest.headers

    async def test_pages_hold_every_blog_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Equal times, equal titles, and titles that engines order each in their own way."""
        ada, login = await factory.logged_in()
        bob = await factory.user("Bob")
        day = datetime(2026, 1, 1, tzinfo=UTC)
        titles = ["zebra", "Apple", "apple", "éclair", "Zebra", "apple", "中", "_", "ＡＰＰＬＥ", "a b", "a", "a!"]
        for number, title in enumerate(titles):
            blog = await factory.blog(bob if number % 3 else ada, title, published_at=day + timedelta(days=number // 4))
            assert blog.title == title
        sorts = ("-published_at", "published_at", "title")
        for limit, sort, author in product((1, 2, 3, 100), sorts, ("", f"&author={bob.id}")):
            first = f"/blog/?limit={limit}&sort={sort}{author}&fields=id,title,published_at,creator"
            listed = await walk(client, first, login, limit=limit)
            assert len(listed) == len({blog["id"] for blog in listed}) == (8 if author else 12), first
            if author:
                assert {blog["creator"]["id"] for blog in listed} == {bob.id}, first
            name = sort.removeprefix("-")
            keys = [(fold(blog[name]) if name == "title" else blog[name], blog["id"]) for blog in listed]
            assert keys == sorted(keys, reverse=sort.startswith("-")), first

    async def test_stable_while_rows_come_and_go(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        blogs = [await factory.blog(user, f"Blog {number}") for number in range(6)]
        first = await client.get("/blog/?limit=2&fields=id", headers=login)
        await client.delete(f"/blog/{blogs[4].id}", headers=login)  # the last row of the page read
        await client.delete(f"/blog/{blogs[2].id}", headers=login)  # one that was to come
        await factory.blog(user, "Newer")
        rest = await client.get(first.links["next"]["url"].replace("limit=2", "limit=9"), headers=login)
        assert [blog["id"] for blog in rest.json()] == [blogs[number].id for number in (3, 1, 0)]

    @on("sqlite")
    async def test_fields(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        response = await client.get("/blog/?fields=title,id", headers=login)
        assert response.json() == [{"id": blog.id, "title": blog.title}]

    async def test_author_without_blogs(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        await factory.blog(user)
        assert (await client.get("/blog/?author=2147483647", headers=login)).json() == []

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        _, login = await factory.logged_in()
        for number in range(20):
            await factory.blog(await factory.user(f"User{number}"))
        statements.clear()
        assert len((await client.get("/blog/?limit=20", headers=login)).json()) == 20
        assert len(statements) == 2


class TestRead:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/blog/1")) == (401, "not_authenticated")

    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        for blog_id in (2**31 - 1, 2**31, 9_999_999_999):
            assert code(await client.get(f"/blog/{blog_id}", headers=login)) == (404, "blog_not_found")

    @on("sqlite")
    @pytest.mark.parametrize("blog_id", ["0", "-1", "abc", "1.0", "+1", "1_0", "%2001", "１", "9" * 23])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, blog_id: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/blog/{blog_id}", headers=login)) == (422, "invalid")

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        statements.clear()
        assert (await client.get(f"/blog/{blog.id}", headers=login)).status_code == 200
        assert len(statements) == 2


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
class TestChange:
    """What PUT and PATCH have in common."""

    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient, method: str) -> None:
        assert code(await client.request(method, "/blog/1", json={})) == (401, "not_authenticated")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory, method: str) -> None:
        _, login = await factory.logged_in()
        response = await client.request(method, "/blog/2147483647", json={}, headers=login)
        assert code(response) == (404, "blog_not_found")

    @on("sqlite")
    @pytest.mark.parametrize(("role", "refusal"), [(Role.READER, "author_required"), (Role.AUTHOR, "not_blog_creator")])
    async def test_not_the_creator(
        self, client: httpx.AsyncClient, factory: Factory, method: str, role: Role, refusal: str
    ) -> None:
        blog = await factory.blog(await factory.user())
        _, login = await factory.logged_in("Bob", role=role)
        for body in ({"title": "Mine", "body": "now"}, {"title": ""}):
            response = await client.request(method, f"/blog/{blog.id}", json=body, headers=login)
            assert code(response) == (403, refusal)
        assert (await client.get(f"/blog/{blog.id}", headers=login)).json()["title"] == blog.title

    @on("sqlite")
    @pytest.mark.parametrize("body", [{"title": None, "body": BODY}, {"title": "", "body": BODY}, {"creator": 1}, []])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, method: str, body: Any) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        response = await client.request(method, f"/blog/{blog.id}", json=body, headers=login)
        assert code(response) == (422, "invalid")

    async def test_changed(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], method: str
    ) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user, published_at=datetime(2026, 1, 1, tzinfo=UTC))
        statements.clear()
        response = await client.request(method, f"/blog/{blog.id}", json={"title": TITLE, "body": BODY}, headers=login)
        assert len(statements) == WRITTEN
        assert response.status_code == 200
        changed = response.json()
        assert (changed["title"], changed["body"]) == (TITLE, BODY)
        assert changed["published_at"] == "2026-01-01T00:00:00Z"
        assert changed["creator"] == {"id": user.id, "name": user.name, "email": user.email}
        assert (await client.get(f"/blog/{blog.id}", headers=login)).json() == changed

    @on("sqlite")
    async def test_admin(self, client: httpx.AsyncClient, factory: Factory, method: str) -> None:
        author = await factory.user()
        blog = await factory.blog(author)
        login = factory.login(await factory.admin())
        response = await client.request(method, f"/blog/{blog.id}", json={"title": TITLE, "body": BODY}, headers=login)
        assert response.status_code == 200
        assert response.json()["creator"] == {"id": author.id, "name": author.name, "email": author.email}


class TestReplace:
    @on("sqlite")
    async def test_needs_all(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        assert code(await client.put(f"/blog/{blog.id}", json={"title": TITLE}, headers=login)) == (422, "invalid")

    async def test_deleted_meanwhile(self, app: FastAPI, factory: Factory) -> None:
        user = await factory.user()
        blog = await factory.blog(user)
        async with app.state.database.write.begin() as session:
            blogs = BlogRepository(session)
            await blogs.remove(await blogs.hold(blog.id))
        with pytest.raises(BlogDeleted):
            async with app.state.database.write.begin() as session:
                await BlogRepository(session).hold(blog.id)

    async def test_the_list_follows_a_new_title(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        first, second = await factory.blog(user, "A"), await factory.blog(user, "B")
        await client.put(f"/blog/{first.id}", json={"title": "C", "body": BODY}, headers=login)
        listed = (await client.get("/blog/?sort=title&fields=id", headers=login)).json()
        assert [blog["id"] for blog in listed] == [second.id, first.id]


class TestUpdate:
    @pytest.mark.parametrize("change", [{}, {"title": TITLE}, {"body": BODY}])
    async def test_the_rest_stays(self, client: httpx.AsyncClient, factory: Factory, change: dict[str, str]) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user, "Notes", "Text")
        changed = (await client.patch(f"/blog/{blog.id}", json=change, headers=login)).json()
        assert {"title": changed["title"], "body": changed["body"]} == {"title": "Notes", "body": "Text"} | change

    async def test_concurrent_changes(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """100 at once, of both fields or of one: each is acknowledged, and the last of each field stands whole."""
        user, login = await factory.logged_in()
        blog = await factory.blog(user, "whole 0", "whole 0")

        async def change(number: int) -> httpx.Response:
            if number % 2:
                text = f"whole {number}"
                return await client.put(f"/blog/{blog.id}", json={"title": text, "body": text}, headers=login)
            # What was there at first: an UPDATE that left it out as unchanged would mix two changes.
            return await client.put(f"/blog/{blog.id}", json={"title": "whole 0", "body": "whole 0"}, headers=login)

        answers = await asyncio.gather(*(change(number) for number in range(100)))
        assert [answer.status_code for answer in answers] == [200] * 100
        stored = (await client.get(f"/blog/{blog.id}", headers=login)).json()
        assert stored["title"] == stored["body"]

        def half(number: int) -> Any:
            field = "body" if number % 2 else "title"
            return client.patch(f"/blog/{blog.id}", json={field: f"{field} {number}"}, headers=login)

        answers = await asyncio.gather(*(half(number) for number in range(100)))
        assert [answer.status_code for answer in answers] == [200] * 100
        stored = (await client.get(f"/blog/{blog.id}", headers=login)).json()
        assert stored["title"].startswith("title ")
        assert stored["body"].startswith("body ")


class TestDelete:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.delete("/blog/1")) == (401, "not_authenticated")

    @on("sqlite")
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await client.delete("/blog/2147483647", headers=login)) == (404, "blog_not_found")

    @on("sqlite")
    async def test_not_the_creator(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        blog = await factory.blog(await factory.user())
        _, login = await factory.logged_in("Bob")
        assert code(await client.delete(f"/blog/{blog.id}", headers=login)) == (403, "not_blog_creator")
        assert await count(app, Blog) == 1

    @pytest.mark.parametrize("by_admin", [False, True])
    async def test_deleted(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], by_admin: bool
    ) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        if by_admin:
            login = factory.login(await factory.admin())
        statements.clear()
        response = await client.delete(f"/blog/{blog.id}", headers=login)
        assert (response.status_code, response.content) == (204, b"")
        assert len(statements) == DELETED
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            body = {"title": TITLE, "body": BODY} if method.startswith("P") else None
            response = await client.request(method, f"/blog/{blog.id}", json=body, headers=login)
            assert code(response) == (410, "blog_deleted")


class TestRenderAgain:
    async def test_tags_that_are_changed_meanwhile(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI
    ) -> None:
        """A blog that is being rendered again is found by the tags that it has by then."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "Notes", "words", tags=["before"])
        async with app.state.database.write.begin() as session:
            await session.execute(update(Blog).values(renderer=0))
        async with app.state.database.fresh() as session:
            rows = await BlogRepository(session).rendered_before(0, 10)
        assert [row.id for row in rows] == [blog.id]
        await client.patch(f"/blog/{blog.id}", json={"tags": ["after"]}, headers=login)
        async with app.state.database.write.begin() as session:
            await BlogRepository(session).render_again([(row, render(row.body)) for row in rows])
        for tag, found in (("before", 0), ("after", 1)):
            assert len((await client.get(f"/blog/?q=words&tag={tag}", headers=login)).json()) == found
