"""The desk, as its forms are filled in."""

from typing import Any

import httpx
import pytest

from blog.errors import Conflict
from blog.models import Blog, Role, User
from blog.repository.user import UserRepository
from blog.site import desk
from tests.conftest import on
from tests.factories import PASSWORD, Factory
from tests.images import image_of
from tests.site.browser import Browser, Page

NOTES = {"title": "Notes", "body": "It *weaves*.", "status": "published"}


@pytest.fixture
def browser(client: httpx.AsyncClient) -> Browser:
    return Browser(client)


@pytest.fixture
async def ada(browser: Browser, factory: Factory) -> User:
    """Who is logged in with the browser."""
    user = await factory.user()
    await browser.log_in(user)
    return user


@pytest.fixture
async def post(ada: User, factory: Factory) -> Blog:
    """One of hers."""
    return await factory.blog(ada, "Notes", "It weaves.", tags=["looms"], summary="What it weaves.")


def on_desk(page: Page) -> str:
    assert page.response.status_code == 303, page.main
    return str(page.response.headers["location"])


@on("sqlite")
async def test_a_form_that_cannot_be_read(ada: User, browser: Browser) -> None:
    fields = (await browser.get("/desk/new")).forms()["/desk/new"]
    page = await browser.post("/desk/new", fields | NOTES | {f"more{number}": "" for number in range(1_001)})
    assert page.response.status_code == 400
    assert "Too many fields" in page.main


class TestPosts:
    async def test_reader(self, browser: Browser, factory: Factory) -> None:
        await browser.log_in(await factory.user(role=Role.READER))
        assert "There is nothing here yet" in (await browser.get("/desk")).main
        page = await browser.get("/desk/new")
        assert page.response.status_code == 403
        assert "Only an author or an admin" in page.main

    async def test_by_status(self, ada: User, browser: Browser, factory: Factory) -> None:
        await factory.blog(ada, "Seen")
        await factory.blog(ada, "Draft", status="draft")
        await factory.blog(ada, "To come", status="scheduled", publish_at="2190-01-01T00:00:00Z")
        await factory.blog(await factory.user("Bob"), "Bob's")
        assert {"Seen", "Draft", "To come"} < set((await browser.get("/desk")).text("a"))
        for status, title in (("draft", "Draft"), ("scheduled", "To come"), ("published", "Seen")):
            (row,) = [item for item in (await browser.get(f"/desk?status={status}")).text("li") if status in item]
            assert row.startswith(title)
        assert "Bob's" not in (await browser.get("/desk")).response.text

    async def test_page_after_page(self, ada: User, browser: Browser, factory: Factory) -> None:
        titles = [f"Post {number}" for number in range(25)]
        for title in titles:
            await factory.blog(ada, title)
        found: list[str] = []
        path: str | None = "/desk?status=published"
        while path is not None:
            page = await browser.get(path)
            found += [text for text in page.text("a") if text.startswith("Post ")]
            path = next((str(link.get("href")) for link in page.tree.iter() if link.get("rel") == "next"), None)
        assert found == titles[::-1]


class TestNew:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"title": " "}, "title: "),
            ({"body": ""}, "body: "),
            ({"status": "scheduled"}, "A scheduled blog needs publish_at."),
            ({"status": "scheduled", "publish_at": "tomorrow"}, "publish_at: "),
            ({"status": "other"}, "status: "),
            ({"tags": "x" * 51}, "tags: "),
            ({"body": "> " * 200 + "deep"}, "nested too deeply"),
        ],
    )
    async def test_refused(
        self, ada: User, browser: Browser, client: httpx.AsyncClient, factory: Factory, changes: Any, told: str
    ) -> None:
        page = await browser.send("/desk/new", "/desk/new", **NOTES | changes)
        assert page.response.status_code == 422
        assert told in page.told
        kept = page.forms()["/desk/new"]
        assert kept["body"] == (NOTES | changes)["body"]
        assert kept["title"] == (NOTES | changes)["title"]
        assert (await client.get("/blog/", headers=factory.login(ada))).json() == []

    async def test_slug_of_another(self, post: Blog, ada: User, browser: Browser) -> None:
        page = await browser.send("/desk/new", "/desk/new", **NOTES, slug=post.slug)
        assert page.response.status_code == 409
        assert "Another blog has this slug" in page.told
        assert page.forms()["/desk/new"]["body"] == "It *weaves*."

    async def test_written(self, ada: User, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        page = await browser.send("/desk/new", "/desk/new", **NOTES, tags="Looms, , engines", summary="One\r\ntwo")
        path = on_desk(page)
        (blog,) = (await client.get("/blog/", headers=factory.login(ada))).json()
        assert path == f"/desk/{blog['id']}"
        assert (blog["title"], blog["tags"], blog["summary"]) == ("Notes", ["engines", "looms"], "One\ntwo")
        assert blog["status"] == "published"
        assert (await browser.get(path)).forms()[path]["status"] == "published"

    async def test_of_the_greatest_length(self, ada: User, browser: Browser, factory: Factory) -> None:
        body = "\U0001f9f5" * 200_000
        path = on_desk(await browser.send("/desk/new", "/desk/new", **NOTES | {"status": "draft", "body": body}))
        stored = await factory.stored(int(path.rpartition("/")[2]))
        assert stored is not None
        assert stored.body == body

    async def test_scheduled(self, ada: User, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        fields = NOTES | {"status": "scheduled", "publish_at": "2190-01-01T09:30"}
        path = on_desk(await browser.send("/desk/new", "/desk/new", **fields))
        (blog,) = (await client.get("/blog/", headers=factory.login(ada))).json()
        assert blog["published_at"] == "2190-01-01T09:30:00Z"
        assert (await browser.get(path)).forms()[path]["publish_at"] == "2190-01-01T09:30:00"

    async def test_saved_by_the_script(self, ada: User, browser: Browser) -> None:
        form = (await browser.get("/desk/new")).forms()["/desk/new"]
        answer = (
            await browser.post("/desk/new", form | NOTES | {"status": "draft"}, Accept="application/json")
        ).response
        saved = answer.json()
        form |= {"etag": saved["etag"], "title": "Notes", "body": "It weaves more.", "status": "draft"}
        again = (await browser.post(saved["path"], form, Accept="application/json")).response
        assert again.json()["path"] == saved["path"]
        assert again.json()["etag"] != saved["etag"]
        stale = (await browser.post(saved["path"], form, Accept="application/json")).response
        assert stale.status_code == 412


class TestEdit:
    async def test_of_somebody_else(self, ada: User, browser: Browser, factory: Factory) -> None:
        bob = await factory.user("Bob")
        seen, draft = await factory.blog(bob), await factory.blog(bob, status="draft")
        assert (await browser.get(f"/desk/{seen.id}")).response.status_code == 403
        assert (await browser.get(f"/desk/{draft.id}")).response.status_code == 404
        assert (await browser.get("/desk/2147483647")).response.status_code == 404

    async def test_refused(self, post: Blog, browser: Browser, factory: Factory) -> None:
        path = f"/desk/{post.id}"
        page = await browser.send(path, path, title="Changed", body="Changed.", status="scheduled")
        assert page.response.status_code == 422
        assert page.forms()[path]["body"] == "Changed."
        stored = await factory.stored(post.id)
        assert stored is not None
        assert (stored.title, stored.body, stored.revision) == ("Notes", "It weaves.", 1)

    async def test_saved(self, post: Blog, browser: Browser, factory: Factory) -> None:
        path = f"/desk/{post.id}"
        form = (await browser.get(path)).forms()[path]
        assert (form["tags"], form["summary"], form["slug"]) == ("looms", "What it weaves.", "notes")
        on_desk(await browser.send(path, path, body="It weaves more.\r\n", tags="", slug="loom"))
        stored = await factory.stored(post.id)
        assert stored is not None
        assert (stored.body, stored.tags, stored.slug, stored.revision) == ("It weaves more.\n", [], "loom", 2)

    async def test_conflict(self, post: Blog, browser: Browser, factory: Factory) -> None:
        path = f"/desk/{post.id}"
        mine = (await browser.get(path)).forms()[path]
        on_desk(await browser.send(path, path, body="It weaves theirs."))
        page = await browser.post(path, mine | {"body": "It weaves mine."})
        assert page.response.status_code == 412
        (diff,) = page.text("pre")
        assert "-It weaves theirs. +It weaves mine." in diff
        resolved = page.forms()[path]
        assert resolved["body"] == "It weaves mine."
        stored = await factory.stored(post.id)
        assert stored is not None
        assert stored.body == "It weaves theirs."
        on_desk(await browser.post(path, resolved))
        stored = await factory.stored(post.id)
        assert stored is not None
        assert stored.body == "It weaves mine."

    @on("sqlite")
    async def test_conflict_behind_what_was_refused(self, post: Blog, browser: Browser, factory: Factory) -> None:
        path = f"/desk/{post.id}"
        mine = (await browser.get(path)).forms()[path]
        on_desk(await browser.send(path, path, body="It weaves theirs."))
        refused = await browser.post(path, mine | {"body": "It weaves mine.", "tags": "x" * 51})
        assert refused.response.status_code == 422
        page = await browser.post(path, refused.forms()[path] | {"tags": ""})
        assert page.response.status_code == 412, "whoever mends a form has not seen what others saved meanwhile"

    async def test_deleted(self, post: Blog, browser: Browser, factory: Factory) -> None:
        path = f"/desk/{post.id}"
        assert on_desk(await browser.send(path, f"{path}/delete")) == "/desk"
        assert await factory.stored(post.id) is None
        assert (await browser.get(path)).response.status_code == 410

    @on("sqlite")
    async def test_revisions(self, post: Blog, browser: Browser, factory: Factory) -> None:
        path = f"/desk/{post.id}"
        on_desk(await browser.send(path, path, body="It weaves more."))
        assert [item[:2] for item in (await browser.get(f"{path}/revisions")).text("li") if "Notes" in item] == [
            "2.",
            "1.",
        ]
        page = await browser.get(f"{path}/revisions/1?diff=2")
        assert "-It weaves more. +It weaves." in page.text("pre")[0]
        assert on_desk(await browser.send(f"{path}/revisions/1", f"{path}/revisions/1/restore")) == path
        stored = await factory.stored(post.id)
        assert stored is not None
        assert (stored.body, stored.revision) == ("It weaves.", 3)
        assert (await browser.get(f"{path}/revisions/9")).response.status_code == 404


@on("sqlite")
class TestForScripts:
    async def test_preview(self, ada: User, browser: Browser) -> None:
        token = (await browser.get("/desk/new")).forms()["/desk/new"]["form_token"]
        fields = {"body": "It *weaves*. <script>alert(1)</script>"}
        response = (await browser.post("/desk/preview", fields, **{"X-Form-Token": token})).response
        assert response.text == "<p>It <em>weaves</em>. &lt;script&gt;alert(1)&lt;/script&gt;</p>\n"
        fields["body"] = "\u7e54" * 200_000
        response = (await browser.post("/desk/preview", fields, **{"X-Form-Token": token})).response
        assert response.text == f"<p>{fields['body']}</p>\n"

    async def test_upload(self, ada: User, browser: Browser, client: httpx.AsyncClient) -> None:
        token = (await browser.get("/desk/new")).forms()["/desk/new"]["form_token"]
        headers = browser.headers | {"X-Form-Token": token}
        files = {"file": image_of("gif")}
        assert (await client.post("/desk/media", files=files, headers=browser.headers)).status_code == 403
        answer = await client.post("/desk/media", files=files, headers=headers)
        assert answer.status_code == 201
        assert (await client.get(answer.json()["url"])).headers["content-type"] == "image/gif"
        refused = await client.post("/desk/media", files={"file": b"no image"}, headers=headers)
        assert refused.status_code == 422


class TestAccount:
    async def test_profile(self, ada: User, browser: Browser) -> None:
        on_desk(await browser.send("/desk/account", "/desk/account", name="Ada L.", about="Wrote\r\nprograms."))
        form = (await browser.get("/desk/account")).forms()["/desk/account"]
        assert (form["name"], form["about"]) == ("Ada L.", "Wrote\nprograms.")
        page = await browser.send("/desk/account", "/desk/account", name="")
        assert (page.response.status_code, page.told[:6]) == (422, "name: ")

    async def test_refused_halfway(self, ada: User, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
        update = UserRepository.update

        async def fail(users: UserRepository, *given: Any) -> None:
            await update(users, *given)
            raise Conflict

        monkeypatch.setattr(UserRepository, "update", fail)
        page = await browser.send("/desk/account", "/desk/account", name="Half")
        assert page.response.status_code == 409
        assert Conflict.detail in page.main
        assert (await browser.get("/desk/account")).forms()["/desk/account"]["name"] == "Ada"

    @on("sqlite")
    @pytest.mark.parametrize(
        ("current", "new", "status", "told"),
        [
            ("wrong", "another horse battery", 403, "what was sent is not it"),
            (PASSWORD, "password1", 422, "most common"),
            (PASSWORD, "short", 422, "new_password: "),
        ],
    )
    async def test_password_refused(
        self, ada: User, browser: Browser, current: str, new: str, status: int, told: str
    ) -> None:
        fields = {"current_password": current, "new_password": new}
        page = await browser.send("/desk/account", "/desk/account/password", **fields)
        assert page.response.status_code == status
        assert told in page.told
        assert new not in page.response.text

    async def test_password_changed(
        self, ada: User, browser: Browser, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        fields = {"current_password": PASSWORD, "new_password": "another horse battery"}
        on_desk(await browser.send("/desk/account", "/desk/account/password", **fields))
        assert (await browser.get("/desk")).response.status_code == 200
        assert (await client.get("/user/me", headers=factory.login(ada))).status_code == 401

    async def test_end_a_login(self, ada: User, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        number = factory.logins[ada.id].id
        assert (await client.get("/user/me", headers=factory.login(ada))).status_code == 200
        on_desk(await browser.send("/desk/account", f"/desk/account/sessions/{number}"))
        assert (await client.get("/user/me", headers=factory.login(ada))).status_code == 401

    async def test_tokens(self, ada: User, browser: Browser, client: httpx.AsyncClient) -> None:
        page = await browser.send("/desk/account", "/desk/account/tokens", name="Backup", scopes=["blog:read"])
        (token,) = page.text("code")
        assert token.startswith("blog_pat_")
        assert (await client.get("/blog/", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        again = await browser.get("/desk/account")
        assert token not in again.response.text
        (path,) = [path for path in again.forms() if path.startswith("/desk/account/tokens/")]
        on_desk(await browser.send("/desk/account", path))
        assert (await client.get("/blog/", headers={"Authorization": f"Bearer {token}"})).status_code == 401

    @on("sqlite")
    @pytest.mark.parametrize(("scopes", "status"), [([], 422), (["other"], 422), (["admin"], 403)])
    async def test_token_refused(self, ada: User, browser: Browser, scopes: list[str], status: int) -> None:
        page = await browser.send("/desk/account", "/desk/account/tokens", name="Backup", scopes=scopes)
        assert page.response.status_code == status


class TestUsers:
    @on("sqlite")
    async def test_for_admins_alone(self, ada: User, browser: Browser) -> None:
        assert (await browser.get("/desk/users")).response.status_code == 403
        assert "/desk/users" not in (await browser.get("/desk")).response.text

    async def test_changed(self, browser: Browser, factory: Factory, client: httpx.AsyncClient) -> None:
        admin, bob = await factory.admin(), await factory.user("Bob")
        await browser.log_in(admin)
        path = f"/desk/users/{bob.id}"
        assert list((await browser.get("/desk/users?q=bob")).forms()) == ["/desk/logout", "/desk/users", path]
        form = (await browser.get("/desk/users")).forms()[path]
        on_desk(await browser.post(path, form | {"role": "reader"}))
        shown = (await client.get("/user/?q=bob", headers=factory.login(admin))).json()
        assert (shown[0]["role"], shown[0]["is_active"]) == ("reader", True)
        del form["is_active"]
        on_desk(await browser.post(path, form))
        assert (await client.get("/user/me", headers=factory.login(bob))).status_code == 401

    @on("sqlite")
    async def test_no_secret_among_the_settings(self, browser: Browser, factory: Factory) -> None:
        await browser.log_in(await factory.admin())
        page = await browser.get("/desk/users")
        assert "BLOG_REGISTRATION" in page.response.text
        for name in desk.SECRET:
            assert name.upper() not in page.response.text
        assert "a secret key" not in page.response.text
