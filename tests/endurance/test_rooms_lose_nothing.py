"""Guests talk in a room while their sockets are cut, and then while the platform is killed, again and again."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.endurance.conftest import ENGINES, NUMBERS, DatabaseMaker
from tests.endurance.figures import Figures
from tests.endurance.load import registered
from tests.endurance.rooms import Guest, Writer, minutes_of, opened_room, staying, until
from tests.endurance.servers import Platform

WRITERS = 4
LISTENERS = 6
AT_ONCE = 5
"""Messages that a writer sends before the first of them is acknowledged: a socket that is cut loses several."""

MOST_UNCUT = 8
"""Messages acknowledged, at the most, between two cuts."""

CUTS, AGAIN = (100, 50) if NUMBERS.is_full else (5, 1)
"""Sockets cut, and messages sent again because nobody acknowledged them at first: so many at the least."""

LONGEST_AWAY = 1
"""Seconds in which a listener who was cut off may miss more than one statement reads."""

BETWEEN_KILLS = 40
"""Messages acknowledged before each kill."""


@pytest.fixture(params=ENGINES)
def served(
    request: pytest.FixtureRequest, make_database: DatabaseMaker, tmp_path: Path
) -> Iterator[tuple[sa.URL, list[Platform]]]:
    """A database, and the processes that serve it: a SQLite file is one's alone."""
    url = make_database(request.param, tmp_path)
    with ExitStack() as stack:
        number = 1 if request.param == "sqlite" else 2
        # By whatever name people reach them, it is one: tokens are good at each.
        shared = {"base_url": "http://blog.example"}
        yield url, [stack.enter_context(Platform(tmp_path, url, **shared)) for _ in range(number)]


class Company:
    """Writers, each of another user, and listeners, by all of these processes."""

    def __init__(self, platforms: Sequence[Platform], *, goal: int) -> None:
        self._platforms = platforms
        addresses = [platform.address for platform in platforms]
        logins = [registered(addresses[0], email=f"ada{number}@example.com") for number in range(WRITERS)]
        self.room = opened_room(addresses[0], logins[0])
        self.writers = [
            Writer(addresses, self.room, login, f"writer{number}", goal=goal, at_once=AT_ONCE)
            for number, login in enumerate(logins)
        ]
        self.guests = [
            *self.writers,
            *(Guest(addresses, self.room, logins[0], longest_away=LONGEST_AWAY) for _ in range(LISTENERS)),
        ]

    @property
    def acknowledged(self) -> int:
        return sum(len(writer.acknowledged) for writer in self.writers)

    async def says_more(self, number: int) -> None:
        """Wait until so many more messages are acknowledged."""
        await until(lambda: self.acknowledged, self.acknowledged + number)

    async def has_heard_all(self) -> None:
        """Wait until all that will be said is acknowledged and everybody has heard it, or give up."""
        total = sum(writer.goal for writer in self.writers)
        with suppress(TimeoutError):
            await until(lambda: self.acknowledged, total)
            await until(lambda: min(len(guest.heard) for guest in self.guests), total)

    def judge(self, url: sa.URL, figures: Figures) -> None:
        """What everybody was told, set against what is stored."""
        minutes = minutes_of(url, self.room)
        said = [row.body for row in minutes]
        sent = [f"writer{n}-{i + 1}" for n, writer in enumerate(self.writers) for i in range(writer.sent)]
        numbers = {ref: number for writer in self.writers for ref, number in writer.acknowledged.items()}
        figures.equal("stored, by number", f"1 to {len(sent)}", _described([row.number for row in minutes]))
        figures.equal("stored twice under one name", 0, len(said) - len(set(said)))
        figures.equal("not stored, or never sent", [], sorted(set(sent) ^ set(said))[:5])
        misplaced = [ref for ref, number in numbers.items() if said[number - 1 : number] != [ref]]
        figures.equal("acknowledged and not there with its number", [], misplaced[:5])
        figures.equal("acknowledged with two numbers", [], [one for each in self.writers for one in each.renumbered])
        figures.equal("heard out of order", [], [one for guest in self.guests for one in guest.out_of_order][:5])
        complete = sum(guest.heard == said for guest in self.guests)
        figures.equal("guests that heard exactly what is stored", len(self.guests), complete)
        figures.equal("messages refused", {}, dict(sum((writer.refused for writer in self.writers), Counter())))
        figures.at_least("messages sent again", AGAIN, sum(writer.said_again for writer in self.writers))
        ends = sum((guest.ends for guest in self.guests), Counter())
        figures.equal("refused at the door", [], [end for end in ends if end.startswith("HTTP")])
        figures.equal("faults logged", 0, sum(platform.log.count("Traceback") for platform in self._platforms))
        figures.seen("how sockets ended", dict(ends))


def _described(numbers: Sequence[int]) -> str:
    if list(numbers) == list(range(1, len(numbers) + 1)):
        return f"1 to {len(numbers)}"
    return f"{len(numbers)}, not without gaps"


async def test_who_is_cut_off_at_any_moment_misses_nothing_and_hears_nothing_twice(
    served: tuple[sa.URL, list[Platform]], figures: Figures
) -> None:
    url, platforms = served
    dice = random.Random(6)
    company = await asyncio.to_thread(Company, platforms, goal=NUMBERS.messages // WRITERS)

    async def cut() -> None:
        while True:
            await company.says_more(dice.randint(1, MOST_UNCUT))
            await asyncio.sleep(dice.uniform(0, 0.02))  # at whatever step of a message
            connection = dice.choice(company.guests).connection
            if connection is not None:
                connection.transport.abort()

    begun = time.monotonic()
    async with staying(company.guests):
        cutting = asyncio.create_task(cut())
        await company.has_heard_all()
        cutting.cancel()
    figures.seen("seconds", f"{time.monotonic() - begun:.3g}")
    figures.at_least("sockets cut", CUTS, sum(guest.ends["ConnectionClosedError"] for guest in company.guests))
    company.judge(url, figures)


async def test_what_is_acknowledged_in_a_room_is_there_when_the_platform_is_killed(
    served: tuple[sa.URL, list[Platform]], figures: Figures
) -> None:
    url, platforms = served
    company = await asyncio.to_thread(Company, platforms, goal=1_000_000)
    begun = time.monotonic()
    async with staying(company.guests):
        for number in range(NUMBERS.room_kills):
            await company.says_more(BETWEEN_KILLS)
            await asyncio.sleep(random.uniform(0, 0.02))  # at whatever step of a message
            platform = platforms[number % len(platforms)]
            await asyncio.to_thread(platform.kill)
            await asyncio.to_thread(platform.start)
        await company.says_more(BETWEEN_KILLS)
        for writer in company.writers:
            writer.goal = writer.sent
        await company.has_heard_all()
    figures.seen("seconds", f"{time.monotonic() - begun:.3g}")
    figures.at_least("messages acknowledged", NUMBERS.room_kills * BETWEEN_KILLS, company.acknowledged)
    company.judge(url, figures)
