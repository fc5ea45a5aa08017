"""What is said about a post, and saying something."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Form, Request, Response
from starlette.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from blog.dependencies import (
    HubOfApp,
    RendererOfApp,
    Rooms,
    RoomWriter,
    find_own_message,
    find_room_of_blog,
    may_remove,
    moderates,
)
from blog.errors import Refusal
from blog.logs import security_event
from blog.repository.blog import BlogAnswer
from blog.schemas.room import MessageCreate
from blog.schemas.types import MAX_ID, Number, PathId
from blog.security.access import ANYBODY
from blog.site.reading import (
    PageRoute,
    Reading,
    ReadingOfPage,
    TemplatesOfApp,
    Undone,
    find_post,
    lines,
    meant,
    own_page,
)
from blog.site.rendering import Templates, post_path
from blog.site.visitor import LoggedInRoute, MaybeVisitor, Visitor, cookie_of

ON_PAGE = 100
"""Messages on a page."""

PREFIX = "/posts/{slug}/discussion"
router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)
form_router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=LoggedInRoute)


@router.get("")
async def show_discussion(
    reading: ReadingOfPage, templates: TemplatesOfApp, visitor: MaybeVisitor, slug: str, before: Number = MAX_ID
) -> Response:
    """Show what is said about a post, the last of it first to be seen."""
    post = await find_post(reading, slug)
    return await _page(reading, templates, post, visitor, before=before)


@form_router.post("")
async def say(
    request: Request,
    writer: RoomWriter,
    reading: ReadingOfPage,
    templates: TemplatesOfApp,
    rooms: Rooms,
    renderer: RendererOfApp,
    hub: HubOfApp,
    background: BackgroundTasks,
    slug: str,
    body: Annotated[str, Form()] = "",
) -> Response:
    """Say something about a post."""
    post = await find_post(reading, slug)
    try:
        data = meant(MessageCreate, {"body": lines(body)})
        room = await find_room_of_blog(request.app.state.database, reading.rooms, reading.blogs, writer, post["id"])
        rendered = await renderer.render_message(data.body, writer.user.id)
        held = await rooms.hold(room.id)
        number = await rooms.post(held, writer, data.body, rendered.html, moderates=moderates(writer, room))
    except Refusal as refusal:
        cookie = cookie_of(request)
        visitor = Visitor(writer, cookie.form_token if cookie else "")
        page = await _page(reading, templates, post, visitor, refusal=refusal, body=body)
        raise Undone(page) from refusal
    background.add_task(hub.wake, room.id)
    return _to_message(post, number, background)


@form_router.post("/{number}/remove")
async def remove(
    request: Request,
    writer: RoomWriter,
    reading: ReadingOfPage,
    rooms: Rooms,
    hub: HubOfApp,
    background: BackgroundTasks,
    slug: str,
    number: PathId,
) -> Response:
    """Take away the text of a message."""
    post = await find_post(reading, slug)
    room = await find_room_of_blog(request.app.state.database, reading.rooms, reading.blogs, writer, post["id"])
    await find_own_message(reading.rooms, writer, room, number)
    await rooms.remove_message(await rooms.hold(room.id), number)
    background.add_task(hub.wake, room.id)
    security_event("message_removed", room=room.id, number=number)
    return _to_message(post, number, background)


def _to_message(post: BlogAnswer, number: int, background: BackgroundTasks) -> Response:
    path = f"{post_path(post)}/discussion#m-{number}"
    return RedirectResponse(path, HTTP_303_SEE_OTHER, background=background)


async def _page(
    reading: Reading,
    templates: Templates,
    post: BlogAnswer,
    visitor: Visitor | None,
    *,
    before: int = MAX_ID,
    refusal: Refusal | None = None,
    body: str = "",
) -> Response:
    viewer = visitor.caller if visitor else ANYBODY
    room = await reading.rooms.read_of_blog(post["id"], viewer=viewer)
    said = [] if room is None else await reading.rooms.messages_before(room.id, before, ON_PAGE)
    there = [row for row in said if visitor and row.deleted_at is None]
    removable = {row.number for row in there if room is not None and may_remove(viewer, room, row)}
    earlier = said[0].number if said and said[0].number > 1 else None
    values: dict[str, Any] = {"post": post, "room": room, "said": said, "removable": removable, "earlier": earlier}
    values |= {
        "visitor": visitor,
        "told": refusal.detail if refusal else "",
        "body": body,
        "path": f"{post_path(post)}/discussion",
    }
    content = templates.render("discussion.html", canonical=None, **values)
    return own_page(content, refusal)
