"""SIGTERM while requests are under way."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from tests.conftest import HANG
from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import EMAIL, registered
from tests.endurance.servers import Platform, wait_for
from tests.factories import PASSWORD

ENDED = 10
EACH = 3
"""Logins whose body has come before SIGTERM, and others whose body comes when nobody is let in any more."""

BODY = urlencode({"username": EMAIL, "password": PASSWORD}).encode()
HEAD = (
    b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nExpect: 100-continue\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(BODY)
)
NEVER_FINISHED = (
    b"POST /user/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=HANG)


def listens(port: int) -> bool:
    try:
        connected(port).close()
    except ConnectionError:
        return False
    return True


def status_of(connection: socket.socket) -> int:
    """That of the answer, 0 when the connection broke instead."""
    try:
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    except ConnectionError:
        return 0
    return int(answer.split()[1]) if answer else 0


@pytest.mark.parametrize("clients", ["good clients", "one that never ends its request"])
def test_requests_under_way_are_answered(clients: str, url: sa.URL, tmp_path: Path, figures: Figures) -> None:
    with Platform(tmp_path, url, password_rounds=NUMBERS.slow_rounds) as platform, ExitStack() as stack:
        registered(platform.address)
        if clients != "good clients":
            stack.enter_context(connected(platform.port)).sendall(NEVER_FINISHED)
        early, late = ([stack.enter_context(connected(platform.port)) for _ in range(EACH)] for _ in range(2))
        for login in (*early, *late):
            login.sendall(HEAD)
            assert login.recv(2**16).startswith(b"HTTP/1.1 100 "), "it is under way"
        for login in early:
            login.sendall(BODY)
        terminated = time.monotonic()
        platform.terminate()
        wait_for(lambda: not listens(platform.port), "nobody is let in any more")
        for login in late:
            login.sendall(BODY)
        statuses = [[status_of(login) for login in logins] for logins in (early, late)]
        code = platform.ended()
        ended = time.monotonic()

    figures.equal("statuses of logins that had come", [200] * EACH, statuses[0])
    figures.equal("statuses of logins that had begun", [200] * EACH, statuses[1])
    figures.at_most("ended", ENDED, ended - terminated)
    figures.equal("exit code", 0, code)
