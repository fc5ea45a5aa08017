"""Another process keeps the SQLite file to itself."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import Answers, Load, registered, take_stock
from tests.endurance.servers import Platform

ANSWERED = 5
SLACK = 0.3
BACK = 2

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=300)
connection.execute(f"BEGIN {sys.argv[2]}")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
def test_locked_file_is_read_and_writes_are_refused_in_time(lock: str, tmp_path: Path, figures: Figures) -> None:
    file = tmp_path / "blog.db"
    late: list[Answers] = []
    with Platform(tmp_path) as platform:
        with Load(platform.address, registered(platform.address)) as load:
            reads = load.get("/blog/?limit=1", clients=2, pause=0.02)
            writes = load.write(clients=2, pause=0.02)
            load.await_writes(20)
            command = [sys.executable, "-c", LOCKER, str(file), lock]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
                assert locker.stdin is not None
                assert locker.stdout is not None
                assert locker.stdout.readline() == b"locked\n"
                locked = time.monotonic()
                while time.monotonic() - locked < NUMBERS.outage:
                    # Whoever comes late waits for others that wait.
                    late.append(load.write(once=True))
                    time.sleep(0.5)
                load.await_answers(reads, 200, number=20)
                free = time.monotonic()
                locker.stdin.close()
            load.await_writes(20)
        writes.extend(answer for answers in late for answer in answers)
        is_running = platform.is_running
        platform.kill()
    stock = take_stock(sa.make_url(f"sqlite:///{file}"), load)

    refused = writes.with_status(503)
    # A write that began before the lock was taken may still succeed.
    through = [answer for answer in writes.until(free).with_status(201) if answer.begun > locked]
    figures.statuses("statuses of reads", {200}, reads)
    figures.at_least("reads while it is locked", 20, len(reads.since(locked).until(free)))
    figures.equal("statuses of writes", {201, 503}, set(writes.statuses))
    figures.equal("writes through the lock", 0, len(through))
    figures.equal("503 without Retry-After or problem", 0, refused.out_of_order)
    figures.at_most("slowest write", ANSWERED, writes.slowest, slack=SLACK)
    figures.at_most("slowest read", 1, reads.slowest)
    figures.at_most(
        "first write once it is free", BACK, min(answer.ended for answer in writes.since(free).with_status(201)) - free
    )
    figures.equal("same process", True, is_running)
    figures.equal("lost, doubled or damaged", "none", stock.faults)
