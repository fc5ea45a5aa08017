"""Pages for readers, and the page that a one-time link opens."""

import hashlib
import re
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.status import HTTP_301_MOVED_PERMANENTLY

from blog.dependencies import SettingsOfApp
from blog.errors import NotFound
from blog.models import Status
from blog.repository.blog import BlogAnswer
from blog.schemas.blog import Sort
from blog.schemas.types import MAX_ID, UNSTORABLE, Page, PageRequest, PathId
from blog.security.access import ANYBODY
from blog.site.kept import DISCUSSED, READ, takes_gzip
from blog.site.reading import (
    Keep,
    KeepList,
    PageRoute,
    Place,
    Reading,
    ReadingOfPage,
    TemplatesOfApp,
    find_author,
    find_post,
    name_of_tag,
    page_of,
)
from blog.site.rendering import FILES, Templates, post_path, tag_path

INLINE = {kind: re.compile(rf"<{kind}>(.*?)</{kind}>".encode(), re.DOTALL) for kind in ("script", "style")}

TEASER = ("id", "slug", "title", "summary", "excerpt", "tags", "published_at", "creator")
FOUND = ("id", "slug", "title", "tags", "published_at", "creator")
LAST_SAID = 50
"""Messages under a post; the rest are on the page of its discussion."""
ASKED_LENGTH = 500
"""Characters of what somebody searches for."""
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}

router = APIRouter(include_in_schema=False, route_class=PageRoute)


def hashes_of(page: bytes, kind: str) -> str:
    """What a content security policy says of the page's own scripts, or styles: leave for these alone."""
    hashes = [b64encode(hashlib.sha256(content).digest()).decode() for content in INLINE[kind].findall(page)]
    return " ".join(f"'sha256-{digest}'" for digest in hashes)


def _policy(page: bytes, sources: str = "") -> str:
    """The policy of a page that asks nobody but the platform, and runs nothing but its own."""
    return (
        f"default-src 'none'; connect-src 'self'; script-src {hashes_of(page, 'script')}; "
        f"style-src {hashes_of(page, 'style')}; {sources}form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


LINK_PAGE = Path(__file__).with_name("link.html").read_bytes()
LINK_POLICY = _policy(LINK_PAGE)

ROOMS_PAGE = Path(__file__).with_name("rooms.html").read_bytes()
# A WebSocket of its own origin is 'self' to every browser since 2022: CSP 3, section 6.7.2.8.
ROOMS_POLICY = _policy(ROOMS_PAGE, "img-src 'self'; ")


@router.get("/", dependencies=[KeepList])
async def show_home(reading: ReadingOfPage, templates: TemplatesOfApp, place: Place) -> Response:
    """Show the newest posts."""
    page = await reading.blogs.page(place, viewer=ANYBODY, fields=TEASER, status=Status.PUBLISHED)
    if not page.rows and place.after:
        raise NotFound("There are no older posts.")
    return page_of_list(templates, "home.html", "/", place, page, feeds="")


@router.get("/tags/{tag:path}", dependencies=[KeepList])
async def show_tag(reading: ReadingOfPage, templates: TemplatesOfApp, place: Place, tag: str) -> Response:
    """Show the newest posts of a tag."""
    name = name_of_tag(tag)
    if name != tag:
        return RedirectResponse(tag_path(name), HTTP_301_MOVED_PERMANENTLY)
    page = await reading.blogs.page(place, viewer=ANYBODY, fields=TEASER, tag=name, status=Status.PUBLISHED)
    if not page.rows:
        raise NotFound("There are no posts with this tag.")
    return page_of_list(templates, "tag.html", tag_path(name), place, page, feeds=tag_path(name), tag=name)


@router.get("/authors/{user_id}", dependencies=[KeepList])
async def show_author(reading: ReadingOfPage, templates: TemplatesOfApp, place: Place, user_id: PathId) -> Response:
    """Show an author with the newest posts."""
    author = await find_author(reading, user_id)
    page = await reading.blogs.page(place, viewer=ANYBODY, fields=TEASER, author=user_id, status=Status.PUBLISHED)
    if not page.rows:
        raise NotFound("This author has published nothing.")
    path = f"/authors/{user_id}"
    return page_of_list(templates, "author.html", path, place, page, feeds=path, author=author)


@router.get("/archive", dependencies=[Keep])
async def show_archive(reading: ReadingOfPage, templates: TemplatesOfApp) -> Response:
    """Show in which months something was published."""
    years: dict[int, list[datetime]] = {}
    for month in await reading.pages.months():
        years.setdefault(month.year, []).append(month)
    return page_of(templates.render("archive.html", canonical="/archive", years=years))


@router.get("/archive/{year}/{month}", dependencies=[KeepList])
async def show_month(
    reading: ReadingOfPage, templates: TemplatesOfApp, place: Place, year: PathId, month: PathId
) -> Response:
    """Show the posts of a month, the newest first."""
    try:
        start = datetime(year, month, 1, tzinfo=UTC)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    except ValueError:
        raise NotFound from None
    first = (int(end.timestamp()), 0)
    # One more, which tells whether the month goes on.
    walk = PageRequest(place.limit + 1, min(first, place.after or first))
    found = await reading.blogs.page(walk, viewer=ANYBODY, fields=TEASER, status=Status.PUBLISHED)
    rows = [row for row in found.rows if row["published_at"] >= start]
    if not rows:
        raise NotFound("Nothing was published in this month.")
    shown = rows[: place.limit]
    page = Page(shown, _position(shown[-1]) if len(rows) > len(shown) else None)
    path = f"/archive/{year}/{month}"
    return page_of_list(templates, "month.html", path, place, page, feeds="", month=start)


@router.get("/search")
async def show_found(
    reading: ReadingOfPage, templates: TemplatesOfApp, settings: SettingsOfApp, q: Annotated[str, Query()] = ""
) -> Response:
    """Show what a search finds, with the words marked."""
    asked = UNSTORABLE.sub(" ", q)[:ASKED_LENGTH].strip()
    place = PageRequest(settings.site_page_size, None)
    page = await reading.blogs.search(place, asked, viewer=ANYBODY, fields=FOUND, status=Status.PUBLISHED)
    return page_of(templates.render("search.html", canonical=None, q=asked, posts=page.rows))


@router.get("/posts/{slug}", dependencies=[Keep])
async def show_post(request: Request, reading: ReadingOfPage, templates: TemplatesOfApp, slug: str) -> Response:
    """Show a post, and what was said about it last."""
    post = await find_post(reading, slug)
    if post["slug"] != slug:
        return RedirectResponse(post_path(post), HTTP_301_MOVED_PERMANENTLY)
    newer, before = [await _beside(reading, post, sort) for sort in ("published_at", "-published_at")]
    room = await reading.rooms.read_of_blog(post["id"], viewer=ANYBODY)
    request.scope[DISCUSSED] = room
    request.scope[READ] = post["id"], post["creator"]["id"]
    said = [] if room is None else await reading.rooms.messages_before(room.id, MAX_ID, LAST_SAID)
    shown = {"post": post, "newer": newer, "older": before, "room": room, "said": said}
    return page_of(templates.render("post.html", canonical=post_path(post), **shown))


@router.get("/robots.txt")
async def show_robots(templates: TemplatesOfApp) -> Response:
    """Say what programs that read the site may do."""
    return Response(templates.render("robots.txt"), media_type="text/plain")


@router.get("/static/{name}")
async def show_file(request: Request, templates: TemplatesOfApp, name: str) -> Response:
    """Give what pages ask for; they ask with another query when it changes."""
    if name not in templates.files:
        raise NotFound
    file = templates.files[name]
    if takes_gzip(request.headers):
        return Response(file.packed, media_type=FILES[name], headers=FOR_EVER | {"Content-Encoding": "gzip"})
    return Response(file.content, media_type=FILES[name], headers=FOR_EVER)


@router.get("/link")
async def show_link() -> HTMLResponse:
    """Show what a one-time link is good for; its token stays in the browser until somebody sends the form."""
    return HTMLResponse(LINK_PAGE, headers={"Content-Security-Policy": LINK_POLICY})


async def show_rooms() -> HTMLResponse:
    """Show what people and programs do in rooms, to whoever logs in there."""
    return HTMLResponse(ROOMS_PAGE, headers={"Content-Security-Policy": ROOMS_POLICY})


def page_of_list(
    templates: Templates, name: str, path: str, place: PageRequest, page: Page[Any], **values: Any
) -> HTMLResponse:
    """A page of a list of posts, which others may follow."""

    def at(position: tuple[Any, ...] | None) -> str:
        return path if position is None else f"{path}?before={position[0]}-{position[1]}"

    further = None if page.next is None else at(page.next)
    shown = {"canonical": at(place.after), "first": path if place.after else None, "further": further}
    return page_of(templates.render(name, posts=page.rows, **shown, **values))


async def _beside(reading: Reading, post: BlogAnswer, sort: Sort) -> BlogAnswer | None:
    """The next post in this order."""
    place = PageRequest(1, _position(post))
    found = await reading.blogs.page(
        place, viewer=ANYBODY, fields=("slug", "title"), sort=sort, status=Status.PUBLISHED
    )
    return next(iter(found.rows), None)


def _position(post: BlogAnswer) -> tuple[int, int]:
    """Where a post is among all, by the moment of its publication."""
    return int(post["published_at"].timestamp()), post["id"]
