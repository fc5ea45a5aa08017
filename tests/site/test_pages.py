"""Pages for readers: what each shows, in what order, to whom, and at what cost."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from blog.app import create_app
from blog.models import Blog, Status, User
from blog.settings import Settings
from tests.answers import code
from tests.clock import Clock
from tests.conftest import client_of, on
from tests.factories import Factory
from tests.site.conftest import Document, Reader

DAY = datetime(2026, 3, 5, 12, tzinfo=UTC)
PAGES = ("/", "/posts/notes", "/tags/looms", "/authors/{author}", "/archive", "/archive/2026/3", "/search?q=notes")
"""Every kind of page, where there is the one post of `a_post`."""

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "connect-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def a_post(factory: Factory, **fields: Any) -> tuple[User, Blog]:
    """A post that is on every page."""
    author = await factory.user("Ada")
    given: dict[str, Any] = {"title": "Notes", "body": "It weaves.", "tags": ["looms"], "published_at": DAY} | fields
    return author, await factory.blog(author, **given)


def pages(author: User) -> list[str]:
    return [page.format(author=author.id) for page in PAGES]


@pytest.fixture
async def small(settings: Settings, app: FastAPI) -> AsyncIterator[Reader]:
    """A reader of a site with two posts on a page, over the same database."""
    other = create_app(settings.model_copy(update={"site_page_size": 2}))
    async with other.router.lifespan_context(other), client_of(other) as client:
        yield Reader(other, client)


class TestList:
    async def test_nothing_yet(self, reader: Reader) -> None:
        for path in ("/", "/archive"):
            page = await reader.open(path)
            assert "There is nothing here yet." in page.texts(".//main/p")

    async def test_shows_the_newest_first(self, reader: Reader, factory: Factory) -> None:
        ada, bob = [await factory.user(name) for name in ("Ada", "Bob")]
        for number, author in enumerate((ada, bob, ada)):
            published_at = DAY + timedelta(days=number % 2)
            await factory.blog(author, f"Notes {number}", tags=["looms"] if number else [], published_at=published_at)
        assert (await reader.open("/")).titles == ["Notes 1", "Notes 2", "Notes 0"]
        assert (await reader.open("/tags/looms")).titles == ["Notes 1", "Notes 2"]
        assert (await reader.open(f"/authors/{ada.id}")).titles == ["Notes 2", "Notes 0"]
        assert (await reader.open("/archive/2026/3")).titles == ["Notes 1", "Notes 2", "Notes 0"]

    @on("sqlite")
    async def test_shows_of_a_post_what_it_is_about(self, reader: Reader, factory: Factory) -> None:
        author, _ = await a_post(factory, title="Of <looms> & flowers", body="It *weaves* `x < y` and more. " * 30)
        await factory.blog(author, "More", "Not shown.", summary="In short.", published_at=DAY - timedelta(days=1))
        page = await reader.open("/")
        assert page.titles == ["Of <looms> & flowers", "More"]
        long, short = page.texts(".//article/p[@class='excerpt']")
        assert long.startswith("It weaves x < y and more. It weaves")
        assert 200 < len(long) <= 281
        assert short == "In short."
        assert page.texts(".//article/p[@class='byline']")[0] == "2026-03-05 Ada"
        assert page.all(".//article//time")[0].get("datetime") == "2026-03-05T12:00:00Z"
        assert page.links(rel="tag") == ["/tags/looms"]
        assert page.links(rel="author") == [f"/authors/{author.id}"] * 2

    @on("sqlite")
    async def test_one_of_spaces_only_has_no_excerpt(self, reader: Reader, factory: Factory) -> None:
        await a_post(factory, body="![](/media/x.png)")
        assert (await reader.open("/")).all(".//article/p[@class='excerpt']") == []

    async def test_pages_are_walked_to_their_end(self, small: Reader, factory: Factory) -> None:
        """Those of one moment too; a list whose last page is full has no further one."""
        author = await factory.user("Ada")
        for number in range(6):
            await factory.blog(
                author, f"Notes {number}", tags=["looms"], published_at=DAY + timedelta(days=number // 4)
            )
        await factory.blog(author, "Before", published_at=DAY - timedelta(days=40))
        newest_first = ["Notes 5", "Notes 4", "Notes 3", "Notes 2", "Notes 1", "Notes 0"]
        assert await small.walk("/") == [*newest_first, "Before"]
        assert await small.walk(f"/authors/{author.id}") == [*newest_first, "Before"]
        assert await small.walk("/tags/looms") == newest_first
        assert await small.walk("/archive/2026/3") == newest_first
        assert await small.walk("/archive/2026/1") == ["Before"]

    async def test_a_page_stays_what_it_is_while_posts_come_and_go(self, small: Reader, factory: Factory) -> None:
        author, login = await factory.logged_in()
        blogs = [await factory.blog(author, f"Notes {n}", published_at=DAY + timedelta(days=n)) for n in range(5)]
        (second,) = (await small.open("/")).links(rel="next")[:1]
        assert (await small.open(second)).titles == ["Notes 2", "Notes 1"]
        await factory.blog(author, "New")
        await small._client.delete(f"/blog/{blogs[3].id}", headers=login)
        assert (await small.open(second)).titles == ["Notes 2", "Notes 1"]

    async def test_a_further_page_says_where_it_is(self, small: Reader, factory: Factory) -> None:
        author = await factory.user("Ada")
        for number in range(3):
            await factory.blog(author, f"Notes {number}", tags=["looms"], published_at=DAY + timedelta(hours=number))
        for path in ("/", "/tags/looms", f"/authors/{author.id}", "/archive/2026/3"):
            first = await small.open(path)
            assert first.links(rel="canonical") == [f"http://127.0.0.1:8000{path}"]
            assert first.links(rel="first") == []
            second = first.links(rel="next")[0]
            assert re.fullmatch(rf"{re.escape(path)}\?before=[0-9]+-[0-9]+", second)
            further = await small.open(second)
            assert further.links(rel="canonical") == [f"http://127.0.0.1:8000{second}"]
            assert further.links(rel="first") == [path]
            assert further.titles == ["Notes 0"]

    @on("sqlite")
    @pytest.mark.parametrize("before", ["x", "1", "1-", "-1", "1-1-1", "１-1", "1-x", "99999999999-1", "1-1"])
    async def test_of_what_no_link_says_there_is_none(self, reader: Reader, factory: Factory, before: str) -> None:
        author, _ = await a_post(factory)
        for path in ("/", "/tags/looms", f"/authors/{author.id}", "/archive/2026/3"):
            await reader.open(f"{path}?before={before}", 404)

    async def test_beyond_the_end_of_time_is_the_first_page(self, reader: Reader, factory: Factory) -> None:
        await a_post(factory)
        assert (await reader.open("/?before=9999999999-9999999999")).titles == ["Notes"]


class TestTag:
    @pytest.mark.parametrize(
        ("tag", "path"),
        [
            ("C++ & co/2", "/tags/c%2B%2B%20%26%20co%2F2"),
            ("عربي", "/tags/%D8%B9%D8%B1%D8%A8%D9%8A"),
            ("日本", "/tags/%E6%97%A5%E6%9C%AC"),
            ("what?#1%", "/tags/what%3F%231%25"),
            ("a;b,c\"'<d>", "/tags/a%3Bb%2Cc%22%27%3Cd%3E"),
        ],
    )
    async def test_of_any_characters(self, reader: Reader, factory: Factory, tag: str, path: str) -> None:
        await a_post(factory, tags=[tag])
        (link,) = (await reader.open("/")).links(rel="tag")
        assert link == path
        page = await reader.open(link)
        assert page.texts(".//h1") == [tag.lower()]
        assert page.links(rel="canonical") == [f"http://127.0.0.1:8000{path}"]
        assert page.links(rel="alternate", type="application/atom+xml") == [f"http://127.0.0.1:8000{path}/feed.atom"]
        assert (await reader.get(f"{path}/feed.atom")).status_code == 200

    async def test_another_spelling_leads_to_it(self, reader: Reader, factory: Factory) -> None:
        await a_post(factory, tags=["looms"])
        response = await reader.get("/tags/%23Looms")
        assert (response.status_code, response.headers["location"]) == (301, "/tags/looms")

    @pytest.mark.parametrize("tag", ["nowhere", "%00", "%20", "x" * 51, "%ff", "a%0Ab"])
    async def test_that_nothing_has(self, reader: Reader, factory: Factory, tag: str) -> None:
        await a_post(factory)
        await reader.open(f"/tags/{tag}", 404)


class TestAuthor:
    async def test_is_shown_with_what_they_say_of_themselves(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient
    ) -> None:
        author, _ = await a_post(factory)
        about = {"name": "Ada <b>", "about": "I weave & <i>write</i>."}
        await client.patch("/user/me", json=about, headers=factory.login(author))
        page = await reader.open(f"/authors/{author.id}")
        assert page.texts(".//h1") == ["Ada <b>"]
        assert page.texts(".//p[@class='about']") == ["I weave & <i>write</i>."]
        assert page.titles == ["Notes"]
        assert author.email not in page.response.text

    async def test_who_published_nothing_is_not_there(self, reader: Reader, factory: Factory) -> None:
        author = await factory.user("Grace")
        await factory.blog(author, "Hidden", status="draft")
        for path in (f"/authors/{author.id}", f"/authors/{author.id}?before=9999999999-1", "/authors/0", "/authors/x"):
            page = await reader.open(path, 404)
            assert "Grace" not in page.response.text
        await reader.open("/authors/2147483648", 404)

    async def test_a_new_name_is_everywhere(
        self,
        reader: Reader,
        factory: Factory,
        client: httpx.AsyncClient,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("blog.repository.user.now", lambda: clock.time)
        author, _ = await a_post(factory)
        shown = [page for page in pages(author) if page != "/archive"] + ["/feed.atom", "/feed.rss", "/feed.json"]
        for path in shown:
            assert "Ada" in (await reader.get(path)).text, path
        for name in ("Countess", "Lovelace"):  # within one second
            changed = await client.patch("/user/me", json={"name": name}, headers=factory.login(author))
            assert changed.status_code == 200
            for path in shown:
                text = (await client.get(path)).text
                assert name in text, path
                assert "Ada" not in text, path


class TestArchive:
    async def test_has_every_month_once(self, reader: Reader, factory: Factory) -> None:
        author = await factory.user()
        times = [(2025, 12, 31, 23), (2026, 1, 1, 0), (2026, 1, 31, 23), (2026, 3, 1, 0), (2024, 2, 29, 12)]
        for number, (year, month, day, hour) in enumerate(times):
            published_at = datetime(year, month, day, hour, 59 * (hour > 0), 59 * (hour > 0), tzinfo=UTC)
            await factory.blog(author, f"Notes {number}", published_at=published_at)
        page = await reader.open("/archive")
        assert page.texts(".//h2") == ["2026", "2025", "2024"]
        assert page.texts(".//main//li") == ["2026-03", "2026-01", "2025-12", "2024-02"]
        links = [link for link in page.links() if link.startswith("/archive/")]
        assert links == ["/archive/2026/3", "/archive/2026/1", "/archive/2025/12", "/archive/2024/2"]
        found = [(await reader.open(link)).titles for link in links]
        assert found == [["Notes 3"], ["Notes 2", "Notes 1"], ["Notes 0"], ["Notes 4"]]

    async def test_has_what_is_published_this_very_second(self, reader: Reader, factory: Factory, clock: Clock) -> None:
        await factory.blog(await factory.user(), "Now")
        assert (await reader.open("/archive")).texts(".//main//li") == [f"{clock.time:%Y-%m}"]

    @on("sqlite")
    @pytest.mark.parametrize(
        "month", ["2026/4", "2026/13", "2026/0", "2026/03", "1/1", "9999/12", "0/1", "x/1", "2026/x"]
    )
    async def test_of_a_month_without_posts(self, reader: Reader, factory: Factory, month: str) -> None:
        await a_post(factory)
        await reader.open(f"/archive/{month}", 404)


class TestSearch:
    async def test_marks_what_it_finds(self, reader: Reader, factory: Factory) -> None:
        author, _ = await a_post(factory, title="Of looms <b>", body="The loom & <i>engine</i> weaves flowers.")
        await factory.blog(author, "Hidden looms", "The loom weaves flowers.", status="draft")
        page = await reader.open('/search?q=weaves+"loom"')
        assert page.titles == ["Of looms <b>"]
        assert page.texts(".//article//mark") == ["loom", "weaves"]
        assert page.all(".//input[@name='q']")[0].get("value") == 'weaves "loom"'
        assert page.texts(".//p[@role='status']") == ["The best of what was found:"]

    @pytest.mark.parametrize("q", ["nothing", "%00", "%ff", "x" * 5_000, "%22", "*%20AND%20NEAR(", "' OR 1=1 --"])
    async def test_finds_nothing(self, reader: Reader, factory: Factory, q: str) -> None:
        await a_post(factory)
        assert (await reader.open(f"/search?q={q}")).titles == []

    async def test_nothing_is_asked_for(self, reader: Reader) -> None:
        page = await reader.open("/search")
        assert page.all(".//p[@role='status']") == []

    @pytest.mark.parametrize("q", ["می\u200cخواهم", "नमस्ते", "日本語", "👩\u200d💻"])
    async def test_in_any_script(self, reader: Reader, factory: Factory, q: str) -> None:
        await a_post(factory, body=f"x {q} y")
        page = await reader.open(f"/search?q={q}")
        assert page.titles == ["Notes"]
        assert page.all(".//input[@name='q']")[0].get("value") == q

    @on("sqlite")
    async def test_is_no_page_for_search_engines(self, reader: Reader) -> None:
        page = await reader.open("/search?q=x")
        assert page.links(rel="canonical") == []
        assert page.all(".//meta[@name='robots']")[0].get("content") == "noindex"
        assert "Disallow: /search" in (await reader.get("/robots.txt")).text.splitlines()


def json_ld(page: Document) -> Any:
    (script,) = page.all(".//script[@type='application/ld+json']")
    return json.loads(script.text or "")


class TestPost:
    async def test_shows_it(self, reader: Reader, factory: Factory) -> None:
        await a_post(factory, body="## On `looms`\n\nIt *weaves*.\n\n```python\nx = 1\n```\n", summary="In short.")
        page = await reader.open("/posts/notes")
        assert page.texts(".//h1") == ["Notes"]
        assert page.texts(".//main//h2")[0] == "On looms"
        assert page.texts(".//em") == ["weaves"]
        assert page.all(".//pre/code/span"), "no colours"
        assert page.texts(".//article/header/p") == ["2026-03-05 Ada", "1 min"]
        assert page.links(rel="tag") == ["/tags/looms"]
        assert page.links(rel="canonical") == ["http://127.0.0.1:8000/posts/notes"]
        properties = {meta.get("property") or meta.get("name"): meta.get("content") for meta in page.all(".//meta")}
        assert properties["og:title"] == "Notes"
        assert properties["og:type"] == "article"
        assert properties["og:url"] == "http://127.0.0.1:8000/posts/notes"
        assert properties["description"] == properties["og:description"] == "In short."
        assert properties["article:published_time"] == "2026-03-05T12:00:00Z"

    @on("sqlite")
    @pytest.mark.parametrize(
        "title",
        ["Notes", "</script><script>alert(1)</script>", '"\\', "<!--", "]]>", "xé", "عنوان", "&amp;"],
    )
    async def test_tells_machines_what_it_is(self, reader: Reader, factory: Factory, title: str) -> None:
        author, blog = await a_post(factory, title=title, summary=f"{title}\u2028{title}", tags=["</script>", "a"])
        page = await reader.open(f"/posts/{blog.slug}")
        told = json_ld(page)
        assert told["headline"] == title
        assert told["description"] == f"{title}\u2028{title}"
        assert told["url"] == told["mainEntityOfPage"] == page.links(rel="canonical")[0]
        assert told["keywords"] == ["</script>", "a"]
        assert told["author"] == {
            "@type": "Person",
            "name": "Ada",
            "url": f"http://127.0.0.1:8000/authors/{author.id}",
        }
        assert page.texts(".//title") == [f"{' '.join(title.split())} · Blog"]

    @on("sqlite")
    async def test_what_is_wide_is_scrolled_and_nothing_else_is_changed(self, reader: Reader, factory: Factory) -> None:
        body = """\
| a | b | c |
|---|:-:|--:|
| `<pre>` | </table> | [x](/x '<pre> <td align="left"> </table>') |

    <pre> <table>

[^1]

[^1]: Known.
"""
        await a_post(factory, body=body)
        page = await reader.open("/posts/notes")
        (wide,) = page.all(".//div[@class='wide']")
        assert [child.tag for child in wide] == ["table"]
        assert wide.get("tabindex") == page.all(".//pre")[0].get("tabindex") == "0"
        assert [cell.get("class") for cell in wide.iter() if cell.tag in ("th", "td")] == [None, "center", "right"] * 2
        assert not [cell for cell in wide.iter() if cell.get("align")]
        assert page.texts(".//td") == ["<pre>", "</table>", "x"]
        assert page.all(".//td/a")[0].get("title") == '<pre> <td align="left"> </table>'
        assert page.texts(".//pre") == ["<pre> <table>"]
        assert page.texts(".//div[@class='footnotes']/ol/li/p") == ["Known. ↩︎"]
        (item,) = (await reader.get("/feed.json")).json()["items"]
        assert '<td align="center">' in item["content_html"]

    async def test_leads_to_its_neighbours(self, reader: Reader, factory: Factory) -> None:
        author = await factory.user()
        for number, hours in enumerate((0, 1, 1, 3)):
            await factory.blog(author, f"Notes {number}", published_at=DAY + timedelta(hours=hours))
        found = {}
        for number in range(4):
            page = await reader.open(f"/posts/notes-{number}")
            found[number] = page.links(rel="prev"), page.links(rel="next")
        assert found == {
            0: ([], ["/posts/notes-1"]),
            1: (["/posts/notes-0"], ["/posts/notes-2"]),
            2: (["/posts/notes-1"], ["/posts/notes-3"]),
            3: (["/posts/notes-2"], []),
        }

    async def test_an_old_address_leads_to_the_new_one(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient
    ) -> None:
        author, blog = await a_post(factory)
        for slug in ("engines", "über-日本"):
            await client.patch(f"/blog/{blog.id}", json={"slug": slug}, headers=factory.login(author))
        for old in ("notes", "engines"):
            response = await reader.get(f"/posts/{old}")
            assert response.status_code == 301
            assert response.headers["location"] == "/posts/%C3%BCber-%E6%97%A5%E6%9C%AC"
        page = await reader.open(response.headers["location"])
        assert page.links(rel="canonical") == ["http://127.0.0.1:8000/posts/%C3%BCber-%E6%97%A5%E6%9C%AC"]

    async def test_one_that_was_deleted_is_gone(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient
    ) -> None:
        author, blog = await a_post(factory)
        hidden = await factory.blog(author, "Hidden", status="draft")
        await client.patch(f"/blog/{blog.id}", json={"slug": "engines"}, headers=factory.login(author))
        for each in (blog, hidden):
            assert (await client.delete(f"/blog/{each.id}", headers=factory.login(author))).status_code == 204
        for slug in ("engines", "notes"):
            page = await reader.open(f"/posts/{slug}", 410)
            assert page.texts(".//h1") == ["It was here once"]
        await reader.open("/posts/hidden", 404)

    @pytest.mark.parametrize(
        "slug", ["nowhere", "NOTES", "notes%20", "nótes", "ｎｏｔｅｓ", "%00", "%ff", "x" * 3_000, ".", "a%2Fb"]
    )
    async def test_that_is_not_there(self, reader: Reader, factory: Factory, slug: str) -> None:
        await a_post(factory)
        await reader.open(f"/posts/{slug}", 404)

    @on("sqlite")
    @pytest.mark.parametrize(
        ("body", "minutes"), [("x", 1), ("word " * 220 * 7, 7), ("字" * 4_500, 10), ("字" * 450 + "word " * 220, 2)]
    )
    async def test_takes_so_long_to_read(self, reader: Reader, factory: Factory, body: str, minutes: int) -> None:
        await a_post(factory, body=body)
        assert (await reader.open("/posts/notes")).texts(".//p[@class='length']") == [f"{minutes} min"]


@on("sqlite")
class TestScript:
    async def test_each_text_goes_in_its_own_direction(self, reader: Reader, factory: Factory) -> None:
        author, _ = await a_post(factory, title="مرحبا", body="هذا نص عربي.", tags=["عربي"], slug="notes")
        for path in ("/", "/posts/notes", f"/authors/{author.id}", "/tags/%D8%B9%D8%B1%D8%A8%D9%8A", "/search?q=هذا"):
            page = await reader.open(path)
            for element in page.root.iter():
                own = "".join([element.text or "", *(child.tail or "" for child in element)])
                if re.search("[\u0600-\u06ff]", own) and element.tag not in ("title", "script"):
                    above = [each for each in page.root.iter() if element in each.iter()]
                    assert any(each.get("dir") == "auto" for each in above), (path, own)

    @pytest.mark.parametrize(
        ("language", "direction"),
        [("en", "ltr"), ("ar", "rtl"), ("fa-IR", "rtl"), ("he", "rtl"), ("az-Arab", "rtl"), ("ar-Latn", "ltr")],
    )
    async def test_the_page_goes_in_that_of_the_site(self, settings: Settings, language: str, direction: str) -> None:
        app = create_app(settings.model_copy(update={"site_language": language}))
        async with app.router.lifespan_context(app), client_of(app) as client:
            page = await Reader(app, client).open("/")
        (html,) = [page.root] if page.root.tag == "html" else page.all(".//html")
        assert (html.get("lang"), html.get("dir")) == (language, direction)


EVERYWHERE = ("/", "/tags/looms", "/authors/{author}", "/archive", "/archive/{month}", "/search?q=hidden")
FEEDS = ("/feed.atom", "/feed.rss", "/feed.json", "/tags/looms/feed.atom", "/authors/{author}/feed.rss")
MAPS = ("/sitemap.xml", "/sitemap-1.xml")


class TestHidden:
    """What is not public is nowhere."""

    async def everything(
        self, reader: Reader, author: User, clock: Clock, *posts: str
    ) -> dict[str, tuple[int, str, str]]:
        found = {}
        for path in (*EVERYWHERE, *FEEDS, *MAPS, *(f"/posts/{slug}" for slug in posts)):
            path = path.format(author=author.id, month=f"{clock.time.year}/{clock.time.month}")
            response = await reader.get(path)
            found[path] = response.status_code, response.headers.get("etag", ""), response.text
        return found

    async def test_drafts_and_what_is_to_come_change_nothing(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        author = await factory.user("Ada")
        await factory.blog(author, "Notes", tags=["looms"], published_at=clock.time - timedelta(seconds=10))
        before = await self.everything(reader, author, clock, "notes", "hidden-0", "hidden-1")
        states: list[dict[str, Any]] = [{"status": "draft"}, {"publish_at": clock.after(3600)}]
        for number, state in enumerate(states):
            await factory.blog(author, f"Hidden {number}", "Hidden text", tags=["looms", "hidden"], **state)
        after = await self.everything(reader, author, clock, "notes", "hidden-0", "hidden-1")
        assert after == before
        assert not [path for path, (_, _, text) in after.items() if "hidden-" in text or "Hidden" in text]
        assert (await reader.get("/tags/hidden")).status_code == 404

    async def test_one_that_is_withdrawn_is_gone_from_everywhere(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        author, login = await factory.logged_in("Ada")
        await factory.blog(author, "Notes", tags=["looms"], published_at=clock.time - timedelta(seconds=10))
        before = await self.everything(reader, author, clock, "notes")
        hidden = await factory.blog(author, "Hidden", tags=["looms"])
        assert await self.everything(reader, author, clock, "notes") != before
        await client.patch(f"/blog/{hidden.id}", json={"status": Status.DRAFT}, headers=login)
        assert await self.everything(reader, author, clock, "notes") == before
        assert (await reader.get("/posts/hidden")).status_code == 404

    async def test_a_scheduled_one_appears_at_its_moment_on_pages_that_are_kept(
        self, reader: Reader, factory: Factory, clock: Clock
    ) -> None:
        author = await factory.user("Ada")
        await factory.blog(author, "Notes", tags=["looms"], published_at=clock.time - timedelta(seconds=10))
        await factory.blog(author, "Hidden", tags=["looms"], publish_at=clock.after(60))
        before = await self.everything(reader, author, clock, "notes", "hidden")
        clock.passes(59)
        assert await self.everything(reader, author, clock, "notes", "hidden") == before
        clock.passes(1)
        after = await self.everything(reader, author, clock, "notes", "hidden")
        lacks = {path for path, (_, _, text) in after.items() if "hidden" not in text.lower()}
        assert lacks == {"/archive", "/sitemap.xml"}
        assert after["/posts/hidden"][0] == 200

    async def test_a_moment_that_only_this_clock_has_not_reached(
        self, reader: Reader, factory: Factory, clock: Clock
    ) -> None:
        """Another worker's is ahead: what it published is to come, and is there when the time is."""
        author = await factory.user("Ada")
        clock.passes(5)
        await factory.blog(author, "Notes")
        clock.passes(-5)
        assert (await reader.open("/")).titles == []
        clock.passes(5)
        assert (await reader.open("/")).titles == ["Notes"]


@on("sqlite")
class TestRefusal:
    PATHS = ("/nowhere", "/posts/nowhere", "/tags/nowhere", "/archive/1/1", "/authors/x", "/feed.txt", "/static/x")

    @pytest.mark.parametrize("path", PATHS)
    async def test_is_a_page_to_a_browser(self, reader: Reader, path: str) -> None:
        page = await reader.open(path, 404)
        assert page.texts(".//h1") == ["There is nothing here"]
        assert page.links(rel="canonical") == []
        assert page.all(".//meta[@name='robots']")
        assert page.response.headers["cache-control"] == "no-cache"
        assert set(page.response.headers["content-security-policy"].split("; ")) == POLICY

    @pytest.mark.parametrize("path", PATHS)
    async def test_is_a_problem_to_a_program(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.get(path, headers={"Accept": "application/json"})
        status, problem = code(response)
        assert status == 404
        assert problem in ("not_found", "blog_not_found")

    @pytest.mark.parametrize(
        ("path", "media_type"),
        [("/nowhere", "application/problem+json"), ("/posts/nowhere", "text/html; charset=utf-8")],
    )
    async def test_to_a_client_without_an_accept_header(
        self, client: httpx.AsyncClient, path: str, media_type: str
    ) -> None:
        """It takes anything (RFC 9110, section 12.5.1): a page where there are pages, and else what programs get."""
        del client.headers["Accept"]
        response = await client.get(path)
        assert "Accept" not in response.request.headers
        assert response.status_code == 404
        assert response.headers["content-type"] == media_type

    @pytest.mark.parametrize("path", ["/blog/x", "/user/me", "/blog/?limit=0", "/user/1", "/media/x"])
    async def test_of_the_api_is_a_problem_to_everybody(self, reader: Reader, path: str) -> None:
        code(await reader.get(path))

    async def test_another_method(self, reader: Reader, client: httpx.AsyncClient) -> None:
        response = await client.post("/archive", headers={"Accept": "text/html"})
        assert code(response) == (405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD"


@on("sqlite")
class TestHeaders:
    async def test_let_in_nobody_else(self, reader: Reader, factory: Factory) -> None:
        author, _ = await a_post(factory)
        for path in pages(author):
            headers = (await reader.get(path)).headers
            assert set(headers["content-security-policy"].split("; ")) == POLICY, path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cache-control"] == "no-cache"
            assert "set-cookie" not in headers

    async def test_those_of_feeds_let_other_sites_read_them(self, reader: Reader, factory: Factory) -> None:
        await a_post(factory)
        for path in ("/feed.atom", "/feed.rss", "/feed.json", "/sitemap.xml"):
            headers = (await reader.get(path)).headers
            assert headers["cross-origin-resource-policy"] == "cross-origin"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"

    async def test_head_is_get_without_a_body(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient
    ) -> None:
        author, _ = await a_post(factory)
        for path in (*pages(author), "/feed.atom", "/sitemap.xml", "/robots.txt", "/static/site.css", "/posts/nowhere"):
            got = await reader.get(path)
            head = await client.head(path, headers={"Accept": "text/html"})
            assert head.status_code == got.status_code
            assert head.content == b""
            own = {"x-request-id"}
            assert {k: v for k, v in head.headers.items() if k not in own} == {
                k: v for k, v in got.headers.items() if k not in own
            }

    async def test_files_are_there_for_ever_under_an_address_of_their_content(self, reader: Reader) -> None:
        page = await reader.open("/")
        files = [link for link in page.links() if link.startswith("/static/")]
        assert len(files) == 2
        for file in files:
            assert re.fullmatch(r"/static/[a-z.]+\?[0-9a-f]{12}", file)
            plain = await reader.get(file, **{"Accept-Encoding": "identity"})
            packed = await reader.get(file, **{"Accept-Encoding": "gzip"})
            assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert "content-encoding" not in plain.headers
            assert packed.headers["content-encoding"] == "gzip"
            assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
            assert plain.text == packed.text
            assert packed.headers["vary"] == "Accept-Encoding"


@on("sqlite")
class TestAddresses:
    async def test_are_those_of_the_base_url_whatever_host_was_asked(
        self, settings: Settings, app: FastAPI, factory: Factory
    ) -> None:
        author, _ = await a_post(factory)
        changes = {"base_url": "https://blog.example.com", "allowed_hosts": ["other.example.com"]}
        given = {name: getattr(settings, name) for name in settings.model_fields_set} | changes
        other = create_app(Settings(_env_file=None, **given))
        async with other.router.lifespan_context(other), client_of(other) as client:
            for path in (*pages(author), "/feed.atom", "/feed.rss", "/feed.json", *MAPS, "/robots.txt"):
                response = await client.get(
                    path, headers={"Host": "other.example.com", "X-Forwarded-Host": "evil.example"}
                )
                assert response.status_code == 200
                assert "other.example.com" not in response.text, path
                assert "evil" not in response.text, path
                assert "127.0.0.1" not in response.text, path
                if path not in ("/archive", "/search?q=notes"):
                    assert "https://blog.example.com" in response.text, path


COST = {
    "/": 1,
    "/tags/looms": 1,
    "/authors/{author}": 2,
    "/archive/2026/3": 1,
    "/posts/notes": 4,
    "/search?q=notes": 2,
    "/feed.atom": 1,
    "/feed.json": 1,
    "/authors/{author}/feed.atom": 2,
    "/sitemap.xml": 1,
    "/sitemap-1.xml": 2,
    "/robots.txt": 0,
    "/static/site.css": 0,
}
"""Statements that make a page, however many posts there are, beside the one that asks for the state of it all."""


class TestCost:
    async def test_is_so_many_statements(self, reader: Reader, factory: Factory, statements: list[str]) -> None:
        author, _ = await a_post(factory)
        for more in (0, 30):
            for number in range(more):
                published_at = DAY - timedelta(days=1, hours=number)
                await factory.blog(author, f"More notes {number}", tags=["looms"], published_at=published_at)
            found = {}
            for path in COST:
                statements.clear()
                response = await reader.get(path.format(author=author.id))
                assert response.status_code == 200
                found[path] = len([statement for statement in statements if "min(blog.renderer)" not in statement])
            assert found == COST

    async def test_that_of_the_archive_is_one_a_month(
        self, reader: Reader, factory: Factory, statements: list[str]
    ) -> None:
        author = await factory.user()
        for number in range(12):
            published_at = datetime(2026, 1 + number % 3, 1 + number, tzinfo=UTC)
            await factory.blog(author, f"Notes {number}", published_at=published_at)
        statements.clear()
        await reader.open("/archive")
        assert len([s for s in statements if "max(blog.published_at)" in s]) == 3 + 1
