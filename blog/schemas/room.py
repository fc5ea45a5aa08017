"""Rooms and messages, as they come in and go out, by request and over a WebSocket."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StringConstraints, TypeAdapter

from blog.models import MESSAGE_LENGTH, REF_LENGTH, ROOM_LENGTH
from blog.schemas.types import AbsentIfNone, Input, Label, Line, Moment, Omissible, Output, Prose

MAX_SLOW_MODE = 6 * 60 * 60

RoomName = Annotated[Line, StringConstraints(max_length=ROOM_LENGTH), Field(examples=["Looms"])]
RoomLabel = Annotated[Label, StringConstraints(max_length=ROOM_LENGTH)]
Category = Annotated[RoomLabel, Field(description="Rooms can be listed by it.", examples=["weaving"])]
Description = Annotated[RoomLabel, Field(examples=["What they weave."])]
RoomType = Annotated[RoomLabel, Field(description="What you take it for; it means nothing here.", examples=["chat"])]
Order = Annotated[RoomLabel, Field(description="Rooms can be sorted by it, by code point.", examples=["10"])]
SlowMode = Annotated[
    StrictInt,
    Field(
        ge=0, le=MAX_SLOW_MODE, description="Seconds that everybody waits between two messages; 0 is off.", examples=[0]
    ),
]
MessageBody = Annotated[
    Prose,
    StringConstraints(max_length=MESSAGE_LENGTH),
    Field(
        description="Markdown: CommonMark with tables and strikethrough, without headings and raw HTML.",
        examples=["It *weaves*."],
    ),
]
Ref = Annotated[
    str,
    StringConstraints(min_length=1, max_length=REF_LENGTH, pattern=r"^[\x21-\x7E]+$"),
    Field(description="Your name for what you send. A message that is sent again under it is not written twice."),
]

RoomSort = Literal["-created_at", "created_at", "order"]


class RoomUpdate(Input):
    """Some of a room; what is not sent stays as it was. In one that is closed nothing more is said."""

    name: RoomName = Omissible
    category: Category = Omissible
    description: Description = Omissible
    room_type: RoomType = Omissible
    order: Order = Omissible
    slow_mode: SlowMode = Omissible
    is_closed: StrictBool = Omissible


class RoomCreate(Input):
    """A new room."""

    name: RoomName
    category: Category = Omissible
    description: Description = Omissible
    room_type: RoomType = Omissible
    order: Order = Omissible
    slow_mode: SlowMode = Omissible


class Participant(Output):
    """Somebody in a room."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Ada"])


class RoomPublic(Output):
    """A room. `owner` is null when that user is gone, and `blog_id` is there when it is a blog's."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Looms"])
    category: str = Field(examples=["weaving"])
    description: str = Field(examples=["What they weave."])
    room_type: str = Field(examples=["chat"])
    order: str = Field(examples=["10"])
    owner: Participant | None
    blog_id: int | None = Field(examples=[None])
    slow_mode: int = Field(examples=[0])
    created_at: Moment
    closed_at: Moment | None


class MessageCreate(Input):
    """What to say."""

    body: MessageBody


class MessagePublic(Output):
    """A message. `writer` is null when that user is gone; one that was removed has `deleted_at` and no text."""

    type: Literal["message"] = "message"
    number: int = Field(description="Its own in the room: 1, 2, 3 … without gaps.", examples=[1])
    body: str = Field(examples=["It *weaves*."])
    html: str = Field(description="What the body shows, sanitised.", examples=["<p>It <em>weaves</em>.</p>"])
    writer: Participant | None
    created_at: Moment
    deleted_at: Moment | None = AbsentIfNone


class AuthFrame(Input):
    """Who you are: first of all where no header and no subprotocol said so, and later to go on with a new token."""

    type: Literal["auth"]
    token: str = Field(max_length=4096, examples=["eyJhbGciOiJIUzI1NiIs…"])


class PostFrame(Input):
    """Something to say."""

    type: Literal["message"]
    body: MessageBody
    ref: Ref = Omissible


class TypingFrame(Input):
    """That you are about to say something."""

    type: Literal["typing"]


class PingFrame(Input):
    """Whether the server is there."""

    type: Literal["ping"]


ClientFrame = Annotated[AuthFrame | PostFrame | TypingFrame | PingFrame, Field(discriminator="type")]
CLIENT_FRAME: TypeAdapter[ClientFrame] = TypeAdapter(ClientFrame)


class PostedFrame(Output):
    """That your message is stored: with the number that it has, and had already if you sent it before."""

    type: Literal["posted"] = "posted"
    number: int = Field(examples=[1])
    ref: str | None = AbsentIfNone


class RemovedFrame(Output):
    """That a message was removed: its text is gone, its number stays."""

    type: Literal["removed"] = "removed"
    number: int = Field(examples=[1])
    deleted_at: Moment


class PresenceFrame(Output):
    """Who is here: `here` once all that was missed is told, at most a hundred of them; then who `joined` and `left`."""

    type: Literal["presence"] = "presence"
    count: int = Field(description="How many are here.", examples=[2])
    here: list[Participant] | None = AbsentIfNone
    joined: list[Participant] | None = AbsentIfNone
    left: list[Participant] | None = AbsentIfNone


class TypingHint(Output):
    """Who is about to say something, as far as this worker knows."""

    type: Literal["typing"] = "typing"
    user: Participant


class PongFrame(Output):
    """The answer to a ping."""

    type: Literal["pong"] = "pong"


class ErrorFrame(Output):
    """What was not done and why, as a refusal has it; `ref` is that of the message, and `retry_after` in seconds."""

    type: Literal["error"] = "error"
    code: str = Field(examples=["slow_mode"])
    detail: str
    ref: str | None = AbsentIfNone
    retry_after: int | None = AbsentIfNone


CLIENT_FRAMES: tuple[type[Input], ...] = (AuthFrame, PostFrame, TypingFrame, PingFrame)
SERVER_FRAMES: tuple[type[Output], ...] = (
    MessagePublic,
    PostedFrame,
    RemovedFrame,
    PresenceFrame,
    TypingHint,
    PongFrame,
    ErrorFrame,
)


def shown_room(row: Any) -> RoomPublic:
    """A room's row, read by whatever way, as everybody gets it."""
    owner = None if row.owner_id is None else Participant(id=row.owner_id, name=row.owner_name)
    return RoomPublic(**{name: getattr(row, name) for name in RoomPublic.model_fields if name != "owner"}, owner=owner)


def shown_message(row: Any) -> MessagePublic:
    """A message's row, read by whatever way, as everybody gets it."""
    writer = None if row.writer_id is None else Participant(id=row.writer_id, name=row.writer_name)
    return MessagePublic(
        number=row.number,
        body=row.body,
        html=row.html,
        writer=writer,
        created_at=row.created_at,
        deleted_at=row.deleted_at,
    )
