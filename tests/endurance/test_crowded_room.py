"""Many sockets in one room: one never reads, one sends all that it can."""

import asyncio
import json
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.conftest import HANG
from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import registered
from tests.endurance.rooms import Guest, Writer, live, opened_room, staying, until
from tests.endurance.servers import Platform, memory_of, open_connections, open_files, wait_for

USERS = 10
WARM = 20
"""Who was there before memory and files are first counted, so that what the first ones cost is not the crowd's."""

DELIVERED = 1
DROPPED = 30
GROWTH = 30
CLOSED = 10
TOO_MUCH = 1008
FLOODED_WITH = 150
"""Messages before pings follow, of which even a slow machine takes more a second than anybody may send."""

LONG = "🧵" * 4_000
"""As many bytes as a message may have, 32 kB with what it looks like on a page: the systems at both ends take some
three megabytes for somebody who never reads, and say nothing until they are full."""

LONG_ONES = 160
PAUSE = 0.08


class Speaker(Writer):
    """A writer of long messages, one at a time, who knows when each was sent."""

    def __init__(self, address: str, room: int, login: dict[str, str]) -> None:
        super().__init__([address], room, login, "long", goal=LONG_ONES, at_once=1)
        self.said_at: dict[str, float] = {}

    async def _say(self, ref: str) -> None:
        await asyncio.sleep(PAUSE)
        assert self.connection is not None
        self.said_at[ref] = time.monotonic()
        await self.connection.send(json.dumps({"type": "message", "body": f"{ref} {LONG}"[: len(LONG)], "ref": ref}))


def narrow_socket(port: int) -> socket.socket:
    """A connection whose own end takes little for somebody who does not read it; how much it does is the system's."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    narrow.connect(("127.0.0.1", port))
    narrow.setblocking(False)
    return narrow


async def flood(connection: ClientConnection) -> int:
    """Send as much as one can until the socket ends: how many frames that was."""
    sent, begun = 0, time.monotonic()

    async def read() -> None:
        async for _ in connection:
            pass

    reading = asyncio.create_task(read())
    with suppress(ConnectionClosed):
        while True:
            assert time.monotonic() - begun < HANG, "it is never closed"
            frame = {"type": "message", "body": "Flood"} if sent < FLOODED_WITH else {"type": "ping"}
            await connection.send(json.dumps(frame))
            sent += 1
            await asyncio.sleep(0)
    with suppress(ConnectionClosed):
        await reading
    return sent


async def test_nobody_suffers_from_who_never_reads_or_sends_too_much(
    url: sa.URL, tmp_path: Path, figures: Figures
) -> None:
    with Platform(tmp_path, url) as platform:
        address = platform.address
        logins = [
            await asyncio.to_thread(registered, address, email=f"ada{number}@example.com") for number in range(USERS)
        ]
        room = await asyncio.to_thread(opened_room, address, logins[0])

        def files() -> int:
            """Open ones, but for connections to the database, of which the pools keep some more or fewer."""
            return open_files(platform.pid) - (open_connections(url.port) if url.port else 0)

        async def all_have_left() -> None:
            await asyncio.to_thread(wait_for, lambda: not open_connections(platform.port), "nobody is here")

        first = [Writer([address], room, login, "first", goal=5, at_once=1) for login in logins * (WARM // USERS)]
        async with staying(first):
            await until(lambda: sum(writer.is_done for writer in first), WARM)
        await all_have_left()
        memory, peak, files_before = memory_of(platform.pid), 0, files()

        async def weigh() -> None:
            nonlocal peak
            while True:
                peak = max(peak, memory_of(platform.pid))
                await asyncio.sleep(0.2)

        weighing = asyncio.create_task(weigh())
        speaker = Speaker(address, room, logins[0])
        guests = [Guest([address], room, logins[number % USERS]) for number in range(NUMBERS.sockets - 3)]
        late = Guest([address], room, logins[1])
        async with staying(guests):
            await until(lambda: sum(guest.is_here.is_set() for guest in guests), len(guests))
            for guest in guests:
                guest.ends.clear()  # of those for whom there was no room at the door just then
            async with (
                live(address, room, logins[1], sock=narrow_socket(platform.port)) as deaf,
                live(address, room, logins[2]) as flooder,
            ):
                begun = time.monotonic()
                async with staying([speaker]):
                    await until(speaker.is_here.is_set, 1)
                    sockets = open_connections(platform.port)
                    sent = await flood(flooder)
                    flooded = time.monotonic() - begun
                    await until(lambda: -open_connections(platform.port), 2 - NUMBERS.sockets)
                    dropped = time.monotonic() - begun
                    await until(lambda: len(speaker.acknowledged), LONG_ONES)
                    total = max(speaker.acknowledged.values())
                    crowd = [speaker, *guests]
                    await until(lambda: min(len(guest.heard) for guest in crowd), total)
                    # What had come before it was dropped; then it is back.
                    with suppress(ConnectionClosed):
                        async for text in deaf:
                            await late.hear(json.loads(text))
            read = len(late.heard)
            async with staying([late]):
                await until(lambda: len(late.heard), total)
        weighing.cancel()
        await all_have_left()
        with suppress(AssertionError):
            await asyncio.to_thread(wait_for, lambda: files() == files_before, "files are closed")
        files_after = files()
        faults = platform.log.count("Traceback")

    heard_at = list(zip(*(guest.heard_at[:total] for guest in crowd), strict=True))
    said_at = {speaker.acknowledged[ref]: at for ref, at in speaker.said_at.items()}
    delays = [max(heard_at[number - 1]) - at for number, at in said_at.items()]
    spreads = [max(each) - min(each) for each in heard_at[len(first) * 5 :]]
    figures.equal("sockets at the most", NUMBERS.sockets, sockets)
    figures.at_most("a long message to everybody else", DELIVERED, max(delays))
    figures.seen("the same, in the middle", f"{sorted(delays)[len(delays) // 2]:.3g} s")
    figures.at_most("any message, from the first who gets it to the last", DELIVERED, max(spreads))
    figures.equal("heard out of order", [], [one for guest in crowd for one in guest.out_of_order][:5])
    figures.equal("how sockets of others ended", {}, dict(sum((guest.ends for guest in crowd), Counter())))
    figures.at_most("who never reads is dropped", DROPPED, dropped)
    figures.at_least("messages that it missed, and got when it came back", 1, total - read)
    figures.equal("heard out of order by who came back", [], late.out_of_order)
    figures.equal("who floods is closed with", TOO_MUCH, flooder.close_code)
    figures.seen(
        "having said", f"{total - len(first) * 5 - LONG_ONES} messages, of {sent} frames sent in {flooded:.3g} s"
    )
    figures.no_more_than("memory, at its peak", GROWTH, peak - memory, "MB more")
    figures.equal("files open in the end", files_before, files_after)
    figures.equal("faults logged", 0, faults)
