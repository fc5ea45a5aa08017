"""One WebSocket in a room: who opens it, what comes over it, and how it ends.

A refusal before the handshake is over is an answer like any other. After it a message that is not done gets an error
frame, and what ends the socket a close code: 4000 and the status that a request would have got, 1013 for what may be
tried again later, 1008 for who sends too much, 1003 for what is no text.
"""

import asyncio
import time
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect

from blog.database import Database, refusal_for
from blog.dependencies import find_listener, find_room, moderates
from blog.errors import (
    Forbidden,
    Invalid,
    InvalidToken,
    NotAuthenticated,
    OriginRefused,
    Refusal,
    RoomClosed,
    TooManyMessages,
    TooManyRequests,
    Unavailable,
)
from blog.live import Hub, Subscriber, cancelled, framed
from blog.logs import security_event
from blog.markdown import Renderer
from blog.middleware import is_of_host
from blog.repository import AnyRow
from blog.repository.room import RoomRepository
from blog.schemas.room import (
    CLIENT_FRAME,
    AuthFrame,
    ClientFrame,
    ErrorFrame,
    PingFrame,
    PongFrame,
    PostedFrame,
    PostFrame,
    TypingFrame,
)
from blog.security.access import Caller, Scope
from blog.security.opaque import COOKIE, Cookie, read_cookie
from blog.settings import Settings
from blog.turns import Budget

SUBPROTOCOL = "bearer"
AUTH_TIMEOUT = 5
"""Seconds in which a socket that came without a token says who it is."""

FRAMES_A_SECOND, BURST = 50, 500
"""What one socket may send: so much all the time, and so much at once. Slow mode is for people, this for floods."""

TYPING_PAUSE = 2.0
"""Seconds in which one hint that somebody types is enough."""

NOT_TEXT, TOO_MUCH, LATER, OF_STATUS = 1003, 1008, 1013, 4000
"""Close codes of RFC 6455, section 7.4.1, and IANA's registry; those from 4000 on are an application's own."""


class Hangup(Exception):  # noqa: N818  (an ending, not an error)
    """The socket is closed, for this reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(code, reason)


def hangup_for(error: Exception) -> Hangup | None:
    """How a socket ends that met this; None when the client left. Raises what nobody expects."""
    if isinstance(error, WebSocketDisconnect):
        return None
    if isinstance(error, Hangup):
        return error
    kind = type(error) if isinstance(error, Refusal) else refusal_for(error)
    if kind is None:
        raise error
    return hangup_of(kind)


def hangup_of(kind: type[Refusal]) -> Hangup:
    """How a socket ends that is refused to go on."""
    if issubclass(kind, TooManyMessages):
        return Hangup(TOO_MUCH, kind.code)
    later = issubclass(kind, TooManyRequests | Unavailable)
    return Hangup(LATER if later else OF_STATUS + kind.status, kind.code)


class Conversation:
    """One WebSocket that listens to a room, and speaks in it."""

    def __init__(self, websocket: WebSocket, room_id: int) -> None:
        state = websocket.app.state
        self._websocket = websocket
        self._state = state
        self._room_id = room_id
        self._settings: Settings = state.settings
        self._database: Database = state.database
        self._hub: Hub = state.hub
        self._renderer: Renderer = state.renderer
        self._budget = Budget(FRAMES_A_SECOND, BURST)
        self._typed_at = 0.0

    async def run(self, client: str, after: int) -> None:
        """Let it in, tell what came after the message of this number and all that comes, and hear what it says.

        Raises a Refusal before the handshake is over.
        """
        is_own_page = self._check_origin()
        token, subprotocol = self._token_of_handshake()
        cookie = read_cookie(self._websocket.cookies.get(COOKIE, "")) if is_own_page else None
        credential = cookie if token is None else token
        with self._hub.connected(client):
            if credential is not None:
                await self._talk(credential, after, subprotocol=subprotocol, accepts=True)
                return
            await self._websocket.accept()
            try:
                await self._talk(await self._token_of_first_frame(), after)
            except Exception as error:
                await self._close(hangup_for(error))

    def _check_origin(self) -> bool:
        """Refuse a page of another site; what is no browser sends no Origin. RFC 6455, section 10.2.

        Gives whether it is a page of this one, by whatever known name people reach the platform.
        """
        origin = self._websocket.headers.get("Origin")
        if origin is None:
            return False
        is_own = is_of_host(origin, self._websocket.headers.get("Host", ""))
        if not is_own and origin not in self._settings.cors_origins:
            raise OriginRefused
        return is_own

    def _token_of_handshake(self) -> tuple[str | None, str | None]:
        """The token of the header or, with the subprotocol to agree on, that of a browser, which can send no header."""
        headers = self._websocket.headers.getlist("Authorization")
        offered: list[str] = self._websocket.scope["subprotocols"]
        if headers:
            scheme, _, token = headers[0].partition(" ")
            if len(headers) > 1 or scheme.lower() != "bearer":
                raise NotAuthenticated
            return token.strip(), None
        if offered:
            if len(offered) != 2 or offered[0] != SUBPROTOCOL:
                raise NotAuthenticated("The subprotocols here are bearer and behind it the token.")
            return offered[1], SUBPROTOCOL
        return None, None

    async def _token_of_first_frame(self) -> str:
        try:
            async with asyncio.timeout(AUTH_TIMEOUT):
                frame = CLIENT_FRAME.validate_json(await self._receive())
        except (TimeoutError, ValidationError):
            raise NotAuthenticated from None
        if not isinstance(frame, AuthFrame):
            raise NotAuthenticated
        return frame.token

    async def _talk(
        self, token: str | Cookie, after: int, *, subprotocol: str | None = None, accepts: bool = False
    ) -> None:
        caller, expires_at = await find_listener(self._state, token)
        room = await find_room(self._database, caller, self._room_id)
        if room.closed_at is not None:
            raise RoomClosed
        with self._hub.subscribed(room, caller, expires_at, after=after) as subscriber:
            if accepts:
                await self._websocket.accept(subprotocol)
            hangup = await self._until_the_end(subscriber)
        await self._close(hangup)

    async def _until_the_end(self, subscriber: Subscriber) -> Hangup | None:
        """Tell and listen until one of the two ends, or the hub ends it; the reason, or None when the client left."""
        tasks = [asyncio.create_task(self._tell(subscriber)), asyncio.create_task(self._listen(subscriber))]
        awaited: list[asyncio.Future[Any]] = [*tasks, subscriber.ending]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            outcomes = await cancelled(tasks)
        if subscriber.ending.done():
            return hangup_of(subscriber.ending.result())
        return next((hangup_for(outcome) for outcome in outcomes if isinstance(outcome, Exception)), None)

    async def _tell(self, subscriber: Subscriber) -> None:
        async for frame in self._hub.frames(subscriber):
            await self._websocket.send_text(frame.text)

    async def _listen(self, subscriber: Subscriber) -> None:
        while True:
            text = await self._receive()
            self._budget.take()
            try:
                frame = CLIENT_FRAME.validate_json(text)
            except ValidationError as error:
                await self._send_error(Invalid(_first_fault(error)))
                continue
            try:
                await self._act(subscriber, frame)
            except (SQLAlchemyError, OSError) as error:
                refusal = refusal_for(error)
                if refusal is None:
                    raise
                await self._send_error(refusal(), _ref_of(frame))

    async def _receive(self) -> str:
        """The next text. Raises WebSocketDisconnect, and Hangup for what is no text."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        text: str | None = message.get("text")
        if text is None:
            raise Hangup(NOT_TEXT, "not_text")
        return text

    async def _act(self, subscriber: Subscriber, frame: ClientFrame) -> None:
        match frame:
            case PingFrame():
                await self._websocket.send_text(PONG)
            case TypingFrame():
                if time.monotonic() - self._typed_at > TYPING_PAUSE and Scope.ROOM_WRITE in subscriber.caller.scopes:
                    self._typed_at = time.monotonic()
                    self._hub.say_typing(subscriber)
            case AuthFrame():
                await self._renew(subscriber, frame.token)
            case PostFrame():
                await self._post(subscriber.caller, frame)

    async def _renew(self, subscriber: Subscriber, token: str) -> None:
        """Go on with another token of the same user. One that is refused ends the socket, as it would not begin one."""
        caller, expires_at = await find_listener(self._state, token)
        if caller.user.id != subscriber.user_id:
            raise InvalidToken
        subscriber.caller, subscriber.expires_at = caller, expires_at

    async def _post(self, caller: Caller, frame: PostFrame) -> None:
        ref: str | None = frame.ref
        try:
            caller.require(Scope.ROOM_WRITE)
            room = await find_room(self._database, caller, self._room_id)
            rendered = await self._renderer.render_message(frame.body, caller.user.id)
            # A client that leaves does not stop it in the middle.
            number = await asyncio.shield(self._store(room, caller, frame.body, rendered.html, ref))
        except Refusal as refusal:
            await self._send_error(refusal, ref)
        else:
            await self._websocket.send_text(framed(PostedFrame(number=number, ref=ref)).text)

    async def _store(self, room: AnyRow, caller: Caller, body: str, html: str, ref: str | None) -> int:
        async with self._database.write.begin() as session:
            rooms = RoomRepository(session)
            held = await rooms.hold(room.id)
            number = await rooms.post(held, caller, body, html, moderates=moderates(caller, room), ref=ref)
        await self._hub.wake(room.id)
        self._state.shelf.doubt()  # pages show it, too
        return number

    async def _send_error(self, refusal: Refusal, ref: str | None = None) -> None:
        if isinstance(refusal, Forbidden | TooManyRequests):
            security_event("refused", status=refusal.status, code=refusal.code)
        wait = refusal.headers.get("Retry-After")
        error = ErrorFrame(code=refusal.code, detail=refusal.detail, ref=ref, retry_after=int(wait) if wait else None)
        await self._websocket.send_text(framed(error).text)

    async def _close(self, hangup: Hangup | None) -> None:
        if hangup is not None:
            try:
                await self._websocket.close(hangup.code, hangup.reason)
            except (WebSocketDisconnect, RuntimeError):  # the client left meanwhile
                return


PONG = framed(PongFrame()).text
UNKNOWN_TYPE = "type is one of auth, message, typing and ping"


def _ref_of(frame: ClientFrame) -> str | None:
    return frame.ref if isinstance(frame, PostFrame) else None


def _first_fault(error: ValidationError) -> str:
    """Where and why it was not understood; never with what was sent."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in fault["loc"][1:])[:100]
    # Of an unknown type Pydantic's words repeat it.
    message = UNKNOWN_TYPE if fault["type"] == "union_tag_invalid" else fault["msg"].removeprefix("Value error, ")
    return f"This message is not understood: {where + ': ' if where else ''}{message}."
