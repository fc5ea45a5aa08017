"""`GET /blog/changes`: whoever follows to the end has what the list has, whatever became of it meanwhile."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import col

from blog.models import Blog, Role, User
from blog.repository.blog import BlogRepository
from blog.security.access import Scope
from tests.answers import code
from tests.conftest import ALL_ENGINES, on
from tests.factories import Factory

Blogs = dict[int, dict[str, Any]]
Login = dict[str, str]

DAY = datetime(2026, 11, 22, 9, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Clock:
    """What every worker's clock says, and how much one is ahead of it."""

    def __init__(self) -> None:
        self.time = DAY
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return self.time + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("blog", "change"):
        monkeypatch.setattr(f"blog.repository.{module}.now", clock)
    return clock


async def ask(client: httpx.AsyncClient, login: Login, since: str | None = None, limit: int = 100) -> Any:
    query: dict[str, Any] = {"limit": limit} | ({} if since is None else {"since": since})
    answer = await client.get("/blog/changes", params=query, headers=login)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"changes", "cursor"}
    return answer.json()


class Follower:
    """Keeps a copy of what one user sees by following alone."""

    def __init__(self, client: httpx.AsyncClient, login: Login) -> None:
        self._client = client
        self._login = login
        self.copy: Blogs = {}
        self.cursor: str | None = None

    def at(self, cursor: str | None, copy: Blogs) -> "Follower":
        """Another, who stopped there."""
        other = Follower(self._client, self._login)
        other.cursor, other.copy = cursor, dict(copy)
        return other

    async def step(self, limit: int = 100) -> list[dict[str, Any]]:
        """What one request told."""
        told = await ask(self._client, self._login, self.cursor, limit)
        self.cursor = told["cursor"]
        assert len(told["changes"]) <= limit
        for change in told["changes"]:
            assert ("blog" in change) == (change["change"] != "deleted")
            if "blog" in change:
                assert change["blog"]["id"] == change["id"]
                self.copy[change["id"]] = change["blog"]
            else:
                self.copy.pop(change["id"], None)
        changes: list[dict[str, Any]] = told["changes"]
        return changes

    async def follow(self, limit: int = 100) -> list[tuple[int, str]]:
        """Go on to the end, and say what was told."""
        told = []
        while changes := await self.step(limit):
            told += [(change["id"], change["change"]) for change in changes]
        return told

    async def listed(self) -> Blogs:
        """What the list has."""
        path: str | None = "/blog/?limit=100"
        blogs: Blogs = {}
        while path:
            answer = await self._client.get(path, headers=self._login)
            blogs |= {blog["id"]: blog for blog in answer.json()}
            path = answer.links.get("next", {}).get("url")
        return blogs


class People:
    """An owner, an admin and another, each following."""

    def __init__(self, client: httpx.AsyncClient, factory: Factory) -> None:
        self.client = client
        self.factory = factory
        self.users: dict[str, User] = {}
        self.logins: dict[str, Login] = {}
        self.followers: dict[str, Follower] = {}

    async def add(self, name: str, role: Role = Role.AUTHOR) -> User:
        self.users[name], self.logins[name] = await self.factory.logged_in(name, role=role)
        self.followers[name] = Follower(self.client, self.logins[name])
        return self.users[name]

    async def send(self, name: str, method: str, path: str, **body: Any) -> Any:
        answer = await self.client.request(
            method, path, json=body if method in ("PUT", "PATCH", "POST") else None, headers=self.logins[name]
        )
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def post(self, name: str, **body: Any) -> int:
        blog: int = (await self.send(name, "POST", "/blog/", **({"title": "Notes", "body": "Text"} | body)))["id"]
        return blog

    async def told(self) -> dict[str, list[str]]:
        """What each is told now of the one blog there is; each has what the list has then."""
        told = {}
        for name, follower in self.followers.items():
            told[name] = [kind for _, kind in await follower.follow()]
            assert follower.copy == await follower.listed(), name
        return told


@pytest.fixture
async def people(client: httpx.AsyncClient, factory: Factory) -> People:
    people = People(client, factory)
    await people.add("owner")
    await people.add("other")
    await people.add("admin", Role.ADMIN)
    return people


def to_all(*kinds: str) -> dict[str, list[str]]:
    return {"owner": list(kinds), "other": list(kinds), "admin": list(kinds)}


def to_owner(*kinds: str) -> dict[str, list[str]]:
    return {"owner": list(kinds), "other": [], "admin": []}


def to_both(owner: str, others: str) -> dict[str, list[str]]:
    return {"owner": [owner], "other": [others], "admin": [others]}


@on("sqlite")
class TestRefused:
    async def test_anonymous(self, client: httpx.AsyncClient) -> None:
        assert code(await client.get("/blog/changes?limit=0")) == (401, "not_authenticated")

    async def test_scope(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        login = factory.login(user, [Scope.BLOG_WRITE])
        assert code(await client.get("/blog/changes?limit=0", headers=login)) == (403, "insufficient_scope")

    @pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=1.0", f"since={'x' * 4097}"])
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, query: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.get(f"/blog/changes?{query}", headers=login)) == (422, "invalid")

    @pytest.mark.parametrize("of", [lambda cursor: "", lambda cursor: "x", lambda cursor: cursor[:-1]])
    async def test_cursor_of_nobody(
        self, client: httpx.AsyncClient, factory: Factory, of: Callable[[str], str]
    ) -> None:
        _, login = await factory.logged_in()
        since = of((await ask(client, login))["cursor"])
        answer = await client.get("/blog/changes", params={"since": since}, headers=login)
        assert code(answer) == (422, "invalid_cursor")

    async def test_cursor_of_another_user_or_list(self, client: httpx.AsyncClient, factory: Factory) -> None:
        ada, login = await factory.logged_in()
        for _ in range(2):
            await factory.blog(ada)
        _, other = await factory.logged_in("Bob")
        since = (await ask(client, login))["cursor"]
        of_list = (await client.get("/blog/?limit=1", headers=login)).links["next"]["url"].partition("cursor=")[2]
        for cursor, asks in ((since, other), (of_list, login)):
            answer = await client.get("/blog/changes", params={"since": cursor}, headers=asks)
            assert code(answer) == (422, "invalid_cursor")
        assert code(await client.get(f"/blog/?cursor={since}", headers=login)) == (422, "invalid_cursor")


class TestFollowed:
    async def test_nothing_is_there(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        first = await ask(client, login)
        assert first["changes"] == []
        again = await ask(client, login, first["cursor"])
        assert again["changes"] == []
        blog = await factory.blog(user)
        (change,) = (await ask(client, login, again["cursor"]))["changes"]
        assert (change["id"], change["change"], change["at"]) == (blog.id, "created", change["blog"]["updated_at"])

    async def test_from_the_first_in_pages(self, people: People, clock: Clock) -> None:
        await people.post("owner", status="draft")
        await people.post("other", status="draft")
        for number in range(3):
            await people.post("owner", title=f"{number}")
            await people.post("other", status="scheduled", publish_at=(clock.time + HOUR * (number + 1)).isoformat())
        clock.time += HOUR * 2
        followers = {
            (name, limit): follower.at(None, {})
            for name, follower in people.followers.items()
            for limit in (1, 2, 3, 4, 7, 8, 9, 100)
        }
        for (name, limit), follower in followers.items():
            told = await follower.follow(limit)
            assert len({number for number, _ in told}) == len(told), (name, limit)
            assert {kind for _, kind in told} == {"created"}, (name, limit)
            assert len(told) == {"owner": 6, "other": 7, "admin": 5}[name], (name, limit)
            assert follower.copy == await follower.listed(), (name, limit)
            assert await follower.follow(limit) == [], (name, limit)
        clock.time += HOUR
        for (name, limit), follower in followers.items():
            kinds = [kind for _, kind in await follower.follow()]
            assert kinds == ["updated" if name == "other" else "created"], (name, limit)
            assert follower.copy == await follower.listed(), (name, limit)

    async def test_each_stands_where_it_was_last_written(self, people: People) -> None:
        first, second = await people.post("owner"), await people.post("owner")
        await people.send("owner", "PATCH", f"/blog/{first}", title="Changed")
        assert await people.followers["other"].follow(1) == [(second, "created"), (first, "updated")]
        assert await people.followers["admin"].follow() == [(second, "created"), (first, "created")]

    async def test_statements(
        self, client: httpx.AsyncClient, factory: Factory, clock: Clock, statements: list[str]
    ) -> None:
        """Who asks; what became due; what was written; the blogs of both."""
        user, login = await factory.logged_in()
        bob = await factory.user("Bob")
        for number in range(5):
            await factory.blog(bob, published_at=clock.time + MINUTE * (2 + number))
            await factory.blog(user)
        since = (await ask(client, login))["cursor"]
        clock.time += HOUR
        await factory.blog(user)
        for limit, told, number in ((100, 6, 4), (5, 5, 3)):
            statements.clear()
            assert len((await ask(client, login, since, limit))["changes"]) == told
            assert len(statements) == number
        statements.clear()
        await ask(client, login, (await ask(client, login))["cursor"])
        assert len(statements) == 4 + 3


class TestTransitions:
    async def test_published(self, people: People) -> None:
        blog = await people.post("owner")
        assert await people.told() == to_all("created")
        await people.send("owner", "PATCH", f"/blog/{blog}", title="Changed")
        assert await people.told() == to_all("updated")
        await people.send("admin", "PUT", f"/blog/{blog}", title="Changed", body="by an admin", tags=["a"])
        assert await people.told() == to_all("updated")
        await people.send("owner", "POST", f"/blog/{blog}/revisions/1/restore")
        assert await people.told() == to_all("updated")
        await people.send("owner", "DELETE", f"/blog/{blog}")
        assert await people.told() == to_all("deleted")
        assert await people.told() == to_all()

    async def test_a_change_that_says_nothing(self, people: People) -> None:
        blog = await people.post("owner")
        await people.told()
        await people.send("owner", "PATCH", f"/blog/{blog}")
        assert await people.told() == to_all()

    async def test_draft(self, people: People) -> None:
        blog = await people.post("owner", status="draft")
        assert await people.told() == to_owner("created")
        await people.send("owner", "PATCH", f"/blog/{blog}", title="Changed")
        assert await people.told() == to_owner("updated")
        await people.send("owner", "PATCH", f"/blog/{blog}", status="published")
        assert await people.told() == to_both("updated", "created")

    async def test_draft_that_goes(self, people: People) -> None:
        blog = await people.post("owner", status="draft")
        await people.told()
        await people.send("owner", "DELETE", f"/blog/{blog}")
        assert await people.told() == to_owner("deleted")

    async def test_withdrawn(self, people: People) -> None:
        blog = await people.post("owner")
        await people.told()
        await people.send("owner", "PATCH", f"/blog/{blog}", status="draft")
        assert await people.told() == to_both("updated", "deleted")
        await people.send("owner", "PATCH", f"/blog/{blog}", title="Changed")
        assert await people.told() == to_owner("updated")
        await people.send("owner", "PATCH", f"/blog/{blog}", status="published")
        assert await people.told() == to_both("updated", "created")
        await people.send("owner", "PATCH", f"/blog/{blog}", status="draft")
        await people.told()
        await people.send("owner", "DELETE", f"/blog/{blog}")
        assert await people.told() == to_owner("deleted"), "others were told before"

    async def test_withdrawn_and_changed_before_others_look(self, people: People) -> None:
        blog = await people.post("owner")
        await people.told()
        for change in ({"status": "draft"}, {"title": "Changed"}, {"body": "Changed"}):
            await people.send("owner", "PATCH", f"/blog/{blog}", **change)
        assert await people.told() == to_both("updated", "deleted")

    async def test_withdrawn_and_scheduled(self, people: People, clock: Clock) -> None:
        blog = await people.post("owner")
        await people.told()
        await people.send("owner", "PATCH", f"/blog/{blog}", status="draft")
        await people.told()
        due = (clock.time + HOUR).isoformat()
        await people.send("owner", "PATCH", f"/blog/{blog}", status="scheduled", publish_at=due)
        assert await people.told() == to_owner("updated")
        clock.time += HOUR
        assert await people.told() == to_both("updated", "created")

    @pytest.mark.parametrize("wait", [timedelta(seconds=30), HOUR])
    async def test_scheduled(self, people: People, clock: Clock, wait: timedelta) -> None:
        due = clock.time + wait
        blog = await people.post("owner", status="scheduled", publish_at=due.isoformat())
        assert await people.told() == to_owner("created")
        await people.send("owner", "PATCH", f"/blog/{blog}", title="Changed")
        assert await people.told() == to_owner("updated")
        clock.time = due - timedelta(seconds=1)
        assert await people.told() == to_all()
        clock.time = due
        assert await people.told() == to_both("updated", "created")
        assert await people.told() == to_all()
        await people.send("owner", "PATCH", f"/blog/{blog}", title="Changed again")
        assert await people.told() == to_all("updated")
        await people.send("owner", "PATCH", f"/blog/{blog}", status="draft")
        assert await people.told() == to_both("updated", "deleted")

    async def test_scheduled_and_deleted_when_due(self, people: People, clock: Clock) -> None:
        blog = await people.post("owner", status="scheduled", publish_at=(clock.time + HOUR).isoformat())
        await people.told()
        clock.time += HOUR
        await people.told()
        await people.send("owner", "DELETE", f"/blog/{blog}")
        assert await people.told() == to_all("deleted")

    @pytest.mark.parametrize("change", [{"status": "draft"}, {"publish_at": DAY + HOUR * 9}, None])
    async def test_scheduled_and_never_seen(self, people: People, clock: Clock, change: dict[str, Any] | None) -> None:
        blog = await people.post("owner", status="scheduled", publish_at=(clock.time + HOUR).isoformat())
        await people.told()
        if change is None:
            await people.send("owner", "DELETE", f"/blog/{blog}")
        else:
            body = {name: getattr(value, "isoformat", lambda value=value: value)() for name, value in change.items()}
            await people.send("owner", "PATCH", f"/blog/{blog}", **body)
        assert await people.told() == to_owner("deleted" if change is None else "updated")
        clock.time += HOUR * 2
        assert await people.told() == to_all()

    async def test_published_and_put_off(self, people: People, clock: Clock) -> None:
        blog = await people.post("owner")
        await people.told()
        await people.send("owner", "PATCH", f"/blog/{blog}", publish_at=(clock.time + HOUR).isoformat())
        assert await people.told() == to_both("updated", "deleted")
        for change in ({"title": "Changed"}, {"publish_at": (clock.time + HOUR * 2).isoformat()}):
            await people.send("owner", "PATCH", f"/blog/{blog}", **change)
            assert await people.told() == to_owner("updated")
        clock.time += HOUR * 2
        assert await people.told() == to_both("updated", "created")

    async def test_put_off_and_published_after_all(self, people: People, clock: Clock) -> None:
        blog = await people.post("owner")
        await people.send("owner", "PATCH", f"/blog/{blog}", publish_at=(clock.time + HOUR).isoformat())
        await people.told()
        await people.send("owner", "PATCH", f"/blog/{blog}", status="published")
        assert await people.told() == to_both("updated", "created")
        clock.time += HOUR
        assert await people.told() == to_all()

    @pytest.mark.parametrize("kind", [{}, {"status": "draft"}, {"status": "scheduled"}])
    async def test_given_to_another(self, people: People, clock: Clock, kind: dict[str, str]) -> None:
        if kind.get("status") == "scheduled":
            kind = kind | {"publish_at": (clock.time + HOUR).isoformat()}
        await people.post("owner", **kind)
        await people.told()
        del people.followers["owner"]
        query = f"?blogs=reassign&to={people.users['other'].id}"
        await people.send("admin", "DELETE", f"/user/{people.users['owner'].id}{query}")
        seen = "updated" if not kind else None
        assert await people.told() == {"other": [seen or "created"], "admin": [seen] if seen else []}
        clock.time += HOUR
        due = kind.get("status") == "scheduled"
        assert await people.told() == {"other": ["updated"] if due else [], "admin": ["created"] if due else []}


@pytest.mark.parametrize("ahead", [-20, -3, 3, 20])
class TestClocksDiffer:
    """Another worker, whose clock is ahead or behind, asks and writes alternately with ours."""

    async def test_published(self, people: People, clock: Clock, ahead: int) -> None:
        clock.ahead = timedelta(seconds=ahead)
        await people.post("owner")
        clock.ahead = timedelta()
        for follower in people.followers.values():
            await follower.follow()
        clock.time += MINUTE
        for follower in people.followers.values():
            await follower.follow()
            assert follower.copy == await follower.listed()
            assert [blog["status"] for blog in follower.copy.values()] == ["published"]

    @on("sqlite")
    @pytest.mark.parametrize("seconds", [5, 59, 61])
    @pytest.mark.parametrize("change", [None, {"status": "draft"}, {"title": "Changed"}])
    async def test_scheduled(
        self, people: People, clock: Clock, ahead: int, seconds: int, change: dict[str, str] | None
    ) -> None:
        other, due = timedelta(seconds=ahead), clock.time + timedelta(seconds=seconds)
        for name in people.logins:  # each has been there by the other clock
            clock.ahead = other
            await people.followers[name].follow()
        clock.ahead = timedelta()
        blog = await people.post("owner", status="scheduled", publish_at=due.isoformat())
        for moment in (due - other, due, due + MINUTE):
            clock.time = max(clock.time, moment)
            for clock.ahead in (other, timedelta()):
                for follower in people.followers.values():
                    await follower.follow()
            if change is not None:
                await people.send("owner", "PATCH", f"/blog/{blog}", **change)
        clock.time = due + MINUTE * 3
        for follower in people.followers.values():
            await follower.follow()
            assert follower.copy == await follower.listed()


@pytest.mark.parametrize("back", [timedelta(seconds=1), MINUTE])
class TestClockGoesBack:
    """Whoever was told by one worker is told next by one whose clock is behind."""

    async def test_what_came_into_sight_is_told_once(self, people: People, clock: Clock, back: timedelta) -> None:
        await people.post("owner", status="scheduled", publish_at=(clock.time + HOUR).isoformat())
        await people.told()
        clock.time += HOUR
        assert await people.told() == to_both("updated", "created")
        for clock.ahead in (-back, timedelta()):
            for follower in people.followers.values():
                assert await follower.follow() == []

    async def test_what_was_seen_is_not_taken_back(self, people: People, clock: Clock, back: timedelta) -> None:
        blog = await people.post("owner")
        await people.send("owner", "PATCH", f"/blog/{blog}", publish_at=(clock.time + HOUR).isoformat())
        clock.time += HOUR
        await people.told()
        clock.ahead = -back
        await people.send("owner", "PATCH", f"/blog/{blog}", title="Changed")
        for follower in people.followers.values():
            await follower.follow()
            assert follower.copy[blog]["title"] == "Changed"
            assert follower.copy[blog]["status"] == "published"


class TestInParts:
    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_many_are_deleted_between_two_pages(self, people: People, limit: int) -> None:
        """All with one number: a page ends in the middle of it."""
        blogs = [await people.post("owner", title=f"{number}") for number in range(7)]
        kept = await people.post("other")
        await people.told()
        del people.followers["owner"]
        await people.send("admin", "DELETE", f"/user/{people.users['owner'].id}?blogs=delete")
        for follower in people.followers.values():
            await follower.step(limit)
            assert len(follower.copy) == 8 - limit
            assert await follower.follow(limit) == [(number, "deleted") for number in blogs[limit:]]
            assert list(follower.copy) == [kept]
            assert follower.copy == await follower.listed()

    async def test_what_is_deleted_while_it_is_read(
        self, people: People, monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
    ) -> None:
        """Between the statement that finds changes and the one that reads the blogs."""
        blogs = [await people.post("owner", title=f"{number}") for number in range(4)]
        future = datetime(2100, 1, 1, tzinfo=UTC).isoformat()
        read_many = BlogRepository.read_many

        async def late(repository: BlogRepository, *arguments: Any, **named: Any) -> Any:
            monkeypatch.setattr(BlogRepository, "read_many", read_many)
            await people.send("owner", "DELETE", f"/blog/{blogs[0]}")
            await people.send("owner", "PATCH", f"/blog/{blogs[1]}", status="draft")
            await people.send("owner", "PATCH", f"/blog/{blogs[2]}", publish_at=future)
            return await read_many(repository, *arguments, **named)

        monkeypatch.setattr(BlogRepository, "read_many", late)
        other = people.followers["other"]
        told = [(change["id"], change["change"]) for change in await other.step()]
        assert told == [*((number, "deleted") for number in blogs[:3]), (blogs[3], "created")]
        await other.follow()
        assert other.copy == await other.listed()


class Story:
    """What three people do at random, and how others follow it."""

    def __init__(self, people: People, clock: Clock, app: FastAPI, seed: int, *, clocks_differ: bool) -> None:
        self._people = people
        self._clock = clock
        self._database = app.state.database
        self._choose = random.Random(seed)
        self._clocks_differ = clocks_differ
        self._kept: dict[str, list[tuple[str | None, Blogs]]] = {name: [(None, {})] for name in people.followers}
        self._may_know: dict[str, set[int]] = {name: set() for name in people.followers}
        self.checks = 0
        self.told = 0

    async def go_on(self) -> None:
        """One thing is done; somebody may follow; perhaps all do, from now and from an earlier time."""
        choose, name = self._choose, self._choose.choice(list(self._people.followers))
        await self._look()
        self._skew()
        await self._act()
        self._skew()
        await self._look()
        if choose.random() < 0.5:
            follower = self._people.followers[name]
            await self._follow(follower, name)
            if not self._clocks_differ:
                assert follower.copy == await follower.listed()
            self._kept[name].append((follower.cursor, dict(follower.copy)))
        if choose.random() < 0.15:
            await self._check()

    def _skew(self) -> None:
        if self._clocks_differ:
            self._clock.ahead = timedelta(seconds=self._choose.choice([0, 0, -7, -2, 2, 7]))

    async def _look(self) -> None:
        """Note what each may know of: one's own, and what is public or will be within a minute or by another clock."""
        soon = self._clock.time + timedelta(seconds=90)
        statement = select(col(Blog.id), col(Blog.creator_id), col(Blog.is_draft), col(Blog.published_at))
        async with self._database.fresh() as session:
            for row in (await session.execute(statement)).all():
                for name, known in self._may_know.items():
                    is_own = row.creator_id == self._people.users[name].id
                    if is_own or (not row.is_draft and row.published_at <= soon):
                        known.add(row.id)

    async def _follow(self, follower: Follower, name: str) -> None:
        user = self._people.users[name]
        while changes := await follower.step(self._choose.choice([1, 2, 3, 5, 100])):
            self.told += len(changes)
            for change in changes:
                assert change["id"] in self._may_know[name]
                if "blog" in change and change["blog"]["creator"]["id"] != user.id:
                    assert change["blog"]["status"] == "published"

    async def _check(self) -> None:
        if self._clocks_differ:
            self._clock.ahead = timedelta()
            self._clock.time += timedelta(seconds=30)
        await self._look()
        for name, follower in self._people.followers.items():
            for each in (follower, follower.at(*self._choose.choice(self._kept[name]))):
                await self._follow(each, name)
                assert each.copy == await each.listed()
                self.checks += 1

    async def _act(self) -> None:
        acts = [self._wait, self._delete_user, self._post, self._change, self._change, self._delete, self._restore]
        await self._choose.choice(acts)(self._choose.choice(list(self._people.users)))

    async def _wait(self, _: str) -> None:
        self._clock.time += timedelta(seconds=self._choose.choice([1, 2, 5, 60, 400]))

    async def _delete_user(self, _: str) -> None:
        if self._choose.random() < 0.7:
            return
        to = self._people.users[self._choose.choice(["admin", "other"])].id
        query = self._choose.choice(["?blogs=delete", f"?blogs=reassign&to={to}"])
        await self._people.send("admin", "DELETE", f"/user/{self._people.users['owner'].id}{query}")
        await self._people.add("owner")
        self._kept["owner"], self._may_know["owner"] = [(None, {})], set()
        self._may_know["owner"] |= self._may_know["other"] & self._may_know["admin"]

    async def _post(self, name: str) -> None:
        title, tags = f"{self._choose.random()}", self._choose.sample("abc", 2)
        await self._people.post(name, title=title, tags=tags, **self._status())

    async def _change(self, name: str) -> None:
        new = f"{self._choose.random()}"
        changes: list[dict[str, Any]] = [
            {"title": new},
            {"tags": [new]},
            {"slug": new},
            {"summary": new},
            self._status(),
            self._status(),
        ]
        await self._to_one(name, "PATCH", **self._choose.choice(changes))

    async def _delete(self, name: str) -> None:
        await self._to_one(name, "DELETE")

    async def _restore(self, name: str) -> None:
        await self._to_one(name, "POST", "/revisions/1/restore")

    async def _to_one(self, name: str, method: str, path: str = "", **body: Any) -> None:
        listed = await self._people.send(name, "GET", "/blog/?limit=100")
        mine = [blog for blog in listed if name in ("admin", blog["creator"]["name"])]
        if mine:
            await self._people.send(name, method, f"/blog/{self._choose.choice(mine)['id']}{path}", **body)

    def _status(self) -> dict[str, str]:
        seconds = self._choose.choice([-5000, -1, 0, 1, 2, 5, 40, 70, 300, 4000])
        due = (self._clock.time + timedelta(seconds=seconds)).isoformat()
        return self._choose.choice(
            [{"status": "published"}, {"status": "draft"}, {"status": "scheduled", "publish_at": due}]
        )


@pytest.mark.parametrize(
    ("engine_name", "clocks_differ"),
    [("sqlite", False), *((name, True) for name in ALL_ENGINES)],
    indirect=["engine_name"],
    scope="session",
)
async def test_whatever_happens(people: People, clock: Clock, app: FastAPI, *, clocks_differ: bool) -> None:
    """Each who follows, from wherever and in pages of whatever length, ends with what the list has for them."""
    story = Story(people, clock, app, seed=int(clocks_differ), clocks_differ=clocks_differ)
    for _ in range(120):
        await story.go_on()
    assert story.checks > 50
    assert story.told > 100
