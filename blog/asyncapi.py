"""The AsyncAPI document: what goes over a room's WebSocket, put together from the frames' own models.

What OpenAPI has no words for, and shown where that is. Schemas are pydantic's, words the docstrings' and fields',
and figures those that are in force.
"""

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.routing import APIWebSocketRoute
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse

from blog.conversation import (
    AUTH_TIMEOUT,
    BURST,
    FRAMES_A_SECOND,
    NOT_TEXT,
    OF_STATUS,
    SUBPROTOCOL,
    hangup_of,
)
from blog.errors import (
    DatabaseUnavailable,
    InsufficientScope,
    InvalidToken,
    NotAuthenticated,
    Refusal,
    RoomClosed,
    RoomNotFound,
    SlowMode,
    TooManyMessages,
    TooManySockets,
    Unexpected,
)
from blog.routers import room
from blog.schemas.room import (
    CLIENT_FRAMES,
    SERVER_FRAMES,
    AuthFrame,
    ErrorFrame,
    MessagePublic,
    Participant,
    PingFrame,
    PongFrame,
    PostedFrame,
    PostFrame,
    PresenceFrame,
    RemovedFrame,
    TypingFrame,
    TypingHint,
)
from blog.security.access import Scope
from blog.server import FRAME_LIMIT, PING_INTERVAL, PONG_TIMEOUT
from blog.settings import Settings

Frame = type[BaseModel]

router = APIRouter(include_in_schema=False)

ENDINGS: tuple[type[Refusal], ...] = (
    TooManyMessages,
    TooManySockets,
    DatabaseUnavailable,
    NotAuthenticated,
    InvalidToken,
    InsufficientScope,
    RoomNotFound,
    RoomClosed,
)
"""What ends a WebSocket that is open."""

DESCRIPTION = f"""\
A WebSocket is in one room. It is told every message behind `after`, then who is here, then all that comes: in order,
and each message once, on whichever worker it was written. Every frame is a text of JSON with a `type`.

### Who you are

A token with the scope `{Scope.ROOM_READ}`, and `{Scope.ROOM_WRITE}` to speak, comes in one of three ways, never in the
query:

- as `Authorization: Bearer …`;
- as a subprotocol behind `{SUBPROTOCOL}`, from browsers, which send no such header;
- in an `auth` frame that is the first one, within {AUTH_TIMEOUT} seconds.

Another `auth` frame lets the socket go on with a newer token of the same user.

### How to go on

Open another one with the `number` of the last message that you have as `after`: nothing is missing then, and nothing
comes twice. What was sent and not `posted` is sent again under its `ref`, and written once.

### Limits

A frame has at most {FRAME_LIMIT:,} bytes. A socket sends {FRAMES_A_SECOND} frames a second all the time, and
{BURST} at once. It is asked every {PING_INTERVAL} seconds whether it is there, and has {PONG_TIMEOUT} to answer.

### How it ends

Before the handshake is over a refusal is an answer of HTTP, with a problem as everywhere. After it, it is a code and a
reason: {OF_STATUS} and the status that a request would have got, but for what is better tried again later.

| code | reason | |
|---|---|---|
"""


def endings() -> list[tuple[int, str, str]]:
    """Close codes with their reasons and what they mean."""
    refused = [(hangup_of(refusal), refusal.detail) for refusal in ENDINGS]
    return sorted(
        [
            *((hangup.code, hangup.reason, meaning) for hangup, meaning in refused),
            (NOT_TEXT, "not_text", "What was sent is no text."),
            (1007, "", "What was sent is not UTF-8."),
            (1009, "", f"What was sent has more than {FRAME_LIMIT:,} bytes."),
            (1011, Unexpected.code, "Something went wrong here; or without this reason, no answer to a ping."),
            (1012, "", "The server is stopping: open another one in a moment."),
        ]
    )


SAID_AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
ADA, BOB = Participant(id=7, name="Ada"), Participant(id=8, name="Bob")
EXAMPLES: tuple[BaseModel, ...] = (
    AuthFrame(type="auth", token="eyJhbGciOiJIUzI1NiIs…"),  # noqa: S106  (the beginning of any)
    PostFrame(type="message", body="It *weaves*.", ref="loom-1"),
    TypingFrame(type="typing"),
    PingFrame(type="ping"),
    MessagePublic(number=1, body="It *weaves*.", html="<p>It <em>weaves</em>.</p>\n", writer=ADA, created_at=SAID_AT),
    MessagePublic(number=1, body="", html="", writer=ADA, created_at=SAID_AT, deleted_at=SAID_AT),
    PostedFrame(number=1, ref="loom-1"),
    RemovedFrame(number=1, deleted_at=SAID_AT),
    PresenceFrame(count=1, here=[ADA]),
    PresenceFrame(count=2, joined=[BOB], left=[]),
    TypingHint(user=BOB),
    PongFrame(),
    ErrorFrame(code=SlowMode.code, detail=SlowMode.detail, ref="loom-1", retry_after=5),
)


@router.get("/asyncapi.json")
async def show_asyncapi(request: Request) -> JSONResponse:
    """Show what goes over WebSockets."""
    return JSONResponse(document(request.app.state.settings, request.app.version))


def document(settings: Settings, version: str) -> dict[str, Any]:
    """The document, for clients that reach the platform by its base URL."""
    [live] = [route for route in room.router.routes if isinstance(route, APIWebSocketRoute)]
    base = urlsplit(settings.issuer)
    frames = (*CLIENT_FRAMES, *SERVER_FRAMES)
    parameters = {name: _parameter(live, name) for name in ("room_id", "after")}
    rows = "".join(f"| {code} | {reason and f'`{reason}`'} | {meaning} |\n" for code, reason, meaning in endings())
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Blog: rooms", "version": version, "description": DESCRIPTION + rows},
        "defaultContentType": "application/json",
        "servers": {
            "platform": {
                "host": base.netloc,
                "protocol": "wss" if base.scheme == "https" else "ws",
                **({"pathname": base.path} if base.path else {}),
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in ("header", "subprotocol")],
            }
        },
        "channels": {
            "room": {
                "address": live.path,
                "description": inspect.getdoc(live.endpoint),
                "servers": [{"$ref": "#/servers/platform"}],
                "parameters": {
                    "room_id": {
                        "description": "The room's id.",
                        "examples": [str(example) for example in parameters["room_id"]["examples"]],
                    }
                },
                "messages": {frame.__name__: {"$ref": f"#/components/messages/{frame.__name__}"} for frame in frames},
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": {"type": "object", "properties": {"after": parameters["after"]}},
                        "bindingVersion": "0.1.0",
                    }
                },
            }
        },
        "operations": {
            "hear": _operation("receive", "What clients say.", CLIENT_FRAMES),
            "tell": _operation("send", "What clients are told.", SERVER_FRAMES),
        },
        "components": {
            "messages": {frame.__name__: _message(frame) for frame in frames},
            "schemas": _schemas(),
            "securitySchemes": {
                "header": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token from `/login`, or a personal one.",
                },
                "subprotocol": {
                    "type": "httpApiKey",
                    "in": "header",
                    "name": "Sec-WebSocket-Protocol",
                    "description": f"`{SUBPROTOCOL}` and the token, with a comma between. "
                    "Whoever sends neither says who it is in the first frame.",
                },
            },
        },
    }


def _parameter(live: APIWebSocketRoute, name: str) -> dict[str, Any]:
    return TypeAdapter(get_type_hints(live.endpoint, include_extras=True)[name]).json_schema()


def _operation(action: str, summary: str, frames: Sequence[Frame]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/room"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/room/messages/{frame.__name__}"} for frame in frames],
    }


def _message(frame: Frame) -> dict[str, Any]:
    return {
        "name": get_args(frame.model_fields["type"].annotation)[0],
        "summary": inspect.getdoc(frame),
        "payload": {"$ref": f"#/components/schemas/{frame.__name__}"},
        "examples": [{"payload": example.model_dump(mode="json")} for example in EXAMPLES if type(example) is frame],
    }


def _schemas() -> dict[str, Any]:
    """Each frame's, and what they share."""
    _, defined = models_json_schema(
        [*((frame, "validation") for frame in CLIENT_FRAMES), *((frame, "serialization") for frame in SERVER_FRAMES)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = defined["$defs"]
    for frame in SERVER_FRAMES:  # what has a default pydantic takes for something that may be missing
        schemas[frame.__name__]["required"] = ["type", *schemas[frame.__name__].get("required", [])]
    return schemas
