"""Schemathesis holds the app to the OpenAPI document that it gives of itself."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast
from uuid import uuid4

import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import settings as examples
from schemathesis.python import asgi

from blog.app import create_app
from blog.errors import WeakPassword
from blog.links import LIFETIMES
from blog.models import Purpose, Role, User
from blog.repository.link import LinkRepository
from blog.schemas.types import BLANK, INVISIBLE
from blog.security.passwords import PasswordHasher
from tests.conftest import make_settings
from tests.endurance.conftest import ENGINES, NUMBERS, DatabaseMaker
from tests.factories import PASSWORD, Factory, bearer
from tests.images import image_of

BASE_URL = "http://127.0.0.1:8000"


class ByLink(NamedTuple):
    """What a one-time token is for, and where it stands in the body."""

    purpose: Purpose
    field: str


BY_LINK = {
    "POST /password-reset/confirm": ByLink(Purpose.PASSWORD_RESET, "token"),
    "POST /email-verification/confirm": ByLink(Purpose.EMAIL_VERIFICATION, "token"),
    "POST /user/": ByLink(Purpose.INVITATION, "invitation"),
}
NEEDS_LINK = ["POST /password-reset/confirm", "POST /email-verification/confirm"]

PASSWORDS = PasswordHasher(rounds=4, min_length=8, site="127.0.0.1")
EXPIRY = "2190-01-01T00:00:00Z"

CONFIG = schemathesis.Config.from_dict(
    {
        "generation": {"max-examples": NUMBERS.examples, "deterministic": True, "database": "none"},
        "phases": {"coverage": {"enabled": NUMBERS.boundaries}},
        "checks": {
            # The usual ones; 413, as a body may be too large before it is wrong; and 410 for blogs that were deleted.
            "negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "409", "410", "413", "422"]},
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "3xx", "401", "403", "404", "409", "410", "429", "5xx"]
            },
        },
        "operations": [
            {
                # No schema says which links there are.
                "include-name": NEEDS_LINK,
                "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "400"]}},
            },
            {
                # Nor what bytes are an image.
                "include-name": ["POST /media/"],
                "checks": {
                    "positive_data_acceptance": {"expected-statuses": ["2xx", "422"]},
                    # Nothing but the optional header can be wrong, and what is null is not sent.
                    "negative_data_rejection": {"expected-statuses": ["201", "400", "422"]},
                },
            },
        ],
    }
)
schema = schemathesis.openapi.from_dict(create_app(make_settings()).openapi(), config=CONFIG)


class Platform:
    """The app on the event loop of Schemathesis, another that makes users, and what each operation has answered."""

    def __init__(self, app: Any, beside: FastAPI, portal: BlockingPortal) -> None:
        self.client = asgi.get_client(app)
        self.statuses: dict[str, set[int]] = defaultdict(set)
        self._database = beside.state.database
        self._factory = Factory(beside)
        self._portal = portal

    def log_in(self, role: Role) -> tuple[User, dict[str, str]]:
        """Somebody new with this role: examples block, delete and demote whomever they meet, be it by chance."""
        return self._portal.call(partial(self._factory.logged_in, role=role))

    def tokens_of(self, user: User) -> dict[str, str]:
        """Those of a new login."""
        answer = self.client.post(f"{BASE_URL}/login", data={"username": user.email, "password": PASSWORD})
        return cast(dict[str, str], answer.json())

    def new_session(self, user: User) -> int:
        login = bearer(self.tokens_of(user)["access_token"])
        (session,) = self.client.get(f"{BASE_URL}/user/me/sessions?limit=1", headers=login).json()
        return int(session["id"])

    def new_personal_token(self, login: dict[str, str]) -> dict[str, Any]:
        body = {"name": "Script", "scopes": ["blog:read"], "expires_at": EXPIRY}
        return cast(dict[str, Any], self.client.post(f"{BASE_URL}/user/me/tokens", json=body, headers=login).json())

    def new_invitation(self) -> dict[str, Any]:
        _, login = self.log_in(Role.ADMIN)
        return cast(dict[str, Any], self.client.post(f"{BASE_URL}/invitation/", json={}, headers=login).json())

    def new_link(self, purpose: Purpose) -> str:
        """The token of a link for a new user, which no answer tells."""
        if purpose is Purpose.INVITATION:
            return str(self.new_invitation()["token"])
        user_id = self.new_user()

        async def make() -> str:
            async with self._database.write.begin() as session:
                email = f"{uuid4().hex}@example.com"
                _, token = await LinkRepository(session).add(user_id, purpose, LIFETIMES[purpose], email=email)
            return token

        return self._portal.call(make)

    def new_blog(self, login: dict[str, str]) -> dict[str, Any]:
        answer = self.client.post(f"{BASE_URL}/blog/", json={"title": "Notes", "body": "Text"}, headers=login)
        return cast(dict[str, Any], answer.json())

    def new_room(self, login: dict[str, str]) -> int:
        """One in which something was said, under the number 1."""
        room = int(self.client.post(f"{BASE_URL}/room/", json={"name": "Looms"}, headers=login).json()["id"])
        self.client.post(f"{BASE_URL}/room/{room}/messages", json={"body": "Text"}, headers=login)
        return room

    def new_image(self, login: dict[str, str]) -> str:
        answer = self.client.post(f"{BASE_URL}/media/", files={"file": image_of("gif")}, headers=login)
        return str(answer.json()["name"])

    def new_user(self) -> int:
        body = {"name": "Bob", "email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        return int(self.client.post(f"{BASE_URL}/user/", json=body).json()["id"])


ASKED = [
    (engine, role)
    for engine in ENGINES
    for role in (Role.AUTHOR, Role.ADMIN)
    if NUMBERS.is_full or role is Role.ADMIN or engine == "sqlite"
]
"""On which engine, and as whom: of few examples, those of who may less say nothing new of another engine."""


@pytest.fixture(scope="module")
def platform(
    request: pytest.FixtureRequest, make_database: DatabaseMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    url = make_database(request.param, tmp_path_factory.mktemp("schema"))
    # Every second login here is a wrong one.
    settings = make_settings(url).model_copy(update={"login_failure_limit": 10**9})
    app, beside = create_app(settings), create_app(settings)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(beside.router.lifespan_context(beside)),
    ):
        platform = Platform(app, beside, portal)
        with platform.client:
            yield platform
        asgi.shutdown_lifespans()
    # Examples that only ever meet a refusal would say little.
    for operation, statuses in platform.statuses.items():
        assert any(status < 300 for status in statuses), operation


def stripped(body: dict[str, Any]) -> dict[str, Any]:
    """Without the white space around text, which the platform takes away before it counts."""
    trimmed = {name: body[name].strip() for name in ("name", "title", "email") if isinstance(body.get(name), str)}
    return body | trimmed


def mended(value: Any, name: str = "") -> Any:
    """As the descriptions ask for it: JSON Schema has no words for what shows and what controls."""
    if isinstance(value, dict):
        return {key: mended(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [mended(part) for part in value]
    if name in ("id", "slow_mode"):
        return int(value)  # JSON Schema takes 7.0 for an integer, which these have one spelling of
    if not isinstance(value, str):
        return value
    if name == "email":  # a `format` does not say that nobody gets mail at .test, .localhost or an encoded word
        return f"{value.partition('@')[0].replace('=?', 'x')}@example.com"
    storable = [unicodedata.category(character) not in (*INVISIBLE, "Cn") for character in value]
    kept = "".join(character if good else "x" for character, good in zip(value, storable, strict=True))
    return BLANK.sub("x", kept)


def strong(body: dict[str, str]) -> str:
    """The password, or another where it is one that everybody guesses."""
    try:
        PASSWORDS.refuse_weak(body["password"], name=body["name"], email=body["email"])
    except WeakPassword:
        return PASSWORD
    return body["password"]


def a_blog(body: dict[str, Any]) -> dict[str, Any]:
    """What is scheduled for some time, in words that have letters and do not grow too long when they are folded."""
    if "publish_at" in body:
        body = body | {"publish_at": EXPIRY, "status": "scheduled"}
    elif body.get("status") == "scheduled":
        body = body | {"status": "draft"}
    if "slug" in body:
        body = body | {"slug": f"s{body['slug'][:2]}"}
    if "tags" in body:
        body = body | {"tags": [f"t{tag[:2]}" for tag in body["tags"]]}
    return body


def a_query(query: dict[str, Any], user: User) -> dict[str, Any]:
    """Without cursors, which are signed: the good ones come from a `Link` and from an answer."""
    query = {name: value for name, value in query.items() if name not in ("cursor", "since")}
    if "tag" in query:
        query["tag"] = f"t{query['tag'][:2]}"
    if query.get("sort") == "order" or "after" in query:
        query.pop("before", None)  # which goes with neither
    elif isinstance(query.get("before"), str):
        query["before"] = EXPIRY
    if query.pop("to", None) or query.get("blogs") == "reassign":
        query |= {"blogs": "reassign", "to": user.id}  # neither goes without the other
    return query


def fit(case: Any, user: User) -> None:
    """Make what is valid to JSON Schema valid to the platform."""
    if isinstance(case.body, dict | list):
        case.body = mended(case.body)
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid4().hex  # a new one for each request
    if case.query:
        case.query = a_query(mended(dict(case.query)), user)
    match case.operation.label:
        case "POST /blog/" | "PUT /blog/{blog_id}" | "PATCH /blog/{blog_id}":
            case.body = a_blog(case.body)
        case "PUT /user/":  # where nobody is named twice
            case.body = list({change["id"]: change for change in case.body}.values())
        case "POST /user/":
            case.body.pop("invitation", None)
            case.body = case.body | {"password": strong(case.body)}
        case "POST /user/me/tokens":  # whose end is to come
            case.body = case.body | {"expires_at": EXPIRY}
        case "POST /revoke":  # which asks for one in the words of RFC 7009
            case.body = {"token": "x"} | {name: value or "x" for name, value in case.body.items()}


def aim(case: Any, platform: Platform, user: User, login: dict[str, str], number: int) -> None:
    """Ask for somebody and something that is there, with the password and the token that are right."""
    there: dict[str, Callable[[], int | str]] = {
        "name": lambda: platform.new_image(login),
        "blog_id": lambda: int(platform.new_blog(login)["id"]),
        "room_id": lambda: platform.new_room(login),
        "slug": lambda: str(platform.new_blog(login)["slug"]),
        "number": lambda: 1,
        "user_id": platform.new_user,
        "session_id": lambda: platform.new_session(user),
        "token_id": lambda: int(platform.new_personal_token(login)["id"]),
        "invitation_id": lambda: int(platform.new_invitation()["id"]),
    }
    case.path_parameters = {name: there[name]() for name in case.path_parameters}
    label = case.operation.label
    if label in BY_LINK:
        case.body = case.body | {BY_LINK[label].field: platform.new_link(BY_LINK[label].purpose)}
    match label:
        case "POST /media/":
            case.body = {"file": image_of("gif")}
        case "POST /login":
            case.body = right_form(platform, user, number)
        case "POST /revoke":
            personal_token = platform.new_personal_token(login)["token"]
            case.body = {"token": [personal_token, *platform.tokens_of(user).values()][number % 3]}
        case "POST /password-reset/confirm":
            case.body = case.body | {"password": PASSWORD}
        case "POST /password-reset" | "POST /email-verification":
            case.body = {"email": user.email}
        case "PUT /user/me/password":
            case.body = {"current_password": PASSWORD, "new_password": PASSWORD}
        case "PATCH /user/me":
            case.body = case.body | {"current_password": PASSWORD}
        case "PUT /user/":
            case.body = [case.body[0] | {"id": platform.new_user()}]


def right_form(platform: Platform, user: User, number: int) -> dict[str, str]:
    if number % 2:
        return {"username": user.email, "password": PASSWORD}
    refresh_token = platform.tokens_of(user)["refresh_token"]
    return {"grant_type": "refresh_token", "refresh_token": refresh_token, "scope": "blog:read"}


@pytest.mark.parametrize(("platform", "role"), ASKED, indirect=["platform"], scope="module")
@schema.parametrize()
@examples(suppress_health_check=list(HealthCheck), deadline=None)
def test_the_app_is_as_documented(case: Any, platform: Platform, role: Role) -> None:
    user, login = platform.log_in(role)
    if case.meta.generation.mode.is_negative and isinstance(case.body, dict):
        case.body = stripped(case.body)
    if case.meta.generation.mode.is_positive:  # or has become so
        number, is_odd = divmod(sum(map(ord, repr(case))), 2)
        fit(case, user)
        # The other half meets nobody; of few examples all of an admin's meet somebody, so that each operation succeeds.
        if is_odd or (role is Role.ADMIN and not NUMBERS.is_full):
            aim(case, platform, user, login, number)
    response = case.call_and_validate(BASE_URL, platform.client, login)
    if role is Role.ADMIN:  # who may do everything
        platform.statuses[case.operation.label].add(response.status_code)
