"""Schemathesis holds the app to the OpenAPI document that it gives of itself."""

import asyncio
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as examples
from schemathesis.python import asgi

from blog.app import create_app
from blog.models import Role, User
from blog.schemas.types import BLANK, INVISIBLE
from blog.settings import Settings
from tests.conftest import make_settings
from tests.endurance.conftest import ENGINES, database_at_head
from tests.factories import PASSWORD, Factory

BASE_URL = "http://127.0.0.1:8000"
EXAMPLES = 100

CONFIG = schemathesis.Config.from_dict(
    {
        "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
        # The usual ones, and 413: a body may be too large before it is wrong.
        "checks": {"negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "409", "413", "422"]}},
    }
)
schema = schemathesis.openapi.from_dict(create_app(make_settings()).openapi(), config=CONFIG)


class Platform:
    """The app on the event loop of Schemathesis, a user of each role, and what each operation has answered."""

    def __init__(self, given: Settings) -> None:
        self._given = given
        # Every second login here is a wrong one.
        app: Any = create_app(given.model_copy(update={"login_failure_limit": 10**9}))
        self.client = asgi.get_client(app)
        self.statuses: dict[str, set[int]] = defaultdict(set)
        self._logins: dict[tuple[str, Role], tuple[User, dict[str, str]]] = {}

    def log_in(self, operation: str, role: Role) -> tuple[User, dict[str, str]]:
        """Somebody with this role, for this operation alone: others may block whom they meet."""

        async def make() -> tuple[User, dict[str, str]]:
            app = create_app(self._given)
            async with app.router.lifespan_context(app):
                return await Factory(app).logged_in(f"{role}{len(self._logins)}", role=role)

        if (operation, role) not in self._logins:
            self._logins[operation, role] = asyncio.run(make())
        return self._logins[operation, role]

    def new_blog(self, login: dict[str, str]) -> int:
        answer = self.client.post(f"{BASE_URL}/blog/", json={"title": "Notes", "body": "Text"}, headers=login)
        return int(answer.json()["id"])

    def new_user(self) -> int:
        body = {"name": "Bob", "email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        return int(self.client.post(f"{BASE_URL}/user/", json=body).json()["id"])


@pytest.fixture(scope="module", params=ENGINES)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with database_at_head(request.param, tmp_path_factory.mktemp("schema")) as url:
        platform = Platform(make_settings(url))
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
    if name == "id":
        return int(value)  # JSON Schema takes 7.0 for an integer, but an id has one spelling
    if not isinstance(value, str):
        return value
    if name == "email":  # a `format` does not say that nobody gets mail at .test or .localhost
        return f"{value.partition('@')[0]}@example.com"
    storable = [unicodedata.category(character) not in (*INVISIBLE, "Cn") for character in value]
    kept = "".join(character if good else "x" for character, good in zip(value, storable, strict=True))
    return BLANK.sub("x", kept)


def fit(case: Any, user: User) -> None:
    """Make what is valid to JSON Schema valid to the platform."""
    if isinstance(case.body, dict | list):
        case.body = mended(case.body)
    if case.query:
        query = mended(dict(case.query))
        query.pop("cursor", None)  # is signed: the good ones come from a `Link`
        if query.pop("to", None) or query.get("blogs") == "reassign":
            query |= {"blogs": "reassign", "to": user.id}  # neither goes without the other
        case.query = query
    if case.operation.label == "PUT /user/":  # where nobody is named twice
        case.body = list({change["id"]: change for change in case.body}.values())


def aim(case: Any, platform: Platform, user: User, login: dict[str, str]) -> None:
    """Ask for somebody and something that is there, with the password that is right."""
    if "blog_id" in case.path_parameters:
        case.path_parameters = {"blog_id": platform.new_blog(login)}
    if "user_id" in case.path_parameters:
        case.path_parameters = {"user_id": platform.new_user()}
    match case.operation.label:
        case "POST /login":
            case.body = {"username": user.email, "password": PASSWORD}
        case "PUT /user/me/password":
            case.body = {"current_password": PASSWORD, "new_password": PASSWORD}
        case "PATCH /user/me":
            case.body = case.body | {"current_password": PASSWORD}
        case "PUT /user/":
            case.body = [case.body[0] | {"id": platform.new_user()}]


@pytest.mark.parametrize("role", [Role.AUTHOR, Role.ADMIN])
@schema.parametrize()
@examples(suppress_health_check=list(HealthCheck), deadline=None)
def test_the_app_is_as_documented(case: Any, platform: Platform, role: Role) -> None:
    user, login = platform.log_in(case.operation.label, role)
    if case.meta.generation.mode.is_negative and isinstance(case.body, dict):
        case.body = stripped(case.body)
    if case.meta.generation.mode.is_positive:  # or has become so
        fit(case, user)
        if sum(map(ord, repr(case))) % 2:  # the other half meets nobody
            aim(case, platform, user, login)
    response = case.call_and_validate(BASE_URL, platform.client, login)
    if role is Role.ADMIN:  # who may do everything
        platform.statuses[case.operation.label].add(response.status_code)
