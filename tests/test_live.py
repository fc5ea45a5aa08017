"""Rooms over WebSockets, by a stock client library, as people meet them."""

import asyncio
import json
import logging
import os
import random
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from itertools import chain
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from blog import conversation, dependencies, live, server
from blog.app import create_app
from blog.database import Database
from blog.live import Hub, Subscriber
from blog.models import Role, User
from blog.repository.room import RoomRepository
from blog.security.access import ALL, Scope
from blog.security.tokens import LEEWAY
from blog.server import FRAME_LIMIT, protocols
from blog.settings import Settings
from tests.answers import code
from tests.clock import Clock
from tests.conftest import HANG, client_of, lost_database, on
from tests.factories import PASSWORD, Factory, bearer

AUDIT = live.AUDIT
"""What it is where no test hurries."""

Frame = dict[str, Any]
Headers = dict[str, str]


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    """Who may not listen any more, and who came and went, is seen at once; who was refused is not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "AUDIT", 0.05)
        patch.setattr(live, "PRESENCE_PAUSE", 0.01)
        patch.setattr(server, "LINGER", 0.5)
        yield


@pytest.fixture(autouse=True)
def no_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is an error of ours."""
    caplog.set_level(logging.INFO)
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(HANG):
        while not condition():  # noqa: ASYNC110  (it is behind a door)
            await asyncio.sleep(0.01)


class Listener:
    """A stock client in a room."""

    def __init__(self, connection: ClientConnection, after: int = 0) -> None:
        self.connection = connection
        self.last = after

    async def say(self, **frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def post(self, body: str, **fields: Any) -> None:
        await self.say(type="message", body=body, **fields)

    async def posts(self, body: str, **fields: Any) -> int:
        """Post, and wait until it is stored and heard by oneself; the number that it has."""
        ref = fields.setdefault("ref", os.urandom(8).hex())
        await self.post(body, **fields)
        while (posted := await self.anything()).get("ref") != ref:
            pass
        assert posted["type"] == "posted", posted
        while self.last < posted["number"]:
            await self.anything()
        return int(posted["number"])

    async def anything(self) -> Frame:
        async with asyncio.timeout(HANG):
            frame: Frame = json.loads(await self.connection.recv())
        if frame["type"] == "message":
            self.last = frame["number"]
        return frame

    async def next(self, kind: str) -> Frame:
        """The next frame, which must be of this type; who comes and goes is told in between at any time."""
        while (frame := await self.anything())["type"] != kind:
            assert frame["type"] == "presence", frame
        return frame

    async def next_but(self, kind: str) -> Frame:
        """The next frame that is neither of this type nor of who comes and goes."""
        while (frame := await self.anything())["type"] in (kind, "presence"):
            pass
        return frame

    async def greeted(self) -> None:
        """Wait until all that was missed is told, which must be nothing."""
        assert "here" in await self.next("presence")

    async def hears_of(self, user: User, how: str) -> Frame:
        """The frame by which it is told that somebody joined or left; of itself it may hear too."""
        while person(user) not in (frame := await self.next("presence")).get(how, ()):
            pass
        return frame

    async def messages(self, count: int) -> list[Frame]:
        return [await self.next("message") for _ in range(count)]

    async def pongs(self) -> bool:
        await self.say(type="ping")
        return await self.next("pong") == {"type": "pong"}

    async def end(self) -> tuple[int, str]:
        """Code and reason with which the other end closes, whatever comes before."""
        with suppress(ConnectionClosed):
            while True:
                await self.anything()
        assert self.connection.close_code is not None
        return self.connection.close_code, self.connection.close_reason or ""


class Platform:
    """An app that really listens."""

    def __init__(self, app: FastAPI, port: int, running: uvicorn.Server) -> None:
        self.app = app
        self.port = port
        self.running = running
        self.address = f"ws://127.0.0.1:{port}"

    @property
    def hub(self) -> Hub:
        hub: Hub = self.app.state.hub
        return hub

    @property
    def database(self) -> Database:
        database: Database = self.app.state.database
        return database

    def subscribers(self) -> list[Subscriber]:
        return [subscriber for room in self.hub._rooms.values() for subscriber in room.subscribers]

    @asynccontextmanager
    async def open(
        self, path: str, headers: Headers | None = None, after: int = 0, **options: Any
    ) -> AsyncIterator[Listener]:
        # Without a bound for what it has not read a client hears of no closing that is behind it.
        options = {"proxy": None, "open_timeout": HANG, "max_queue": None} | options
        async with connect(f"{self.address}{path}", additional_headers=headers, **options) as connection:
            yield Listener(connection, after)

    @asynccontextmanager
    async def join(self, room: int, headers: Headers, after: int = 0, **options: Any) -> AsyncIterator[Listener]:
        async with self.open(f"/room/{room}/live?after={after}", headers, after, **options) as listener:
            yield listener

    async def refused(self, path: str, headers: Headers | None = None, **options: Any) -> tuple[int, str]:
        """Status and code of the answer to a handshake."""
        with pytest.raises(InvalidStatus) as refused:
            async with self.open(path, headers, **options):
                pass
        answer = refused.value.response
        headers_of_answer, asked = list(answer.headers.raw_items()), httpx.Request("GET", self.address + path)
        return code(
            httpx.Response(answer.status_code, headers=headers_of_answer, content=bytes(answer.body), request=asked)
        )

    @asynccontextmanager
    async def handshaken(
        self, path: str, headers: Headers
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection on which a handshake was asked for, for what a stock client does not do."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        wanted = headers | {
            "Host": f"127.0.0.1:{self.port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": b64encode(os.urandom(16)).decode(),
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in wanted.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[Platform]:
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **protocols()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Else the system takes megabytes for somebody who takes nothing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
        task = asyncio.create_task(running._serve([listener]))  # without its signals, which are the tests' own
        yield Platform(app, listener.getsockname()[1], running)
        running.should_exit = True
        await task


@asynccontextmanager
async def another(settings: Settings, **changes: Any) -> AsyncIterator[Platform]:
    """Another process, as far as the first can tell: an app with its own hub over the same database."""
    app = create_app(settings.model_copy(update=changes))
    async with app.router.lifespan_context(app), listening(app) as platform:
        yield platform


@pytest.fixture(scope="module")
async def shared_platform(shared_app: FastAPI) -> AsyncIterator[Platform]:
    async with listening(shared_app) as platform:
        yield platform


@pytest.fixture
async def platform(app: FastAPI, shared_platform: Platform) -> AsyncIterator[Platform]:
    """The shared app, which holds nothing of anybody who has left."""
    yield shared_platform
    hub = shared_platform.hub
    await until(lambda: not (hub._rooms or hub._of_user or hub._of_address))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when a handshake has come to the question whose it is, and what the answer waits for."""
    found, go_on = asyncio.Event(), asyncio.Event()
    find_listener = dependencies.find_listener

    async def find_late(*arguments: Any) -> Any:
        found.set()
        await go_on.wait()
        return await find_listener(*arguments)

    monkeypatch.setattr("blog.conversation.find_listener", find_late)
    return found, go_on


@pytest.fixture
async def ada(factory: Factory) -> User:
    return await factory.user()


@pytest.fixture
async def bob(factory: Factory) -> User:
    return await factory.user("Bob")


@pytest.fixture
async def room(client: httpx.AsyncClient, factory: Factory, ada: User) -> int:
    """A room of Ada's."""
    return await open_room(client, factory.login(ada))


async def open_room(client: httpx.AsyncClient, owner: Headers, **fields: Any) -> int:
    answer = await client.post("/room/", json={"name": "Looms"} | fields, headers=owner)
    return int(answer.raise_for_status().json()["id"])


async def post(client: httpx.AsyncClient, room: int, login: Headers, body: str) -> Frame:
    answer = await client.post(f"/room/{room}/messages", json={"body": body}, headers=login)
    message: Frame = answer.raise_for_status().json()
    return message


@contextmanager
def deaf_hub() -> Iterator[None]:
    """No hub hears of what becomes of its rooms."""

    async def read_nothing(*_: Any) -> bool:
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hub, "_read", read_nothing)
        yield


def token_of(headers: Headers) -> str:
    return headers["Authorization"].removeprefix("Bearer ")


def by_header(token: str) -> dict[str, Any]:
    return {"headers": bearer(token)}


def by_subprotocol(token: str) -> dict[str, Any]:
    return {"subprotocols": [Subprotocol("bearer"), Subprotocol(token)]}


WAYS = [by_header, by_subprotocol]


class TestWhoIsLetIn:
    async def test_by_header(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            assert listener.connection.subprotocol is None
            assert await listener.next("presence") == {
                "type": "presence",
                "count": 1,
                "here": [{"id": ada.id, "name": "Ada"}],
            }

    async def test_by_subprotocol(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        """As a browser must, which sends no header of a page's; it is answered with what was agreed on, no token."""
        async with platform.open(f"/room/{room}/live", **by_subprotocol(token_of(factory.login(ada)))) as listener:
            assert listener.connection.subprotocol == "bearer"
            await listener.greeted()

    async def test_by_first_message(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.open(f"/room/{room}/live") as listener:
            await listener.say(type="auth", token=token_of(factory.login(ada)))
            await listener.greeted()

    async def test_by_personal_token(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        token = await factory.personal_token(ada, [Scope.ROOM_READ])
        for way in WAYS:
            async with platform.open(f"/room/{room}/live", **way(token)) as listener:
                await listener.greeted()

    @on("sqlite")
    @pytest.mark.parametrize("name", ["access_token", "token", "bearer", "authorization"])
    async def test_never_by_query(
        self,
        platform: Platform,
        factory: Factory,
        ada: User,
        room: int,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(conversation, "AUTH_TIMEOUT", 0.1)
        token = token_of(factory.login(ada))
        async with platform.open(f"/room/{room}/live?{name}={token}") as listener:
            with pytest.raises(ConnectionClosed):
                await listener.anything()
            assert await listener.end() == (4401, "not_authenticated")
        assert token not in caplog.text

    @on("sqlite")
    async def test_without_a_token(self, platform: Platform, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is told before."""
        monkeypatch.setattr(conversation, "AUTH_TIMEOUT", 0.1)
        async with platform.open(f"/room/{room}/live") as listener:
            with pytest.raises(ConnectionClosed):
                await listener.anything()
            assert await listener.end() == (4401, "not_authenticated")

    @on("sqlite")
    @pytest.mark.parametrize(
        "said", ['{"type": "ping"}', '{"type": "message", "body": "Hello"}', "nonsense", "{}", '{"type": "auth"}']
    )
    async def test_who_says_something_else_first(self, platform: Platform, room: int, said: str) -> None:
        async with platform.open(f"/room/{room}/live") as listener:
            await listener.connection.send(said)
            with pytest.raises(ConnectionClosed):
                await listener.anything()
            assert await listener.end() == (4401, "not_authenticated")

    @on("sqlite")
    async def test_who_says_no_text_first(self, platform: Platform, room: int) -> None:
        async with platform.open(f"/room/{room}/live") as listener:
            await listener.connection.send(b"\x00")
            assert await listener.end() == (1003, "not_text")

    @on("sqlite")
    async def test_who_leaves_before_saying_anything(
        self, platform: Platform, room: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with platform.open(f"/room/{room}/live"):
            pass
        await until(lambda: "WS /room" in caplog.text)

    async def test_who_leaves_before_the_handshake_is_over(
        self,
        platform: Platform,
        factory: Factory,
        ada: User,
        room: int,
        late: tuple[asyncio.Event, asyncio.Event],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        found, gone = late
        for headers in (factory.login(ada), bearer("nonsense")):
            for noted in (found, gone, caplog):
                noted.clear()
            async with platform.handshaken(f"/room/{room}/live", headers):
                await found.wait()
            await until(lambda: not platform.running.server_state.connections)
            gone.set()
            await until(lambda: "WS /room" in caplog.text)
        assert {record.levelname for record in caplog.records} == {"INFO"}

    @pytest.mark.parametrize("fault", ["forged", "expired", "revoked", "unknown", "blocked", "over"])
    async def test_with_a_token_that_is_not_good(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, room: int, fault: str
    ) -> None:
        bob = await factory.user("Bob")
        login = factory.logins[bob.id]
        token = token_of(factory.login(bob))
        match fault:
            case "forged":
                token = token[:-6] + "AAAAAA"
            case "expired":
                expired = platform.app.state.tokens.issue(bob.public_id, login.public_id, ALL, seconds=-LEEWAY - 1)
                token = str(expired)
            case "revoked":
                assert (await client.post("/logout", headers=bearer(token))).status_code == 204
            case "unknown":
                token = "blog_pt_" + "0" * 43
            case "blocked":
                admin = factory.login(await factory.admin())
                answer = await client.patch(f"/user/{bob.id}", json={"is_active": False}, headers=admin)
                assert answer.status_code == 200
            case "over":
                token = await factory.personal_token(bob, lifetime=-timedelta(seconds=1))
        for way in WAYS:
            assert await platform.refused(f"/room/{room}/live", **way(token)) == (401, "invalid_token")
        async with platform.open(f"/room/{room}/live") as listener:
            await listener.say(type="auth", token=token)
            with pytest.raises(ConnectionClosed):
                await listener.anything()
            assert await listener.end() == (4401, "invalid_token")

    @on("sqlite")
    async def test_with_a_header_that_is_none(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        login = factory.login(ada)
        twice = [("Authorization", login["Authorization"])] * 2
        basic = {"Authorization": "Basic QWRhOkFkYQ=="}
        path = f"/room/{room}/live"
        for headers in (twice, basic):
            assert await platform.refused(path, headers) == (401, "not_authenticated")  # type: ignore[arg-type]
        assert await platform.refused(path, {"Authorization": "Bearer "}) == (401, "invalid_token")
        async with platform.open(path, {"Authorization": f"bearer {token_of(login)}"}) as listener:
            await listener.greeted()

    @on("sqlite")
    async def test_with_other_subprotocols(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        token = token_of(factory.login(ada))
        for offered in (["bearer"], [token], ["chat", token], [token, "bearer"], ["bearer", token, "chat"]):
            subprotocols = [Subprotocol(name) for name in offered]
            refused = await platform.refused(f"/room/{room}/live", subprotocols=subprotocols)
            assert refused == (401, "not_authenticated"), len(offered)

    async def test_with_a_token_that_is_not_good_for_it(
        self, platform: Platform, factory: Factory, ada: User, room: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        login = factory.login(ada, ALL - {Scope.ROOM_READ})
        for way in WAYS:
            refused = await platform.refused(f"/room/{room}/live", **way(token_of(login)))
            assert refused == (403, "insufficient_scope")
        assert [record.name for record in caplog.records].count("blog.security") == 2
        async with platform.open(f"/room/{room}/live") as listener:
            await listener.say(type="auth", token=token_of(login))
            assert await listener.end() == (4403, "insufficient_scope")


@on("sqlite")
class TestFromWhere:
    async def test_of_its_own_pages(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        for origin in (None, Origin(f"http://127.0.0.1:{platform.port}")):
            async with platform.join(room, factory.login(ada), origin=origin) as listener:
                await listener.greeted()

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "null",
            "http://127.0.0.1",
            "http://127.0.0.1:1",
            "http://127.0.0.1:{port}.evil.example",
            "http://evil.example/127.0.0.1:{port}",
            "http://evil.example@127.0.0.1:{port}",
            "",
        ],
    )
    async def test_of_another_site(
        self, platform: Platform, factory: Factory, ada: User, room: int, origin: str
    ) -> None:
        """With whatever token, and before it is looked at."""
        from_there = {"Origin": origin.format(port=platform.port)}
        path = f"/room/{room}/live"
        for headers in ({}, bearer("nonsense"), factory.login(ada)):
            assert await platform.refused(path, headers | from_there) == (403, "origin_refused")

    async def test_of_a_site_that_the_settings_name(
        self, settings: Settings, app: FastAPI, factory: Factory, ada: User, room: int
    ) -> None:
        async with another(settings, cors_origins=frozenset({"https://app.example.com"})) as platform:
            async with platform.join(room, factory.login(ada), origin=Origin("https://app.example.com")) as listener:
                await listener.greeted()
            for origin in ("http://app.example.com", "https://app.example.com:444", "https://example.com"):
                refused = await platform.refused(f"/room/{room}/live", factory.login(ada), origin=Origin(origin))
                assert refused == (403, "origin_refused")

    async def test_under_another_name(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "Origin": "http://evil.example"}):
            refused = await platform.refused(f"/room/{room}/live", factory.login(ada) | headers)
            assert refused == (400, "unknown_host")


class TestWhere:
    @pytest.mark.parametrize("path", ["/room/999999/live", f"/room/{2**31}/live"])
    async def test_no_such_room(self, platform: Platform, factory: Factory, ada: User, path: str) -> None:
        assert await platform.refused(path, factory.login(ada)) == (404, "room_not_found")
        async with platform.open(path) as listener:
            await listener.say(type="auth", token=token_of(factory.login(ada)))
            assert await listener.end() == (4404, "room_not_found")

    @on("sqlite")
    @pytest.mark.parametrize("path", ["/", "/live", "/room/1", "/room//live", "/room/1/live/more", "/blog/1"])
    async def test_no_such_path(self, platform: Platform, factory: Factory, ada: User, path: str) -> None:
        assert await platform.refused(path, factory.login(ada)) == (404, "not_found")

    async def test_with_a_slash_at_its_end(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.open(f"/room/{room}/live/", factory.login(ada)) as listener:
            await listener.greeted()

    @on("sqlite")
    @pytest.mark.parametrize("after", ["x", "-1", "1.5", "", "%EF%BC%91", 2**70])
    async def test_after_what_is_no_number(
        self, platform: Platform, factory: Factory, ada: User, room: int, after: Any
    ) -> None:
        refused = await platform.refused(f"/room/{room}/live?after={after}", factory.login(ada))
        assert refused == (422, "invalid")

    @on("sqlite")
    @pytest.mark.parametrize("path", [f"/room/{n}/live" for n in ("x", "0", "01", "-1", 10**30)])
    async def test_what_is_no_number(self, platform: Platform, factory: Factory, ada: User, path: str) -> None:
        assert await platform.refused(path, factory.login(ada)) == (422, "invalid")

    async def test_a_closed_one(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        await client.patch(f"/room/{room}", json={"is_closed": True}, headers=factory.login(ada))
        assert await platform.refused(f"/room/{room}/live", factory.login(ada)) == (409, "room_closed")
        async with platform.open(f"/room/{room}/live") as listener:
            await listener.say(type="auth", token=token_of(factory.login(ada)))
            assert await listener.end() == (4409, "room_closed")

    async def test_that_of_a_draft(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User
    ) -> None:
        blog = await factory.blog(ada, status="draft")
        room = (await client.get(f"/blog/{blog.id}/room", headers=factory.login(ada))).json()["id"]
        admin = await factory.admin()
        assert await platform.refused(f"/room/{room}/live", factory.login(admin)) == (404, "room_not_found")
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()


class TestListening:
    async def test_what_was_missed_and_what_comes(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        """As requests answer it, each once and in order."""
        written = [await post(client, room, factory.login(ada), f"*{n}*") for n in range(1, 6)]
        async with platform.join(room, factory.login(bob), after=2) as listener:
            missed = await listener.messages(3)
            assert "here" in await listener.next("presence")
            written.append(await post(client, room, factory.login(ada), "new"))
            assert [*missed, await listener.next("message")] == written[2:]
        assert [message["number"] for message in written] == [1, 2, 3, 4, 5, 6]
        assert written[0]["html"] == "<p><em>1</em></p>\n"
        assert written[0]["writer"] == {"id": ada.id, "name": "Ada"}

    async def test_who_has_seen_more_than_there_is(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        await post(client, room, factory.login(ada), "old")
        async with platform.join(room, factory.login(ada), after=1_000_000) as listener:
            await listener.greeted()
            assert (await post(client, room, factory.login(ada), "new"))["number"] == 2
            assert (await listener.next("message"))["body"] == "new"

    async def test_a_message_that_is_removed(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        async with platform.join(room, factory.login(bob)) as listener:
            await post(client, room, factory.login(ada), "regretted")
            assert (await listener.next("message"))["body"] == "regretted"
            await client.delete(f"/room/{room}/messages/1", headers=factory.login(ada))
            removed = await listener.next("removed")
            assert (removed["number"], set(removed)) == (1, {"type", "number", "deleted_at"})
        async with platform.join(room, factory.login(bob)) as listener:
            message = await listener.next("message")
            assert (message["body"], message["html"]) == ("", "")
            assert message["deleted_at"] == removed["deleted_at"]
            await listener.greeted()

    @pytest.mark.parametrize("seed", range(2))
    async def test_no_gap_and_no_double(
        self,
        platform: Platform,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        bob: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
        seed: int,
    ) -> None:
        """Sockets come, fall behind the log, are cut off and come back while messages are written and removed."""
        monkeypatch.setattr(live, "KEPT", 3)
        monkeypatch.setattr(live, "READ_AT_ONCE", 4)
        chance, login = random.Random(seed), factory.login(ada)

        async def write() -> None:
            async with platform.join(room, login, after=100) as writer:
                for _ in range(12):
                    await writer.posts(chance.choice(["kept", "kept", "regretted"]))
                    if chance.random() < 0.3:
                        await remove_one(client, room, login)

        async def read() -> list[str]:
            seen: list[str] = []
            while len(seen) < 24:
                async with platform.join(room, factory.login(bob), after=len(seen)) as listener:
                    frames, frame = chance.randint(1, 20), {}
                    while frames and "here" not in frame:  # cut off, maybe, before all that was missed is told
                        frames -= 1
                        note(frame := await listener.anything(), seen)
                    for _ in range(frames):  # so many come, whatever else does
                        await listener.say(type="ping")
                    for _ in range(frames):
                        note(await listener.anything(), seen)
            return seen

        read_by_all = await asyncio.gather(*(read() for _ in range(3)), write(), write())
        said = await bodies(client, room, login)
        for heard in filter(None, read_by_all):
            # What is removed while nobody listens is told to nobody.
            assert [(now, then) for now, then in zip(said, heard, strict=True) if then not in (now, "regretted")] == []

    async def test_everybody_hears_the_same(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        """Two who post at the same time, and one who only listens."""
        async with AsyncExitStack() as stack:
            listeners = [
                await stack.enter_async_context(platform.join(room, factory.login(user))) for user in (ada, bob, bob)
            ]
            for number in range(20):
                await listeners[number % 2].post(f"message {number}")
            heard = []
            for listener in listeners:
                messages: list[Frame] = []
                while len(messages) < 20:
                    frame = await listener.anything()
                    if frame["type"] == "message":
                        messages.append(frame)
                heard.append(messages)
        assert heard[0] == heard[1] == heard[2]
        assert [message["number"] for message in heard[0]] == list(range(1, 21))


async def stored(client: httpx.AsyncClient, room: int, login: Headers) -> list[Frame]:
    answer = await client.get(f"/room/{room}/messages?limit=100", headers=login)
    messages: list[Frame] = answer.raise_for_status().json()
    return messages


async def bodies(client: httpx.AsyncClient, room: int, login: Headers) -> list[str]:
    return [message["body"] for message in await stored(client, room, login)]


async def remove_one(client: httpx.AsyncClient, room: int, login: Headers) -> None:
    """Remove the first message that is regretted, if there is one still."""
    said = await bodies(client, room, login)
    if "regretted" in said:
        await client.delete(f"/room/{room}/messages/{said.index('regretted') + 1}", headers=login)


def note(frame: Frame, seen: list[str]) -> None:
    """Let `seen` be what somebody has seen who gets this frame too."""
    if frame["type"] == "message":
        seen.append(frame["body"])
        assert frame["number"] == len(seen)
    elif frame["type"] == "removed":
        assert seen[frame["number"] - 1] in ("regretted", "")
        seen[frame["number"] - 1] = ""


class TestSpeaking:
    async def test_a_message(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        """Everybody gets it, its writer too, who learns its number besides; and requests answer the same."""
        login = factory.login(ada)
        async with platform.join(room, login) as writer, platform.join(room, factory.login(bob)) as listener:
            await writer.greeted()
            await writer.post("It *weaves*.", ref="mine")
            frames = [await writer.anything() for _ in range(2)]
            frames = [frame for frame in frames if frame["type"] != "presence"]
            while len(frames) < 2:
                frames += [frame for frame in [await writer.anything()] if frame["type"] != "presence"]
            posted, message = sorted(frames, key=lambda frame: str(frame["type"]), reverse=True)
            assert posted == {"type": "posted", "number": 1, "ref": "mine"}
            assert message == await listener.next("message") == (await stored(client, room, login))[0]
            assert message["html"] == "<p>It <em>weaves</em>.</p>\n"

    async def test_without_a_ref(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as writer:
            await writer.post("Hello")
            frames: list[Frame] = []
            while len(frames) < 2:
                frames += [frame for frame in [await writer.anything()] if frame["type"] != "presence"]
            assert {"type": "posted", "number": 1} in frames

    async def test_the_same_again(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        """By the same user and under the same ref it is the same message, on whatever socket."""
        async with platform.join(room, factory.login(ada)) as writer:
            assert [await writer.posts("Hello", ref="1") for _ in range(2)] == [1, 1]
        async with platform.join(room, await factory.another_login(ada), after=1) as writer:
            assert await writer.posts("Hello", ref="1") == 1
            await client.delete(f"/room/{room}/messages/1", headers=factory.login(ada))
            assert await writer.posts("Hello", ref="1") == 1
            assert await writer.posts("Hello", ref="2") == 2
        async with platform.join(room, factory.login(bob), after=2) as writer:
            assert await writer.posts("Hello", ref="1") == 3
        other = await open_room(client, factory.login(ada))
        async with platform.join(other, factory.login(ada)) as writer:
            assert await writer.posts("Hello", ref="1") == 1
        assert [message["body"] for message in await stored(client, room, factory.login(ada))] == ["", "Hello", "Hello"]

    async def test_the_same_twice_at_once(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        async with AsyncExitStack() as stack:
            writers = [
                await stack.enter_async_context(platform.join(room, factory.login(ada), after=10)) for _ in range(5)
            ]
            numbers = await asyncio.gather(*(writer.posts("Hello", ref="1") for writer in writers))
        assert set(numbers) == {1}
        assert len(await stored(client, room, factory.login(ada))) == 1

    @on("sqlite")
    async def test_ping(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada, {Scope.ROOM_READ})) as listener:
            assert await listener.pongs()

    async def test_typing(self, platform: Platform, factory: Factory, ada: User, bob: User, room: int) -> None:
        """Reaches the others, not oneself, once in a while, and is nothing that can be missed."""
        async with AsyncExitStack() as stack:
            typist, same, other = [
                await stack.enter_async_context(platform.join(room, factory.login(user))) for user in (ada, ada, bob)
            ]
            await other.greeted()
            for _ in range(3):
                await typist.say(type="typing")
            assert await other.next("typing") == {"type": "typing", "user": {"id": ada.id, "name": "Ada"}}
            for listener in (typist, same, other):
                assert await listener.pongs()
            async with platform.join(room, factory.login(bob)) as late:
                await late.greeted()
                assert await late.pongs()

    @on("sqlite")
    async def test_typing_of_who_may_not_speak(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        async with (
            platform.join(room, factory.login(ada, {Scope.ROOM_READ})) as typist,
            platform.join(room, factory.login(bob)) as other,
        ):
            await other.greeted()
            await typist.say(type="typing")
            assert await typist.pongs()
            assert await other.pongs()


SECRET = "S3cret"


class TestRefusedMessages:
    """An error frame says why, and never what was sent; the socket goes on."""

    @on("sqlite")
    @pytest.mark.parametrize(
        ("said", "why"),
        [
            (SECRET, "Invalid JSON"),
            ("", "Invalid JSON"),
            (f'{{"type": "message", "body": "{SECRET}"', "Invalid JSON"),
            ("[" * 10_000, "Invalid JSON"),
            ('{"type": "message", "body": ' + "[" * 10_000, "Invalid JSON"),
            ("1" * 10_000, "Invalid JSON"),
            (f'{{"type": "message", "body": "{SECRET}\\ud800"}}', "Invalid JSON"),
            ("[]", "object"),
            ("null", "object"),
            (f'"{SECRET}"', "object"),
            ("{}", "'type'"),
            (f'{{"type": "{SECRET}"}}', "type is one of auth, message, typing and ping"),
            (f'{{"type": ["{SECRET}"]}}', "type is one of auth, message, typing and ping"),
            ('{"type": "posted", "number": 1}', "type is one of auth, message, typing and ping"),
            ('{"type": "message"}', "body: Field required"),
            (f'{{"type": "message", "body": ["{SECRET}"]}}', "body: Input should be a valid string"),
            (f'{{"type": "message", "body": "{SECRET}\\u0000"}}', "body: holds a character"),
            (f'{{"type": "message", "body": "{SECRET * 1000}"}}', "body: "),
            ('{"type": "message", "body": ""}', "body: "),
            ('{"type": "message", "body": " \\u200b\\n"}', "body: "),
            (f'{{"type": "message", "body": "Hello", "ref": "{SECRET} {SECRET}"}}', "ref: "),
            (f'{{"type": "message", "body": "Hello", "ref": "{SECRET * 20}"}}', "ref: "),
            ('{"type": "message", "body": "Hello", "ref": ""}', "ref: "),
            ('{"type": "message", "body": "Hello", "ref": null}', "ref: "),
            ('{"type": "message", "body": "Hello", "number": 7}', "number: "),
            (f'{{"type": "ping", "since": "{SECRET}"}}', "since: "),
            (f'{{"type": "auth", "token": "{SECRET * 1000}"}}', "token: "),
        ],
    )
    async def test_one_that_is_not_understood(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int, said: str, why: str
    ) -> None:
        async with platform.join(room, factory.login(ada)) as writer:
            await writer.greeted()
            await writer.connection.send(said)
            error = await writer.next("error")
            assert error.keys() == {"type", "code", "detail"}
            assert error["code"] == "invalid"
            assert error["detail"].startswith("This message is not understood: ")
            assert why in error["detail"]
            assert SECRET not in error["detail"]
            assert await writer.pongs()
        assert await stored(client, room, factory.login(ada)) == []

    @on("sqlite")
    async def test_one_that_cannot_be_shown(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        async with platform.join(room, factory.login(ada)) as writer:
            await writer.post(">" * 1000 + SECRET, ref="1")
            error = await writer.next("error")
            assert (error["code"], error["ref"]) == ("unrenderable", "1")
            assert SECRET not in error["detail"]
            assert await writer.posts("Hello", ref="1") == 1

    @on("sqlite")
    async def test_of_who_may_only_listen(
        self, platform: Platform, factory: Factory, ada: User, room: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with platform.join(room, factory.login(ada, {Scope.ROOM_READ})) as writer:
            await writer.post(SECRET, ref="1")
            assert await writer.next("error") == {
                "type": "error",
                "code": "insufficient_scope",
                "detail": "This needs a token with the scope room:write.",
                "ref": "1",
            }
            assert await writer.pongs()
        assert [record.name for record in caplog.records].count("blog.security") == 1
        assert SECRET not in caplog.text

    async def test_in_slow_mode(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        """Which is not for who keeps the room in order; sending the same once more is no second message."""
        await client.patch(f"/room/{room}", json={"slow_mode": 3600}, headers=factory.login(ada))
        async with platform.join(room, factory.login(bob), after=9) as writer:
            assert await writer.posts("Hello", ref="1") == 1
            await writer.post(SECRET, ref="2")
            error = await writer.next_but("message")
            assert (error["code"], error["ref"]) == ("slow_mode", "2")
            assert 3590 < error["retry_after"] <= 3600
            assert await writer.posts("Hello", ref="1") == 1
        async with platform.join(room, factory.login(ada), after=9) as writer:
            assert [await writer.posts("Hello") for _ in range(2)] == [2, 3]

    async def test_in_a_closed_room(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        """As it may be said before the hub has heard of it."""
        async with platform.join(room, factory.login(ada)) as writer:
            await writer.greeted()
            with deaf_hub():
                await client.patch(f"/room/{room}", json={"is_closed": True}, headers=factory.login(ada))
                await writer.post(SECRET, ref="1")
                error = await writer.next("error")
            assert (error["code"], error["ref"]) == ("room_closed", "1")
            assert await writer.end() == (4409, "room_closed")
        answer = await client.get(f"/room/{room}/messages", headers=factory.login(ada))
        assert answer.json() == []

    @on("sqlite")
    async def test_one_that_is_stored_already_in_a_closed_room(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        """The client may have missed the answer before the room was closed, and asks again with the same ref."""
        with deaf_hub():
            async with platform.join(room, factory.login(ada), after=9) as writer:
                assert await writer.posts("Hello", ref="1") == 1
                await client.patch(f"/room/{room}", json={"is_closed": True}, headers=factory.login(ada))
                assert await writer.posts("Hello", ref="1") == 1
                await writer.post(SECRET, ref="2")
                error = await writer.next("error")
        assert (error["code"], error["ref"]) == ("room_closed", "2")
        assert await bodies(client, room, factory.login(ada)) == ["Hello"]


class TestPresence:
    async def test_who_is_here_who_comes_and_who_leaves(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
            async with platform.join(room, factory.login(bob)) as other:
                greeting = await other.next("presence")
                assert greeting["count"] == 2
                assert sorted(greeting["here"], key=str) == sorted([person(ada), person(bob)], key=str)
                assert (await listener.hears_of(bob, "joined"))["count"] == 2
            told = await listener.hears_of(bob, "left")
            assert told == {"type": "presence", "count": 1, "joined": [], "left": [person(bob)]}

    async def test_one_user_is_one(self, platform: Platform, factory: Factory, ada: User, bob: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
            async with platform.join(room, factory.login(bob)) as first:
                await listener.hears_of(bob, "joined")
                async with platform.join(room, await factory.another_login(bob)) as second:
                    assert (await second.next("presence"))["count"] == 2
                await first.greeted()
                await until(lambda: len(platform.subscribers()) == 2)
                await until(lambda: platform.hub._rooms[room]._announcing is None)
                await listener.say(type="ping")
                assert (await listener.anything())["type"] == "pong"  # there was nothing to tell of
            await listener.hears_of(bob, "left")

    @on("sqlite")
    async def test_no_more_than_a_hundred_are_named(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "SHOWN_PRESENT", 1)
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
            async with platform.join(room, factory.login(bob)) as other:
                greeting = await other.next("presence")
                assert (greeting["count"], len(greeting["here"])) == (2, 1)


def person(user: User) -> Frame:
    return {"id": user.id, "name": user.name}


@on("sqlite")
class TestBounds:
    """What no client of ours does."""

    async def test_no_text(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.connection.send(b'{"type": "ping"}')
            assert await listener.end() == (1003, "not_text")

    async def test_the_longest(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.connection.send("x" * FRAME_LIMIT)
            assert (await listener.next("error"))["code"] == "invalid"
            await listener.connection.send("x" * (FRAME_LIMIT + 1))
            assert (await listener.end())[0] == 1009

    async def test_the_longest_in_pieces(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.connection.send(["x" * 1024] * 64)
            assert (await listener.next("error"))["code"] == "invalid"
            with suppress(ConnectionClosed):
                await listener.connection.send(["x" * 1024] * 65)
            assert (await listener.end())[0] == 1009

    async def test_what_is_not_utf_8(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        for said in (b"\xff", b'{"type": "ping\xed\xa0\x80"}'):
            async with platform.join(room, factory.login(ada)) as listener:
                await listener.connection.send(said, text=True)
                assert (await listener.end())[0] == 1007

    async def test_nothing_is_inflated(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        """The client offers it, and would send fifteen megabytes in fifteen kilobytes."""
        async with platform.join(room, factory.login(ada), compression="deflate") as listener:
            assert listener.connection.protocol.extensions == []

    @pytest.mark.parametrize("said", ['{"type": "ping"}', '{"type": "typing"}', "nonsense"])
    async def test_a_flood(
        self,
        platform: Platform,
        factory: Factory,
        ada: User,
        bob: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
        said: str,
    ) -> None:
        async with platform.join(room, factory.login(bob)) as other, platform.join(room, factory.login(ada)) as flooder:
            with suppress(ConnectionClosed):
                for _ in range(3 * conversation.BURST):
                    await flooder.connection.send(said)
            assert await flooder.end() == (1008, "too_many_messages")
            assert await other.pongs() if said != '{"type": "typing"}' else True
        monkeypatch.setattr(conversation, "FRAMES_A_SECOND", 0)
        monkeypatch.setattr(conversation, "BURST", 3)
        async with platform.join(room, factory.login(ada)) as flooder:
            for _ in range(3):
                assert await flooder.pongs()
            await flooder.say(type="ping")
            assert await flooder.end() == (1008, "too_many_messages")

    @pytest.mark.parametrize("kind", ["ping", "pong", "piece"])
    async def test_a_flood_of_what_is_no_message(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int, kind: str
    ) -> None:
        """Pings, pongs, or the empty pieces of a message that never ends."""
        async with platform.join(room, factory.login(bob)) as other, platform.join(room, factory.login(ada)) as flooder:
            connection = flooder.connection
            with suppress(ConnectionClosed):
                if kind == "piece":
                    await connection.send("" for _ in range(3 * server.PIECES_AT_ONCE))
                for _ in range(3 * server.PIECES_AT_ONCE):
                    await (connection.pong() if kind == "pong" else connection.ping())
            assert await flooder.end() == (1008, "too_many_messages")
            await other.greeted()
            assert await other.pongs()

    async def test_pings_are_answered(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            async with asyncio.timeout(HANG):
                assert await (await listener.connection.ping()) >= 0

    @pytest.mark.parametrize("said", [b"\x81\x05Hello", b"\xff" * 100, b"\x89\x80\0\0\0\0" * 10, b"\x88\x80\0\0\0\0"])
    async def test_what_comes_before_the_handshake_is_over(
        self,
        platform: Platform,
        factory: Factory,
        ada: User,
        room: int,
        late: tuple[asyncio.Event, asyncio.Event],
        caplog: pytest.LogCaptureFixture,
        said: bytes,
    ) -> None:
        found, came = late
        async with platform.handshaken(f"/room/{room}/live", factory.login(ada)) as (reader, writer):
            await found.wait()
            writer.write(said)
            writer.write_eof()
            (connection,) = platform.running.server_state.connections
            await until(lambda: connection.conn.reader.eof or connection.transport.is_closing())  # type: ignore[union-attr]
            came.set()
            async with asyncio.timeout(HANG):
                with suppress(ConnectionError):
                    await reader.read()
        await until(lambda: "WS /room" in caplog.text)

    @pytest.mark.parametrize("limit", ["room_socket_limit", "user_socket_limit", "address_socket_limit"])
    async def test_how_many(
        self, settings: Settings, app: FastAPI, factory: Factory, ada: User, bob: User, room: int, limit: str
    ) -> None:
        login, other = factory.login(ada), factory.login(bob)
        path = f"/room/{room}/live"
        async with (
            another(settings, **{limit: 2}) as platform,
            platform.join(room, login) as first,
            platform.join(room, login),
        ):
            if limit == "user_socket_limit":
                async with platform.join(room, other) as listener:
                    await listener.greeted()
            else:
                assert await platform.refused(path, other) == (429, "too_many_sockets")
            assert await platform.refused(path, login) == (429, "too_many_sockets")
            if limit == "address_socket_limit":
                assert await platform.refused(path) == (429, "too_many_sockets")
            else:
                async with platform.open(path) as late:
                    await late.say(type="auth", token=token_of(login))
                    assert await late.end() == (1013, "too_many_sockets")
            await first.connection.close()
            await until(lambda: len(platform.subscribers()) == 1)
            async with platform.join(room, login) as listener:
                await listener.greeted()

    async def test_how_many_who_have_not_said_who_they_are(
        self, settings: Settings, app: FastAPI, factory: Factory, ada: User, room: int
    ) -> None:
        path = f"/room/{room}/live"
        async with another(settings, address_socket_limit=2) as platform:
            async with platform.open(path), platform.open(path):
                assert await platform.refused(path, factory.login(ada)) == (429, "too_many_sockets")
            await until(lambda: not platform.hub._of_address)
            async with platform.join(room, factory.login(ada)) as listener:
                await listener.greeted()

    async def test_who_never_reads(
        self,
        platform: Platform,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        bob: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Is cut off, can go on later, and holds up nobody meanwhile; nor do its pings heap up anything."""
        monkeypatch.setattr(server, "STALLED", 0.5)
        long, count = "𝒘" * 4000, 40
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", platform.port))
        async with (
            platform.join(room, factory.login(ada)) as listener,
            platform.join(room, factory.login(bob), sock=small, max_queue=1) as sleeper,
        ):
            sleeper.connection.transport.pause_reading()
            for number in range(1, count + 1):
                await post(client, room, factory.login(ada), long)
                assert (await listener.next("message"))["number"] == number
            await until(lambda: len(platform.subscribers()) == 1)
            assert (await post(client, room, factory.login(ada), "later"))["number"] == count + 1
            assert (await listener.next("message"))["number"] == count + 1
            sleeper.connection.transport.resume_reading()
            assert (await sleeper.end())[0] == 1006
        async with platform.join(room, factory.login(bob), after=count) as sleeper:
            assert (await sleeper.next("message"))["body"] == "later"


class TestWhoMayNoLongerListen:
    """Is told so within five seconds."""

    @pytest.mark.parametrize(
        "act",
        ["log out", "revoke", "end the login", "delete the token", "block", "delete the user", "change the password"],
    )
    async def test_a_token_that_is_over(
        self,
        platform: Platform,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        bob: User,
        room: int,
        act: str,
    ) -> None:
        admin = factory.login(await factory.admin())
        login, other_login = factory.login(bob), await factory.another_login(bob)
        token = await factory.personal_token(bob)
        (personal,) = (await client.get("/user/me/tokens", headers=login)).json()
        gone, staying = {
            "log out": ([login], [other_login, bearer(token)]),
            "revoke": ([login], [other_login, bearer(token)]),
            "end the login": ([login], [other_login, bearer(token)]),
            "delete the token": ([bearer(token)], [login, other_login]),
            "block": ([login, other_login, bearer(token)], []),
            "delete the user": ([login, other_login, bearer(token)], []),
            "change the password": ([login, bearer(token)], [other_login]),
        }[act]
        async with AsyncExitStack() as stack:
            ending = [await stack.enter_async_context(platform.join(room, headers)) for headers in gone]
            staying.append(factory.login(ada))
            going_on = [await stack.enter_async_context(platform.join(room, headers)) for headers in staying]
            for listener in (*ending, *going_on):
                await listener.greeted()
            new = {"current_password": PASSWORD, "new_password": f"{PASSWORD} and another"}
            answer = await {
                "log out": lambda: client.post("/logout", headers=login),
                "revoke": lambda: client.post("/revoke", data={"token": token_of(login)}),
                "end the login": lambda: client.delete(
                    f"/user/me/sessions/{factory.logins[bob.id].id}", headers=other_login
                ),
                "delete the token": lambda: client.delete(f"/user/me/tokens/{personal['id']}", headers=login),
                "block": lambda: client.patch(f"/user/{bob.id}", json={"is_active": False}, headers=admin),
                "delete the user": lambda: client.delete(f"/user/{bob.id}", headers=admin),
                "change the password": lambda: client.put("/user/me/password", json=new, headers=other_login),
            }[act]()
            assert answer.is_success
            for listener in ending:
                assert await listener.end() == (4401, "invalid_token")
            for listener in going_on:
                assert await listener.pongs()

    @on("sqlite")
    async def test_how_long_it_takes(
        self,
        settings: Settings,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """With the pause between two looks that it has."""
        monkeypatch.setattr(live, "AUDIT", AUDIT)
        async with another(settings) as platform, platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
            await client.post("/logout", headers=factory.login(ada))
            assert await listener.end() == (4401, "invalid_token")

    @on("sqlite")
    async def test_an_access_token_that_runs_out(
        self, platform: Platform, factory: Factory, ada: User, room: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A login that goes on does not keep it; a new token does."""
        login = factory.logins[ada.id]
        short = platform.app.state.tokens.issue(ada.public_id, login.public_id, ALL, seconds=60)
        async with (
            platform.join(room, bearer(short)) as listener,
            platform.join(room, bearer(short)) as renewed,
            platform.join(room, bearer(await factory.personal_token(ada))) as other,
        ):
            await renewed.say(type="auth", token=token_of(factory.login(ada)))
            await renewed.greeted()
            assert await renewed.pongs()
            later = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + 60)
            monkeypatch.setattr(live, "time", later)
            assert await listener.end() == (4401, "invalid_token")
            assert await renewed.pongs()
            await other.greeted()
            assert await other.pongs()

    async def test_a_personal_token_that_runs_out(
        self, platform: Platform, factory: Factory, ada: User, room: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock(monkeypatch)
        short = await factory.personal_token(ada, lifetime=timedelta(seconds=60))
        async with platform.join(room, bearer(short)) as listener:
            await listener.greeted()
            clock.passes(61)
            assert await listener.end() == (4401, "invalid_token")

    async def test_going_on_with_another_login(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        async with (
            platform.join(room, factory.login(ada)) as renewed,
            platform.join(room, factory.login(ada)) as other,
        ):
            await renewed.greeted()
            await renewed.say(type="auth", token=token_of(await factory.another_login(ada)))
            assert await renewed.pongs()
            await client.post("/logout", headers=factory.login(ada))
            assert await other.end() == (4401, "invalid_token")
            assert await renewed.pongs()

    @on("sqlite")
    async def test_going_on_with_less(self, platform: Platform, factory: Factory, ada: User, room: int) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            assert await listener.posts("Hello") == 1
            await listener.say(type="auth", token=token_of(factory.login(ada, {Scope.ROOM_READ})))
            await listener.post("Hello")
            assert (await listener.next_but("message"))["code"] == "insufficient_scope"
            await listener.say(type="auth", token=token_of(factory.login(ada, {Scope.ROOM_WRITE})))
            assert await listener.end() == (4403, "insufficient_scope")

    @on("sqlite")
    @pytest.mark.parametrize("whose", ["another's", "nobody's"])
    async def test_going_on_with_a_token_that_is_not_theirs(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int, whose: str
    ) -> None:
        token = token_of(factory.login(bob)) if whose == "another's" else "nonsense"
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
            await listener.say(type="auth", token=token)
            assert await listener.end() == (4401, "invalid_token")

    async def test_an_admin_who_is_none_any_more(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        """Keeps no room in order from then on, on the same socket."""
        admin, boss = await factory.admin(), factory.login(await factory.admin())
        await client.patch(f"/room/{room}", json={"slow_mode": 3600}, headers=factory.login(ada))
        async with platform.join(room, factory.login(admin)) as listener:
            assert [await listener.posts("Hello") for _ in range(2)] == [1, 2]
            answer = await client.patch(f"/user/{admin.id}", json={"role": "reader"}, headers=boss)
            assert answer.json()["role"] == Role.READER
            (subscriber,) = platform.subscribers()
            await until(lambda: Scope.ADMIN not in subscriber.caller.scopes)
            await listener.post("Hello")
            assert (await listener.next_but("message"))["code"] == "slow_mode"

    @pytest.mark.parametrize("act", ["close", "delete", "delete the blog", "hide the blog"])
    async def test_a_room_that_is_over(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, bob: User, act: str
    ) -> None:
        """Of a blog that nobody but its creator sees any more, the creator stays."""
        login = factory.login(ada)
        blog = await factory.blog(ada)
        if act.endswith("blog"):
            room = int((await client.get(f"/blog/{blog.id}/room", headers=login)).json()["id"])
        else:
            room = await open_room(client, login)
        async with platform.join(room, login) as owner, platform.join(room, factory.login(bob)) as listener:
            await listener.greeted()
            answer = await {
                "close": lambda: client.patch(f"/room/{room}", json={"is_closed": True}, headers=login),
                "delete": lambda: client.delete(f"/room/{room}", headers=login),
                "delete the blog": lambda: client.delete(f"/blog/{blog.id}", headers=login),
                "hide the blog": lambda: client.patch(f"/blog/{blog.id}", json={"status": "draft"}, headers=login),
            }[act]()
            assert answer.is_success
            assert await listener.end() == ((4409, "room_closed") if act == "close" else (4404, "room_not_found"))
            if act == "hide the blog":
                assert await owner.posts("Hello") == 1
            else:
                assert (await owner.end())[0] in (4404, 4409)

    async def test_the_last_words_in_a_room_that_is_closed(
        self, platform: Platform, client: httpx.AsyncClient, factory: Factory, ada: User, room: int
    ) -> None:
        """Are heard, whatever the hub hears of first."""
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
            with deaf_hub():
                await post(client, room, factory.login(ada), "last")
                await client.patch(f"/room/{room}", json={"is_closed": True}, headers=factory.login(ada))
            assert (await listener.next("message"))["body"] == "last"
            assert await listener.end() == (4409, "room_closed")


class TestShutdown:
    async def test_everybody_is_told(
        self, settings: Settings, app: FastAPI, factory: Factory, ada: User, room: int
    ) -> None:
        async with AsyncExitStack() as stack, another(settings) as platform:
            listeners = [
                await stack.enter_async_context(platform.join(room, factory.login(ada))),
                await stack.enter_async_context(platform.open(f"/room/{room}/live")),
            ]
            await listeners[0].greeted()
            platform.running.should_exit = True
            assert [(await listener.end())[0] for listener in listeners] == [1012, 1012]


@on("sqlite")
class TestTheLog:
    @pytest.mark.parametrize("way", ["header", "subprotocol", "first message", "query"])
    async def test_a_line_for_each(
        self,
        platform: Platform,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        way: str,
    ) -> None:
        """With the code with which it was closed, and no token, nor what was said."""
        monkeypatch.setattr(conversation, "AUTH_TIMEOUT", 0.1)
        login = factory.login(ada)
        token = token_of(login)
        path = f"/room/{room}/live" + (f"?access_token={token}" if way == "query" else "")
        options = {"header": by_header, "subprotocol": by_subprotocol}.get(way, lambda _: {})(token)
        async with platform.open(path, **options) as listener:
            if way == "first message":
                await listener.say(type="auth", token=token)
            if way != "query":
                await listener.posts(SECRET)
                await client.delete(f"/room/{room}", headers=login)
            ended = await listener.end()
        assert ended == ((4401, "not_authenticated") if way == "query" else (4404, "room_not_found"))
        await until(lambda: "WS /room" in caplog.text)
        (line,) = [record for record in caplog.records if record.getMessage().startswith("WS ")]
        assert (line.name, line.getMessage()) == ("blog.access", f"WS /room/{room}/live {ended[0]}")
        said = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
        assert not any(token in line or SECRET in line for line in said if "sqlalchemy" not in line)

    async def test_of_who_leaves(
        self, platform: Platform, factory: Factory, ada: User, room: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            await listener.greeted()
        await until(lambda: f"WS /room/{room}/live 101" in caplog.text)


class TestLostDatabase:
    async def test_who_is_there_stays_and_misses_nothing(
        self,
        settings: Settings,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(live, "RETRY", 0.01)
        monkeypatch.setattr(live, "KEPT", 3)
        login = factory.login(ada)
        lost = {"type": "error", "code": "database_unavailable"}
        async with another(settings) as platform, platform.join(room, login) as listener:
            await listener.posts("before")
            with lost_database(platform.app):
                await listener.post(SECRET, ref="1")
                error = await listener.next_but("message")
                assert error.items() >= (lost | {"ref": "1"}).items()
                assert SECRET not in error["detail"]
                await listener.say(type="auth", token=token_of(login))
                assert (await listener.next_but("message")).items() >= lost.items()
                for number in range(10):
                    await post(client, room, login, f"meanwhile {number}")
                assert await listener.pongs()
                await until(lambda: "rooms are not read just now: OperationalError" in caplog.text)
                await until(lambda: "listeners are not looked at just now: OperationalError" in caplog.text)
            heard = [await listener.next("message") for _ in range(10)]
            assert [message["body"] for message in heard] == [f"meanwhile {number}" for number in range(10)]
            assert await listener.posts(SECRET, ref="1") == 12
        assert all(record.exc_info is None for record in caplog.records)

    async def test_who_comes_is_told_to_come_later(
        self, settings: Settings, app: FastAPI, factory: Factory, ada: User, room: int
    ) -> None:
        async with another(settings) as platform:
            async with platform.open(f"/room/{room}/live") as listener:
                with lost_database(platform.app):
                    await listener.say(type="auth", token=token_of(factory.login(ada)))
                    assert await listener.end() == (1013, "database_unavailable")
            async with platform.join(room, factory.login(ada)) as listener:
                await listener.greeted()

    async def test_who_is_told_what_was_missed_can_go_on_later(
        self,
        settings: Settings,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(live, "READ_AT_ONCE", 1)
        for number in (1, 2):
            await post(client, room, factory.login(ada), f"message {number}")
        async with another(settings) as platform, AsyncExitStack() as stack:
            messages_after = RoomRepository.messages_after

            async def lose_it_then(self: RoomRepository, room: int, number: int, limit: int) -> Any:
                if number == 1:
                    stack.enter_context(lost_database(platform.app))
                return await messages_after(self, room, number, limit)

            with monkeypatch.context() as patch:
                patch.setattr(RoomRepository, "messages_after", lose_it_then)
                async with platform.join(room, factory.login(ada)) as listener:
                    assert (await listener.next("message"))["number"] == 1
                    assert await listener.end() == (1013, "database_unavailable")
            await stack.aclose()
            async with platform.join(room, factory.login(ada), after=1) as listener:
                assert (await listener.next("message"))["number"] == 2


class TestLeaving:
    async def test_in_the_middle_of_posting(
        self, platform: Platform, factory: Factory, ada: User, bob: User, room: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is being stored is stored, also once it is noticed that nobody is there to be told."""
        storing, gone = asyncio.Event(), asyncio.Event()
        post_to_room = RoomRepository.post

        async def post_late(*arguments: Any, **options: Any) -> Any:
            storing.set()
            await gone.wait()
            return await post_to_room(*arguments, **options)

        monkeypatch.setattr(RoomRepository, "post", post_late)
        async with platform.join(room, factory.login(ada)) as listener:
            async with platform.join(room, factory.login(bob)) as writer:
                await writer.post("Hello")
                async with asyncio.timeout(HANG):
                    await storing.wait()
                writer.connection.transport.abort()
                await until(lambda: len(platform.running.server_state.connections) == 1)
                await listener.say(type="typing")
                await until(lambda: len(platform.subscribers()) == 1)
                gone.set()
            assert (await listener.next("message"))["body"] == "Hello"

    async def test_in_the_middle_of_what_was_missed(
        self,
        platform: Platform,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The database is as free as before, however often."""
        monkeypatch.setattr(live, "READ_AT_ONCE", 1)
        for number in range(5):
            await post(client, room, factory.login(ada), f"message {number}")
        for count in range(5):
            for _ in range(4):
                async with platform.join(room, factory.login(ada)) as listener:
                    await listener.messages(count)
                    listener.connection.transport.abort()
        await until(lambda: not platform.subscribers())
        pools = [engine.pool for engine in platform.database.engines]
        await until(lambda: not any(pool.checkedout() for pool in pools))  # type: ignore[attr-defined]


@on("postgresql", "mariadb")
class TestSeveralProcesses:
    """Over one database, which a SQLite file is not."""

    async def test_everybody_hears_everybody(
        self,
        settings: Settings,
        platform: Platform,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        bob: User,
        room: int,
    ) -> None:
        login = factory.login(ada)
        async with (
            another(settings) as second,
            platform.join(room, login) as here,
            second.join(room, factory.login(bob)) as there,
        ):
            await here.greeted()
            await there.greeted()
            assert await here.posts("from here") == 1
            assert (await there.next("message"))["body"] == "from here"
            assert await there.posts("from there") == 2
            assert (await here.next("message"))["body"] == "from there"
            await client.delete(f"/room/{room}/messages/1", headers=login)
            assert (await there.next("removed"))["number"] == 1
            assert (await here.next("removed"))["number"] == 1
            async with client_of(second.app) as other_client:
                await other_client.delete(f"/room/{room}/messages/2", headers=login)
            assert (await here.next("removed"))["number"] == 2

    async def test_no_gap_and_no_double(
        self, settings: Settings, platform: Platform, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        async with another(settings) as second, AsyncExitStack() as stack:
            writers = [
                await stack.enter_async_context(each.join(room, factory.login(user), after=100))
                for each in (platform, second)
                for user in (ada, bob)
            ]
            listeners = [
                await stack.enter_async_context(each.join(room, factory.login(ada))) for each in (platform, second)
            ]

            async def write(writer: Listener) -> list[int]:
                return [await writer.posts("Hello") for _ in range(10)]

            numbers = await asyncio.gather(*map(write, writers))
            assert sorted(chain(*numbers)) == list(range(1, 41))
            for listener in listeners:
                assert [message["number"] for message in await listener.messages(40)] == list(range(1, 41))

    async def test_who_is_here(
        self, settings: Settings, platform: Platform, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        async with another(settings) as second, platform.join(room, factory.login(ada)) as listener:
            async with second.join(room, factory.login(bob)), second.join(room, factory.login(ada)):
                assert (await listener.hears_of(bob, "joined"))["count"] == 2
                async with platform.join(room, factory.login(bob)) as late:
                    assert (await late.next("presence"))["count"] == 2
            assert (await listener.hears_of(bob, "left"))["count"] == 1

    async def test_who_was_there_when_a_process_ends(
        self, settings: Settings, platform: Platform, factory: Factory, ada: User, bob: User, room: int
    ) -> None:
        async with platform.join(room, factory.login(ada)) as listener:
            async with another(settings) as second, second.join(room, factory.login(bob)) as other:
                await listener.hears_of(bob, "joined")
                second.running.should_exit = True
                await other.end()
            await listener.hears_of(bob, "left")

    @pytest.mark.parametrize("act", ["close", "delete", "log out", "delete the blog", "hide the blog"])
    async def test_what_is_over_is_over_everywhere(
        self,
        settings: Settings,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        bob: User,
        act: str,
    ) -> None:
        login, other = factory.login(ada), factory.login(bob)
        blog = await factory.blog(ada)
        if act.endswith("blog"):
            room = int((await client.get(f"/blog/{blog.id}/room", headers=login)).json()["id"])
        else:
            room = await open_room(client, login)
        async with another(settings) as second, second.join(room, other) as listener:
            await listener.greeted()
            answer = await {
                "close": lambda: client.patch(f"/room/{room}", json={"is_closed": True}, headers=login),
                "delete": lambda: client.delete(f"/room/{room}", headers=login),
                "log out": lambda: client.post("/logout", headers=other),
                "delete the blog": lambda: client.delete(f"/blog/{blog.id}", headers=login),
                "hide the blog": lambda: client.patch(f"/blog/{blog.id}", json={"status": "draft"}, headers=login),
            }[act]()
            assert answer.is_success
            assert (await listener.end())[0] == {"close": 4409, "log out": 4401}.get(act, 4404)


@on("postgresql")
class TestWhoTells:
    @pytest.fixture
    def looks_never(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody looks at rooms unless somebody tells of them."""
        for name in ("SHORTEST", "LONGEST", "LONGEST_WHEN_TOLD"):
            monkeypatch.setattr(live, name, 3_600)

    @pytest.mark.parametrize("act", ["post", "remove", "close", "delete"])
    async def test_of_everything(
        self,
        looks_never: None,
        settings: Settings,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        act: str,
    ) -> None:
        login = factory.login(ada)
        async with another(settings) as platform, platform.join(room, login) as listener:
            await listener.greeted()
            await until(lambda: platform.hub._is_told)
            await post(client, room, login, "first")
            await listener.next("message")  # by which it is over that it looked as it began to listen
            if act == "post":
                await post(client, room, login, "second")
                assert (await listener.next("message"))["body"] == "second"
            elif act == "remove":
                assert (await client.delete(f"/room/{room}/messages/1", headers=login)).is_success
                assert (await listener.next("removed"))["number"] == 1
            elif act == "close":
                assert (await client.patch(f"/room/{room}", json={"is_closed": True}, headers=login)).is_success
                assert (await listener.end())[0] == 4409
            else:
                assert (await client.delete(f"/room/{room}", headers=login)).is_success
                assert (await listener.end())[0] == 4404

    async def test_what_was_written_before_it_listened(
        self,
        looks_never: None,
        settings: Settings,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        login, may_listen = factory.login(ada), asyncio.Event()
        hear = Database.listening

        @asynccontextmanager
        async def hear_later(database: Database, *told: Any) -> AsyncIterator[Any]:
            await may_listen.wait()
            async with hear(database, *told) as ask:
                yield ask

        monkeypatch.setattr(Database, "listening", hear_later)
        async with another(settings) as platform, platform.join(room, login) as listener:
            await listener.greeted()
            await post(client, room, login, "told to nobody")
            may_listen.set()
            assert (await listener.next("message"))["body"] == "told to nobody"

    async def test_the_connection_that_is_told_is_lost(
        self,
        settings: Settings,
        client: httpx.AsyncClient,
        factory: Factory,
        ada: User,
        room: int,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What comes is heard all the same, and told of again later."""
        monkeypatch.setattr(live, "RETRY", 0.01)
        login = factory.login(ada)
        async with another(settings) as platform, platform.join(room, login) as listener:
            await until(lambda: platform.hub._is_told)
            with monkeypatch.context() as patch:
                patch.setattr(live, "AUDIT", 60)  # so that nobody asks whether the connection is alive
                await listener.greeted()
            assert (await post(client, room, login, "told"))["number"] == 1
            assert (await listener.next("message"))["body"] == "told"
            async with platform.database.write.begin() as session:
                killed = await session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND query IN ('SELECT 1', 'LISTEN \"blog_room\"')"
                    )
                )
                assert killed.scalars().all()
            await post(client, room, login, "not told")
            assert (await listener.next("message"))["body"] == "not told"
            await until(lambda: "notifications are not heard just now: OSError" in caplog.text)
            await until(lambda: platform.hub._is_told)
            for name in ("SHORTEST", "LONGEST", "LONGEST_WHEN_TOLD"):
                monkeypatch.setattr(live, name, 60)
            await post(client, room, login, "makes it look once more")
            assert (await listener.next("message"))["body"] == "makes it look once more"
            for number in range(3):  # with nobody but who tells to wake it
                await post(client, room, login, f"told {number}")
                assert (await listener.next("message"))["body"] == f"told {number}"
