"""Addresses that mean one thing to the platform and another to programs for mail."""

from typing import Any

import httpx
import pytest

from blog.mail import Mail, Mailer
from tests.answers import code
from tests.conftest import make_settings
from tests.factories import PASSWORD, Factory

DECODED_INTO_ANOTHERS = [
    "=?utf-8?q?eve=40example.org=3e=20?=ada@example.com",
    "=?utf-8?q?eve=40example.org=2c?=ada@example.com",
    "=?utf-8?b?ZXZl?=@example.com",
    "a=?utf-8?q?b?=@example.com",
]


@pytest.mark.parametrize("email", DECODED_INTO_ANOTHERS)
async def test_encoded_words_are_no_address(client: httpx.AsyncClient, factory: Factory, email: str) -> None:
    """Whoever gets the mail for such an address could confirm one that is somebody else's."""
    admin = factory.login(await factory.admin())
    user = {"name": "Eve", "email": email, "password": PASSWORD}
    for path, body in (("/user/", user), ("/invitation/", {"email": email}), ("/password-reset", {"email": email})):
        assert code(await client.post(path, json=body, headers=admin)) == (422, "invalid"), path
    change = {"email": email, "current_password": PASSWORD}
    assert code(await client.patch("/user/me", json=change, headers=admin)) == (422, "invalid")


@pytest.mark.parametrize("email", DECODED_INTO_ANOTHERS)
async def test_mail_goes_to_the_address_as_it_stands(email: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to one that was stored before such addresses were refused."""
    told: list[str] = []

    async def send(_: Any, *, recipients: list[str], **__: Any) -> None:
        told.extend(recipients)

    monkeypatch.setattr("blog.mail.aiosmtplib.send", send)
    settings = make_settings(smtp_url="smtp://mail.example.com", mail_from="blog@example.com")
    await Mailer(settings).send(Mail(email, "You are invited", "Come."))
    assert told == [email]
