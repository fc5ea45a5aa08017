"""Guests in a room, by the stock client library: each writes down what it was told.

They are coroutines of the test's own process: what they take of the machine they take from the platform, so a figure
seen here is rather too long than too short.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from blog.repository import AnyRow
from tests.conftest import HANG
from tests.endurance.load import client_of
from tests.endurance.servers import connected

PAUSE = 0.1

KEPT = 64
"""Characters of a message that its hearers keep: the writers' own names for them are in these."""

messages = SQLModel.metadata.tables["message"]


def opened_room(address: str, login: dict[str, str]) -> int:
    with client_of(address) as client:
        answer = client.post("/room/", json={"name": "Looms"}, headers=login)
        assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def live(address: str, room: int, login: dict[str, str], *, after: int = 0, **options: Any) -> connect:
    """A socket in the room. The platform asks whether we are there, so that we need not ask too."""
    url = f"{address.replace('http', 'ws', 1)}/room/{room}/live?after={after}"
    return connect(url, additional_headers=login, proxy=None, compression=None, ping_interval=None, **options)


class Guest:
    """Who listens by one of these addresses, and by any of them from the last message on when the socket is cut."""

    def __init__(
        self, addresses: Sequence[str], room: int, login: dict[str, str], *, longest_away: float = PAUSE
    ) -> None:
        self._longest_away = longest_away
        self._addresses = addresses
        self._room = room
        self._login = login
        self.connection: ClientConnection | None = None
        self.is_here = asyncio.Event()
        self.heard: list[str] = []
        """How each message begins: that of number n at n - 1."""
        self.heard_at: list[float] = []
        self.out_of_order: list[str] = []
        self.ends: Counter[str] = Counter()
        """How often a socket ended, and how."""

    async def stay(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                address = random.choice(self._addresses)
                async with live(address, self._room, self._login, after=len(self.heard)) as connection:
                    self.connection = connection
                    await self._arrive()
                    async for text in connection:
                        await self.hear(json.loads(text))
                end = str(connection.close_code)
            except InvalidStatus as error:
                end = f"HTTP {error.response.status_code}"
            except (OSError, EOFError, WebSocketException) as error:
                end = type(error).__name__
            self.connection = None
            self.is_here.clear()
            self.ends[end] += 1
            await asyncio.sleep(random.uniform(0, self._longest_away))

    async def _arrive(self) -> None:
        """What to do first."""

    async def hear(self, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "message":
                if frame["number"] != len(self.heard) + 1:
                    self.out_of_order.append(f"{frame['number']} after {len(self.heard)}")
                self.heard.append(frame["body"][:KEPT])
                self.heard_at.append(time.monotonic())
            case "presence" if "here" in frame:
                self.is_here.set()


class Writer(Guest):
    """A guest who says so many things as well, each under a name of its own, and again when nobody acknowledged it."""

    def __init__(
        self, addresses: Sequence[str], room: int, login: dict[str, str], name: str, *, goal: int, at_once: int
    ) -> None:
        super().__init__(addresses, room, login)
        self._name = name
        self._at_once = at_once
        self._waits: dict[str, None] = {}
        self.goal = goal
        self.sent = 0
        self.said_again = 0
        self.acknowledged: dict[str, int] = {}
        self.refused: Counter[str] = Counter()
        self.renumbered: list[str] = []

    @property
    def is_done(self) -> bool:
        """Whether all was sent and acknowledged."""
        return self.sent >= self.goal and not self._waits

    async def _arrive(self) -> None:
        for ref in list(self._waits):
            self.said_again += 1
            await self._say(ref)
        await self._go_on()

    async def hear(self, frame: dict[str, Any]) -> None:
        await super().hear(frame)
        if frame["type"] == "posted":
            ref, number = frame["ref"], frame["number"]
            if self.acknowledged.setdefault(ref, number) != number:
                self.renumbered.append(f"{ref}: {self.acknowledged[ref]} and {number}")
            self._waits.pop(ref, None)
            await self._go_on()
        elif frame["type"] == "error":
            self.refused[frame["code"]] += 1
            await self._say(frame["ref"])

    async def _go_on(self) -> None:
        while len(self._waits) < self._at_once and self.sent < self.goal:
            self.sent += 1
            ref = f"{self._name}-{self.sent}"
            self._waits[ref] = None
            await self._say(ref)

    async def _say(self, ref: str) -> None:
        assert self.connection is not None
        await self.connection.send(json.dumps({"type": "message", "body": ref, "ref": ref}))


async def until(count: Callable[[], int], number: int) -> None:
    """Wait until so many are counted. Raises TimeoutError when for minutes there was not one more."""
    seen, seen_at = count(), time.monotonic()
    while seen < number:
        await asyncio.sleep(0.01)
        if count() > seen:
            seen, seen_at = count(), time.monotonic()
        elif time.monotonic() - seen_at > HANG:
            raise TimeoutError


@asynccontextmanager
async def staying(guests: Sequence[Guest]) -> AsyncIterator[None]:
    """They are in the room until the end of the `with` block; what goes wrong with one goes wrong here."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for guest in guests:
            tasks.append(group.create_task(guest.stay()))
            await asyncio.sleep(0.005)
        yield
        for task in tasks:
            task.cancel()


def minutes_of(url: sa.URL, room: int) -> Sequence[AnyRow]:
    """Number, name and beginning of every message that is stored, in order."""
    columns = messages.c.number, messages.c.ref, sa.func.substr(messages.c.body, 1, KEPT).label("body")
    with connected(url) as connection:
        found = sa.select(*columns).where(messages.c.room_id == room).order_by(messages.c.number)
        return connection.execute(found).all()
