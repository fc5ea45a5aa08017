"""Rooms: live discussions."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT
from starlette.websockets import WebSocket

from blog.conversation import Conversation
from blog.dependencies import (
    PAGE_SIZE,
    HubOfApp,
    NamedRoom,
    OwnMessage,
    OwnRoom,
    RendererOfApp,
    RequestedPage,
    RoomOfBlog,
    RoomOpener,
    RoomReader,
    Rooms,
    RoomWriter,
    ShownMessage,
    ShownRoom,
    moderates,
)
from blog.errors import (
    AuthorRequired,
    BlogDeleted,
    BlogNotFound,
    Busy,
    InsufficientScope,
    Invalid,
    InvalidCursor,
    MessageNotFound,
    MessageRemoved,
    NotMessageWriter,
    NotRoomOwner,
    PreconditionFailed,
    RoomClosed,
    RoomNotFound,
    SlowMode,
    Unrenderable,
)
from blog.errors import RoomOfBlog as RoomIsOfBlog
from blog.idempotency import Idempotent, KeepingRoute
from blog.logs import security_event
from blog.middleware import client_of
from blog.models import Room
from blog.preconditions import Conditions, Preconditions, etag_of
from blog.repository.room import RoomRepository
from blog.schemas.problem import BEARER, BODY, CONDITIONAL, ETAG, IDEMPOTENT, LINK_TO_NEXT, LOCATION, refusals
from blog.schemas.room import (
    Category,
    MessageCreate,
    MessagePublic,
    RoomCreate,
    RoomPublic,
    RoomSort,
    RoomUpdate,
    shown_message,
    shown_room,
)
from blog.schemas.types import Limit, Number, PathId, Time
from blog.security.access import Caller

router = APIRouter(tags=["room"], route_class=KeepingRoute)

READ = (*BEARER, InsufficientScope, RoomNotFound, Invalid)
CHANGE = (*BEARER, InsufficientScope, NotRoomOwner, RoomNotFound, PreconditionFailed)


@router.post(
    "/room/",
    summary="Open a room",
    status_code=HTTP_201_CREATED,
    response_model=RoomPublic,
    responses=refusals(*BEARER, *BODY, *IDEMPOTENT, InsufficientScope, AuthorRequired) | LOCATION,
)
async def create_room(
    opener: RoomOpener, _: Idempotent, data: RoomCreate, rooms: Rooms, request: Request, response: Response
) -> RoomPublic:
    """Open a room. It is yours to keep in order. For authors and admins."""
    room = await rooms.add(opener.user.id, data)
    response.headers["Location"] = request.url_for("show_room", room_id=room.id).path
    return await _shown(rooms, room.id, opener)


@router.get(
    "/room/",
    summary="List rooms",
    response_model=list[RoomPublic],
    responses=refusals(*BEARER, InsufficientScope, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_rooms(
    _: RoomReader,
    rooms: Rooms,
    page: RequestedPage,
    category: Annotated[Category | None, Query(description="Rooms of this category.")] = None,
    before: Annotated[Time | None, Query(description="Rooms that were opened before this moment.")] = None,
    sort: Annotated[RoomSort, Query(description="A minus for the last first.")] = "-created_at",
) -> Sequence[RoomPublic]:
    """List rooms, the newest first; those of blogs are at `/blog/{blog_id}/room`."""
    if before is not None and sort == "order":
        raise Invalid("before goes with a sort by created_at.")
    found = await rooms.page(page.request, sort=sort, category=category, before=before)
    return [shown_room(row) for row in page.answer(found)]


@router.get(
    "/room/{room_id}",
    summary="Read a room",
    response_model=RoomPublic,
    responses=refusals(*READ) | CONDITIONAL,
)
async def show_room(room: ShownRoom, conditions: Conditions) -> RoomPublic:
    """Read what a room is; what is said in it is at `/room/{room_id}/messages`."""
    return _with_etag(shown_room(room), conditions)


@router.get(
    "/blog/{blog_id}/room",
    summary="Read a blog's room",
    response_model=RoomPublic,
    responses=refusals(*BEARER, InsufficientScope, BlogNotFound, BlogDeleted, Invalid) | CONDITIONAL,
)
async def show_room_of_blog(room: RoomOfBlog, conditions: Conditions) -> RoomPublic:
    """Read a blog's own room, which is its creator's to keep in order."""
    return _with_etag(shown_room(room), conditions)


@router.patch(
    "/room/{room_id}",
    summary="Change a room",
    response_model=RoomPublic,
    responses=refusals(*CHANGE, *BODY) | ETAG,
)
async def update_room(
    writer: RoomWriter,
    room: OwnRoom,
    data: RoomUpdate,
    rooms: Rooms,
    hub: HubOfApp,
    conditions: Conditions,
    background: BackgroundTasks,
) -> RoomPublic:
    """Change some of a room, make it slow or close it, which ends its WebSockets. For its owner and admins."""
    await rooms.update(await _hold(rooms, room.id, writer, conditions), data)
    background.add_task(hub.wake, room.id)
    shown = await _shown(rooms, room.id, writer)
    conditions.changed(etag_of(shown))
    return shown


@router.delete(
    "/room/{room_id}",
    summary="Delete a room",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*CHANGE, RoomIsOfBlog, Invalid),
)
async def delete_room(
    writer: RoomWriter, room: OwnRoom, rooms: Rooms, hub: HubOfApp, conditions: Conditions, background: BackgroundTasks
) -> None:
    """Delete a room with all that was said in it. For its owner and admins. A blog's room goes with the blog."""
    if room.blog_id is not None:
        raise RoomIsOfBlog
    await rooms.remove(await _hold(rooms, room.id, writer, conditions))
    background.add_task(hub.wake, room.id)
    security_event("room_deleted", room=room.id)


@router.post(
    "/room/{room_id}/messages",
    summary="Say something",
    status_code=HTTP_201_CREATED,
    response_model=MessagePublic,
    responses=refusals(
        *BEARER, *BODY, *IDEMPOTENT, InsufficientScope, RoomNotFound, RoomClosed, SlowMode, Unrenderable, Busy
    )
    | LOCATION,
)
async def create_message(
    writer: RoomWriter,
    room: NamedRoom,
    _: Idempotent,
    data: MessageCreate,
    rooms: Rooms,
    renderer: RendererOfApp,
    hub: HubOfApp,
    background: BackgroundTasks,
    request: Request,
    response: Response,
) -> MessagePublic:
    """Say something in a room: whoever listens gets it at once."""
    rendered = await renderer.render_message(data.body, writer.user.id)
    held = await rooms.hold(room.id)
    number = await rooms.post(held, writer, data.body, rendered.html, moderates=moderates(writer, room))
    background.add_task(hub.wake, room.id)
    url = request.url_for("show_message", room_id=room.id, number=number)
    response.headers["Location"] = url.path
    return shown_message(await rooms.read_message(room.id, number))


@router.get(
    "/room/{room_id}/messages",
    summary="List messages",
    response_model=list[MessagePublic],
    responses=refusals(*READ) | LINK_TO_NEXT,
)
async def list_messages(
    room: ShownRoom,
    rooms: Rooms,
    request: Request,
    response: Response,
    after: Annotated[Number | None, Query(description="Messages behind the one of this number.")] = None,
    before: Annotated[Number | None, Query(description="The last messages before the one of this number.")] = None,
    limit: Annotated[Limit, Query(description="Messages in one answer.")] = PAGE_SIZE,
) -> Sequence[MessagePublic]:
    """List what was said in a room, in order: from the first message on, or behind or before another."""
    if before is not None:
        if after is not None:
            raise Invalid("Say after or before, not both.")
        return [shown_message(row) for row in await rooms.messages_before(room.id, before, limit)]
    found = await rooms.messages_after(room.id, after or 0, limit + 1)
    if len(found) > limit:
        query = urlencode({"after": found[limit - 1].number, "limit": limit})
        response.headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    return [shown_message(row) for row in found[:limit]]


@router.get(
    "/room/{room_id}/messages/{number}",
    summary="Read a message",
    response_model=MessagePublic,
    responses=refusals(*READ, MessageNotFound) | CONDITIONAL,
)
async def show_message(message: ShownMessage, conditions: Conditions) -> MessagePublic:
    """Read a message; of one that was removed, all but the text is there."""
    shown = shown_message(message)
    conditions.show(etag_of(shown))
    return shown


@router.delete(
    "/room/{room_id}/messages/{number}",
    summary="Remove a message",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(
        *BEARER,
        InsufficientScope,
        NotMessageWriter,
        RoomNotFound,
        MessageNotFound,
        MessageRemoved,
        PreconditionFailed,
        Invalid,
    ),
)
async def delete_message(
    room: NamedRoom,
    message: OwnMessage,
    rooms: Rooms,
    hub: HubOfApp,
    conditions: Conditions,
    background: BackgroundTasks,
) -> None:
    """Take away the text of a message; its number stays. For its writer, the room's owner and admins."""
    held = await rooms.hold(room.id)
    if conditions.demands_etag:
        conditions.demand(etag_of(shown_message(await rooms.read_message(room.id, message.number))))
    await rooms.remove_message(held, message.number)
    background.add_task(hub.wake, room.id)
    security_event("message_removed", room=room.id, number=message.number)


@router.websocket("/room/{room_id}/live")
async def join_room(
    websocket: WebSocket,
    room_id: PathId,
    after: Annotated[Number, Query(description="The number of the last message that you have.")] = 0,
) -> None:
    """Listen and speak: what came behind `after` first, then all that comes."""
    await Conversation(websocket, room_id).run(client_of(websocket.scope), after)


async def _hold(rooms: RoomRepository, room_id: int, writer: Caller, conditions: Preconditions) -> Room:
    held = await rooms.hold(room_id)
    if conditions.demands_etag:
        conditions.demand(etag_of(await _shown(rooms, room_id, writer)))
    return held


async def _shown(rooms: RoomRepository, room_id: int, viewer: Caller) -> RoomPublic:
    row = await rooms.read(room_id, viewer=viewer)
    assert row is not None  # noqa: S101  (it is held or new)
    return shown_room(row)


def _with_etag(shown: RoomPublic, conditions: Preconditions) -> RoomPublic:
    conditions.show(etag_of(shown))
    return shown
