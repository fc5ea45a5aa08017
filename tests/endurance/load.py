"""Clients that ask again and again, and write down what they were told.

They are threads of the test's own process: what they take of the machine they take from the platform, so a figure
seen here is rather too long than too short.
"""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Self, cast
from uuid import uuid4

import httpx
import sqlalchemy as sa

from blog.models import Blog, User
from blog.schemas.problem import MEDIA_TYPE
from tests.conftest import HANG
from tests.endurance.servers import connected, wait_for
from tests.factories import PASSWORD

EMAIL = "ada@example.com"

MAX_CLIENTS = 128


def client_of(address: str, *, source: str | None = None) -> httpx.Client:
    """A client with one connection, from an address of its own if `source` names one (all of 127.0.0.0/8 is ours)."""
    transport = httpx.HTTPTransport(verify=False, local_address=source, limits=httpx.Limits(max_connections=1))
    return httpx.Client(base_url=address, transport=transport, timeout=HANG, trust_env=False)


def log_in(client: httpx.Client, password: str = PASSWORD, *, email: str = EMAIL) -> httpx.Response:
    return client.post("/login", data={"username": email, "password": password})


def registered(address: str, *, email: str = EMAIL) -> dict[str, str]:
    """The headers of a request by a new author."""
    with client_of(address) as client:
        answer = client.post("/user/", json={"name": "Ada", "email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        answer = log_in(client, email=email)
        assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@dataclass(frozen=True)
class Answer:
    """What became of one request. The status is 0 when the connection broke instead."""

    status: int
    headers: httpx.Headers
    text: str
    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def is_in_order(self) -> bool:
        """Whether a refusal tells a program what it is and when to come again."""
        type_is_right = self.headers.get("Content-Type") == MEDIA_TYPE
        return type_is_right and str(self.headers.get("Retry-After", "")).isdecimal()


class Answers(list[Answer]):
    """Those to the requests of one kind, in the order in which they came."""

    @property
    def statuses(self) -> dict[int, int]:
        """How many there were of each status."""
        found = [answer.status for answer in self]
        return {status: found.count(status) for status in sorted(set(found))}

    @property
    def slowest(self) -> float:
        return max(answer.seconds for answer in self)

    @property
    def p95(self) -> float:
        """Seconds within which 95 of 100 came."""
        return statistics.quantiles((answer.seconds for answer in self), n=20)[-1]

    def since(self, moment: float) -> "Answers":
        """Those that came after this moment."""
        return Answers(answer for answer in self if answer.ended > moment)

    def until(self, moment: float) -> "Answers":
        """Those that came before this moment."""
        return Answers(answer for answer in self if answer.ended <= moment)

    @property
    def out_of_order(self) -> int:
        """How many refusals do not tell a program what they are and when to come again."""
        return sum(not answer.is_in_order for answer in self)

    def with_status(self, *statuses: int) -> "Answers":
        return Answers(answer for answer in self if answer.status in statuses)


class Load:
    """Clients at work until the end of the `with` block.

    `sent` holds the title of every blog that was sent, `acknowledged` of those that were answered 201, `refused` of
    those that were answered something else.
    """

    def __init__(self, address: str, login: dict[str, str]) -> None:
        self._address = address
        self._login = login
        self._prefix = uuid4().hex[:8]
        self._numbers = count(1)
        self._acknowledging = threading.Condition()
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(MAX_CLIENTS)
        self._clients: list[Future[None]] = []
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let every client finish its request, and raise what went wrong in one."""
        self._over.set()
        self._threads.shutdown()
        for client in self._clients:
            client.result()

    def ask(
        self,
        act: Callable[[httpx.Client], httpx.Response],
        *,
        clients: int = 1,
        pause: float = 0.0,
        once: bool = False,
    ) -> Answers:
        """Start clients that do this again and again, with a pause between; theirs are the answers in the list."""
        answers = Answers()
        assert len(self._clients) + clients <= MAX_CLIENTS
        for _ in range(clients):
            self._clients.append(self._threads.submit(self._go_on, act, answers, pause, once))
        return answers

    def get(self, path: str, *, clients: int = 1, pause: float = 0.0, once: bool = False) -> Answers:
        """Start clients that read this."""
        return self.ask(lambda client: client.get(path, headers=self._login), clients=clients, pause=pause, once=once)

    def write(self, *, clients: int = 1, pause: float = 0.0, once: bool = False, body: str = "Text") -> Answers:
        """Start clients that write blogs, each blog under a title of its own and never twice."""

        def act(client: httpx.Client) -> httpx.Response:
            title = f"{self._prefix} {next(self._numbers)}"
            self.sent.add(title)
            answer = client.post("/blog/", json={"title": title, "body": body}, headers=self._login)
            if answer.status_code == 201:
                assert answer.json()["title"] == title
                with self._acknowledging:
                    self.acknowledged.add(title)
                    self._acknowledging.notify_all()
            else:
                self.refused.add(title)
            return answer

        return self.ask(act, clients=clients, pause=pause, once=once)

    def await_writes(self, number: int) -> None:
        """Wait until so many more blogs have been acknowledged, and no moment longer."""
        with self._acknowledging:
            enough = len(self.acknowledged) + number
            come = self._acknowledging.wait_for(lambda: len(self.acknowledged) >= enough, HANG)
        assert come, f"{number} writes acknowledged: not within {HANG} s"

    @staticmethod
    def await_answers(answers: Answers, *statuses: int, number: int) -> None:
        """Wait until so many more have come with one of these statuses."""
        enough = len(answers.with_status(*statuses)) + number
        wait_for(lambda: len(answers.with_status(*statuses)) >= enough, f"{number} answers of {statuses}")

    def _go_on(self, act: Callable[[httpx.Client], httpx.Response], answers: Answers, pause: float, once: bool) -> None:
        with client_of(self._address) as client:
            while not self._over.is_set():
                begun = time.monotonic()
                try:
                    answer = act(client)
                except httpx.TransportError as error:
                    answers.append(Answer(0, httpx.Headers(), repr(error), begun, time.monotonic()))
                    self._over.wait(0.02)
                else:
                    ended = time.monotonic()
                    answers.append(Answer(answer.status_code, answer.headers, answer.text, begun, ended))
                if once:
                    return
                if pause:
                    self._over.wait(pause)


@dataclass(frozen=True)
class Stock:
    """What the database holds in the end, set against what clients sent and were told."""

    lost: int
    doubled: int
    never_sent: int
    orphans: int
    damage: Sequence[str]
    """What the engine's own check finds."""

    refused_yet_stored: int
    """No fault: a commit whose answer never came may have been made, and nobody here can know."""

    @property
    def faults(self) -> str:
        found = {"lost": self.lost, "doubled": self.doubled, "never sent": self.never_sent, "orphans": self.orphans}
        counted = [f"{number} {name}" for name, number in found.items() if number]
        return ", ".join([*counted, *self.damage]) or "none"


def take_stock(url: sa.URL, load: Load) -> Stock:
    """Jepsen's set test: every client adds values of its own, and at the end they are read."""
    blog, user = (model.__table__ for model in cast(Any, (Blog, User)))
    with connected(url) as connection:
        titles = connection.scalars(sa.select(blog.c.title)).all()
        orphans = connection.scalar(sa.select(sa.func.count()).where(blog.c.creator_id.not_in(sa.select(user.c.id))))
        damage: list[str] = []
        if url.drivername == "sqlite":
            damage += [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
            damage += [f"{row} refers to nothing" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")]
        elif url.drivername == "mariadb":
            rows = connection.exec_driver_sql("CHECK TABLE `user`, `blog`").all()
            damage += [f"{row[0]}: {row[3]}" for row in rows if row[3] != "OK"]
    stored = set(titles)
    return Stock(
        lost=len(load.acknowledged - stored),
        doubled=len(titles) - len(stored),
        never_sent=len(stored - load.sent),
        orphans=orphans or 0,
        damage=damage,
        refused_yet_stored=len(load.refused & stored),
    )
