"""uvicorn, with a deadline and a bound for what a client sends: it waits for nobody by itself."""

import asyncio
import logging
from contextlib import nullcontext
from typing import Any, cast
from uuid import uuid4

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from blog import metrics
from blog.errors import HeadersTooLarge, Malformed, Refusal, TooManyMessages, TooSlow
from blog.logs import configuration
from blog.schemas.problem import MEDIA_TYPE, problem
from blog.settings import Environment, Settings
from blog.turns import Budget

RECEIVE_TIMEOUT = 8
"""Seconds in which a request must have come; its body gets more time as it comes."""

SLOWEST_BODY = 4096
"""Bytes a second below which a body runs out of time."""

HEADERS_LIMIT = 32 * 1024
"""Bytes of a request line with its headers."""

KEEP_ALIVE = 8
"""Seconds that a connection stays open for another request."""

PIPELINED = 32
"""Requests that wait on one connection for the one before; each takes 30 kB, and two hundred fit in a packet."""

READ_TIMEOUT = 30
"""Seconds in which a client reads some of an answer that is too long for the system's own buffers, which hold
some megabytes and let us see nothing of slower progress."""

FRAME_LIMIT = 64 * 1024
"""Bytes of a message over a WebSocket: the longest that means something has 48,000, all in escapes."""

PING_INTERVAL, PONG_TIMEOUT = 10, 10
"""Seconds after which the other end of a WebSocket is asked whether it is there, and in which it answers."""

PIECES_A_SECOND, PIECES_AT_ONCE = 50, 500
"""Pings, pongs and pieces of messages that a WebSocket may send; whole messages the app counts itself."""

STALLED = 10
"""Seconds in which the other end of a WebSocket takes something of what is written to it."""

LINGER = 2
"""Seconds to read on after a refusal: closed at once, the connection would be reset and the answer lost."""

GRACE = 8
"""Seconds that requests under way have when the server is asked to stop."""

logger = logging.getLogger(__name__)
silent = logging.getLogger("blog.websocket")
silent.setLevel(logging.CRITICAL)
"""For what uvicorn says of WebSockets, with their queries, and takes for an error when one is refused: the outermost
layer has a line for each, and for what goes wrong."""


class DeadlineProtocol(HttpToolsProtocol):
    """One connection.

    uvicorn's own waits for ever for a request that comes too slowly or not at all, and takes headers of any size.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_headers = True
        self._header_bytes = 0
        self._unexpected_bytes = 0
        self._too_large = False
        self._refused = False
        self._running: RequestResponseCycle | None = None
        # When the request under way must have come, or None between two. One timer serves for all of a
        # connection's requests: it looks here when it fires.
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watches_reader = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._expect_by(self.loop.time() + RECEIVE_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a request, or more than one."""
        while data and not (self._refused or self.transport.is_closing()):
            if self._due is None:
                self._expect_by(self.loop.time() + RECEIVE_TIMEOUT)
            data = self._take_headers(data) if self._in_headers else self._take_body(data)

    def _take_headers(self, data: bytes) -> bytes:
        """Parse as much as headers may have; the rest."""
        room = HEADERS_LIMIT - self._header_bytes
        self._header_bytes += min(room, len(data))
        super().data_received(data[:room])
        if self._in_headers and self._header_bytes == HEADERS_LIMIT:
            self._refuse(HeadersTooLarge)
        return data[room:]

    def _take_body(self, data: bytes) -> bytes:
        self._unexpected_bytes += len(data)
        super().data_received(data)
        if self._unexpected_bytes > HEADERS_LIMIT and not self._in_headers:
            self._refuse(HeadersTooLarge)  # trailers, or a chunk with a very long extension
        return b""

    def on_message_begin(self) -> None:
        """The parser has seen the first byte of a request, which may have come in one packet with the one before."""
        if self._due is None:
            self._expect_by(self.loop.time() + RECEIVE_TIMEOUT)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The parser has seen the last header. What is raised here ends in `send_400_response`."""
        self._in_headers = False
        self._unexpected_bytes = 0
        self._too_large = sum(len(name) + len(value) for name, value in self.headers) > HEADERS_LIMIT
        if self._too_large or len(self.pipeline) >= PIPELINED:
            raise ValueError("more than a client may send")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The parser has seen some of a body, which gets more time unless its answer is out already."""
        self._unexpected_bytes = 0
        if self._due is not None and not self.cycle.response_complete:
            self._due += len(body) / SLOWEST_BODY
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser has seen a whole request."""
        self._in_headers = True
        self._header_bytes = 0
        self._due = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """More of an answer is written than the client has read."""
        super().pause_writing()
        self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """No other request came: close, once all that was answered is read."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def on_response_complete(self) -> None:
        """The app has answered, and uvicorn may have closed behind the answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()

    def _close(self) -> None:
        """Close, once what is written is read: closing waits for that without an end."""
        self.transport.close()
        self._watch_reader()

    def _watch_reader(self) -> None:
        if not self._watches_reader:
            self._watches_reader = True
            self.loop.call_later(READ_TIMEOUT, self._abort_unless_read, self.transport.get_write_buffer_size())

    def _abort_unless_read(self, before: int) -> None:
        self._watches_reader = False
        unread = self.transport.get_write_buffer_size()
        if unread >= before > 0:
            self.transport.abort()  # else it would keep its answer in our memory for as long as it likes
        elif unread:
            self._watch_reader()

    def handle_websocket_upgrade(self) -> None:
        """The connection is a WebSocket from here on, and another's."""
        self._refused = True
        self._due = None
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's words are not a problem's)
        """Answer what is not HTTP."""
        self._refuse(HeadersTooLarge if self._too_large else Malformed)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: strangers would write the log."""

    def _expect_by(self, due: float) -> None:
        self._due = due
        if self._timer is None:
            self._timer = self.loop.call_at(due, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self._due is None or self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is we who do not read: an earlier request on this connection is not answered
            self._expect_by(self.loop.time() + RECEIVE_TIMEOUT)
        elif self.loop.time() < self._due:
            self._expect_by(self._due)
        else:
            self._refuse(TooSlow)

    def _refuse(self, refusal: type[Refusal]) -> None:
        """Answer, unless an answer is under way, and close."""
        if self._refused:
            return
        self._refused = True
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and cycle.response_complete and not self._in_headers:
            self._close()  # its answer is out, and another would be taken for the next request's
            return
        if cycle is not None and not cycle.response_complete:
            if self._running is not cycle or not cycle.more_body:
                self._close_after_earlier_requests(cycle)
                return
            if cycle.response_started:
                self._close()
                return
            cycle.disconnected = True  # for the app the client is gone
            cycle.message_event.set()
        request_id = uuid4().hex
        client = self.client[0] if self.client else "local"
        fields = {"status": refusal.status, "code": refusal.code, "request_id": request_id, "client": client}
        logger.info("refused what came: %s", refusal.code, extra={"fields": fields})
        body = problem(refusal).model_dump_json(exclude_none=True).encode()
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            "x-content-type-options": "nosniff",
            "x-request-id": request_id,
        }
        lines = [*self.server_state.default_headers, *((k.encode(), v.encode()) for k, v in headers.items())]
        head = STATUS_LINE[refusal.status] + b"".join(name + b": " + value + b"\r\n" for name, value in lines)
        self.transport.write(head + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER, self._close)
        else:
            self._close()

    def _close_after_earlier_requests(self, newest: RequestResponseCycle) -> None:
        if newest.more_body:
            self.pipeline.popleft()  # it is the one that is refused, and waits for the others
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is not None:
            last.keep_alive = False


class LiveProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. uvicorn's own waits for ever for a client that takes nothing, and logs queries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = silent
        self._stalled: asyncio.TimerHandle | None = None
        self._pong = b""
        self._lingers = False
        self._budget = Budget(PIECES_A_SECOND, PIECES_AT_ONCE)

    def pause_writing(self) -> None:
        """More is written than the client has taken."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        self._forgive()
        super().resume_writing()
        self.transport.write(self._pong)
        self._pong = b""

    def handle_ping(self) -> None:
        """A ping: while the client takes nothing, only the last is answered, then. RFC 6455, section 5.5.3."""
        if not self._counts():
            return
        if self.writable.is_set():
            super().handle_ping()
        elif answers := list(filter(None, self.conn.data_to_send())):
            self._pong = answers[-1]  # at the first ping of a packet here are the pongs of all, and its close frame

    def handle_pong(self, event: Frame) -> None:
        """A pong, asked for or not."""
        if self._counts():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """Another piece of a message, which may be empty."""
        if self._counts():
            super().handle_cont(event)

    def handle_parser_exception(self) -> None:
        """What came is no frame, or is refused; who sends it before the handshake is over gets no close frame."""
        close = self.conn.close_sent
        if close is None:
            self.transport.abort()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": close.code, "reason": close.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self.disconnected = self._lingers = True
        # Closed at once, with some of what came unread, the connection would be reset and the close frame lost.
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)
        self._abort_if_unread()

    def handle_close(self, event: Frame) -> None:
        """The other end closes, or answers our close frame."""
        super().handle_close(event)
        self._abort_if_unread()

    def keepalive_timeout(self) -> None:
        """The other end has not answered a ping. uvicorn's own closes without telling the app, which sends on."""
        if self.close_sent or self.transport.is_closing():
            return
        super().keepalive_timeout()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.INTERNAL_ERROR})
        self.disconnected = True
        self._abort_if_unread()

    async def send(self, message: Any) -> None:
        """Send what the app says. A socket that it closes must not wait for ever for its last frames to be read."""
        await super().send(message)
        if self.close_sent:
            self._abort_if_unread()

    def _abort_if_unread(self) -> None:
        """Let a connection that is closing go, even when its client takes nothing of what is still written to it."""
        self.loop.call_later(STALLED, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Some of a message, or what comes behind one that was refused."""
        if not self._lingers:
            super().data_received(data)

    def _counts(self) -> bool:
        """Count one more; whether it is to be looked at."""
        if self._lingers or self.transport.is_closing():
            return False
        try:
            self._budget.take()
        except TooManyMessages as refusal:
            self.conn.fail(CloseCode.POLICY_VIOLATION, refusal.code)
            self.handle_parser_exception()
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forgive()
        super().connection_lost(exc)

    def _forgive(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def protocols() -> dict[str, Any]:
    """What uvicorn is told of connections, wherever it serves the platform."""
    return {
        "http": DeadlineProtocol,
        "ws": LiveProtocol,
        "ws_max_size": FRAME_LIMIT,
        "ws_ping_interval": PING_INTERVAL,
        "ws_ping_timeout": PONG_TIMEOUT,
        "ws_per_message_deflate": False,  # fifteen kilobytes of it can hold fifteen megabytes
        "access_log": False,  # the outermost layer writes one, with more in it
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE,
        "timeout_graceful_shutdown": GRACE,
    }


def run(settings: Settings) -> None:
    """Serve until asked to stop; requests under way are answered first."""
    with metrics.shared() if settings.metrics and settings.workers > 1 else nullcontext():
        uvicorn.run(
            "blog.main:app",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            lifespan="on",
            log_config=configuration(readable=settings.environment is Environment.LOCAL),
            # Else anybody on this machine chooses the address that is logged and limited.
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=sorted(settings.trusted_proxies),
            **protocols(),
        )
