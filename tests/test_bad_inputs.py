"""What the platform must answer to bad, hostile and merely odd input: the same on every engine.

Each refusal is in the one shape, repeats no password that was sent, and leaves every row as it was.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlmodel import SQLModel

from blog.models import Blog, User
from blog.security.cursors import Cursors
from blog.settings import Settings
from tests.answers import code
from tests.conftest import SECRET
from tests.factories import PASSWORD, Factory
from tests.security.test_tokens import claims, encode, forge

WORD = "S3cret-of-Ada"
"""In every password that is sent here, and so in no answer."""

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = "multipart/form-data"

INVALID, UNREADABLE = (422, "invalid"), (400, "bad_request")
TOO_LARGE = (413, "content_too_large")
NO_TOKEN, BAD_TOKEN, BAD_LOGIN = (401, "not_authenticated"), (401, "invalid_token"), (401, "invalid_grant")

ADA = {"name": "Ada", "email": "new@example.com", "password": WORD}
NOTES = {"title": "Notes", "body": "Text"}

# Each place where text goes in: method, path, a body that is accepted, and the field.
TEXTS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    **{f"user.{field}": ("POST", "/user/", ADA, field) for field in ADA},
    **{f"me.{field}": ("PATCH", "/user/me", {}, field) for field in ("name", "email", "about")},
    "me.new_password": ("PUT", "/user/me/password", {"current_password": PASSWORD}, "new_password"),
    **{f"blog.{field}": ("POST", "/blog/", NOTES, field) for field in NOTES},
    **{f"put.{field}": ("PUT", "/blog/{blog}", NOTES, field) for field in NOTES},
    **{f"patch.{field}": ("PATCH", "/blog/{blog}", {}, field) for field in NOTES},
}


@dataclass
class World:
    """A user with one blog, an admin, and all rows as they were."""

    client: httpx.AsyncClient
    app: FastAPI
    user: User
    blog: Blog
    author: dict[str, str]
    admin: dict[str, str]
    before: list[Any]

    async def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """As the author, unless other headers say who asks."""
        path = path.replace("{blog}", str(self.blog.id)).replace("{user}", str(self.user.id))
        url = httpx.URL("http://127.0.0.1:8000").copy_with(raw_path=path.encode())
        given = request.pop("headers", {})
        headers = given if "Authorization" in given else self.author | given
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
        """Send what must be refused so, and must change nothing."""
        response = await self.send(method, path, **request)
        assert code(response) == refusal, (method, path[:100], str(request.get("body"))[:200])
        assert await rows(self.app) == self.before, (method, path[:100])


async def rows(app: FastAPI) -> list[Any]:
    tables = [SQLModel.metadata.tables[name] for name in ("user", "blog")]
    async with app.state.database.fresh() as session:
        return [(await session.execute(select(table).order_by(table.c.id))).all() for table in tables]


@pytest.fixture
async def world(app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> World:
    user = await factory.user(email="ada@example.com")
    admin = await factory.admin()
    blog = await factory.blog(user)
    return World(client, app, user, blog, factory.login(user), factory.login(admin), await rows(app))


def of(field: str, text: Any) -> Any:
    """The text where it can be in an address, and with the word that no answer may repeat where it is a password."""
    if isinstance(text, str) and field.endswith("email"):
        return f"a{text}@example.com"
    if isinstance(text, str) and field.endswith("password"):
        return WORD + text
    return text


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
    @pytest.mark.parametrize("character", UNSTORABLE)
    async def test_unstorable(self, world: World, character: str) -> None:
        for method, path, body, field in TEXTS.values():
            await world.refuse(INVALID, method, path, body=body | {field: of(field, UNSTORABLE[character])})

    @pytest.mark.parametrize("kind", NOT_TEXT)
    async def test_not_text(self, world: World, kind: str) -> None:
        for method, path, body, field in TEXTS.values():
            await world.refuse(INVALID, method, path, body=body | {field: NOT_TEXT[kind]})

    @pytest.mark.parametrize(
        ("place", "text"),
        [
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
        ],
    )
    async def test_too_long(self, world: World, place: str, text: str) -> None:
        method, path, body, field = TEXTS[place]
        content = json.dumps(body | {field: of(field, text)}, ensure_ascii=False).encode()
        await world.refuse(INVALID, method, path, content=content, headers=JSON)

    @pytest.mark.parametrize(
        "text",
        [
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
        ],
        ids=ascii,
    )
    async def test_shows_nothing(self, world: World, text: str) -> None:
        for place in ("user.name", "me.name", "blog.title", "blog.body", "put.title", "patch.body"):
            method, path, body, field = TEXTS[place]
            await world.refuse(INVALID, method, path, body=body | {field: text})

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\u2029", "\x85"], ids=ascii)
    async def test_two_lines(self, world: World, end: str) -> None:
        for place in ("user.name", "me.name", "blog.title", "put.title", "patch.title"):
            method, path, body, field = TEXTS[place]
            await world.refuse(INVALID, method, path, body=body | {field: f"Ada{end}Set-Cookie: x"})

    @pytest.mark.parametrize(
        "text",
        [
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
        ],
    )
    async def test_odd_text_comes_back_as_it_was(self, world: World, text: str) -> None:
        for place in ("user.name", "me.name", "me.about", "blog.title", "blog.body", "put.title", "patch.body"):
            method, path, body, field = TEXTS[place]
            response = await world.send(method, path, body=body | {field: text})
            assert response.status_code in (200, 201), place
            assert response.json()[field] == text
            read = response.headers.get("location", "/blog/{blog}" if "blog" in path else "/user/me")
            assert (await world.send("GET", read, headers=world.admin if "user.name" in place else {})).json()[
                field
            ] == text, place

    async def test_the_longest_blog_however_it_is_written(self, world: World) -> None:
        longest = {"title": "🧵" * 200, "body": "🧵" * 200_000}
        for ensure_ascii in (False, True):
            content = json.dumps(longest, ensure_ascii=ensure_ascii).encode()
            response = await world.send("POST", "/blog/", content=content, headers=JSON)
            assert response.status_code == 201
            assert response.json()["body"] == longest["body"]

    @pytest.mark.parametrize("email", ["ADA@example.com", " ada@EXAMPLE.com", "ada@example.com\t", "ａda@example.com"])
    async def test_known_address_in_another_spelling(self, world: World, email: str) -> None:
        await world.refuse((409, "email_taken"), "POST", "/user/", body=ADA | {"email": email})

    @pytest.mark.parametrize(
        "email",
        [
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
        ],
    )
    async def test_not_an_address(self, world: World, email: str) -> None:
        await world.refuse(INVALID, "POST", "/user/", body=ADA | {"email": email})


OURS = {
    "id": 1,
    "user_id": 1,
    "creator_id": 1,
    "creator": {"id": 1},
    "role": "admin",
    "is_admin": True,
    "is_active": False,
    "created_at": "2020-01-01T00:00:00Z",
    "password_hash": f"$2b$04${WORD}",
    "public_id": "0" * 32,
    "login_generation": "0" * 32,
    "__proto__": {"role": "admin"},
    "": "",
    "a\0b": 1,
    "a\ud800b": 1,
    "x" * 5_000: 1,
}


class TestBody:
    @pytest.mark.parametrize("field", OURS, ids=lambda field: ascii(field[:20]))
    async def test_unknown_field(self, world: World, field: str) -> None:
        for method, path, body in (
            ("POST", "/user/", ADA),
            ("PATCH", "/user/me", {}),
            ("PUT", "/user/me/password", {"current_password": PASSWORD, "new_password": WORD}),
            ("POST", "/blog/", NOTES),
            ("PUT", "/blog/{blog}", NOTES),
            ("PATCH", "/blog/{blog}", {}),
        ):
            await world.refuse(INVALID, method, path, body=body | {field: OURS[field]})

    @pytest.mark.parametrize(
        ("content", "refusal"),
        [
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
        ],
        ids=lambda part: ascii(part[:20]) if isinstance(part, bytes) else "",
    )
    async def test_unreadable_json(self, world: World, content: bytes, refusal: tuple[int, str]) -> None:
        for method, path in (("POST", "/blog/"), ("PUT", "/blog/{blog}"), ("PATCH", "/blog/{blog}")):
            await world.refuse(refusal, method, path, content=content, headers=JSON)
        await world.refuse(refusal, "POST", "/user/", content=content, headers=JSON)
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

    @pytest.mark.parametrize(
        "media_type",
        ["", "text/plain", "text/json", "text/html", "application/x-www-form-urlencoded", "application/jsonx", "json"],
    )
    async def test_not_called_json(self, world: World, media_type: str) -> None:
        """A form of another site can send these without asking the browser for leave."""
        headers = {"Content-Type": media_type} if media_type else {}
        await world.refuse(INVALID, "POST", "/blog/", content=json.dumps(NOTES).encode(), headers=headers)
        await world.refuse(INVALID, "POST", "/user/", content=json.dumps(ADA).encode(), headers=headers)

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
                [("POST", "/blog/"), ("PUT", "/blog/{blog}"), ("POST", "/user/")],
            ),
            "form": (FORM["Content-Type"], (b"&a=" + part) * count, [("POST", "/login")]),
            "multipart": (f"{MULTIPART}; boundary=x", (disposition + part + b"\r\n") * count, [("POST", "/login")]),
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
    @pytest.mark.parametrize("spelling", NO_IDS, ids=lambda spelling: spelling[:20])
    async def test_no_id(self, world: World, spelling: str) -> None:
        await self.refused(world, INVALID, spelling)

    @pytest.mark.parametrize("spelling", ALIASES)
    async def test_another_spelling_of_an_id(self, world: World, spelling: str) -> None:
        """One thing has one address: else a rule for the address can be walked around."""
        for name, number in (("blog", world.blog.id), ("user", world.user.id)):
            await self.refused(world, INVALID, spelling.replace("{id}", str(number)), only=name)

    @pytest.mark.parametrize("spelling", NOBODYS)
    async def test_nobody_has_it(self, world: World, spelling: str) -> None:
        for name in ("blog", "user"):
            await self.refused(world, (404, f"{name}_not_found"), spelling, only=name)

    async def refused(self, world: World, refusal: tuple[int, str], spelling: str, only: str | None = None) -> None:
        for name, method, body in (
            ("blog", "GET", None),
            ("blog", "PUT", NOTES),
            ("blog", "PATCH", {}),
            ("blog", "DELETE", None),
            ("user", "GET", None),
            ("user", "PATCH", {"role": "reader"}),
            ("user", "DELETE", None),
        ):
            if only in (None, name):
                request = {} if body is None else {"body": body}
                await world.refuse(refusal, method, f"/{name}/{spelling}", headers=world.admin, **request)

    @pytest.mark.parametrize("number", [0, -1, 1.0, 1.5, True, "1", "x", None, 2**31, 2**63, 10**23, 1e999, [1]])
    async def test_in_a_body(self, world: World, number: Any) -> None:
        if number == "1":  # lax as pydantic is, a string of digits is the same id
            number = "01"
        changes = [{"id": world.user.id, "role": "reader"}, {"id": number, "role": "admin"}]
        await world.refuse(INVALID, "PUT", "/user/", body=changes, headers=world.admin)

    async def test_gone(self, world: World) -> None:
        assert (await world.send("DELETE", "/blog/{blog}")).status_code == 204
        world.before = await rows(world.app)
        for method, body in (("DELETE", None), ("PUT", NOTES), ("PATCH", {}), ("GET", None)):
            request = {} if body is None else {"body": body}
            await world.refuse((404, "blog_not_found"), method, "/blog/{blog}", **request)


LISTS = ("/blog/", "/user/")
LIMITS = ["-1", "0", "101", "100000000000", str(2**63), "9" * 26, "9" * 5_000, "abc", "", "1e1", "1.0", "+1", "%201"]
LIMITS += ["1_0", "%ef%bc%91", "0x1", "01", "nan", "null", "1%00", "%ff", "1&limit=0"]
FILTERS = {
    "/blog/": [
        *(f"author={number}" for number in (0, -1, 2**31, 2**63, 10**22, "x", "1%00", "%ff", "", "1.0", "+1")),
        *(f"sort={sort}" for sort in ("", "id", "TITLE", "title,id", "-title", "title;drop%20table%20blog", "%00")),
        "sort=(select%20password_hash%20from%20user)",
        "sort=title%20desc--",
        *(f"fields={fields}" for fields in ("", "*", "password_hash", "id,", ",id", "id%00", "creator.email", "%ff")),
    ],
    "/user/": [
        *(f"role={role}" for role in ("", "root", "ADMIN", "admin%00", "admin'--", "%ff")),
        *(f"is_active={value}" for value in ("", "2", "maybe", "null", "true%00", "%ff")),
        *(f"q={part}" for part in ("", "%20", "%00", "a%00b", "a%0ab", "%1b[2J", "x" * 101, "x" * 60_000)),
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
    @pytest.mark.parametrize("path", LISTS)
    async def test_limit(self, world: World, path: str) -> None:
        for limit in LIMITS:
            await world.refuse(INVALID, "GET", f"{path}?limit={limit}", headers=world.admin)

    @pytest.mark.parametrize("path", LISTS)
    async def test_filter(self, world: World, path: str) -> None:
        for query in FILTERS[path]:
            await world.refuse(INVALID, "GET", f"{path}?{query}", headers=world.admin)

    async def test_search_is_taken_literally(self, world: World) -> None:
        for part in SEARCHES:
            response = await world.client.get("/user/", params={"q": part}, headers=world.admin)
            assert (response.status_code, response.json()) == (200, []), part

    async def test_search_for_bytes_that_are_no_text(self, world: World) -> None:
        for part in ("%ff%fe", "%ed%a0%80", "%c0%80", "%f5%80%80%80", "%"):
            response = await world.send("GET", f"/user/?q={part}", headers=world.admin)
            assert (response.status_code, response.json()) == (200, []), part

    async def test_what_no_list_knows_is_ignored(self, world: World) -> None:
        for query in ("offset=-1", f"page={2**62}&size=100", "x=%ff", "x=%00", "", "&&==&", "%00=%00"):
            for path in LISTS:
                assert (await world.send("GET", f"{path}?{query}", headers=world.admin)).status_code == 200, query

    @pytest.mark.parametrize("path", LISTS)
    async def test_forged_cursor(self, world: World, path: str) -> None:
        for cursor in FORGED_CURSORS:
            await world.refuse((422, "invalid_cursor"), "GET", f"{path}?cursor={cursor}", headers=world.admin)

    async def test_cursor_that_is_too_long(self, world: World) -> None:
        for path in LISTS:
            await world.refuse(INVALID, "GET", f"{path}?cursor={'x' * 4_097}", headers=world.admin)

    async def test_cursor_of_another_list_or_deployment(self, world: World, factory: Factory) -> None:
        await factory.blog(world.user)
        world.before = await rows(world.app)
        links = {
            path: (await world.send("GET", f"{path}?limit=1", headers=world.admin)).links["next"]["url"]
            for path in LISTS
        }
        cursors = {path: link.partition("cursor=")[2] for path, link in links.items()}
        foreign = Cursors(SECRET[::-1]).write("/user/?", (1,))
        for path, cursor in (
            ("/user/", cursors["/blog/"]),
            ("/blog/", cursors["/user/"]),
            ("/user/", cursors["/user/"][::-1]),
            ("/user/", cursors["/user/"][:-1]),
            ("/user/", foreign),
        ):
            await world.refuse((422, "invalid_cursor"), "GET", f"{path}?cursor={cursor}", headers=world.admin)
        for link in links.values():
            assert len((await world.send("GET", link, headers=world.admin)).json()) == 1


FIELDS = "&".join(f"a{number}=1" for number in range(1_001))
BOUNDARIES = ["", "; boundary=", "; boundary=" + "x" * 300, "; boundary=\N{LATIN SMALL LETTER E WITH ACUTE}"]


class TestLogIn:
    @pytest.mark.parametrize(
        "password",
        ["\0", f"{WORD}\0", WORD * 400, "\udcff", "\ufffe", WORD, "", " "],
        ids=lambda text: ascii(text[:20]),
    )
    async def test_password(self, world: World, password: str) -> None:
        form = httpx.QueryParams({"username": "ada@example.com"})
        content = f"{form}&password={quoted(password)}".encode()
        refusal = BAD_LOGIN if password else (400, "invalid_request")
        await world.refuse(refusal, "POST", "/login", content=content, headers=FORM)

    @pytest.mark.parametrize("username", ["%00", "ada@example.com%00", "%ff%fe", "%ed%a0%80", "x" * 400, "%0d%0aX: y"])
    async def test_username(self, world: World, username: str) -> None:
        content = f"username={username}&password={WORD}".encode()
        await world.refuse(BAD_LOGIN, "POST", "/login", content=content, headers=FORM)

    async def test_of_one_field_twice_the_last_counts(self, world: World) -> None:
        for first, last, status in ((WORD, PASSWORD, 200), (PASSWORD, WORD, 401)):
            content = f"username=ada@example.com&password={quoted(first)}&password={quoted(last)}".encode()
            assert (await world.send("POST", "/login", content=content, headers=FORM)).status_code == status

    @pytest.mark.parametrize(
        ("content", "media_type"),
        [
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
        ],
        ids=lambda part: ascii(part[:40]),
    )
    async def test_unreadable_form(self, world: World, content: str, media_type: str) -> None:
        headers = cast(Any, {"Content-Type": media_type.encode()})
        await world.refuse((400, "invalid_request"), "POST", "/login", content=content.encode(), headers=headers)

    @pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/xml", "x", None])
    async def test_no_form(self, world: World, media_type: str | None) -> None:
        content = json.dumps({"username": "ada@example.com", "password": PASSWORD}).encode()
        headers = {"Content-Type": media_type} if media_type else {}
        refusal = (415, "unsupported_media_type") if media_type else (400, "invalid_request")
        await world.refuse(refusal, "POST", "/login", content=content, headers=headers)

    async def test_in_the_query(self, world: World) -> None:
        query = f"username=ada@example.com&password={quoted(PASSWORD)}"
        await world.refuse((400, "invalid_request"), "POST", f"/login?{query}", content=b"", headers=FORM)


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode(errors="surrogateescape"))


def hostile_tokens(settings: Settings, user: User) -> Iterator[tuple[str, str]]:
    """Tokens for a real user with one thing wrong each."""
    ours = {"iss": str(settings.base_url), "aud": str(settings.base_url), "gen": user.login_generation}

    def signed(header: Any = None, **changes: Any) -> str:
        return forge(claims(**ours | {"sub": user.public_id} | changes), header, SECRET)

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
        "no generation": {"gen": ...},
        "another's generation": {"gen": "0" * 32},
        "another's audience": {"aud": "https://other.example/"},
        "another's issuer": {"iss": "https://other.example/"},
    }
    for name, changes in wrong.items():
        yield name, signed(**changes)
    for name, header in {
        "alg none": {"alg": "none", "typ": "at+jwt"},
        "a refresh token": {"alg": "HS256", "typ": "rt+jwt"},
        "crit": {"alg": "HS256", "typ": "at+jwt", "crit": ["exp"]},
        "kid": {"alg": "HS256", "typ": "at+jwt", "kid": "../../dev/null"},
    }.items():
        yield name, signed(header)
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
        for name, token in hostile_tokens(settings, world.user):
            headers = cast(Any, {"Authorization": f"Bearer {token}".encode()})
            for method, path in (("GET", "/user/me"), ("DELETE", "/blog/2147483647")):
                response = await world.send(method, path, headers=headers)
                if name == "nothing is wrong":
                    assert response.status_code == (200 if method == "GET" else 404)
                else:
                    assert code(response) == BAD_TOKEN, name
        assert await rows(world.app) == world.before

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER", "BeArEr"])
    async def test_scheme_in_any_case(self, world: World, scheme: str) -> None:
        """RFC 9110, section 11.1."""
        token = world.author["Authorization"].removeprefix("Bearer ")
        assert (await world.send("GET", "/user/me", headers={"Authorization": f"{scheme} {token}"})).status_code == 200

    @pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "Digest x", "Bearer:x", "é"])
    async def test_no_bearer(self, world: World, value: str) -> None:
        headers = cast(Any, {"Authorization": value.encode()})
        response = await world.send("GET", "/user/me", headers=headers)
        assert code(response) in (NO_TOKEN, BAD_TOKEN)

    async def test_a_new_name_ends_no_login(self, world: World) -> None:
        assert (await world.send("PATCH", "/user/me", body={"name": "Augusta"})).status_code == 200
        assert (await world.send("GET", "/user/me")).json()["name"] == "Augusta"


JUNK = "x;q=1e999,*/*;é\t" * 2_000
READ = ("/blog/", "/blog/{blog}", "/user/me", "/user/{user}")


class TestRequest:
    @pytest.mark.parametrize(
        "name",
        [
            "Accept",
            "Accept-Charset",
            "Accept-Encoding",
            "Accept-Language",
            "Cookie",
            "If-None-Match",
            "If-Modified-Since",
            "If-Range",
            "Range",
            "Origin",
            "Referer",
            "User-Agent",
            "X-Request-ID",
            "Traceparent",
        ],
    )
    async def test_garbage_in_a_header(self, world: World, name: str) -> None:
        for path in READ:
            response = await world.send("GET", path, headers=cast(Any, {name: JUNK.encode()}))
            assert response.status_code == 200, path
            assert JUNK[:20] not in str(response.headers)

    @pytest.mark.parametrize("ranges", ["bytes=" + ",".join(["0-0"] * 10_000), "bytes=-1e30", "bytes=9-1", "x"])
    async def test_range(self, world: World, ranges: str) -> None:
        assert (await world.send("GET", "/blog/", headers={"Range": ranges})).status_code == 200

    @pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
    async def test_method_is_not_overridden(self, world: World, name: str) -> None:
        for method in ("GET", "POST"):
            await world.send(method, "/blog/{blog}?_method=DELETE", headers={name: "DELETE"})
        assert await rows(world.app) == world.before

    @pytest.mark.parametrize("name", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-Path"])
    async def test_path_is_not_overridden(self, world: World, name: str) -> None:
        await world.refuse((404, "not_found"), "GET", "/nowhere", headers={name: "/user/me"})

    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1.evil.example", "a/b?c", "", "127.0.0.1:x", "é", "[::1"]
    )
    async def test_host_that_is_not_ours(self, world: World, host: str) -> None:
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

    @pytest.mark.parametrize(
        "path",
        [
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
        ],
        ids=lambda path: path[:40],
    )
    async def test_path_that_is_not_ours(self, world: World, path: str) -> None:
        await world.refuse((404, "not_found"), "GET", path)

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/login", "POST"),
            ("/blog", "GET, HEAD, POST"),
            ("/blog/", "GET, HEAD, POST"),
            ("/blog/{blog}", "DELETE, GET, HEAD, PATCH, PUT"),
            ("/user/", "GET, HEAD, POST, PUT"),
            ("/user/me", "GET, HEAD, PATCH"),
            ("/user/me/password", "PUT"),
            ("/user/{user}", "DELETE, GET, HEAD, PATCH"),
        ],
    )
    async def test_other_methods(self, world: World, path: str, allowed: str) -> None:
        methods = {"POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW"} - set(allowed.split(", "))
        for method in sorted(methods):
            response = await world.send(method, path)
            assert code(response) == (405, "method_not_allowed"), method
            assert sorted(set(response.headers["allow"].split(", ")) - {"OPTIONS"}) == allowed.split(", "), method
        assert await rows(world.app) == world.before

    @pytest.mark.parametrize("path", [*READ, "/blog", "/blog/{blog}/", "/user/me/"])
    async def test_head_is_get_without_the_body(self, world: World, path: str) -> None:
        got, head = await world.send("GET", path), await world.send("HEAD", path)
        assert (head.status_code, head.content) == (got.status_code, b"") == (200, b"")
        own = ("x-request-id", "date")
        assert {name: value for name, value in head.headers.items() if name not in own} == {
            name: value for name, value in got.headers.items() if name not in own
        }

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8000.evil.example", "é"])
    async def test_another_site_is_not_let_in(self, world: World, origin: str) -> None:
        headers = cast(Any, {"Origin": origin.encode(), "Access-Control-Request-Method": b"DELETE"})
        odd = {"Access-Control-Request-Headers": "authorization, x-" + "x" * 5_000}
        for response in (
            await world.send("GET", "/blog/", headers=headers),
            await world.send("GET", "/nowhere", headers=headers),
            await world.send("OPTIONS", "/blog/{blog}", headers=headers),
            await world.send("OPTIONS", "/blog/{blog}", headers=headers | odd),
        ):
            assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_the_same_at_once(world: World) -> None:
    """Of ten registrations with one address one is taken, and of ten deletions one finds what it deletes."""
    registered = await asyncio.gather(*(world.send("POST", "/user/", body=ADA) for _ in range(10)))
    assert sorted(answer.status_code for answer in registered) == [201] + [409] * 9
    deleted = await asyncio.gather(*(world.send("DELETE", "/blog/{blog}") for _ in range(10)))
    assert sorted(answer.status_code for answer in deleted) == [204] + [404] * 9


def test_every_place_of_text_is_in_the_table() -> None:
    """A field that is new, or taken for text where it was not, gets its rows here."""
    from blog.schemas.blog import BlogUpdate, BlogWrite
    from blog.schemas.user import PasswordChange, ProfileUpdate, UserCreate

    tested = {(method, path, field) for method, path, _, field in TEXTS.values()}
    for schema, method, path in (
        (UserCreate, "POST", "/user/"),
        (ProfileUpdate, "PATCH", "/user/me"),
        (PasswordChange, "PUT", "/user/me/password"),
        (BlogWrite, "POST", "/blog/"),
        (BlogWrite, "PUT", "/blog/{blog}"),
        (BlogUpdate, "PATCH", "/blog/{blog}"),
    ):
        # The current password is compared and never stored, so it may hold anything.
        expected = set(product([method], [path], set(schema.model_fields) - {"current_password"}))
        assert expected <= tested, schema
