"""POSTs that are sent again with their Idempotency-Key."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, col

from blog.app import create_app
from blog.database import was_outwaited
from blog.dependencies import get_current_user
from blog.idempotency import get_kept_answer
from blog.models import Blog, IdempotencyKey, OneTimeLink, PersonalToken, Room, User, now
from blog.repository.idempotency import FORGOTTEN_AT_ONCE, IdempotencyRepository
from blog.security.access import Scope
from blog.security.passwords import PasswordHasher
from blog.security.seals import Seals
from blog.settings import Settings
from tests.answers import code, count
from tests.conftest import ALL_ENGINES, client_of, commits_fail, make_settings, on, patient_app, statements_of
from tests.factories import Factory, bearer

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
REUSED = (422, "idempotency_key_reused")
IN_USE = (409, "idempotency_key_in_use")


class Making(NamedTuple):
    """What a POST makes, and the field that can be another."""

    path: str
    model: type[SQLModel]
    body: dict[str, Any]
    field: str
    other: str
    mails: int = 0
    secret: str | None = None

    @property
    def another(self) -> dict[str, Any]:
        return self.body | {self.field: self.other}


MAKINGS = {
    making.path: making
    for making in [
        Making(
            "/user/",
            User,
            {"name": "New", "email": "new@example.com", "password": "a password of nobody's"},
            "email",
            "other@example.com",
            mails=1,
        ),
        Making(
            "/user/me/tokens",
            PersonalToken,
            {"name": "Script", "scopes": ["blog:read"], "expires_at": "2190-01-01T00:00:00Z"},
            "name",
            "Another",
            mails=1,
            secret="token",
        ),
        Making(
            "/invitation/",
            OneTimeLink,
            {"role": "reader", "email": "new@example.com"},
            "email",
            "other@example.com",
            mails=1,
            secret="link",
        ),
        Making("/blog/", Blog, {"title": "Notes", "body": "Text"}, "title", "Other"),
        Making("/room/", Room, {"name": "Looms"}, "name", "Other"),
    ]
}
BY_SOMEBODY = [path for path in MAKINGS if path != "/user/"]


class World:
    """An app in which mail is counted, and an admin."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        self.app = app
        self.client = client
        self.factory = factory
        self.mails: list[object] = []
        self.admin: User
        self.login: dict[str, str]

    async def post(
        self, path: str, body: Any, key: str | None = KEY, login: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = (self.login if login is None else login) | ({} if key is None else {"Idempotency-Key": key})
        return await self.client.post(path, json=body, headers=headers)

    async def count(self, model: type[SQLModel]) -> int:
        return await count(self.app, model)

    async def kept(self) -> list[IdempotencyKey]:
        async with self.app.state.database.fresh() as session:
            return list((await session.scalars(select(IdempotencyKey))).all())

    async def expire(self) -> None:
        async with self.app.state.database.write.begin() as session:
            await session.execute(update(IdempotencyKey).values(expires_at=now()))


@asynccontextmanager
async def world_of(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: World | None = None,
    make: Callable[[Settings], FastAPI] = patient_app,
) -> AsyncIterator[World]:
    """An app of its own, or one that takes the place of the one before."""
    other = make(settings)
    async with other.router.lifespan_context(other), client_of(other) as client:
        world = World(other, client, Factory(other))

        async def note(mail: object, *_: object) -> None:
            world.mails.append(mail)

        monkeypatch.setattr(other.state.mailer, "send", note)
        monkeypatch.setattr(other.state.link_mailer, "send_email_verification", note)
        if before is None:
            world.admin = await world.factory.admin()
        else:
            world.admin, world.factory.logins = before.admin, before.factory.logins
        world.login = world.factory.login(world.admin)
        yield world


@pytest.fixture
async def world(app: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with world_of(settings.model_copy(update={"email_verification": True}), monkeypatch) as world:
        yield world


def each(paths: Iterable[str], *engines: str) -> pytest.MarkDecorator:
    """Each of these that makes something, on SQLite; and on every engine two, because all are kept in one way."""
    engines = engines or ALL_ENGINES
    cases = [(name, path) for name in engines for path in paths if name == "sqlite" or path in ("/user/", "/blog/")]
    return pytest.mark.parametrize(("engine_name", "path"), cases, indirect=["engine_name"], scope="session")


def same(first: httpx.Response, second: httpx.Response) -> bool:
    """Whether two answers are one, but for what each message has of its own."""
    own = ("x-request-id", "idempotency-replayed")

    def kept(response: httpx.Response) -> list[tuple[str, str]]:
        return sorted(header for header in response.headers.items() if header[0] not in own)

    return (first.status_code, first.content, kept(first)) == (second.status_code, second.content, kept(second))


class TestAgain:
    @each(MAKINGS)
    async def test_the_first_answer_comes_again(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        first = await world.post(path, making.body)
        assert first.status_code == 201
        assert "idempotency-replayed" not in first.headers
        for _ in range(2):
            again = await world.post(path, making.body)
            assert again.headers["idempotency-replayed"] == "true"
            assert same(first, again)
        assert again.headers["location"] == first.headers["location"]
        assert await world.count(making.model) == before + 1
        assert len(world.mails) == making.mails

    @each(MAKINGS, "sqlite")
    async def test_by_the_other_spelling_of_the_path(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        first = await world.post(path, making.body)
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        assert same(first, await world.post(other, making.body))

    @each(MAKINGS)
    async def test_with_another_body(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        await world.post(path, making.body)
        assert code(await world.post(path, making.another)) == REUSED
        assert code(await world.post(path, {"nonsense": 1})) == REUSED
        assert await world.count(making.model) == before + 1
        assert (await world.post(path, making.body)).headers["idempotency-replayed"] == "true"

    @each(MAKINGS, "sqlite")
    async def test_with_another_query(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        first = await world.post(f"{path}?a=1", making.body)
        assert first.status_code == 201
        for query in ("", "?", "?a=2", "?a=1&b=2"):
            assert code(await world.post(f"{path}{query}", making.body)) == REUSED
        assert await world.count(making.model) == before + 1
        assert same(first, await world.post(f"{path}?a=1", making.body))

    @each(MAKINGS, "sqlite")
    async def test_with_another_media_type(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        content, headers = json.dumps(making.body), world.login | {"Idempotency-Key": KEY}
        for kind, status in {"application/merge-patch+json": 201, "application/json": 422}.items():
            response = await world.client.post(path, content=content, headers=headers | {"Content-Type": kind})
            assert response.status_code == status
        assert code(response) == REUSED
        assert await world.count(making.model) == before + 1

    @each(MAKINGS)
    async def test_with_another_key_or_none(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        bodies = [making.body, making.another, making.body | {making.field: "third@example.com"}]
        for key, body in zip((KEY, KEY.upper(), None), bodies, strict=True):
            response = await world.post(path, body, key)
            assert response.status_code == 201
            assert "idempotency-replayed" not in response.headers
        assert await world.count(making.model) == before + 3
        assert len(await world.kept()) == 2

    @each(MAKINGS)
    async def test_ten_at_once_make_one(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        answers = await asyncio.gather(*(world.post(path, making.body) for _ in range(10)))
        assert [answer.status_code for answer in answers] == [201] * 10
        assert all(same(answers[0], answer) for answer in answers)
        assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {None: 1, "true": 9}
        assert await world.count(making.model) == before + 1
        assert len(await world.kept()) == 1
        assert len(world.mails) == making.mails

    @each(MAKINGS)
    async def test_ten_at_once_with_two_bodies_make_one(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        bodies = [making.body, making.another] * 5
        answers = await asyncio.gather(*(world.post(path, body) for body in bodies))
        assert Counter(answer.status_code for answer in answers) == {201: 5, 422: 5}
        assert {code(answer) for answer in answers if answer.is_error} == {REUSED}
        assert len({answer.content for answer in answers if answer.is_success}) == 1
        assert await world.count(making.model) == before + 1
        assert len(world.mails) == making.mails

    @each(MAKINGS)
    async def test_a_day_later_it_makes_another(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        await world.post(path, making.body)
        (kept,) = await world.kept()
        assert now() + timedelta(hours=23) < kept.expires_at <= now() + timedelta(days=1)
        await world.expire()
        response = await world.post(path, making.another)
        assert response.status_code == 201
        assert "idempotency-replayed" not in response.headers
        assert await world.count(making.model) == before + 2
        (kept,) = await world.kept()
        assert kept.expires_at > now()

    @each(MAKINGS)
    async def test_a_commit_that_fails_leaves_neither(self, world: World, path: str) -> None:
        """A key without what it tells of, or the other way round, would be worse than none."""
        making = MAKINGS[path]
        before = await world.count(making.model)
        with commits_fail(world.app):
            assert (await world.post(path, making.body)).status_code == 503
        assert (await world.count(making.model), await world.kept()) == (before, [])
        assert world.mails == []
        assert (await world.post(path, making.body)).status_code == 201
        assert (await world.count(making.model), len(await world.kept())) == (before + 1, 1)

    @each(MAKINGS, "sqlite")
    async def test_what_is_kept_is_not_to_be_read(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        response = await world.post(path, making.body)
        (kept,) = await world.kept()
        told = json.dumps(kept.model_dump(), default=str)
        secrets = [KEY, making.body[making.field], *([response.json()[making.secret]] if making.secret else [])]
        for secret in secrets:
            assert secret not in told
        # Nor by who knows the key, or the secret of the server, but not both.
        whose = "" if kept.user_id is None else str(kept.user_id)
        secret = world.app.state.settings.secrets
        assert Seals(secret).of(whose, "POST", path, KEY).open(kept.answer) is not None
        for seals, words in [
            (Seals(["another secret"]), (whose, "POST", path, KEY)),
            (Seals(secret), (whose, "POST", path, "another key")),
            (Seals(secret), ("7" + whose, "POST", path, KEY)),
        ]:
            assert seals.of(*words).open(kept.answer) is None
            assert kept.key not in seals.of(*words).names

    @each(MAKINGS, "sqlite")
    async def test_after_a_change_of_the_servers_secret(
        self, world: World, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        making = MAKINGS[path]
        first = await world.post(path, making.body)
        old = world.app.state.settings
        changes = {"secret_key": make_settings(secret_key="n" * 40).secret_key}
        settings = old.model_copy(update=changes | {"other_secret_keys": frozenset([old.secret_key])})
        async with world_of(settings, monkeypatch, before=world) as later:
            assert same(first, await later.post(path, making.body, login=world.login))
            assert same(first, await later.post(path, making.body))
        async with world_of(old.model_copy(update=changes), monkeypatch, before=world) as later:
            assert "idempotency-replayed" not in (await later.post(path, making.another)).headers

    @each(MAKINGS, "sqlite")
    async def test_what_is_refused_keeps_the_key_free(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        assert code(await world.post(path, {"nonsense": 1})) == (422, "invalid")
        assert await world.kept() == []
        response = await world.post(path, making.body)
        assert response.status_code == 201
        assert "idempotency-replayed" not in response.headers

    @each(MAKINGS)
    async def test_it_costs_nothing_without_a_key(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        with statements_of(world.app) as statements:
            assert (await world.post(path, making.body, None)).status_code == 201
            plain = len(statements)
            assert not [statement for statement in statements if "idempotency" in statement]
            statements.clear()
            await world.post(path, making.another)
            # What is kept under the key, what expired, and the answer.
            assert len(statements) == plain + 3
            statements.clear()
            await world.post(path, making.another)
            assert len(statements) == (1 if path == "/user/" else 2)


class TestWhose:
    @each(BY_SOMEBODY, "sqlite")
    async def test_who_asks_comes_first(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        await world.post(path, making.body)
        assert code(await world.post(path, making.body, login={})) == (401, "not_authenticated")
        assert code(await world.post(path, making.body, login=bearer("x"))) == (401, "invalid_token")
        narrow = world.factory.login(world.admin, [Scope.USER_READ])
        assert code(await world.post(path, making.body, login=narrow)) == (403, "insufficient_scope")

    @each(BY_SOMEBODY)
    async def test_anothers_key_is_another(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        before = await world.count(making.model)
        first = await world.post(path, making.body)
        other = world.factory.login(await world.factory.admin())
        second = await world.post(path, making.body, login=other)
        assert second.status_code == 201
        assert "idempotency-replayed" not in second.headers
        assert first.content != second.content
        assert await world.count(making.model) == before + 2

    @each(BY_SOMEBODY)
    async def test_it_goes_with_its_user(self, world: World, path: str) -> None:
        making = MAKINGS[path]
        user = await world.factory.admin()
        login = world.factory.login(user)
        await world.post(path, making.body, login=login)
        (kept,) = await world.kept()
        assert kept.user_id == user.id
        response = await world.client.delete(f"/user/{user.id}?blogs=delete", headers=world.login)
        assert response.status_code == 204
        assert await world.kept() == []
        assert code(await world.post(path, making.body, login=login)) == (401, "invalid_token")


class TestRegister:
    MAKING = MAKINGS["/user/"]

    async def test_an_invitation_that_the_first_one_used(self, world: World) -> None:
        invitation = (await world.post("/invitation/", {"role": "reader"}, None)).json()["token"]
        body = self.MAKING.body | {"invitation": invitation}
        first = await world.post("/user/", body)
        assert first.status_code == 201
        assert same(first, await world.post("/user/", body))
        assert code(await world.post("/user/", body, None)) == (400, "invalid_link")

    async def test_ten_at_once_with_one_invitation(self, world: World) -> None:
        invitation = (await world.post("/invitation/", {"role": "reader"}, None)).json()["token"]
        body = self.MAKING.body | {"invitation": invitation}
        answers = await asyncio.gather(*(world.post("/user/", body) for _ in range(10)))
        assert [answer.status_code for answer in answers] == [201] * 10
        assert len({answer.content for answer in answers}) == 1

    async def test_an_address_that_another_has(self, world: World) -> None:
        await world.post("/user/", self.MAKING.body, None)
        assert code(await world.post("/user/", self.MAKING.body)) == (409, "email_taken")
        assert await world.kept() == []

    @on("sqlite")
    async def test_no_password_is_hashed_again(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        await world.post("/user/", self.MAKING.body)

        async def fail(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(PasswordHasher, "hash", fail)
        assert (await world.post("/user/", self.MAKING.body)).status_code == 201
        assert code(await world.post("/user/", self.MAKING.another)) == REUSED

    async def test_a_user_who_is_deleted_was_made_all_the_same(self, world: World) -> None:
        first = await world.post("/user/", self.MAKING.body)
        await world.client.delete(first.headers["location"], headers=world.login)
        assert same(first, await world.post("/user/", self.MAKING.body))
        assert (await world.client.get(first.headers["location"], headers=world.login)).status_code == 404


@on("sqlite")
async def test_a_login_for_less_gets_no_token_for_more(world: World) -> None:
    making = MAKINGS["/user/me/tokens"]
    user = await world.factory.user()
    assert (await world.post(making.path, making.body, login=world.factory.login(user))).status_code == 201
    narrow = world.factory.login(user, [Scope.USER_WRITE])
    assert code(await world.post(making.path, making.body, login=narrow)) == (403, "insufficient_scope")


async def test_the_use_of_a_personal_token_is_noted_behind_a_replay(world: World) -> None:
    making = MAKINGS["/blog/"]
    user = await world.factory.user()
    login = bearer(await world.factory.personal_token(user))
    for _ in range(2):
        await world.post(making.path, making.body, login=login)
        async with world.app.state.database.write.begin() as session:
            (token,) = (await session.scalars(select(PersonalToken))).all()
            assert token.last_used_at is not None
            token.last_used_at = None


@on("sqlite")
@pytest.mark.parametrize("key", ["", " ", "a b", "\t", "k" * 256, "k" * 30_000, "é", "\x7f", "a,\x01"])
async def test_what_is_no_key(world: World, key: str) -> None:
    headers = [(name.encode(), value.encode()) for name, value in world.login.items()]
    named = (b"Idempotency-Key", key.encode("latin-1"))
    response = await world.client.post("/blog/", json=MAKINGS["/blog/"].body, headers=[*headers, named])
    assert code(response) == (422, "invalid")
    assert await world.count(Blog) == 0


@on("sqlite")
@pytest.mark.parametrize("key", ["k", "k" * 255, '"8e03978e"', "".join(map(chr, range(0x21, 0x7F)))])
async def test_what_is_one(world: World, key: str) -> None:
    for _ in range(2):
        assert (await world.post("/blog/", MAKINGS["/blog/"].body, key)).status_code == 201
    assert await world.count(Blog) == 1


@on("sqlite")
async def test_two_keys(world: World) -> None:
    headers = [*world.login.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    response = await world.client.post("/blog/", json=MAKINGS["/blog/"].body, headers=headers)
    assert code(response) == (422, "invalid")
    assert await world.count(Blog) == 0


async def test_expired_ones_go_as_others_come(world: World) -> None:
    making = MAKINGS["/blog/"]
    for number in range(FORGOTTEN_AT_ONCE + 3):
        await world.post(making.path, making.body, f"old-{number}")
    await world.expire()
    await world.post(making.path, making.body, "new")
    assert len(await world.kept()) == 4
    await world.post(making.path, making.body, "newer")
    assert len(await world.kept()) == 2


async def test_an_expired_one_makes_room_however_many_are_older(world: World) -> None:
    making = MAKINGS["/blog/"]
    for number in range(FORGOTTEN_AT_ONCE):
        await world.post(making.path, making.body, f"old-{number}")
    older = [kept.key for kept in await world.kept()]
    await world.post(making.path, making.body)
    await world.expire()
    async with world.app.state.database.write.begin() as session:
        statement = update(IdempotencyKey).where(col(IdempotencyKey.key).in_(older))
        await session.execute(statement.values(expires_at=now() - timedelta(hours=1)))
    assert (await world.post(making.path, making.another)).status_code == 201
    assert len(await world.kept()) == 1


@on("postgresql", "mariadb")
async def test_nobody_waits_for_expired_ones_that_another_holds(world: World) -> None:
    making = MAKINGS["/blog/"]
    for number in range(3):
        await world.post(making.path, making.body, f"old-{number}")
    await world.expire()
    async with world.app.state.database.write.begin() as session:
        await session.execute(select(col(IdempotencyKey.key)).limit(1).with_for_update())
        assert (await world.post(making.path, making.body, "new")).status_code == 201
        assert len(await world.kept()) == 2  # the one that is held, and the new one
    await world.post(making.path, making.body, "newer")
    assert len(await world.kept()) == 2


async def test_expired_ones_go_while_their_users_do(world: World) -> None:
    """No two wait for each other, whichever index they come by."""
    making = MAKINGS["/blog/"]
    users = [await world.factory.user() for _ in range(4)]
    for user in users:
        for number in range(5):
            await world.post(making.path, making.body, f"old-{number}", world.factory.login(user))
    await world.expire()
    answers = await asyncio.gather(
        *(world.client.delete(f"/user/{user.id}?blogs=delete", headers=world.login) for user in users),
        *(world.post(making.path, making.body, f"new-{number}") for number in range(8)),
    )
    assert [answer.status_code for answer in answers] == [204] * 4 + [201] * 8


class TestTwinThatIsSlow:
    @pytest.fixture
    async def hasty(self, app: FastAPI, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
        for name, seconds in {"POOL": 10, "CONNECT": 10, "STATEMENT": 10, "ANSWER": 2}.items():
            monkeypatch.setattr(f"blog.database.{name}_TIMEOUT", seconds)
        monkeypatch.setattr("blog.database.LOCK_TIMEOUT", 1)  # MariaDB takes whole seconds
        async with world_of(settings, monkeypatch, make=create_app) as world:
            yield world

    async def test_whoever_waits_too_long_is_told_to_come_again(self, hasty: World, app: FastAPI) -> None:
        making = MAKINGS["/blog/"]
        async with app.state.database.write.begin() as session:
            await session.execute(select(col(User.id)).with_for_update())  # as whoever creates does
            response = await hasty.post(making.path, making.body)
            without = await hasty.post(making.path, making.body, None)
        assert code(response) == IN_USE
        assert int(response.headers["retry-after"]) > 0
        assert code(without) == (503, "database_unavailable")
        assert (await hasty.post(making.path, making.body)).status_code == 201


class TestOutwaited:
    @pytest.mark.parametrize(
        ("arguments", "outwaited"),
        [
            ((1205, "Lock wait timeout exceeded"), True),
            ((1213, "Deadlock found"), True),
            ((2013, "Lost"), False),
            ((), False),
        ],
    )
    def test_by_the_words_of_mariadb(self, arguments: tuple[Any, ...], outwaited: bool) -> None:
        assert was_outwaited(OperationalError("", {}, Exception(*arguments))) is outwaited

    def test_by_those_of_postgresql(self) -> None:
        class DeadlockError(Exception):
            sqlstate = "40P01"

        assert was_outwaited(OperationalError("", {}, DeadlockError("deadlock detected")))


@on("sqlite")
async def test_a_database_that_is_lost_is_no_twin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("gone"))

    monkeypatch.setattr(IdempotencyRepository, "add", fail)
    assert code(await world.post("/blog/", MAKINGS["/blog/"].body)) == (503, "database_unavailable")
    assert await world.count(Blog) == 0


def keyed_routes() -> Iterator[tuple[str, Dependant]]:
    for context in iter_route_contexts(create_app(make_settings()).routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.status_code == 201:
            yield str(context.path), route.dependant


def test_whatever_creates_takes_a_key_behind_whoever_asks() -> None:
    found = dict(keyed_routes())
    assert set(MAKINGS) <= set(found)
    for path, dependant in found.items():
        calls = [called_in(dependency) for dependency in dependant.dependencies]
        (place,) = [number for number, called in enumerate(calls) if get_kept_answer in called]
        askers = [number for number, called in enumerate(calls) if get_current_user in called]
        assert not askers or min(askers) < place, path
        assert bool(askers) == (path != "/user/"), path


def called_in(dependant: Dependant) -> set[object]:
    return {dependant.call}.union(*(called_in(dependency) for dependency in dependant.dependencies))
