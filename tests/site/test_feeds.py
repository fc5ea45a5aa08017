"""Feeds and the map of the site, as programs read them."""

import json
import random
from calendar import timegm
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from xml.etree import ElementTree

import feedparser
import html5lib
import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from blog.app import create_app
from blog.schemas.blog import BlogWrite
from blog.settings import Settings
from tests.clock import Clock
from tests.conftest import client_of
from tests.factories import Factory
from tests.site.conftest import Reader

DAY = datetime(2026, 3, 5, 12, tzinfo=UTC)
SITE = "http://127.0.0.1:8000"
KINDS = {"atom": "application/atom+xml", "rss": "application/rss+xml", "json": "application/feed+json"}
ATOM = "{http://www.w3.org/2005/Atom}"
CONTENT = "{http://purl.org/rss/1.0/modules/content/}encoded"
MAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"

HOSTILE = (
    "]]>",
    "</title>",
    "&",
    "&amp;lt;",
    "<![CDATA[",
    "<!--",
    "-->",
    "<?xml?>",
    "<script>alert(1)</script>",
    "\u200fעברית\u200e",
    "\u202eevil\u202c",
    "\u2066x\u2069",
    "\ufeff",
    "\u2028",
    "\x85",
    "\x9f",
    "\ufdd0",
    "\U0001fffe",
    "\U0010ffff",
    "\U000e0001",
    "👩\u200d💻",
    "&#11;",
    "&#xfffe;",
    "&#0;",
    "&nbsp;",
    "%0b",
    "`]]>`",
    "\"'",
    "[a](<x y>)",
    "[a](/x?a=1&b=2)",
    "![i](//other.example/x.png)",
    "<https://example.com/?a=1&b=]]>",
    "[a](https://[x) [a](//[::1)",
)
REFUSED = ("\x00", "\x0b", "\x0c", "\x1b", "\x7f", "\ufffe", "\uffff", "\ud800", "\udfff")


class Entry(NamedTuple):
    id: str
    title: str
    link: str
    html: str
    summary: str
    published_at: datetime
    tags: list[str]
    author: str


class Feed(NamedTuple):
    title: str
    links: set[str]
    entries: list[Entry]


def parsed(response: httpx.Response) -> Feed:
    """What feedparser makes of it, which finds no fault with it; it does not know JSON Feed."""
    assert response.status_code == 200
    if response.headers["content-type"] == KINDS["json"]:
        return parsed_json(response.json())
    found = feedparser.parse(response.content)
    assert found.bozo == 0, found.get("bozo_exception")
    entries = [
        Entry(
            each.id,
            each.title,
            each.link,
            each.content[0].value.strip(),
            # It takes the content where there is no summary.
            each.summary if "summary_detail" in each else "",
            datetime.fromtimestamp(timegm(each.published_parsed), UTC),
            [tag.term for tag in each.get("tags", [])],
            each.author,
        )
        for each in found.entries
    ]
    return Feed(found.feed.title, {link.href for link in found.feed.links}, entries)


def parsed_json(feed: Any) -> Feed:
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    entries = [
        Entry(
            item["id"],
            item["title"],
            item["url"],
            item["content_html"].strip(),
            item["summary"],
            datetime.fromisoformat(item["date_published"]),
            item["tags"],
            item["authors"][0]["name"],
        )
        for item in feed["items"]
    ]
    return Feed(feed["title"], {feed["home_page_url"], feed["feed_url"]}, entries)


def odd(source: random.Random, *, lines: bool) -> str:
    """Text of anything that Unicode has, and of what means something to XML, HTML or Markdown."""
    parts = []
    for _ in range(source.randint(1, 12)):
        kind = source.random()
        if kind < 0.5:
            parts.append(source.choice(HOSTILE))
        elif kind < 0.8:
            plane = source.choice((0, 0, 0, 1, 2, 3, 14, 15, 16))
            parts.append("".join(chr(plane * 0x10000 + source.randrange(0x10000)) for _ in range(4)))
        else:
            parts.append("".join(chr(source.randrange(0x250)) for _ in range(6)))
        if lines and source.random() < 0.3:
            parts.append(source.choice(("\n\n", "\n    ", "\n```\n", "\n> ", "\r\n", "\t")))
    return source.choice(("", " ")).join(parts)


def storable(source: random.Random, number: int) -> list[dict[str, Any]]:
    """What the platform takes of many odd titles, bodies, summaries and tags."""
    taken: list[dict[str, Any]] = []
    refused = 0
    while len(taken) < number:
        given = {
            "title": odd(source, lines=False)[:200],
            "body": odd(source, lines=True),
            "tags": [odd(source, lines=False)[:50]],
        }
        for field in ("title", "body", "tags"):
            one = {"title": "x", "body": "x"} | {field: given[field]}
            try:
                BlogWrite.model_validate(one)
            except ValidationError:
                refused += 1
            else:
                taken.append({**one, "summary": one["body"][:500]})
    assert refused > number / 10, "nothing odd enough"
    return taken


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class TestEveryText:
    async def test_is_well_formed_in_every_feed(
        self, reader: Reader, factory: Factory, engine_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blog.site.feeds.LATEST", 500)
        author = await factory.user("Ada </author> & ]]>")
        posts = storable(random.Random(engine_name), 100)  # other texts on each, the same each time
        for text in HOSTILE:
            title = text if text not in ("\u2028", "\x85", "\x9f") else ""
            posts.append({"title": f"x{title}", "body": f"x{text}\n\n    {text}", "summary": text, "tags": []})
        for number, post in enumerate(posts):
            await factory.blog(author, **post, published_at=DAY + timedelta(minutes=number))
        titles = [BlogWrite.model_validate(post).title for post in reversed(posts)]
        for kind in ("atom", "rss"):
            assert len(parsed(await reader.get(f"/feed.{kind}")).entries) == len(posts)
        items = (await reader.get("/feed.json")).json()["items"]
        assert [item["title"] for item in items] == titles
        summaries = [BlogWrite.model_validate(post).summary for post in reversed(posts)]
        assert [item["summary"] for item in items] == summaries
        entries = list(ElementTree.fromstring((await reader.get("/feed.atom")).content).iter(f"{ATOM}entry"))
        assert [entry.findtext(f"{ATOM}title") for entry in entries] == titles
        assert [entry.findtext(f"{ATOM}content") for entry in entries] == [item["content_html"] for item in items]
        rss = list(ElementTree.fromstring((await reader.get("/feed.rss")).content).iter("item"))
        assert [item.findtext("title") for item in rss] == titles
        assert [item.findtext(CONTENT) for item in rss] == [item["content_html"] for item in items]
        ElementTree.fromstring((await reader.get("/sitemap-1.xml")).content)

    @pytest.mark.parametrize("text", REFUSED)
    async def test_what_xml_cannot_hold_is_refused(
        self, client: httpx.AsyncClient, factory: Factory, text: str
    ) -> None:
        _, login = await factory.logged_in()
        for field in ("title", "body", "summary", "tags"):
            value: Any = [f"x{text}y"] if field == "tags" else f"x{text}y"
            content = json.dumps({"title": "x", "body": "x", field: value})
            headers = login | {"Content-Type": "application/json"}
            assert (await client.post("/blog/", content=content, headers=headers)).status_code == 422
        named = json.dumps({"name": f"x{text}y"})
        headers = login | {"Content-Type": "application/json"}
        assert (await client.patch("/user/me", content=named, headers=headers)).status_code == 422


class TestFeed:
    async def test_of_a_site_without_posts(self, reader: Reader) -> None:
        for kind, media_type in KINDS.items():
            response = await reader.get(f"/feed.{kind}")
            assert response.status_code == 200
            assert response.headers["content-type"].split(";")[0] == media_type
            assert "last-modified" not in response.headers
            assert parsed(response).entries == []

    async def test_has_the_newest_twenty_whole(self, reader: Reader, factory: Factory) -> None:
        author = await factory.user("Ada")
        for number in range(22):
            await factory.blog(
                author,
                f"Notes {number}",
                "It *weaves*.",
                summary="In short.",
                tags=["a & b", "looms"],
                published_at=DAY + timedelta(hours=number),
            )
        for kind in KINDS:
            feed = parsed(await reader.get(f"/feed.{kind}"))
            assert feed.links == {f"{SITE}/", f"{SITE}/feed.{kind}"}
            assert [entry.title for entry in feed.entries] == [f"Notes {number}" for number in range(21, 1, -1)]
            first = feed.entries[0]
            assert first.link == f"{SITE}/posts/notes-21"
            assert first.html == "<p>It <em>weaves</em>.</p>"
            assert first.summary == "In short."
            assert first.published_at == DAY + timedelta(hours=21)
            assert first.tags == ["a & b", "looms"]
            assert first.author == "Ada"
        item = (await reader.get("/feed.json")).json()["items"][0]
        assert item["authors"] == [{"name": "Ada", "url": f"{SITE}/authors/{author.id}"}]

    async def test_says_where_it_is_and_what_of(
        self, reader: Reader, settings: Settings, app: FastAPI, factory: Factory
    ) -> None:
        await factory.blog(await factory.user("Ada"))
        changes = {"site_title": "Looms & <engines>", "site_description": "Of ]]> & flowers.", "site_language": "pt-BR"}
        other = create_app(settings.model_copy(update=changes))
        async with other.router.lifespan_context(other), client_of(other) as client:
            for kind in ("atom", "rss"):
                response = await client.get(f"/feed.{kind}")
                assert parsed(response).title == "Looms & <engines>"
                feed = feedparser.parse(response.content).feed
                assert feed.title == "Looms & <engines>"
                assert feed.subtitle == "Of ]]> & flowers."
                assert feed.language == "pt-BR"
            data = (await client.get("/feed.json")).json()
        assert (data["title"], data["description"], data["language"]) == (*list(changes.values())[:2], "pt-BR")
        assert data["home_page_url"] == f"{SITE}/"
        assert data["feed_url"] == f"{SITE}/feed.json"
        assert data["version"] == "https://jsonfeed.org/version/1.1"

    @pytest.mark.parametrize("tag", ["looms", "c/c++ & co", "عربي", "日本", "what?#%"])
    async def test_of_a_tag_has_its_posts(self, reader: Reader, factory: Factory, tag: str) -> None:
        author = await factory.user("Ada")
        await factory.blog(author, "Tagged", tags=[tag])
        await factory.blog(author, "Other", tags=["other"])
        page = await reader.open("/")
        path = page.links(rel="tag")[1]
        for kind in KINDS:
            feed = parsed(await reader.get(f"{path}/feed.{kind}"))
            assert [entry.title for entry in feed.entries] == ["Tagged"]
            assert feed.title == f"{tag} · Blog"
            assert feed.links == {f"{SITE}{path}", f"{SITE}{path}/feed.{kind}"}
        assert (await reader.get(f"/tags/nowhere/feed.{kind}")).status_code == 404

    async def test_of_an_author_has_theirs(self, reader: Reader, factory: Factory) -> None:
        ada, bob, eve = [await factory.user(name) for name in ("Ada & <b>", "Bob", "Eve")]
        for author in (ada, bob):
            await factory.blog(author, f"By {author.name}")
        await factory.blog(eve, "Hidden", status="draft")
        for kind in KINDS:
            feed = parsed(await reader.get(f"/authors/{ada.id}/feed.{kind}"))
            assert [entry.title for entry in feed.entries] == ["By Ada & <b>"]
            assert feed.title == "Ada & <b> · Blog"
            for number in (eve.id, 0, "x", 2**31):
                response = await reader.get(f"/authors/{number}/feed.{kind}")
                assert response.status_code == 404
                assert "Eve" not in response.text

    async def test_ids_are_those_of_the_post_whatever_it_is_called(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient
    ) -> None:
        author, login = await factory.logged_in("Ada")
        blog = await factory.blog(author, "Notes", tags=["looms"], published_at=DAY)
        other = await factory.blog(author, "Other", tags=["looms"], published_at=DAY)

        async def ids(kind: str, path: str = "") -> list[str]:
            return [entry.id for entry in parsed(await reader.get(f"{path}/feed.{kind}")).entries]

        before = {kind: await ids(kind) for kind in KINDS}
        assert len({tuple(found) for found in before.values()}) == 1
        assert len(set(before["atom"])) == 2
        assert all(str(each).startswith("tag:127.0.0.1,") for each in before["atom"])
        change = {"title": "Engines", "slug": "engines", "body": "Other", "publish_at": "2026-02-01T00:00:00Z"}
        await client.patch(f"/blog/{blog.id}", json=change, headers=login)
        await client.patch("/user/me", json={"name": "Countess"}, headers=login)
        for kind in KINDS:
            # Dated back, it comes second.
            assert sorted(await ids(kind)) == sorted(before[kind])
            assert await ids(kind, "/tags/looms") == await ids(kind, f"/authors/{author.id}") == await ids(kind)
        assert other.id > blog.id

    async def test_addresses_in_posts_are_whole_and_their_text_is_as_it_was(
        self, reader: Reader, factory: Factory
    ) -> None:
        body = """\
## Looms

[a](/posts/x?a=1&b=2) [b](notes) [c](#h-looms) [d](https://example.com/?a=1&amp;lt;=2) [e](mailto:a@example.com)
[f](//other.example/x) ![g](/media/x.png 'a href="/x" b')

`<a href="/kept">` and

```html
<a href="/kept">x</a>
<img src='/kept'>
```

A note.[^1]

[^1]: Of it.
"""
        await factory.blog(await factory.user(), "Notes", body, published_at=DAY)
        html = (await reader.get("/feed.json")).json()["items"][0]["content_html"]
        root = html5lib.parseFragment(html, namespaceHTMLElements=False)
        links = [link.get("href", "") for link in root.iter("a")]
        assert links[:6] == [
            f"{SITE}/posts/x?a=1&b=2",
            f"{SITE}/posts/notes",
            f"{SITE}/posts/notes#h-looms",
            "https://example.com/?a=1&lt;=2",
            "mailto:a@example.com",
            "http://other.example/x",
        ]
        assert links[6:] == [f"{SITE}/posts/notes#fn-1", f"{SITE}/posts/notes#fnref-1"]
        (image,) = root.iter("img")
        assert image.get("src") == f"{SITE}/media/x.png"
        assert image.get("title") == 'a href="/x" b'
        assert ["".join(code.itertext()) for code in root.iter("code")] == [
            '<a href="/kept">',
            "<a href=\"/kept\">x</a>\n<img src='/kept'>\n",
        ]
        for kind in ("atom", "rss"):
            assert parsed(await reader.get(f"/feed.{kind}")).entries[0].link == f"{SITE}/posts/notes"

    async def test_says_when_it_last_changed(
        self, reader: Reader, factory: Factory, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        author, login = await factory.logged_in()
        blog = await factory.blog(author, "Notes")
        await factory.blog(author, "Soon", publish_at=clock.after(60))

        async def seen() -> set[str]:
            times = set()
            for kind in KINDS:
                response = await reader.get(f"/feed.{kind}")
                times.add(response.headers["last-modified"])
                assert all(entry.published_at <= clock.time for entry in parsed(response).entries)
            return times

        def http(moment: datetime) -> str:
            return f"{moment:%a, %d %b %Y %H:%M:%S} GMT"

        assert await seen() == {http(clock.time)}
        clock.passes(10)
        assert await seen() == {http(clock.time - timedelta(seconds=10))}
        await client.patch(f"/blog/{blog.id}", json={"body": "Other"}, headers=login)
        assert await seen() == {http(clock.time)}
        clock.passes(50)
        appeared = clock.time
        clock.passes(10)
        assert await seen() == {http(appeared)}
        atom = ElementTree.fromstring((await reader.get("/feed.atom")).content)
        assert (
            atom.findtext(f"{ATOM}updated")
            == atom.findtext(f"{ATOM}entry/{ATOM}updated")
            == f"{appeared:%Y-%m-%dT%H:%M:%SZ}"
        )
        page = await reader.open("/posts/soon")
        assert f'"dateModified": "{appeared:%Y-%m-%dT%H:%M:%SZ}"' in page.response.text
        assert f"<lastmod>{appeared:%Y-%m-%dT%H:%M:%SZ}</lastmod>" in (await reader.get("/sitemap-1.xml")).text


class TestMap:
    async def test_has_no_more_parts_than_it_may(
        self, reader: Reader, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However far the ids are, the first of which need not be 1."""
        monkeypatch.setattr("blog.repository.page.MAPPED", 1)
        monkeypatch.setattr("blog.repository.page.MOST_PARTS", 2)
        author = await factory.user()
        for number in range(5):
            await factory.blog(author, f"Post {number}")
        index = await reader.get("/sitemap.xml")
        assert index.text.count("<sitemap>") == 2
        parts = [await reader.get(f"/sitemap-{number}.xml") for number in (1, 2)]
        shown = [str(found.text) for part in parts for found in ElementTree.fromstring(part.content).iter(f"{MAP}loc")]
        assert shown == [f"{SITE}/", *(f"{SITE}/posts/post-{number}" for number in range(5))]
        assert (await reader.get("/sitemap-3.xml")).status_code == 404

    async def test_has_every_post_in_some_part(
        self, reader: Reader, factory: Factory, monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
    ) -> None:
        monkeypatch.setattr("blog.repository.page.MAPPED", 3)
        author, login = await factory.logged_in()
        posts = [
            await factory.blog(author, f"Nötes {number}", published_at=DAY + timedelta(days=number))
            for number in range(7)
        ]
        states: list[dict[str, Any]] = [{"status": "draft"}, {"publish_at": "2199-01-01T00:00:00Z"}]
        for state in states:
            await factory.blog(author, "Hidden", **state)
        await client.delete(f"/blog/{posts[3].id}", headers=login)

        def locations(response: httpx.Response, kind: str) -> list[str]:
            assert response.headers["content-type"] == "application/xml; charset=utf-8"
            return [str(found.text) for found in ElementTree.fromstring(response.content).iter(f"{MAP}loc")]

        parts = locations(await reader.get("/sitemap.xml"), "sitemap")
        assert all(part.startswith(f"{SITE}/sitemap-") for part in parts)
        found: list[str] = []
        for part in parts:
            shown = locations(await reader.get(part.removeprefix(SITE)), "url")
            assert len(shown) <= 3 + 1
            found += shown
        wanted = [f"{SITE}/posts/n%C3%B6tes-{number}" for number in range(7) if number != 3]
        assert found == [f"{SITE}/", *wanted]
        for path in found:
            assert (await reader.get(path.removeprefix(SITE))).status_code == 200
        for number in (0, len(parts) + 1, 2**31, "x", "01"):
            assert (await reader.get(f"/sitemap-{number}.xml")).status_code == 404

    async def test_of_a_site_without_posts_has_its_home(self, reader: Reader) -> None:
        index = ElementTree.fromstring((await reader.get("/sitemap.xml")).content)
        assert index.findtext(f".//{MAP}loc") == f"{SITE}/sitemap-1.xml"
        assert f"<loc>{SITE}/</loc>" in (await reader.get("/sitemap-1.xml")).text

    async def test_programs_are_told_where_it_is(self, reader: Reader) -> None:
        response = await reader.get("/robots.txt")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert f"Sitemap: {SITE}/sitemap.xml" in response.text.splitlines()
