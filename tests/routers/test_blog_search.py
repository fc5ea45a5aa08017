"""`GET /blog/?q=`: what is found is what the list would show of what holds the words."""

import itertools
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from blog.models import Role
from blog.search import CANDIDATES
from tests.answers import code
from tests.clock import Clock
from tests.conftest import on
from tests.factories import Factory
from tests.routers.test_status import HOUR, STATUSES, blog_of

WORD = "quokka"


async def found(client: httpx.AsyncClient, login: dict[str, str], query: str = "", q: str = WORD) -> list[int]:
    """The ids on all pages."""
    ids: list[int] = []
    url = f"/blog/?q={q}&fields=id{query}"
    while url:
        response = await client.get(url, headers=login)
        assert response.status_code == 200, response.text
        ids += [blog["id"] for blog in response.json()]
        url = response.links.get("next", {}).get("url", "")
    return ids


class TestWhoSees:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get(f"/blog/?q={WORD}")) == (401, "not_authenticated")

    @pytest.mark.parametrize("role", Role)
    @pytest.mark.parametrize("status", ["draft", "scheduled"])
    async def test_of_somebody_else(
        self, client: httpx.AsyncClient, factory: Factory, clock: Clock, status: str, role: Role
    ) -> None:
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob", role=role)
        blog = await blog_of(factory, clock, ada, status, WORD, tags=["x"], body=f"{WORD} in a text")
        for query in ("", f"&author={ada.id}", "&tag=x", f"&status={status}", "&sort=title"):
            assert await found(client, login, query) == [blog.id]
            assert await found(client, other, query) == []
        assert await found(client, other, q=f'"{WORD} in"') == []
        await client.patch(f"/blog/{blog.id}", json={"status": "published"}, headers=login)
        assert await found(client, other) == await found(client, other, "&tag=x") == [blog.id]
        await client.patch(f"/blog/{blog.id}", json={"status": "draft"}, headers=login)
        assert await found(client, other) == []

    async def test_by_time(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada, _ = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog = await blog_of(factory, clock, ada, "scheduled", WORD)
        clock.passes(HOUR - 1)
        assert await found(client, other) == []
        clock.passes(1)
        assert await found(client, other) == [blog.id]

    async def test_everything_of_everybody(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        """Whatever the filter and the order, what the list has of what holds the word."""
        users = [await factory.user("Ada"), await factory.user("Bob"), await factory.admin()]
        reader = await factory.user("Eve", role=Role.READER)
        holding = set()
        for number in range(24):
            title = WORD if number % 4 else "Nothing"
            fields = {"tags": [["x"], ["x", "y"], []][number % 3]}
            blog = await blog_of(factory, clock, users[number * 7 % 3], STATUSES[number // 2 % 3], title, **fields)
            holding |= {blog.id} if title == WORD else set()
        sorts = (None, "title")
        wheres = itertools.product(
            (users[0], reader), sorts, (None, *users[:2], reader), (None, "x", "z"), (None, *STATUSES)
        )
        seen = 0
        for viewer, sort, author, tag, status in wheres:
            chosen: dict[str, Any] = {"author": author and author.id, "tag": tag, "status": status, "sort": sort}
            query = "".join(f"&{name}={value}" for name, value in chosen.items() if value is not None)
            login = factory.login(viewer)
            listed = (await client.get(f"/blog/?fields=id&limit=100{query}", headers=login)).json()
            expected = [blog["id"] for blog in listed if blog["id"] in holding]
            answer = await found(client, login, f"&limit=10{query}")
            assert (sorted(answer) == sorted(expected)) if sort is None else (answer == expected), chosen
            seen += len(answer)
        assert seen > 150

    async def test_what_is_not_to_be_seen_hides_nothing(
        self, client: httpx.AsyncClient, factory: Factory, clock: Clock
    ) -> None:
        """However many newer ones there are, and whose."""
        ada, login = await factory.logged_in()
        bob, other = await factory.logged_in("Bob")
        published = await factory.blog(bob, WORD)
        own = await factory.blog(bob, WORD, status="draft")
        for _ in range(CANDIDATES + 1):
            await factory.blog(ada, WORD, status="draft")
        assert set(await found(client, other)) == {published.id, own.id}
        assert await found(client, other, "&status=draft") == [own.id]
        assert await found(client, login, "&status=published") == [published.id]

    async def test_what_goes_before_the_next_page(
        self, client: httpx.AsyncClient, factory: Factory, clock: Clock
    ) -> None:
        """The next page goes on with what was found then, and shows what is to be seen by then."""
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blogs = [await factory.blog(ada, WORD) for _ in range(6)]
        first = await client.get(f"/blog/?q={WORD}&fields=id&limit=2", headers=other)
        assert [blog["id"] for blog in first.json()] == [blogs[5].id, blogs[4].id]
        await factory.blog(ada, WORD)
        await client.patch(f"/blog/{blogs[3].id}", json={"status": "draft"}, headers=login)
        await client.delete(f"/blog/{blogs[2].id}", headers=login)
        await client.patch(f"/blog/{blogs[1].id}", json={"publish_at": clock.after(HOUR)}, headers=login)
        second = await client.get(first.links["next"]["url"], headers=other)
        assert second.json() == []
        third = await client.get(second.links["next"]["url"], headers=other)
        assert [blog["id"] for blog in third.json()] == [blogs[0].id]
        assert "next" not in third.links

    async def test_given_to_somebody_else(self, client: httpx.AsyncClient, factory: Factory, clock: Clock) -> None:
        ada = await factory.user()
        bob, login = await factory.logged_in("Bob")
        blogs = [await blog_of(factory, clock, ada, status, WORD) for status in STATUSES]
        admin = factory.login(await factory.admin())
        await client.delete(f"/user/{ada.id}?blogs=reassign&to={bob.id}", headers=admin)
        assert await found(client, login, f"&author={bob.id}&sort=title") == [blog.id for blog in blogs]
        assert await found(client, login, "&status=draft") == [blogs[0].id]
        assert await found(client, admin, f"&author={bob.id}") == [blogs[2].id]


class TestWhatIsFound:
    async def test_as_it_is_now(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "Old title", "old text", tags=["old"])
        url = f"/blog/{blog.id}"

        async def finds(**words: bool) -> None:
            for q, is_there in words.items():
                assert await found(client, login, q=q) == ([blog.id] if is_there else []), q

        await finds(title=True, text=True, old=True)
        await client.patch(url, json={"title": "Another"}, headers=login)
        await finds(title=False, text=True, another=True)
        await client.put(url, json={"title": "Another", "body": "new *words* <script>hidden</script>"}, headers=login)
        await finds(text=False, words=True, hidden=True, another=True)
        await client.patch(url, json={"tags": ["new"]}, headers=login)
        assert await found(client, login, "&tag=new", "words") == [blog.id]
        assert await found(client, login, "&tag=old", "words") == []
        await client.post(f"{url}/revisions/1/restore", headers=login)
        await finds(title=True, text=True, words=False, another=False)
        await client.delete(url, headers=login)
        await finds(title=False, text=False)

    async def test_answer(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        """What a list shows, and where the words are, as HTML; for three statements."""
        ada, login = await factory.logged_in()
        await factory.blog(ada, f"<b>{WORD}</b> & co", f"A **{WORD.upper()}** <i>here</i>.", tags=["x"])
        (listed,) = (await client.get("/blog/", headers=login)).json()
        statements.clear()
        (answer,) = (await client.get(f"/blog/?q={WORD}", headers=login)).json()
        assert len(statements) == 3
        assert answer.pop("highlight") == {
            "title": f"&lt;b&gt;<mark>{WORD}</mark>&lt;/b&gt; &amp; co",
            "body": f"A <mark>{WORD.upper()}</mark> &lt;i&gt;here&lt;/i&gt;.",
        }
        assert answer == listed
        for fields in ("id", "title", "tags,creator"):
            (some,) = (await client.get(f"/blog/?q={WORD}&fields={fields}", headers=login)).json()
            assert set(some) == {*fields.split(","), "highlight"}
        statements.clear()
        assert (await client.get("/blog/?q=!", headers=login)).json() == []
        assert len(statements) == 1

    async def test_the_newest_in_pages(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Each once, on pages of whatever length."""
        ada, login = await factory.logged_in()
        blogs = [await factory.blog(ada, WORD) for _ in range(CANDIDATES + 3)]
        newest = [blog.id for blog in blogs[:2:-1]]
        for limit in (7, 59, 60, 100):
            assert await found(client, login, f"&limit={limit}") == newest, limit
            assert await found(client, login, f"&limit={limit}&sort=published_at") == newest[::-1], limit

    @on("sqlite")
    async def test_cursor_of_another_search(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        for _ in range(2):
            await factory.blog(ada, WORD)
        first = await client.get(f"/blog/?q={WORD}&limit=1", headers=login)
        cursor = first.links["next"]["url"].partition("cursor=")[2]
        for query in ("q=other", f"q={WORD}&tag=x", f"q={WORD}&sort=title", ""):
            answer = await client.get(f"/blog/?{query}&cursor={cursor}", headers=login)
            assert code(answer) == (422, "invalid_cursor")


async def test_a_user_s_blogs_are_gone_with_the_user(client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
    ada = await factory.user()
    await factory.blog(ada, WORD)
    admin = factory.login(await factory.admin())
    assert len(await found(client, admin)) == 1
    assert (await client.delete(f"/user/{ada.id}?blogs=delete", headers=admin)).status_code == 204
    assert await found(client, admin) == []
