"""Tags: `/tag/`, and the tags of blogs."""

import itertools
from collections import Counter
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import col

from blog.models import BlogTag, Role, Tag, fold
from tests.answers import code, walk
from tests.clock import Clock
from tests.conftest import on
from tests.factories import Factory
from tests.routers.test_status import STATUSES

BODY = "Text"


async def counted(client: httpx.AsyncClient, login: dict[str, str]) -> dict[str, int]:
    """What `/tag/` counts, which must be what the lists of blogs hold."""
    rows = await walk(client, "/tag/?limit=2", login)
    counts = {row["name"]: row["blogs"] for row in rows}
    assert [row["name"] for row in rows] == sorted(counts)
    blogs = await walk(client, "/blog/?limit=100&fields=tags", login)
    assert counts == Counter(tag for blog in blogs for tag in blog["tags"])
    for name, number in counts.items():
        query = httpx.QueryParams({"tag": name, "fields": "id", "limit": 100})
        assert len(await walk(client, f"/blog/?{query}", login)) == number
    return counts


async def kept(app: FastAPI) -> set[str]:
    async with app.state.database.fresh() as session:
        return set(await session.scalars(select(col(Tag.name))))


class TestList:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/tag/")) == (401, "not_authenticated")

    @on("sqlite")
    @pytest.mark.parametrize("limit", ["0", "-1", "101", "abc", "1e9", "+5", ""])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, limit: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/tag/?limit={limit}", headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_cursor_of_another_list(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        for _ in range(2):
            await factory.blog(ada, tags=["x", "y"])
        for url, other in (("/blog/", "/tag/"), ("/tag/", "/blog/"), ("/tag/", "/tag/?q=x")):
            cursor = (await client.get(f"{url}?limit=1", headers=login)).links["next"]["url"].split("cursor=")[1]
            both = "&" if "?" in other else "?"
            response = await client.get(f"{other}{both}cursor={cursor}", headers=login)
            assert code(response) == (422, "invalid_cursor")

    @on("sqlite")
    async def test_empty(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        await factory.blog(ada)
        response = await client.get("/tag/", headers=login)
        assert (response.json(), "link" in response.headers) == ([], False)

    async def test_pages(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        """In the order of code points, alike on every engine."""
        _, login = await factory.logged_in(role=Role.READER)
        ada = await factory.user("Ada")
        tags = [
            "zebra",
            "a",
            "a b",
            "a-b",
            "ab",
            "é",
            "中",
            "_",
            "10",
            "9",
            "織物",
            "🧵",
            "ß",
            "𝔘",
            "\ufffd",
            "c#",
            "c",
        ]
        for start in (0, 9):
            await factory.blog(ada, tags=tags[start : start + 9])
        for limit in (1, 3, 100):
            statements.clear()
            rows = await walk(client, f"/tag/?limit={limit}", login, limit=limit)
            assert len(statements) == 2 * -(-len(tags) // limit), limit
            assert [row["name"] for row in rows] == sorted(fold(tag) for tag in tags), limit
            assert {row["blogs"] for row in rows} == {1}, limit


class TestOfBlog:
    @pytest.mark.parametrize(
        ("sent", "shown"),
        [
            ([], []),
            (["b", "a", "c"], ["a", "b", "c"]),
            (["Engines", "ENGINES ", "ｅｎｇｉｎｅｓ", "#engines", "# Engines"], ["engines"]),
            (["  Deep \u00a0 learning "], ["deep learning"]),
            (["C#", "C++", "#c#"], ["c#", "c++"]),
            (["##x", "#＃y"], ["x", "y"]),
            (["Straße", "STRASSE"], ["strasse"]),
            (["e\u0301", "é", "É"], ["é"]),
            (["İ"], ["i̇"]),
            (["日本語", "日本語"], ["日本語"]),
            (["ﾊﾝｶｸ", "ハンカク"], ["ハンカク"]),
            (["a,b", "a;b", "<b>", "%", "_", "'", '"', "\\"], sorted(["a,b", "a;b", "<b>", "%", "_", "'", '"', "\\"])),
            (["x" * 50], ["x" * 50]),
            (["🧵" * 50], ["🧵" * 50]),
            ([f"{number:050}" for number in range(20)], [f"{number:050}" for number in range(20)]),
            (["same"] * 20, ["same"]),
            (["null", "true", "0"], ["0", "null", "true"]),
        ],
    )
    async def test_normalised(
        self, client: httpx.AsyncClient, factory: Factory, sent: list[str], shown: list[str]
    ) -> None:
        """Sent back as they were shown, they stay the same; and each finds its blog, however it is spelled."""
        _, login = await factory.logged_in()
        blog = (await client.post("/blog/", json={"title": "T", "body": BODY, "tags": sent}, headers=login)).json()
        assert blog["tags"] == shown
        url = f"/blog/{blog['id']}"
        assert (await client.get(url, headers=login)).json()["tags"] == shown
        for body in ({"tags": shown}, {"tags": sent}, {"title": "Other"}):
            assert (await client.patch(url, json=body, headers=login)).json()["tags"] == shown
        assert await counted(client, login) == dict.fromkeys(shown, 1)
        for tag in sent:
            query = httpx.QueryParams({"tag": tag, "fields": "id"})
            assert (await client.get(f"/blog/?{query}", headers=login)).json() == [{"id": blog["id"]}]

    @on("sqlite")
    @pytest.mark.parametrize(
        "tags",
        [
            None,
            "tag",
            {"a": 1},
            [None],
            [7],
            [["a"]],
            [""],
            [" "],
            ["#"],
            ["# # "],
            ["＃"],
            ["\u200b"],
            ["#\u200b"],
            ["# \u3164"],
            ["a\0b"],
            ["a\nb"],
            ["a\tb"],
            ["a\u2028b"],
            ["\x1b[31m"],
            ["x" * 51],
            ["ﷺ" * 3],
            [str(number) for number in range(21)],
            ["same"] * 21,
        ],
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, tags: Any) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, tags=["x"])
        body = {"title": "T", "body": BODY, "tags": tags}
        for method, path in (("POST", ""), ("PUT", blog.id), ("PATCH", blog.id)):
            assert code(await client.request(method, f"/blog/{path}", json=body, headers=login)) == (422, "invalid")
        assert await counted(client, login) == {"x": 1}
        assert await kept(app) == {"x"}

    @on("sqlite")
    async def test_lone_surrogate(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        content = rb'{"title": "T", "body": "x", "tags": ["\udc00"]}'
        response = await client.post("/blog/", content=content, headers=login | {"content-type": "application/json"})
        assert code(response) == (422, "invalid")


class TestFilter:
    @on("sqlite")
    @pytest.mark.parametrize("tag", ["", "%20", "%23", "a%00b", "a%0Ab", "x" * 51, "%E2%80%8B"])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, tag: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/blog/?tag={tag}", headers=login)) == (422, "invalid")

    async def test_what_is_no_tag(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """The database compares as it stands: neither a pattern nor another letter."""
        ada, login = await factory.logged_in()
        await factory.blog(ada, tags=["abc", "é"])
        for tag in ("ab", "abcd", "a%25", "a_c", "e", "x' OR '1'='1"):
            assert (await client.get(f"/blog/?tag={tag}", headers=login)).json() == []

    async def test_follows_what_changes(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Order and place in a tag's list are those of the blog, whatever of it was changed."""
        ada, login = await factory.logged_in()
        blogs = [await factory.blog(ada, title, tags=["x"]) for title in "abc"]
        await client.patch(f"/blog/{blogs[0].id}", json={"title": "d"}, headers=login)
        await client.patch(f"/blog/{blogs[1].id}", json={"publish_at": "2020-01-01T00:00:00Z"}, headers=login)
        await client.patch(f"/blog/{blogs[2].id}", json={"title": "z"}, headers=login)
        await client.post(f"/blog/{blogs[2].id}/revisions/1/restore", headers=login)
        for sort, tag in itertools.product(("-published_at", "published_at", "title"), ("", "&tag=x")):
            listed = await walk(client, f"/blog/?limit=1&fields=id&sort={sort}{tag}", login)
            order = {"title": [1, 2, 0], "published_at": [1, 0, 2], "-published_at": [2, 0, 1]}[sort]
            assert [blog["id"] for blog in listed] == [blogs[number].id for number in order]

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        for number in range(5):
            await factory.blog(await factory.user(f"User{number}"), tags=["x", "y"])
        _, login = await factory.logged_in()
        statements.clear()
        assert len((await client.get("/blog/?tag=x", headers=login)).json()) == 5
        assert len(statements) == 2


class TestCounts:
    async def test_through_a_life(
        self, client: httpx.AsyncClient, factory: Factory, app: FastAPI, clock: Clock
    ) -> None:
        """For the author, for an admin and for a reader, after whatever becomes of a blog."""
        ada, login = await factory.logged_in()
        admin, reader = factory.login(await factory.admin()), factory.login(await factory.user("Eve", role=Role.READER))
        await factory.blog(ada, tags=["kept"])

        async def check(own: dict[str, int], others: dict[str, int]) -> None:
            one = {"kept": 1}
            assert await counted(client, login) == one | own
            assert await counted(client, admin) == await counted(client, reader) == one | others
            assert await kept(app) == one.keys() | own.keys() | others.keys()

        body = {"title": "T", "body": BODY, "tags": ["x", "y"], "status": "draft"}
        url = (await client.post("/blog/", json=body, headers=login)).headers["location"]

        async def change(**fields: Any) -> None:
            assert (await client.patch(url, json=fields, headers=login)).status_code == 200

        await check({"x": 1, "y": 1}, {})
        await change(tags=["x", "z"])
        await check({"x": 1, "z": 1}, {})
        await change(status="published")
        await check({"x": 1, "z": 1}, {"x": 1, "z": 1})
        await change(tags=["y", "z", "kept"])
        await check({"kept": 2, "y": 1, "z": 1}, {"kept": 2, "y": 1, "z": 1})
        await change(publish_at=clock.after(60))
        await check({"kept": 2, "y": 1, "z": 1}, {})
        await change(title="Later", tags=["y"])
        await check({"y": 1}, {})
        clock.passes(60)
        await check({"y": 1}, {"y": 1})
        await change(status="draft")
        await check({"y": 1}, {})
        await change(status="scheduled", publish_at=clock.after(60))
        await check({"y": 1}, {})
        await change(status="published", tags=["w"])
        await check({"w": 1}, {"w": 1})
        await client.post(f"{url}/revisions/1/restore", headers=login)
        await check({"w": 1}, {"w": 1})
        await change(tags=[])
        await check({}, {})
        await change(tags=["x"])
        await check({"x": 1}, {"x": 1})
        await client.delete(url, headers=login)
        await check({}, {})

    @pytest.mark.parametrize("reassigned", [False, True])
    async def test_user_deleted(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        app: FastAPI,
        clock: Clock,
        reassigned: bool,
    ) -> None:
        ada, bob = await factory.user("Ada"), await factory.user("Bob")
        admin = factory.login(await factory.admin())
        for number, (user, status) in enumerate(itertools.product((ada, bob), STATUSES * 2)):
            fields: Any = {"publish_at": clock.after(60)} if status == "scheduled" else {}
            tags = ["both", user.name, status, str(number % 2)]
            await factory.blog(user, status=status, tags=tags, **fields)
        await counted(client, factory.login(ada))
        query = f"reassign&to={bob.id}" if reassigned else "delete"
        assert (await client.delete(f"/user/{ada.id}?blogs={query}", headers=admin)).status_code == 204
        mine = await counted(client, factory.login(bob))
        assert mine["both"] == (12 if reassigned else 6)
        assert mine["draft"] == mine["scheduled"] == (4 if reassigned else 2)
        assert mine.get("ada") == (6 if reassigned else None)
        assert (await counted(client, admin)).get("scheduled") is None
        assert await kept(app) == mine.keys()
        clock.passes(60)
        assert (await counted(client, admin))["scheduled"] == (4 if reassigned else 2)
        response = await client.delete(f"/user/{bob.id}?blogs=delete", headers=admin)
        assert response.status_code == 204
        assert await counted(client, admin) == {}
        assert await kept(app) == set()
        async with app.state.database.fresh() as session:
            assert (await session.scalars(select(BlogTag))).all() == []
