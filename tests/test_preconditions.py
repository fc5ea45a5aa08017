"""Entity tags, and the requests that depend on them."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import col

from blog.errors import UserNotFound
from blog.models import PersonalToken, Purpose, Role, User, now
from blog.preconditions import etag_of
from blog.repository.link import LinkRepository
from blog.repository.login import PersonalTokenRepository
from blog.repository.user import UserRepository
from blog.schemas.types import Output
from blog.security.access import ALL
from tests.answers import code
from tests.conftest import make_settings, on, with_settings
from tests.factories import PASSWORD, Factory, bearer

FAILED = (412, "precondition_failed")
STALE = '"0123456789abcdef0123456789abcdef"'
ME, USER, TOKEN, INVITATION = "/user/me", "/user/{user}", "/user/me/tokens/{token}", "/invitation/{invitation}"
ROOM, MESSAGE = "/room/{room}", "/room/{room}/messages/{message}"
RESOURCES = [ME, USER, TOKEN, INVITATION, ROOM, MESSAGE]
CHANGES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", ME): {"json": {"about": "Changed."}},
    ("PATCH", USER): {"json": {"role": "reader"}},
    ("DELETE", USER): {},
    ("DELETE", TOKEN): {},
    ("DELETE", INVITATION): {},
    ("PATCH", ROOM): {"json": {"name": "Changed"}},
    ("DELETE", ROOM): {},
    ("DELETE", MESSAGE): {},
}


class World(NamedTuple):
    """An admin with one of everything, and a user to be changed."""

    client: httpx.AsyncClient
    ids: dict[str, int]
    user: User
    login: dict[str, str]

    async def ask(self, method: str, path: str, *headers: tuple[str, str], **more: Any) -> httpx.Response:
        return await self.client.request(
            method, path.format(**self.ids), headers=[*self.login.items(), *headers], **more
        )

    async def etag(self, path: str) -> str:
        return str((await self.ask("GET", path)).headers["etag"])


@pytest.fixture
async def world(app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> World:
    admin, user = await factory.admin(), await factory.user()
    async with app.state.database.write.begin() as session:
        token, _ = await PersonalTokenRepository(session).add(admin.id, "Script", ALL, now() + timedelta(days=1))
        invitation, _ = await LinkRepository(session).add(
            admin.id, Purpose.INVITATION, timedelta(days=1), role=Role.READER
        )
    room = await factory.room(admin)
    message = await factory.message(room.id, admin)
    ids = {"user": user.id, "token": token.id, "invitation": invitation.id, "room": room.id, "message": message}
    return World(client, ids, user, factory.login(admin))


class Shown(Output):
    title: str


class TestTag:
    def test_is_strong_and_of_all_parts_in_their_order(self) -> None:
        tags = {
            etag_of(*parts)
            for parts in [(), ("a",), ("a", "b"), ("ab",), ("b", "a"), (1,), ("1",), (None,), (Shown(title="a"),)]
        }
        assert len(tags) == 9
        assert all(len(tag) == 34 and tag[0] == tag[-1] == '"' and tag[1:-1].isalnum() for tag in tags)

    def test_is_the_same_for_the_same(self) -> None:
        assert etag_of(Shown(title="a"), 7) == etag_of(Shown(title="a"), 7)

    def test_half_a_surrogate_pair(self) -> None:
        assert etag_of("\ud800") != etag_of("\udbff")


class TestRead:
    @on("sqlite")
    @pytest.mark.parametrize("path", RESOURCES)
    async def test_it_has_a_tag_that_stays(self, world: World, path: str) -> None:
        first, second = await world.ask("GET", path), await world.ask("GET", path)
        assert first.headers["etag"] == second.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        assert first.json() == second.json()

    @on("sqlite")
    @pytest.mark.parametrize("path", RESOURCES)
    async def test_who_has_it_does_not_get_it_again(self, world: World, path: str) -> None:
        etag = await world.etag(path)
        for method in ("GET", "HEAD"):
            response = await world.ask(method, path, ("If-None-Match", etag))
            assert response.status_code == 304
            assert response.content == b""
            assert response.headers["etag"] == etag
            assert response.headers["cache-control"] == "private, no-cache"
            assert "content-type" not in response.headers
            assert response.headers["x-request-id"]

    @on("sqlite")
    @pytest.mark.parametrize(
        "write",
        [
            lambda etag: [etag],
            lambda etag: [f"W/{etag}"],
            lambda etag: ["*"],
            lambda etag: [f" {STALE} ,, {etag}\t"],
            lambda etag: [STALE, etag],
            lambda etag: [f'"a", W/"b",W/{etag}, x'],
        ],
    )
    async def test_spellings_that_name_it(self, world: World, write: Callable[[str], list[str]]) -> None:
        lines = [("If-None-Match", line) for line in write(await world.etag(ME))]
        assert (await world.ask("GET", ME, *lines)).status_code == 304

    @on("sqlite")
    @pytest.mark.parametrize(
        "write",
        [
            lambda etag: [""],
            lambda etag: [STALE],
            lambda etag: [etag.strip('"')],
            lambda etag: [etag.upper()],
            lambda etag: [f"w/{etag}"],
            lambda etag: [f"W/ {etag}"],
            lambda etag: [f"*, {STALE}"],
            lambda etag: ['"*"'],
            lambda etag: [etag[:-1]],
            lambda etag: ['"' * 30_000],
            lambda etag: [", " * 15_000],
            lambda etag: ['W/"' * 10_000],
            lambda etag: ["\xe9\xff"],
        ],
    )
    async def test_spellings_that_do_not(self, world: World, write: Callable[[str], list[str]]) -> None:
        lines = [("If-None-Match", line) for line in write(await world.etag(ME))]
        response = await world.client.get(
            ME, headers=[(name.encode(), value.encode("latin-1")) for name, value in [*world.login.items(), *lines]]
        )
        assert response.status_code == 200

    async def test_a_change_changes_it(self, world: World) -> None:
        before = {path: await world.etag(path) for path in (ME, USER)}
        await world.ask("PATCH", ME, json={"about": "Changed."})
        await world.ask("PATCH", USER, json={"role": "reader"})
        for path, etag in before.items():
            response = await world.ask("GET", path, ("If-None-Match", etag))
            assert response.status_code == 200
            assert response.headers["etag"] != etag

    @on("sqlite")
    async def test_others_get_no_tag_of_what_they_do_not_see(self, world: World, factory: Factory) -> None:
        _, login = await factory.logged_in("Grace")
        path = f"/user/{world.user.id}"

        async def seen() -> tuple[str, str, str]:
            own = await world.client.get(path, headers=factory.login(world.user))
            others = await world.client.get(path, headers=login)
            return await world.etag(USER), own.headers["etag"], others.headers["etag"]

        admins, own, others = await seen()
        assert admins == own != others
        await world.ask("PATCH", USER, json={"role": "reader"})
        admins_next, own_next, others_next = await seen()
        assert admins_next == own_next != own
        assert others_next == others

    @on("sqlite")
    async def test_refusals_come_first(self, world: World, factory: Factory) -> None:
        none_match = {"If-None-Match": "*"}
        for path in RESOURCES:
            url = path.format(**world.ids)
            assert code(await world.client.get(url, headers=none_match)) == (401, "not_authenticated")
            narrow = factory.login(world.user, scopes=[])
            assert (await world.client.get(url, headers=none_match | narrow)).status_code == 403
        for path in ("/user/999", "/user/me/tokens/999", "/invitation/999", "/room/999999", "/room/{room}/messages/9"):
            assert (await world.ask("GET", path, ("If-None-Match", "*"))).status_code == 404

    async def test_the_use_of_a_personal_token_is_noted_all_the_same(
        self, app: FastAPI, world: World, factory: Factory
    ) -> None:
        headers = bearer(await factory.personal_token(world.user)) | {"If-None-Match": "*"}
        assert (await world.client.get(ME, headers=headers)).status_code == 304
        async with app.state.database.fresh() as session:
            token = (
                await session.scalars(select(PersonalToken).where(col(PersonalToken.user_id) == world.user.id))
            ).one()
        assert token.last_used_at is not None

    async def test_it_costs_no_statement(self, world: World, statements: list[str]) -> None:
        for path, expected in {ME: 1, USER: 3, TOKEN: 2, INVITATION: 2, ROOM: 2, MESSAGE: 3}.items():
            for headers in ([], [("If-None-Match", STALE)], [("If-None-Match", "*")]):
                statements.clear()
                await world.ask("GET", path, *headers)
                assert len(statements) == expected, (path, headers)


class TestChange:
    @on("sqlite")
    @pytest.mark.parametrize(("method", "path"), CHANGES)
    async def test_of_something_else_by_now(self, world: World, method: str, path: str) -> None:
        etag = await world.etag(path)
        for lines in (
            [("If-Match", STALE)],
            [("If-Match", f"W/{etag}")],
            [("If-Match", "")],
            [("If-Match", "x" * 30_000)],
            [("If-Match", STALE), ("If-Match", '"x"')],
            [("If-None-Match", "*")],
            [("If-Match", etag), ("If-None-Match", f"W/{etag}")],
        ):
            response = await world.ask(method, path, *lines, **CHANGES[method, path])
            assert code(response) == FAILED, lines
            assert response.headers["etag"] == etag
        assert await world.etag(path) == etag

    @on("sqlite")
    @pytest.mark.parametrize(("method", "path"), CHANGES)
    @pytest.mark.parametrize("write", ["{}", "*", STALE + ", {}", '"a,b",{}'])
    async def test_of_what_was_read(self, world: World, method: str, path: str, write: str) -> None:
        etag = await world.etag(path)
        response = await world.ask(method, path, ("If-Match", write.format(etag)), **CHANGES[method, path])
        assert response.is_success
        if path in (ME, ROOM) and method == "PATCH":
            assert response.headers["etag"] == await world.etag(path) != etag

    async def test_one_after_another(self, world: World) -> None:
        etag = await world.etag(ME)
        for about in ("One.", "Two.", "Three."):
            response = await world.ask("PATCH", ME, ("If-Match", etag), json={"about": about})
            assert response.status_code == 200
            etag = response.headers["etag"]
        assert etag == await world.etag(ME)

    @on("sqlite")
    @pytest.mark.parametrize(("method", "path"), CHANGES)
    async def test_refusals_come_first(self, world: World, factory: Factory, method: str, path: str) -> None:
        stale = {"If-Match": STALE}
        url = path.format(**world.ids)
        assert code(await world.client.request(method, url, headers=stale)) == (401, "not_authenticated")
        narrow = factory.login(world.user, scopes=[])
        refused = await world.client.request(method, url, headers=stale | narrow, **CHANGES[method, path])
        assert refused.status_code == 403
        if path != ME:
            gone = f"{url.rpartition('/')[0]}/999999"
            response = await world.ask(method, gone, ("If-Match", "*"), **CHANGES[method, path])
            assert response.status_code == 404
        if method == "PATCH":
            response = await world.ask(method, path, ("If-Match", STALE), json={"nonsense": 1})
            assert code(response) == (422, "invalid")

    @on("sqlite")
    async def test_the_password_comes_first(self, world: World, factory: Factory) -> None:
        login, path = factory.login(world.user), f"/user/{world.user.id}"
        stale = login | {"If-Match": STALE}
        body = {"email": "new@example.com", "current_password": "wrong"}
        assert code(await world.client.patch(ME, json=body, headers=stale)) == (403, "wrong_password")
        body["current_password"] = PASSWORD
        assert code(await world.client.patch(ME, json=body, headers=stale)) == FAILED
        for password, answer in {"wrong": (403, "wrong_password"), PASSWORD: FAILED}.items():
            response = await world.client.request("DELETE", path, json={"current_password": password}, headers=stale)
            assert code(response) == answer
        etag = (await world.client.get(path, headers=login)).headers["etag"]
        response = await world.client.request(
            "DELETE", path, json={"current_password": PASSWORD}, headers=login | {"If-Match": etag}
        )
        assert response.status_code == 204

    async def test_a_new_blog_is_a_change_of_who_is_to_be_deleted(self, world: World, factory: Factory) -> None:
        etag = await world.etag(USER)
        await factory.blog(world.user)
        response = await world.ask("DELETE", USER, ("If-Match", etag), params={"blogs": "delete"})
        assert code(response) == FAILED

    @pytest.mark.parametrize(("method", "path"), CHANGES)
    async def test_of_many_with_one_tag_one_succeeds(self, world: World, method: str, path: str) -> None:
        etag = await world.etag(path)
        gone = 404 if method == "DELETE" and path != MESSAGE else 412  # of a message something stays
        answers = await asyncio.gather(
            *(world.ask(method, path, ("If-Match", etag), **CHANGES[method, path]) for _ in range(10))
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == sorted([200 if method == "PATCH" else 204] + [gone] * 9)

    @pytest.mark.parametrize(("path", "plain", "conditional"), [(ME, 4, 4), (USER, 4, 6)])
    async def test_it_costs_nothing_who_does_not_ask_for_it(
        self, world: World, statements: list[str], path: str, plain: int, conditional: int
    ) -> None:
        for headers, expected in (([], plain), ([("If-Match", "*")], conditional)):
            statements.clear()
            await world.ask("PATCH", path, *headers, **CHANGES["PATCH", path])
            assert len(statements) == expected, headers

    @on("sqlite")
    @pytest.mark.parametrize(
        ("path", "owner", "name"),
        [
            (USER, UserRepository, "lock"),
            (TOKEN, PersonalTokenRepository, "lock"),
            (INVITATION, LinkRepository, "get_invitation"),
        ],
    )
    async def test_of_what_somebody_deletes_meanwhile(
        self, world: World, monkeypatch: pytest.MonkeyPatch, path: str, owner: type, name: str
    ) -> None:
        async def nothing(*_: object) -> None:
            if owner is UserRepository:
                raise UserNotFound

        monkeypatch.setattr(owner, name, nothing)
        assert (await world.ask("DELETE", path, ("If-Match", "*"))).status_code == 404


@on("sqlite")
async def test_a_page_of_another_site_may_use_them(app: FastAPI) -> None:
    origins = make_settings(cors_origins="https://app.example.com").cors_origins
    asked = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "If-Match, If-None-Match, Idempotency-Key",
    }
    async with with_settings(app, cors_origins=origins) as elsewhere:
        assert (await elsewhere.options(ME, headers=asked)).status_code == 200
        response = await elsewhere.get("/health", headers={"Origin": "https://app.example.com"})
    assert {"ETag", "Idempotency-Replayed"} <= set(response.headers["access-control-expose-headers"].split(", "))
