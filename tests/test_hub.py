"""The hub from inside: what wakes it, what it keeps, and what it does when things happen at the same time."""

import asyncio
import gc
import json
import logging
import math
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from blog import live
from blog.database import Database
from blog.dependencies import find_listener, find_room
from blog.errors import InvalidToken, RoomClosed, RoomNotFound, TooManySockets
from blog.live import Frame, Hub, LiveRoom, cancelled
from blog.models import RoomPresence, now
from blog.repository import AnyRow
from blog.repository.room import PresenceRepository, RoomRepository
from blog.schemas.room import RoomCreate, RoomUpdate
from blog.security.access import Caller
from blog.settings import Settings
from tests.conftest import HANG, on
from tests.factories import Factory

Told = dict[str, Any]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PRESENCE_PAUSE", 0)


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
async def hub(database: Database, settings: Settings) -> AsyncIterator[Hub]:
    """A hub over the app's database, of which each socket is gone in the end, and all that was counted."""
    hub = Hub(database, settings)
    yield hub
    assert (hub._rooms, hub._of_user, hub._of_address) == ({}, {}, {})
    await hub.aclose()


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself."""
    monkeypatch.setattr(Hub, "_start", lambda _: None)


class Room:
    """A room, and what becomes of it without a hub."""

    def __init__(self, database: Database, number: int, owner: Caller) -> None:
        self._database = database
        self.id = number
        self.owner = owner

    async def row(self, viewer: Caller | None = None) -> AnyRow:
        return await find_room(self._database, viewer or self.owner, self.id)

    async def post(self, body: str = "Hello") -> int:
        async with self._database.write.begin() as session:
            rooms = RoomRepository(session)
            return await rooms.post(await rooms.hold(self.id), self.owner, body, body, moderates=True)

    async def take_away(self, number: int) -> None:
        async with self._database.write.begin() as session:
            rooms = RoomRepository(session)
            await rooms.remove_message(await rooms.hold(self.id), number)

    async def delete(self) -> None:
        async with self._database.write.begin() as session:
            rooms = RoomRepository(session)
            await rooms.remove(await rooms.hold(self.id))

    async def close(self) -> None:
        async with self._database.write.begin() as session:
            rooms = RoomRepository(session)
            await rooms.update(await rooms.hold(self.id), RoomUpdate(is_closed=True))

    async def stored(self) -> dict[int, str]:
        """The text of each message, by number."""
        async with self._database.fresh() as session:
            return {row.number: row.body for row in await RoomRepository(session).messages_after(self.id, 0, 1000)}

    async def removed_since(self, removal: int) -> set[int]:
        async with self._database.fresh() as session:
            return {row.number for row in await RoomRepository(session).removed_after(self.id, removal, 1000)}


@pytest.fixture
async def ada(app: FastAPI, factory: Factory) -> Caller:
    return await logged_in(app, factory, "Ada")


@pytest.fixture
async def bob(app: FastAPI, factory: Factory) -> Caller:
    return await logged_in(app, factory, "Bob")


async def logged_in(app: FastAPI, factory: Factory, name: str) -> Caller:
    headers = factory.login(await factory.user(name))
    caller, _ = await find_listener(app.state, headers["Authorization"].removeprefix("Bearer "))
    return caller


@pytest.fixture
async def room(database: Database, ada: Caller) -> Room:
    return await new_room(database, ada)


async def new_room(database: Database, owner: Caller) -> Room:
    async with database.write.begin() as session:
        added = await RoomRepository(session).add(owner.user.id, RoomCreate(name="Looms"))
    return Room(database, added.id, owner)


class Socket:
    """What goes to a socket, as far as it has taken it."""

    def __init__(self, hub: Hub, row: AnyRow, caller: Caller, after: int = 0) -> None:
        self._left = ExitStack()
        self.subscriber = self._left.enter_context(hub.subscribed(row, caller, math.inf, after=after))
        self.after = self.subscriber.number
        self.removal = self.subscriber.removal
        self.heard: list[Told] = []
        self._frames = hub.frames(self.subscriber)
        self._next: asyncio.Task[Frame] | None = None

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        if self._next is not None:
            self._next.cancel()
        self._left.close()

    async def go_on(self, patience: float = 0) -> bool:
        """Take the next frame, if it comes in time; what is under way goes on later."""
        if self._next is None:
            self._next = asyncio.create_task(anext(self._frames))  # type: ignore[arg-type]
        await asyncio.wait([self._next], timeout=patience)
        if not self._next.done():
            return False
        step, self._next = self._next, None
        self.heard.append(json.loads(step.result().text))
        return True

    async def next(self, kind: str) -> Told:
        """The next frame, which must be of this type."""
        assert await self.go_on(HANG)
        assert self.heard[-1]["type"] == kind
        return self.heard[-1]

    async def messages(self, count: int) -> list[int]:
        """Numbers of the next messages, whoever comes and goes in between."""
        numbers: list[int] = []
        while len(numbers) < count:
            assert await self.go_on(HANG)
            if self.heard[-1]["type"] == "message":
                numbers.append(self.heard[-1]["number"])
        return numbers


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(HANG):
        while not condition():  # noqa: ASYNC110  (it is behind a door)
            await asyncio.sleep(0.01)


class TestTheLog:
    @pytest.mark.parametrize("kept", [1, 2, 5])
    def test_all_that_is_kept_can_be_read_on_from(self, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "KEPT", kept)
        room, written = some_room(), [Frame(str(number), number=number) for number in range(1, 9)]

        async def write() -> None:
            for count in range(len(written) + 1):
                for place in range(count + 1):
                    wanted = written[place:count] if count - place <= kept else None
                    assert room.since(place) == wanted
                if count < len(written):
                    room.put([written[count]])

        asyncio.run(write())


def some_room() -> LiveRoom:
    row: Any = type("Row", (), {"id": 1, "blog_id": None, "last_number": 0, "removals": 0})
    return LiveRoom(row)


class Story:
    """Messages are written and removed, sockets come, stay behind and leave, and the hub reads on, by chance."""

    def __init__(self, seed: int, hub: Hub, room: Room, callers: list[Caller]) -> None:
        self._chance = random.Random(seed)
        self._hub, self._room, self._callers = hub, room, callers
        self._last = 0
        self._there: list[int] = []
        self._reading: asyncio.Task[bool] | None = None
        self.sockets: list[Socket] = []
        self.there: list[Socket] = []

    def __enter__(self) -> "Story":
        return self

    def __exit__(self, *_: object) -> None:
        for socket in self.there:
            socket.__exit__()

    async def go_on(self) -> None:
        act = self._chance.choices(
            [self._write, self._remove, self._read, self._come, self._leave, self._hear], [6, 3, 5, 2, 1, 20]
        )[0]
        await act()

    async def _write(self) -> None:
        self._last = await self._room.post(f"message {self._last + 1}")
        self._there.append(self._last)

    async def _remove(self) -> None:
        if self._there:
            number = self._chance.choice(self._there[-5:])
            self._there.remove(number)
            await self._room.take_away(number)

    async def _read(self) -> None:
        """Begin to read on, as one task does, or let it go on."""
        if self._reading is None and self._room.id in self._hub._rooms:
            self._reading = asyncio.create_task(self._hub._read({self._room.id}))
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=self._chance.choice([0, 0, HANG]))
            if self._reading.done():
                self._reading.result()
                self._reading = None

    async def _come(self) -> None:
        caller = self._chance.choice(self._callers)
        row = await self._room.row(caller)
        await self._hear()  # what comes between finding the room and listening to it
        after = self._chance.choice([0, self._chance.randint(0, self._last), self._last, self._last + 5])
        socket = Socket(self._hub, row, caller, after)
        self.sockets.append(socket)
        self.there.append(socket)

    async def _leave(self) -> None:
        if self.there:
            self.there.pop(self._chance.randrange(len(self.there))).__exit__()

    async def _hear(self) -> None:
        for socket in self._chance.sample(self.there, min(2, len(self.there))):
            for _ in range(self._chance.randint(1, 4)):
                await socket.go_on()

    async def end(self) -> None:
        """Let the hub and everybody get to the end."""
        if self._reading is not None:
            await self._reading
        while self.there and await self._hub._read({self._room.id}):
            pass
        removals = (await self._room.row()).removals
        for socket in self.there:
            subscriber = socket.subscriber
            while (subscriber.number, subscriber.removal) != (self._last, removals):
                assert await socket.go_on(HANG)
            for _ in range(20):  # and nothing but who is here comes behind
                await socket.go_on()


class TestReadingOn:
    @pytest.mark.parametrize("seed", range(4))
    async def test_whatever_happens_at_the_same_time(
        self,
        idle: None,
        hub: Hub,
        room: Room,
        ada: Caller,
        bob: Caller,
        monkeypatch: pytest.MonkeyPatch,
        seed: int,
    ) -> None:
        """Everybody gets each message once and in order, and knows of each removal in the end."""
        monkeypatch.setattr(live, "KEPT", 3)
        monkeypatch.setattr(live, "READ_AT_ONCE", 2)
        with Story(seed, hub, room, [ada, bob]) as story:
            for _ in range(250):
                await story.go_on()
            await story.end()
        stored = await room.stored()
        for socket in story.sockets:
            seen = {number: f"message {number}" for number in range(1, socket.after + 1)}
            told_of: set[int] = set()
            for frame in socket.heard:
                if frame["type"] == "message":
                    assert frame["number"] == len(seen) + 1
                    seen[frame["number"]] = frame["body"]
                elif frame["type"] == "removed":
                    assert frame["number"] in seen
                    assert frame["number"] not in told_of
                    told_of.add(frame["number"])
                    seen[frame["number"]] = ""
            if socket in story.there:
                removed = await room.removed_since(socket.removal)
                assert seen.keys() == stored.keys()
                for number, body in stored.items():
                    if number > socket.after or number in removed:
                        assert seen[number] == body

    async def test_who_falls_behind_is_told_anew_who_is_here(
        self, idle: None, hub: Hub, room: Room, ada: Caller, bob: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who came and left meanwhile stood in the log."""
        monkeypatch.setattr(live, "KEPT", 2)
        row = await room.row()
        with Socket(hub, row, ada) as slow:
            assert (await slow.next("presence"))["count"] == 1
            await until(lambda: slow.subscriber.room.end == 1)
            with Socket(hub, row, bob):
                await until(lambda: slow.subscriber.room.end == 2)
                for _ in range(3):
                    await room.post()
                await hub._read({room.id})
                assert await slow.messages(3) == [1, 2, 3]
                assert {person["name"] for person in (await slow.next("presence"))["here"]} == {"Ada", "Bob"}

    async def test_a_room_that_is_deleted_while_somebody_reads_what_was_missed(
        self, idle: None, hub: Hub, room: Room, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It ends, rather than ask for what is gone again and again."""
        monkeypatch.setattr(live, "READ_AT_ONCE", 2)
        for _ in range(5):
            await room.post()
        with Socket(hub, await room.row(), ada) as socket:
            assert await socket.messages(2) == [1, 2]
            await room.delete()
            with pytest.raises(RoomNotFound):
                await socket.go_on(HANG)

    @pytest.mark.parametrize("missed", [0, 2])
    async def test_a_message_that_is_logged_while_somebody_reads_what_was_missed(
        self, idle: None, hub: Hub, room: Room, ada: Caller, monkeypatch: pytest.MonkeyPatch, missed: int
    ) -> None:
        """It is neither in what the statement gives nor behind where the log is taken up: the socket reads once more.

        The room is as alive as before: also a socket that has missed nothing stays.
        """
        messages_after = RoomRepository.messages_after

        async def messages_after_and_then(self: RoomRepository, room_id: int, number: int, limit: int) -> Any:
            monkeypatch.setattr(RoomRepository, "messages_after", messages_after)
            found = await messages_after(self, room_id, number, limit)
            await room.post()
            await hub._read({room.id})
            return found

        for _ in range(missed):
            await room.post()
        with Socket(hub, await room.row(), ada) as socket:
            monkeypatch.setattr(RoomRepository, "messages_after", messages_after_and_then)
            for number in range(1, missed + 2):
                assert (await socket.next("message"))["number"] == number
            assert (await socket.next("presence"))["count"] == 1
            await room.post()
            await hub._read({room.id})
            assert await socket.messages(1) == [missed + 2]

    async def test_a_room_that_is_deleted_while_the_hub_reads_on(
        self, idle: None, hub: Hub, room: Room, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes on with the others, and ends who listens when it looks again."""
        heads = RoomRepository.heads

        async def heads_and_then(self: RoomRepository, ids: Any) -> Any:
            found = await heads(self, ids)
            if room.id in found:
                await room.delete()
            return found

        with Socket(hub, await room.row(), ada) as socket:
            await room.post()
            monkeypatch.setattr(RoomRepository, "heads", heads_and_then)
            async with asyncio.timeout(HANG):
                await hub._read({room.id})
                assert not socket.subscriber.ending.done()
                await hub._read({room.id})
            assert socket.subscriber.ending.result() is RoomNotFound

    async def test_a_room_that_is_closed(self, idle: None, hub: Hub, room: Room, ada: Caller) -> None:
        """Who listens is told last what was said last."""
        with Socket(hub, await room.row(), ada) as socket:
            await room.post("last")
            await room.close()
            await hub._read({room.id})
            assert socket.subscriber.room.number == 1
            assert socket.subscriber.ending.result() is RoomClosed

    async def test_a_room_that_nobody_names_beside_one_that_is_named_all_the_time(
        self, hub: Hub, room: Room, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As it is where another process writes in the one, and this one in the other."""
        monkeypatch.setattr(live, "LONGEST_WHEN_TOLD", live.LONGEST)
        monkeypatch.setattr(live, "AUDIT", HANG)
        other = await new_room(database, ada)
        named = hub._named

        async def named_always(pause: float) -> set[int]:
            await hub.wake(room.id)
            return await named(pause) - {other.id}

        with Socket(hub, await room.row(), ada), Socket(hub, await other.row(), ada) as socket:
            monkeypatch.setattr(hub, "_named", named_always)
            await socket.next("presence")
            await other.post()
            assert await socket.messages(1) == [1]

    async def test_a_fault_of_ours_is_logged_with_all_of_it_and_outlived(
        self, hub: Hub, room: Room, ada: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(live, "RETRY", 0)
        faults: list[Exception] = [LookupError("gone"), OperationalError("", {}, Exception())]
        heads = RoomRepository.heads

        async def fail_first(self: RoomRepository, ids: Any) -> Any:
            if faults:
                raise faults.pop()
            return await heads(self, ids)

        monkeypatch.setattr(RoomRepository, "heads", fail_first)
        await room.post()
        with Socket(hub, await room.row(), ada, after=1) as socket:
            await until(lambda: not faults)
            await room.post()
            assert await socket.messages(1) == [2]
        lost, ours = [record for record in caplog.records if record.name == "blog.live"]
        assert (lost.levelname, lost.exc_info) == (ours.levelname, None) == ("WARNING", None)
        assert ours.exc_info is not None
        assert "LookupError" in ours.getMessage()

    @on("sqlite")
    async def test_a_request_wakes_it_on_its_own_loop(
        self, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And not from a thread, where an event is set without whoever waits for it."""
        user, login = await factory.logged_in()
        path = f"/room/{(await factory.room(user)).id}"
        woken: list[threading.Thread] = []
        monkeypatch.setattr(Hub, "_want", lambda *_: woken.append(threading.current_thread()))
        for method, of_room, body in (
            ("POST", "/messages", {"body": "It weaves."}),
            ("DELETE", "/messages/1", None),
            ("PATCH", "", {"is_closed": True}),
            ("DELETE", "", None),
        ):
            response = await client.request(method, path + of_room, json=body, headers=login)
            assert response.is_success, (method, of_room)
        assert woken == [threading.current_thread()] * 4

    @on("sqlite")
    async def test_with_nobody_there_nothing_is_asked(self, idle: None, hub: Hub, room: Room, ada: Caller) -> None:
        with Socket(hub, await room.row(), ada) as socket:
            await socket.next("presence")
        hub._woken.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await hub._named(0)


@contextmanager
def lost_connections_unheeded() -> Iterator[None]:
    """asyncpg that is cancelled while it opens a connection leaves behind, in a future of nobody's, that it is lost."""
    loop = asyncio.get_running_loop()
    heed = loop.get_exception_handler()
    assert heed is not None

    def heed_others(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), ConnectionError):
            heed(loop, context)

    loop.set_exception_handler(heed_others)
    try:
        yield
        gc.collect()  # which is when such a future is found
    finally:
        loop.set_exception_handler(heed)


class TestCounting:
    @on("sqlite")
    async def test_a_socket_that_is_not_let_in_leaves_nothing(
        self, idle: None, database: Database, settings: Settings, room: Room, ada: Caller, bob: Caller
    ) -> None:
        row = await room.row()
        bounds = {"room_socket_limit": 2, "user_socket_limit": 1, "address_socket_limit": 1}
        hub = Hub(database, settings.model_copy(update=bounds))
        with hub.connected("192.0.2.7"):
            with pytest.raises(TooManySockets), hub.connected("::ffff:192.0.2.7"):
                pass
            with hub.connected("2001:db8::1"), pytest.raises(TooManySockets), hub.connected("2001:db8::2"):
                pass
        with Socket(hub, row, ada):
            with pytest.raises(TooManySockets):
                Socket(hub, row, ada)
            with Socket(hub, row, bob):
                assert len(hub._rooms[room.id].subscribers) == 2
                with pytest.raises(TooManySockets):
                    Socket(hub, row, bob)
            with Socket(hub, row, bob):
                pass
        assert (hub._rooms, hub._of_user, hub._of_address) == ({}, {}, {})

    async def test_one_that_is_cancelled_leaves_nothing(
        self, hub: Hub, room: Room, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At whatever moment, also in the middle of a statement."""
        monkeypatch.setattr(live, "READ_AT_ONCE", 1)
        row = await room.row()
        for _ in range(3):
            await room.post()
        with lost_connections_unheeded():
            for cycles in range(40):
                socket = Socket(hub, row, ada)
                listening = asyncio.create_task(socket.messages(4))
                for _ in range(cycles):
                    await asyncio.sleep(0)
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                socket.__exit__()
        assert not hub._rooms
        pools: list[Any] = [engine.pool for engine in hub._database.engines]
        await until(lambda: not any(pool.checkedout() for pool in pools))


class TestWhoMayListen:
    async def test_a_token_that_is_renewed_while_the_hub_looks(
        self, idle: None, hub: Hub, room: Room, app: FastAPI, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may be one that was not asked about: it is next time."""
        user = await factory.user("Cy")
        before, _ = await find_listener(app.state, factory.login(user)["Authorization"].removeprefix("Bearer "))
        headers = await factory.another_login(user)
        after, _ = await find_listener(app.state, headers["Authorization"].removeprefix("Bearer "))
        living = RoomRepository.living
        with Socket(hub, await room.row(), before) as socket:

            async def living_and_then(self: RoomRepository, *ids: Any) -> Any:
                found = await living(self, *ids)
                socket.subscriber.caller = after
                return found

            with monkeypatch.context() as patch:
                patch.setattr(RoomRepository, "living", living_and_then)
                await hub._end_revoked([socket.subscriber])
            assert not socket.subscriber.ending.done()
            assert socket.subscriber.caller is after
            await hub._end_revoked([socket.subscriber])
            assert not socket.subscriber.ending.done()
            socket.subscriber.expires_at = 0
            await hub._end_revoked([socket.subscriber])
            assert socket.subscriber.ending.result() is InvalidToken


class TestPresence:
    async def test_somebody_who_leaves_before_anybody_heard_of_them(
        self,
        idle: None,
        hub: Hub,
        room: Room,
        app: FastAPI,
        factory: Factory,
        ada: Caller,
        bob: Caller,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """But one who was greeted with them: who is told that they left."""
        row = await room.row()
        with Socket(hub, row, ada) as first:
            await until(lambda: first.subscriber.room.end == 1)
            monkeypatch.setattr(live, "PRESENCE_PAUSE", 0.05)
            cy = await logged_in(app, factory, "Cy")
            brief = Socket(hub, row, bob)
            with Socket(hub, row, cy) as late:
                assert (await late.next("presence"))["count"] == 3
                brief.__exit__()
                told = await late.next("presence")
            assert [person["name"] for person in told["joined"]] == ["Cy"]
            assert [person["name"] for person in told["left"]] == ["Bob"]
            assert told["count"] == 2

    @on("sqlite")
    async def test_many_are_told_of_in_several_frames(
        self,
        idle: None,
        hub: Hub,
        room: Room,
        app: FastAPI,
        factory: Factory,
        ada: Caller,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """So that none is longer than a client takes."""
        monkeypatch.setattr(live, "SHOWN_PRESENT", 2)
        with Socket(hub, await room.row(), ada) as socket:
            room_of_hub = socket.subscriber.room
            await until(lambda: room_of_hub.end == 1)
            await socket.next("presence")
            room_of_hub.notice(crowd := {number: str(number) for number in range(1000, 1005)})
            frames = [await socket.next("presence") for _ in range(3)]
            assert [len(frame["joined"]) for frame in frames] == [2, 2, 1]
            assert {person["id"] for frame in frames for person in frame["joined"]} == crowd.keys()
            room_of_hub.notice({})
            assert [len((await socket.next("presence"))["left"]) for _ in range(3)] == [2, 2, 1]

    @on("postgresql", "mariadb")
    async def test_a_process_that_others_have_forgotten(
        self, idle: None, hub: Hub, room: Room, ada: Caller, database: Database
    ) -> None:
        """As after a halt: it says once more who is there."""
        with Socket(hub, await room.row(), ada):
            await hub._exchange_presence(says=True)
            assert hub._noted == {(room.id, ada.user.id)}
            async with database.write.begin() as session:
                await session.execute(delete(RoomPresence))
            await hub._exchange_presence(says=True)
            await hub._exchange_presence(says=False)
            assert await present(database) == [(room.id, ada.user.id)]
        await hub._exchange_presence(says=False)
        assert await present(database) == []

    @on("postgresql", "mariadb")
    async def test_what_could_not_be_stored_is_stored_later(
        self, idle: None, hub: Hub, room: Room, ada: Caller, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = PresenceRepository.note

        async def note_and_fail(self: PresenceRepository, *people: Any) -> None:
            await note(self, *people)
            raise OperationalError("", {}, Exception())

        with Socket(hub, await room.row(), ada):
            with monkeypatch.context() as patch:
                patch.setattr(PresenceRepository, "note", note_and_fail)
                with pytest.raises(OperationalError):
                    await hub._exchange_presence(says=False)
            assert await present(database) == []
            await hub._exchange_presence(says=False)
            assert await present(database) == [(room.id, ada.user.id)]
        await hub._exchange_presence(says=False)

    @on("postgresql", "mariadb")
    async def test_who_was_there_by_way_of_a_process_that_died(
        self, idle: None, hub: Hub, settings: Settings, room: Room, ada: Caller, bob: Caller, database: Database
    ) -> None:
        dead, row = Hub(database, settings), await room.row()
        with Socket(dead, row, bob), Socket(hub, row, ada) as socket:
            await dead._exchange_presence(says=True)
            await hub._exchange_presence(says=True)
            assert set(socket.subscriber.room.here().values()) == {"Ada", "Bob"}
            async with database.write.begin() as session:
                past = update(RoomPresence).where(RoomPresence.user_id == bob.user.id)
                await session.execute(past.values(expires_at=now() - timedelta(seconds=1)))
            await hub._exchange_presence(says=True)
            assert set(socket.subscriber.room.here().values()) == {"Ada"}
            assert await present(database) == [(room.id, ada.user.id)]
        await hub._exchange_presence(says=False)


async def present(database: Database) -> list[tuple[int, int]]:
    async with database.fresh() as session:
        rows = await session.execute(select(RoomPresence.room_id, RoomPresence.user_id))  # type: ignore[call-overload]
        return [tuple(row) for row in rows]


class TestStopping:
    async def test_nothing_goes_on(
        self, database: Database, settings: Settings, room: Room, ada: Caller, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And others know at once that nobody is here any more."""
        caplog.set_level(logging.INFO)
        before = asyncio.all_tasks()
        hub = Hub(database, settings)
        socket = Socket(hub, await room.row(), ada)
        await socket.next("presence")
        if database.is_shared:
            await hub._exchange_presence(says=True)
        tasks = list(hub._tasks)
        assert tasks
        socket.__exit__()
        await hub.aclose()
        await hub.aclose()
        assert all(task.done() for task in tasks)
        await until(lambda: asyncio.all_tasks() <= before)
        assert await present(database) == []
        assert [record for record in caplog.records if record.name == "blog.live"] == []

    async def test_a_hub_that_nobody_needed(
        self, database: Database, settings: Settings, statements: list[str]
    ) -> None:
        await Hub(database, settings).aclose()
        assert statements == []

    async def test_a_task_whose_first_cancellation_is_lost(self) -> None:
        """As it is where a driver takes it for a connection that failed."""

        async def goes_on() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

        task = asyncio.create_task(goes_on())
        await asyncio.sleep(0)
        async with asyncio.timeout(HANG):
            (outcome,) = await cancelled([task])
        assert isinstance(outcome, asyncio.CancelledError)
