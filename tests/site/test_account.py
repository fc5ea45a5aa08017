"""Logging in and out in a browser, registering, and what helps where a password does not."""

from datetime import timedelta
from itertools import product

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from blog.app import create_app
from blog.models import Role, now
from blog.site import account, desk, discussion
from tests.answers import code
from tests.conftest import client_of, make_settings, on
from tests.factories import PASSWORD, Factory, bearer
from tests.site.browser import COOKIE, Browser

ELSEWHERE = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)
"""What the headers of a form say that another site sent."""


@pytest.fixture
def browser(client: httpx.AsyncClient) -> Browser:
    return Browser(client)


class TestLogin:
    @on("sqlite")
    async def test_no_page_for_programs(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/login")
        assert code(response) == (405, "method_not_allowed")
        assert response.headers["allow"] == "POST"

    @on("sqlite")
    @pytest.mark.parametrize(
        "path", ["//evil.example", "/\\evil.example", "https:evil.example", "javascript:alert(1)", ""]
    )
    async def test_onward_to_another_site(self, browser: Browser, factory: Factory, path: str) -> None:
        user = await factory.user()
        assert (await browser.get(f"/login?next={path or '%20'}")).response.status_code == 422
        fields = {"username": user.email, "password": PASSWORD, "next": path or " "}
        page = await browser.post("/login", fields)
        assert page.response.status_code == 422
        assert "set-cookie" not in page.response.headers

    @on("sqlite")
    @pytest.mark.parametrize("headers", ELSEWHERE)
    async def test_from_another_site(self, browser: Browser, factory: Factory, headers: dict[str, str]) -> None:
        user = await factory.user()
        page = await browser.post("/login", {"username": user.email, "password": PASSWORD}, **headers)
        assert page.response.status_code == 403
        assert "set-cookie" not in page.response.headers

    async def test_wrong_password_and_unknown_user(self, browser: Browser, factory: Factory) -> None:
        user = await factory.user()
        wrong = await browser.post("/login", {"username": user.email, "password": "wrong"})
        unknown = await browser.post("/login", {"username": "nobody@example.com", "password": "wrong"})
        assert wrong.response.status_code == unknown.response.status_code == 401
        assert wrong.told == unknown.told == "The e-mail address or the password is wrong."
        assert wrong.forms()["None"]["username"] == user.email
        assert "wrong" not in wrong.forms()["None"].values()

    async def test_logged_in(self, app: FastAPI, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        page = await browser.post(
            "/login", {"username": user.email, "password": PASSWORD, "next": "/desk?status=draft"}
        )
        assert page.response.status_code == 303
        assert page.response.headers["location"] == "/desk?status=draft"
        value, *flags = page.response.headers["set-cookie"].split("; ")
        assert value.startswith(f"{COOKIE}=")
        lifetime = int(app.state.settings.login_lifetime / timedelta(seconds=1))
        assert {flag.lower() for flag in flags} >= {
            "httponly",
            "secure",
            "samesite=lax",
            "path=/",
            f"max-age={lifetime}",
        }
        assert not any(flag.lower().startswith("domain") for flag in flags)
        assert (await browser.get("/desk")).response.status_code == 200
        sessions = (await client.get("/user/me/sessions", headers=factory.login(user))).json()
        assert [login["user_agent"] for login in sessions] == ["Mozilla/5.0", "factory"]

    async def test_tokens_for_programs_as_before(self, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        response = await client.post("/login", data={"username": user.email, "password": PASSWORD})
        assert response.json()["token_type"] == "bearer"
        assert "set-cookie" not in response.headers


class TestCookie:
    async def test_is_no_token(self, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        await browser.log_in(await factory.user())
        for text in (browser.cookie, f"blog_rt_{browser.cookie}"):
            response = await client.post("/login", data={"grant_type": "refresh_token", "refresh_token": text})
            assert code(response) == (400, "invalid_refresh_token")
            assert code(await client.get("/user/me", headers=bearer(text))) == (401, "invalid_token")

    @on("sqlite")
    async def test_no_operation_of_the_api_takes_it(
        self, app: FastAPI, browser: Browser, client: httpx.AsyncClient, factory: Factory
    ) -> None:
        await browser.log_in(await factory.admin())
        asked = 0
        for path, operations in app.openapi()["paths"].items():
            for method, operation in operations.items():
                if "security" in operation:
                    url = path.replace("{", "").replace("}", "").replace("_id", "")
                    cookie = {"Cookie": browser.headers["Cookie"], "Accept": "application/json"}
                    response = await client.request(method, url, headers=cookie)
                    assert code(response) == (401, "not_authenticated"), (method, path)
                    asked += 1
        assert asked > 40

    @pytest.mark.parametrize("way", ["logout", "everywhere", "password", "block", "delete"])
    async def test_is_over_with_its_login(
        self, browser: Browser, client: httpx.AsyncClient, factory: Factory, way: str
    ) -> None:
        user, root = await factory.user(), factory.login(await factory.admin())
        await browser.log_in(user)
        stolen = Browser(client)
        stolen.headers |= {"Cookie": browser.headers["Cookie"]}
        assert (await stolen.get("/desk")).response.status_code == 200
        if way == "logout":
            await browser.send("/desk", "/desk/logout")
        elif way == "everywhere":
            await browser.send("/desk/account", "/desk/logout/everywhere")
        elif way == "password":
            body = {"current_password": PASSWORD, "new_password": "another horse battery"}
            await client.put("/user/me/password", json=body, headers=factory.login(user))
        elif way == "block":
            await client.patch(f"/user/{user.id}", json={"is_active": False}, headers=root)
        else:
            await client.delete(f"/user/{user.id}", headers=root)
        response = (await stolen.get("/desk")).response
        assert (response.status_code, response.headers["location"]) == (303, "/login?next=/desk")

    @on("sqlite")
    @pytest.mark.parametrize(("path", "way"), [("/desk", "/desk/logout"), ("/desk/account", "/desk/logout/everywhere")])
    async def test_browsers_forget_it(self, browser: Browser, factory: Factory, path: str, way: str) -> None:
        await browser.log_in(await factory.user())
        value, *flags = (await browser.send(path, way)).response.headers["set-cookie"].split("; ")
        assert value == f'{COOKIE}=""'
        # Without these they take no cookie of such a name, nor its end: draft-ietf-httpbis-rfc6265bis, section 5.7.
        assert {flag.lower() for flag in flags} >= {"max-age=0", "secure", "path=/"}
        assert not any(flag.lower().startswith("domain") for flag in flags)

    @on("sqlite")
    async def test_lasts_longer_by_being_used(
        self, app: FastAPI, browser: Browser, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        idle, absolute = (app.state.settings.refresh_token_lifetime, app.state.settings.login_lifetime)
        user = await factory.user()
        await browser.log_in(user)

        async def status_after(days: timedelta) -> int:
            at = now() + days
            for module in ("grants", "repository.login"):
                monkeypatch.setattr(f"blog.{module}.now", lambda: at)
            return (await browser.get("/desk")).response.status_code

        for used in range(1, absolute // idle * 2):
            assert await status_after(used * idle / 2) == 200
        assert await status_after(absolute - timedelta(hours=1)) == 200
        assert await status_after(absolute + timedelta(hours=1)) == 303, "however often it is used"

    async def test_is_over_after_its_time(self, app: FastAPI, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        brief = create_app(app.state.settings.model_copy(update={"refresh_token_lifetime": timedelta(seconds=-1)}))
        async with brief.router.lifespan_context(brief), client_of(brief) as other:
            browser = Browser(other)
            await browser.log_in(user)
            assert (await browser.get("/desk")).response.status_code == 303


FORMS = [
    route.path
    for router in (account.router, desk.router, discussion.form_router)
    for route in router.routes
    if isinstance(route, APIRoute) and route.methods != {"GET"}
]
WITHOUT_A_LOGIN = ("/login", "/register", "/forgotten")
"""Forms that have no token in them, because whoever sends them has none."""
FROM_ELSEWHERE = [
    *product(FORMS, ELSEWHERE),
    *((path, {"X-Form-Token": "0" * 64}) for path in FORMS if path not in WITHOUT_A_LOGIN),
]


class TestForms:
    """Every form there is, so that none can be forgotten."""

    @on("sqlite")
    @pytest.mark.parametrize(("path", "headers"), list(FROM_ELSEWHERE))
    async def test_from_elsewhere(self, browser: Browser, factory: Factory, path: str, headers: dict[str, str]) -> None:
        await browser.log_in(await factory.user())
        url = (
            path.replace("{", "").replace("}", "").replace("blog_id:id", "1").replace("number", "1").replace("_id", "1")
        )
        page = await browser.post(
            url.replace("session1", "1").replace("token1", "1").replace("user1", "1"), {}, **headers
        )
        assert page.response.status_code == 403
        assert "This form was not sent from a page of this site" in page.main

    async def test_of_another_login(self, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        user = await factory.user()
        await browser.log_in(user)
        fields = (await browser.get("/desk/account")).forms()["/desk/account"]
        other = Browser(client)
        await other.log_in(user)
        page = await other.post("/desk/account", fields | {"name": "Mallory"})
        assert page.response.status_code == 403
        assert "Mallory" not in (await other.get("/desk/account")).response.text

    @on("sqlite")
    async def test_without_a_login(self, browser: Browser) -> None:
        response = (await browser.post("/desk/new", {"title": "T", "body": "B"})).response
        assert (response.status_code, response.headers["location"]) == (303, "/login?next=/")


class TestRegister:
    @on("sqlite")
    @pytest.mark.parametrize("registration", ["closed", "invited"])
    async def test_not_open(self, app: FastAPI, registration: str) -> None:
        closed = create_app(app.state.settings.model_copy(update={"registration": registration}))
        async with closed.router.lifespan_context(closed), client_of(closed) as client:
            browser = Browser(client)
            assert (await browser.get("/register")).response.status_code == 403
            page = await browser.post("/register", {"name": "Ada", "email": "a@example.com", "password": PASSWORD})
            assert page.response.status_code == 403
            assert "/register" not in (await browser.get("/login")).response.text

    @pytest.mark.parametrize(
        ("changes", "status", "told"),
        [
            ({"password": "short"}, 422, "password: "),
            ({"password": "password1"}, 422, "one of the most common ones"),
            ({"email": "nowhere"}, 422, "email: "),
            ({"name": ""}, 422, "name: "),
            ({"email": "TAKEN@example.com"}, 409, "There is a user with this e-mail address already."),
        ],
    )
    async def test_refused(
        self, browser: Browser, factory: Factory, changes: dict[str, str], status: int, told: str
    ) -> None:
        await factory.user(email="taken@example.com")
        fields = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD} | changes
        page = await browser.post("/register", fields)
        assert page.response.status_code == status
        assert told in page.told
        kept = page.forms()["None"]
        assert (kept["name"], kept["email"], kept["password"]) == (fields["name"], fields["email"], "")

    async def test_registered(self, browser: Browser, client: httpx.AsyncClient, factory: Factory) -> None:
        page = await browser.post("/register", {"name": "Ada", "email": "ada@example.com", "password": PASSWORD})
        assert (page.response.status_code, page.response.headers["location"]) == (303, "/login?next=/")
        users = (await client.get("/user/", headers=factory.login(await factory.admin()))).json()
        assert [(user["name"], user["role"]) for user in users][1:] == [("Ada", Role.AUTHOR)]


class TestForgotten:
    async def test_the_same_for_everybody(self, browser: Browser, factory: Factory) -> None:
        user = await factory.user()
        known = await browser.post("/forgotten", {"email": user.email})
        unknown = await browser.post("/forgotten", {"email": "nobody@example.com"})
        assert known.told == unknown.told == "If there is an account with this address, a link is on its way."
        assert known.response.status_code == unknown.response.status_code == 200

    async def test_mailed(self, browser: Browser, factory: Factory, caplog: pytest.LogCaptureFixture) -> None:
        user = await factory.user()
        with caplog.at_level("INFO"):
            await browser.post("/forgotten", {"email": user.email})
        assert "Set a new password" in caplog.text

    async def test_not_to_who_is_blocked(
        self, browser: Browser, factory: Factory, caplog: pytest.LogCaptureFixture
    ) -> None:
        user = await factory.user(is_active=False)
        with caplog.at_level("INFO"):
            page = await browser.post("/forgotten", {"email": user.email})
        assert page.told == "If there is an account with this address, a link is on its way."
        (event,) = [record for record in caplog.records if record.getMessage() == "password_reset_requested"]
        assert event.__dict__["fields"] == {"of": None}
        assert "Set a new password" not in caplog.text


def test_no_form_is_forgotten() -> None:
    assert len(FORMS) > 15
    assert make_settings().registration == "open"
