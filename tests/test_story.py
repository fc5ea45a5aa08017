"""What people do in a browser, from registering to logging out: with scripts, and without any."""

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect

from tests.factories import PASSWORD
from tests.images import image_of
from tests.test_browser import Served, browser, get, platform_with, visiting

__all__ = ["browser"]  # the fixture

pytestmark = pytest.mark.browser

DROP = """([content, name]) => {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: "image/gif"}));
    document.getElementById("body").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with platform_with(tmp_path_factory.mktemp("platform")) as served:
        yield served


class Person:
    """Somebody at a browser of their own."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address

    def go(self, path: str) -> None:
        self.page.goto(self.address + path)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.page.locator(f"main [name={name}]").last.fill(value)

    def sees(self, text: str) -> None:
        expect(self.page.locator("main")).to_contain_text(text)

    def registers(self, name: str) -> None:
        email = f"{name.lower()}@example.com"
        self.go("/login")
        self.follow("Register")
        self.fill(name=name, email=email, password=PASSWORD)
        self.press("Register")
        self.fill(username=email, password="not the password")
        self.press("Log in")
        self.sees("The e-mail address or the password is wrong.")
        self.fill(password=PASSWORD)
        self.press("Log in")
        expect(self.page).to_have_url(f"{self.address}/")

    def says(self, text: str) -> None:
        self.fill(body=text)
        self.press("Send")


def test_with_scripts(browser: Browser, served: Served) -> None:
    address = served.address
    with ExitStack() as stack:
        ada, bob, reader = (Person(stack.enter_context(visiting(browser, address)), address) for _ in range(3))
        ada.registers("Ada")

        # She writes: what becomes of it is seen beside it, and a draft saves itself.
        ada.go("/desk")
        ada.follow("New")
        ada.fill(title="Notes on the engine", body="It *weaves* patterns.", tags="Looms")
        ada.page.get_by_text("Preview", exact=True).click()
        expect(ada.page.locator("#preview em")).to_have_text("weaves")
        expect(ada.page.locator("#saved")).to_have_text("Saved as a draft.")
        editor = ada.page.url
        assert editor.startswith(f"{address}/desk/")
        assert editor != f"{address}/desk/new"
        reader.go("/posts/notes-on-the-engine")
        reader.sees("There is nothing here")
        ada.page.evaluate(DROP, [base64.b64encode(image_of("gif")).decode(), "a dot.gif"])
        expect(ada.page.locator("#body")).to_have_value(re.compile(r"!\[a dot\]\(/media/[0-9a-f]+\.gif\)"))
        expect(ada.page.locator("#preview img")).to_be_visible()
        ada.page.get_by_label("Published").check()
        ada.press("Save")
        ada.follow("see it")
        ada.sees("It weaves patterns.")

        # Anybody reads it, finds it and follows its tag.
        reader.go("/")
        reader.follow("Notes on the engine")
        reader.sees("It weaves patterns.")
        expect(reader.page.locator(".body img")).to_have_js_property("complete", True)
        reader.go("/search")
        reader.fill(q="WEAVES")
        reader.press("Search")
        expect(reader.page.locator("mark").first).to_have_text("weaves")
        reader.follow("looms")
        feed = reader.page.get_by_role("link", name="Follow this tag").get_attribute("href")
        assert '<title type="text">Notes on the engine</title>' in get(f"{address}{feed}").text

        # The address that it had leads to the one that it has.
        ada.page.goto(editor)
        ada.fill(slug="the-engine")
        ada.press("Save")
        reader.go("/posts/notes-on-the-engine")
        expect(reader.page).to_have_url(f"{address}/posts/the-engine")

        # Two talk about it, each seeing what the other says as it is said.
        bob.registers("Bob")
        bob.go("/posts/the-engine")
        bob.follow("Be the first to say something")
        bob.says("Does it *think*?")
        bob.sees("Does it think?")
        ada.go("/posts/the-engine/discussion")
        bob.sees("Here now:")
        ada.says("It does what we tell it.")
        bob.sees("It does what we tell it.")
        bob.says("A pity.")
        ada.sees("A pity.")
        reader.go("/posts/the-engine")
        reader.sees("A pity.")
        ada.page.reload()
        ada.page.get_by_label("Remove message 3").click()
        expect(bob.page.locator("#m-3")).to_contain_text("This message was removed.")

        # Of two who change it at once one hears of the other.
        other = Person(ada.page.context.new_page(), address)
        other.page.goto(editor)
        ada.page.goto(editor)
        ada.fill(body="It weaves flowers.")
        ada.press("Save")
        ada.sees("revision 3")
        other.fill(body="It weaves leaves.")
        other.press("Save")
        other.sees("-It weaves flowers.")
        other.sees("+It weaves leaves.")
        other.press("Save")
        other.sees("revision 4")
        other.follow("revision 4")
        other.page.get_by_role("link", name="3. Notes on the engine").click()
        other.sees("+It weaves flowers.")
        other.press("Restore this revision")
        expect(other.page.locator("#body")).to_have_value("It weaves flowers.")

        # What is to come is hers alone, until it is there.
        other.go("/desk/new")
        other.fill(title="Tomorrow", body="Is another day.", publish_at="2190-01-01T09:30:00")
        other.page.get_by_label("Scheduled").check()
        other.press("Save")
        other.sees("scheduled")
        other.go("/desk?status=scheduled")
        other.sees("Tomorrow")
        reader.go("/")
        expect(reader.page.locator("main")).not_to_contain_text("Tomorrow")
        other.go("/desk/readers")
        other.sees("Readers are counted without cookies")

        other.go("/desk/account")
        other.press("Log out everywhere")
        ada.go("/desk")
        expect(ada.page).to_have_url(f"{address}/login?next=/desk")


class TestDraft:
    """What the editor's script saves by itself, four seconds behind the last stroke."""

    @pytest.fixture
    def dora(self, browser: Browser, served: Served) -> Iterator[Person]:
        """Somebody at a new post, in a browser whose clock goes on when it is told."""
        with visiting(browser, served.address) as page:
            page.clock.install()
            dora = Person(page, served.address)
            dora.registers(f"Dora{uuid4().hex[:8]}")
            dora.go("/desk/new")
            yield dora

    def test_save_while_it_is_on_its_way(self, dora: Person) -> None:
        """It makes the post, which what is sent next is a change of."""
        page = dora.page
        held: list[Route] = []
        page.route("**/desk/new", lambda route: held.append(route))
        dora.fill(title="Once", body="And no more.")
        with page.expect_request("**/desk/new"):
            page.clock.run_for(5_000)
        dora.press("Save")
        page.locator("#title").focus()  # by now another one would have been sent
        for route in held:
            route.continue_()
        dora.sees("draft, revision 1")
        assert len(held) == 1
        dora.go("/desk")
        expect(page.get_by_role("link", name="Once")).to_have_count(1)

    def test_one_that_was_refused(self, dora: Person) -> None:
        """Is lost with the page, so whoever leaves is asked; one that was stored is not."""
        page = dora.page
        asked: list[str] = []

        def stay(dialog: Dialog) -> None:
            asked.append(dialog.type)
            dialog.dismiss()

        page.on("dialog", stay)
        page.route("**/desk/new", lambda route: route.fulfill(status=503, body="{}"))
        page.locator("#title").press_sequentially("Kept")
        dora.fill(body="At last.")
        page.clock.run_for(5_000)
        expect(page.locator("#saved")).to_have_text("This could not be saved just now.")
        page.get_by_role("link", name="Archive").click()
        expect(page.locator("#body")).to_have_value("At last.")
        assert asked == ["beforeunload"]

        page.unroute("**/desk/new")
        page.locator("#title").press_sequentially("!")
        page.clock.run_for(5_000)
        expect(page.locator("#saved")).to_have_text("Saved as a draft.")
        dora.follow("Archive")
        dora.sees("Archive")
        assert asked == ["beforeunload"]


def test_without_scripts(browser: Browser, served: Served) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        cid = Person(context.new_page(), served.address)
        cid.registers("Cid")
        cid.go("/desk/new")
        cid.fill(title="Without", body="Nothing but *forms*.")
        cid.page.get_by_label("Published").check()
        cid.press("Save")
        cid.fill(body="Nothing but **forms**.")
        cid.press("Save")
        cid.follow("revision 2")
        cid.page.get_by_role("link", name="1. Without").click()
        cid.press("Restore this revision")
        cid.follow("see it")
        cid.sees("Nothing but forms.")
        cid.follow("Be the first to say something")
        cid.says("And this.")
        cid.sees("And this.")
        cid.page.get_by_label("Remove message 1").click()
        cid.sees("This message was removed.")
        cid.go("/desk")
        cid.press("Log out")
        expect(cid.page).to_have_url(f"{served.address}/")
