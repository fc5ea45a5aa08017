"""The database server goes away and comes back, while clients read and write."""

import time
from pathlib import Path

import pytest

from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import Answers, Load, registered, take_stock
from tests.endurance.servers import DatabaseServer, Platform, wait_for

ANSWERED = 5
ALIVE = 0.1
NOTICED = 2
BACK = 2

SLACK = 0.3
"""What two cores add to a request of 5 s while the test's own clients are at work on them too."""

HEALTH_SLACK = 0.05


@pytest.mark.parametrize("outage", ["stopped", "crashed", "frozen"])
def test_outage_is_answered_with_503_and_then_over(
    server: DatabaseServer, outage: str, tmp_path: Path, figures: Figures
) -> None:
    late: list[Answers] = []
    with Platform(tmp_path, server.url) as platform:
        pid = platform.pid
        with Load(platform.address, registered(platform.address)) as load:
            health = load.get("/health", pause=0.02)
            ready = load.get("/ready", pause=0.05)
            reads = load.get("/blog/?limit=1", clients=4, pause=0.02)
            writes = load.write(clients=4, pause=0.02)
            load.await_writes(50)

            gone = time.monotonic()
            {"stopped": server.stop, "crashed": server.crash, "frozen": server.freeze}[outage]()
            while time.monotonic() - gone < NUMBERS.outage:
                # Whoever comes late waits for others that wait.
                late += [load.get("/blog/?limit=1", once=True), load.write(once=True)]
                time.sleep(0.25)
            ends = time.monotonic()
            if outage == "frozen":
                server.thaw()
            else:
                server.start()
            back = time.monotonic()
            wait_for(lambda: bool(writes.since(back).with_status(201)), "a write is acknowledged again")
            wait_for(lambda: bool(reads.since(back).with_status(200)), "a read is answered again")
            wait_for(lambda: ready[-1].status == 200, "it is ready again")
            time.sleep(max(0.0, back + NUMBERS.afterwards - time.monotonic()))
        is_the_same = platform.is_running and platform.pid == pid
        platform.kill()
    stock = take_stock(server.url, load)

    requests = Answers([*reads, *writes, *(answer for answers in late for answer in answers)])
    refused = requests.with_status(503)
    figures.equal("statuses of reads and writes", {200, 201, 503}, set(requests.statuses))
    figures.at_least("refused with 503", 8, len(refused))
    figures.equal("503 without Retry-After or problem", 0, refused.out_of_order)
    figures.at_most("slowest read or write", ANSWERED, requests.slowest, slack=SLACK)
    figures.equal("statuses of /health", {200}, set(health.statuses))
    figures.at_most("slowest /health", ALIVE, health.slowest, slack=HEALTH_SLACK)
    not_ready = ready.since(gone).with_status(503)
    figures.at_least("/ready says 503", 1, len(not_ready))
    noticed = min((answer.ended for answer in not_ready), default=float("inf"))
    figures.at_most("the first time", NOTICED, noticed - gone)
    figures.equal("/ready says 200 all the same", 0, len(ready.since(noticed).until(ends).with_status(200)))
    figures.equal("503 of /ready without Retry-After or problem", 0, not_ready.out_of_order)
    figures.at_most("slowest /ready", NOTICED, ready.slowest, slack=SLACK)
    figures.at_most("first write once it is back", BACK, writes.since(back).with_status(201)[0].ended - back)
    figures.at_most("first read once it is back", BACK, reads.since(back).with_status(200)[0].ended - back)
    figures.at_most(
        "last 503 once it is back", BACK, max((answer.ended - back for answer in refused.since(back)), default=0.0)
    )
    figures.equal("/ready in the end", 200, ready[-1].status)
    figures.equal("same process", True, is_the_same)
    figures.equal("lost, doubled or damaged", "none", stock.faults)
    figures.seen("writes acknowledged", len(load.acknowledged))
    figures.seen("writes answered 503 yet stored", stock.refused_yet_stored)


def test_no_acknowledged_write_is_lost_when_the_database_crashes(
    server: DatabaseServer, tmp_path: Path, figures: Figures
) -> None:
    away = []
    with Platform(tmp_path, server.url) as platform:
        pid = platform.pid
        with Load(platform.address, registered(platform.address)) as load:
            answers = load.write(clients=4)
            for _ in range(NUMBERS.cycles):
                load.await_writes(20)
                server.crash()
                server.start()
                begun = time.monotonic()
                load.await_writes(1)
                away.append(time.monotonic() - begun)
        is_the_same = platform.is_running and platform.pid == pid
    stock = take_stock(server.url, load)
    figures.equal("statuses of writes", {201, 503}, set(answers.statuses))
    figures.equal("503 without Retry-After or problem", 0, answers.with_status(503).out_of_order)
    figures.at_most("first write once it is back", BACK, max(away))
    figures.at_least("writes acknowledged", 20 * NUMBERS.cycles, len(load.acknowledged))
    figures.equal("same process", True, is_the_same)
    figures.equal("lost, doubled or damaged", "none", stock.faults)
