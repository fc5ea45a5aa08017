"""What people write is never taken for a part of the page: no script of theirs runs, wherever it is shown.

The browser here heeds no content security policy, so that nothing but the pages themselves keeps scripts from running.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import html5lib
import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from blog.models import Role
from blog.repository.user import UserRepository
from tests.factories import PASSWORD, Factory
from tests.site.every_page import site_with
from tests.test_browser import RoomsPage, Served, browser

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.browser

PAYLOADS = (
    # Elements, as they are and as somebody would be who takes them for such.
    "<script>pwned=1</script>",
    "<ScRiPt/x>pwned=2</sCrIpT >",
    "<img src=x: onerror=pwned=3>",
    "<svg onload=pwned=4><animate onbegin=pwned=5>",
    "<details open ontoggle=pwned=6><summary>x",
    "<input autofocus onfocus=pwned=7>",
    "<iframe srcdoc='<script>top.pwned=8</script>'>",
    "<math><mi><style><img title='</style><img src onerror=pwned=9>'>",
    "<a href=javascript:pwned=10>x</a>",
    "<base href=//other.example/><object data=javascript:pwned=11>",
    "<<script>pwned=12//<</script>",
    "&lt;script&gt;pwned=13&lt;/script&gt;",
    "&#60;img src onerror=pwned=14&#62;",
    "\\u003cscript\\u003epwned=15\\u003c/script\\u003e",
    "%3Cscript%3Epwned=16%3C/script%3E",
    "＜script＞pwned=17＜/script＞",
    "<template><img src onerror=pwned=18></template><noscript><p title='</noscript><img src onerror=pwned=18>'>",
    # Ends of what they stand in.
    "</title><script>pwned=19</script>",
    "</textarea><script>pwned=20</script>",
    "</script><script>pwned=21</script>",
    '"><script>pwned=22</script>',
    "'><img src onerror='pwned=23",
    '" autofocus onfocus="pwned=24" x="',
    "' onmouseover='pwned=25' style='position:fixed;inset:0",
    "--><script>pwned=26</script><!--",
    "]]><script>pwned=27</script><![CDATA[",
    '{"x": "</script><script>pwned=28</script>"}',
    '\\"});pwned=29;({"x":\\"',
    "${pwned=30}{{constructor.constructor('pwned=31')()}}{% raw %}",
    "`;pwned=32;`",
    # Markdown.
    "[x](javascript:pwned=33) [x](JaVaScRiPt&colon;pwned=33) [x](java&Tab;script:pwned=33)",
    "![x](javascript:pwned=34) ![x](x: 'a\" onerror=\"pwned=34')",
    "<javascript:pwned=35> <data:text/html,<script>pwned=35</script>>",
    '[x](<"onclick=pwned=36> "&quot;onclick=pwned=36") [x](x "\\" onmouseover=\\"pwned=36")',
    "[x]\n\n[x]: vbscript:pwned=37 '\"onclick=\"pwned=37'",
    '```"onclick=pwned=38 <script>\npwned=38\n```',
    "[^<img/src/onerror=pwned=39>]\n\n[^<img/src/onerror=pwned=39>]: <script>pwned=39</script>",
    '| <img src onerror=pwned=40> |\n|:-" onclick="pwned=40:|\n| `</code><script>pwned=40</script>` |',
    "# <img id=x name=form src onerror=pwned=41> {#x onclick=pwned=41}",
    "<!--><img src onerror=pwned=42>-->",
)
NO_LINES = tuple(" ".join(payload.split()) for payload in PAYLOADS)
ALL = "\n\n".join(PAYLOADS)
PARTS = tuple(" ".join(NO_LINES[first : first + 8])[:500] for first in range(0, len(NO_LINES), 8))

# Says of each attempt, and of what only waits for somebody to click on it.
WATCH = """Object.defineProperty(window, "pwned", {set: (by) => console.error(`pwned by ${by}`)});"""
FOREIGN = """() => {
    const isHarmless = (address) => /^(https?:|mailto:)/.test(new URL(address, location).href);
    const isOurs = /^(--hue: [0-9]+|field-sizing: content);$/; // of the page for rooms
    const isOdd = ({name, value}) => /^on|^srcdoc$/.test(name) || (name === "style" && !isOurs.test(value))
        || (/^(href|src|action|formaction|data)$/.test(name) && !isHarmless(value));
    return [...document.querySelectorAll("*")].flatMap((element) => [
        ...element.matches("base, embed, iframe, math, object, svg, template") ? [element.localName] : [],
        ...[...element.attributes].filter(isOdd).map(({name, value}) => `${name}=${value}`),
    ]);
}"""
SEND = """([selector, fields]) => {
    const form = document.querySelector(selector);
    for (const [name, value] of Object.entries(fields)) {
        const field = form.elements[name];
        if (field.type === "checkbox" || field.length) (field.length ? field[0] : field).checked = true;
        else field.value = value;
    }
    form.submit();
}"""


@pytest.fixture(scope="module")
def posts() -> list[str]:
    """The slugs of what was written."""
    return []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, posts: list[str]) -> Iterator[Served]:
    """A site on which whoever writes something, and whoever set it up, means harm."""

    async def write(factory: Factory) -> None:
        users = [
            await factory.user(name[:100], email=f"{number}@example.com", role=Role.AUTHOR if number else Role.ADMIN)
            for number, name in enumerate(NO_LINES)
        ]
        async with factory._state.database.write.begin() as session:
            for user, about in zip(users, PAYLOADS, strict=True):
                await UserRepository(session).update(user, {"about": about})
        for user, text, line in zip(users, PAYLOADS, NO_LINES, strict=True):
            tag = line.replace(",", ";")[:50].strip()
            posts.append((await factory.blog(user, line, text, summary=text, tags=[tag])).slug)
            room = await factory.room(user, line[:100].strip(), category=line[:100], description=line[:100])
            await factory.message(room.id, user, text)
        await factory.blog(users[0], NO_LINES[10], ALL, summary=ALL[:500])

    site = {"site_title": "</title><script>pwned=50</script>\"'", "site_description": '"><script>pwned=51</script>'}
    with site_with(tmp_path_factory.mktemp("site"), write, site_page_size="50", **site) as served:
        yield served


class Watched:
    """A page without a policy, which says of each script that is not the site's own."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self._address = address

    def open(self, path: str) -> None:
        """Ask for a page, as it is at first and once its scripts ran, if it has any."""
        response = self.page.goto(f"{self._address}{path}")
        assert response is not None
        html5lib.HTMLParser(strict=True).parse(response.text())
        self.is_own()

    def is_own(self) -> None:
        """There is nothing on the page that the site itself puts on none."""
        assert self.page.evaluate(FOREIGN) == [], self.page.url

    def send(self, form: str, fields: dict[str, str]) -> None:
        """Fill in a form whatever its fields are for, and send it: it comes back."""
        with self.page.expect_navigation() as arrived:
            self.page.evaluate(SEND, [form, fields])
        html5lib.HTMLParser(strict=True).parse(arrived.value.text())
        self.is_own()


@contextmanager
def watching(browser: Browser, address: str) -> Iterator[Watched]:
    """Somebody whose browser calls itself something odd as well, to whom no script but the site's own happens."""
    faults: list[str] = []

    def answer(dialog: Dialog) -> None:
        if dialog.type != "beforeunload":
            faults.append(dialog.message)
        dialog.accept()

    with browser.new_context(bypass_csp=True, user_agent=f"Mozilla/5.0 {NO_LINES[2]} {NO_LINES[20]}") as context:
        context.add_init_script(WATCH)
        context.on("console", lambda message: faults.append(message.text) if "pwned by" in message.text else None)
        context.on("dialog", answer)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        yield Watched(context.new_page(), address)
    assert faults == []


def test_it_would_be_noticed(browser: Browser, served: Served) -> None:
    html = '<script>pwned = 1</script><a href="javascript:pwned=2" onclick="pwned=3">x</a><svg></svg>'
    with pytest.raises(AssertionError, match="pwned by 1"), watching(browser, served.address) as watched:
        watched.open("/login")
        watched.page.set_content(html)
        assert len(watched.page.evaluate(FOREIGN)) == 3


def test_for_readers(browser: Browser, served: Served, posts: list[str]) -> None:
    with watching(browser, served.address) as watched:
        for slug in posts:
            watched.open(f"/posts/{quote(slug)}")
        for text in PARTS:
            watched.open(f"/search?q={quote(text)}")
        for path in ("/", "/archive", "/authors/3", "/tags/%3Csvg%20onload%3Dpwned%3D5", "/nowhere<script>pwned=1"):
            watched.open(path)
        watched.open("/link")
        for text in PAYLOADS:
            for link in (f"password_reset={text}", f"{text}=x"):
                watched.page.evaluate("link => { location.hash = link; }", link)
        expect(watched.page.locator("#told")).to_contain_text("Copy all of it")
        watched.is_own()


def test_for_who_has_an_account(browser: Browser, served: Served, posts: list[str]) -> None:
    with watching(browser, served.address) as watched:
        page = watched.page
        watched.open(f"/login?next=/{quote(PAYLOADS[20])}")
        watched.send("main form", {"username": PARTS[0], "password": "x"})
        watched.open("/register")
        watched.send("main form", {"name": PARTS[0], "email": PARTS[1], "password": PASSWORD})
        watched.open("/forgotten")
        watched.send("main form", {"email": PARTS[1]})
        watched.open("/login?next=/desk")
        page.get_by_label("E-mail address").fill("0@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{served.address}/desk")
        watched.is_own()

        last = len(posts) + 1
        paths = (
            f"/desk/{last}",
            f"/desk/{last}/revisions",
            f"/desk/{last}/revisions/1",
            "/desk/users",
            "/desk/account",
        )
        for path in paths:
            watched.open(path)
        for text in PARTS:
            watched.open(f"/desk/users?q={quote(text[:100])}")
        watched.send("form.search", {"q": ALL[:100]})
        watched.open("/desk/account")
        watched.send("form[action$=tokens]", {"name": NO_LINES[4], "scopes": "blog:read"})
        watched.send("form[action$=account]", {"name": ALL, "about": ALL})
        watched.open("/desk/new")
        watched.send("#post", dict.fromkeys(("title", "body", "summary", "tags", "slug"), ALL))
        watched.open(f"/desk/{last}")
        watched.send("#post", {"title": NO_LINES[22], "body": f"{ALL}x", "etag": '"stale"'})
        expect(page.locator("#conflict")).to_be_visible()

        page.get_by_text("Preview", exact=True).click()
        page.locator("#body").fill(f"{ALL}\n\nThe end")
        expect(page.locator("#preview")).to_contain_text("The end")
        watched.is_own()

        # What arrives while somebody looks, and what was said before.
        watched.open(f"/posts/{quote(posts[0])}/discussion")
        text = f"{ALL}\n\nThe end"
        for _ in range(2):
            page.get_by_label("Say something").fill(text)
            page.get_by_role("button", name="Send").click()
            expect(page.locator(".body").last).to_contain_text("The end")
            watched.is_own()
            watched.open(f"/posts/{quote(posts[0])}/discussion")


def test_in_rooms(browser: Browser, served: Served) -> None:
    with watching(browser, served.address) as watched:
        rooms = RoomsPage(watched.page, served.address)
        rooms.log_in("0@example.com")
        for name in (NO_LINES[-1], NO_LINES[21]):
            rooms.page.get_by_role("button", name=name).click()
            rooms.is_live()
            rooms.say(f"{ALL}\n\nThe end")
            expect(rooms.message(2)).to_contain_text("The end")
            watched.is_own()
            rooms.press("Leave")
