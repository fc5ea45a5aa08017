"""Many WebSockets in one room, in a process of their own.

They do as little as can be with what comes, so that not they are measured: frames are counted where they lie.
"""

import asyncio
import gc
import json
import random
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import uvloop

from tests.benchmarks.load import Sample

SPEAKERS, AHEAD = 8, 2
"""Sockets that post as fast as they are acknowledged, and how many messages each is ahead of that."""

POSTS_A_SECOND = 20
"""Messages, at random moments, while it is measured how long each takes."""

BODY = "It weaves algebraical patterns just as the loom weaves flowers and leaves."
MESSAGE, POSTED, PRESENCE, BEFORE_BODY = b'{"type":"message"', b'{"type":"posted"', b'{"type":"presence"', b'"body":"'
TEXT, PING, PONG = 1, 9, 10
OPENED_AT_ONCE = 20
START = 1.0
"""Seconds that are not measured, in which all comes into motion."""

LATE = 5.0
"""Seconds that the last messages are waited for."""


class Errand(NamedTuple):
    """What a crowd is to do: `listen` and `speak` are where; without `paced` it posts as fast as it can."""

    listen: str
    speak: str
    token: str
    sockets: int
    seconds: int
    paced: bool


class Crowd:
    """What all sockets have in common."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.delivered = 0
        self.failed = 0
        self.delays: list[int] = []
        """Nanoseconds."""
        self.posts = errand.seconds * POSTS_A_SECOND
        self.has_all = asyncio.Event()


class Listener(asyncio.Protocol):
    """One socket. What comes to it does not count where it is not one of those that listen."""

    def __init__(self, crowd: Crowd, url: str) -> None:
        self._crowd = crowd
        self._url = url
        self._counts = url == crowd.errand.listen
        self._rest = b""
        self._is_open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        parts = urlsplit(self._url)
        lines = [
            f"GET {parts.path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {b64encode(random.randbytes(16)).decode()}",
            f"Authorization: Bearer {self._crowd.errand.token}",
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.failed += 1
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"{self._url} was refused"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        if not self._is_open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.transport.abort()
                return
            self._is_open = True
            self.opened.set_result(None)
        place = 0
        while len(data) - place >= 2:
            length, start = data[place + 1], place + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2]), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8]), start + 8
            if len(data) < start + length:
                break
            self._take(data[place] & 15, data, start, start + length)
            place = start + length
        self._rest = data[place:]

    def _take(self, kind: int, data: bytes, start: int, end: int) -> None:
        if data.startswith(MESSAGE, start):
            if not self._counts:
                return
            self._crowd.delivered += 1
            if self._crowd.errand.paced:
                body = data.index(BEFORE_BODY, start) + len(BEFORE_BODY)
                self._crowd.delays.append(time.perf_counter_ns() - int(data[body : data.index(b" ", body)]))
                if self._crowd.delivered == self._crowd.posts * self._crowd.errand.sockets:
                    self._crowd.has_all.set()
        elif kind == PING:
            self.send(PONG, data[start:end])
        elif kind == TEXT and not data.startswith(PRESENCE, start):
            self.answered(data[start:end])

    def answered(self, text: bytes) -> None:
        self._crowd.failed += 1

    def send(self, kind: int, payload: bytes) -> None:
        """Masked with zeros, which is what it was before."""
        length = len(payload)
        size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2)
        self.transport.write(bytes([0x80 | kind]) + size + bytes(4) + payload)


ListenerT = TypeVar("ListenerT", bound=Listener)


class Speaker(Listener):
    """A socket that posts."""

    def post(self) -> None:
        body = f"{time.perf_counter_ns()} {BODY}"
        self.send(TEXT, json.dumps({"type": "message", "body": body}).encode())

    def answered(self, text: bytes) -> None:
        if not text.startswith(POSTED):
            self._crowd.failed += 1
            return
        if not self._crowd.errand.paced:
            self.post()


async def opened(crowd: Crowd, kind: type[ListenerT], url: str, count: int) -> list[ListenerT]:
    """So many sockets, not all of them knocking at once."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    listeners: list[ListenerT] = []
    while len(listeners) < count:
        new = []
        for _ in range(min(OPENED_AT_ONCE, count - len(listeners))):
            made = await loop.create_connection(partial(kind, crowd, url), str(parts.hostname), parts.port or 80)
            new.append(made[1])
        await asyncio.gather(*(listener.opened for listener in new))
        listeners += new
    return listeners


async def run(errand: Errand) -> Sample:
    crowd = Crowd(errand)
    apart = errand.listen != errand.speak
    speaking = 1 if errand.paced else SPEAKERS
    listeners = await opened(crowd, Listener, errand.listen, errand.sockets - (0 if apart else speaking))
    speakers = await opened(crowd, Speaker, errand.speak, speaking)
    sample = await (pace(crowd, speakers) if errand.paced else race(crowd, speakers))
    for listener in (*listeners, *speakers):
        listener.transport.abort()
    return sample


async def race(crowd: Crowd, speakers: Sequence[Speaker]) -> Sample:
    for speaker in speakers:
        for _ in range(AHEAD):
            speaker.post()
    await asyncio.sleep(START)
    delivered, began = crowd.delivered, time.perf_counter()
    await asyncio.sleep(crowd.errand.seconds)
    rate = (crowd.delivered - delivered) / (time.perf_counter() - began)
    return Sample(rate, 0, 0, 0, crowd.failed)


async def pace(crowd: Crowd, speakers: Sequence[Speaker]) -> Sample:
    (speaker,) = speakers
    await asyncio.sleep(START)
    for _ in range(crowd.posts):
        await asyncio.sleep(random.expovariate(POSTS_A_SECOND))
        speaker.post()
    with suppress(TimeoutError):
        async with asyncio.timeout(LATE):
            await crowd.has_all.wait()
    missing = crowd.posts * crowd.errand.sockets - crowd.delivered
    delays = sorted(crowd.delays)
    p50, p95, p99 = (delays[int(len(delays) * part)] / 1e6 for part in (0.5, 0.95, 0.99))
    return Sample(0, p50, p95, p99, crowd.failed + missing)


if __name__ == "__main__":
    gc.disable()  # else its pauses were seen as the platform's
    print(json.dumps(uvloop.run(run(Errand(**json.loads(sys.argv[1]))))._asdict()))
