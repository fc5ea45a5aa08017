"""ETag, If-Match and If-None-Match on blogs: nobody overwrites what they have not seen."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlmodel import col

from blog.models import Blog
from tests.answers import code
from tests.clock import Clock
from tests.conftest import on
from tests.factories import Factory

STRONG = re.compile(r'"[\x21\x23-\x7e]+"')
NEW = {"title": "Other", "body": "*text*"}
WRITES: tuple[tuple[str, str, Any], ...] = (
    ("PUT", "", NEW),
    ("PATCH", "", {"title": "Other"}),
    ("PATCH", "", {}),
    ("DELETE", "", None),
    ("POST", "/revisions/1/restore", None),
)


async def etag_of(client: httpx.AsyncClient, url: str, login: dict[str, str]) -> str:
    response = await client.get(url, headers=login)
    assert response.status_code == 200
    etag: str = response.headers["etag"]
    assert STRONG.fullmatch(etag)
    return etag


async def write(
    client: httpx.AsyncClient, method: str, url: str, body: Any, login: dict[str, str], **headers: str
) -> httpx.Response:
    sent: Any = {} if body is None else {"json": body}
    return await client.request(
        method, url, headers=login | {name.replace("_", "-"): value for name, value in headers.items()}, **sent
    )


class TestTag:
    async def test_of_reads_and_writes(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """What a write answers is what the next read answers, by id and by slug, with GET and HEAD."""
        _, login = await factory.logged_in()
        response = await client.post("/blog/", json={"title": "Notes", "body": "Text"}, headers=login)
        url = response.headers["location"]
        seen = set()
        for method, path, body in (("POST", "", None), *(write for write in WRITES if write[0] != "DELETE")):
            if path or body is not None:
                response = await write(client, method, url + path, body, login)
            etag = response.headers["etag"]
            slug = response.json()["slug"]
            assert etag == await etag_of(client, url, login) == await etag_of(client, f"/blog/slug/{slug}", login)
            head = await client.head(url, headers=login)
            assert (head.headers["etag"], head.content) == (etag, b"")
            if body != {}:
                assert etag not in seen
            seen.add(etag)
        assert (await client.patch(url, json={}, headers=login)).headers["etag"] == etag

    async def test_changes_with_what_is_shown(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, clock: Clock
    ) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url = f"/blog/{blog.id}"
        shown = set()

        async def differs() -> None:
            etag = await etag_of(client, url, login)
            assert etag not in shown
            shown.add(etag)

        await differs()
        for fields in (
            {"title": "Other"},
            {"body": "other"},
            {"summary": "other"},
            {"tags": ["other"]},
            {"slug": "other"},
            {"status": "draft"},
            {"status": "published"},
            {"publish_at": clock.after(-60)},
            {"publish_at": clock.after(60)},
        ):
            assert (await client.patch(url, json=fields, headers=login)).status_code == 200
            await differs()
        clock.passes(60)
        await differs()
        await client.post(f"{url}/revisions/1/restore", headers=login)
        await differs()
        await client.patch("/user/me", json={"name": "Countess"}, headers=login)
        await differs()
        body = {"email": "other@example.com", "current_password": "correct horse battery"}
        assert (await client.patch("/user/me", json=body, headers=login)).status_code == 200
        await differs()
        async with app.state.database.write.begin() as session:
            await session.execute(update(Blog).where(col(Blog.id) == blog.id).values(html="<p>Again</p>", renderer=99))
        await differs()
        bob, login = await factory.logged_in("Bob")
        admin = factory.login(await factory.admin())
        await client.delete(f"/user/{ada.id}?blogs=reassign&to={bob.id}", headers=admin)
        await differs()

    @on("sqlite")
    async def test_who_sees_what(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Answers that differ have tags that differ, and those that don't have one."""
        ada, login = await factory.logged_in()
        url = f"/blog/{(await factory.blog(ada)).id}"
        bob, eve = [await factory.user(name) for name in ("Bob", "Eve")]
        admin = await factory.admin()
        assert await etag_of(client, url, login) == await etag_of(client, url, factory.login(admin))
        assert await etag_of(client, url, factory.login(bob)) == await etag_of(client, url, factory.login(eve))
        assert await etag_of(client, url, login) != await etag_of(client, url, factory.login(bob))

    @on("sqlite")
    async def test_lists_have_none(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        await factory.blog(ada)
        assert "etag" not in (await client.get("/blog/", headers=login)).headers


class TestIfNoneMatch:
    @pytest.mark.parametrize("by_slug", [False, True])
    async def test_not_modified(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], by_slug: bool
    ) -> None:
        """Without reading what it does not answer, and for no more statements."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url = f"/blog/slug/{blog.slug}" if by_slug else f"/blog/{blog.id}"
        etag = await etag_of(client, url, login)
        for field in (etag, f"W/{etag}", "*", f'"other", {etag}', f'W/"other" ,{etag}, "more"', f"  {etag}  "):
            for method in ("GET", "HEAD"):
                statements.clear()
                response = await client.request(method, url, headers=login | {"If-None-Match": field})
                assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
                assert len(statements) == 2
                assert not any(column in "".join(statements) for column in ("body", "html", "title", "summary"))

    @on("sqlite")
    @pytest.mark.parametrize("by_slug", [False, True])
    @pytest.mark.parametrize("field", ['"other"', "other", "", '"', 'W/"other"', '"*"', ",", '"a", "b"', "\xff"])
    async def test_modified(self, client: httpx.AsyncClient, factory: Factory, field: str, by_slug: bool) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url = f"/blog/slug/{blog.slug}" if by_slug else f"/blog/{blog.id}"
        headers: Any = login | {"If-None-Match": field.encode("latin-1")}
        response = await client.get(url, headers=headers)
        assert (response.status_code, response.json()["id"]) == (200, blog.id)
        assert response.headers["etag"] == await etag_of(client, url, login)

    async def test_after_a_change(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        url = f"/blog/{(await factory.blog(ada)).id}"
        etag = await etag_of(client, url, login)
        await client.patch(url, json={"title": "Other"}, headers=login)
        response = await client.get(url, headers=login | {"If-None-Match": etag})
        assert (response.status_code, response.json()["title"]) == (200, "Other")

    async def test_what_is_not_there(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "Old")
        await client.patch(f"/blog/{blog.id}", json={"slug": "new"}, headers=login)
        none_match = login | {"If-None-Match": "*"}
        assert (await client.get("/blog/slug/old", headers=none_match)).status_code == 301
        assert code(await client.get("/blog/2147483647", headers=none_match)) == (404, "blog_not_found")
        await client.delete(f"/blog/{blog.id}", headers=login)
        for url in (f"/blog/{blog.id}", "/blog/slug/new", "/blog/slug/old"):
            assert code(await client.get(url, headers=none_match)) == (410, "blog_deleted")


class TestIfMatch:
    @on("sqlite")
    @pytest.mark.parametrize(("method", "path", "body"), WRITES)
    async def test_stale(self, client: httpx.AsyncClient, factory: Factory, method: str, path: str, body: Any) -> None:
        """Nothing is written, and the answer says what to look at."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, tags=["x"])
        url = f"/blog/{blog.id}"
        stale = await etag_of(client, url, login)
        await client.patch(url, json={"title": "Second"}, headers=login)
        before = await client.get(url, headers=login)
        current = before.headers["etag"]
        for field in (
            stale,
            f"W/{current}",
            '"other"',
            "",
            "other",
            f'{stale}, "other", W/{current}',
            current.strip('"'),
        ):
            response = await write(client, method, url + path, body, login, If_Match=field)
            assert code(response) == (412, "precondition_failed")
            assert response.headers["etag"] == current
        after = await client.get(url, headers=login)
        assert (after.json(), after.headers["etag"]) == (before.json(), current)

    @on("sqlite")
    @pytest.mark.parametrize("form", ["{}", "*", '"other", {}', 'W/"other",{} , "more"'])
    @pytest.mark.parametrize(("method", "path", "body"), WRITES)
    async def test_current(
        self, client: httpx.AsyncClient, factory: Factory, method: str, path: str, body: Any, form: str
    ) -> None:
        ada, login = await factory.logged_in()
        url = f"/blog/{(await factory.blog(ada)).id}"
        etag = await etag_of(client, url, login)
        response = await write(client, method, url + path, body, login, If_Match=form.format(etag))
        assert response.is_success

    @on("sqlite")
    @pytest.mark.parametrize(("method", "path", "body"), WRITES)
    async def test_refusals_come_first(
        self, client: httpx.AsyncClient, factory: Factory, method: str, path: str, body: Any
    ) -> None:
        """Whoever may not write learns no tag."""
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog, gone = await factory.blog(ada), await factory.blog(ada)
        await client.delete(f"/blog/{gone.id}", headers=login)
        for field in ("*", '"other"'):
            for number, headers, refused in (
                (blog.id, {}, (401, "not_authenticated")),
                (blog.id, other, (403, "not_blog_creator")),
                (gone.id, login, (410, "blog_deleted")),
                (2**31 - 1, login, (404, "blog_not_found")),
            ):
                response = await write(client, method, f"/blog/{number}{path}", body, headers, If_Match=field)
                assert code(response) == refused
                assert "etag" not in response.headers

    async def test_published_meanwhile(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """By time alone: whoever saw it scheduled has not seen what it is."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, publish_at=clock.after(60))
        url = f"/blog/{blog.id}"
        etag = await etag_of(client, url, login)
        clock.passes(60)
        response = await client.patch(url, json={"title": "Late"}, headers=login | {"If-Match": etag})
        assert code(response) == (412, "precondition_failed")
        assert response.headers["etag"] == await etag_of(client, url, login)

    async def test_by_an_admin(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        url = f"/blog/{(await factory.blog(ada)).id}"
        stale = await etag_of(client, url, admin)
        assert (await client.put(url, json=NEW, headers=login | {"If-Match": stale})).status_code == 200
        assert code(await client.put(url, json=NEW, headers=admin | {"If-Match": stale})) == (
            412,
            "precondition_failed",
        )


class TestRaces:
    async def test_fifty_with_one_tag(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """One wins, and all others learn the tag of what it wrote."""
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada)
        url = f"/blog/{blog.id}"
        etag = await etag_of(client, url, login)

        async def put(number: int) -> httpx.Response:
            body = {"title": f"Title {number}", "body": f"Body {number}"}
            return await client.put(url, json=body, headers=login | {"If-Match": etag})

        answers = await asyncio.gather(*(put(number) for number in range(50)))
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 49
        (won,) = (answer for answer in answers if answer.status_code == 200)
        now = await client.get(url, headers=login)
        assert (now.json(), now.headers["etag"]) == (won.json(), won.headers["etag"])
        assert {answer.headers["etag"] for answer in answers} == {won.headers["etag"]}
        assert now.json()["revision"] == 2
        assert len((await client.get(f"{url}/revisions", headers=login)).json()) == 2

    async def test_every_kind_of_write(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        url = f"/blog/{(await factory.blog(ada)).id}"
        etag = await etag_of(client, url, login)
        kinds = [kind for kind in WRITES if kind[2] != {} and kind[0] != "DELETE"] * 6
        answers = await asyncio.gather(
            *(write(client, method, url + path, body, login, If_Match=etag) for method, path, body in kinds)
        )
        assert sum(answer.is_success for answer in answers) == 1
        assert {answer.status_code for answer in answers if not answer.is_success} == {412}

    @pytest.mark.parametrize("conditional", [False, True])
    async def test_deleting_and_replacing(self, client: httpx.AsyncClient, factory: Factory, conditional: bool) -> None:
        """Each is done or refused; with the tag, a blog is not deleted with what somebody else wrote in it."""
        ada, login = await factory.logged_in()
        for turn in range(10):
            blog = await factory.blog(ada, tags=["x"])
            url = f"/blog/{blog.id}"
            etag = await etag_of(client, url, login)
            headers = {"If_Match": etag} if conditional else {}
            asked = [
                write(client, "DELETE", url, None, login, **headers),
                write(client, "PUT", url, NEW, login, **headers),
            ]
            answers = await asyncio.gather(*asked[:: 1 if turn % 2 else -1])
            delete, put = answers[:: 1 if turn % 2 else -1]
            left = await client.get(url, headers=login)
            if conditional and put.is_success:
                assert code(delete) == (412, "precondition_failed")
                assert left.json() == put.json()
            else:
                assert delete.status_code == 204
                assert put.status_code in ((410,) if conditional else (200, 410))
                assert code(left) == (410, "blog_deleted")
        remaining = (await client.get("/blog/?fields=id", headers=login)).json()
        tags = (await client.get("/tag/", headers=login)).json()
        assert tags == ([{"name": "x", "blogs": len(remaining)}] if remaining else [])

    async def test_deleting_twice(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, tags=["x"])
        await factory.blog(ada, tags=["x"])
        answers = await asyncio.gather(*(client.delete(f"/blog/{blog.id}", headers=login) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [204] + [410] * 9
        assert (await client.get("/tag/", headers=login)).json() == [{"name": "x", "blogs": 1}]
