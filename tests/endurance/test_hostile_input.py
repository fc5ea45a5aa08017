"""What is sent to keep the platform busy is answered, or refused, in time: the suite holds what, this test how soon."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from blog.diff import unified_diff
from blog.errors import TooManyPixels
from blog.media import FRAMES, remake
from blog.search import terms_of
from blog.settings import Settings
from tests.conftest import ROOT
from tests.endurance.figures import Figures
from tests.endurance.load import client_of, registered
from tests.endurance.rooms import live, opened_room
from tests.endurance.servers import Platform
from tests.images import gif, image_of, png
from tests.test_search import LONG_TO_FOLD

PIXELS: int = Settings.model_fields["media_pixel_limit"].default

BOMBS = [
    png(30_000, 30_000),
    png(2**31 - 1, 2**31 - 1),
    png(5_001, 5_000),
    gif(1, size=65_535),
    gif(1, size=5_001),
    gif(FRAMES + 1),
    gif(100_000),
]
ETAGS = ['"' * 30_000, f"x{', ' * 15_000}x", 'W/"' * 10_000]
MALFORMED = [b"GET / HTTP/1.1\r\n\r\n", b"G\x00T / HTTP/1.1\r\nHost: h\r\n\r\n", b"x" * 100 + b"\r\n\r\n"]
RANGES = ["bytes=" + ",".join(f"{n}-{n}" for n in range(2_500)), "bytes=" + "0-," * 9_000, f"bytes={'9' * 9_999}-"]


def slowest(act: Callable[[Any], object], inputs: Sequence[Any]) -> float:
    """Seconds that the one of these takes which takes longest."""
    took = []
    for given in inputs:
        began = time.monotonic()
        act(given)
        took.append(time.monotonic() - began)
    return max(took)


def test_images_of_too_many_pixels(figures: Figures) -> None:
    def refuse(content: bytes) -> None:
        with pytest.raises(TooManyPixels):
            remake(content, PIXELS)

    figures.at_most("slowest refusal of an image", 2, slowest(refuse, BOMBS))


@pytest.mark.parametrize("lines", [20_000, 200_000])
def test_texts_that_have_nothing_in_common(lines: int, figures: Figures) -> None:
    chance = random.Random(9)
    old, new = ("\n".join(chance.choices("abcdefgh", k=lines)) for _ in range(2))
    figures.at_most("comparing them", 3, slowest(lambda text: unified_diff(old, text, "1", "2"), [new]))


def test_texts_that_are_long_to_fold(figures: Figures) -> None:
    folded = slowest(lambda text: terms_of("Title", text), list(LONG_TO_FOLD.values()))
    figures.at_most("slowest terms of a text", 1, folded)


def test_requests_of_great_length(tmp_path: Path, figures: Figures) -> None:
    with Platform(tmp_path) as platform:
        login = registered(platform.address)
        with client_of(platform.address) as client:
            image = client.post("/media/", files={"file": ("a.png", image_of("png"))}, headers=login)
            path = image.headers["Location"]
            statuses: list[int] = []

            def get(path: str, header: str, value: str) -> None:
                statuses.append(client.get(path, headers=login | {header: value}).status_code)

            of_etags = slowest(lambda etag: get("/user/me", "If-None-Match", etag), ETAGS)
            of_ranges = slowest(lambda ranges: get(path, "Range", ranges), RANGES)
            figures.at_most("slowest answer to an If-None-Match", 0.5, of_etags)
            figures.at_most("slowest answer to a Range", 1, of_ranges)
            figures.equal("statuses", {200}, set(statuses))
        figures.at_most("refusal of 60 MB", 5, slowest(send_too_much, [platform.port]))
        figures.equal("same process", True, platform.is_running)


def send_too_much(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = f"POST /blog/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 60000000\r\n\r\n"
        with suppress(ConnectionError):  # a server that has heard enough may close
            connection.sendall(head.encode() + b"x" * 60_000_000)
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_malformed_requests_and_faulty_starts(tmp_path: Path, figures: Figures) -> None:
    def refuse(raw: bytes) -> None:
        with socket.create_connection(("127.0.0.1", platform.port)) as connection:
            connection.sendall(raw)
            assert connection.recv(12) == b"HTTP/1.1 400"

    with Platform(tmp_path) as platform:
        figures.at_most("slowest refusal of a malformed request", 5, slowest(refuse, MALFORMED))
    (tmp_path / "other.db").write_bytes(b"x" * 4096)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BLOG_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    command = [sys.executable, "-m", "blog", "serve"]
    ended: list[int] = []
    took = slowest(lambda _: ended.append(subprocess.run(command, cwd=tmp_path, env=environment).returncode), [None])
    figures.at_most("a faulty start", 5, took)
    figures.equal("its exit code", [1], ended)


def test_a_listener_whose_login_ends(tmp_path: Path, figures: Figures) -> None:
    async def listen(address: str, login: dict[str, str]) -> float:
        async with live(address, opened_room(address, login), login) as connection:
            await connection.recv()
            async with httpx.AsyncClient(base_url=address) as client:
                assert (await client.post("/logout", headers=login)).status_code == 204
            began = time.monotonic()
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await connection.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
            return time.monotonic() - began

    with Platform(tmp_path) as platform:
        ended = asyncio.run(listen(platform.address, registered(platform.address)))
    figures.at_most("socket closed after a logout", 5, ended)
