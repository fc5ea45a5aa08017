"""Deadlines and bounds of a connection, with shorter deadlines than it has."""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from blog import server
from blog.server import HEADERS_LIMIT, PIPELINED, DeadlineProtocol, LiveProtocol
from tests.conftest import HANG

SHORT = 0.4

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"

LONG_ANSWER = b"GET /long HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
LENGTH = 50_000_000

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def go_on() -> asyncio.Event:
    """What the app waits for before it reads a body, if its path says so."""
    return asyncio.Event()


@pytest.fixture
def heard() -> asyncio.Queue[str]:
    """The messages that the app has received over a WebSocket, and an empty one when it was closed."""
    return asyncio.Queue()


@pytest.fixture
async def connect(
    events: list[str], go_on: asyncio.Event, heard: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connect]:
    """How to connect to an app that reads a body, waits if its path says so, and answers with what it read."""
    for name in ("RECEIVE_TIMEOUT", "KEEP_ALIVE", "READ_TIMEOUT", "LINGER"):
        monkeypatch.setattr(server, name, SHORT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await talk(receive, send, heard)
            return
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"early"})
            return
        if scope["path"] == "/busy":
            await go_on.wait()
        body = await body_from(receive)
        if body is None:
            events.append("disconnected")
            return
        if scope["path"] == "/slow":
            await asyncio.sleep(3 * SHORT)
        answer = b"x" * LENGTH if scope["path"] == "/long" else body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})
        events.append("answered")

    async with serving(app) as (server_socket, _):
        port = server_socket.getsockname()[1]
        yield lambda: asyncio.open_connection("127.0.0.1", port, limit=2**20)


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[tuple[Any, set[Any]]]:
    """Serve an app in this loop; yield the socket that listens, and the connections as they come and go."""
    given: dict[str, Any] = {"lifespan": "off", "timeout_keep_alive": 1, "ws": LiveProtocol, "ws_ping_interval": None}
    config = uvicorn.Config(app, log_config=None, **given | options)
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    listening = await loop.create_server(lambda: DeadlineProtocol(config, state, {}, loop), "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0], state.connections
        for connection in list(state.connections):
            connection.transport.abort()


async def body_from(receive: Any) -> bytes | None:
    """Return the body of a request, or None when the client left."""
    body: bytes = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            return body
    return None


async def talk(receive: Any, send: Any, heard: asyncio.Queue[str]) -> None:
    """Send a long message, and "the end" when the client says so."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "bytes": b"x" * LENGTH})
    while (message := await receive())["type"] == "websocket.receive":
        heard.put_nowait(message["text"])
        if message["text"] == "the end":
            await send({"type": "websocket.send", "text": "the end"})
    heard.put_nowait("")


@asynccontextmanager
async def sending(connect: Connect, data: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await connect()
    writer.write(data)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What came until the server closed."""
    async with asyncio.timeout(HANG):
        return await reader.read()


def is_problem(answer: bytes, status: int, code: str) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head
    assert b"x-request-id: " in head
    assert b"connection: close" in head
    problem = json.loads(body)
    return (problem["status"], problem["code"]) == (status, code)


@pytest.mark.parametrize("data", [b"", b"G", GET[:-2], b"GET / HTTP/1.1\r\nHost: h\r\nX: "])
async def test_no_request_in_time(connect: Connect, data: bytes) -> None:
    async with sending(connect, data) as (reader, _):
        assert is_problem(await all_of(reader), 408, "request_timeout")


async def test_no_body_in_time(connect: Connect, events: list[str]) -> None:
    async with sending(connect, POST + b"12345") as (reader, _):
        assert is_problem(await all_of(reader), 408, "request_timeout")
    assert events == ["disconnected"]


async def test_no_body_in_time_behind_a_request_in_the_same_packet(connect: Connect, events: list[str]) -> None:
    async with sending(connect, GET + POST) as (reader, _):
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert is_problem(await all_of(reader), 408, "request_timeout")
    assert events == ["answered", "disconnected"]


async def test_a_body_that_comes_gets_more_time(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SLOWEST_BODY", 10)  # bytes a second
    async with sending(connect, POST.replace(b"10", b"80")) as (reader, writer):
        for _ in range(8):
            await asyncio.sleep(SHORT / 4)
            writer.write(b"0123456789")
        answer = await reader.readuntil(b"0\r\n\r\n")
    assert answer.count(b"0123456789") == 8


async def test_one_request_after_another(connect: Connect) -> None:
    async with sending(connect, GET) as (reader, writer):
        await reader.readuntil(b"0\r\n\r\n")
        await asyncio.sleep(2 * SHORT)  # nothing is due between two
        for part in (POST[:20], POST[20:] + b"01234", b"56789"):
            writer.write(part)
            await asyncio.sleep(0)
        assert b"0123456789" in await reader.readuntil(b"0\r\n\r\n")
        writer.write(GET[:10])
        assert is_problem(await all_of(reader), 408, "request_timeout")


async def test_every_request_of_a_burst_is_answered(connect: Connect) -> None:
    async with sending(connect, (POST + b"0123456789") * 30) as (reader, _):
        for _ in range(30):
            assert b"0123456789" in await reader.readuntil(b"0\r\n\r\n")


async def test_more_than_a_connection_may_ask_at_once(connect: Connect) -> None:
    async with sending(connect, GET * 5_000) as (reader, _):
        answers = await all_of(reader)
    assert PIPELINED <= answers.count(b"HTTP/1.1 200") <= PIPELINED + 1
    assert answers.count(b"HTTP/1.1") == answers.count(b"HTTP/1.1 200")


async def test_one_answer_each(connect: Connect, events: list[str]) -> None:
    """A request under way keeps its answer when the one behind it is refused."""
    slow = POST.replace(b"/ ", b"/slow ") + b"0123456789"
    broken = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    async with sending(connect, slow + broken) as (reader, _):
        answer = await all_of(reader)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1
    assert events == ["answered"]


async def test_an_answer_before_the_body_is_the_only_one(connect: Connect) -> None:
    async with sending(connect, POST.replace(b"/ ", b"/early ") + b"0123") as (reader, _):
        answer = await all_of(reader)
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_body_that_goes_on_behind_its_answer(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no more time by coming: nobody reads it."""
    monkeypatch.setattr(server, "SLOWEST_BODY", 1)  # bytes a second
    early = POST.replace(b"/ ", b"/early ").replace(b"10", b"1000000")
    async with sending(connect, early) as (reader, writer):

        async def go_on() -> None:
            while True:
                writer.write(b"0123456789")
                await asyncio.sleep(SHORT / 10)

        await reader.readuntil(b"early")
        going_on = asyncio.create_task(go_on())
        with suppress(ConnectionError):  # what came unread resets it
            await all_of(reader)
        going_on.cancel()


async def test_a_body_that_only_trickles(connect: Connect) -> None:
    async with sending(connect, POST.replace(b"10", b"100000")) as (reader, writer):

        async def trickle() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(SHORT / 10)

        trickling = asyncio.create_task(trickle())
        assert is_problem(await all_of(reader), 408, "request_timeout")
        trickling.cancel()


CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [b"1\r\nx\r\n0\r\n" + b"A: b\r\n" * 100_000, b"1\r\nx\r\n0\r\nA: " + b"b" * 600_000, b"1;a=" + b"b" * 600_000],
    ids=["trailers", "a trailer", "an extension"],
)
async def test_what_is_around_a_body_has_a_bound(connect: Connect, framing: bytes) -> None:
    async with sending(connect, CHUNKED + framing) as (reader, _):
        assert is_problem(await all_of(reader), 431, "headers_too_large")


async def test_a_body_in_many_chunks(connect: Connect) -> None:
    async with sending(connect, CHUNKED + b"1\r\nx\r\n" * 50_000 + b"0\r\nA: b\r\n\r\n") as (reader, _):
        answer = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"x") == 50_000


async def test_headers_are_counted_for_each_request(connect: Connect) -> None:
    request = GET[:-2] + b"X: " + b"x" * 5_000 + b"\r\n\r\n"
    async with sending(connect, b"") as (reader, writer):
        for _ in range(2 * HEADERS_LIMIT // len(request)):
            writer.write(request)
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(POST + b"0123456789" + GET[:-2] + b"X: " + b"x" * (HEADERS_LIMIT + 1) + b"\r\n\r\n")
        answer = await all_of(reader)
    assert answer.count(b"HTTP/1.1 200") == 1


async def test_an_earlier_request_is_answered_first(connect: Connect, events: list[str]) -> None:
    """A second one that never ends is behind one that takes longer than its deadline."""
    slow = GET.replace(b"/ ", b"/slow ")
    async with sending(connect, slow + GET[:10]) as (reader, _):
        answer = await all_of(reader)
    assert answer.startswith(b"HTTP/1.1 200")
    assert events == ["answered"]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a request's deadline has passed while we do not read it; it has no other one, nor gets more time."""
    late = asyncio.Event()
    look_at_the_clock = DeadlineProtocol._look_at_the_clock

    def look_when_reading_is_paused(self: DeadlineProtocol) -> None:
        if not self.flow.read_paused:
            self._timer = None
            self._expect_by(asyncio.get_running_loop().time() + SHORT)
            return
        monkeypatch.setattr(server, "RECEIVE_TIMEOUT", HANG)
        look_at_the_clock(self)
        late.set()

    monkeypatch.setattr(DeadlineProtocol, "_look_at_the_clock", look_when_reading_is_paused)
    monkeypatch.setattr(server, "SLOWEST_BODY", math.inf)
    return late


async def test_a_body_that_we_do_not_read(connect: Connect, late: asyncio.Event, go_on: asyncio.Event) -> None:
    """Its deadline waits, because the client can do nothing about it."""
    long = POST.replace(b"/ ", b"/busy ").replace(b"10", b"1000000")
    async with sending(connect, long + b"x" * 1_000_000) as (reader, _):
        await late.wait()
        go_on.set()
        answer = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"x") == 1_000_000


async def test_a_body_that_we_do_not_read_behind_another_request(
    connect: Connect, late: asyncio.Event, go_on: asyncio.Event
) -> None:
    async with sending(connect, GET.replace(b"/ ", b"/busy ") + POST) as (reader, writer):
        await late.wait()
        writer.write(b"0123456789")
        go_on.set()
        for body in (b"", b"0123456789"):
            answer = await reader.readuntil(b"0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")
            assert body in answer


@pytest.mark.parametrize(("spare", "status"), [(0, 200), (1, 431), (5_000_000, 431)])
async def test_headers_have_a_bound(connect: Connect, spare: int, status: int) -> None:
    padding = HEADERS_LIMIT - len(GET) - len(b"X: \r\n") + spare
    head = GET[:-2] + b"X: " + b"x" * padding + b"\r\n\r\n"
    async with sending(connect, head) as (reader, _):
        if status == 200:
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        else:
            assert is_problem(await all_of(reader), 431, "headers_too_large")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nHost h\r\n\r\n"])
async def test_what_is_not_http(connect: Connect, data: bytes) -> None:
    async with sending(connect, data) as (reader, _):
        assert is_problem(await all_of(reader), 400, "malformed_request")


async def test_what_is_not_http_behind_a_request(connect: Connect) -> None:
    async with sending(connect, POST + b"0123456789" + b"G" * 20) as (reader, _):
        answer = await all_of(reader)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_chunk_that_is_none(connect: Connect, events: list[str]) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\nzz\r\n"
    async with sending(connect, chunked) as (reader, _):
        assert is_problem(await all_of(reader), 400, "malformed_request")
    assert events == ["disconnected"]


async def test_an_answer_that_nobody_reads(connect: Connect) -> None:
    async with sending(connect, LONG_ANSWER) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(4 * SHORT)
        assert len(await all_of(reader)) < LENGTH


async def test_an_answer_that_is_read_slowly(connect: Connect) -> None:
    read, begun = 0, asyncio.get_running_loop().time()
    async with sending(connect, LONG_ANSWER) as (reader, _), asyncio.timeout(HANG):
        while data := await reader.read(2**21):
            read += len(data)
            await asyncio.sleep(SHORT / 4)
    assert read > LENGTH
    assert asyncio.get_running_loop().time() - begun > 2 * SHORT


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A


def frame(kind: int, payload: bytes) -> bytes:
    """Return what a client sends, masked with zeros (RFC 6455, section 5.2)."""
    return bytes([kind, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@asynccontextmanager
async def not_reading(connect: Connect) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket to which more is written than its client has read: a message of which LENGTH bytes are left."""
    async with sending(connect, HANDSHAKE) as (reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await reader.readexactly(10) == bytes([BINARY, 127]) + LENGTH.to_bytes(8, "big")
        yield reader, writer


async def test_pings_of_a_client_that_does_not_read(
    connect: Connect, heard: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last is answered, once the client reads: else the pongs would fill our memory."""
    monkeypatch.setattr(server, "STALLED", HANG)
    async with not_reading(connect) as (reader, writer):
        for text in (b"more", b"the end"):
            writer.write(b"".join(frame(PING, b"%d" % number) for number in range(100)) + frame(TEXT, text))
            assert await heard.get() == text.decode()
        await reader.readexactly(LENGTH)
        assert await reader.readuntil(b"the end") == bytes([PONG, 2]) + b"99" + bytes([TEXT, 7]) + b"the end"


async def test_a_close_frame_behind_pings_of_a_client_that_does_not_read(
    connect: Connect, heard: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered before the connection is closed (RFC 6455, section 5.5.1)."""
    monkeypatch.setattr(server, "STALLED", HANG)
    code = (1000).to_bytes(2, "big")
    async with not_reading(connect) as (reader, writer):
        writer.write(frame(PING, b"1") + frame(PING, b"2") + frame(CLOSE, code))
        assert await heard.get() == ""
        await reader.readexactly(LENGTH)
        assert await reader.read() == bytes([CLOSE, 2]) + code


LITTLE = b"x" * 50_000
"""More than narrow buffers hold, and less than asyncio takes for more than is read."""


@asynccontextmanager
async def deaf(server_socket: socket.socket, data: bytes) -> AsyncIterator[socket.socket]:
    """A client that sends this and reads nothing, with buffers as narrow as the system lets them be."""
    server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.setblocking(False)
        await loop.sock_connect(client, server_socket.getsockname())
        await loop.sock_sendall(client, data)
        yield client


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(HANG):
        while not condition():  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(0.01)


async def is_closed_and_let_go(connections: set[Any]) -> None:
    await until(lambda: connections)
    (connection,) = connections
    await until(lambda: connection.transport.is_closing())
    assert connection.transport.get_write_buffer_size() > 0, "all was taken"
    await until(lambda: not connections)


class TestLittleThatNobodyReads:
    """asyncio closes a connection once all is read that was written to it, and waits for that without an end."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("READ_TIMEOUT", "STALLED", "LINGER"):
            monkeypatch.setattr(server, name, SHORT)

    async def test_behind_the_last_answer(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": LITTLE})

        last = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        async with serving(app) as (server_socket, connections), deaf(server_socket, last):
            await is_closed_and_let_go(connections)

    async def test_behind_a_refusal(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": LITTLE})

        async with serving(app) as (server_socket, connections), deaf(server_socket, GET + b"nonsense\r\n\r\n"):
            await is_closed_and_let_go(connections)

    async def test_behind_a_ping_without_a_pong(self) -> None:
        """The app is told, and what it sends after that is no fault of its own."""
        told: asyncio.Queue[Any] = asyncio.Queue()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": LITTLE})
            told.put_nowait(await receive())
            try:
                await send({"type": "websocket.send", "text": "more"})
            except Exception as error:
                told.put_nowait(error)

        async with (
            serving(app, ws_ping_interval=SHORT, ws_ping_timeout=SHORT) as (server_socket, connections),
            deaf(server_socket, HANDSHAKE),
        ):
            await is_closed_and_let_go(connections)
            assert await told.get() == {"type": "websocket.disconnect", "code": 1011}
            assert isinstance(await told.get(), OSError)

    async def test_behind_a_close_frame_of_ours(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": LITTLE})
            await send({"type": "websocket.close"})

        async with serving(app) as (server_socket, connections), deaf(server_socket, HANDSHAKE):
            await until(lambda: connections)
            await until(lambda: not connections)

    async def test_behind_a_close_frame_of_the_client(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": LITTLE})
            await receive()

        async with (
            serving(app) as (server_socket, connections),
            deaf(server_socket, HANDSHAKE) as client,
        ):
            await until(lambda: any(one.transport.get_write_buffer_size() for one in connections))
            await asyncio.get_running_loop().sock_sendall(client, frame(CLOSE, (1000).to_bytes(2, "big")))
            await is_closed_and_let_go(connections)
