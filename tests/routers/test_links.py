"""One-time links: to a new password, to an address, to an account."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from blog.models import OneTimeLink, Role, User, now
from blog.repository.user import UserRepository
from blog.security.passwords import PasswordHasher
from tests.answers import code
from tests.conftest import on, with_settings
from tests.factories import PASSWORD, Factory, bearer

NEW = "a new password"
BOB = {"name": "Bob", "email": "bob@example.com", "password": PASSWORD}


class Mailbox:
    """What would have been mailed: in `local` without a mail server it is in the log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def mails(self) -> list[dict[str, Any]]:
        return [record.__dict__["fields"] for record in self._caplog.records if record.name == "blog.mail"]

    def tokens(self, kind: str) -> list[str]:
        """Of all links of a kind, the oldest first."""
        links = [
            re.fullmatch(r"http://127\.0\.0\.1:8000/link#(\w+)=(blog_link_[\w-]{43})", mail["link"] or "")
            for mail in self.mails
        ]
        return [link[2] for link in links if link and link[1] == kind]


@pytest.fixture
def mailbox(caplog: pytest.LogCaptureFixture) -> Iterator[Mailbox]:
    with caplog.at_level(logging.INFO):
        yield Mailbox(caplog)


async def log_in(client: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/login", data={"username": email, "password": password})


async def links(app: FastAPI) -> list[OneTimeLink]:
    async with app.state.database.fresh() as session:
        return list((await session.scalars(select(OneTimeLink))).all())


async def change_links(app: FastAPI, **values: Any) -> None:
    async with app.state.database.write.begin() as session:
        await session.execute(update(OneTimeLink).values(**values))


async def reset(client: httpx.AsyncClient, token: str, password: str = NEW) -> httpx.Response:
    return await client.post("/password-reset/confirm", json={"token": token, "password": password})


@pytest.fixture
async def verifying(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a platform that demands that addresses are confirmed."""
    async with with_settings(app, email_verification=True) as client:
        yield client


class TestPasswordReset:
    @on("sqlite")
    @pytest.mark.parametrize("body", [{}, {"email": "ada"}, {"email": None}, {"email": "ada@example.com", "x": 1}, []])
    async def test_invalid(self, client: httpx.AsyncClient, body: Any) -> None:
        assert code(await client.post("/password-reset", json=body)) == (422, "invalid")

    async def test_one_answer_for_all(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        known, blocked = await factory.user(), await factory.user("Bob", is_active=False)
        answers = [
            await client.post("/password-reset", json={"email": email})
            for email in (known.email.upper(), blocked.email, "nobody@example.com")
        ]
        for answer in answers:
            assert (answer.status_code, answer.content) == (202, b"")
            assert answer.headers.keys() == answers[0].headers.keys()
        assert [mail["to"] for mail in mailbox.mails] == [known.email]
        assert len(await links(app)) == 1

    async def test_one_statement_for_all(
        self, client: httpx.AsyncClient, factory: Factory, statements: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What only a known address brings about is behind the answer, where nobody can measure it."""
        user = await factory.user()

        async def nothing(*_: object) -> None: ...

        monkeypatch.setattr("blog.links.LinkMailer.send_password_reset", nothing)
        for email in (user.email, "nobody@example.com"):
            statements.clear()
            await client.post("/password-reset", json={"email": email})
            assert len(statements) == 1

    @on("sqlite")
    @pytest.mark.parametrize("path", ["/password-reset", "/email-verification"])
    async def test_the_answer_leaves_first(
        self, app: FastAPI, factory: Factory, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        user, order = await factory.user(), []

        async def note_mail(*_: object) -> None:
            order.append("mail")

        async def noting_answer(scope: Any, receive: Any, send: Any) -> None:
            async def note_answer(message: Any) -> None:
                await send(message)
                order.append("answer")

            await app(scope, receive, note_answer)

        monkeypatch.setattr("blog.links.LinkMailer._send", note_mail)
        transport = httpx.ASGITransport(noting_answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            assert (await client.post(path, json={"email": user.email})).status_code == 202
        assert order == ["answer", "answer", "mail"]  # headers and body are sent one by one

    async def test_one_mail_for_many_at_once(
        self, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user = await factory.user()
        answers = await asyncio.gather(*(client.post("/password-reset", json={"email": user.email}) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {202}
        assert len(mailbox.mails) == 1

    async def test_one_mail_a_minute(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user = await factory.user()
        for _ in range(5):
            assert (await client.post("/password-reset", json={"email": user.email})).status_code == 202
        assert len(mailbox.mails) == 1
        await change_links(app, created_at=now() - timedelta(minutes=2))
        await client.post("/password-reset", json={"email": user.email})
        # The one before is good still: whoever asks for more takes nothing away.
        first, second = mailbox.tokens("password_reset")
        assert first != second
        assert (await reset(client, first)).status_code == 204

    async def test_links_that_expired_go(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user = await factory.user()
        for _ in range(3):
            await client.post("/password-reset", json={"email": user.email})
            await change_links(app, created_at=now() - timedelta(hours=2), expires_at=now() - timedelta(hours=1))
        assert len(await links(app)) == 1
        assert len(mailbox.mails) == 3


class TestPasswordResetConfirm:
    @on("sqlite")
    @pytest.mark.parametrize("token", ["", "x", f"blog_link_{'x' * 43}", "é", "x" * 200])
    async def test_unknown_link(self, client: httpx.AsyncClient, token: str) -> None:
        assert code(await reset(client, token)) == (400, "invalid_link")

    @on("sqlite")
    @pytest.mark.parametrize("change", [{"token": None}, {"token": "x" * 201}, {"password": "short"}, {"x": 1}])
    async def test_invalid(self, client: httpx.AsyncClient, change: dict[str, Any]) -> None:
        body = {"token": "x", "password": NEW} | change
        assert code(await client.post("/password-reset/confirm", json=body)) == (422, "invalid")

    @pytest.mark.parametrize("kind", ["expired", "for another purpose", "blocked", "new password", "new address"])
    async def test_not_good_any_more(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox, kind: str
    ) -> None:
        user, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        await client.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        if kind == "expired":
            await change_links(app, expires_at=now())
        elif kind == "for another purpose":
            await change_links(app, purpose="email_verification")
        elif kind == "blocked":
            for is_active in (False, True):
                await client.patch(f"/user/{user.id}", json={"is_active": is_active}, headers=admin)
        elif kind == "new password":
            change = {"current_password": PASSWORD, "new_password": "another one"}
            assert (await client.put("/user/me/password", json=change, headers=login)).status_code == 204
        else:
            change = {"current_password": PASSWORD, "email": "other@example.com"}
            assert (await client.patch("/user/me", json=change, headers=login)).status_code == 200
        assert code(await reset(client, token)) == (400, "invalid_link")

    @on("sqlite")
    async def test_not_good_any_more_when_the_password_is_hashed(
        self, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The address became another, and whoever has the old one's mail shall not get in."""
        user, login = await factory.logged_in()
        await client.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        hash_ = PasswordHasher.hash

        async def hash_late(self: PasswordHasher, password: str) -> str:
            change = {"current_password": PASSWORD, "email": "other@example.com"}
            assert (await client.patch("/user/me", json=change, headers=login)).status_code == 200
            return await hash_(self, password)

        monkeypatch.setattr(PasswordHasher, "hash", hash_late)
        assert code(await reset(client, token)) == (400, "invalid_link")
        assert (await log_in(client, "other@example.com")).status_code == 200

    @on("sqlite")
    async def test_weak_password(self, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox) -> None:
        user = await factory.user("Lovelace", email="countess@example.com")
        await client.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        for weak in ("password1", "Lovelace, 1815", "a true Countess"):
            assert code(await reset(client, token, weak)) == (422, "weak_password")
        # That was no use of it.
        assert (await reset(client, token)).status_code == 204

    async def test_set(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox) -> None:
        user, login = await factory.logged_in()
        personal = bearer(await factory.personal_token(user))
        await client.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        assert token not in str([link.model_dump() for link in await links(app)])
        response = await reset(client, token)
        assert (response.status_code, response.content) == (204, b"")
        for over in (login, personal):
            assert code(await client.get("/user/me", headers=over)) == (401, "invalid_token")
        assert code(await log_in(client, user.email)) == (401, "invalid_grant")
        assert (await log_in(client, user.email, NEW)).status_code == 200
        assert code(await reset(client, token, "and again")) == (400, "invalid_link")
        assert mailbox.mails[-1] == {"to": user.email, "link": None}

    async def test_of_ten_at_once_one_is_acknowledged(
        self, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user = await factory.user()
        await client.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        passwords = [f"new password {number}" for number in range(10)]
        answers = await asyncio.gather(*(reset(client, token, password) for password in passwords))
        assert sorted(answer.status_code for answer in answers) == [204] + [400] * 9
        (acknowledged,) = [
            password for password, answer in zip(passwords, answers, strict=True) if answer.status_code == 204
        ]
        assert (await log_in(client, user.email, acknowledged)).status_code == 200


class TestEmailVerification:
    async def test_not_before_the_link_was_followed(self, verifying: httpx.AsyncClient, mailbox: Mailbox) -> None:
        response = await verifying.post("/user/", json=BOB)
        assert (response.status_code, response.json()["email_verified_at"]) == (201, None)
        refused = await log_in(verifying, "bob@example.com")
        assert code(refused) == (401, "email_not_verified")
        assert refused.json()["error"] == "invalid_grant"
        # Only whoever knows the password is told.
        assert code(await log_in(verifying, "bob@example.com", "another one")) == (401, "invalid_grant")
        (token,) = mailbox.tokens("email_verification")
        for status in (204, 400):
            answer = await verifying.post("/email-verification/confirm", json={"token": token})
            assert answer.status_code == status
        login = await log_in(verifying, "bob@example.com")
        me = await verifying.get("/user/me", headers=bearer(login.json()["access_token"]))
        assert me.json()["email_verified_at"]

    async def test_another_link(
        self, app: FastAPI, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user = await factory.user()
        for email in (user.email, "nobody@example.com", user.email):
            answer = await verifying.post("/email-verification", json={"email": email})
            assert (answer.status_code, answer.content) == (202, b"")
        (token,) = mailbox.tokens("email_verification")
        assert (await verifying.post("/email-verification/confirm", json={"token": token})).status_code == 204
        assert (await log_in(verifying, user.email)).status_code == 200
        await verifying.post("/email-verification", json={"email": user.email})
        assert len(mailbox.mails) == 1  # nothing is to be confirmed any more

    async def test_a_reset_confirms_the_address_too(
        self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user = await factory.user()
        await verifying.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        await reset(verifying, token)
        assert (await log_in(verifying, user.email, NEW)).status_code == 200

    async def test_a_new_address_counts_once_it_is_confirmed(
        self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user, login = await factory.logged_in()
        change = {"name": "Countess", "email": "new@example.com", "current_password": PASSWORD}
        changed = await verifying.patch("/user/me", json=change, headers=login)
        assert (changed.status_code, changed.json()["name"]) == (200, "Countess")
        assert changed.json()["email"] == user.email
        assert [mail["to"] for mail in mailbox.mails] == ["new@example.com"]
        (token,) = mailbox.tokens("email_verification")
        assert (await verifying.post("/email-verification/confirm", json={"token": token})).status_code == 204
        me = (await verifying.get("/user/me", headers=login)).json()
        assert me["email"] == "new@example.com"
        assert me["email_verified_at"]
        # Whoever had the old address is told.
        assert mailbox.mails[-1] == {"to": user.email, "link": None}

    @on("sqlite")
    async def test_no_address_that_became_another_meanwhile(
        self,
        client: httpx.AsyncClient,
        verifying: httpx.AsyncClient,
        factory: Factory,
        mailbox: Mailbox,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        user, login = await factory.logged_in()
        await verifying.post("/email-verification", json={"email": user.email})
        (token,) = mailbox.tokens("email_verification")
        hold = UserRepository.hold

        async def hold_late(self: UserRepository, *args: Any, **options: Any) -> User:
            monkeypatch.setattr(UserRepository, "hold", hold)
            change = {"current_password": PASSWORD, "email": "other@example.com"}
            assert (await client.patch("/user/me", json=change, headers=login)).status_code == 200
            return await hold(self, *args, **options)

        monkeypatch.setattr(UserRepository, "hold", hold_late)
        answer = await client.post("/email-verification/confirm", json={"token": token})
        assert code(answer) == (400, "invalid_link")
        assert (await client.get("/user/me", headers=login)).json()["email"] == "other@example.com"

    async def test_a_taken_address(self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox) -> None:
        user, login = await factory.logged_in()
        other = await factory.user("Eve")
        change = {"name": "Countess", "email": other.email.upper(), "current_password": PASSWORD}
        assert code(await verifying.patch("/user/me", json=change, headers=login)) == (409, "email_taken")
        assert (await verifying.get("/user/me", headers=login)).json()["name"] == user.name
        assert mailbox.mails == []

    async def test_one_link_a_minute_whatever_the_address(
        self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        """Or an account would be a way to fill others' letter boxes."""
        _, login = await factory.logged_in()
        for number in range(4):
            change = {"email": f"victim{number}@example.com", "current_password": PASSWORD}
            assert (await verifying.patch("/user/me", json=change, headers=login)).status_code == 200
        assert len(mailbox.mails) == 1

    async def test_a_block_at_the_same_time(
        self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        admin = factory.login(await factory.admin())
        for _ in range(5):
            user = await factory.user()
            await verifying.post("/email-verification", json={"email": user.email})
            token = mailbox.tokens("email_verification")[-1]
            confirmed, blocked = await asyncio.gather(
                verifying.post("/email-verification/confirm", json={"token": token}),
                verifying.patch(f"/user/{user.id}", json={"is_active": False}, headers=admin),
            )
            assert confirmed.status_code in (204, 400)
            assert blocked.status_code == 200

    async def test_an_address_that_is_another_s_by_now(
        self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user, login = await factory.logged_in()
        change = {"email": "new@example.com", "current_password": PASSWORD}
        assert (await verifying.patch("/user/me", json=change, headers=login)).status_code == 200
        await factory.user("Eve", email="NEW@example.com")
        (token,) = mailbox.tokens("email_verification")
        answer = await verifying.post("/email-verification/confirm", json={"token": token})
        assert code(answer) == (409, "email_taken")
        assert (await verifying.get("/user/me", headers=login)).json()["email"] == user.email

    @on("sqlite")
    @pytest.mark.parametrize("token", ["", "x", f"blog_link_{'x' * 43}"])
    async def test_unknown_link(self, client: httpx.AsyncClient, token: str) -> None:
        answer = await client.post("/email-verification/confirm", json={"token": token})
        assert code(answer) == (400, "invalid_link")

    @on("sqlite")
    async def test_where_it_is_not_asked_for(
        self, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        assert (await client.post("/user/", json=BOB)).status_code == 201
        login = bearer((await log_in(client, BOB["email"])).json()["access_token"])
        assert mailbox.mails == []
        change = {"email": "new@example.com", "current_password": PASSWORD}
        changed = await client.patch("/user/me", json=change, headers=login)
        assert changed.json()["email"] == "new@example.com"
        # Whoever had the old address is told.
        assert mailbox.mails == [{"to": "bob@example.com", "link": None}]

    async def test_a_spelling_of_the_same_address_stays_confirmed(
        self, verifying: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user, login = await factory.logged_in()
        await verifying.post("/email-verification", json={"email": user.email})
        await verifying.post("/email-verification/confirm", json={"token": mailbox.tokens("email_verification")[0]})
        change = {"email": user.email.upper(), "current_password": PASSWORD}
        me = (await verifying.patch("/user/me", json=change, headers=login)).json()
        assert me["email"].split("@")[0] == user.email.split("@")[0].upper()
        assert me["email_verified_at"]


class TestInvitations:
    @on("sqlite")
    async def test_registration_is_closed(self, app: FastAPI, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        async with with_settings(app, registration="closed") as client:
            assert code(await client.post("/invitation/", json={}, headers=login)) == (403, "registration_closed")
            response = await client.post("/user/", json=BOB | {"invitation": "x"})
            assert code(response) == (403, "registration_closed")

    @on("sqlite")
    @pytest.mark.parametrize(
        "body", [{"role": "root"}, {"role": None}, {"email": "bob"}, {"email": None}, {"x": 1}, []]
    )
    async def test_invalid(self, client: httpx.AsyncClient, factory: Factory, body: Any) -> None:
        login = factory.login(await factory.admin())
        assert code(await client.post("/invitation/", json=body, headers=login)) == (422, "invalid")

    @on("sqlite")
    async def test_needed(self, app: FastAPI) -> None:
        async with with_settings(app, registration="invited") as client:
            assert code(await client.post("/user/", json=BOB)) == (403, "invitation_required")
            response = await client.post("/user/", json=BOB | {"invitation": f"blog_link_{'x' * 43}"})
            assert code(response) == (400, "invalid_link")

    async def test_used(self, app: FastAPI, factory: Factory, mailbox: Mailbox) -> None:
        login = factory.login(await factory.admin())
        async with with_settings(app, registration="invited") as client:
            response = await client.post("/invitation/", json={"role": "reader"}, headers=login)
            assert response.status_code == 201
            assert response.headers["cache-control"] == "no-store"
            made = response.json()
            token, link = made.pop("token"), made.pop("link")
            assert link == f"http://127.0.0.1:8000/link#invitation={token}"
            assert set(made) == {"id", "email", "role", "created_at", "expires_at"}
            assert (made["email"], made["role"]) == (None, "reader")
            assert (await client.get(response.headers["location"], headers=login)).json() == made
            assert (await client.get("/invitation/", headers=login)).json() == [made]
            assert mailbox.mails == []
            # What is refused for another reason is no use of it.
            weak = await client.post("/user/", json=BOB | {"invitation": token, "password": "password1"})
            assert code(weak) == (422, "weak_password")
            registered = await client.post("/user/", json=BOB | {"invitation": token})
            assert (registered.status_code, registered.json()["role"]) == (201, "reader")
            again = BOB | {"invitation": token, "email": "eve@example.com"}
            assert code(await client.post("/user/", json=again)) == (400, "invalid_link")
            assert (await client.get("/invitation/", headers=login)).json() == []

    async def test_of_many_at_once_one_registers(self, app: FastAPI, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        async with with_settings(app, registration="invited") as client:
            token = (await client.post("/invitation/", json={}, headers=login)).json()["token"]
            users = [BOB | {"invitation": token, "email": f"bob{number}@example.com"} for number in range(6)]
            answers = await asyncio.gather(*(client.post("/user/", json=user) for user in users))
            assert sorted(answer.status_code for answer in answers) == [201] + [400] * 5

    async def test_to_an_address(self, app: FastAPI, factory: Factory, mailbox: Mailbox) -> None:
        login = factory.login(await factory.admin())
        async with with_settings(app, registration="invited", email_verification=True) as client:
            body = {"email": "Bob@Example.com", "role": "admin"}
            assert (await client.post("/invitation/", json=body, headers=login)).json()["email"] == "Bob@example.com"
            assert [mail["to"] for mail in mailbox.mails] == ["Bob@example.com"]
            (token,) = mailbox.tokens("invitation")
            stolen = BOB | {"invitation": token, "email": "eve@example.com"}
            assert code(await client.post("/user/", json=stolen)) == (400, "invalid_link")
            registered = (await client.post("/user/", json=BOB | {"invitation": token})).json()
            assert registered["role"] == "admin"
            # The mail has shown whose address it is.
            assert registered["email_verified_at"]
            assert (await log_in(client, BOB["email"])).status_code == 200

    @on("sqlite")
    async def test_to_no_address_verifies_none(self, app: FastAPI, factory: Factory, mailbox: Mailbox) -> None:
        login = factory.login(await factory.admin())
        async with with_settings(app, registration="invited", email_verification=True) as client:
            token = (await client.post("/invitation/", json={}, headers=login)).json()["token"]
            registered = await client.post("/user/", json=BOB | {"invitation": token})
            assert (registered.status_code, registered.json()["email_verified_at"]) == (201, None)
            assert len(mailbox.tokens("email_verification")) == 1
            assert code(await log_in(client, BOB["email"])) == (401, "email_not_verified")

    @on("sqlite")
    async def test_for_another_role_where_anybody_may_register(
        self, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        login = factory.login(await factory.admin())
        token = (await client.post("/invitation/", json={"role": "admin"}, headers=login)).json()["token"]
        registered = await client.post("/user/", json=BOB | {"invitation": token})
        assert registered.json()["role"] == "admin"

    @pytest.mark.parametrize(
        "by",
        ["taken back", "expired", "its admin is blocked", "is deleted", "is none any more", "has a new password"],
    )
    async def test_not_good_any_more(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, by: str) -> None:
        admin, other = await factory.admin(), factory.login(await factory.admin())
        made = await client.post("/invitation/", json={}, headers=factory.login(admin))
        path, token = made.headers["location"], made.json()["token"]
        if by == "taken back":
            assert (await client.delete(path, headers=other)).status_code == 204
            assert code(await client.delete(path, headers=other)) == (404, "invitation_not_found")
        elif by == "expired":
            await change_links(app, expires_at=now())
        elif by == "its admin is blocked":
            await client.patch(f"/user/{admin.id}", json={"is_active": False}, headers=other)
        elif by == "is deleted":
            await client.delete(f"/user/{admin.id}", headers=other)
        elif by == "is none any more":
            await client.patch(f"/user/{admin.id}", json={"role": "reader"}, headers=other)
        else:
            change = {"current_password": PASSWORD, "new_password": NEW}
            assert (await client.put("/user/me/password", json=change, headers=factory.login(admin))).status_code == 204
        assert code(await client.get(path, headers=other)) == (404, "invitation_not_found")
        assert code(await client.post("/user/", json=BOB | {"invitation": token})) == (400, "invalid_link")

    @on("sqlite")
    async def test_of_the_role_that_settings_name(self, app: FastAPI, factory: Factory) -> None:
        login = factory.login(await factory.admin())
        async with with_settings(app, registration="invited", default_role="reader") as client:
            for role in ("reader", "author"):
                body = {} if role == "reader" else {"role": role}
                made = (await client.post("/invitation/", json=body, headers=login)).json()
                assert made["role"] == role
                user = BOB | {"email": f"{role}@example.com", "invitation": made["token"]}
                assert (await client.post("/user/", json=user)).json()["role"] == role

    async def test_a_link_to_a_password_is_no_invitation(
        self, client: httpx.AsyncClient, factory: Factory, mailbox: Mailbox
    ) -> None:
        user, admin = await factory.user(role=Role.READER), factory.login(await factory.admin())
        await client.post("/password-reset", json={"email": user.email})
        (token,) = mailbox.tokens("password_reset")
        assert code(await client.post("/user/", json=BOB | {"invitation": token})) == (400, "invalid_link")
        assert (await client.get("/invitation/", headers=admin)).json() == []


@on("sqlite")
class TestPage:
    async def test_it_is_whole(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/link")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = response.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert not re.search(r"(src|href)=|https?://", response.text)
        assert (await client.head("/link")).headers["content-security-policy"] == policy
