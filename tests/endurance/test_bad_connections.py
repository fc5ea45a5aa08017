"""Many connections at once that only take up room, while a good client asks."""

import asyncio
import socket
import time
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

from tests.conftest import HANG
from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import Load, client_of, registered
from tests.endurance.servers import Platform, memory_of, open_connections, wait_for

CLOSED = 10
CLOSED_SLACK = 0.5
GOOD_P95 = 0.1
UNREAD = 45

HEAD = b"POST /user/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
KINDS = {
    "idle": (b"", b""),
    "slow headers": (HEAD, b"X"),
    "slow body": (HEAD + b"Content-Length: 1000\r\n\r\n", b" "),
}
"""What is sent at once, and then every second."""


async def bad_connection(port: int, at_once: bytes, each_second: bytes) -> float:
    """Seconds until the server closed it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()

    async def trickle() -> None:
        writer.write(at_once)
        while each_second:
            await asyncio.sleep(1)
            writer.write(each_second)
            await writer.drain()

    trickling = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(HANG):
            while await reader.read(4096):
                pass
    except ConnectionResetError:
        pass
    finally:
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        writer.close()
    return time.monotonic() - begun


def test_answers_that_nobody_reads_are_thrown_away(tmp_path: Path, figures: Figures) -> None:
    with Platform(tmp_path) as platform, ExitStack() as connections:
        login = registered(platform.address)
        with client_of(platform.address) as author:
            for _ in range(20):
                author.post("/blog/", json={"title": "Long", "body": "x" * 200_000}, headers=login).raise_for_status()
        fields = "".join(f"{name}: {value}\r\n" for name, value in login.items())
        request = f"GET /blog/ HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()
        before = memory_of(platform.pid)
        for number in range(NUMBERS.unread):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", platform.port)))
            connection.sendall(request * (1 + number % 3))  # more than one: the next waits behind what nobody reads
        begun = time.monotonic()
        wait_for(lambda: memory_of(platform.pid) > before + 10, "answers wait to be read")
        wait_for(lambda: not open_connections(platform.port), "nobody is connected any more")
        figures.at_most("answers that nobody reads are thrown away", UNREAD, time.monotonic() - begun)
        with client_of(platform.address) as reader:
            answer = reader.get("/blog/", headers=login)
        figures.equal("who reads is answered", (200, 20), (answer.status_code, len(answer.json())))


async def test_bad_connections_are_closed_and_hurt_nobody(tmp_path: Path, figures: Figures) -> None:
    with Platform(tmp_path) as platform:
        login = await asyncio.to_thread(registered, platform.address)
        load = Load(platform.address, login)
        good = load.get("/blog/?limit=1", pause=0.01)
        # A new connection each time: that there is room for one more is what an attack is about.
        new = load.ask(lambda client: client.get("/blog/", headers=login | {"Connection": "close"}), pause=0.05)
        kinds = [name for _, name in zip(range(NUMBERS.bad_connections), cycle(KINDS), strict=False)]
        closed = await asyncio.gather(*(bad_connection(platform.port, *KINDS[kind]) for kind in kinds))
        await asyncio.to_thread(load.end)

    for kind in KINDS:
        seconds = [one for one, name in zip(closed, kinds, strict=True) if name == kind]
        figures.at_most(f"last of {len(seconds)} closed: {kind}", CLOSED, max(seconds), slack=CLOSED_SLACK)
    figures.at_least("good requests meanwhile", 50, len(good))
    figures.statuses("statuses of good requests", {200}, good, new)
    figures.at_most("p95 of good requests", GOOD_P95, good.p95)
    figures.at_most("p95 of good requests on new connections", GOOD_P95, new.p95)
    figures.seen("slowest good request", f"{max(good.slowest, new.slowest):.3g} s")
