"""`/media`."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from sqlalchemy import select

from blog import media as images
from blog.app import create_app
from blog.media import NAME, Folder, remake
from blog.models import Media, Role, User
from blog.repository.media import SMALLEST
from blog.security.access import Scope
from blog.settings import Settings
from tests.answers import code, count
from tests.conftest import client_of, on
from tests.factories import Factory
from tests.images import MEDIA_TYPES, SIZE, image_of, png, read, written

QUOTA = (409, "media_quota_exceeded")
NOT_FOUND = (404, "media_not_found")
INVALID, NOT_AN_IMAGE = (422, "invalid"), (422, "not_an_image")


@pytest.fixture(autouse=True)
def folder(app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder of each test's own."""
    folder: Folder = app.state.media_folder
    monkeypatch.setattr(folder, "_path", tmp_path / "media")
    return folder


@pytest.fixture
async def narrow(
    settings: Settings, app: FastAPI, folder: Folder, request: pytest.FixtureRequest
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with other settings, over the same database and folder."""
    other = create_app(settings.model_copy(update=request.param))
    other.state.media_folder = folder
    async with other.router.lifespan_context(other), client_of(other) as client:
        yield client


async def upload(
    client: httpx.AsyncClient, login: dict[str, str], content: bytes | None = None, name: str = "x.png"
) -> httpx.Response:
    content = image_of("png") if content is None else content
    return await client.post("/media/", files={"file": (name, content)}, headers=login)


async def uploaded(client: httpx.AsyncClient, login: dict[str, str], extension: str = "png") -> str:
    response = await upload(client, login, image_of(extension))
    assert response.status_code == 201
    return str(response.json()["name"])


async def is_nowhere(app: FastAPI, folder: Folder) -> None:
    assert await count(app, Media) == 0
    assert not list(folder.names())


class TestUpload:
    @on("sqlite")
    async def test_without_a_token(self, app: FastAPI, client: httpx.AsyncClient, folder: Folder) -> None:
        assert code(await upload(client, {})) == (401, "not_authenticated")
        await is_nowhere(app, folder)

    @on("sqlite")
    async def test_nobody_is_read_to_who_may_not(self, client: httpx.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"--x\r\n"
            pytest.fail("it is read")

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post("/media/", content=endless(), headers=headers)
        assert code(response) == (401, "not_authenticated")

    @on("sqlite")
    async def test_reader(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in(role=Role.READER)
        assert code(await upload(client, login)) == (403, "author_required")

    @on("sqlite")
    async def test_scope(self, client: httpx.AsyncClient, factory: Factory) -> None:
        login = factory.login(await factory.user(), {Scope.BLOG_READ})
        assert code(await upload(client, login)) == (403, "insufficient_scope")

    @on("sqlite")
    @pytest.mark.parametrize(
        "request_",
        [
            {},
            {"json": {"file": "x"}},
            {"data": {"file": "x"}},
            {"files": {"image": ("x.png", image_of("png"))}},
            {"files": {"file": (None, image_of("png"))}},
            {"files": {"file": ("x.png", image_of("png"))}, "data": {"owner_id": "1"}},
            {"content": b"", "headers": {"Content-Type": "image/png"}},
        ],
        ids=["nothing", "json", "form", "another field", "no file name", "another field too", "no form"],
    )
    async def test_no_form_with_a_file(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, request_: dict[str, Any]
    ) -> None:
        _, login = await factory.logged_in()
        headers = login | request_.get("headers", {})
        assert code(await client.post("/media/", **request_ | {"headers": headers})) == INVALID
        await is_nowhere(app, folder)

    @on("sqlite")
    @pytest.mark.parametrize(
        "request_",
        [
            {"files": [("file", ("x.png", image_of("png"))), ("file", ("y.png", image_of("png")))]},
            {"files": {"file": ("x.png", image_of("png"))}, "data": {f"f{number}": "x" for number in range(9)}},
            {"files": {"file": ("x.png", image_of("png"))}, "data": {"f": "x" * 2000}},
            {"content": b"--x\r\n\r\n", "headers": {"Content-Type": "multipart/form-data"}},
            {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        ],
        ids=["two files", "nine fields", "a long field", "no boundary", "no parts"],
    )
    async def test_unreadable(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, request_: dict[str, Any]
    ) -> None:
        _, login = await factory.logged_in()
        headers = login | request_.get("headers", {})
        assert code(await client.post("/media/", **request_ | {"headers": headers})) == (400, "bad_request")
        await is_nowhere(app, folder)

    @on("sqlite")
    @pytest.mark.parametrize(
        "content",
        [b"", b"<svg onload='alert(1)'/>", b"<!DOCTYPE html>", b"%PDF-", image_of("png")[:-60], b"x" * 2_000_000],
        ids=["empty", "svg", "html", "pdf", "cut", "large"],
    )
    async def test_no_image(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, content: bytes
    ) -> None:
        _, login = await factory.logged_in()
        assert code(await upload(client, login, content)) == NOT_AN_IMAGE
        await is_nowhere(app, folder)

    @on("sqlite")
    async def test_too_many_pixels(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        assert code(await upload(client, login, png(30_000, 30_000))) == (422, "too_many_pixels")

    @on("sqlite")
    @pytest.mark.parametrize("narrow", [{"media_size_limit": 2**16}], indirect=True)
    @pytest.mark.parametrize("spare", [0, 1, images.FRAMES * 100])
    async def test_too_large(self, narrow: httpx.AsyncClient, factory: Factory, spare: int) -> None:
        _, login = await factory.logged_in()
        content = image_of("png")
        content += b"\0" * (2**16 - len(content) + spare)
        response = await upload(narrow, login, content)
        if spare:
            assert code(response) == (413, "content_too_large")
        else:
            assert response.status_code == 201

    @on("sqlite")
    @pytest.mark.parametrize("path", ["/media/", "/media"])
    async def test_larger_than_any_other_body(self, client: httpx.AsyncClient, factory: Factory, path: str) -> None:
        _, login = await factory.logged_in()
        files = {"file": ("x.png", image_of("png") + b"\0" * (9 * 2**20))}
        assert (await client.post(path, files=files, headers=login)).status_code == 201
        files = {"file": ("x.png", image_of("png") + b"\0" * (10 * 2**20))}
        assert code(await client.post(path, files=files, headers=login)) == (413, "content_too_large")
        for method, other in (("POST", "/blog/"), ("PUT", "/media/"), ("POST", "/media/x"), ("DELETE", "/media/")):
            response = await client.request(method, other, content=b"\0" * (4 * 2**20), headers=login)
            assert code(response) == (413, "content_too_large")

    @pytest.mark.parametrize("extension", MEDIA_TYPES)
    async def test_answer(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, extension: str
    ) -> None:
        user, login = await factory.logged_in()
        response = await upload(client, login, image_of(extension), "x.svg")
        body = response.json()
        assert response.status_code == 201
        assert response.headers["location"] == body["url"] == f"/media/{body['name']}"
        assert NAME.fullmatch(body["name"])
        assert body["name"].endswith(f".{extension}")
        assert (body["width"], body["height"]) == SIZE
        assert body["media_type"] == MEDIA_TYPES[extension]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["created_at"])
        assert set(body) == {"name", "url", "media_type", "width", "height", "size", "created_at"}
        assert list(folder.names()) == [body["name"]]
        served = await client.get(body["url"])
        assert len(served.content) == body["size"]
        assert read(served.content).size == SIZE
        async with app.state.database.fresh() as session:
            assert await session.scalar(select(Media.owner_id)) == user.id  # type: ignore[call-overload]

    @on("sqlite")
    @pytest.mark.parametrize(
        "name", ["../../x.png", "..\\x", "/etc/passwd", "x\r\nSet-Cookie: a=b", "x\0.png", "x" * 5000, "", "<script>"]
    )
    async def test_no_name_but_ours(
        self, client: httpx.AsyncClient, factory: Factory, folder: Folder, tmp_path: Path, name: str
    ) -> None:
        _, login = await factory.logged_in()
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\nContent-Type: text/html\r\n\r\n'
        content = head % name.encode() + image_of("jpg") + b"\r\n--x--\r\n"
        headers = login | {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post("/media/", content=content, headers=headers)
        assert response.status_code in ((201, 400) if name.startswith("x") and len(name) > 4999 else (201,))
        if response.status_code == 201:
            assert {path.name for path in os.scandir(tmp_path)} == {"media"}
            assert list(folder.names()) == [response.json()["name"]]
            assert NAME.fullmatch(response.json()["name"])
            assert "set-cookie" not in response.headers
            assert len(name) < 3 or name not in response.text + str(response.headers)

    async def test_sent_again(self, client: httpx.AsyncClient, factory: Factory, folder: Folder) -> None:
        """With its key, under another boundary: one image; and of two at once too."""
        _, login = await factory.logged_in()
        for key, at_once in (("a", False), ("b", True)):
            sent = [upload(client, login | {"Idempotency-Key": key}) for _ in range(2)]
            answers = await asyncio.gather(*sent) if at_once else [await each for each in sent]
            assert [answer.status_code for answer in answers] == [201, 201]
            assert len({(answer.text, answer.headers["location"]) for answer in answers}) == 1
            assert sorted(answer.headers.get("idempotency-replayed", "") for answer in answers) == ["", "true"]
            other = await upload(client, login | {"Idempotency-Key": key}, image_of("gif"))
            assert code(other) == (422, "idempotency_key_reused")
        assert len(list(folder.names())) == 2

    async def test_statements(self, client: httpx.AsyncClient, factory: Factory, statements: list[str]) -> None:
        _, login = await factory.logged_in()
        statements.clear()
        assert (await upload(client, login)).status_code == 201
        assert len(statements) == 5  # who asks, the room that is left; the hold, the room once more, the row

    @pytest.mark.parametrize("narrow", [{"media_quota": 0}], indirect=True)
    async def test_no_room(self, app: FastAPI, narrow: httpx.AsyncClient, factory: Factory, folder: Folder) -> None:
        _, login = await factory.logged_in()
        assert code(await upload(narrow, login, b"not even an image")) == QUOTA
        await is_nowhere(app, folder)

    @pytest.mark.parametrize("narrow", [{"media_quota": 3 * SMALLEST}], indirect=True)
    async def test_each_counts_at_least(self, app: FastAPI, narrow: httpx.AsyncClient, factory: Factory) -> None:
        (_, ada), (_, bob) = await factory.logged_in("Ada"), await factory.logged_in("Bob")
        tiny = image_of("gif")
        assert len(remake(tiny, 10**6).content) < SMALLEST
        first = await upload(narrow, ada, tiny)
        assert [(await upload(narrow, ada, tiny)).status_code for _ in range(3)] == [201, 201, 409]
        assert (await upload(narrow, bob, tiny)).status_code == 201
        assert (await narrow.delete(first.json()["url"], headers=ada)).status_code == 204
        assert (await upload(narrow, ada, tiny)).status_code == 201
        assert await count(app, Media) == 4

    @on("sqlite")
    @pytest.mark.parametrize("narrow", [{"media_quota": SMALLEST}], indirect=True)
    async def test_what_it_takes_once_it_is_made_anew(
        self, app: FastAPI, narrow: httpx.AsyncClient, factory: Factory, folder: Folder
    ) -> None:
        _, login = await factory.logged_in()
        content = written(Image.effect_noise((128, 128), 100), "PNG")
        assert len(remake(content, 10**6).content) > SMALLEST
        assert code(await upload(narrow, login, content)) == QUOTA
        await is_nowhere(app, folder)

    @pytest.mark.parametrize("narrow", [{"media_quota": 3 * SMALLEST}], indirect=True)
    async def test_many_at_once(
        self, app: FastAPI, narrow: httpx.AsyncClient, factory: Factory, folder: Folder
    ) -> None:
        _, login = await factory.logged_in()
        answers = await asyncio.gather(*(upload(narrow, login, image_of("gif")) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 7
        assert await count(app, Media) == len(list(folder.names())) == 3

    async def test_a_user_who_is_gone_by_then(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, monkeypatch: Any
    ) -> None:
        user, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        real = app.state.images.remake

        async def block(file: Any, owner: int) -> Any:
            made = await real(file, owner)
            blocked = await client.patch(f"/user/{user.id}", json={"is_active": False}, headers=admin)
            assert blocked.status_code == 200
            return made

        monkeypatch.setattr(app.state.images, "remake", block)
        assert code(await upload(client, login)) == (401, "invalid_token")
        await is_nowhere(app, folder)

    @pytest.mark.parametrize("what", ["folder", "temporary file"])
    async def test_full_disk(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, monkeypatch: Any, what: str
    ) -> None:
        _, login = await factory.logged_in()

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        where = "blog.media.os.replace" if what == "folder" else "starlette.formparsers.SpooledTemporaryFile"
        with monkeypatch.context() as patch:
            patch.setattr(where, fail)
            response = await upload(client, login)
        assert code(response) == (503, "storage_unavailable")
        assert int(response.headers["retry-after"]) > 0
        await is_nowhere(app, folder)
        assert (await upload(client, login)).status_code == 201

    @on("sqlite")
    async def test_busy(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, monkeypatch: Any) -> None:
        _, login = await factory.logged_in()
        monkeypatch.setattr(app.state.images._turns, "_patience", 0.01)
        async with somebody_at_work(app):
            assert code(await upload(client, login)) == (503, "busy")
        monkeypatch.undo()
        assert (await upload(client, login)).status_code == 201

    async def test_others_write_while_an_image_is_looked_at(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        """On SQLite there is one writer."""
        _, login = await factory.logged_in()
        async with somebody_at_work(app):
            waiting = asyncio.create_task(upload(client, login))
            await asyncio.sleep(0.05)
            body = {"title": "Notes", "body": "Text"}
            assert (await client.post("/blog/", json=body, headers=login)).status_code == 201
            assert not waiting.done()
        assert (await waiting).status_code == 201


@asynccontextmanager
async def somebody_at_work(app: FastAPI) -> AsyncIterator[None]:
    """An image of somebody else's is being looked at."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with app.state.images._turns.of(0):
            begun.set()
            await over.wait()

    working = asyncio.create_task(work())
    await begun.wait()
    yield
    over.set()
    await working


@on("sqlite")
class TestGet:
    @pytest.mark.parametrize(
        "name",
        [f"{'0' * 32}.png", f"{'0' * 32}.svg", "x", "...", "%00", "x" * 999, "..%5C", "%FF"],
    )
    async def test_none(self, client: httpx.AsyncClient, name: str) -> None:
        assert code(await client.get(f"/media/{name}")) == NOT_FOUND

    @pytest.mark.parametrize("asked", [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=0-1,4-5"}])
    async def test_deleted_meanwhile(
        self,
        client: httpx.AsyncClient,
        factory: Factory,
        folder: Folder,
        monkeypatch: pytest.MonkeyPatch,
        asked: dict[str, str],
    ) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login)
        find = folder.find

        async def find_and_delete(name: str) -> Any:
            found = await find(name)
            await folder.remove(name)
            return found

        monkeypatch.setattr(folder, "find", find_and_delete)
        assert code(await client.get(f"/media/{name}", headers=asked)) == NOT_FOUND

    async def test_file_that_cannot_be_read(
        self, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login)

        async def refuse(*_: object, **__: object) -> None:
            raise PermissionError

        monkeypatch.setattr("anyio.open_file", refuse)
        assert code(await client.get(f"/media/{name}")) == (503, "storage_unavailable")

    @pytest.mark.parametrize("extension", MEDIA_TYPES)
    async def test_headers(
        self, client: httpx.AsyncClient, factory: Factory, extension: str, statements: list[str]
    ) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login, extension)
        statements.clear()
        response = await client.get(f"/media/{name}")
        assert not statements
        assert response.status_code == 200
        assert response.headers["content-type"] == MEDIA_TYPES[extension]
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["etag"] == f'"{name[:32]}"'
        assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert response.headers["cross-origin-resource-policy"] == "cross-origin"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-disposition"] == f'inline; filename="{name}"'
        assert len(response.headers.get_list("content-security-policy")) == 1
        head = await client.head(f"/media/{name}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(response.content))

    @pytest.mark.parametrize(
        ("known", "status"), [("{}", 304), ("W/{}", 304), ('"x", {}', 304), ("*", 304), ('"x"', 200), ("", 200)]
    )
    async def test_known(self, client: httpx.AsyncClient, factory: Factory, known: str, status: int) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login)
        etag = f'"{name[:32]}"'
        response = await client.get(f"/media/{name}", headers={"If-None-Match": known.replace("{}", etag)})
        assert response.status_code == status
        assert response.headers["etag"] == etag
        assert "immutable" in response.headers["cache-control"]
        assert (response.content == b"") == (status == 304)

    @pytest.mark.parametrize(
        ("ranges", "status"),
        [
            ("bytes=0-9", 206),
            ("bytes=-10", 206),
            ("bytes=0-0,5-6", 206),
            ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), 200),
            ("bytes=" + "0-," * 10_000, 200),
            ("bytes=-1e30", 200),
            ("bytes=" + "9" * 9_999 + "-", 200),
            ("bytes=5-4", 200),
            ("bytes=x", 200),
            ("lines=1-2", 200),
            ("bytes", 200),
            ("bytes=10000000-", 416),
            ("bytes=99999999999999999999999999999999-", 416),
        ],
        ids=lambda value: str(value)[:20],
    )
    async def test_range(self, client: httpx.AsyncClient, factory: Factory, ranges: str, status: int) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login)
        whole = (await client.get(f"/media/{name}")).content
        response = await client.get(f"/media/{name}", headers={"Range": ranges})
        if status == 416:
            assert code(response) == (416, "range_not_satisfiable")
            assert response.headers["content-range"] == f"bytes */{len(whole)}"
            return
        assert response.status_code == status
        if status == 200:
            assert response.content == whole
        elif "," not in ranges:
            assert response.content == (whole[-10:] if "-10" in ranges else whole[:10])

    @pytest.mark.parametrize(
        "name",
        ["Accept", "Accept-Language", "Cookie", "If-Match", "If-None-Match", "If-Range", "Range", "Authorization"],
    )
    async def test_garbage_in_a_header(self, client: httpx.AsyncClient, factory: Factory, name: str) -> None:
        """Nobody need be logged in to see an image, so not even a token is looked at."""
        _, login = await factory.logged_in()
        path = f"/media/{await uploaded(client, login)}"
        whole = (await client.get(path)).content
        garbage: Any = {name: ("x;q=1e999,*/*;é\t" * 2_000).encode()}
        for method, content in (("GET", whole), ("HEAD", b"")):
            response = await client.request(method, path, headers=garbage)
            assert (response.status_code, response.content) == (200, content)

    async def test_folder_that_is_not_to_be_read(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "stat", fail)
        assert code(await client.get(f"/media/{'0' * 32}.png")) == (503, "storage_unavailable")


class TestDelete:
    @on("sqlite")
    @pytest.mark.parametrize("name", [f"{'0' * 32}.png", "x", "%00", "%ED%A0%80", "x" * 5000])
    async def test_none(self, client: httpx.AsyncClient, factory: Factory, name: str) -> None:
        _, login = await factory.logged_in()
        assert code(await client.delete(f"/media/{name}", headers=login)) == NOT_FOUND

    @on("sqlite")
    async def test_somebody_elses(self, client: httpx.AsyncClient, factory: Factory) -> None:
        (_, ada), (_, bob) = await factory.logged_in("Ada"), await factory.logged_in("Bob")
        name = await uploaded(client, ada)
        assert code(await client.delete(f"/media/{name}", headers=bob)) == (403, "not_media_owner")
        assert (await client.get(f"/media/{name}")).status_code == 200

    async def test_row_and_file_are_gone(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder
    ) -> None:
        _, login = await factory.logged_in()
        admin = factory.login(await factory.admin())
        for who in (login, admin):
            name = await uploaded(client, login)
            response = await client.delete(f"/media/{name}", headers=who)
            assert (response.status_code, response.content) == (204, b"")
            await is_nowhere(app, folder)
            assert code(await client.get(f"/media/{name}")) == NOT_FOUND
            assert code(await client.delete(f"/media/{name}", headers=login)) == NOT_FOUND

    @on("sqlite")
    @pytest.mark.parametrize(
        ("condition", "status"),
        [
            ({"If-Match": '"x"'}, 412),
            ({"If-Match": "W/{}"}, 412),
            ({"If-None-Match": "*"}, 412),
            ({"If-Match": '"x", {}'}, 204),
            ({"If-Match": "*"}, 204),
        ],
    )
    async def test_conditional(
        self, client: httpx.AsyncClient, factory: Factory, condition: dict[str, str], status: int
    ) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login)
        etag = (await client.head(f"/media/{name}")).headers["etag"]
        headers = {field: value.replace("{}", etag) for field, value in condition.items()}
        _, other = await factory.logged_in("Bob")
        assert code(await client.delete(f"/media/{name}", headers=other | headers)) == (403, "not_media_owner")
        response = await client.delete(f"/media/{name}", headers=login | headers)
        assert response.status_code == status
        if status == 412:
            assert code(response) == (412, "precondition_failed")
            assert response.headers["etag"] == etag
            assert (await client.get(f"/media/{name}")).status_code == 200

    async def test_twice_at_once(self, client: httpx.AsyncClient, factory: Factory) -> None:
        _, login = await factory.logged_in()
        name = await uploaded(client, login)
        answers = await asyncio.gather(*(client.delete(f"/media/{name}", headers=login) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [204, 404, 404, 404, 404]


class TestOfAUserWhoGoes:
    @pytest.fixture
    async def ada(self, client: httpx.AsyncClient, factory: Factory, monkeypatch: pytest.MonkeyPatch) -> User:
        """Somebody with more images than one statement takes."""
        monkeypatch.setattr("blog.repository.user.ROWS_AT_ONCE", 2)
        user, login = await factory.logged_in()
        for _ in range(3):
            await uploaded(client, login)
        return user

    async def owners(self, app: FastAPI) -> list[int]:
        async with app.state.database.fresh() as session:
            return list(await session.scalars(select(Media.owner_id)))  # type: ignore[call-overload]

    @pytest.mark.parametrize("query", ["", "?blogs=delete"])
    async def test_they_go_too(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, folder: Folder, ada: User, query: str
    ) -> None:
        bob, login = await factory.logged_in("Bob")
        await uploaded(client, login)
        admin = factory.login(await factory.admin())
        assert (await client.delete(f"/user/{ada.id}{query}", headers=admin)).status_code == 204
        assert await self.owners(app) == [bob.id]
        assert len(list(folder.names())) == 4  # until an admin looks for orphans

    async def test_somebody_else_gets_them(
        self, app: FastAPI, client: httpx.AsyncClient, factory: Factory, ada: User
    ) -> None:
        bob, login = await factory.logged_in("Bob")
        name = await uploaded(client, login)
        admin = factory.login(await factory.admin())
        path = f"/user/{ada.id}?blogs=reassign&to={bob.id}"
        assert (await client.delete(path, headers=admin)).status_code == 204
        assert await self.owners(app) == [bob.id] * 4
        assert (await client.delete(f"/media/{name}", headers=login)).status_code == 204
