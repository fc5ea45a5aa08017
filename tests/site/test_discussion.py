"""What is said about a post, on its page and on one of its own."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from blog.live import Hub
from blog.models import Blog, Role, User
from blog.security.opaque import read_cookie
from tests.conftest import HANG, on
from tests.factories import PASSWORD, Factory, bearer
from tests.site.browser import COOKIE, Browser
from tests.test_browser import Served, get, platform_with
from tests.test_browser import post as send


@pytest.fixture
def browser(client: httpx.AsyncClient) -> Browser:
    return Browser(client)


@pytest.fixture
async def post(factory: Factory) -> Blog:
    return await factory.blog(await factory.user("Ada"))


@pytest.fixture
async def bob(browser: Browser, factory: Factory) -> User:
    """A reader, who is logged in with the browser."""
    user = await factory.user("Bob", role=Role.READER)
    await browser.log_in(user)
    return user


FRIEND = "https://friend.example"
PATH = "/posts/notes/discussion"


class TestShow:
    @pytest.mark.parametrize("status", ["draft", "deleted"])
    async def test_of_no_post(self, browser: Browser, client: httpx.AsyncClient, factory: Factory, status: str) -> None:
        ada = await factory.user("Ada")
        blog = await factory.blog(ada, status="draft" if status == "draft" else "published")
        if status == "deleted":
            await client.delete(f"/blog/{blog.id}", headers=factory.login(ada))
        assert (await browser.get(PATH)).response.status_code == (404 if status == "draft" else 410)

    async def test_without_a_login(self, post: Blog, browser: Browser) -> None:
        page = await browser.get(PATH)
        assert page.response.status_code == 200
        assert page.response.headers["cache-control"] == "no-store"
        assert "Log in to take part" in page.main
        assert page.forms() == {}

    async def test_page_after_page(
        self, post: Blog, bob: User, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("blog.site.discussion.ON_PAGE", 2)
        for number in range(5):
            await browser.send(PATH, PATH, body=f"Message {number}.")
        page = await browser.get(PATH)
        assert [text.split()[-1] for text in page.text("li") if "Message" in text] == ["Remove", "Remove"]
        assert [number for number in range(5) if f"Message {number}." in page.main] == [3, 4]
        assert "Message 1." in (await browser.get(f"{PATH}?before=3")).main


class TestSay:
    @pytest.mark.parametrize(("body", "told"), [("", "body: "), (" \n", "body: "), ("x" * 4001, "body: ")])
    async def test_refused(self, post: Blog, bob: User, browser: Browser, body: str, told: str) -> None:
        page = await browser.send(PATH, PATH, body=body)
        assert page.response.status_code == 422
        assert page.told.startswith(told)
        assert "There" not in (await browser.get("/posts/notes")).text("li")

    async def test_slow_and_closed(
        self, post: Blog, bob: User, browser: Browser, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        root = factory.login(await factory.admin())
        await browser.send(PATH, PATH, body="First.")
        (room,) = [(await client.get(f"/blog/{post.id}/room", headers=root)).json()["id"]]
        await client.patch(f"/room/{room}", json={"slow_mode": 600}, headers=root)
        page = await browser.send(PATH, PATH, body="Second.")
        assert page.response.status_code == 429
        assert page.response.headers["retry-after"]
        assert page.forms()[PATH]["body"] == "Second."
        form = (await browser.get(PATH)).forms()[PATH]
        await client.patch(f"/room/{room}", json={"is_closed": True}, headers=root)
        assert (await browser.post(PATH, form | {"body": "Third."})).response.status_code == 409
        assert "This discussion is closed" in (await browser.get(PATH)).main
        assert "It is closed" in (await browser.get("/posts/notes")).main

    async def test_said(self, post: Blog, bob: User, browser: Browser) -> None:
        before = (await browser.get("/posts/notes")).response
        assert "Be the first" in before.text
        page = await browser.send(PATH, PATH, body="It *weaves*.\r\nIndeed. <script>alert(1)</script>")
        assert page.response.headers["location"] == f"{PATH}#m-1"
        after = await browser.get("/posts/notes")
        assert "<p>It <em>weaves</em>.\nIndeed. &lt;script&gt;alert(1)&lt;/script&gt;</p>" in after.response.text
        assert after.response.headers["etag"] != before.headers["etag"]


class TestRemove:
    async def test_somebody_elses(
        self, post: Blog, bob: User, browser: Browser, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        await browser.send(PATH, PATH, body="Mine.")
        other = Browser(client)
        await other.log_in(await factory.user("Cid"))
        page = await other.get(PATH)
        assert list(page.forms()) == [PATH]
        token = page.forms()[PATH]["form_token"]
        refused = await other.post(f"{PATH}/1/remove", {"form_token": token})
        assert refused.response.status_code == 403
        assert (await other.post(f"{PATH}/7/remove", {"form_token": token})).response.status_code == 404

    async def test_removed(self, post: Blog, bob: User, browser: Browser) -> None:
        await browser.send(PATH, PATH, body="Mine.")
        assert "Mine." in (await browser.get("/posts/notes")).main
        form = (await browser.get(PATH)).forms()[f"{PATH}/1/remove"]
        page = await browser.post(f"{PATH}/1/remove", form)
        assert page.response.headers["location"] == f"{PATH}#m-1"
        for path in (PATH, "/posts/notes"):
            page = await browser.get(path)
            assert "Mine." not in page.main
            assert "This message was removed." in page.main
        again = await browser.post(f"{PATH}/1/remove", form)
        assert again.response.status_code == 410


@on("sqlite")
async def test_who_listens_is_told_at_once(
    post: Blog, bob: User, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []

    async def wake(_: Hub, room_id: int) -> None:
        woken.append(room_id)

    monkeypatch.setattr(Hub, "wake", wake)
    await browser.send(PATH, PATH, body="Mine.")
    assert len(woken) == 1
    await browser.send(PATH, f"{PATH}/1/remove")
    assert woken == [woken[0]] * 2


class Live:
    """Somebody who is logged in at a platform that really listens, before the room of a post."""

    def __init__(self, served: Served) -> None:
        self.address = served.address
        account = {"name": "Ada", "email": f"ada{uuid4().hex}@example.com", "password": PASSWORD}
        send(f"{self.address}/user/", json=account).raise_for_status()
        fields = {"username": account["email"], "password": PASSWORD}
        token = send(f"{self.address}/login", data=fields).json()["access_token"]
        post = send(f"{self.address}/blog/", json={"title": "T", "body": "B"}, headers=bearer(token)).json()["id"]
        room = get(f"{self.address}/blog/{post}/room", headers=bearer(token)).json()["id"]
        logged_in = send(f"{self.address}/login", data=fields, headers={"Accept": "text/html"})
        self.cookie = logged_in.headers["set-cookie"].partition(";")[0]
        cookie = read_cookie(self.cookie.removeprefix(f"{COOKIE}="))
        assert cookie is not None
        self.form_token = cookie.form_token
        self.url = f"{self.address.replace('http', 'ws')}/room/{room}/live"

    def connect(self, **headers: str) -> ClientConnection:
        return connect(self.url, additional_headers={"Cookie": self.cookie} | headers)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with platform_with(tmp_path_factory.mktemp("platform"), cors_origins=FRIEND) as served:
        yield served


@pytest.mark.processes
class TestLive:
    """The cookie opens a socket for a page of this very host, and for nobody else."""

    def test_from_a_page_of_this_host(self, served: Served) -> None:
        live = Live(served)
        with live.connect(Origin=live.address) as socket:
            socket.send(json.dumps({"type": "message", "body": "It *weaves*."}))
            told: list[dict[str, Any]] = []
            while not told or told[-1]["type"] != "message":
                told.append(json.loads(socket.recv(timeout=HANG)))
            assert (told[-1]["html"], told[-1]["writer"]["name"]) == ("<p>It <em>weaves</em>.</p>\n", "Ada")
            headers = {"Cookie": live.cookie, "X-Form-Token": live.form_token, "Accept": "text/html"}
            assert send(f"{live.address}/desk/logout", headers=headers).status_code == 303
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    socket.recv(timeout=HANG)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
        with pytest.raises(InvalidStatus) as refused, live.connect(Origin=live.address):
            pass
        assert refused.value.response.status_code == 401

    @pytest.mark.parametrize("headers", [{}, {"Origin": FRIEND}])
    def test_from_elsewhere_that_may_ask(self, served: Served, headers: dict[str, str]) -> None:
        """Like anybody without a token: they say who they are first."""
        with Live(served).connect(**headers) as socket:
            socket.send('{"type": "ping"}')
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=HANG)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "not_authenticated")

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://[", "http://127.0.0.1", "http://evil.example/{own}", ""]
    )
    def test_from_elsewhere(self, served: Served, origin: str) -> None:
        live = Live(served)
        own = live.address.removeprefix("http://")
        with pytest.raises(InvalidStatus) as refused, live.connect(Origin=origin.format(own=own)):
            pass
        assert refused.value.response.status_code == 403
