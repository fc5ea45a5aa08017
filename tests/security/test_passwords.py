"""passlib and bcrypt for real, with a low cost."""

import asyncio
import importlib.metadata
import threading
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from passlib.context import CryptContext
from passlib.hash import bcrypt, bcrypt_sha256
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from blog.errors import Busy, WeakPassword
from blog.security import passwords
from blog.security.passwords import PasswordHasher

PASSWORD = "correct horse battery"
ADA = {"name": "Ada Lovelace", "email": "Countess@example.com"}


@pytest.fixture
def hasher() -> PasswordHasher:
    return PasswordHasher(rounds=4, min_length=8)


async def test_hash_and_verify(hasher: PasswordHasher) -> None:
    known = await hasher.hash(PASSWORD)
    assert known.startswith("$bcrypt-sha256$v=2,t=2b,r=4$")
    assert len(known) <= 128
    assert known != await hasher.hash(PASSWORD)
    assert await hasher.verify(PASSWORD, known) == (True, None)
    assert await hasher.verify(PASSWORD + " ", known) == (False, None)


async def test_bytes_past_the_72nd_count(hasher: PasswordHasher) -> None:
    known = await hasher.hash("ü" * 36 + "x")
    assert await hasher.verify("ü" * 36, known) == (False, None)
    assert await hasher.verify("ü" * 36 + "y", known) == (False, None)


async def test_nobodys_password(hasher: PasswordHasher) -> None:
    assert await hasher.verify(PASSWORD, None) == (False, None)


async def test_old_hashes_are_upgraded(hasher: PasswordHasher) -> None:
    plain: Any = bcrypt
    digested: Any = bcrypt_sha256
    for outdated in (plain.using(rounds=4).hash(PASSWORD), digested.using(rounds=5).hash(PASSWORD)):
        verified, better = await hasher.verify(PASSWORD, outdated)
        assert verified
        assert better is not None
        assert await hasher.verify(PASSWORD, better) == (True, None)
        assert await hasher.verify("wrong", outdated) == (False, None)


@pytest.mark.parametrize("known", ["", "x", "$2b$", "$2b$04$short", "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA", "\0"])
async def test_hash_of_another_kind(hasher: PasswordHasher, known: str) -> None:
    assert await hasher.verify(PASSWORD, known) == (False, None)


@pytest.mark.parametrize("password", ["", "\0", "\ud800", "x" * 129, "x" * 5_000])
async def test_hostile_password(hasher: PasswordHasher, password: str) -> None:
    assert await hasher.verify(password, await hasher.hash(PASSWORD)) == (False, None)


async def test_plain_bcrypt_reads_only_72_bytes_of_a_password(hasher: PasswordHasher) -> None:
    plain: Any = bcrypt
    known = plain.using(rounds=4).hash("a" * 72)
    assert (await hasher.verify("a" * 72, known))[0]
    assert await hasher.verify("a" * 73, known) == (False, None)
    assert await hasher.verify("ä" * 37, known) == (False, None)


async def test_characters_are_counted_as_they_are_kept(hasher: PasswordHasher) -> None:
    with pytest.raises(WeakPassword, match="at least 8"):
        hasher.refuse_weak("e\u0301" * 4, **ADA)


def test_too_short() -> None:
    with pytest.raises(WeakPassword, match="at least 15"):
        PasswordHasher(rounds=4, min_length=15).refuse_weak("quite a riddle", **ADA)


@pytest.mark.parametrize(
    "password", ["password", "PASSWORD1", "12345678", "iloveyou", "qwertyuiop", "ｔｒｕｓｔｎｏ１", "11111111"]
)
def test_common(hasher: PasswordHasher, password: str) -> None:
    with pytest.raises(WeakPassword, match="most common"):
        hasher.refuse_weak(password, **ADA)


@pytest.mark.parametrize(
    "password",
    [
        "Countess Ada Lovelace",
        "enchantress of ADA",
        "lovelace, the first",
        "countess@example.com",
        "The COUNTESS writes",
        "ｃｏｕｎｔｅｓｓ of numbers",
        "log in at blog.example.org",
    ],
)
def test_what_everybody_knows_of_the_user(password: str) -> None:
    hasher = PasswordHasher(rounds=4, min_length=8, site="blog.example.org")
    with pytest.raises(WeakPassword, match="your name, your address"):
        hasher.refuse_weak(password, **ADA)


@pytest.mark.parametrize(
    "password", [PASSWORD, "kdo2!kfjw", "8 Buchstaben", "на коленях", "🧵🧶🪡🧷🪢🧵🧶🪡", "example.com and more"]
)
def test_any_other(password: str) -> None:
    PasswordHasher(rounds=4, min_length=8, site="127.0.0.1").refuse_weak(password, **ADA)


@pytest.mark.parametrize("password", ["said Jo Li", "jo@example.com and I"])
def test_parts_that_mean_nothing_until_they_are_put_together(hasher: PasswordHasher, password: str) -> None:
    with pytest.raises(WeakPassword, match="your name, your address"):
        hasher.refuse_weak(password, name="Jo Li", email="jo@example.com")


@pytest.mark.parametrize(
    ("name", "email", "password"),
    [
        ("Rosa", "x@example.com", "prosaic hats"),
        ("Rosa Li", "x@example.com", "prosaic hats"),
        ("O B", "rosa@example.com", "prosaic hats"),
    ],
)
def test_four_letters_are_in_no_password_by_chance(
    hasher: PasswordHasher, name: str, email: str, password: str
) -> None:
    with pytest.raises(WeakPassword, match="your name, your address"):
        hasher.refuse_weak(password, name=name, email=email)
    hasher.refuse_weak(password, name=name.replace("Rosa", "Ros"), email=email.replace("rosa", "ros"))


def test_a_name_too_short_to_mean_anything(hasher: PasswordHasher) -> None:
    hasher.refuse_weak(PASSWORD, name="O B", email="x@example.com")
    hasher.refuse_weak(PASSWORD, name="?!", email="x@example.com")


def test_the_three_thousand_most_common_are_refused(hasher: PasswordHasher) -> None:
    listed = [password for password in FREQUENCY_LISTS["passwords"][:3000] if len(password) >= 8]
    assert len(listed) > 300
    for password in listed:
        with pytest.raises(WeakPassword):
            hasher.refuse_weak(password, **ADA)


async def test_one_hash_at_a_time_and_never_on_the_event_loop(
    hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, most, loop_thread = 0, 0, threading.get_ident()

    def note(password: str) -> str:
        nonlocal under_way, most
        assert threading.get_ident() != loop_thread
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.001)  # work, in which another one would show
        under_way -= 1
        return password

    monkeypatch.setattr(hasher._context, "hash", note)
    monkeypatch.setattr(hasher._context, "verify_and_update", lambda password, _: (note(password) == password, None))

    async def verify() -> None:
        async with hasher.turn():
            await hasher.verify(PASSWORD, "x")

    acts = (act for _ in range(10) for act in (hasher.hash(PASSWORD), verify()))
    await asyncio.gather(*acts)
    assert most == 1


async def test_nobody_waits_for_ever_for_a_turn(hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blog.security.passwords.QUEUE_TIMEOUT", 0.01)
    async with hasher.turn():
        waiting = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(3)]
        assert {type(outcome) for outcome in await asyncio.gather(*waiting, return_exceptions=True)} == {Busy}
    assert await hasher.hash(PASSWORD)


async def test_a_flood_of_new_passwords_holds_up_itself(hasher: PasswordHasher) -> None:
    order: list[str] = []

    async def note(name: str, act: Awaitable[Any]) -> None:
        await act
        order.append(name)

    async def verify() -> None:
        async with hasher.turn():
            await hasher.verify(PASSWORD, "x")

    registrations = [asyncio.create_task(note("registered", hasher.hash(PASSWORD))) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(note("logged in", verify()), *registrations)
    assert order.index("logged in") <= 2


def test_bcrypt_that_fails_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ValueError("password cannot be longer than 72 bytes")  # what bcrypt 5 says of everything

    monkeypatch.setattr(CryptContext, "hash", fail)
    with pytest.raises(RuntimeError, match=r"passlib 1\.7\.4 cannot hash with bcrypt .*pipenv sync"):
        PasswordHasher(rounds=4, min_length=8)


@pytest.mark.parametrize("answer", [True, False])
def test_bcrypt_that_answers_the_same_to_all(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(CryptContext, "verify", lambda *_: answer)
    with pytest.raises(RuntimeError, match="cannot hash"):
        PasswordHasher(rounds=4, min_length=8)


def test_the_pair_that_fits_is_installed() -> None:
    assert importlib.metadata.version("passlib") == "1.7.4"
    assert importlib.metadata.version("bcrypt") == "4.0.1"
    assert passwords.CONCURRENT_HASHES == 1
