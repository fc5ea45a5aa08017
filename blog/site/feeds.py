"""Feeds, the map of the site, and what programs that read it may do."""

from enum import StrEnum
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from blog.dependencies import SettingsOfApp
from blog.errors import NotFound
from blog.models import Status, User
from blog.repository.blog import BlogAnswer
from blog.schemas.types import PageRequest, PathId
from blog.security.access import ANYBODY
from blog.settings import Settings
from blog.site.reading import Keep, PageRoute, Reading, ReadingOfPage, TemplatesOfApp, find_author, name_of_tag
from blog.site.rendering import Templates, author_path, last_change, post_path, rfc_822, rfc_3339, tag_path

LATEST = 20
"""Posts in a feed."""

ENTRY = ("id", "slug", "title", "summary", "html", "tags", "created_at", "updated_at", "published_at", "creator")


class Kind(StrEnum):
    """A format of feeds, as its address ends."""

    ATOM = "atom"
    RSS = "rss"
    JSON = "json"


MEDIA_TYPES = {
    Kind.ATOM: "application/atom+xml",
    Kind.RSS: "application/rss+xml",
    Kind.JSON: "application/feed+json",
}
FEED_HEADERS = {"Cache-Control": "no-cache", "Cross-Origin-Resource-Policy": "cross-origin"}

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/feed.{kind}", dependencies=[Keep])
async def show_feed(reading: ReadingOfPage, templates: TemplatesOfApp, settings: SettingsOfApp, kind: Kind) -> Response:
    """Give the newest posts to feed readers."""
    return await _feed(reading, templates, settings, kind, "/")


@router.get("/tags/{tag:path}/feed.{kind}", dependencies=[Keep])
async def show_feed_of_tag(
    reading: ReadingOfPage, templates: TemplatesOfApp, settings: SettingsOfApp, kind: Kind, tag: str
) -> Response:
    """Give the newest posts of a tag to feed readers."""
    name = name_of_tag(tag)
    return await _feed(reading, templates, settings, kind, tag_path(name), tag=name)


@router.get("/authors/{user_id}/feed.{kind}", dependencies=[Keep])
async def show_feed_of_author(
    reading: ReadingOfPage, templates: TemplatesOfApp, settings: SettingsOfApp, kind: Kind, user_id: PathId
) -> Response:
    """Give the newest posts of an author to feed readers."""
    author: User = await find_author(reading, user_id)
    return await _feed(reading, templates, settings, kind, f"/authors/{user_id}", author=author)


@router.get("/sitemap.xml", dependencies=[Keep])
async def show_map(reading: ReadingOfPage, templates: TemplatesOfApp) -> Response:
    """Say in which parts the map of the site is."""
    parts = await reading.pages.parts_of_map()
    return _xml(templates.render("sitemaps.xml", parts=len(parts)), "application/xml")


@router.get("/sitemap-{number}.xml", dependencies=[Keep])
async def show_part_of_map(reading: ReadingOfPage, templates: TemplatesOfApp, number: PathId) -> Response:
    """Give a part of the map of the site: the addresses of posts."""
    parts = await reading.pages.parts_of_map()
    if not 1 <= number <= len(parts):
        raise NotFound
    posts = await reading.pages.part_of_map(parts[number - 1], parts.step)
    return _xml(templates.render("sitemap.xml", posts=posts, is_first=number == 1), "application/xml")


async def _feed(
    reading: Reading,
    templates: Templates,
    settings: Settings,
    kind: Kind,
    path: str,
    *,
    tag: str | None = None,
    author: User | None = None,
) -> Response:
    page = await reading.blogs.page(
        PageRequest(LATEST, None),
        viewer=ANYBODY,
        fields=ENTRY,
        tag=tag,
        author=author.id if author else None,
        status=Status.PUBLISHED,
    )
    if not page.rows and path != "/":
        raise NotFound("There are no posts here.")
    updated_at = max(map(last_change, page.rows), default=None)
    about = tag or (author.name if author else None)
    title = f"{about} · {settings.site_title}" if about else settings.site_title
    if kind is Kind.JSON:
        feed = {
            "version": "https://jsonfeed.org/version/1.1",
            "title": title,
            "description": settings.site_description,
            "language": settings.site_language,
            "home_page_url": templates.absolute(path),
            "feed_url": templates.absolute(f"{path.rstrip('/')}/feed.json"),
            "items": [_item(templates, post) for post in page.rows],
        }
        response: Response = JSONResponse(feed, media_type=MEDIA_TYPES[kind], headers=FEED_HEADERS)
    else:
        shown = {"posts": page.rows, "path": path, "title": title, "updated_at": updated_at}
        response = _xml(templates.render(f"feed.{kind}", **shown), MEDIA_TYPES[kind])
    if updated_at is not None:
        response.headers["Last-Modified"] = rfc_822(updated_at)
    return response


def _item(templates: Templates, post: BlogAnswer) -> dict[str, Any]:
    """A post as JSON Feed 1.1 has it."""
    return {
        "id": templates.entry_id(post),
        "url": templates.absolute(post_path(post)),
        "title": post["title"],
        "summary": post["summary"],
        "content_html": templates.html_elsewhere(post),
        "date_published": rfc_3339(post["published_at"]),
        "date_modified": rfc_3339(last_change(post)),
        "authors": [{"name": post["creator"]["name"], "url": templates.absolute(author_path(post["creator"]))}],
        "tags": post["tags"],
    }


def _xml(content: str, media_type: str) -> Response:
    return Response(content, media_type=f"{media_type}; charset=utf-8", headers=FEED_HEADERS)
