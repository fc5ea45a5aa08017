"""Slugs: readable, unique and for ever."""

import asyncio
import unicodedata
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from blog.schemas.blog import SUFFIX_LENGTH, slug_of
from tests.answers import code
from tests.conftest import on
from tests.factories import Factory

LENGTH = 100
MADE_LENGTH = LENGTH - SUFFIX_LENGTH
BODY = "Text"
GREETING = "صلى-الله-عليه-وسلم" * 5 + "صلى-الله"
"""Of a character that becomes four words, many times over: cut behind a word."""


async def slug_by(client: httpx.AsyncClient, login: dict[str, str], title: str, **fields: str) -> str:
    response = await client.post("/blog/", json={"title": title, "body": BODY} | fields, headers=login)
    assert response.status_code == 201, response.text
    slug: str = response.json()["slug"]
    read = await client.get(f"/blog/slug/{quote(slug)}", headers=login)
    assert read.json() == response.json()
    return slug


class TestMade:
    """Of the title."""

    TITLES: tuple[tuple[str, str | None], ...] = (
        ("Notes on the Engine", "notes-on-the-engine"),
        ("  What?  Really -- yes!  ", "what-really-yes"),
        ("C++ & C#: 100% (a_b)", "c-c-100-a-b"),
        ("Crème Brûlée", "crème-brûlée"),
        ("Cre\u0300me", "crème"),
        ("Straße", "strasse"),
        ("İSTANBUL ve ılık", "i̇stanbul-ve-ılık"),
        ("ＷＩＤＥ １２", "wide-12"),
        ("ﬁne ½", "fine-1-2"),
        ("日本語、タイトル", "日本語-タイトル"),
        ("한국어 제목", "한국어-제목"),
        ("مرحبا بالعالم، ٣", "مرحبا-بالعالم-٣"),
        ("שלום־עולם", "שלום-עולם"),
        ("हिन्दी में क्षत्रिय", "हिन्दी-में-क्षत्रिय"),
        ("ภาษาไทย ที่นี่", "ภาษาไทย-ที่นี่"),
        ("admin", "admin"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", None),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("a%2fb?c#d\\e", "a-2fb-c-d-e"),
        ("changes", "changes"),
        # Nobody sees what stands between these letters.
        ("evil\u202etxt.exe", "eviltxt-exe"),
        ("\u2067right\u2069 left\u200e", "right-left"),
        ("Zu\u00adfall", "zufall"),
        ("क्\u200dष", "क्ष"),
        ("one\u200btwo", "one-two"),
        ("می\u200cخواهم", "می-خواهم"),
        ("\ufeffbom", "bom"),
        ("\u0301 accent", "accent"),
        ("❤️ hearts 👩‍🚀", "hearts"),
        ("👩‍🚀❤️🇩🇪", None),
        ("\u20e3", None),
        ("!!!", None),
    )

    async def test_of_title(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """On no engine is one of them another's, which would get a number."""
        _, login = await factory.logged_in()
        for title, slug in self.TITLES:
            made = await slug_by(client, login, title)
            if slug is None:
                assert made.startswith("blog-"), title
                assert await slug_by(client, login, title) != made, title
            else:
                assert made == slug, title

    @on("sqlite")
    @pytest.mark.parametrize(
        ("title", "slug"),
        [
            ("x" * 200, "x" * MADE_LENGTH),
            ("ﷺ" * 200, None),
            ("word " * 40, ("word-" * 18)[:-1]),
            ("a " + "x" * 198, "a-" + "x" * (MADE_LENGTH - 2)),
            ("𝔘𠀀" * 100, None),
            ("e\u0301" * 100, None),
        ],
    )
    async def test_long(self, client: httpx.AsyncClient, factory: Factory, title: str, slug: str | None) -> None:
        """Cut behind a word, unless the word is most of it."""
        _, login = await factory.logged_in()
        made = await slug_by(client, login, title)
        assert slug in (None, made)
        assert MADE_LENGTH // 2 <= len(made) <= MADE_LENGTH
        for _ in range(10):
            assert len(await slug_by(client, login, title)) <= LENGTH

    def test_any_character(self) -> None:
        """Whatever stands in a title, its slug is one that can be sent back, and has nothing that a path may not."""
        for number in range(0x110000):
            character = chr(number)
            if unicodedata.category(character) in ("Lo", "Cn", "Co", "Cs"):
                continue  # hundreds of thousands, each as it is
            slug = slug_of(f"a{character}b {character} c")
            assert slug_of(slug) == slug, hex(number)
            assert all(unicodedata.category(char)[0] in "LMN" or char == "-" for char in slug), hex(number)
            assert "--" not in slug
            assert slug.strip("-") == slug

    async def test_equal_titles(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        made = [await slug_by(client, login, "Notes") for _ in range(11)]
        assert made[:9] == ["notes", *(f"notes-{number}" for number in range(2, 10))]
        assert len({*made}) == 11
        assert all(len(slug) == len("notes-") + 8 for slug in made[9:])

    async def test_twenty_at_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        logins = [(await factory.logged_in(f"User{number}"))[1] for number in range(4)]
        made = await asyncio.gather(*(slug_by(client, logins[number % 4], "Notes") for number in range(20)))
        assert len(set(made)) == 20


class TestChosen:
    @on("sqlite")
    @pytest.mark.parametrize(
        "slug", ["", " ", "-", "!!!", "👩‍🚀", "\u0301", "\u200b", "a\0b", "a\nb", "x" * 101, None, 7, ["a"]]
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, slug: object) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        body = {"title": "Other", "body": BODY, "slug": slug}
        assert code(await client.post("/blog/", json=body, headers=login)) == (422, "invalid")
        assert code(await client.patch(f"/blog/{blog.id}", json={"slug": slug}, headers=login)) == (422, "invalid")

    @pytest.mark.parametrize(
        ("slug", "becomes"),
        [
            ("My Slug!", "my-slug"),
            ("x" * 100, "x" * 100),
            ("../up", "up"),
            ("ﷺ" * 100, GREETING),
        ],
    )
    async def test_chosen(self, client: httpx.AsyncClient, factory: Factory, slug: str, becomes: str) -> None:
        _, login = await factory.logged_in()
        assert await slug_by(client, login, "Title", slug=slug) == becomes

    async def test_taken(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Also by an old slug, by one of a deleted blog and by a draft of somebody else's."""
        ada, login = await factory.logged_in()
        bob, other = await factory.logged_in("Bob")
        mine = await factory.blog(bob, "Mine")
        taken = await factory.blog(ada, "Taken")
        await client.patch(f"/blog/{taken.id}", json={"slug": "later"}, headers=login)
        gone = await factory.blog(ada, "Gone")
        await client.patch(f"/blog/{gone.id}", json={"slug": "gone too"}, headers=login)
        await client.delete(f"/blog/{gone.id}", headers=login)
        await factory.blog(ada, "Hidden", status="draft")
        for slug in ("Taken", "later", "gone", "gone-too", "hidden", "HIDDEN!"):
            body = {"title": "Notes", "body": BODY, "slug": slug}
            assert code(await client.post("/blog/", json=body, headers=other)) == (409, "slug_taken")
            for method in ("PUT", "PATCH"):
                response = await client.request(method, f"/blog/{mine.id}", json=body, headers=other)
                assert code(response) == (409, "slug_taken")
        read = (await client.get(f"/blog/{mine.id}", headers=other)).json()
        assert (read["title"], read["slug"], read["revision"]) == ("Mine", "mine", 1)
        for title in ("Taken", "later", "gone", "gone too", "hidden"):
            assert await slug_by(client, other, title) == f"{slug_of(title)}-2"

    async def test_two_want_one(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blogs = [await factory.blog(ada, f"Blog {number}") for number in range(10)]
        answers = await asyncio.gather(
            *(client.patch(f"/blog/{blog.id}", json={"slug": "one"}, headers=login) for blog in blogs)
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


class TestOld:
    async def test_title_changes(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "First title")
        for method in ("PUT", "PATCH"):
            body = {"title": "Second title", "body": BODY}
            changed = (await client.request(method, f"/blog/{blog.id}", json=body, headers=login)).json()
            assert changed["slug"] == "first-title"
        restored = await client.post(f"/blog/{blog.id}/revisions/1/restore", headers=login)
        assert restored.json()["slug"] == "first-title"

    async def test_leads_to_the_new_one(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Through several changes, in one step, for readers as for the author."""
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog = await factory.blog(ada, "One")
        slugs = ["one", "zwei", "三 つ", "चार"]
        for slug in slugs[1:]:
            await client.patch(f"/blog/{blog.id}", json={"slug": slug}, headers=login)
        for headers in (login, other):
            for old in ("one", "zwei", "三-つ"):
                response = await client.get(f"/blog/slug/{quote(old)}", headers=headers)
                assert response.status_code == 301
                assert response.headers["location"] == f"/blog/slug/{quote('चार')}"
                assert "etag" not in response.headers
                assert (await client.get(response.headers["location"], headers=headers)).json()["id"] == blog.id
                head = await client.head(f"/blog/slug/{quote(old)}", headers=headers | {"If-None-Match": "*"})
                assert head.status_code == 301

    async def test_taken_back(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "One")
        for slug, old in (("two", "one"), ("one", "two"), ("one", "two"), ("two", "one")):
            response = await client.patch(f"/blog/{blog.id}", json={"slug": slug}, headers=login)
            assert (response.status_code, response.json()["slug"]) == (200, slug)
            assert (await client.get(f"/blog/slug/{slug}", headers=login)).status_code == 200
            response = await client.get(f"/blog/slug/{old}", headers=login)
            assert (response.status_code, response.headers["location"]) == (301, f"/blog/slug/{slug}")

    async def test_of_a_draft(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """Neither slug tells others that there is one."""
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog = await factory.blog(ada, "One", status="draft")
        await client.patch(f"/blog/{blog.id}", json={"slug": "two"}, headers=login)
        assert (await client.get("/blog/slug/one", headers=login)).status_code == 301
        for slug in ("one", "two"):
            assert code(await client.get(f"/blog/slug/{slug}", headers=other)) == (404, "blog_not_found")

    async def test_of_a_deleted_blog(self, client: httpx.AsyncClient, factory: Factory, app: FastAPI) -> None:
        ada, login = await factory.logged_in()
        _, other = await factory.logged_in("Bob")
        blog = await factory.blog(ada, "One")
        await client.patch(f"/blog/{blog.id}", json={"slug": "two"}, headers=login)
        await client.delete(f"/blog/{blog.id}", headers=login)
        for slug in ("one", "two"):
            for headers in (login, other):
                assert code(await client.get(f"/blog/slug/{slug}", headers=headers)) == (410, "blog_deleted")


class TestRead:
    @on("sqlite")
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/blog/slug/notes")) == (401, "not_authenticated")

    async def test_missing(self, client: httpx.AsyncClient, factory: Factory) -> None:
        """What is not quite a slug is none, on every engine; nor is what none can store."""
        ada, login = await factory.logged_in()
        await factory.blog(ada, "Notes")
        almost = ("nothing", "Notes", "notes%20", "%20notes", "notes-", "n%C3%B6tes", "1", "x" * 5_000, "%F0%9F%A7%B5")
        for path in (*almost, "notes%00", "%00", "%ED%A0%80", "%FF"):
            response = await client.get(f"/blog/slug/{path}", headers=login)
            assert code(response) == (404, "blog_not_found"), path[:20]

    async def test_read(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        ada, login = await factory.logged_in()
        blog = await factory.blog(ada, "Notes")
        by_id = await client.get(f"/blog/{blog.id}", headers=login)
        statements.clear()
        by_slug = await client.get("/blog/slug/notes", headers=login)
        assert len(statements) == 2
        assert by_slug.json() == by_id.json()
        assert by_slug.headers["etag"] == by_id.headers["etag"]
        head = await client.head("/blog/slug/notes", headers=login)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", by_id.headers["etag"])
