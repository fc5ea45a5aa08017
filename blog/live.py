"""The hub: who listens to which room in this process, and what wakes them.

The table of messages is the truth. Whatever wakes the hub, be it a message that was written here, PostgreSQL's NOTIFY
or a look at how far the rooms are, only lets it read on from where it stopped, once for all who listen. What it read
stands in the room's log, and each socket goes along it at its own pace: nobody has a queue that could grow, and one
that falls behind the log reads on from the table until it is back. A socket that takes nothing the server cuts off.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice, takewhile
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from blog.database import Database
from blog.errors import InvalidToken, Refusal, RoomClosed, RoomNotFound, TooManySockets
from blog.middleware import network_of
from blog.repository import AnyRow
from blog.repository.room import CHANNEL, PresenceRepository, RoomRepository
from blog.schemas.room import Participant, PresenceFrame, RemovedFrame, TypingHint, shown_message
from blog.schemas.types import NOBODY
from blog.security.access import SCOPES_OF, Caller, Scope
from blog.settings import Settings

KEPT, KEPT_LENGTH = 256, 500_000
"""Frames of a room's log that are kept, and characters in them: who is further behind reads on from the table."""

READ_AT_ONCE = 20
"""Messages that one statement reads: each socket that reads the table holds so many, of up to 100 kB."""

SHORTEST, LONGEST = 0.02, 0.25
"""Seconds between two looks at how far the rooms are, where nobody tells: the first after something new, and half as
many again after each look that found nothing."""

LONGEST_WHEN_TOLD = 1.0
"""The same where PostgreSQL tells, and may have been cut off without a word."""

AUDIT = 2.0
"""Seconds between two looks at whether those who listen still may; within twice as many a revoked token is over."""

RETRY = 0.5
"""Seconds after which a lost database is asked again."""

CANCELLED_AGAIN = 0.1
"""Seconds after which a task that was cancelled and goes on is cancelled once more."""

PRESENCE_PAUSE = 0.5
"""Seconds in which all who come and go are told of together."""

SHOWN_PRESENT = 100
"""People whom one frame names; to somebody who joins the rest are counted."""

STAY = 10.0
"""Seconds after which a process says again who is in its rooms, before others forget it after three times as many."""

KeyT = TypeVar("KeyT")

logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """What goes to all sockets of a room, as text; `number` or `removal` is there for what has one.

    `sender` is a user who need not be told.
    """

    text: str
    number: int | None = None
    removal: int | None = None
    sender: int | None = None


class Subscriber:
    """A socket in a room: whose it is, and how far it has read. `ending` is done when the hub ends it."""

    def __init__(self, room: "LiveRoom", caller: Caller, expires_at: float, after: int) -> None:
        self.room = room
        self.caller = caller
        self.expires_at = expires_at
        self.number = after
        self.removal = room.removals
        self.ending: asyncio.Future[type[Refusal]] = asyncio.get_running_loop().create_future()

    @property
    def user_id(self) -> int:
        """Whose it is."""
        return int(self.caller.user.id)

    def takes(self, frame: Frame) -> bool:
        """Whether it gets a frame of the log: none that it has read from the table already, and none of its own."""
        if frame.number is not None:
            if frame.number <= self.number:
                return False
            self.number = frame.number
        if frame.removal is not None:
            if frame.removal <= self.removal:
                return False
            self.removal = frame.removal
        return frame.sender != self.user_id

    def end(self, refusal: type[Refusal]) -> None:
        """Let it be closed, for this reason."""
        if not self.ending.done():
            self.ending.set_result(refusal)


class LiveRoom:
    """A room to which somebody listens in this process: its log, and who is there."""

    def __init__(self, row: AnyRow) -> None:
        self.id: int = row.id
        self.of_blog = row.blog_id is not None
        self.number: int = row.last_number
        self.removals: int = row.removals
        self.subscribers: set[Subscriber] = set()
        self.end = 0
        self._log: deque[Frame] = deque()
        self._length = 0
        self._news = asyncio.Event()
        self._elsewhere: dict[int, str] = {}
        self._announced: dict[int, str] = {}
        self._greeted_with: dict[int, str] = {}
        self._announcing: asyncio.TimerHandle | None = None

    def put(self, frames: Iterable[Frame]) -> None:
        """Write at the end of the log, and wake whoever goes along it."""
        for frame in frames:
            self._log.append(frame)
            self._length += len(frame.text)
            self.end += 1
            self.number = frame.number or self.number
            self.removals = frame.removal or self.removals
        while len(self._log) > KEPT or (self._length > KEPT_LENGTH and len(self._log) > 1):
            self._length -= len(self._log.popleft().text)
        self._news.set()
        self._news = asyncio.Event()

    def knows(self, row: AnyRow) -> bool:
        """Whether the message of this row was in the log."""
        return bool(row.number <= self.number)

    def since(self, place: int) -> list[Frame] | None:
        """What stands in the log from this place on, or None when that is not kept any more."""
        behind = self.end - place
        if behind > len(self._log):
            return None
        return [self._log[index] for index in range(len(self._log) - behind, len(self._log))]

    async def news(self) -> None:
        """Wait until more stands in the log."""
        await self._news.wait()

    def here(self) -> dict[int, str]:
        """Names of who is here, by user, in this process and in others."""
        return self._elsewhere | {
            subscriber.user_id: str(subscriber.caller.user.name) for subscriber in self.subscribers
        }

    def greeting(self) -> Frame:
        """Who is here, for somebody who has seen nobody come."""
        here = self.here()
        self._greeted_with |= here
        return framed(PresenceFrame(count=len(here), here=_participants(here, at_most=SHOWN_PRESENT)))

    def notice(self, elsewhere: dict[int, str] | None = None) -> None:
        """Tell all, in a moment, who came and who left."""
        if elsewhere is not None:
            self._elsewhere = elsewhere
        if self._announcing is None:
            self._announcing = asyncio.get_running_loop().call_later(PRESENCE_PAUSE, self._announce)

    def _announce(self) -> None:
        self._announcing = None
        here = self.here()
        joined = _participants(here, self._announced)
        # Somebody may have been greeted with who came and left since, of whom nobody else has heard.
        left = _participants(self._announced | self._greeted_with, here)
        self._announced, self._greeted_with = here, {}
        while self.subscribers and (joined or left):
            told = PresenceFrame(count=len(here), joined=joined[:SHOWN_PRESENT], left=left[:SHOWN_PRESENT])
            self.put([framed(told)])
            joined, left = joined[SHOWN_PRESENT:], left[SHOWN_PRESENT:]


class Hub:
    """The rooms of this process to which somebody listens, and the tasks that keep them going while there are any."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._room_limit = settings.room_socket_limit
        self._user_limit = settings.user_socket_limit
        self._address_limit = settings.address_socket_limit
        self._process = uuid4().hex
        self._rooms: dict[int, LiveRoom] = {}
        self._of_user: Counter[int] = Counter()
        self._of_address: Counter[str] = Counter()
        self._woken = asyncio.Event()
        self._wanted: set[int] = set()
        self._is_told = False
        self._noted: set[tuple[int, int]] | None = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def aclose(self) -> None:
        """Stop, and let other processes know that nobody is here any more."""
        await cancelled(self._tasks)
        self._tasks.clear()
        if self._noted != set():
            with suppress(SQLAlchemyError, OSError):
                async with self._database.write.begin() as session:
                    await PresenceRepository(session, self._process).leave()

    @contextmanager
    def connected(self, address: str) -> Iterator[None]:
        """Count a socket from this address, logged in or not. Raises TooManySockets."""
        with _counted(self._of_address, network_of(address), self._address_limit):
            yield

    @contextmanager
    def subscribed(self, row: AnyRow, caller: Caller, expires_at: float, *, after: int) -> Iterator[Subscriber]:
        """A socket in the room of this row, which has seen the messages up to `after`. Raises TooManySockets."""
        room = self._rooms.get(row.id)
        if room is not None and len(room.subscribers) >= self._room_limit:
            raise TooManySockets
        with _counted(self._of_user, caller.user.id, self._user_limit):
            if room is None:
                room = self._rooms[row.id] = LiveRoom(row)
            subscriber = Subscriber(room, caller, expires_at, min(after, row.last_number))
            room.subscribers.add(subscriber)
            room.notice()
            self._want(room.id)
            self._start()
            try:
                yield subscriber
            finally:
                room.subscribers.discard(subscriber)
                room.notice()
                if not room.subscribers:
                    del self._rooms[room.id]

    async def frames(self, subscriber: Subscriber) -> AsyncIterator[Frame]:
        """What came after what the socket has seen, and then what comes, in order and each once, without an end.

        Between the two the log's end is taken as the place to go on from, at a moment at which nothing is in the log
        that was not read from the table.
        """
        room = subscriber.room
        while True:
            async for frame in self._missed(subscriber):
                yield frame
            place = room.end
            yield room.greeting()  # again to who fell behind the log, where who came and left is told
            while (frames := room.since(place)) is not None:
                place += len(frames)
                for frame in frames:
                    if subscriber.takes(frame):
                        yield frame
                if place == room.end:
                    await room.news()

    def say_typing(self, subscriber: Subscriber) -> None:
        """Tell the others in this process that somebody is about to say something."""
        user = Participant(id=subscriber.user_id, name=subscriber.caller.user.name)
        subscriber.room.put([framed(TypingHint(user=user))._replace(sender=subscriber.user_id)])

    async def wake(self, room_id: int) -> None:
        """Something was committed in this room. A coroutine: behind an answer anything else runs in a thread."""
        self._want(room_id)

    def _want(self, room_id: int) -> None:
        if room_id in self._rooms:
            self._wanted.add(room_id)
            self._woken.set()

    async def _missed(self, subscriber: Subscriber) -> AsyncIterator[Frame]:
        room = subscriber.room
        while True:
            known = room.number  # before the statement: a message may be committed and logged before its answer is here
            async with self._database.fresh() as session:
                rows = await RoomRepository(session).messages_after(room.id, subscriber.number, READ_AT_ONCE)
            for row in rows:
                subscriber.number = row.number
                yield _message(row)
            if not rows and subscriber.number < known:
                raise RoomNotFound  # its messages went with it, and the hub has not seen that yet
            if len(rows) == READ_AT_ONCE or subscriber.number < room.number:
                continue
            if subscriber.removal >= room.removals:
                return
            async with self._database.fresh() as session:
                removed = await RoomRepository(session).removed_after(room.id, subscriber.removal, READ_AT_ONCE)
            for row in removed:
                subscriber.removal = row.removal
                if row.number <= subscriber.number:  # else it is read without its text
                    yield _removed(row)

    def _start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._read_on()), asyncio.create_task(self._audit())]
            if self._database.notifies:
                self._tasks.append(asyncio.create_task(self._listen()))

    async def _read_on(self) -> None:
        """Read what is new: in the rooms that were named and, in between, wherever there turns out to be something."""
        pause, looked_at = SHORTEST, -LONGEST_WHEN_TOLD
        while True:
            ids = await self._named(pause)
            longest = LONGEST_WHEN_TOLD if self._is_told else LONGEST
            # What is told without an end must not keep it from what nobody tells.
            if not ids or time.monotonic() - looked_at >= longest:
                ids, looked_at = set(self._rooms), time.monotonic()
            try:
                changed = await self._read(ids)
            except Exception as error:
                _report(error, "rooms are not read")
                await asyncio.sleep(RETRY)
                changed = True  # for all that was named
            pause = SHORTEST if changed and not self._is_told else min(pause * 1.5, longest)

    async def _named(self, pause: float) -> set[int]:
        """The rooms in which something was committed, as soon as there are any, or none after `pause` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause if self._rooms else None):
                await self._woken.wait()
        self._woken.clear()
        named, self._wanted = self._wanted, set()
        return named & self._rooms.keys()

    async def _read(self, ids: Collection[int]) -> bool:
        """Read on in these rooms; whether there was something new."""
        changed = False
        async with self._database.fresh() as session:
            source = RoomRepository(session)
            heads = await source.heads(ids)
            for room in [self._rooms[number] for number in ids if number in self._rooms]:
                head = heads.get(room.id)
                if head is None:
                    _end(room.subscribers, RoomNotFound)
                    continue
                while room.number < head.last_number:
                    rows = await source.messages_after(room.id, room.number, READ_AT_ONCE)
                    if not rows:  # it was deleted just now
                        break
                    room.put(map(_message, rows))
                    changed = True
                while room.removals < head.removals:
                    rows = await source.removed_after(room.id, room.removals, READ_AT_ONCE)
                    known = list(takewhile(room.knows, rows))
                    if not known:  # it is of a message that was written since, which comes first
                        break
                    room.put(map(_removed, known))
                    changed = True
                if head.closed_at is not None:
                    _end(room.subscribers, RoomClosed)
        return changed

    async def _listen(self) -> None:
        """Hear what PostgreSQL tells, for as long as it does; meanwhile the rooms are looked at less often."""
        while True:
            try:
                async with self._database.listening(CHANNEL, self._hear) as ask:
                    self._is_told = True
                    self._woken.set()  # to look at all that was not heard of before
                    while True:
                        await asyncio.sleep(AUDIT)
                        await ask()
            except Exception as error:
                _report(error, "notifications are not heard")
            finally:
                self._is_told = False
            await asyncio.sleep(RETRY)

    def _hear(self, told: str) -> None:
        if told.isdecimal():
            self._want(int(told))

    async def _audit(self) -> None:
        """See, again and again, whether all who listen still may, and who is here by way of other processes."""
        said_at = -STAY
        while True:
            await asyncio.sleep(AUDIT)
            try:
                await self._end_revoked([s for room in self._rooms.values() for s in room.subscribers])
                await self._end_hidden([room.id for room in self._rooms.values() if room.of_blog])
                if self._database.is_shared:
                    says = time.monotonic() - said_at >= STAY
                    await self._exchange_presence(says=says)
                    said_at = time.monotonic() if says else said_at
            except Exception as error:
                _report(error, "listeners are not looked at")

    async def _end_revoked(self, subscribers: Sequence[Subscriber]) -> None:
        callers = [subscriber.caller for subscriber in subscribers]
        by_login = {caller.login_id for caller in callers if caller.login_id is not None}
        by_token = {caller.token_id for caller in callers if caller.token_id is not None}
        async with self._database.fresh() as session:
            logins, tokens = await RoomRepository(session).living(by_login, by_token)
        for subscriber, caller in zip(subscribers, callers, strict=True):
            if subscriber.caller is not caller:
                continue  # it came with another token meanwhile, which was good a moment ago
            role = logins.get(caller.login_id or NOBODY) or tokens.get(caller.token_id or NOBODY)
            if role is None or subscriber.expires_at <= time.time():
                subscriber.end(InvalidToken)
            else:
                scopes = caller.scopes & SCOPES_OF[role]
                subscriber.caller = caller._replace(scopes=scopes)
                if Scope.ROOM_READ not in scopes:
                    subscriber.end(InvalidToken)

    async def _end_hidden(self, ids: Collection[int]) -> None:
        if not ids:
            return
        async with self._database.fresh() as session:
            hidden = await RoomRepository(session).hidden(ids)
        for number, creator in hidden.items():
            if number in self._rooms:
                _end((s for s in self._rooms[number].subscribers if s.user_id != creator), RoomNotFound)

    async def _exchange_presence(self, *, says: bool) -> None:
        here = {(room.id, s.user_id) for room in self._rooms.values() for s in room.subscribers}
        if self._noted != here or (says and here):
            noted, self._noted = self._noted, None  # until it is known that what follows was stored
            async with self._database.write.begin() as session:
                presences = PresenceRepository(session, self._process)
                if noted is None:
                    await presences.leave()
                    noted = set()
                await presences.note(here - noted, noted - here)
                # Others forget who said nothing for too long, such as a process that was halted.
                is_noted = not says or await presences.stay() == len(here)
            self._noted = here if is_noted else None
        if self._rooms:
            async with self._database.fresh() as session:
                presences = PresenceRepository(session, self._process)
                elsewhere = await presences.elsewhere(self._rooms.keys())
            for room in self._rooms.values():
                room.notice(elsewhere.get(room.id, {}))


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> list[Any]:
    """Cancel tasks until they are done; their results or exceptions.

    Once is not enough: asyncmy takes it for a failed connection when it comes while one is opened.
    """
    pending = list(tasks)
    while pending := [task for task in pending if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCELLED_AGAIN)
    return await asyncio.gather(*tasks, return_exceptions=True)


def framed(model: BaseModel) -> Frame:
    """What a socket gets to say this."""
    return Frame(model.model_dump_json())


def _message(row: AnyRow) -> Frame:
    return framed(shown_message(row))._replace(number=row.number)


def _removed(row: AnyRow) -> Frame:
    return framed(RemovedFrame(number=row.number, deleted_at=row.deleted_at))._replace(removal=row.removal)


def _participants(
    people: dict[int, str], but: Collection[int] = (), *, at_most: int | None = None
) -> list[Participant]:
    shown = islice((person for person in people.items() if person[0] not in but), at_most)
    return [Participant(id=number, name=name) for number, name in shown]


def _end(subscribers: Iterable[Subscriber], refusal: type[Refusal]) -> None:
    for subscriber in list(subscribers):
        subscriber.end(refusal)


@contextmanager
def _counted(counter: Counter[KeyT], key: KeyT, limit: int) -> Iterator[None]:
    if counter[key] >= limit:
        raise TooManySockets
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def _report(error: Exception, what: str) -> None:
    """Say that something goes on later: in a line when the database is away, with all of it when the fault is ours."""
    known = isinstance(error, SQLAlchemyError | OSError)
    logger.warning("%s just now: %s", what, type(error).__name__, exc_info=None if known else error)
