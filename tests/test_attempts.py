"""How many passwords may be guessed, by whom, and who is not locked out by it."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from blog.app import create_app
from blog.attempts import Attempts
from blog.models import LoginFailure, User, now
from blog.settings import Settings
from tests.answers import code
from tests.conftest import on, patient_app
from tests.factories import PASSWORD, Factory

WRONG = "not the password"
LIMIT = 10
LIMITED = (429, "too_many_failures")
FAILED = (401, "invalid_grant")


def at(app: FastAPI, address: str) -> httpx.AsyncClient:
    """A client at this address."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://127.0.0.1:8000")


async def log_in(app: FastAPI, address: str, account: str, password: str = WRONG, **headers: str) -> httpx.Response:
    async with at(app, address) as client:
        return await client.post("/login", data={"username": account, "password": password}, headers=headers)


async def fail(app: FastAPI, address: str, account: str, times: int = LIMIT) -> None:
    for _ in range(times):
        assert code(await log_in(app, address, account)) == FAILED


async def stored(app: FastAPI) -> list[LoginFailure]:
    async with app.state.database.fresh() as session:
        return list(await session.scalars(select(LoginFailure)))


@pytest.fixture
async def user(factory: Factory) -> User:
    return await factory.user()


async def test_of_one_address_for_one_account(app: FastAPI, user: User) -> None:
    await fail(app, "192.0.2.1", user.email)
    for password in (WRONG, PASSWORD):
        response = await log_in(app, "192.0.2.1", user.email, password)
        assert code(response) == LIMITED
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.headers["cache-control"] == "no-store"
        assert response.json()["error"] == "temporarily_unavailable"


async def test_of_one_address_for_many_accounts(app: FastAPI, user: User) -> None:
    for number in range(LIMIT):
        await fail(app, "192.0.2.1", f"nobody{number}@example.com", times=1)
    assert code(await log_in(app, "192.0.2.1", user.email, PASSWORD)) == LIMITED


async def test_of_many_addresses_for_one_account(app: FastAPI, user: User) -> None:
    for number in range(LIMIT):
        await fail(app, f"192.0.2.{number}", user.email, times=1)
    assert code(await log_in(app, "192.0.2.1", user.email)) == LIMITED, "this address has had its one attempt"
    assert code(await log_in(app, "192.0.2.99", user.email)) == FAILED
    assert code(await log_in(app, "192.0.2.99", user.email, PASSWORD)) == LIMITED


async def test_no_stranger_locks_anybody_out(app: FastAPI, user: User) -> None:
    await fail(app, "192.0.2.1", user.email)
    for _ in range(3):
        assert (await log_in(app, "198.51.100.1", user.email, PASSWORD)).status_code == 200


@on("sqlite")
async def test_other_accounts_and_addresses_go_on(app: FastAPI, factory: Factory, user: User) -> None:
    await fail(app, "192.0.2.1", user.email)
    other = await factory.user("Bob")
    await fail(app, "192.0.2.2", other.email, times=LIMIT - 1)
    assert (await log_in(app, "192.0.2.2", other.email, PASSWORD)).status_code == 200


@on("sqlite")
async def test_spellings_of_an_account_are_one(app: FastAPI, user: User) -> None:
    for number in range(LIMIT):
        name = (user.email, user.email.upper(), f" {user.email} ")[number % 3]
        await fail(app, f"192.0.2.{number}", name, times=1)
    assert code(await log_in(app, "192.0.2.1", user.email)) == LIMITED


@on("sqlite")
@pytest.mark.parametrize("odd", ["@ex{}ample.com", "@ex{}ample。com", "@ex{}ample｡com"])
@pytest.mark.parametrize("filler", ["\ufe0f", "\u034f", "\u180b"])
async def test_invisible_characters_make_no_other_account(app: FastAPI, user: User, odd: str, filler: str) -> None:
    def spelled(number: int) -> str:
        return user.email.replace("@example.com", odd.format(filler * number))

    assert (await log_in(app, "192.0.2.99", spelled(3), PASSWORD)).status_code == 200
    for number in range(LIMIT):
        await fail(app, f"192.0.2.{number}", spelled(number), times=1)
    assert code(await log_in(app, "192.0.2.1", user.email)) == LIMITED


async def test_a_right_password_takes_nothing_away_and_gives_nothing_back(app: FastAPI, user: User) -> None:
    await fail(app, "192.0.2.1", user.email, times=LIMIT - 1)
    for _ in range(3):
        assert (await log_in(app, "192.0.2.1", user.email, PASSWORD)).status_code == 200
    await fail(app, "192.0.2.1", user.email, times=1)
    assert code(await log_in(app, "192.0.2.1", user.email, PASSWORD)) == LIMITED


@on("sqlite")
async def test_an_address_of_ones_own_choice_changes_nothing(app: FastAPI, user: User) -> None:
    for number in range(LIMIT):
        spoofed = {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number}"}
        assert code(await log_in(app, "192.0.2.1", user.email, **spoofed)) == FAILED
    assert code(await log_in(app, "192.0.2.1", user.email, **{"X-Forwarded-For": "203.0.113.99"})) == LIMITED


@on("sqlite")
async def test_an_address_as_the_name_of_an_account_locks_nobody_out(app: FastAPI, user: User) -> None:
    await fail(app, "192.0.2.1", "198.51.100.1")
    assert (await log_in(app, "198.51.100.1", user.email, PASSWORD)).status_code == 200


@on("sqlite")
async def test_all_addresses_of_an_ipv6_customer_are_one(app: FastAPI, user: User) -> None:
    for number in range(LIMIT):
        await fail(app, f"2001:db8:0:1::{number:x}", f"nobody{number}@example.com", times=1)
    assert code(await log_in(app, "2001:db8:0:1:ffff::1", user.email)) == LIMITED
    assert (await log_in(app, "2001:db8:0:2::1", user.email, PASSWORD)).status_code == 200
    await fail(app, "::ffff:192.0.2.1", "nobody@example.com")
    assert code(await log_in(app, "192.0.2.1", user.email)) == LIMITED


async def test_a_burst_counts_as_so_many(app: FastAPI, settings: Settings, user: User) -> None:
    """Through two workers, which know nothing of each other but the database."""
    other = patient_app(settings)
    async with other.router.lifespan_context(other):
        asked = [log_in((app, other)[number % 2], "192.0.2.1", user.email) for number in range(40)]
        answers = [code(answer) for answer in await asyncio.gather(*asked)]
    assert sorted(answers) == [FAILED] * LIMIT + [LIMITED] * 30


async def test_many_right_passwords_at_once_are_no_failures(app: FastAPI, user: User) -> None:
    answers = await asyncio.gather(*(log_in(app, "192.0.2.1", user.email, PASSWORD) for _ in range(3 * LIMIT)))
    assert {answer.status_code for answer in answers} == {200}
    assert {row.failures for row in await stored(app)} == {0}


@on("sqlite")
async def test_headers_say_what_is_left(app: FastAPI, user: User) -> None:
    response = await log_in(app, "192.0.2.1", user.email)
    assert response.headers["ratelimit-policy"] == '"login";q=10;w=60'
    assert response.headers["ratelimit"].startswith('"login";r=9;t=')
    assert (await log_in(app, "192.0.2.1", user.email)).headers["ratelimit"].startswith('"login";r=8;')


@on("sqlite")
async def test_the_wait_is_what_is_left_of_the_minute(
    app: FastAPI, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blog.attempts.now", lambda: now() - timedelta(seconds=20))
    await fail(app, "192.0.2.1", user.email)
    monkeypatch.undo()
    response = await log_in(app, "192.0.2.1", user.email)
    assert code(response) == LIMITED
    assert 1 <= int(response.headers["retry-after"]) <= 40
    assert response.headers["ratelimit"].startswith('"login";r=0;t=')


async def test_a_minute_later(app: FastAPI, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    await fail(app, "192.0.2.1", user.email)
    monkeypatch.setattr("blog.attempts.now", lambda: now() + timedelta(seconds=61))
    await fail(app, "192.0.2.1", user.email)
    assert code(await log_in(app, "192.0.2.1", user.email)) == LIMITED
    monkeypatch.setattr("blog.attempts.now", lambda: now() - timedelta(hours=1))
    await fail(app, "192.0.2.1", user.email, times=1)  # a clock that was set back makes no minute longer


async def test_what_expired_is_forgotten(app: FastAPI, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    await fail(app, "192.0.2.1", user.email, times=1)
    assert len(await stored(app)) == 3
    monkeypatch.setattr("blog.attempts.now", lambda: now() + timedelta(minutes=15))
    await fail(app, "192.0.2.2", "nobody@example.com", times=1)
    assert {row.expires_at > now() + timedelta(minutes=5) for row in await stored(app)} == {True}


@on("sqlite")
async def test_neither_addresses_nor_names_are_stored(app: FastAPI, user: User) -> None:
    await fail(app, "192.0.2.1", user.email, times=1)
    for row in await stored(app):
        assert len(row.key) == 32
        assert not {"192.0.2.1", user.email} & {row.key}


@on("sqlite")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/user/me/password", {"new_password": "a new password"}),
        ("PATCH", "/user/me", {"email": "other@example.com"}),
        ("DELETE", "/user/{id}", {}),
    ],
)
async def test_whoever_has_a_token_guesses_no_more(
    app: FastAPI, factory: Factory, method: str, path: str, body: dict[str, Any]
) -> None:
    user, login = await factory.logged_in()
    async with at(app, "192.0.2.1") as client:

        async def guess(password: str) -> tuple[int, str]:
            url = path.format(id=user.id)
            return code(await client.request(method, url, json=body | {"current_password": password}, headers=login))

        for _ in range(LIMIT):
            assert await guess(WRONG) == (403, "wrong_password")
        assert await guess(PASSWORD) == LIMITED


@on("sqlite")
async def test_those_who_wait_behind_a_lost_database_are_refused_at_once(
    settings: Settings, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blog.attempts.SLOW", 0)
    app = create_app(settings)
    count, asked = Attempts._count, []

    async def lose(self: Attempts, keys: Any) -> Any:
        def connect(*_: object) -> None:
            asked.append(keys)
            raise OperationalError("", {}, Exception("gone"))

        monkeypatch.setattr(app.state.database, "write", type("Lost", (), {"begin": connect}))
        return await count(self, keys)

    monkeypatch.setattr(Attempts, "_count", lose)
    async with app.router.lifespan_context(app):
        answers = await asyncio.gather(*(log_in(app, "192.0.2.1", user.email) for _ in range(20)))
    assert {code(answer) for answer in answers} == {(503, "database_unavailable")}
    assert len(asked) == 1


async def test_a_failure_costs_three_statements(app: FastAPI, user: User, statements: list[str]) -> None:
    await fail(app, "192.0.2.1", user.email, times=1)
    counting = [statement for statement in statements if "login_failure" in statement]
    assert [statement.split()[0] for statement in counting] == ["SELECT", "INSERT", "SELECT"]
