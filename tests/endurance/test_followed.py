"""Whoever follows or pages while others write misses nothing and sees nothing twice."""

import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import sqlalchemy as sa

from blog.models import Blog
from tests.endurance.conftest import ENGINES, NUMBERS, DatabaseMaker
from tests.endurance.figures import Figures
from tests.endurance.load import Load, client_of, registered
from tests.endurance.servers import Platform, connected, wait_for

Blogs = dict[int, dict[str, Any]]

WRITERS = 4
ACTS = ("post", "change", "status", "delete")
ENOUGH = max(3, int(NUMBERS.writing) // 5)
"""Blogs written in each of these ways."""

WALKS = 2

DUE = 3
"""Seconds within which a scheduled blog is due."""


@pytest.fixture(
    params=[(engine, workers) for engine in ENGINES for workers in (1, 2)[: 1 if engine == "sqlite" else 2]],
    ids=lambda served: f"{served[0]}-{served[1]}",
)
def served(request: pytest.FixtureRequest, make_database: DatabaseMaker, tmp_path: Path) -> tuple[sa.URL, int]:
    """A database, and by how many processes it is served."""
    engine, workers = request.param
    return make_database(engine, tmp_path), workers


class Writers:
    """Create, change, hide, schedule and delete blogs of one author's, each of which one of them has at a time."""

    def __init__(self, login: dict[str, str]) -> None:
        self._login = login
        self._lock = threading.Lock()
        self._free: list[int] = []
        self.done: Counter[str] = Counter()

    def act(self, client: httpx.Client) -> httpx.Response:
        what = random.choice(["post", *ACTS])
        with self._lock:
            if len(self._free) < WRITERS:
                what = "post"
            blog = self._free.pop(random.randrange(len(self._free))) if what != "post" else None
        body: dict[str, Any] = {"title": f"{what} {random.random()}", "tags": [random.choice("abc")]}
        if what in ("post", "status"):
            body |= self._status()
        if what == "post":
            answer = client.post("/blog/", json=body | {"body": "Text"}, headers=self._login)
            blog = answer.json()["id"] if answer.status_code == 201 else None
        elif what == "delete":
            answer, blog = client.delete(f"/blog/{blog}", headers=self._login), None
        else:
            answer = client.patch(f"/blog/{blog}", json=body, headers=self._login)
        with self._lock:
            self.done[what] += answer.is_success
            if blog is not None:
                self._free.append(blog)
        return answer

    @staticmethod
    def _status() -> dict[str, str]:
        due = datetime.now(UTC) + timedelta(seconds=random.randint(1, DUE))
        return random.choice(
            [{"status": "published"}, {"status": "draft"}, {"status": "scheduled", "publish_at": due.isoformat()}]
        )


class Follower:
    """Has a copy of what one user sees, by following alone."""

    def __init__(self, login: dict[str, str]) -> None:
        self._login = login
        self._cursor: str | None = None
        self.copy: Blogs = {}
        self.told = 0

    def act(self, client: httpx.Client) -> httpx.Response:
        query = {"limit": random.choice([3, 20, 100])} | ({"since": self._cursor} if self._cursor else {})
        answer = client.get("/blog/changes", params=query, headers=self._login)
        if answer.status_code == 200:
            self._cursor = answer.json()["cursor"]
            for change in answer.json()["changes"]:
                self.told += 1
                if "blog" in change:
                    self.copy[change["id"]] = change["blog"]
                else:
                    self.copy.pop(change["id"], None)
        return answer

    def follow(self, client: httpx.Client) -> None:
        """Go on to the end."""
        while self.act(client).json()["changes"]:
            pass


class Reader:
    """Pages through the whole list again and again."""

    def __init__(self, login: dict[str, str], kept: set[int], sort: str) -> None:
        self._login = login
        self._kept = kept
        self._first = f"/blog/?limit=20&fields=id&sort={sort}"
        self._next = self._first
        self._seen: Counter[int] = Counter()
        self.walks = 0
        self.faults: list[str] = []

    def act(self, client: httpx.Client) -> httpx.Response:
        answer = client.get(self._next, headers=self._login)
        if answer.status_code == 200:
            self._seen.update(blog["id"] for blog in answer.json())
            self._next = answer.links.get("next", {}).get("url", "")
            if not self._next:
                if {self._seen[number] for number in self._kept} != {1}:
                    self.faults.append(f"walk {self.walks}: {[n for n in self._kept if self._seen[n] != 1]}")
                self.walks += 1
                self._seen.clear()
                self._next = self._first
        return answer


def listed(client: httpx.Client, login: dict[str, str]) -> Blogs:
    blogs: Blogs = {}
    path = "/blog/?limit=100"
    while path:
        answer = client.get(path, headers=login)
        blogs |= {blog["id"]: blog for blog in answer.json()}
        path = answer.links.get("next", {}).get("url", "")
    return blogs


def stored(url: sa.URL) -> tuple[dict[int, str], set[int]]:
    """Every blog's title by its id, and which of them are public."""
    table = cast(Any, Blog).__table__
    with connected(url) as connection:
        rows = connection.execute(sa.select(table.c.id, table.c.title, table.c.is_draft)).all()
    return {row.id: row.title for row in rows}, {row.id for row in rows if not row.is_draft}


def test_whoever_follows_has_what_there_is(served: tuple[sa.URL, int], tmp_path: Path, figures: Figures) -> None:
    url, workers = served
    with Platform(tmp_path, url, workers=workers) as platform:
        ada, grace = registered(platform.address), registered(platform.address, email="grace@example.com")
        with client_of(platform.address) as client:
            kept = set()
            for number in range(NUMBERS.kept):
                answer = client.post("/blog/", json={"title": f"kept {number}", "body": "Text"}, headers=ada)
                kept.add(answer.json()["id"])
        writers, followers = Writers(ada), {"owner": Follower(ada), "other": Follower(grace)}
        readers = [Reader(grace, kept, sort) for sort in ("-published_at", "title")]
        with Load(platform.address, ada) as load:
            writes = load.ask(writers.act, clients=WRITERS)
            follows = [load.ask(follower.act, pause=0.02) for follower in followers.values()]
            reads = [load.ask(reader.act, pause=0.005) for reader in readers]
            time.sleep(NUMBERS.writing)
            wait_for(lambda: min(writers.done[what] for what in ACTS) >= ENOUGH, "blogs are written in each way")
            wait_for(lambda: min(reader.walks for reader in readers) >= WALKS, "all is paged through")
        time.sleep(DUE + 1)
        with client_of(platform.address) as client:
            for follower in followers.values():
                follower.follow(client)
            lists = {"owner": listed(client, ada), "other": listed(client, grace)}
        titles, public = stored(url)

    figures.statuses("statuses of writes", {200, 201, 204}, writes)
    for what in ACTS:
        figures.at_least(f"blogs: {what}", ENOUGH, writers.done[what])
    figures.statuses("statuses of readers", {200}, *follows, *reads)
    for name, follower in followers.items():
        demanded = set(titles) if name == "owner" else public
        figures.at_least(f"told to the {name}", NUMBERS.kept + ENOUGH, follower.told)
        figures.equal(f"followed by the {name} alone", 0, len(follower.copy.keys() - demanded))
        figures.equal(f"missed by the {name}", 0, len(demanded - follower.copy.keys()))
        stale = [number for number in follower.copy if follower.copy[number] != lists[name].get(number)]
        figures.equal(f"stale with the {name}", [], stale[:5])
        figures.equal(f"listed to the {name}", len(demanded), len(lists[name]))
        wrong = [number for number, blog in lists[name].items() if blog["title"] != titles.get(number)]
        figures.equal(f"listed wrongly to the {name}", [], wrong[:5])
    for reader in readers:
        figures.at_least("times paged through", WALKS, reader.walks)
        figures.equal("kept blogs missed or doubled", [], reader.faults[:3])
