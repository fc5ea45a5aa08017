"""`/blog/{id}/revisions`: every title and body that a blog has and had."""

import random
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlmodel import col

from blog.models import BODY_LENGTH, BlogRevision, Role
from blog.security.access import Scope
from tests.answers import code, walk
from tests.clock import Clock
from tests.conftest import on
from tests.factories import PASSWORD, Factory
from tests.test_diff import applied

REFERENCES = "[a]: /" + "x" * 1_900 + "\n\n" + "[a]" * 20_000
"""A body that becomes too large a page."""


async def save(client: httpx.AsyncClient, login: dict[str, str], blog_id: int, **fields: str) -> dict[str, Any]:
    response = await client.patch(f"/blog/{blog_id}", json=fields, headers=login)
    assert response.status_code == 200, response.text
    changed: dict[str, Any] = response.json()
    return changed


async def put_body(app: FastAPI, blog_id: int, number: int, body: str) -> None:
    """A body that no renderer saw, straight into the database."""
    named = (col(BlogRevision.blog_id) == blog_id, col(BlogRevision.number) == number)
    async with app.state.database.write.begin() as session:
        await session.execute(update(BlogRevision).where(*named).values(body=body))


class TestRefused:
    PATHS = (("GET", ""), ("GET", "/1"), ("GET", "/1?diff=1"), ("POST", "/1/restore"))

    @on("sqlite")
    @pytest.mark.parametrize(("method", "path"), PATHS)
    async def test_anonymous(self, client: httpx.AsyncClient, method: str, path: str) -> None:
        assert code(await client.request(method, f"/blog/1/revisions{path}")) == (401, "not_authenticated")

    @on("sqlite")
    @pytest.mark.parametrize(("method", "path"), PATHS)
    async def test_missing(self, client: httpx.AsyncClient, factory: Factory, method: str, path: str) -> None:
        _, login = await factory.logged_in()
        for number in (2**31 - 1, 9_999_999_999):
            response = await client.request(method, f"/blog/{number}/revisions{path}", headers=login)
            assert code(response) == (404, "blog_not_found")

    @on("sqlite")
    @pytest.mark.parametrize("role", [Role.AUTHOR, Role.READER])
    @pytest.mark.parametrize(("method", "path"), [*PATHS, ("GET", "/9"), ("POST", "/9/restore")])
    async def test_not_the_creator(
        self, client: httpx.AsyncClient, factory: Factory, method: str, path: str, role: Role
    ) -> None:
        blog = await factory.blog(await factory.user())
        _, login = await factory.logged_in("Bob", role=role)
        response = await client.request(method, f"/blog/{blog.id}/revisions{path}", headers=login)
        is_writing = method == "POST" and role is Role.READER
        assert code(response) == (403, "author_required" if is_writing else "not_blog_creator")
        assert "etag" not in response.headers

    @on("sqlite")
    async def test_scopes(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """An admin's token without the scope is anybody's, and one that reads does not restore."""
        ada, root = await factory.user(), await factory.admin()
        blog = await factory.blog(ada)
        both = (Scope.BLOG_READ, Scope.BLOG_WRITE)
        for method, path in self.PATHS:
            for user, scopes, refused in (
                (root, both, "not_blog_creator"),
                (ada, (both[method == "GET"],), "insufficient_scope"),
            ):
                url = f"/blog/{blog.id}/revisions{path}"
                response = await client.request(method, url, headers=factory.login(user, scopes))
                assert code(response) == (403, refused)

    async def test_no_such_revision(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        other = await factory.blog(ada)
        await save(client, login, other.id, title="Second")
        for method, path in (("GET", "/2"), ("GET", "/9999999999"), ("GET", "/1?diff=2"), ("POST", "/2/restore")):
            for headers in ({}, {"If-None-Match": "*"}):
                url = f"/blog/{blog.id}/revisions{path}"
                response = await client.request(method, url, headers=login | headers)
                if headers and path == "/1?diff=2":
                    assert "etag" not in response.headers
                assert code(response) == (404, "revision_not_found")

    @on("sqlite")
    @pytest.mark.parametrize("number", ["0", "-1", "abc", "1.0", "+1", "1_0", "１"])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, number: str) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url = f"/blog/{blog.id}/revisions"
        for method, path in (("GET", f"/{number}"), ("POST", f"/{number}/restore"), ("GET", f"/1?diff={number}")):
            response = await client.request(method, url + path.replace("+", "%2B"), headers=login)
            assert code(response) == (422, "invalid")

    async def test_deleted(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        await client.delete(f"/blog/{blog.id}", headers=login)
        for method, path in self.PATHS:
            response = await client.request(method, f"/blog/{blog.id}/revisions{path}", headers=login)
            assert code(response) == (410, "blog_deleted")


class TestList:
    async def test_every_title_and_body(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """Who wrote it and when; an admin, too, and somebody who is gone."""
        ada, login = await factory.logged_in()
        admin = await factory.admin()
        blog = await factory.blog(ada, "One", "first")
        times = [clock.after(0)]
        for user_login, fields in (
            (login, {"title": "Two"}),
            (factory.login(admin), {"body": "second"}),
            (login, {"title": "Three", "body": "third"}),
        ):
            clock.passes(60)
            times.append(clock.after(0))
            await save(client, user_login, blog.id, **fields)
        url = f"/blog/{blog.id}/revisions"
        editors = [{"id": user.id, "name": user.name} for user in (ada, ada, admin, ada)]
        titles = ["One", "Two", "Two", "Three"]
        expected = [
            {"number": number, "title": title, "editor": editor, "created_at": time}
            for number, (title, editor, time) in enumerate(zip(titles, editors, times, strict=True), start=1)
        ]
        assert (await client.get(url, headers=login)).json() == expected[::-1]
        bodies = ["first", "first", "second", "third"]
        for shown, body in zip(expected, bodies, strict=True):
            for headers in (login, factory.login(admin)):
                read = await client.get(f"{url}/{shown['number']}", headers=headers)
                assert read.json() == shown | {"body": body}
        root = await factory.admin()
        before = await client.get(f"{url}/3", headers=login)
        assert (await client.delete(f"/user/{admin.id}", headers=factory.login(root))).status_code == 204
        after = await client.get(f"{url}/3", headers=login)
        assert after.json() == expected[2] | {"body": "second", "editor": None}
        assert after.headers["etag"] != before.headers["etag"]
        assert (await client.get(url, headers=login)).json()[1]["editor"] is None

    async def test_what_is_none(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Neither title nor body is another, or what is another was refused."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "One", "first")
        await factory.blog(ada, "Taken")
        fields: Any
        for fields in ({}, {"title": "One"}, {"title": " One ", "body": "first"}, {"summary": "x"}, {"tags": ["x"]}):
            changed = await client.patch(f"/blog/{blog.id}", json=fields, headers=login)
            assert changed.json()["revision"] == 1
        for fields in ({"slug": "new"}, {"status": "draft"}, {"status": "published"}):
            assert (await save(client, login, blog.id, **fields))["revision"] == 1
        for fields in ({"title": "Two", "body": ""}, {"title": "Two", "slug": "taken"}, {"title": "Two", "x": 1}):
            assert (await client.patch(f"/blog/{blog.id}", json=fields, headers=login)).status_code in (409, 422)
        assert len(await walk(client, f"/blog/{blog.id}/revisions", login)) == 1

    async def test_pages(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        ada, login = await factory.logged_in()
        blog, other = await factory.blog(ada, "1"), await factory.blog(ada, "other")
        for number in range(2, 6):
            await save(client, login, blog.id, title=str(number))
            await save(client, login, other.id, title=f"other {number}")
        url = f"/blog/{blog.id}/revisions?limit="
        for limit in (1, 2, 5, 100):
            statements.clear()
            rows = await walk(client, f"{url}{limit}", login, limit=limit)
            assert len(statements) == 3 * -(-5 // limit), limit
            assert not any("body" in statement for statement in statements), limit
            assert [(row["number"], row["title"]) for row in rows] == [(n, str(n)) for n in range(5, 0, -1)], limit
        cursor = (await client.get(f"{url}1", headers=login)).links["next"]["url"].split("cursor=")[1]
        response = await client.get(f"/blog/{other.id}/revisions?cursor={cursor}", headers=login)
        assert code(response) == (422, "invalid_cursor")


class TestRead:
    async def test_not_modified(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        """Without reading a body."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        await save(client, login, blog.id, title="Second")
        url = f"/blog/{blog.id}/revisions"
        etags = set()
        for path in ("/1", "/2", "/1?diff=1", "/1?diff=2", "/2?diff=1"):
            etag = (await client.get(url + path, headers=login)).headers["etag"]
            assert etag not in etags
            etags.add(etag)
            statements.clear()
            response = await client.get(url + path, headers=login | {"If-None-Match": etag})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
            assert not any("body" in statement for statement in statements)
            response = await client.get(url + path, headers=login | {"If-None-Match": '"other"'})
            assert (response.status_code, response.headers["etag"]) == (200, etag)

    async def test_its_editor_has_another_name_or_is_gone(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Which is shown, so it is another answer with another tag."""
        ada, login = await factory.logged_in()
        editor = await factory.admin()
        blog = await factory.blog(ada)
        await save(client, factory.login(editor), blog.id, title="Second")
        url = f"/blog/{blog.id}/revisions/2"
        etags: set[str] = set()
        for change, shown in (
            ({}, {"id": editor.id, "name": editor.name}),
            ({"name": "Countess"}, {"id": editor.id, "name": "Countess"}),
            (None, None),
        ):
            if change is None:
                body = {"current_password": PASSWORD}
                await client.request("DELETE", f"/user/{editor.id}", json=body, headers=factory.login(editor))
            else:
                await client.patch("/user/me", json=change, headers=factory.login(editor))
            for query in ("", "?diff=1"):
                none_match = {"If-None-Match": ", ".join(etags)}
                read = await client.get(url + query, headers=login | none_match)
                assert (read.status_code, read.json()["editor"]) == (200, shown)
                etags.add(read.headers["etag"])
        assert len(etags) == 6

    @on("sqlite")
    async def test_diff(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Of title and body, either way round, and of one with itself."""
        ada, login = await factory.logged_in()
        bodies = ["a\nb\n\nc", "a\n\n\nc\n", "", "-\n+\n@@ -1 +1 @@", "a\nb\r\n\nc"]
        texts = [(f"Title {number // 2}", body or "\nx\n") for number, body in enumerate(bodies)]
        blog = await factory.blog(ada, *texts[0])
        for title, body in texts[1:]:
            await save(client, login, blog.id, title=title, body=body)
        for old, before in enumerate(texts, start=1):
            for new, after in enumerate(texts, start=1):
                read = (await client.get(f"/blog/{blog.id}/revisions/{new}?diff={old}", headers=login)).json()
                assert (read["number"], read["title"], read["body"]) == (new, *after)
                assert applied("\n\n".join(before), read["diff"]) == "\n\n".join(after)
                assert read["diff"].startswith(f"--- {old}\n+++ {new}\n" if old != new else "")
                assert bool(read["diff"]) == (old != new)

    @on("sqlite")
    async def test_diff_of_the_longest(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        """100,000 lines of one character each, and none that both have."""
        ada, login = await factory.logged_in()
        source = random.Random(7)
        bodies = ["\n".join(source.choices(letters, k=BODY_LENGTH // 2)) for letters in ("ab", "cd")]
        blog = await factory.blog(ada, "Long")
        await save(client, login, blog.id, body="Other")
        for number, body in enumerate(bodies, start=1):
            await put_body(app, blog.id, number, body)
        read = (await client.get(f"/blog/{blog.id}/revisions/2?diff=1", headers=login)).json()
        assert applied(f"Long\n\n{bodies[0]}", read["diff"]) == f"Long\n\n{bodies[1]}"
        assert len(read["diff"]) < 4 * BODY_LENGTH

    @on("sqlite")
    async def test_diff_is_there_when_asked_for(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        assert "diff" not in (await client.get(f"/blog/{blog.id}/revisions/1", headers=login)).json()
        assert (await client.get(f"/blog/{blog.id}/revisions/1?diff=1", headers=login)).json()["diff"] == ""


class TestRestore:
    @pytest.mark.parametrize("by_admin", [False, True])
    async def test_restored(self, client: httpx.AsyncClient, factory: Factory, by_admin: bool) -> None:
        """As a new revision: what was there before it stays."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "One", "*first*", tags=["x"], summary="Short")
        changed = await save(client, login, blog.id, title="Two", body="second")
        user = await factory.admin() if by_admin else ada
        response = await client.post(f"/blog/{blog.id}/revisions/1/restore", headers=factory.login(user))
        assert response.status_code == 201
        assert response.headers["location"] == f"/blog/{blog.id}/revisions/3"
        restored = response.json()
        told = {"title": "One", "body": "*first*", "html": "<p><em>first</em></p>\n", "revision": 3}
        assert restored == changed | told | {"updated_at": restored["updated_at"], "creator": restored["creator"]}
        read = await client.get(f"/blog/{blog.id}", headers=factory.login(user))
        assert (read.json(), read.headers["etag"]) == (restored, response.headers["etag"])
        revision = (await client.get(response.headers["location"], headers=login)).json()
        assert revision["editor"] == {"id": user.id, "name": user.name}
        rows = await walk(client, f"/blog/{blog.id}/revisions", login)
        assert [(row["number"], row["title"]) for row in rows] == [(3, "One"), (2, "Two"), (1, "One")]

    async def test_the_one_that_is_there(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        response = await client.post(f"/blog/{blog.id}/revisions/1/restore", headers=login)
        assert (response.status_code, response.json()["revision"]) == (201, 2)

    @on("sqlite")
    async def test_of_a_draft(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, status="draft")
        response = await client.post(f"/blog/{blog.id}/revisions/1/restore", headers=login)
        assert (response.status_code, response.json()["status"]) == (201, "draft")

    @on("sqlite")
    async def test_unrenderable(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        """One that an earlier renderer took: nothing is written."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        await put_body(app, blog.id, 1, REFERENCES)
        await save(client, login, blog.id, title="Second")
        response = await client.post(f"/blog/{blog.id}/revisions/1/restore", headers=login)
        assert code(response) == (422, "unrenderable")
        assert (await client.get(f"/blog/{blog.id}/revisions/1", headers=login)).json()["body"] == REFERENCES
        assert (await client.get(f"/blog/{blog.id}", headers=login)).json()["revision"] == 2

    async def test_sent_again(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """With its key: nothing is restored twice, and another revision is another request."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url, key = f"/blog/{blog.id}/revisions", {"Idempotency-Key": "k"}
        first, again = [await client.post(f"{url}/1/restore", headers=login | key) for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json() == again.json()
        for name in ("etag", "location"):
            assert first.headers[name] == again.headers[name]
        assert again.headers["idempotency-replayed"] == "true"
        assert (await client.post(f"{url}/2/restore", headers=login | key)).headers["location"] == f"{url}/3"
        assert len(await walk(client, url, login)) == 3

    @on("sqlite")
    async def test_stale(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url = f"/blog/{blog.id}/revisions/1/restore"
        before = (await client.get(f"/blog/{blog.id}", headers=login)).headers["etag"]
        await save(client, login, blog.id, title="Second")
        current = (await client.get(f"/blog/{blog.id}", headers=login)).headers["etag"]
        response = await client.post(url, headers=login | {"If-Match": before})
        assert code(response) == (412, "precondition_failed")
        assert response.headers["etag"] == current
        assert (await client.post(url, headers=login | {"If-Match": current})).status_code == 201
