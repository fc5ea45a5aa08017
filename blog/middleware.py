"""The outermost layer: what holds for every request, whatever it asks for.

From the outside in: `Outside` gives a request id, security headers and a line in the log;
`CrossOrigin` tells browsers which sites may use the API; `LastResort` answers what nobody caught;
`Guard` refuses what need not be looked at.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from time import perf_counter, time
from uuid import uuid4

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from blog import metrics
from blog.errors import (
    BodyTooLarge,
    CrossOriginRefused,
    Malformed,
    Refusal,
    TooManyRequests,
    Unavailable,
    Unexpected,
    UnknownHost,
    Unreadable,
)
from blog.logs import request_fields, security_event
from blog.schemas.problem import MEDIA_TYPE, Fault, Problem, problem
from blog.settings import Settings

access = logging.getLogger("blog.access")
logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
LOGGED = 200
"""Characters of a path and of a User-Agent that are logged."""

IPV6_PREFIX = 64
"""Bits of an IPv6 address that one customer of a provider has; the rest are theirs to vary."""

WINDOW = 60
"""Seconds in which a client's requests are counted."""

UPLOADS = ("/media/", "/media", "/desk/media")
FORM_AROUND_FILE = 2**16
"""Bytes of an upload that are not the file's."""

WEBSOCKET = "WS"
"""What stands for the method of a WebSocket in the log, where it has its close code as status when we closed it."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
CORS_HEADERS = ("Authorization", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID")
EXPOSED_HEADERS = (
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)


def write(body: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with these problem details."""
    return Response(
        body.model_dump_json(exclude_none=True), status_code=body.status, headers=headers, media_type=MEDIA_TYPE
    )


def refuse(refusal: Refusal | type[Refusal], faults: Sequence[Fault] | None = None) -> Response:
    """The answer that is this refusal."""
    if refusal.status in (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS):
        security_event("refused", status=refusal.status, code=refusal.code)
    return write(problem(refusal, faults), refusal.headers)


def client_of(scope: Scope) -> str:
    """The address that the request came from: the peer's, or what a trusted proxy says."""
    client = scope.get("client")
    return client[0] if client else "local"  # a Unix socket has none


def is_of_host(origin: str, host: str) -> bool:
    """Whether an Origin is that of a page of this Host, by whatever scheme."""
    return origin.partition("://")[2].lower() == host.lower()


def network_of(address: str) -> str:
    """What a client can't change at will of its address: all of IPv4, the first half of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a Unix socket has none
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, IPV6_PREFIX), strict=False))
    return address


def rate_limit(policy: str, *, limit: int, remaining: int, seconds: int) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-10 for a window of `WINDOW` seconds."""
    return {
        "RateLimit-Policy": f'"{policy}";q={limit};w={WINDOW}',
        "RateLimit": f'"{policy}";r={max(remaining, 0)};t={seconds}',
    }


class RequestLimit:
    """Counts the requests of each client in this process, a minute at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._window = 0
        self._counts: Counter[str] = Counter()

    def count(self, client: str) -> dict[str, str]:
        """Count one more; the headers that say what is left. Raises TooManyRequests."""
        window, elapsed = divmod(int(time()), WINDOW)
        if window != self._window:
            self._window = window
            self._counts.clear()
        network = network_of(client)
        self._counts[network] += 1
        remaining, seconds = self._limit - self._counts[network], WINDOW - elapsed
        headers = rate_limit("default", limit=self._limit, remaining=remaining, seconds=seconds)
        if remaining < 0:
            raise TooManyRequests(headers=headers | {"Retry-After": str(seconds)})
        return headers


class Outside:
    """A request id, security headers, HEAD for every GET, a line in the log, and a figure if `counts`."""

    def __init__(self, app: ASGIApp, *, https: bool, counts: bool) -> None:
        self._app = app
        self._headers = security_headers(https=https)
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let a WebSocket be."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        method, path = scope.get("method", WEBSOCKET), scope["path"][:LOGGED]
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        request_fields.set({"request_id": request_id, "client": client_of(scope)})
        own = [*self._headers, (b"x-request-id", request_id.encode())]
        status, ended = None, False

        def end() -> None:
            nonlocal ended
            ended = True
            seconds = perf_counter() - began
            if self._counts and status is not None and method != WEBSOCKET:
                known = method if method in METHODS else "other"
                metrics.observe(known, getattr(asked.get("route"), "path_format", "none"), status, seconds)
            # Not the query, where people put secrets.
            fields = {
                "method": method,
                "path": path,
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "user_agent": headers.get("user-agent", "")[:LOGGED],
            }
            access.info("%s %s %s", method, path, status, extra={"fields": fields})

        async def send_on(message: Message) -> None:
            nonlocal status
            kind = message["type"].removeprefix("websocket.")
            if kind in ("http.response.start", "accept"):
                status = message.get("status", HTTPStatus.SWITCHING_PROTOCOLS)
                answered = message.get("headers", ())
                present = {name for name, _ in answered}
                added = [header for header in own if header[0] not in present]
                message = {**message, "headers": [*answered, *added]}
            elif kind == "close":
                status = message["code"]
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)
            if kind == "http.response.body" and not message.get("more_body"):
                end()  # what goes on behind the answer, such as mail, is not its time

        # Whoever answers GET answers HEAD: with the same headers, and the body is left out above.
        asked = {**scope, "method": "GET"} if method == "HEAD" else scope
        try:
            await self._app(asked, receive, send_on)
        finally:
            if not ended:
                end()


class CrossOrigin(CORSMiddleware):
    """Starlette's, with this API's methods and headers, and with a problem where a preflight is refused.

    It answers preflights itself, before the guard: they tell nothing that settings do not.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=CORS_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return refuse(CrossOriginRefused(headers={"Vary": response.headers["Vary"]}))


class LastResort:
    """Answers what nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            started = True
            await send_out(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        send_out = _send_while_there(send) if scope["type"] == "websocket" else send
        try:
            await self._app(scope, receive, send_on)
        except WebSocketDisconnect:
            return  # nobody is there to be answered
        except Refusal as refusal:
            await refuse(refusal)(scope, receive, send)
        except asyncio.CancelledError:
            # The server ends, and this request did not in the time that was left.
            if not started:
                await refuse(Unavailable)(scope, receive, send)
            raise
        except Exception:
            logger.exception("a request failed")
            if started and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011, "reason": Unexpected.code})
                return
            if started:
                raise  # half an answer is out: the server must cut it off
            await refuse(Unexpected)(scope, receive, send)


def _send_while_there(send: Send) -> Send:
    async def send_on(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:  # which would be taken for the database that went away
            raise WebSocketDisconnect(1006) from error

    return send_on


class Guard:
    """Refuses what need not be looked at: by the client's limit, the host and the body's size."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._hosts = settings.known_hosts
        self._body_limit = settings.body_limit
        self._upload_limit = settings.media_size_limit + FORM_AROUND_FILE
        self._request_limit = None if settings.request_limit is None else RequestLimit(settings.request_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises TooManyRequests, UnknownHost, Malformed, BodyTooLarge and Unreadable."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._request_limit is not None:
            send = with_headers(send, self._request_limit.count(client_of(scope)))
        is_upload = scope.get("method") == "POST" and scope["path"] in UPLOADS
        left = self._upload_limit if is_upload else self._body_limit
        self._check(Headers(scope=scope), left)

        async def receive_counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise BodyTooLarge
            return message

        await self._app(scope, receive_counted, send)

    def _check(self, headers: Headers, limit: int) -> None:
        hosts = headers.getlist("host")
        matched = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if matched is None or matched[1].lower() not in self._hosts:
            raise UnknownHost
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise Malformed
        if len(length) > len(str(limit)) or int(length) > limit:
            raise BodyTooLarge
        # Forms are read in any coding that Python has: some make halves of characters, and some take minutes.
        media_type, parameters = parse_options_header(headers.get("content-type"))
        if media_type == b"multipart/form-data" and parameters.get(b"charset", b"utf-8").lower() != b"utf-8":
            raise Unreadable


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """`send`, with these headers on the answer."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_on


def security_headers(*, https: bool) -> list[tuple[bytes, bytes]]:
    """What every answer has unless it says otherwise itself; `https` when people come by it."""
    headers = {
        "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    if https:
        headers["strict-transport-security"] = "max-age=31536000"
    return [(name.encode(), value.encode()) for name, value in headers.items()]
