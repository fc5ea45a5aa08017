"""What only a browser shows: the documentation's login, pages of one-time links and rooms, scripts of another site."""

import http.server
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import jsonschema_rs
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, WebSocket, expect, sync_playwright
from websockets.sync.client import connect

from blog.security.access import Scope
from blog.security.tokens import LEEWAY, AccessTokens
from tests.answers import code
from tests.conftest import CHROMIUM, HANG, NO_TLS, ROOT, SECRET, serving
from tests.factories import PASSWORD, bearer
from tests.test_readme import ADDRESS, README

pytestmark = pytest.mark.browser

Token = dict[str, Any]

get, post = partial(httpx.get, verify=NO_TLS), partial(httpx.post, verify=NO_TLS)

NEW_PASSWORD = "staple battery horse"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
    console.error("content security policy:", event.effectiveDirective, event.blockedURI));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=HANG * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Served(NamedTuple):
    """What is served at an address from a folder."""

    address: str
    folder: Path

    def command(self, *arguments: str, typed: str = "") -> str:
        """What a command of the platform prints."""
        done = subprocess.run(
            [sys.executable, "-m", "blog", *arguments],
            cwd=self.folder,
            env={"BLOG_BASE_URL": self.address} | os.environ | {"PYTHONPATH": str(ROOT)},
            input=typed,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=True,
        )
        return done.stdout.strip()

    def mailed_link(self, to: str) -> str:
        """The link that was mailed to this address, which is written behind the answer that it follows."""
        due = time.monotonic() + HANG
        while True:
            found = re.search(rf" to={to} link=(\S+)", (self.folder / "server.log").read_text())
            if found:
                return found[1]
            assert time.monotonic() < due
            time.sleep(0.02)


@contextmanager
def platform_with(folder: Path, **settings: str) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {"password_rounds": "4", "secret_key": SECRET, **settings}.items():
            environment.setenv(f"BLOG_{name}".upper(), value)
        with serving(folder) as address:
            yield Served(address, folder)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A web site of somebody else's."""
    folder = tmp_path_factory.mktemp("site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{server.server_address[1]}", folder)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, site: Served) -> Iterator[Served]:
    """A platform which the other site may use."""
    with platform_with(tmp_path_factory.mktemp("platform"), cors_origins=site.address) as platform:
        yield platform


@contextmanager
def visiting(browser: Browser, *addresses: str) -> Iterator[Page]:
    """A page on which nothing goes wrong, and which asks nobody but the servers at these addresses."""
    faults: list[str] = []
    hosts = {urlsplit(address).netloc for address in addresses}

    def hear(message: ConsoleMessage) -> None:
        # The browser says of every refusal of ours that it could not load something.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource: the server"):
            faults.append(message.text)

    def look(request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.netloc not in hosts:
            faults.append(f"asks {request.url}")

    with browser.new_context() as context:
        context.set_default_timeout(HANG * 1000)
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("request", look)
        context.on("console", hear)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        yield context.new_page()
        assert faults == []


def register(address: str, name: str = "Ada") -> str:
    """The address of a new user."""
    email = f"{uuid4().hex}@example.com"
    account = {"name": name, "email": email, "password": PASSWORD}
    post(f"{address}/user/", json=account).raise_for_status()
    return email


def log_in(address: str, email: str, password: str = PASSWORD) -> httpx.Response:
    return post(f"{address}/login", data={"username": email, "password": password})


def assert_over(address: str, token: Token) -> None:
    """Neither token of this pair is good for anything."""
    refused = get(f"{address}/user/me", headers=bearer(token["access_token"]))
    assert code(refused) == (401, "invalid_token")
    form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
    refused = post(f"{address}/login", data=form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


def let_run_out(page: Page, address: str) -> None:
    """Put in the place of the page's access token what it is once it is over."""
    tokens = AccessTokens([SECRET], address)
    claims = tokens.read(page.evaluate("tokens.access_token"))
    assert claims is not None
    expired = tokens.issue(claims.subject, claims.login, claims.scopes, seconds=-LEEWAY - 1)
    page.evaluate("expired => { tokens.access_token = expired; }", expired)


class Documentation:
    """Swagger UI, as somebody uses it who tries the API."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        page.goto(f"{address}/docs")

    @property
    def dialog(self) -> Locator:
        return self.page.locator(".modal-ux")

    def send_dialog(self, email: str, password: str, *scopes: Scope) -> None:
        self.page.locator(".auth-wrapper .authorize").click()
        expect(self.dialog.locator(".scopes .name")).to_have_text([*Scope])
        self.dialog.get_by_label("username:").fill(email)
        self.dialog.get_by_label("password:").fill(password)
        for scope in scopes:
            # The box itself is out of sight; its label is drawn as one.
            box = self.dialog.locator(".checkbox", has_text=scope)
            box.locator("label").click()
            expect(box.locator("input")).to_be_checked()
        self.dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()

    def authorize(self, email: str, *scopes: Scope) -> Token:
        with self.page.expect_response(f"{self.address}/login") as answer:
            self.send_dialog(email, PASSWORD, *scopes)
        expect(self.dialog.get_by_role("heading", name="Authorized")).to_be_visible()
        self.dialog.get_by_role("button", name="Close").click()
        token: Token = answer.value.json()
        return token

    def operation(self, method: str, path: str) -> Locator:
        """An operation, opened to be tried."""
        operation = self.page.locator(f".opblock-{method}", has=self.page.locator(f'[data-path="{path}"]'))
        operation.locator("button.opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        return operation

    def execute(self, operation: Locator) -> tuple[int, Any]:
        """Status and body of the answer, once it is shown."""
        with self.page.expect_response(lambda response: response.request.resource_type == "fetch") as answer:
            operation.get_by_role("button", name="Execute").click()
        status = answer.value.status
        expect(operation.locator(".live-responses-table .response-col_status").last).to_contain_text(str(status))
        return status, answer.value.json() if status != 204 else None


class TestDocumentation:
    def test_from_authorize_to_logout(self, browser: Browser, platform: Served) -> None:
        address, email = platform.address, register(platform.address)
        with visiting(browser, address) as page:
            documentation = Documentation(page, address)
            token = documentation.authorize(email, Scope.USER_READ, Scope.BLOG_READ)
            assert set(token["scope"].split()) == {Scope.USER_READ, Scope.BLOG_READ}

            me = documentation.operation("get", "/user/me")
            status, user = documentation.execute(me)
            assert (status, user["email"]) == (200, email)

            login = documentation.operation("post", "/login")
            login.get_by_placeholder("grant_type").fill("refresh_token")
            login.get_by_placeholder("refresh_token").fill(token["refresh_token"])
            status, refreshed = documentation.execute(login)
            assert status == 200
            assert refreshed["refresh_token"] != token["refresh_token"]
            assert refreshed["access_token"] != token["access_token"]
            assert refreshed["scope"] == token["scope"]

            assert documentation.execute(documentation.operation("post", "/logout")) == (204, None)
            status, refusal = documentation.execute(me)
            assert (status, refusal["code"]) == (401, "invalid_token")
            assert_over(address, token)
            assert_over(address, refreshed)

    def test_a_wrong_password(self, browser: Browser, platform: Served) -> None:
        with visiting(browser, platform.address) as page:
            documentation = Documentation(page, platform.address)
            documentation.send_dialog(register(platform.address), NEW_PASSWORD)
            expect(documentation.dialog.locator(".errors")).to_contain_text("Unauthorized")


class TestLink:
    def told(self, page: Page) -> Locator:
        return page.get_by_role("status")

    def test_a_new_password(self, browser: Browser, platform: Served) -> None:
        address, email = platform.address, register(platform.address)
        post(f"{address}/password-reset", json={"email": email}).raise_for_status()
        with visiting(browser, address) as page:
            page.goto(platform.mailed_link(email))
            expect(page).to_have_title("Set a new password")
            expect(page.get_by_role("textbox")).to_have_count(1)
            password = page.get_by_label("New password")

            # The link is still good after a password that is not.
            password.fill("password1")
            password.press("Enter")
            expect(self.told(page)).to_contain_text("one of the most common ones")
            expect(password).to_be_focused()
            password.fill(email)
            password.press("Enter")
            expect(self.told(page)).to_contain_text("has your name, your address")
            assert log_in(address, email).status_code == 200

            password.fill(NEW_PASSWORD)
            password.press("Enter")
            expect(self.told(page)).to_contain_text("Your new password is set")
            expect(self.told(page)).to_be_focused()
            expect(password).to_be_hidden()
            assert page.url == f"{address}/link"
        assert log_in(address, email).status_code == 401
        assert log_in(address, email, NEW_PASSWORD).status_code == 200

    def test_a_link_is_good_once(self, browser: Browser, platform: Served) -> None:
        email = register(platform.address)
        used, unused = (platform.command("user", "rescue", email) for _ in range(2))
        with visiting(browser, platform.address) as page:
            page.goto(used)
            page.get_by_label("New password").fill(NEW_PASSWORD)
            page.get_by_role("button").click()
            expect(self.told(page)).to_contain_text("Your new password is set")
            for link in (used, unused):
                page.goto(link)
                expect(self.told(page)).to_be_empty()
                page.get_by_label("New password").fill(PASSWORD)
                page.get_by_role("button").click()
                expect(self.told(page)).to_contain_text("This link is not valid, or not any more.")
        assert log_in(platform.address, email, NEW_PASSWORD).status_code == 200

    def test_another_link_in_the_same_tab(self, browser: Browser, platform: Served) -> None:
        email = register(platform.address)
        with visiting(browser, platform.address) as page:
            page.goto(f"{platform.address}/link#password_reset=blog_link_x")
            page.get_by_label("New password").fill(NEW_PASSWORD)
            page.get_by_role("button").click()
            expect(self.told(page)).to_contain_text("This link is not valid")
            page.goto(platform.command("user", "rescue", email))
            expect(self.told(page)).to_be_empty()
            page.get_by_label("New password").fill(NEW_PASSWORD)
            page.get_by_role("button").click()
            expect(self.told(page)).to_contain_text("Your new password is set")
        assert log_in(platform.address, email, NEW_PASSWORD).status_code == 200

    def test_the_password_can_be_seen(self, browser: Browser, platform: Served) -> None:
        with visiting(browser, platform.address) as page:
            page.goto(f"{platform.address}/link#password_reset=blog_link_x")
            password = page.get_by_label("New password")
            for kind in ("text", "password"):
                page.get_by_label("Show the password").press("Space")
                expect(password).to_have_attribute("type", kind)

    def test_an_invitation(self, browser: Browser, tmp_path: Path) -> None:
        invited = platform_with(tmp_path, registration="invited")
        with invited as platform, visiting(browser, platform.address) as page:
            admin = ("user", "add", "--role", "admin", "--email", "root@example.com", "--name", "Root")
            platform.command(*admin, typed=f"{PASSWORD}\n")
            headers = bearer(log_in(platform.address, "root@example.com").json()["access_token"])
            answer = post(f"{platform.address}/invitation/", json={"role": "reader"}, headers=headers)
            link = answer.json()["link"]

            page.goto(link)
            page.get_by_label("Your name").fill("Ada")
            page.get_by_label("New password").fill(PASSWORD)
            for email, words in (
                ("root@example.com", "already"),
                ("ada@localhost", "email: not an e-mail address"),
                ("ada@example.com", "You are registered"),
            ):
                page.get_by_label("Your e-mail address").fill(email)
                page.get_by_role("button", name="Register").click()
                expect(self.told(page)).to_contain_text(words)
            headers = bearer(log_in(platform.address, "ada@example.com").json()["access_token"])
            assert get(f"{platform.address}/user/me", headers=headers).json()["role"] == "reader"

            page.goto(link)
            page.get_by_label("Your name").fill("Bob")
            page.get_by_label("Your e-mail address").fill("bob@example.com")
            page.get_by_label("New password").fill(PASSWORD)
            page.get_by_role("button", name="Register").click()
            expect(self.told(page)).to_contain_text("This link is not valid, or not any more.")

    def test_an_address(self, browser: Browser, tmp_path: Path) -> None:
        with (
            platform_with(tmp_path, email_verification="true") as platform,
            visiting(browser, platform.address) as page,
        ):
            email = register(platform.address)
            assert code(log_in(platform.address, email)) == (401, "email_not_verified")
            link = platform.mailed_link(email)
            page.goto(link)
            expect(page.get_by_role("textbox")).to_have_count(0)
            # What looks behind links before people do must not use them up.
            assert code(log_in(platform.address, email)) == (401, "email_not_verified")
            page.get_by_role("button", name="Confirm").click()
            expect(self.told(page)).to_contain_text("Your address is confirmed")
            assert log_in(platform.address, email).status_code == 200
            page.goto(link)
            page.get_by_role("button", name="Confirm").click()
            expect(self.told(page)).to_contain_text("This link is not valid, or not any more.")

    def test_half_a_link(self, browser: Browser, platform: Served) -> None:
        with visiting(browser, platform.address) as page:
            for fragment in ("", "#", "#password_reset", "#password_reset=", "#constructor=x", "#=x"):
                page.goto("about:blank")
                page.goto(f"{platform.address}/link{fragment}")
                expect(page.get_by_role("heading")).to_have_text("This link is not complete")
                expect(page.get_by_role("button")).to_be_hidden()


class Cable(socketserver.ThreadingTCPServer):
    """What lies between a browser and a platform, and can be cut: nothing goes through until it is mended."""

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), Line)
        self.platform = urlsplit(address)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.is_whole = threading.Event()
        self.is_whole.set()
        self.answers = True
        self.ends: set[socket.socket] = set()

    def cut(self) -> None:
        self.is_whole.clear()
        for end in list(self.ends):
            hang_up(end)

    def mend(self) -> None:
        self.answers = True
        self.is_whole.set()


class Line(socketserver.BaseRequestHandler):
    """One connection through the cable."""

    server: Cable

    def handle(self) -> None:
        self.server.is_whole.wait()
        with socket.create_connection((self.server.platform.hostname, self.server.platform.port)) as far:
            ends = {self.request, far}
            self.server.ends |= ends
            back = threading.Thread(target=self.carry, args=(far, self.request), kwargs={"back": True})
            back.start()
            self.carry(self.request, far)
            back.join()
            self.server.ends -= ends

    def carry(self, source: socket.socket, target: socket.socket, *, back: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                if self.server.answers or not back:
                    target.sendall(data)
        for end in (source, target):
            hang_up(end)


def hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


class RoomsPage:
    """The page for rooms, as somebody uses it who tries them, with all that goes over its WebSockets."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.said: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        page.on("websocket", self._listen)
        page.goto(f"{address}/docs/rooms")

    def _listen(self, opened: WebSocket) -> None:
        opened.on("framesent", lambda frame: self.said.append(json.loads(frame)))
        opened.on("framereceived", lambda frame: self.told.append(json.loads(frame)))

    def log_in(self, email: str, password: str = PASSWORD) -> None:
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.press("Log in")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def open_room(self, name: str) -> int:
        self.page.locator("summary", has_text="Open a room").click()
        self.page.get_by_label("Name").fill(name)
        self.press("Open and join")
        self.is_live()
        return int(self.page.url.partition("#")[2])

    def say(self, text: str) -> None:
        self.page.get_by_label("Say something").fill(text)
        self.page.get_by_label("Say something").press("Enter")

    @property
    def state(self) -> Locator:
        return self.page.locator("#state")

    def is_live(self) -> None:
        expect(self.state).to_have_text("Connected.")

    def message(self, number: int) -> Locator:
        return self.page.locator(f'[data-number="{number}"] .body')

    def shows(self, *texts: str) -> None:
        """These messages and no others, in this order, with the numbers 1, 2, 3 …"""
        expect(self.page.locator("#messages .body")).to_have_text(texts)
        expect(self.page.locator("#messages .head span")).to_have_text([f"#{n}" for n, _ in enumerate(texts, 1)])
        expect(self.page.locator("#outbox li")).to_have_count(0)
        expect(self.page.locator("#tally")).to_contain_text("none missing, none twice")


class TestRooms:
    @pytest.fixture
    def cable(self, platform: Served) -> Iterator[Cable]:
        with Cable(platform.address) as cable:
            thread = threading.Thread(target=cable.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield cable
            finally:
                cable.shutdown()
                thread.join()
                cable.cut()
                cable.mend()

    @pytest.fixture
    def rooms(self, browser: Browser, cable: Cable) -> Iterator[RoomsPage]:
        with visiting(browser, cable.address) as page:
            yield RoomsPage(page, cable.address)

    @pytest.fixture
    def bob(self, platform: Served) -> Iterator[httpx.Client]:
        """Somebody else, who asks the platform directly."""
        token = log_in(platform.address, register(platform.address, "Bob")).json()["access_token"]
        with httpx.Client(base_url=platform.address, headers=bearer(token), verify=NO_TLS) as bob:
            yield bob

    @staticmethod
    def say(writer: httpx.Client, room: int, *texts: str) -> None:
        for text in texts:
            writer.post(f"/room/{room}/messages", json={"body": text}).raise_for_status()

    def test_from_login_to_logout(self, rooms: RoomsPage, bob: httpx.Client, platform: Served) -> None:
        page, email = rooms.page, register(platform.address)
        rooms.log_in(email, NEW_PASSWORD)
        expect(page.get_by_role("alert")).to_have_text("The e-mail address or the password is wrong.")
        rooms.log_in(email)
        room = rooms.open_room("Looms")
        expect(page.get_by_role("button", name="Looms")).to_have_attribute("aria-current", "true")
        expect(page.get_by_label("Say something")).to_be_focused()
        rooms.say("It *weaves* <img src=x onerror=alert(1)>")
        expect(rooms.message(1).locator("em")).to_have_text("weaves")
        expect(rooms.message(1)).to_contain_text("<img")

        live = f"{platform.address.replace('http', 'ws')}/room/{room}/live"
        with connect(live, additional_headers=[("Authorization", bob.headers["Authorization"])]) as socket:
            expect(page.locator("#people li")).to_have_text(["Ada", "Bob"])
            socket.send('{"type": "typing"}')
            expect(page.locator("#typing")).to_have_text("Bob is typing…")
            socket.send('{"type": "message", "body": "Flowers?"}')
            expect(rooms.message(2)).to_have_text("Flowers?")
            expect(page.locator("#typing")).to_be_empty()
        expect(page.locator("#people li")).to_have_text(["Ada"])

        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Remove message 2").click()
        expect(rooms.message(2)).to_have_text("This message was removed.")
        rooms.press("Send a ping")
        expect(page.locator("#frames")).to_contain_text('{"type":"pong"}')

        rooms.press("Leave")
        expect(page.locator("#people li")).to_have_count(0)
        rooms.press("Log out")
        expect(page.get_by_label("E-mail address")).to_be_focused()
        assert page.evaluate("[tokens, me, room, socket]") == [None] * 4

        # All of it was as the documentation says.
        documented = get(f"{platform.address}/asyncapi.json").json()
        for operation, frames in (("hear", rooms.said), ("tell", rooms.told)):
            messages = [message["$ref"] for message in documented["operations"][operation]["messages"]]
            schemas = [{"$ref": f"#/components/schemas/{message.rpartition('/')[2]}"} for message in messages]
            validator = jsonschema_rs.validator_for({**documented, "oneOf": schemas}, validate_formats=True)
            assert frames
            for frame in frames:
                validator.validate(frame)

    def test_more_than_is_shown_at_once(self, rooms: RoomsPage, bob: httpx.Client, platform: Served) -> None:
        category = uuid4().hex
        for number in range(21):
            room = bob.post("/room/", json={"name": f"Room {number}", "category": category}).json()["id"]
        self.say(bob, room, *(str(number) for number in range(1, 61)))
        rooms.log_in(register(platform.address))
        rooms.page.get_by_label("Category").first.fill(category)
        rooms.press("Show")
        listed = rooms.page.locator("#list button")
        expect(listed).to_have_count(20)
        rooms.press("More rooms")
        expect(listed).to_have_count(21)
        listed.first.click()
        rooms.is_live()
        expect(rooms.page.locator("#tally")).to_contain_text("Messages 11 to 60 are here")
        rooms.press("Earlier messages")
        rooms.shows(*(str(number) for number in range(1, 61)))
        expect(rooms.page.get_by_role("button", name="Earlier messages")).to_be_hidden()

    def test_what_is_refused(self, rooms: RoomsPage, bob: httpx.Client, platform: Served) -> None:
        room = bob.post("/room/", json={"name": "Slow", "slow_mode": 3600}).json()["id"]
        rooms.page.goto(f"{rooms.page.url}#{room}")
        rooms.log_in(register(platform.address))
        rooms.is_live()
        rooms.say("one")
        rooms.shows("one")
        rooms.say("two")
        expect(rooms.page.locator("#outbox li")).to_contain_text("This room is slow.")
        expect(rooms.page.get_by_role("button", name="Remove message 1")).to_be_visible()
        rooms.press("Edit it")
        expect(rooms.page.get_by_label("Say something")).to_have_value("two")
        rooms.shows("one")
        self.say(bob, room, "three")
        rooms.shows("one", "three")
        expect(rooms.page.get_by_role("button", name="Remove message 2")).to_have_count(0)

    def test_dropped_by_hand(self, rooms: RoomsPage, bob: httpx.Client, platform: Served) -> None:
        rooms.log_in(register(platform.address))
        room = rooms.open_room("Looms")
        rooms.say("one")
        rooms.shows("one")
        self.say(bob, room, "two")
        rooms.shows("one", "two")
        rooms.press("Drop the connection")
        expect(rooms.state).to_contain_text("Dropped by you")
        self.say(bob, room, "three", "four")
        rooms.say("five")
        expect(rooms.page.locator("#outbox li")).to_have_text("Not stored yet: five")
        bob.delete(f"/room/{room}/messages/2").raise_for_status()
        rooms.press("Resume")
        rooms.is_live()
        rooms.shows("one", "This message was removed.", "three", "four", "five")

    def test_a_connection_that_is_cut(
        self, rooms: RoomsPage, cable: Cable, bob: httpx.Client, platform: Served
    ) -> None:
        rooms.log_in(register(platform.address))
        room = rooms.open_room("Looms")
        rooms.say("first")
        rooms.shows("first")

        # What is stored, and nobody is told: it is sent again, and written once.
        cable.answers = False
        rooms.say("second")
        due = time.monotonic() + HANG
        while len(bob.get(f"/room/{room}/messages").json()) < 2:
            assert time.monotonic() < due
            time.sleep(0.02)
        cable.cut()
        expect(rooms.state).not_to_have_text("Connected.")
        rooms.say("last but a hundred and twenty")
        texts = [f"missed {number}" for number in range(120)]
        self.say(bob, room, *texts)
        cable.mend()
        rooms.is_live()
        rooms.shows("first", "second", *texts, "last but a hundred and twenty")
        refs = [frame["ref"] for frame in rooms.said if frame.get("body") == "second"]
        assert len(refs) == 2
        assert len(set(refs)) == 1

    def test_a_token_that_runs_out(self, rooms: RoomsPage, bob: httpx.Client, platform: Served) -> None:
        rooms.log_in(register(platform.address))
        room = rooms.open_room("Looms")

        # While the WebSocket is open it goes on with another.
        before = rooms.page.evaluate("tokens.access_token")
        rooms.page.evaluate("renew()")
        assert rooms.said[-1] == {"type": "auth", "token": rooms.page.evaluate("tokens.access_token")}
        assert rooms.said[-1]["token"] != before
        assert before not in rooms.page.content()
        rooms.say("one")
        rooms.shows("one")

        # While there is none the next one is opened with another.
        rooms.press("Drop the connection")
        expect(rooms.state).to_contain_text("Dropped by you")
        let_run_out(rooms.page, platform.address)
        self.say(bob, room, "two")
        rooms.press("Resume")
        rooms.shows("one", "two")

    def test_a_login_that_was_ended_elsewhere(self, rooms: RoomsPage, platform: Served) -> None:
        rooms.log_in(register(platform.address))
        rooms.open_room("Looms")
        token = rooms.page.evaluate("tokens.access_token")
        assert post(f"{platform.address}/logout", headers=bearer(token)).status_code == 204
        expect(rooms.page.get_by_role("alert")).to_contain_text("Log in again.")
        expect(rooms.page.get_by_label("E-mail address")).to_be_focused()

    def test_a_room_that_is_closed(self, rooms: RoomsPage, platform: Served) -> None:
        rooms.log_in(register(platform.address))
        room = rooms.open_room("Looms")
        headers = bearer(rooms.page.evaluate("tokens.access_token"))
        closed = httpx.patch(
            f"{platform.address}/room/{room}", json={"is_closed": True}, headers=headers, verify=NO_TLS
        )
        assert closed.status_code == 200
        expect(rooms.state).to_have_text("This room is closed.")
        expect(rooms.page.get_by_label("Say something")).to_be_hidden()
        rooms.press("Leave")
        rooms.page.get_by_role("button", name="Looms").first.click()
        expect(rooms.state).to_have_text("This room is closed.")


class TestApplicationOfAnotherSite:
    """The README's example, as it stands there."""

    @pytest.fixture
    def application(self, browser: Browser, site: Served, platform: Served) -> Iterator[Page]:
        """The other site's one page, whose script is the README's."""
        part = README.partition("\n### From a browser application\n")[2].partition("\n##")[0]
        [script] = re.findall(r"```js\n(.*?)```", part, re.DOTALL)
        assert ADDRESS in script
        (site.folder / "application.js").write_text(script.replace(ADDRESS, platform.address))
        page_of_site = '<!doctype html><link rel="icon" href="data:,"><script src="application.js"></script>'
        (site.folder / "index.html").write_text(page_of_site)
        with visiting(browser, site.address, platform.address) as page:
            page.goto(site.address)
            yield page

    def log_in(self, application: Page, email: str) -> None:
        application.evaluate("([email, password]) => logIn(email, password)", [email, PASSWORD])

    def test_from_login_to_logout(self, application: Page, platform: Served) -> None:
        email = register(platform.address)
        refusal = application.evaluate("email => logIn(email, 'wrong').catch((error) => error.message)", email)
        assert refusal == "The e-mail address or the password is wrong."
        self.log_in(application, email)
        assert application.evaluate("call('/user/me').then((answer) => answer.json())")["email"] == email
        title = application.evaluate(
            """async () => {
                const blog = JSON.stringify({title: "Notes", body: "Text"});
                const answer = await call("/blog/", {
                    method: "POST", headers: {"Content-Type": "application/json"}, body: blog,
                });
                return (await (await call(answer.headers.get("Location"))).json()).title;
            }"""
        )
        assert title == "Notes"
        token = application.evaluate("tokens")
        application.evaluate("logOut()")
        assert application.evaluate("call('/user/me').catch((error) => error.message)") == "Log in first."
        assert_over(platform.address, token)

    def test_many_requests_refresh_once(self, application: Page, platform: Served) -> None:
        self.log_in(application, register(platform.address))
        refreshes: list[Request] = []
        application.on("request", lambda request: refreshes.append(request) if "/login" in request.url else None)

        let_run_out(application, platform.address)
        before = application.evaluate("tokens.refresh_token")
        ask = "Promise.all(Array.from({length: 5}, () => call('/user/me').then((answer) => answer.status)))"
        assert application.evaluate(ask) == [200] * 5
        assert len(refreshes) == 1
        assert application.evaluate("tokens.refresh_token") != before

        # A refusal that arrives when another request has refreshed already.
        let_run_out(application, platform.address)
        statuses = application.evaluate(
            """async () => {
                const real = window.fetch;
                let open;
                const gate = new Promise((resolve) => { open = resolve; });
                window.fetch = (...request) => real(...request).then(async (answer) => { await gate; return answer; });
                const late = call("/user/me");
                window.fetch = real;
                const soon = await call("/user/me");
                open();
                return [soon.status, (await late).status];
            }"""
        )
        assert statuses == [200, 200]
        assert len(refreshes) == 2

    def test_a_login_that_was_ended_elsewhere(self, application: Page, platform: Served) -> None:
        email = register(platform.address)
        self.log_in(application, email)
        token = application.evaluate("tokens")
        ended = post(f"{platform.address}/logout", headers=bearer(token["access_token"]))
        assert ended.status_code == 204
        ask = "Promise.all([1, 2].map(() => call('/user/me').catch((error) => error.message)))"
        assert application.evaluate(ask) == ["This refresh token is not valid, or not any more. Log in again."] * 2
        assert application.evaluate("tokens") is None
        self.log_in(application, email)
        assert application.evaluate("call('/user/me').then((answer) => answer.status)") == 200
