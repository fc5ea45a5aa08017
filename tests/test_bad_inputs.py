"""What the platform must answer to bad, hostile and merely odd input: the same on every engine.

Each refusal is in the one shape, repeats no password that was sent, and leaves every row as it was.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import SQLModel

from blog.app import create_app
from blog.links import LIFETIMES
from blog.middleware import METHODS
from blog.models import Purpose, Role, User, now
from blog.repository.link import LinkRepository
from blog.repository.login import PersonalTokenRepository
from blog.repository.room import RoomRepository
from blog.security.access import Scope
from blog.security.cursors import Cursors
from blog.security.opaque import LINK, PERSONAL, REFRESH
from blog.settings import Settings
from tests.answers import code
from tests.conftest import SECRET, make_settings, on
from tests.factories import PASSWORD, Factory
from tests.images import MEDIA_TYPES, gif, image_of, png
from tests.security.test_tokens import claims, encode, forge, header_of

WORD = "S3cret-of-hers"
"""In every password and every token that is sent here, and so in no answer."""

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = "multipart/form-data"

INVALID, UNREADABLE, WEAK = (422, "invalid"), (400, "bad_request"), (422, "weak_password")
TOO_LARGE = (413, "content_too_large")
NO_TOKEN, BAD_TOKEN, BAD_LOGIN = (401, "not_authenticated"), (401, "invalid_token"), (401, "invalid_grant")
BAD_REQUEST, BAD_SCOPE = (400, "invalid_request"), (400, "invalid_scope")
BAD_LINK, BAD_REFRESH_TOKEN = (400, "invalid_link"), (400, "invalid_refresh_token")

ADA = {"name": "Ada", "email": "new@example.com", "password": WORD}
NOTES = {"title": "Notes", "body": "Text"}
TEXTS_OF_BLOG = (*NOTES, "summary", "slug", "tags")
LOOMS, WEAVES = {"name": "Looms"}, {"body": "It weaves."}
LABELS_OF_ROOM = ("category", "description", "room_type", "order")
BACKUP = {"name": "Backup", "scopes": ["blog:read"], "expires_at": "2190-01-01T00:00:00Z"}
RESET = {"token": f"blog_link_{WORD}", "password": WORD}

# Each place where text goes in: method, path, a body that is accepted, and the field.
TEXTS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    **{f"user.{field}": ("POST", "/user/", ADA, field) for field in ADA},
    **{f"me.{field}": ("PATCH", "/user/me", {}, field) for field in ("name", "email", "about")},
    "me.new_password": ("PUT", "/user/me/password", {"current_password": PASSWORD}, "new_password"),
    **{f"blog.{field}": ("POST", "/blog/", NOTES, field) for field in TEXTS_OF_BLOG},
    **{f"put.{field}": ("PUT", "/blog/{blog}", NOTES, field) for field in TEXTS_OF_BLOG},
    **{f"patch.{field}": ("PATCH", "/blog/{blog}", {}, field) for field in TEXTS_OF_BLOG},
    **{f"room.{field}": ("POST", "/room/", LOOMS, field) for field in ("name", *LABELS_OF_ROOM)},
    **{f"patch room.{field}": ("PATCH", "/room/{room}", {}, field) for field in ("name", *LABELS_OF_ROOM)},
    "message.body": ("POST", "/room/{room}/messages", WEAVES, "body"),
    "token.name": ("POST", "/user/me/tokens", BACKUP, "name"),
    "invitation.email": ("POST", "/invitation/", {}, "email"),
    "reset.email": ("POST", "/password-reset", {}, "email"),
    "reset.password": ("POST", "/password-reset/confirm", RESET, "password"),
    "verification.email": ("POST", "/email-verification", {}, "email"),
}
# Each place of a one-time token, which is looked up and never stored, and what such a token is for.
ONE_TIME: dict[Purpose, tuple[str, str, dict[str, Any], str]] = {
    Purpose.INVITATION: ("POST", "/user/", ADA, "invitation"),
    Purpose.PASSWORD_RESET: ("POST", "/password-reset/confirm", RESET, "token"),
    Purpose.EMAIL_VERIFICATION: ("POST", "/email-verification/confirm", {}, "token"),
}
# Each place of something that is no text.
VALUES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "token.scopes": ("POST", "/user/me/tokens", BACKUP, "scopes"),
    "token.expires_at": ("POST", "/user/me/tokens", BACKUP, "expires_at"),
    "blog.status": ("POST", "/blog/", NOTES, "status"),
    "put.status": ("PUT", "/blog/{blog}", NOTES, "status"),
    "patch.status": ("PATCH", "/blog/{blog}", {}, "status"),
    "blog.publish_at": ("POST", "/blog/", NOTES, "publish_at"),
    "put.publish_at": ("PUT", "/blog/{blog}", NOTES, "publish_at"),
    "patch.publish_at": ("PATCH", "/blog/{blog}", {}, "publish_at"),
    "room.slow_mode": ("POST", "/room/", LOOMS, "slow_mode"),
    "patch room.slow_mode": ("PATCH", "/room/{room}", {}, "slow_mode"),
    "patch room.is_closed": ("PATCH", "/room/{room}", {}, "is_closed"),
    "invitation.role": ("POST", "/invitation/", {}, "role"),
    "user.role": ("PATCH", "/user/{user}", {}, "role"),
    "user.is_active": ("PATCH", "/user/{user}", {}, "is_active"),
}
PLACES = [*TEXTS.values(), *ONE_TIME.values(), *VALUES.values()]
BODIES = {(method, path): body for method, path, body, _ in PLACES}
"""A body for everything that takes one, which is accepted but for the links, of which there are none."""


@dataclass
class World:
    """A user with one of everything, an admin, and all rows as they were.

    `ids` are those of the rows, by what a path calls them.
    """

    client: httpx.AsyncClient
    app: FastAPI
    user: User
    login: str
    ids: dict[str, int]
    author: dict[str, str]
    admin: dict[str, str]
    refresh_token: str
    personal_token: str
    links: dict[Purpose, str]
    before: list[Any]
    is_refused: bool = False

    async def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """As the author, or as the admin where only admins are let in, unless other headers say who asks."""
        await self.settle()
        return await self._send(method, path, **request)

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        for_admins = path.startswith("/invitation") or (method, path) == ("PATCH", "/user/{user}")
        for name, number in self.ids.items():
            path = path.replace(f"{{{name}}}", str(number))
        url = httpx.URL("http://127.0.0.1:8000").copy_with(raw_path=path.encode())
        given = request.pop("headers", {})
        headers = given if "Authorization" in given else (self.admin if for_admins else self.author) | given
        if "body" in request:
            # With NaN, lone surrogates and all; no client of good will writes such JSON.
            request["content"] = json.dumps(request.pop("body"))
            headers = JSON | headers
        response = await self.client.request(method, url, headers=headers, **request)
        assert response.status_code < 500
        assert WORD not in response.text
        assert WORD not in str(response.headers)
        return response

    async def refuse(self, refusal: tuple[int, str], method: str, path: str, **request: Any) -> None:
        """Send what must be refused so, and must change nothing, as is seen before anything else is sent or done."""
        response = await self._send(method, path, **request)
        asked = (method, path[:100], {name: ascii(value)[:200] for name, value in request.items()})
        assert response.status_code == refusal[0], asked
        assert code(response) == refusal, asked
        self.is_refused = True

    async def settle(self) -> None:
        """See that what was refused since the last time has left every row as it was."""
        if self.is_refused:
            assert await rows(self.app) == self.before, "refused, and done all the same"
            self.is_refused = False


TABLES = ("user", "blog", "login_session", "personal_token", "one_time_link", "media", "room", "message")


async def rows(app: FastAPI) -> list[Any]:
    tables = [SQLModel.metadata.tables[name] for name in TABLES]
    async with app.state.database.fresh() as session:
        return [(await session.execute(select(table).order_by(*table.primary_key))).all() for table in tables]


@pytest.fixture
async def world(app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> AsyncIterator[World]:
    user = await factory.user(email="ada@example.com")
    admin = await factory.admin()
    blog, room = await factory.blog(user), await factory.room(user)
    await factory.message(room.id, user)
    login = factory.logins[user.id]
    refresh_token, personal_token = await factory.refresh_token(user), await factory.personal_token(user)
    ids, links = {"user": user.id, "blog": blog.id, "revision": 1, "session": login.id}, {}
    ids |= {"room": room.id, "message": 1}
    async with app.state.database.write.begin() as session:
        await RoomRepository(session).add_of_blog(blog.id)
        tokens = PersonalTokenRepository(session)
        # Its use has been noted, so that another one changes no row.
        caller, _ = await tokens.find_caller(personal_token)
        assert caller is not None
        ids["token"] = cast(int, caller.token_id)
        await tokens.note_use(ids["token"], now())
        for purpose in Purpose:
            owner, role = (admin, Role.AUTHOR) if purpose is Purpose.INVITATION else (user, None)
            email = None if purpose is Purpose.INVITATION else user.email
            link, links[purpose] = await LinkRepository(session).add(
                owner.id, purpose, LIFETIMES[purpose], email=email, role=role
            )
            if purpose is Purpose.INVITATION:
                ids["invitation"] = link.id
    world = World(
        client=client,
        app=app,
        user=user,
        login=login.public_id,
        ids=ids,
        author=factory.login(user),
        admin=factory.login(admin),
        refresh_token=refresh_token,
        personal_token=personal_token,
        links=links,
        before=await rows(app),
    )
    yield world
    await world.settle()


def of(field: str, text: Any) -> Any:
    """The text where it can be in an address, and with the word that no answer may repeat where it is a password."""
    if isinstance(text, str) and field.endswith("email"):
        return f"a{text}@example.com"
    if isinstance(text, str) and field.endswith("password"):
        return WORD + text
    return [text] if field == "tags" else text


UNSTORABLE = {
    "nul": "a\0b",
    "lone high surrogate": "a\ud800b",
    "lone low surrogate": "a\udfffb",
    "backspace": "a\bb",
    "vertical tab": "a\x0bb",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7fb",
    "noncharacter": "a\ufffeb",
}
NOT_TEXT = {
    "null": None,
    "true": True,
    "number": 7,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "list": ["Ada"],
    "object": {"$ne": ""},
}


class TestText:
    @on("sqlite")
    async def test_unstorable(self, world: World) -> None:
        for text in UNSTORABLE.values():
            for method, path, body, field in TEXTS.values():
                await world.refuse(INVALID, method, path, body=body | {field: of(field, text)})

    @on("sqlite")
    async def test_not_text(self, world: World) -> None:
        for value in NOT_TEXT.values():
            for method, path, body, field in (*TEXTS.values(), *ONE_TIME.values()):
                await world.refuse(INVALID, method, path, body=body | {field: of(field, value)})

    @on("sqlite")
    async def test_too_long(self, world: World) -> None:
        for place, text in (
            ("user.name", "x" * 101),
            ("user.email", "x" * 400),
            ("user.email", "x@y" * 400),
            ("user.email", "ada@example.com." + "x" * 300),
            ("user.password", "x" * 5_000),
            ("user.password", "x" * 129),
            ("me.name", "x" * 101),
            ("me.about", "x" * 2_001),
            ("me.new_password", "x" * 5_000),
            ("blog.title", "x" * 201),
            ("blog.title", "x" * 1_000_000),
            ("blog.body", "x" * 200_001),
            ("put.title", "🧵" * 201),
            ("patch.body", "🧵" * 200_001),
            ("blog.summary", "x" * 501),
            ("put.slug", "x" * 101),
            ("patch.tags", "x" * 51),
            ("patch.tags", "ﷺ" * 50),
            *((f"room.{field}", "x" * 101) for field in ("name", *LABELS_OF_ROOM)),
            ("patch room.order", "🧵" * 101),
            ("message.body", "x" * 4_001),
            ("message.body", "🧵" * 4_001),
            ("message.body", "x" * 1_000_000),
            ("token.name", "x" * 101),
            ("invitation.email", "x" * 400),
            ("reset.email", "x" * 400),
            ("reset.password", "x" * 129),
            ("verification.email", "x" * 400),
        ):
            method, path, body, field = TEXTS[place]
            content = json.dumps(body | {field: of(field, text)}, ensure_ascii=False).encode()
            await world.refuse(INVALID, method, path, content=content, headers=JSON)

    @on("sqlite")
    async def test_shows_nothing(self, world: World) -> None:
        for text in (
            "",
            " ",
            "\t\n",
            "\u200b\u200d\u2060",
            "\ufeff",
            "\u202e",
            "\u00a0\u3000",
            "\u2800",
            "\u3164",
            "\uffa0\u115f\u1160",
            "\ufe0f",
            "\u034f",
        ):
            for place in (
                "user.name",
                "me.name",
                "token.name",
                "blog.title",
                "blog.body",
                "put.title",
                "patch.body",
                "room.name",
                "patch room.name",
                "message.body",
            ):
                method, path, body, field = TEXTS[place]
                await world.refuse(INVALID, method, path, body=body | {field: text})

    @on("sqlite")
    async def test_two_lines(self, world: World) -> None:
        of_rooms = [place for place in TEXTS if "room." in place]
        for end in ("\n", "\r\n", "\u2028", "\u2029", "\x85"):
            for place in ("user.name", "me.name", "token.name", "blog.title", "put.title", "patch.title", *of_rooms):
                method, path, body, field = TEXTS[place]
                await world.refuse(INVALID, method, path, body=body | {field: f"Ada{end}Set-Cookie: x"})

    async def test_odd_text_comes_back_as_it_was(self, world: World) -> None:
        texts = (
            "🧵",
            "🫨",  # of Unicode 15, which Python 3.11 does not know yet
            "👩‍💻 ❤️",  # joiners and variation selectors inside
            "織物 ﷺ नमस्ते",
            "e\u0301 and \u00e9",
            "a\u202eb",
            "../../etc/passwd",
            "admin",
            "'; DROP TABLE blog; --",
            "%s %(id)s {0} ${jndi:ldap://127.0.0.1/x} {{7*7}}",
            "]]></title><![CDATA[&amp;<script>alert(1)</script>",
            "=1+1",
            "null",
        )
        places = (
            "user.name",
            "me.name",
            "me.about",
            "token.name",
            "blog.title",
            "blog.body",
            "put.title",
            "patch.body",
            "message.body",
            *(place for place in TEXTS if "room." in place),
        )
        for (number, text), place in product(enumerate(texts), places):
            method, path, body, field = TEXTS[place]
            another = {"email": f"new{number}@example.com"} if place == "user.name" else {}
            response = await world.send(method, path, body=body | another | {field: text})
            assert response.status_code in (200, 201), (place, text)
            assert response.json()[field] == text, place
            url = response.headers.get("location", path if "{" in path else "/user/me")
            read = await world.send("GET", url, headers=world.admin if place == "user.name" else {})
            assert read.json()[field] == text, place

    async def test_the_longest_blog_however_it_is_written(self, world: World) -> None:
        longest = {"title": "🧵" * 200, "body": "🧵" * 200_000}
        for ensure_ascii in (False, True):
            content = json.dumps(longest, ensure_ascii=ensure_ascii).encode()
            response = await world.send("POST", "/blog/", content=content, headers=JSON)
            assert response.status_code == 201
            assert response.json()["body"] == longest["body"]

    async def test_known_address_in_another_spelling(self, world: World) -> None:
        for email in ("ADA@example.com", " ada@EXAMPLE.com", "ada@example.com\t", "ａda@example.com"):
            await world.refuse((409, "email_taken"), "POST", "/user/", body=ADA | {"email": email})

    @on("sqlite")
    async def test_not_an_address(self, world: World) -> None:
        for email in (
            "ada@example.com.",
            "ada@example..com",
            "ada@example.com>",
            "ada@[127.0.0.1]",
            "ada@localhost",
            "ada@@example.com",
            "@example.com",
            "ada@",
            "ada @example.com",
            "ada@exa mple.com",
            '"a b"@example.com',
            "ada@example.com\nBcc: eve@example.com",
            "ada@example.com,eve@example.com",
            "<script>@example.com",
            "=?utf-8?q?eve=40example.org=3e=20?=ada@example.com",  # which programs for mail take apart
            "=?utf-8?q?eve?=@example.com",
        ):
            for method, path, body, field in TEXTS.values():
                if field == "email":
                    await world.refuse(INVALID, method, path, body=body | {"email": email})


OURS = {
    "id": 1,
    "user_id": 1,
    "html": "<script>",
    "version": 7,
    "revision": 7,
    "renderer": 0,
    "is_draft": False,
    "published_at": "2020-01-01T00:00:00Z",
    "creator_id": 1,
    "creator": {"id": 1},
    "role": "admin",
    "is_admin": True,
    "is_active": False,
    "created_at": "2020-01-01T00:00:00Z",
    "password_hash": f"$2b$04${WORD}",
    "public_id": "0" * 32,
    "email_verified_at": "2026-01-01T00:00:00Z",
    "token_digest": "0" * 64,
    "purpose": "password_reset",
    "scope": "admin",
    "last_used_at": None,
    "login_id": 1,
    "__proto__": {"role": "admin"},
    "": "",
    "a\0b": 1,
    "a\ud800b": 1,
    "x" * 5_000: 1,
}


FORMS = [("POST", "/login"), ("POST", "/revoke")]
PLACED = {(method, path, field) for method, path, _, field in PLACES}


@on("sqlite")
class TestBody:
    async def test_unknown_field(self, world: World) -> None:
        for field, value in OURS.items():
            for (method, path), body in BODIES.items():
                if (method, path, field) not in PLACED:
                    await world.refuse(INVALID, method, path, body=body | {field: value})

    async def test_unreadable_json(self, world: World) -> None:
        for content, refusal in (
            (b"", INVALID),
            (b" ", INVALID),
            (b"null", INVALID),
            (b"[]", INVALID),
            (b'"title"', INVALID),
            (b"7", INVALID),
            (b"{", INVALID),
            (b"{]", INVALID),
            (b"{'title': 'x'}", INVALID),
            (b'{"title": "x", "body": "y",}', INVALID),
            (b'{"title": "x", "body": "y"} x', INVALID),
            (b'{"title": "x", "body": "y"}\0', INVALID),
            (b'{"title": "\\x", "body": "y"}', INVALID),
            (b'{"title": "\xff", "body": "y"}', UNREADABLE),
            (b'{"title": "\xc0\x80", "body": "y"}', UNREADABLE),
            (b'{"title": "\xed\xa0\x80", "body": "y"}', INVALID),
            (b'{"title": NaN, "body": 1e999}', INVALID),
            (b'{"title": "x", "body": "y", "z": 1e999}', INVALID),
            (b'{"title": "x", "body": "y", "z": ' + b"9" * 5_000 + b"}", UNREADABLE),
            (b"[" * 100_000, UNREADABLE),
            (b"[" * 2_000 + b"]" * 2_000, UNREADABLE),
            (b'{"title": ' + b"[" * 2_000 + b"]" * 2_000 + b', "body": "y"}', UNREADABLE),
            (b'{"title": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b', "body": "y"}', UNREADABLE),
            (b"--x\r\n\r\n--x--", INVALID),
            (b"title=x&body=y", INVALID),
        ):
            for method, path in BODIES:
                await world.refuse(refusal, method, path, content=content, headers=JSON)
            await world.refuse(refusal, "PUT", "/user/", content=content, headers=JSON | world.admin)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
    async def test_other_unicode_is_read_as_such(self, world: World, encoding: str) -> None:
        """RFC 8259, section 8.1, asks for UTF-8 and lets a reader be kinder; what is read is what was written."""
        content = json.dumps({"title": "é 🧵", "body": "x"}, ensure_ascii=False).encode(encoding)
        response = await world.send("POST", "/blog/", content=content, headers=JSON)
        assert response.status_code == 201
        assert response.json()["title"] == "é 🧵"

    async def test_of_one_name_twice_the_last_counts(self, world: World) -> None:
        content = b'{"title": "", "body": "x", "title": "last"}'
        response = await world.send("POST", "/blog/", content=content, headers=JSON)
        assert response.status_code == 201
        assert response.json()["title"] == "last"
        await world_is(world, blogs=2)

    async def test_not_called_json(self, world: World) -> None:
        """A form of another site can send these without asking the browser for leave."""
        for media_type in (
            "",
            "text/plain",
            "text/json",
            "text/html",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "json",
        ):
            headers = {"Content-Type": media_type} if media_type else {}
            for (method, path), body in BODIES.items():
                await world.refuse(INVALID, method, path, content=json.dumps(body).encode(), headers=headers)

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("kind", ["json", "form", "multipart"])
    async def test_too_large(self, world: World, kind: str, chunked: bool) -> None:
        limit = world.app.state.settings.body_limit
        part = b"x" * 500_000  # what a form's field may have
        count = limit // len(part) + 1
        disposition = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
        media_type, content, places = {
            "json": (
                "application/json",
                b" " * (limit + 1),
                list(BODIES),
            ),
            "form": (FORM["Content-Type"], (b"&a=" + part) * count, FORMS),
            "multipart": (f"{MULTIPART}; boundary=x", (disposition + part + b"\r\n") * count, FORMS),
        }[kind]
        for method, path in places:
            sent = chunks(content) if chunked else content
            await world.refuse(TOO_LARGE, method, path, content=sent, headers={"Content-Type": media_type})
        if not chunked:  # nobody reads what is sent to nobody
            await world.refuse(TOO_LARGE, "POST", "/nowhere", content=content)

    async def test_just_small_enough(self, world: World) -> None:
        limit = world.app.state.settings.body_limit
        content = json.dumps(NOTES).encode().ljust(limit)
        for sent in (content, chunks(content)):
            assert (await world.send("POST", "/blog/", content=sent, headers=JSON)).status_code == 201


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 2**16):
        yield content[start : start + 2**16]


async def world_is(world: World, *, blogs: int) -> None:
    assert len((await rows(world.app))[1]) == blogs


NO_TIMES = [
    None,
    True,
    0,
    1e999,
    4_000_000_000,
    "",
    "now",
    "infinity",
    "P1D",
    "4000000000",
    "2100-01-01",
    "2100-01-01T00:00:00",
    "2100-01-01T00:00Z",
    "2100-01-01T00:00:00z\n",
    "2100-01-01T00:00:00Z\0",
    "2100-01-01T00:00:00+0100",
    "2100-01-01T00:00:00\u221201:00",
    "2100-01-01T00:00:00Z[Europe/Zurich]",
    "2100-02-30T00:00:00Z",
    "2100-13-01T00:00:00Z",
    "2100-01-01T24:00:00Z",
    "2100-01-01T00:00:00+24:00",
    "2100-01-01T00:00:00+99:99",
    "2100-06-30T23:59:60Z",  # a second that neither Python nor the databases have
    "２100-01-01T00:00:00Z",
    "+2100-01-01T00:00:00Z",
    "12100-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2200-01-01T00:00:00Z",
    "2199-12-31T23:59:59-00:01",
    "2020-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    ["2100-01-01T00:00:00Z"],
    {"$gt": "2100"},
]
NO_SCOPES = [
    None,
    "",
    "blog:read",
    "blog:read blog:write",
    [],
    {"blog:read": True},
    {},
    7,
    [None],
    [7],
    [["blog:read"]],
    [""],
    ["blog:read", ""],
    ["BLOG:READ"],
    ["blog:read "],
    ["blog:read\n"],
    ["blog:read\0"],
    ["blog:\ud800"],
    ["blog:read blog:write"],
    ["blog:*"],
    ["*"],
    ["root"],
    [WORD],
    ["blog:read", "blog:read"],
    ["blog:read"] * 10_000,
    [f"blog:{number}" for number in range(10_000)],
]
NO_ROLES = [None, "", "root", "ADMIN", " admin", "admin\0", "admin\n", WORD, "\ud800", 0, True, ["admin"], {"$ne": ""}]
NO_STATUS = [None, "", "DRAFT", "draft ", "draft\0", "private", WORD, "\ud800", 0, True, ["draft"], {"$ne": ""}]
NO_FLAGS: list[Any] = [None, 0, 1, 1.0, "true", "", "no", [], {}]
NO_SECONDS: list[Any] = [
    None,
    True,
    -1,
    0.5,
    5.0,
    21_601,
    2**31,
    2**63,
    10**23,
    1e999,
    float("nan"),
    "",
    "5",
    "soon",
    [5],
    {},
]
WRONG_VALUES: dict[str, list[Any]] = {
    "scopes": NO_SCOPES,
    "expires_at": NO_TIMES,
    "publish_at": [time for time in NO_TIMES if time != "2020-01-01T00:00:00Z"],
    "status": NO_STATUS,
    "role": NO_ROLES,
    "is_active": NO_FLAGS,
    "is_closed": NO_FLAGS,
    "slow_mode": NO_SECONDS,
}


class TestValue:
    @on("sqlite")
    async def test_wrong(self, world: World) -> None:
        for method, path, body, field in VALUES.values():
            for value in WRONG_VALUES[field]:
                await world.refuse(INVALID, method, path, body=body | {field: value})

    @on("sqlite")
    @pytest.mark.parametrize("field", ["role", "is_active"])
    async def test_wrong_in_a_list(self, world: World, field: str) -> None:
        for value in WRONG_VALUES[field]:
            changes = [{"id": world.user.id, "role": "reader"}, {"id": world.user.id + 1, field: value}]
            await world.refuse(INVALID, "PUT", "/user/", body=changes, headers=world.admin)

    async def test_a_time_in_another_spelling(self, world: World) -> None:
        for time, kept in (
            ("2100-01-01t00:00:00z", "2100-01-01T00:00:00Z"),
            ("2100-01-01 00:00:00Z", "2100-01-01T00:00:00Z"),
            ("2100-01-01T00:00:00.999999999Z", "2100-01-01T00:00:00Z"),
            ("2100-02-28T23:59:59-23:59", "2100-03-01T23:58:59Z"),
            ("2100-01-01T00:00:00-00:00", "2100-01-01T00:00:00Z"),
            ("2199-12-31T23:59:59Z", "2199-12-31T23:59:59Z"),
            ("2200-01-01T00:00:00+00:01", "2199-12-31T23:59:00Z"),
        ):
            made = await world.send("POST", "/user/me/tokens", body=BACKUP | {"expires_at": time})
            assert made.status_code == 201, time
            read = await world.send("GET", made.headers["location"])
            assert made.json()["expires_at"] == read.json()["expires_at"] == kept, time

    @on("sqlite")
    async def test_a_literal_that_is_no_number(self, world: World) -> None:
        for literal in (b"1e999", b"-1e999", b"NaN", b"9" * 400):
            for name in ("scopes", "expires_at", "name"):
                content = json.dumps(BACKUP | {name: "?"}).encode().replace(b'"?"', literal)
                await world.refuse(INVALID, "POST", "/user/me/tokens", content=content, headers=JSON)

    @on("sqlite")
    @pytest.mark.parametrize("scopes", [["admin"], ["blog:read", "admin"]])
    async def test_scopes_beyond_the_role(self, world: World, scopes: list[str]) -> None:
        await world.refuse((403, "admin_required"), "POST", "/user/me/tokens", body=BACKUP | {"scopes": scopes})

    @on("sqlite")
    async def test_scopes_beyond_the_token(self, world: World, factory: Factory) -> None:
        narrow = factory.login(world.user, [Scope.USER_WRITE])
        for scopes in (["blog:read"], ["user:write", "blog:write"]):
            body = BACKUP | {"scopes": scopes}
            await world.refuse((403, "insufficient_scope"), "POST", "/user/me/tokens", body=body, headers=narrow)

    @on("sqlite")
    async def test_a_personal_token_makes_no_other(self, world: World) -> None:
        headers = {"Authorization": f"Bearer {world.personal_token}"}
        await world.refuse((403, "login_required"), "POST", "/user/me/tokens", body=BACKUP, headers=headers)


def hostile_opaque_tokens(good: str, prefix: str) -> Iterator[str]:
    """Texts that look like this token, or like none, and are not it."""
    yield from (
        "",
        " ",
        "\0",
        prefix,
        prefix[:-1],
        prefix + WORD,
        prefix + "x" * 43,
        WORD,
        "null",
        "*",
        "%",
        "' OR 1=1 --",
    )
    yield from (good[:-1], good + "x", good + "=", f"{good}\0", f"{good}\n", f" {good}", f"{good} ", f"{good}\t")
    yield from (good.upper(), good.swapcase(), good.replace("blog_", "BLOG_"), good.removeprefix(prefix))
    yield from (good[:-1] + "é", good[:-1] + "\u2028", good[:-1] + "ｘ", good + "\u200b")
    yield f"{good}.{good}"
    yield prefix + "\0" * 43
    yield prefix + "-" * 43


class TestOneTimeToken:
    @pytest.mark.parametrize("purpose", Purpose)
    async def test_hostile(self, world: World, purpose: Purpose) -> None:
        method, path, body, field = ONE_TIME[purpose]
        strong = {"password": f"{WORD} of another kind"} if "password" in body else {}
        hostile = [*hostile_opaque_tokens(world.links[purpose], LINK), world.personal_token, world.refresh_token]
        hostile += [link for made_for, link in world.links.items() if made_for is not purpose]
        for token in hostile:
            await world.refuse(BAD_LINK, method, path, body=body | strong | {field: token})
        for token in ("x" * 201, "x" * 1_000_000, "\ud800", f"{world.links[purpose]}\udfff"):
            await world.refuse(INVALID, method, path, body=body | strong | {field: token})
        used = await world.send(method, path, body=body | strong | {field: world.links[purpose]})
        assert used.status_code in (201, 204)
        world.before = await rows(world.app)
        again = strong | {"email": "another@example.com"} if field == "invitation" else strong
        await world.refuse(BAD_LINK, method, path, body=body | again | {field: world.links[purpose]})

    async def test_a_password_that_is_no_good_leaves_the_link_as_it_was(self, world: World) -> None:
        token = world.links[Purpose.PASSWORD_RESET]
        for password, refusal in (("short", INVALID), ("password1234", WEAK), (f"ada {WORD}", WEAK)):
            body = {"token": token, "password": password}
            await world.refuse(refusal, "POST", "/password-reset/confirm", body=body)

    async def test_somebody_elses_invitation(self, world: World) -> None:
        made = await world.send("POST", "/invitation/", body={"email": "bob@example.com", "role": "admin"})
        world.before = await rows(world.app)
        body = ADA | {"invitation": made.json()["token"]}
        for email in ("eve@example.com", "bob@example.com.evil.example", "bob+x@example.com"):
            await world.refuse(BAD_LINK, "POST", "/user/", body=body | {"email": email})


ALIASES = [
    "+{id}",
    "0{id}",
    "{id}.0",
    "{id}_0",
    "%20{id}",
    "{id}%20",
    "{id}%0a",
    "{id}e0",
    "0x{id}",
    "{id}%00",
    "%ef%bc%91",
]
NO_IDS = ["0", "-1", "1e3", "0x10", "nan", "true", "null", "%ff", "%00", "%27%20or%201=1", "*", "9" * 23, "9" * 5_000]
NO_IDS += [str(2**63 - 1), str(2**63), str(2**64)]
NOBODYS = [str(2**31 - 1), str(2**31), str(2**32 + 1), "9" * 10]


class TestId:
    @on("sqlite")
    async def test_no_id(self, world: World) -> None:
        for spelling in NO_IDS:
            await self.refused(world, INVALID, spelling)

    @on("sqlite")
    async def test_another_spelling_of_an_id(self, world: World) -> None:
        """One thing has one address: else a rule for the address can be walked around."""
        for spelling in ALIASES:
            for name, number in world.ids.items():
                await self.refused(world, INVALID, spelling.replace("{id}", str(number)), only=name)

    async def test_nobody_has_it(self, world: World) -> None:
        for spelling in NOBODYS:
            for name in world.ids:
                await self.refused(world, (404, f"{name}_not_found"), spelling, only=name)

    async def refused(self, world: World, refusal: tuple[int, str], spelling: str, only: str | None = None) -> None:
        for name, method, path, headers, body in (
            ("blog", "GET", "/blog/", world.admin, None),
            ("blog", "PUT", "/blog/", world.admin, NOTES),
            ("blog", "PATCH", "/blog/", world.admin, {}),
            ("blog", "DELETE", "/blog/", world.admin, None),
            ("revision", "GET", "/blog/{blog}/revisions/", world.admin, None),
            ("blog", "GET", "/blog/{}/room", world.admin, None),
            ("room", "GET", "/room/", world.admin, None),
            ("room", "PATCH", "/room/", world.admin, {}),
            ("room", "DELETE", "/room/", world.admin, None),
            ("room", "GET", "/room/{}/messages", world.admin, None),
            ("room", "POST", "/room/{}/messages", world.admin, WEAVES),
            ("message", "GET", "/room/{room}/messages/", world.admin, None),
            ("message", "DELETE", "/room/{room}/messages/", world.admin, None),
            ("user", "GET", "/user/", world.admin, None),
            ("user", "PATCH", "/user/", world.admin, {"role": "reader"}),
            ("user", "DELETE", "/user/", world.admin, None),
            ("session", "DELETE", "/user/me/sessions/", world.author, None),
            ("token", "GET", "/user/me/tokens/", world.author, None),
            ("token", "DELETE", "/user/me/tokens/", world.author, None),
            ("invitation", "GET", "/invitation/", world.admin, None),
            ("invitation", "DELETE", "/invitation/", world.admin, None),
        ):
            if only in (None, name):
                request = {} if body is None else {"body": body}
                url = path.replace("{}", spelling) if "{}" in path else f"{path}{spelling}"
                await world.refuse(refusal, method, url, headers=headers, **request)

    @on("sqlite")
    async def test_in_a_query(self, world: World) -> None:
        for spelling in (*NO_IDS, *(alias.format(id=1) for alias in ALIASES)):
            spelling = spelling.replace("+", "%2B")
            await world.refuse(INVALID, "GET", f"/blog/{{blog}}/revisions/1?diff={spelling}")
            await world.refuse(INVALID, "DELETE", f"/user/{{user}}?blogs=reassign&to={spelling}", headers=world.admin)

    async def test_somebody_elses(self, world: World) -> None:
        """Whose login or personal token it is, is in no path: the right id with another's login names nothing."""
        await world.refuse((404, "session_not_found"), "DELETE", "/user/me/sessions/{session}", headers=world.admin)
        for method in ("GET", "DELETE"):
            await world.refuse((404, "token_not_found"), method, "/user/me/tokens/{token}", headers=world.admin)
            for who in (world.author, {"Authorization": f"Bearer {world.personal_token}"}):
                await world.refuse((403, "admin_required"), method, "/invitation/{invitation}", headers=who)

    @on("sqlite")
    async def test_in_a_body(self, world: World) -> None:
        for number in (0, -1, 1.0, 1.5, True, "1", "x", None, 2**31, 2**63, 10**23, 1e999, [1]):
            if number == "1":  # lax as pydantic is, a string of digits is the same id
                number = "01"
            changes = [{"id": world.user.id, "role": "reader"}, {"id": number, "role": "admin"}]
            await world.refuse(INVALID, "PUT", "/user/", body=changes, headers=world.admin)

    @pytest.mark.parametrize("name", ["session", "token", "invitation"])
    async def test_gone_by_another_name(self, world: World, name: str, factory: Factory) -> None:
        path = {"session": "/user/me/sessions/{session}", "token": "/user/me/tokens/{token}"}.get(
            name, "/invitation/{invitation}"
        )
        headers = world.admin if name == "invitation" else await factory.another_login(world.user)
        assert (await world.send("DELETE", path, headers=headers)).status_code == 204
        world.before = await rows(world.app)
        for method in ("DELETE", "GET") if name != "session" else ("DELETE",):
            await world.refuse((404, f"{name}_not_found"), method, path, headers=headers)

    async def test_gone(self, world: World) -> None:
        assert (await world.send("DELETE", "/blog/{blog}")).status_code == 204
        world.before = await rows(world.app)
        for method, body in (("DELETE", None), ("PUT", NOTES), ("PATCH", {}), ("GET", None)):
            request = {} if body is None else {"body": body}
            await world.refuse((410, "blog_deleted"), method, "/blog/{blog}", **request)
        await world.refuse((410, "blog_deleted"), "GET", "/blog/{blog}/room")

    async def test_gone_room_and_message(self, world: World) -> None:
        assert (await world.send("DELETE", "/room/{room}/messages/{message}")).status_code == 204
        world.before = await rows(world.app)
        await world.refuse((410, "message_removed"), "DELETE", "/room/{room}/messages/{message}")
        assert (await world.send("DELETE", "/room/{room}")).status_code == 204
        world.before = await rows(world.app)
        for method, path in (("DELETE", "/room/{room}"), ("GET", "/room/{room}"), ("GET", "/room/{room}/messages")):
            await world.refuse((404, "room_not_found"), method, path)
        await world.refuse((404, "room_not_found"), "PATCH", "/room/{room}", body={})
        await world.refuse((404, "room_not_found"), "POST", "/room/{room}/messages", body=WEAVES)
        await world.refuse((404, "room_not_found"), "DELETE", "/room/{room}/messages/{message}")


LISTS = (
    "/blog/",
    "/blog/{blog}/revisions",
    "/tag/",
    "/user/",
    "/user/me/sessions",
    "/user/me/tokens",
    "/invitation/",
    "/room/",
)
LIMITS = ["-1", "0", "101", "100000000000", str(2**63), "9" * 26, "9" * 5_000, "abc", "", "1e1", "1.0", "+1", "%201"]
LIMITS += ["1_0", "%ef%bc%91", "0x1", "01", "nan", "null", "1%00", "%ff", "1&limit=0"]
FILTERS = {
    "/blog/": [
        *(f"author={number}" for number in (0, -1, 2**31, 2**63, 10**22, "x", "1%00", "%ff", "", "1.0", "+1")),
        *(f"sort={sort}" for sort in ("", "id", "TITLE", "title,id", "-title", "title;drop%20table%20blog", "%00")),
        "sort=(select%20password_hash%20from%20user)",
        "sort=title%20desc--",
        *(f"tag={tag}" for tag in ("", "%20", "%23", "%00", "a%00b", "a%0ab", "%1b[2J", "x" * 51, "x" * 60_000)),
        *(f"status={status}" for status in ("", "DRAFT", "all", "draft%00", "draft'--", "%ff")),
        *(f"q={part}" for part in ("%00", "a%00b", "%1b[2J", "x" * 501, "x" * 60_000, "%22" * 9_999)),
        "fields=html",
        *(f"fields={fields}" for fields in ("", "*", "password_hash", "id,", ",id", "id%00", "creator.email", "%ff")),
    ],
    "/user/": [
        *(f"role={role}" for role in ("", "root", "ADMIN", "admin%00", "admin'--", "%ff")),
        *(f"is_active={value}" for value in ("", "2", "maybe", "null", "true%00", "%ff")),
        *(f"q={part}" for part in ("", "%20", "%00", "a%00b", "a%0ab", "%1b[2J", "x" * 101, "x" * 60_000)),
    ],
    "/room/": [
        *(f"sort={sort}" for sort in ("", "id", "ORDER", "order,id", "-order", "order;drop%20table%20room", "%00")),
        "sort=(select%20password_hash%20from%20user)",
        "sort=order%20desc--",
        *(f"category={part}" for part in ("%00", "a%00b", "a%0ab", "%1b[2J", "a%e2%80%a8b", "x" * 101, "x" * 60_000)),
        *(f"before={quote(str(time))}" for time in NO_TIMES if time != "2020-01-01T00:00:00Z"),
        "before=2020-01-01T00:00:00Z&sort=order",
    ],
    "/room/{room}/messages": [
        *(
            f"{name}={number}"
            for name in ("after", "before")
            for number in (-1, "00", 2**31, 2**63, 10**22, "9" * 5_000, "x", "1%00", "%ff", "", "1.0", "+1", "1e1")
        ),
        "after=1&before=1",
    ],
}
SEARCHES = ['"', "*", "AND", "a OR", "NOT", "NEAR(", "foo:x", "-", "^", "()", "'", "+", "@@", 'a"', "a +-", "<->", "!"]
SEARCHES += ["%", "_", "\\", "\\%", "[a-z]", "a" * 100, "' OR 1=1 --", "') OR ('1'='1", "$$", "%s", ":q", "?", "\ufffd"]

FORGED_CURSORS = [
    "",
    "x",
    "%00",
    "%ff",
    ".",
    "..",
    "-1",
    "WzFd.x",
    "bnVsbA.AAAA",
    encode(b"[" * 1_100) + "." + "A" * 43,
    "." + encode(b"x\x9c" + b"\0" * 100) + "." + "A" * 43,
    "../../etc/passwd",
    "'%20OR%201=1",
    "%ef%bc%91",
    "x" * 4_096,
]


class TestList:
    @on("sqlite")
    async def test_limit(self, world: World) -> None:
        for path in (*LISTS, "/blog/changes", "/room/{room}/messages"):
            for limit in LIMITS:
                await world.refuse(INVALID, "GET", f"{path}?limit={limit}", headers=world.admin)

    @on("sqlite")
    async def test_filter(self, world: World) -> None:
        for path in FILTERS:
            for query in FILTERS[path]:
                await world.refuse(INVALID, "GET", f"{path}?{query}", headers=world.admin)

    async def test_search_is_taken_literally(self, world: World) -> None:
        for part in SEARCHES:
            response = await world.client.get("/user/", params={"q": part}, headers=world.admin)
            assert (response.status_code, response.json()) == (200, []), part
            response = await world.client.get("/blog/", params={"q": part}, headers=world.admin)
            assert (response.status_code, response.json()) == (200, []), part
            response = await world.client.get("/room/", params={"category": part}, headers=world.admin)
            assert (response.status_code, response.json()) == (200, []), part

    async def test_search_for_bytes_that_are_no_text(self, world: World) -> None:
        for part in ("%ff%fe", "%ed%a0%80", "%c0%80", "%f5%80%80%80", "%"):
            for path in ("/user/", "/blog/"):
                response = await world.send("GET", f"{path}?q={part}", headers=world.admin)
                assert (response.status_code, response.json()) == (200, []), part

    @on("sqlite")
    async def test_what_no_list_knows_is_ignored(self, world: World) -> None:
        for query in ("offset=-1", f"page={2**62}&size=100", "x=%ff", "x=%00", "", "&&==&", "%00=%00"):
            for path in LISTS:
                assert (await world.send("GET", f"{path}?{query}", headers=world.admin)).status_code == 200, query

    @on("sqlite")
    async def test_forged_cursor(self, world: World) -> None:
        for path in LISTS:
            for cursor in FORGED_CURSORS:
                await world.refuse((422, "invalid_cursor"), "GET", f"{path}?cursor={cursor}", headers=world.admin)

    @on("sqlite")
    async def test_forged_place_among_changes(self, world: World) -> None:
        for cursor in FORGED_CURSORS:
            await world.refuse((422, "invalid_cursor"), "GET", f"/blog/changes?since={cursor}")
        await world.refuse(INVALID, "GET", f"/blog/changes?since={'x' * 4_097}")

    @on("sqlite")
    async def test_cursor_that_is_too_long(self, world: World) -> None:
        for path in LISTS:
            await world.refuse(INVALID, "GET", f"{path}?cursor={'x' * 4_097}", headers=world.admin)

    @on("sqlite")
    async def test_cursor_of_another_list_or_deployment(self, world: World, factory: Factory) -> None:
        await factory.blog(world.user)
        await world.send("PATCH", "/blog/{blog}", body={"title": "Another", "tags": ["a", "b"]})
        admin = await factory.admin()
        headers = await factory.another_login(admin)
        await factory.room(admin)
        for _ in range(2):
            await factory.personal_token(admin)
            assert (await world.send("POST", "/invitation/", body={}, headers=headers)).status_code == 201
        world.before = await rows(world.app)
        links = {
            path: (await world.send("GET", f"{path}?limit=1", headers=headers)).links["next"]["url"] for path in LISTS
        }
        cursors = {path: link.partition("cursor=")[2] for path, link in links.items()}
        foreign = {path: Cursors([SECRET[::-1]]).write(f"{path}?", (1,)) for path in LISTS}
        for path in LISTS:
            others = {cursors[other] for other in LISTS if other != path}
            for cursor in (*others, cursors[path][::-1], cursors[path][:-1], foreign[path]):
                await world.refuse((422, "invalid_cursor"), "GET", f"{path}?cursor={cursor}", headers=headers)
        for link in links.values():
            assert len((await world.send("GET", link, headers=headers)).json()) == 1


FIELDS = "&".join(f"a{number}=1" for number in range(1_001))
BOUNDARIES = ["", "; boundary=", "; boundary=" + "x" * 300, "; boundary=\N{LATIN SMALL LETTER E WITH ACUTE}"]


class TestLogIn:
    async def test_password(self, world: World) -> None:
        for password in ("\0", f"{WORD}\0", WORD * 400, "\udcff", "\ufffe", WORD, "", " "):
            form = httpx.QueryParams({"username": "ada@example.com"})
            content = f"{form}&password={quoted(password)}".encode()
            refusal = BAD_LOGIN if password else (400, "invalid_request")
            await world.refuse(refusal, "POST", "/login", content=content, headers=FORM)

    async def test_user_agent(self, world: World) -> None:
        """Kept of a login, as far as it can be."""
        form = {"username": "ada@example.com", "password": PASSWORD}
        for name in (b"", b"\0", b"a\0b", b"\x7f\x80\x9f", b"\xff\xfe", "\N{SPOOL OF THREAD}é".encode(), b"x" * 30_000):
            response = await world.send("POST", "/login", data=form, headers=cast(Any, {"User-Agent": name}))
            assert response.status_code == 200
            bearer = {"Authorization": f"Bearer {response.json()['access_token']}"}
            (login,) = (await world.send("GET", "/user/me/sessions?limit=1", headers=bearer)).json()
            assert login["current"]
            assert len(login["user_agent"]) <= 200
            assert "\0" not in login["user_agent"]

    @on("sqlite")
    async def test_scope(self, world: World) -> None:
        for scope in (
            WORD,
            f"blog:read {WORD}",
            "BLOG:READ",
            "blog:read,blog:write",
            "blog:read\tblog:write",
            "blog:read\n",
            "blog:read\0",
            "blog:read\xa0blog:write",
            "blog:read\u3000blog:write",
            "\udcff",
            "\udced\udca0\udc80",
            '"blog:read"',
            "blog:*",
            "openid offline_access",
            "' OR 1=1 --",
            "x" * 60_000,
            "x " * 30_000,
        ):
            for content in (
                f"username=ada@example.com&password={quoted(PASSWORD)}",
                f"grant_type=refresh_token&refresh_token={world.refresh_token}",
            ):
                form = f"{content}&scope={quoted(scope)}".encode()
                await world.refuse(BAD_SCOPE, "POST", "/login", content=form, headers=FORM)
        form = f"grant_type=refresh_token&refresh_token={world.refresh_token}&scope=blog:read".encode()
        assert (await world.send("POST", "/login", content=form, headers=FORM)).json()["scope"] == "blog:read"

    @on("sqlite")
    @pytest.mark.parametrize("scope", [" ", "blog:read  blog:read", "blog:read " * 5_000, " blog:read"])
    async def test_scope_with_nothing_wrong(self, world: World, scope: str) -> None:
        form = {"username": "ada@example.com", "password": PASSWORD, "scope": scope}
        response = await world.send("POST", "/login", data=form)
        assert response.status_code == 200
        assert response.json()["scope"].startswith("blog:read")

    @on("sqlite")
    async def test_scope_beyond_the_role(self, world: World) -> None:
        form = {"username": "ada@example.com", "password": PASSWORD, "scope": "admin"}
        await world.refuse(BAD_SCOPE, "POST", "/login", data=form)

    @on("sqlite")
    async def test_grant_type(self, world: World) -> None:
        for grant_type in (
            WORD,
            "PASSWORD",
            "password ",
            "password\0",
            "refresh-token",
            "authorization_code",
            "\udcff",
            "x" * 60_000,
        ):
            content = f"grant_type={quoted(grant_type)}&username=ada@example.com&password={quoted(PASSWORD)}"
            content += f"&refresh_token={world.refresh_token}"
            refusal = (400, "unsupported_grant_type")
            await world.refuse(refusal, "POST", "/login", content=content.encode(), headers=FORM)

    async def test_refresh_token(self, world: World) -> None:
        good, access = world.refresh_token, world.author["Authorization"].removeprefix("Bearer ")
        hostile = [*hostile_opaque_tokens(good, REFRESH), world.personal_token, access, *world.links.values()]
        hostile += ["\udcff", f"{good[:-1]}\udcff", "x" * 60_000, REFRESH + "x" * 75, f"{REFRESH}{'é' * 75}"]
        for token in hostile:
            content = f"grant_type=refresh_token&refresh_token={quoted(token)}".encode()
            refusal = BAD_REFRESH_TOKEN if token else BAD_REQUEST
            await world.refuse(refusal, "POST", "/login", content=content, headers=FORM)
        for form in (
            f"grant_type=refresh_token&username=ada@example.com&password={quoted(PASSWORD)}",
            f"grant_type=password&refresh_token={good}",
            f"refresh_token={good}",
        ):
            await world.refuse(BAD_REQUEST, "POST", "/login", content=form.encode(), headers=FORM)

    @on("sqlite")
    async def test_of_two_refresh_tokens_the_last_counts(self, world: World) -> None:
        for first, last, status in ((world.refresh_token, "x", 400), ("x", world.refresh_token, 200)):
            content = f"grant_type=refresh_token&refresh_token={first}&refresh_token={last}".encode()
            assert (await world.send("POST", "/login", content=content, headers=FORM)).status_code == status

    async def test_username(self, world: World) -> None:
        for username in ("%00", "ada@example.com%00", "%ff%fe", "%ed%a0%80", "x" * 400, "%0d%0aX: y"):
            content = f"username={username}&password={WORD}".encode()
            await world.refuse(BAD_LOGIN, "POST", "/login", content=content, headers=FORM)

    @on("sqlite")
    async def test_of_one_field_twice_the_last_counts(self, world: World) -> None:
        for first, last, status in ((WORD, PASSWORD, 200), (PASSWORD, WORD, 401)):
            content = f"username=ada@example.com&password={quoted(first)}&password={quoted(last)}".encode()
            assert (await world.send("POST", "/login", content=content, headers=FORM)).status_code == status

    @on("sqlite")
    async def test_unreadable_form(self, world: World) -> None:
        for content, media_type in (
            (FIELDS, "application/x-www-form-urlencoded"),
            ("&".join(["a=1"] * 200_000), "application/x-www-form-urlencoded"),
            ("username=" + "x" * 1_100_000, "application/x-www-form-urlencoded"),
            *((f"--x\r\n\r\n{WORD}", f"{MULTIPART}{boundary}") for boundary in BOUNDARIES),
            (
                "".join(
                    f'--x\r\nContent-Disposition: form-data; name="a{number}"\r\n\r\n1\r\n' for number in range(1_001)
                )
                + "--x--\r\n",
                f"{MULTIPART}; boundary=x",
            ),
            ("--x\r\n" + "A: b\r\n" * 10_000 + "\r\n1\r\n--x--\r\n", f"{MULTIPART}; boundary=x"),
        ):
            headers = cast(Any, {"Content-Type": media_type.encode()})
            for method, path in FORMS:
                await world.refuse(BAD_REQUEST, method, path, content=content.encode(), headers=headers)

    @on("sqlite")
    async def test_no_form(self, world: World) -> None:
        for media_type in ("application/json", "text/plain", "application/xml", "x", None):
            form = {"username": "ada@example.com", "password": PASSWORD, "token": world.personal_token}
            headers = {"Content-Type": media_type} if media_type else {}
            refusal = (415, "unsupported_media_type") if media_type else BAD_REQUEST
            for method, path in FORMS:
                for content in (json.dumps(form), str(httpx.QueryParams(form))):
                    if media_type or content.startswith("{"):
                        await world.refuse(refusal, method, path, content=content.encode(), headers=headers)

    @on("sqlite")
    async def test_in_the_query(self, world: World) -> None:
        query = f"username=ada@example.com&password={quoted(PASSWORD)}"
        await world.refuse(BAD_REQUEST, "POST", f"/login?{query}", content=b"", headers=FORM)
        query = f"token={world.personal_token}"
        await world.refuse(BAD_REQUEST, "POST", f"/revoke?{query}", content=b"", headers=FORM)


class TestRevoke:
    async def test_hostile(self, world: World) -> None:
        """RFC 7009, section 2.2: nobody is told whether there was such a token."""
        access = world.author["Authorization"].removeprefix("Bearer ")
        for good, prefix in ((world.personal_token, PERSONAL), (world.refresh_token, REFRESH), (access, "ey")):
            for token in (*hostile_opaque_tokens(good, prefix), "\udcff", "x" * 60_000, *world.links.values()):
                if token in ("", good):
                    continue
                content = f"token={quoted(token)}&token_type_hint={WORD}".encode()
                response = await world.send("POST", "/revoke", content=content, headers=FORM)
                assert (response.status_code, response.content) == (200, b""), ascii(token)
        assert await rows(world.app) == world.before

    @on("sqlite")
    async def test_no_token(self, world: World) -> None:
        for form in ("", "token=", "token=&token_type_hint=x", "tok=x", "token_type_hint=access_token"):
            await world.refuse(BAD_REQUEST, "POST", "/revoke", content=form.encode(), headers=FORM)

    @on("sqlite")
    async def test_file_for_a_field(self, world: World) -> None:
        await world.refuse(BAD_REQUEST, "POST", "/revoke", files={"token": world.personal_token.encode()})

    @on("sqlite")
    async def test_of_two_tokens_the_last_counts(self, world: World) -> None:
        content = f"token={world.personal_token}&token=x".encode()
        assert (await world.send("POST", "/revoke", content=content, headers=FORM)).status_code == 200
        assert await rows(world.app) == world.before
        content = f"token=x&token={world.personal_token}".encode()
        assert (await world.send("POST", "/revoke", content=content, headers=FORM)).status_code == 200
        assert await rows(world.app) != world.before


UPLOADS: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 422),
    "NUL": (b"\0", 422),
    "SVG with a script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 422),
    "XML": (b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>", 422),
    "HTML": (b"<!DOCTYPE html><script>alert(1)</script>", 422),
    "wrong magic": (b"\x89PNX" + image_of("png")[4:], 422),
    "magic alone": (b"\x89PNG\r\n\x1a\n", 422),
    "too wide": (png(30_000, 30_000), 422),
    "too many frames": (gif(100_000), 422),
    "HTML before an image": (b"<script>alert(1)</script>" + image_of("gif"), 422),
    "HTML behind an image": (image_of("gif") + b"<script>alert(1)</script>", 201),
    "an archive behind an image": (image_of("png") + b"PK\x03\x04" + b"\0" * 100, 201),
    "HTML in an image": (image_of("jpg", comment=b"<script>alert(1)</script>"), 201),
}
FILE_NAMES = [
    "../../x",
    "..\\..\\x",
    "/abs",
    "C:\\x",
    "x%0d%0aX-Injected: 1",
    "x%00.png",
    "x" * 5000,
    "x.html",
    "x.php",
]


@on("sqlite")
class TestUpload:
    @pytest.mark.parametrize("upload", UPLOADS)
    @pytest.mark.parametrize("media_type", ["image/png", "image/svg+xml", "text/html"])
    async def test_type(self, world: World, upload: str, media_type: str) -> None:
        content, status = UPLOADS[upload]
        response = await world.send("POST", "/media/", files={"file": ("x.html", content, media_type)})
        assert response.status_code == status
        if status != 201:
            assert response.json()["code"] in ("not_an_image", "too_many_pixels")
            assert await rows(world.app) == world.before
            return
        served = await world.client.get(response.json()["url"])
        assert served.headers["content-type"] == response.json()["media_type"]
        assert served.headers["content-type"] in MEDIA_TYPES.values()
        assert b"script" not in served.content
        assert b"PK\x03\x04" not in served.content

    @pytest.mark.parametrize("name", FILE_NAMES, ids=lambda name: name[:20])
    async def test_name(self, world: World, name: str) -> None:
        response = await world.send("POST", "/media/", files={"file": (name, image_of("png"), "text/html")})
        if len(name) > 4096:  # the header of a part is bounded
            assert code(response) == UNREADABLE
            return
        assert response.status_code == 201
        assert re.fullmatch(r"/media/[0-9a-f]{32}\.png", response.headers["location"])
        assert "x-injected" not in response.headers


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode(errors="surrogateescape"))


def hostile_tokens(settings: Settings, user: User, login: str) -> Iterator[tuple[str, str]]:
    """Tokens for a real user with one thing wrong each."""
    ours = {"iss": settings.issuer, "aud": settings.issuer, "sid": login, "scope": "blog:write user:read"}

    def signed(header: Any = None, **changes: Any) -> str:
        return forge(claims(**ours | {"sub": user.public_id} | changes), header or header_of(SECRET), SECRET)

    yield "nothing is wrong", signed()
    wrong: dict[str, dict[str, Any]] = {
        "sub holds NUL": {"sub": f"{user.public_id[:-1]}\0"},
        "sub is the row's id": {"sub": str(user.id)},
        "sub is a number": {"sub": user.id},
        "sub in capitals": {"sub": user.public_id.upper() + " "},
        "exp is null": {"exp": None},
        "exp is endless": {"exp": float("inf")},
        "exp is text": {"exp": "9999999999"},
        "exp is a list": {"exp": [9999999999]},
        "exp is 5,000 digits": {"exp": 10**4_000},
        "no exp": {"exp": ...},
        "no sub": {"sub": ...},
        "no aud": {"aud": ...},
        "no login": {"sid": ...},
        "another's login": {"sid": "0" * 32},
        "no scope": {"scope": ...},
        "another's audience": {"aud": "https://other.example/"},
        "another's issuer": {"iss": "https://other.example/"},
    }
    for name, changes in wrong.items():
        yield name, signed(**changes)
    headers: dict[str, dict[str, Any]] = {
        "alg none": {"alg": "none"},
        "a refresh token": {"typ": "rt+jwt"},
        "crit": {"crit": ["exp"]},
        "kid": {"kid": "../../dev/null"},
        "kid is null": {"kid": None},
    }
    for name, header in headers.items():
        yield name, signed(header_of(SECRET) | header)
    good = signed()
    yield "five parts", f"{good}.x.y"
    yield "a tail", f"{good}=="
    yield "another tail", f"{good}!!"
    yield "cut", good[:-1]
    for depth in (1_100, 40_000):
        yield f"header nested {depth} deep", f"{encode(b'[' * depth)}.e30.{'A' * 43}"
    yield "not ASCII", "é.é.é"
    yield "40 kB", "x" * 40_000
    yield "empty", ""


class TestToken:
    async def test_hostile(self, world: World) -> None:
        settings = world.app.state.settings
        for name, token in hostile_tokens(settings, world.user, world.login):
            headers = cast(Any, {"Authorization": f"Bearer {token}".encode()})
            for method, path in (("GET", "/user/me"), ("DELETE", "/blog/2147483647")):
                response = await world.send(method, path, headers=headers)
                if name == "nothing is wrong":
                    assert response.status_code == (200 if method == "GET" else 404)
                else:
                    assert code(response) == BAD_TOKEN, name
        assert await rows(world.app) == world.before

    async def test_hostile_personal_token(self, world: World) -> None:
        good = world.personal_token
        for token in (
            *hostile_opaque_tokens(good, PERSONAL),
            PERSONAL + "x" * 60_000,
            PERSONAL * 2,
            f"{good},{good}",
            f"{good} {good}",
            f"{good};x",
            world.refresh_token,
            *world.links.values(),
        ):
            if token.strip() == good:
                continue  # white space at either end is none of a header's value: RFC 9110, section 5.5
            headers = cast(Any, {"Authorization": b"Bearer " + token.encode()})
            for method, path in (("GET", "/user/me"), ("DELETE", "/blog/{blog}"), ("POST", "/logout")):
                await world.refuse(BAD_TOKEN, method, path, headers=headers)
        headers = {"Authorization": f"Bearer {good}"}
        assert (await world.send("GET", "/user/me", headers=headers)).status_code == 200
        assert await rows(world.app) == world.before

    @on("sqlite")
    async def test_scheme_in_any_case(self, world: World) -> None:
        """RFC 9110, section 11.1."""
        token = world.author["Authorization"].removeprefix("Bearer ")
        for scheme in ("bearer", "BEARER", "BeArEr"):
            response = await world.send("GET", "/user/me", headers={"Authorization": f"{scheme} {token}"})
            assert response.status_code == 200, scheme

    @on("sqlite")
    async def test_no_bearer(self, world: World) -> None:
        for value in ("", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "Digest x", "Bearer:x", "é"):
            headers = cast(Any, {"Authorization": value.encode()})
            response = await world.send("GET", "/user/me", headers=headers)
            assert code(response) in (NO_TOKEN, BAD_TOKEN), value

    async def test_a_new_name_ends_no_login(self, world: World) -> None:
        assert (await world.send("PATCH", "/user/me", body={"name": "Augusta"})).status_code == 200
        assert (await world.send("GET", "/user/me")).json()["name"] == "Augusta"


JUNK = "x;q=1e999,*/*;é\t" * 2_000
READ = (
    "/blog/",
    "/blog/{blog}",
    "/blog/changes",
    "/blog/slug/notes",
    "/blog/{blog}/revisions",
    "/blog/{blog}/revisions/1",
    "/tag/",
    "/user/me",
    "/user/{user}",
    "/user/me/sessions",
    "/user/me/tokens",
    "/user/me/tokens/{token}",
    "/invitation/",
    "/invitation/{invitation}",
    "/blog/{blog}/room",
    "/room/",
    "/room/{room}",
    "/room/{room}/messages",
    "/room/{room}/messages/{message}",
    "/.well-known/oauth-authorization-server",
    "/link",
)


@on("sqlite")
class TestRequest:
    async def test_garbage_in_a_header(self, world: World) -> None:
        for name in (
            "Accept",
            "Accept-Charset",
            "Accept-Encoding",
            "Accept-Language",
            "Cookie",
            "Idempotency-Key",
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "If-Range",
            "Range",
            "Origin",
            "Referer",
            "User-Agent",
            "X-Request-ID",
            "Traceparent",
        ):
            for path in READ:
                response = await world.send("GET", path, headers=cast(Any, {name: JUNK.encode()}))
                assert response.status_code == 200, (name, path)
                assert JUNK[:20] not in str(response.headers), (name, path)

    async def test_range(self, world: World) -> None:
        for ranges in ("bytes=" + ",".join(["0-0"] * 10_000), "bytes=-1e30", "bytes=9-1", "x"):
            assert (await world.send("GET", "/blog/", headers={"Range": ranges})).status_code == 200, ranges[:20]

    async def test_method_is_not_overridden(self, world: World) -> None:
        for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            for method in ("GET", "POST"):
                await world.send(method, "/blog/{blog}?_method=DELETE", headers={name: "DELETE"})
            assert await rows(world.app) == world.before, name

    async def test_path_is_not_overridden(self, world: World) -> None:
        for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Path"):
            await world.refuse((404, "not_found"), "GET", "/nowhere", headers={name: "/user/me"})

    async def test_host_that_is_not_ours(self, world: World) -> None:
        for host in ("evil.example", "127.0.0.1.evil.example", "a/b?c", "", "127.0.0.1:x", "é", "[::1"):
            for path in ("/blog", "/blog/", "/nowhere", "/login"):
                await world.refuse((400, "unknown_host"), "GET", path, headers=cast(Any, {"Host": host.encode()}))

    @pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For", "Forwarded"])
    async def test_what_is_forwarded_by_nobody_is_ignored(self, world: World, name: str, factory: Factory) -> None:
        await factory.blog(world.user)
        plain = await world.send("GET", "/blog/?limit=1")
        forged = await world.send("GET", "/blog/?limit=1", headers={name: "evil.example"})
        assert forged.headers["link"] == plain.headers["link"]
        created = await world.send("POST", "/blog/", body=NOTES, headers={name: "evil.example"})
        assert created.headers["location"] == f"/blog/{created.json()['id']}"

    async def test_path_that_is_not_ours(self, world: World) -> None:
        for path in (
            "//blog",
            "//blog/",
            "//evil.example/%2e%2e",
            "/%2e%2e/etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
            "/static-offline-docs/%2e%2e/%2e%2e/main.py",
            "/static-offline-docs/..%2f..%2fmain.py",
            "/static-offline-docs//etc/passwd",
            "/static-offline-docs/x%00.js",
            "/static-offline-docs/" + "x" * 5_000,
            "/%ff",
            "/%00",
            "/%0d%0aX-Evil:%20y",
            "/blog;x",
            "/BLOG/",
            "/blog//1",
            "/user/me/x",
            "/.env",
            "/blog.db",
            "/openapi.json%00",
            "/" + "x" * 30_000,
            "/" + "a/" * 5_000,
        ):
            await world.refuse((404, "not_found"), "GET", path)

    async def test_other_methods(self, world: World) -> None:
        """Each path has those that are documented, and HEAD where there is GET."""
        for path, operations in [*world.app.openapi()["paths"].items(), ("/link", ["get"])]:
            allowed = {method.upper() for method in operations} | ({"HEAD"} if "get" in operations else set())
            for spelling in {path, path.removesuffix("/")}:
                for method in sorted({*METHODS, "TRACE", "CONNECT", "PROPFIND", "BREW"} - allowed - {"HEAD"}):
                    response = await world.send(method, re.sub(r"{\w+}", "1", spelling))
                    assert code(response) == (405, "method_not_allowed"), (method, spelling)
                    assert set(response.headers["allow"].split(", ")) - {"OPTIONS"} == allowed, (method, spelling)
        assert await rows(world.app) == world.before

    async def test_head_is_get_without_the_body(self, world: World) -> None:
        for path in (*READ, "/blog", "/blog/{blog}/", "/user/me/", "/health", "/ready"):
            got, head = await world.send("GET", path), await world.send("HEAD", path)
            assert (head.status_code, head.content) == (got.status_code, b"") == (200, b""), path
            own = ("x-request-id", "date")
            assert {name: value for name, value in head.headers.items() if name not in own} == {
                name: value for name, value in got.headers.items() if name not in own
            }, path

    async def test_another_site_is_not_let_in(self, world: World) -> None:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:8000.evil.example", "é"):
            headers = cast(Any, {"Origin": origin.encode(), "Access-Control-Request-Method": b"DELETE"})
            odd = {"Access-Control-Request-Headers": "authorization, x-" + "x" * 5_000}
            for response in (
                await world.send("GET", "/blog/", headers=headers),
                await world.send("GET", "/nowhere", headers=headers),
                await world.send("OPTIONS", "/blog/{blog}", headers=headers),
                await world.send("OPTIONS", "/blog/{blog}", headers=headers | odd),
            ):
                assert not [name for name in response.headers if name.startswith("access-control-")], origin


async def test_the_same_at_once(world: World) -> None:
    """Of ten registrations with one address one is taken, and of ten deletions one finds what it deletes."""
    registered = await asyncio.gather(*(world.send("POST", "/user/", body=ADA) for _ in range(10)))
    assert sorted(answer.status_code for answer in registered) == [201] + [409] * 9
    for path, gone in (
        ("/blog/{blog}", 410),
        ("/user/me/tokens/{token}", 404),
        ("/invitation/{invitation}", 404),
        ("/room/{room}/messages/{message}", 410),
        ("/room/{room}", 404),
    ):
        deleted = await asyncio.gather(*(world.send("DELETE", path) for _ in range(10)))
        assert sorted(answer.status_code for answer in deleted) == [204] + [gone] * 9


def test_every_field_of_a_body_is_in_a_table() -> None:
    """A field that is new gets its row here."""
    document = create_app(make_settings()).openapi()
    fields = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            written = json.dumps(content)
            for name, schema in document["components"]["schemas"].items():
                if f'schemas/{name}"' in written:
                    fields += [(method.upper(), re.sub(r"_id}", "}", path), field) for field in schema["properties"]]
    # The current password is compared and never stored, so it may hold anything; a list's rows have tests of their own.
    assert {place for place in fields if place[2] != "current_password" and place[0:2] != ("PUT", "/user/")} == PLACED
