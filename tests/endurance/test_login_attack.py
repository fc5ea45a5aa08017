"""Passwords are guessed as fast as the platform lets them be."""

import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.endurance.conftest import ENGINES, NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import EMAIL, Load, client_of, log_in, registered
from tests.endurance.servers import Platform

ATTACKERS = 10
ELSEWHERE = "127.0.0.2"
READ_P95 = 0.15
LOGIN = 5
LIMIT = 200
"""More failures than any limit should let through."""


def guess(client: httpx.Client, *, email: str = EMAIL) -> httpx.Response:
    return log_in(client, "not the password", email=email)


def test_attackers_are_held_off_and_nobody_else_is(url: sa.URL, tmp_path: Path, figures: Figures) -> None:
    with (
        Platform(tmp_path, url, password_rounds=NUMBERS.attacked_rounds) as platform,
        Load(platform.address, registered(platform.address)) as load,
        client_of(platform.address, source=ELSEWHERE) as owner,
    ):
        reads = load.get("/blog/?limit=1", pause=0.02)
        guesses = load.ask(guess, clients=ATTACKERS, pause=0.01)
        load.await_answers(guesses, 429, number=20)
        time.sleep(NUMBERS.attack)
        load.await_answers(reads, 200, number=50)
        begun = time.monotonic()
        status = log_in(owner).status_code
        took = time.monotonic() - begun
        load.end()

    held_off = guesses.with_status(429)
    figures.statuses("statuses of guesses", {401, 429}, guesses)
    figures.seen("guesses let through", len(guesses.with_status(401)))
    figures.at_least("guesses held off", 20, len(held_off))
    figures.equal("429 without Retry-After or problem", 0, held_off.out_of_order)
    figures.at_least("reads meanwhile", 50, len(reads))
    figures.statuses("statuses of reads", {200}, reads)
    figures.at_most("p95 of reads", READ_P95, reads.p95)
    figures.equal("right password from elsewhere", 200, status)
    figures.at_most("right password from elsewhere takes", LOGIN, took)


@pytest.mark.parametrize("url", ENGINES[1:], indirect=True)
def test_two_processes_count_failures_together(url: sa.URL, tmp_path: Path, figures: Figures) -> None:
    other = "grace@example.com"
    with Platform(tmp_path, url) as one, Platform(tmp_path, url) as two:
        for email in (EMAIL, other):
            registered(one.address, email=email)
        with client_of(one.address) as client, client_of(two.address) as client_of_two:
            let_through = 0
            while guess(client).status_code == 401 and let_through < LIMIT:
                let_through += 1
            figures.at_least("guesses let through by one", 1, let_through)
            figures.equal("it ends", True, let_through < LIMIT)
            figures.equal("the other's answer to the next", 429, guess(client_of_two).status_code)

        # Another account, from another address: each process sees no more than half of the failures.
        with (
            client_of(one.address, source=ELSEWHERE) as client,
            client_of(two.address, source=ELSEWHERE) as client_of_two,
        ):
            halves = {guess(client_of_two if n % 2 else client, email=other).status_code for n in range(let_through)}
            both = {guess(each, email=other).status_code for each in (client, client_of_two)}
            figures.equal("as many guesses, half of them each", {401}, halves)
            figures.equal("both answer to the next", {429}, both)
