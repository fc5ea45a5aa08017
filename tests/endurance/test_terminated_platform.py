"""SIGTERM while requests are under way."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.endurance.conftest import Figures
from tests.endurance.load import client_of, log_in, registered
from tests.endurance.servers import Platform

ENDED = 10
LOGINS = 6
HASH_SECONDS = 0.6
"""What a hash of 13 rounds takes; they are made one at a time."""

NEVER_FINISHED = (
    b"POST /user/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)


@pytest.mark.parametrize("clients", ["good clients", "one that never ends its request"])
def test_requests_under_way_are_answered(clients: str, url: sa.URL, tmp_path: Path, figures: Figures) -> None:
    with Platform(tmp_path, url, password_rounds=13) as platform, ThreadPoolExecutor(LOGINS) as threads:
        registered(platform.address)

        def answer() -> tuple[int, float]:
            with client_of(platform.address) as client:
                return log_in(client).status_code, time.monotonic()

        with socket.socket() as bad:
            if clients != "good clients":
                bad.connect(("127.0.0.1", platform.port))
                bad.sendall(NEVER_FINISHED)
            logins = [threads.submit(answer) for _ in range(LOGINS)]
            time.sleep(HASH_SECONDS / 2)  # they have arrived, and most wait for their turn
            terminated = time.monotonic()
            platform.terminate()
            code = platform.ended(60)
            ended = time.monotonic()
        answers = [login.result() for login in logins]

    figures.equal("statuses of logins under way", {200}, {status for status, _ in answers})
    figures.at_least("of them answered after SIGTERM", 3, sum(moment > terminated for _, moment in answers))
    figures.at_most("ended", ENDED, ended - terminated)
    figures.equal("exit code", 0, code)
