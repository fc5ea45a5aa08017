"""Draft, scheduled, published: who sees what of a blog, and when."""

import itertools
from typing import Any

import httpx
import pytest

from blog.models import Blog, Role, User, fold
from tests.answers import code, walk
from tests.clock import Clock
from tests.conftest import on
from tests.factories import Factory

STATUSES = ("draft", "scheduled", "published")
HOUR = 3600
HIDDEN = ("draft", "scheduled")


async def blog_of(factory: Factory, clock: Clock, user: User, status: str, title: str = "Notes", **fields: Any) -> Blog:
    """A new blog of this status; one that is scheduled is due in an hour."""
    if status == "scheduled":
        fields["publish_at"] = clock.after(HOUR)
    return await factory.blog(user, title, status=status, **fields)


class TestCreate:
    @on("sqlite")
    @pytest.mark.parametrize(
        "fields",
        [
            {"status": "scheduled"},
            {"status": "draft", "publish_at": "2030-01-01T00:00:00Z"},
            {"status": "gone"},
            {"status": "Draft"},
            {"status": None},
            {"status": ""},
            {"publish_at": None},
            {"publish_at": "2030-01-01T00:00:00"},
            {"publish_at": "2030-01-01"},
            {"publish_at": 1_900_000_000},
            {"publish_at": "2200-01-01T00:00:00Z"},
            {"publish_at": "1969-01-01T00:00:00Z"},
            *(
                {field: value}
                for field, value in {
                    "id": 1,
                    "creator_id": 1,
                    "creator": {"id": 1},
                    "html": "<b>",
                    "version": 1,
                    "revision": 1,
                    "renderer": 1,
                    "is_draft": True,
                    "published_at": "2026-01-01T00:00:00Z",
                    "created_at": "2026-01-01T00:00:00Z",
                    "updated_at": "2026-01-01T00:00:00Z",
                }.items()
            ),
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, fields: dict[str, Any]) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        body = {"title": "Notes", "body": "Text"} | fields
        assert code(await client.post("/blog/", json=body, headers=login)) == (422, "invalid")
        for method in ("PUT", "PATCH"):
            response = await client.request(method, f"/blog/{blog.id}", json=body, headers=login)
            assert code(response) == (422, "invalid")
        assert await walk(client, "/blog/?fields=title,revision", login) == [{"title": "Notes", "revision": 1}]

    @on("sqlite")
    async def test_published_without_a_word(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        _, login = await factory.logged_in()
        blog = (await client.post("/blog/", json={"title": "Notes", "body": "Text"}, headers=login)).json()
        assert (blog["status"], blog["published_at"]) == ("published", clock.after(0))

    @on("sqlite")
    @pytest.mark.parametrize(
        ("status", "seconds", "becomes"),
        [
            ("draft", None, "draft"),
            ("published", None, "published"),
            ("scheduled", 1, "scheduled"),
            (None, 1, "scheduled"),
            ("published", 1, "scheduled"),
            ("scheduled", 0, "published"),
            (None, -HOUR, "published"),
            ("published", -HOUR, "published"),
        ],
    )
    async def test_created(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        clock: Clock,
        status: str | None,
        seconds: int | None,
        becomes: str,
    ) -> None:
        _, login = await factory.logged_in()
        body = {"title": "Notes", "body": "Text"}
        if status is not None:
            body["status"] = status
        if seconds is not None:
            body["publish_at"] = clock.after(seconds)
        response = await client.post("/blog/", json=body, headers=login)
        assert response.status_code == 201
        blog = response.json()
        assert blog["status"] == becomes
        assert blog["published_at"] == (None if becomes == "draft" else clock.after(seconds or 0))
        assert (await client.get(f"/blog/{blog['id']}", headers=login)).json() == blog

    @on("sqlite")
    async def test_offset(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        body = {"title": "Notes", "body": "Text", "publish_at": "2031-01-01T01:30:00.9+01:30"}
        blog = (await client.post("/blog/", json=body, headers=login)).json()
        assert (blog["status"], blog["published_at"]) == ("scheduled", "2031-01-01T00:00:00Z")


class TestRead:
    @on("sqlite")
    @pytest.mark.parametrize("role", Role)
    @pytest.mark.parametrize("status", HIDDEN)
    async def test_of_somebody_else(
        self, client: httpx.AsyncClient, factory: Factory, clock: Clock, status: str, role: Role
    ) -> None:
        """What an admin sees, too; and nothing tells it from one that never was."""
        ada, login = await factory.logged_in()
        blog = await blog_of(factory, clock, ada, status, tags=["secret"], slug="secret")
        _, other = await factory.logged_in("Bob", role=role)
        assert (await client.get(f"/blog/{blog.id}", headers=login)).json()["status"] == status
        assert (await client.get("/blog/slug/secret", headers=login)).json()["status"] == status
        etag = (await client.get(f"/blog/{blog.id}", headers=login)).headers["etag"]

        async def refusal(url: str, headers: dict[str, str]) -> tuple[int, Any]:
            response = await client.get(url, headers=other | headers)
            assert "etag" not in response.headers
            return response.status_code, response.json()

        for headers in ({}, {"If-None-Match": etag}, {"If-None-Match": "*"}):
            for of_blog, of_nothing in (
                (f"/blog/{blog.id}", "/blog/2147483647"),
                ("/blog/slug/secret", "/blog/slug/nothing"),
                (f"/blog/{blog.id}/revisions", "/blog/2147483647/revisions"),
                (f"/blog/{blog.id}/revisions/1", "/blog/2147483647/revisions/1"),
            ):
                assert await refusal(of_blog, headers) == await refusal(of_nothing, headers)
        assert await walk(client, "/blog/", other) == await walk(client, "/tag/", other) == []
        assert await walk(client, f"/blog/?author={ada.id}", other) == []
        assert (await client.get(f"/user/{ada.id}", headers=other)).json()["blogs"] == []
        if role is not Role.READER:
            body = {"title": "Mine", "body": "now"}
            for headers in ({}, {"If-Match": etag}, {"If-Match": '"other"'}):
                for method, path in (("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/revisions/1/restore")):
                    sent: Any = {"json": body} if method.startswith("P") else {}
                    response = await client.request(method, f"/blog/{blog.id}{path}", headers=other | headers, **sent)
                    assert code(response) == (404, "blog_not_found")
                    assert "etag" not in response.headers
        stored = await factory.stored(blog.id)
        assert stored is not None
        assert (stored.title, stored.version) == ("Notes", 1)

    @on("sqlite")
    async def test_admin_s_own(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        admin = await factory.admin()
        for status in STATUSES:
            blog = await blog_of(factory, clock, admin, status)
            response = await client.get(f"/blog/{blog.id}", headers=factory.login(admin))
            assert response.json()["status"] == status


class TestList:
    SORTS = ("-published_at", "published_at", "title")

    async def test_everything_of_everybody(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """Each list is what the rows say that this viewer may see, in order, whatever the filter, page by page."""
        users = [await factory.user("Ada"), await factory.user("Bob"), await factory.admin()]
        reader = await factory.user("Eve", role=Role.READER)
        blogs: list[Blog] = []
        titles = itertools.cycle(["b", "A", "a", "c", "B"])
        for number in range(24):
            tags = [["x"], ["x", "y"], [], ["y"]][number % 4]
            status = STATUSES[number % 3]
            fields: dict[str, Any] = {"status": status, "tags": tags}
            if status != "draft":
                # Some at the same time as others, some at this very moment.
                fields["publish_at"] = clock.after((number % 6) * (1 if status == "scheduled" else -1))
            blogs.append(await factory.blog(users[number * 7 % 3], next(titles), **fields))

        def expected(viewer: User, sort: str, author: User | None, tag: str | None, status: str | None) -> list[Any]:
            seen = []
            for blog in blogs:
                is_over = blog.published_at <= clock.time
                becomes = "draft" if blog.is_draft else "published" if is_over else "scheduled"
                if becomes != "published" and blog.creator_id != viewer.id:
                    continue
                if (author and blog.creator_id != author.id) or (tag and tag not in blog.tags):
                    continue
                if status in (None, becomes):
                    seen.append((blog, becomes))
            key: Any = (lambda pair: (fold(pair[0].title), pair[0].id)) if sort == "title" else None
            key = key or (lambda pair: (pair[0].published_at, pair[0].id))
            seen.sort(key=key, reverse=sort.startswith("-"))
            return [{"id": blog.id, "status": becomes} for blog, becomes in seen]

        async def compare(viewers: list[User]) -> None:
            authors = [None, *users[:2], reader]
            wheres = itertools.product(viewers, self.SORTS, authors, (None, "x", "z"), (None, *STATUSES))
            for viewer, sort, author, tag, status in wheres:
                chosen: dict[str, Any] = {"author": author and author.id, "tag": tag, "status": status, "sort": sort}
                query = httpx.QueryParams({name: value for name, value in chosen.items() if value is not None})
                listed = await walk(client, f"/blog/?limit=8&fields=id,status&{query}", factory.login(viewer))
                assert listed == expected(viewer, sort, author, tag, status), chosen

        await compare([users[0], users[2], reader])
        clock.passes(3)  # and some come into sight
        await compare([users[1]])

    async def test_publication_between_two_pages(
        self, client: httpx.AsyncClient, factory: Factory, clock: Clock
    ) -> None:
        ada, bob = await factory.user("Ada"), await factory.user("Bob")
        seen = [await factory.blog(ada, published_at=clock.time) for _ in range(4)]
        scheduled = await blog_of(factory, clock, ada, "scheduled")
        first = await client.get("/blog/?limit=2&sort=published_at&fields=id", headers=factory.login(bob))
        clock.passes(HOUR)
        rest = await walk(client, first.links["next"]["url"], factory.login(bob))
        assert [blog["id"] for blog in first.json() + rest] == [*(blog.id for blog in seen), scheduled.id]

    @on("sqlite")
    async def test_drafts_say_nothing_of_when(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada, login = await factory.logged_in()
        await blog_of(factory, clock, ada, "draft")
        listed = (await client.get("/blog/?fields=published_at,status", headers=login)).json()
        assert listed == [{"status": "draft", "published_at": None}]

    @on("sqlite")
    @pytest.mark.parametrize("status", ["", "gone", "DRAFT", "draft,published"])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, status: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/blog/?status={status}", headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_fields(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """Any two of them, in any order, are what the whole answer has."""
        ada, login = await factory.logged_in()
        blog = await blog_of(factory, clock, ada, "draft", tags=["b", "a"], summary="Short")
        whole = (await client.get(f"/blog/{blog.id}", headers=login)).json()
        del whole["html"]
        assert await walk(client, "/blog/", login) == [whole]
        for pair in itertools.permutations(whole, 2):
            for tag in ("", "&tag=a"):
                listed = await walk(client, f"/blog/?fields={','.join(pair)}{tag}", login)
                assert listed == [{field: whole[field] for field in pair}]
        for unknown in (
            "html",
            "version",
            "is_draft",
            "renderer",
            "id,html",
            "title_folded",
            "highlight",
            "creator_id",
        ):
            assert code(await client.get(f"/blog/?fields={unknown}", headers=login)) == (422, "invalid")


class TestUser:
    async def test_blogs(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        blogs = {status: await blog_of(factory, clock, ada, status) for status in STATUSES}

        async def shown(headers: dict[str, str]) -> set[int]:
            return {blog["id"] for blog in (await client.get(f"/user/{ada.id}", headers=headers)).json()["blogs"]}

        assert await shown(login) == {blog.id for blog in blogs.values()}
        assert await shown(admin) == {blogs["published"].id}
        clock.passes(HOUR)
        assert await shown(admin) == {blogs["published"].id, blogs["scheduled"].id}


class TestPublication:
    async def test_by_time(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """To the second, everywhere at once, without anything being written."""
        ada, login = await factory.logged_in()
        blog = await blog_of(factory, clock, ada, "scheduled", slug="soon", tags=["x"])
        _, other = await factory.logged_in("Bob")
        before = await client.get(f"/blog/{blog.id}", headers=login)
        clock.passes(HOUR - 1)
        assert code(await client.get(f"/blog/{blog.id}", headers=other)) == (404, "blog_not_found")
        assert (await client.get(f"/blog/{blog.id}", headers=login)).headers["etag"] == before.headers["etag"]
        clock.passes(1)
        after = await client.get(f"/blog/{blog.id}", headers=login)
        assert after.json() == before.json() | {"status": "published"}
        assert after.headers["etag"] != before.headers["etag"]
        for url in (f"/blog/{blog.id}", "/blog/slug/soon"):
            response = await client.get(url, headers=other)
            assert (response.status_code, response.json()["status"]) == (200, "published")
        assert len(await walk(client, "/blog/?tag=x", other)) == 1
        assert await walk(client, "/tag/", other) == [{"name": "x", "blogs": 1}]

    @on("sqlite")
    @pytest.mark.parametrize("seconds", [0, -HOUR, HOUR])
    async def test_by_hand(self, client: httpx.AsyncClient, factory: Factory, clock: Clock, seconds: int) -> None:
        """A draft and a scheduled one, now or with a time that is over or to come."""
        ada, login = await factory.logged_in()
        for status in HIDDEN:
            blog = await blog_of(factory, clock, ada, status)
            change = {"status": "published"} | ({"publish_at": clock.after(seconds)} if seconds else {})
            changed = (await client.patch(f"/blog/{blog.id}", json=change, headers=login)).json()
            assert changed["status"] == ("scheduled" if seconds > 0 else "published")
            assert changed["published_at"] == clock.after(seconds)
            assert changed["revision"] == 1

    async def test_moved(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog = await blog_of(factory, clock, ada, "published")
        url = f"/blog/{blog.id}"

        async def move(**change: Any) -> tuple[int, str, str | None, int]:
            response = await client.patch(url, json=change, headers=login)
            body = response.json()
            seen = (await client.get(url, headers=other)).status_code
            return response.status_code, body["status"], body.get("published_at"), seen

        assert await move(publish_at=clock.after(-HOUR)) == (200, "published", clock.after(-HOUR), 200)
        assert await move(status="published") == (200, "published", clock.after(-HOUR), 200)
        assert await move(publish_at=clock.after(HOUR)) == (200, "scheduled", clock.after(HOUR), 404)
        assert await move(status="scheduled") == (200, "scheduled", clock.after(HOUR), 404)
        assert await move(title="Other") == (200, "scheduled", clock.after(HOUR), 404)
        assert await move(status="scheduled", publish_at=clock.after(9)) == (200, "scheduled", clock.after(9), 404)
        assert await move(status="draft") == (200, "draft", None, 404)
        assert await move(title="Third") == (200, "draft", None, 404)
        clock.passes(HOUR)
        assert await move(summary="Still") == (200, "draft", None, 404)
        for refused in ({"publish_at": clock.after(9)}, {"status": "scheduled"}):
            assert code(await client.patch(url, json=refused, headers=login)) == (422, "invalid")
        assert await move(status="published") == (200, "published", clock.after(0), 200)
        clock.passes(HOUR)
        assert await move(status="published") == (200, "published", clock.after(-HOUR), 200)
        assert code(await client.patch(url, json={"status": "scheduled"}, headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_put_keeps_the_status(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada, login = await factory.logged_in()
        for status in STATUSES:
            blog = await blog_of(factory, clock, ada, status, tags=["x"], summary="Short", slug=f"is-{status}")
            before = (await client.get(f"/blog/{blog.id}", headers=login)).json()
            sent = {"title": "Other", "body": "*text*"}
            after = (await client.put(f"/blog/{blog.id}", json=sent, headers=login)).json()
            assert after == before | sent | {"revision": 2, "html": "<p><em>text</em></p>\n"}

    async def test_by_an_admin(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """Who takes a blog from everybody's sight takes it from one's own."""
        ada, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        blog = await blog_of(factory, clock, ada, "published", slug="seen")
        response = await client.patch(f"/blog/{blog.id}", json={"status": "draft", "title": "Hidden"}, headers=admin)
        assert response.status_code == 200
        assert (response.json()["status"], response.json()["title"]) == ("draft", "Hidden")
        assert response.json()["creator"]["id"] == ada.id
        change = {"status": "published"}
        assert code(await client.patch(f"/blog/{blog.id}", json=change, headers=admin)) == (404, "blog_not_found")
        assert code(await client.delete(f"/blog/{blog.id}", headers=admin)) == (404, "blog_not_found")
        for url in (f"/blog/{blog.id}", "/blog/slug/seen", f"/blog/{blog.id}/revisions"):
            assert code(await client.get(url, headers=admin)) == (404, "blog_not_found")
        assert (await client.get(f"/blog/{blog.id}", headers=login)).json()["status"] == "draft"
        changed = await client.patch(f"/blog/{blog.id}", json=change, headers=login)
        assert changed.status_code == 200
        assert (await client.get(f"/blog/{blog.id}", headers=admin)).json()["title"] == "Hidden"


class TestDelete:
    @pytest.mark.parametrize("status", STATUSES)
    async def test_deleted(self, client: httpx.AsyncClient, factory: Factory, clock: Clock, status: str) -> None:
        """410 for whoever saw it, and for others nothing that tells it from one that never was."""
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        admin = factory.login(await factory.admin())
        blog = await blog_of(factory, clock, ada, status, slug="gone")
        assert (await client.delete(f"/blog/{blog.id}", headers=login)).status_code == 204
        clock.passes(HOUR)  # it would have come into sight
        paths = (f"/blog/{blog.id}", "/blog/slug/gone", f"/blog/{blog.id}/revisions", f"/blog/{blog.id}/revisions/1")
        for headers in (login, other, admin):
            refused = (404, "blog_not_found")
            if status == "published" or headers == login:
                refused = (410, "blog_deleted")
            for path in paths:
                assert code(await client.get(path, headers=headers)) == refused
            for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/revisions/1/restore")):
                sent: Any = {"json": {}} if method == "PATCH" else {}
                assert code(await client.request(method, f"{paths[0]}{path}", headers=headers, **sent)) == refused

    async def test_after_its_time_came(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog = await blog_of(factory, clock, ada, "scheduled")
        clock.passes(HOUR)
        await client.delete(f"/blog/{blog.id}", headers=login)
        assert code(await client.get(f"/blog/{blog.id}", headers=other)) == (410, "blog_deleted")

    async def test_with_its_user(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada = await factory.user()
        _, other = await factory.logged_in("Bob")
        blogs = {status: await blog_of(factory, clock, ada, status) for status in STATUSES}
        admin = factory.login(await factory.admin())
        assert (await client.delete(f"/user/{ada.id}?blogs=delete", headers=admin)).status_code == 204
        for status, blog in blogs.items():
            refused = (410, "blog_deleted") if status == "published" else (404, "blog_not_found")
            assert code(await client.get(f"/blog/{blog.id}", headers=other)) == refused

    async def test_given_to_somebody_else(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """Drafts go with the rest, and are the other's own from then on."""
        ada = await factory.user()
        bob, login = await factory.logged_in("Bob")
        blogs = {status: await blog_of(factory, clock, ada, status, tags=["x"]) for status in STATUSES}
        admin = factory.login(await factory.admin())
        response = await client.delete(f"/user/{ada.id}?blogs=reassign&to={bob.id}", headers=admin)
        assert response.status_code == 204
        assert {blog["id"] for blog in await walk(client, "/blog/?tag=x", login)} == {b.id for b in blogs.values()}
        assert len(await walk(client, f"/blog/?author={bob.id}", login)) == 3
        assert await walk(client, "/tag/", login) == [{"name": "x", "blogs": 3}]
        assert await walk(client, "/tag/", admin) == [{"name": "x", "blogs": 1}]
        changed = await client.patch(f"/blog/{blogs['draft'].id}", json={"title": "Mine"}, headers=login)
        assert changed.json()["creator"]["id"] == bob.id
        assert code(await client.get(f"/blog/{blogs['draft'].id}", headers=admin)) == (404, "blog_not_found")
