"""kill -9, again and again, while clients write."""

import random
import time
from pathlib import Path

import sqlalchemy as sa

from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import Load, registered, take_stock
from tests.endurance.servers import Platform

READY = 3
WRITES = 20
"""Blogs acknowledged before each kill."""


def test_no_acknowledged_write_is_lost_when_the_platform_is_killed(
    url: sa.URL, tmp_path: Path, figures: Figures
) -> None:
    starts, first_writes = [], []
    with Platform(tmp_path, url) as platform:
        with Load(platform.address, registered(platform.address)) as load:
            answers = load.write(clients=4)
            for cycle in range(NUMBERS.cycles):
                load.await_writes(WRITES)
                if cycle % 2:  # at whatever step of a request, or else as soon as one is answered
                    time.sleep(random.uniform(0, 0.02))
                platform.kill()
                begun = time.monotonic()
                starts.append(platform.start())
                load.await_writes(1)
                first_writes.append(time.monotonic() - begun)
            load.await_writes(WRITES)
        platform.kill()
    stock = take_stock(url, load)
    figures.at_most("answers after kill -9", READY, max(starts))
    figures.at_most("acknowledges a write after kill -9", READY, max(first_writes))
    figures.at_least("writes acknowledged", WRITES * NUMBERS.cycles, len(load.acknowledged))
    cut_off = [answer for answer in answers.with_status(0) if "ConnectError" not in answer.text]
    figures.at_least("requests cut off", NUMBERS.cycles, len(cut_off))
    figures.equal("lost, doubled or damaged", "none", stock.faults)
    figures.statuses("statuses", {0, 201}, answers)
