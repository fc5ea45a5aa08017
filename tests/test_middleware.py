"""What holds for every request, whatever it asks for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from starlette.responses import StreamingResponse

from blog.app import create_app
from blog.middleware import network_of
from tests.answers import code
from tests.conftest import client_of, make_settings
from tests.factories import Factory

SITE = "https://app.example.com"


@pytest.fixture
def plain() -> FastAPI:
    """An app whose database nobody asks."""
    return create_app(make_settings())


@pytest.fixture
async def anyone(plain: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(plain) as client:
        yield client


class TestRequestId:
    @pytest.mark.parametrize("given", ["7", "a.B-c_9", "x" * 64])
    async def test_comes_back(self, anyone: httpx.AsyncClient, given: str) -> None:
        response = await anyone.get("/health", headers={"X-Request-ID": given})
        assert response.headers.get_list("x-request-id") == [given]

    @pytest.mark.parametrize("given", [b"", b"x" * 65, b"a b", b"a;b", "日本".encode(), b"\xff", b"a\tb", b"<b>"])
    async def test_of_another_shape_is_replaced(self, anyone: httpx.AsyncClient, given: bytes) -> None:
        response = await anyone.get("/health", headers={b"X-Request-ID": given})
        assert len(response.headers["x-request-id"]) == 32
        assert given.decode("latin-1") not in response.headers["x-request-id"] or not given

    @pytest.mark.parametrize("path", ["/health", "/nowhere", "/user/me", "/blog/x"])
    async def test_is_on_every_answer(self, anyone: httpx.AsyncClient, path: str) -> None:
        ids = {(await anyone.get(path)).headers["x-request-id"] for _ in range(2)}
        assert len(ids) == 2
        assert (await anyone.get(path, headers={"Host": "evil.example"})).headers["x-request-id"]


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1:8000",
            "127.0.0.1",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8000",
            "blog.example.com",
            "www.example.com",
        ],
    )
    async def test_known(self, host: str) -> None:
        settings = make_settings(base_url="https://Blog.example.com/here", allowed_hosts="WWW.example.com")
        async with client_of(create_app(settings)) as client:
            assert (await client.get("/health", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "",
            "a/b?c",
            "127.0.0.1:8000:1",
            "127.0.0.1 ",
            "127.0.0.1@evil",
            "127.0.0.1:x",
            "[::1",
            "日本",
        ],
    )
    async def test_unknown(self, anyone: httpx.AsyncClient, host: str) -> None:
        for path in ("/health", "/blog", "/nowhere"):
            response = await anyone.get(path, headers={b"Host": host.encode()})
            assert code(response) == (400, "unknown_host")
            assert "evil" not in str(response.headers) + response.text

    async def test_two(self, anyone: httpx.AsyncClient) -> None:
        headers = [("Host", "127.0.0.1"), ("Host", "127.0.0.1")]
        assert code(await anyone.get("/health", headers=headers)) == (400, "unknown_host")


class TestBody:
    LIMIT = 2**16

    @pytest.fixture
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with client_of(create_app(make_settings(body_limit=self.LIMIT))) as client:
            yield client

    @pytest.mark.parametrize("path", ["/user/", "/login", "/blog/", "/nowhere", "/health"])
    async def test_too_long_by_its_own_word(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.post(path, content=b" " * (self.LIMIT + 1))
        assert code(response) == (413, "content_too_large")

    @pytest.mark.parametrize("path", ["/user/", "/login", "/blog/"])
    async def test_too_long_by_count(self, client: httpx.AsyncClient, path: str) -> None:
        parts = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal parts
            while True:
                parts += 1
                yield b" " * 1024

        media_type = "application/x-www-form-urlencoded" if path == "/login" else "application/json"
        response = await client.post(path, content=endless(), headers={"Content-Type": media_type})
        assert code(response) == (413, "content_too_large")
        assert parts == self.LIMIT // 1024 + 1

    async def test_of_the_greatest_length(self, client: httpx.AsyncClient) -> None:
        content = b'{"name":"' + b"x" * (self.LIMIT - 11) + b'"}'
        assert len(content) == self.LIMIT
        response = await client.post("/user/", content=content, headers={"Content-Type": "application/json"})
        assert code(response) == (422, "invalid")

    @pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 5_000])
    async def test_odd_length(self, client: httpx.AsyncClient, length: str) -> None:
        response = await client.post("/user/", content=b"{}", headers={"Content-Length": length})
        assert code(response) == ((413, "content_too_large") if length[0] == "9" else (400, "malformed_request"))


class TestSecurityHeaders:
    @pytest.mark.parametrize(
        "path", ["/health", "/nowhere", "/user/me", "/docs", "/docs/rooms", "/redoc", "/openapi.json", "/link"]
    )
    async def test_on_every_answer(self, anyone: httpx.AsyncClient, path: str) -> None:
        headers = (await anyone.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        scripts = policy.get("script-src", policy["default-src"])
        assert "unsafe" not in scripts
        assert "http" not in scripts
        assert "server" not in headers
        assert "strict-transport-security" not in headers

    async def test_behind_https(self) -> None:
        async with client_of(create_app(make_settings(base_url="https://blog.example.com"))) as client:
            headers = (await client.get("/health")).headers
        assert headers["strict-transport-security"] == "max-age=31536000"


class TestSpellings:
    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/blog"), ("POST", "/blog"), ("GET", "/user"), ("GET", "/user/me/"), ("GET", "/blog/1/")],
    )
    async def test_with_and_without_a_slash(self, anyone: httpx.AsyncClient, method: str, path: str) -> None:
        assert code(await anyone.request(method, path)) == (401, "not_authenticated")

    @pytest.mark.parametrize("path", ["/docs/", "/docs/rooms/", "/redoc/", "/openapi.json/", "/health/"])
    async def test_of_pages(self, anyone: httpx.AsyncClient, path: str) -> None:
        assert (await anyone.get(path)).status_code == 200

    @pytest.mark.parametrize("path", ["//blog", "/blog//", "//", "/blog/1//", "/nowhere/", "/%2e%2e/etc/passwd"])
    async def test_no_third_spelling(self, anyone: httpx.AsyncClient, path: str) -> None:
        url = httpx.URL("http://127.0.0.1:8000").copy_with(raw_path=path.encode())
        assert code(await anyone.get(url)) == (404, "not_found")

    async def test_a_page_and_the_next(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        for _ in range(3):
            await factory.blog(user)
        response = await client.get("/blog", params={"limit": "2"}, headers=login)
        link = response.links["next"]["url"]
        assert link.startswith("/blog/?")
        assert len((await client.get(link.replace("/blog/?", "/blog?"), headers=login)).json()) == 1


class TestMethods:
    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("PUT", "/blog/", "GET, HEAD, POST"),
            ("DELETE", "/blog", "GET, HEAD, POST"),
            ("POST", "/blog/1", "GET, HEAD, PUT, PATCH, DELETE"),
            ("TRACE", "/user/me/password", "PUT"),
            ("BREW", "/user/me/password/", "PUT"),
            ("OPTIONS", "/user/", "GET, HEAD, POST, PUT"),
            ("GET", "/login", "POST"),
            ("HEAD", "/login", "POST"),
            ("POST", "/health", "GET, HEAD"),
        ],
    )
    async def test_not_allowed(self, anyone: httpx.AsyncClient, method: str, path: str, allowed: str) -> None:
        response = await anyone.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed
        if method != "HEAD":
            assert code(response) == (405, "method_not_allowed")

    async def test_head_is_get_without_a_body(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user, login = await factory.logged_in()
        blog = await factory.blog(user)
        paths = ["/health", "/ready", "/user/me", f"/user/{user.id}", "/blog/", f"/blog/{blog.id}", "/openapi.json"]
        for path in [*paths, "/nowhere", "/blog/0"]:
            head, get = await client.head(path, headers=login), await client.get(path, headers=login)
            assert head.content == b""
            assert head.status_code == get.status_code
            del head.headers["x-request-id"], get.headers["x-request-id"]
            assert head.headers == get.headers


class TestRequestLimit:
    @pytest.fixture
    def limited(self) -> FastAPI:
        return create_app(make_settings(request_limit=3, cors_origins=SITE))

    async def test_by_address(self, limited: FastAPI) -> None:
        for address in ("192.0.2.1", "192.0.2.2"):
            transport = httpx.ASGITransport(limited, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                for left in (2, 1, 0):
                    response = await client.get("/health", headers={"X-Forwarded-For": f"203.0.113.{left}"})
                    assert response.status_code == 200
                    assert response.headers["ratelimit-policy"] == '"default";q=3;w=60'
                    assert response.headers["ratelimit"].startswith(f'"default";r={left};t=')
                response = await client.get("/health", headers={"Origin": SITE})
                assert code(response) == (429, "too_many_requests")
                assert 1 <= int(response.headers["retry-after"]) <= 60
                assert response.headers["ratelimit"].startswith('"default";r=0;t=')
                assert response.headers["access-control-allow-origin"] == SITE, "else no script could read it"

    async def test_a_minute_later(self, limited: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
        seconds = 1_000_000.0
        monkeypatch.setattr("blog.middleware.time", lambda: seconds)
        async with client_of(limited) as client:
            statuses = [(await client.get("/health")).status_code for _ in range(4)]
            seconds += 60
            assert [*statuses, (await client.get("/health")).status_code] == [200, 200, 200, 429, 200]

    async def test_none_by_default(self, anyone: httpx.AsyncClient) -> None:
        responses = [await anyone.get("/health") for _ in range(200)]
        assert {response.status_code for response in responses} == {200}
        assert "ratelimit" not in responses[0].headers


class TestCrossOrigin:
    @pytest.fixture
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with client_of(create_app(make_settings(cors_origins=f"{SITE}, http://localhost:5173"))) as client:
            yield client

    def preflight(
        self, origin: str, method: str = "PUT", headers: str = "authorization, content-type"
    ) -> dict[str, str]:
        return {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        }

    async def test_listed(self, client: httpx.AsyncClient) -> None:
        response = await client.options("/blog/1", headers=self.preflight(SITE))
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == SITE
        assert response.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
        assert "access-control-allow-credentials" not in response.headers
        for path in ("/health", "/user/me", "/nowhere"):
            response = await client.get(path, headers={"Origin": SITE})
            assert response.headers["access-control-allow-origin"] == SITE
            assert "Link" in response.headers["access-control-expose-headers"]
            assert "Origin" in response.headers["vary"]

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{SITE}.evil.example", f"{SITE}:8443", ""])
    async def test_not_listed(self, client: httpx.AsyncClient, origin: str) -> None:
        response = await client.options("/blog/1", headers=self.preflight(origin))
        assert code(response) == (400, "cross_origin_refused")
        assert "access-control-allow-origin" not in response.headers
        response = await client.get("/health", headers={"Origin": origin})
        assert "access-control-allow-origin" not in response.headers
        assert "Origin" in response.headers["vary"]

    @pytest.mark.parametrize(("method", "headers"), [("TRACE", "authorization"), ("PUT", "x-odd-header")])
    async def test_odd_preflight(self, client: httpx.AsyncClient, method: str, headers: str) -> None:
        response = await client.options("/blog/1", headers=self.preflight(SITE, method, headers))
        assert code(response) == (400, "cross_origin_refused")

    async def test_none_by_default(self, anyone: httpx.AsyncClient) -> None:
        response = await anyone.get("/health", headers={"Origin": SITE})
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_what_goes_on_behind_an_answer_is_not_its_time(plain: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    """Its line is there before a mail is sent, and there is one."""
    lines: list[int] = []

    def work(background: BackgroundTasks) -> None:
        background.add_task(lambda: lines.append(caplog.text.count("GET /work 200")))

    plain.add_api_route("/work", work)
    async with client_of(plain) as client:
        with caplog.at_level(logging.INFO, "blog.access"):
            await client.get("/work")
    assert lines == [1]
    assert caplog.text.count("GET /work 200") == 1


class TestLastResort:
    async def test_a_fault_of_ours(self, plain: FastAPI, anyone: httpx.AsyncClient, caplog: Any) -> None:
        async def fail() -> None:
            raise LookupError("the secret of the house")

        plain.add_api_route("/fail", fail)
        response = await anyone.get("/fail")
        assert code(response) == (500, "internal_error")
        assert "secret" not in response.text
        assert "the secret of the house" in caplog.text
        assert (await anyone.get("/health")).status_code == 200

    async def test_half_an_answer_is_cut_off(self, plain: FastAPI, anyone: httpx.AsyncClient) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise LookupError("the other half")

        async def fail() -> StreamingResponse:
            return StreamingResponse(parts())

        plain.add_api_route("/fail", fail)
        with pytest.raises(LookupError):
            await anyone.get("/fail")

    async def test_a_request_that_outlives_the_server(self, plain: FastAPI) -> None:
        waits, sent = asyncio.Event(), []

        async def wait() -> None:
            waits.set()
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        plain.add_api_route("/wait", wait)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/wait",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
        }
        request = asyncio.create_task(plain(scope, Request(scope).receive, send))
        await waits.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert sent[0]["status"] == 503
        assert b'"code":"unavailable"' in sent[1]["body"]

    async def test_half_an_answer_that_outlives_the_server(self, plain: FastAPI) -> None:
        waits, sent = asyncio.Event(), []

        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            waits.set()
            await asyncio.Event().wait()

        async def answer() -> StreamingResponse:
            return StreamingResponse(parts())

        async def send(message: Any) -> None:
            sent.append(message["type"])

        async def receive() -> Any:
            await asyncio.Event().wait()

        plain.add_api_route("/half", answer)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/half",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1")],
        }
        request = asyncio.create_task(plain(scope, receive, send))
        await waits.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert sent == ["http.response.start", "http.response.body"], "no other answer begins within it"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("local", "local"),
    ],
)
def test_network_of(address: str, network: str) -> None:
    assert network_of(address) == network
