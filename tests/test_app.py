"""The documentation that the app gives of itself."""

import importlib
import re
import sys
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from passlib.context import CryptContext

from blog.app import create_app
from blog.settings import Environment
from tests.conftest import client_of, make_settings

OPERATIONS = {
    "/login": {"post": {200, 400, 401, 413, 415, 429, 503}},
    "/revoke": {"post": {200, 400, 413, 415, 503}},
    "/logout": {"post": {204, 401, 503}},
    "/.well-known/oauth-authorization-server": {"get": {200}},
    "/password-reset": {"post": {202, 400, 413, 422, 503}},
    "/password-reset/confirm": {"post": {204, 400, 413, 422, 503}},
    "/email-verification": {"post": {202, 400, 413, 422, 503}},
    "/email-verification/confirm": {"post": {204, 400, 409, 413, 422, 503}},
    "/user/": {
        "post": {201, 400, 403, 409, 413, 422, 503},
        "get": {200, 401, 403, 422, 503},
        "put": {200, 400, 401, 403, 404, 413, 422, 503},
    },
    "/user/me": {"get": {200, 304, 401, 403, 503}, "patch": {200, 400, 401, 403, 409, 412, 413, 422, 429, 503}},
    "/user/me/password": {"put": {204, 400, 401, 403, 413, 422, 429, 503}},
    "/user/me/sessions": {"get": {200, 401, 403, 422, 503}},
    "/user/me/sessions/{session_id}": {"delete": {204, 401, 403, 404, 422, 503}},
    "/user/me/tokens": {"post": {201, 400, 401, 403, 409, 413, 422, 503}, "get": {200, 401, 403, 422, 503}},
    "/user/me/tokens/{token_id}": {
        "get": {200, 304, 401, 403, 404, 422, 503},
        "delete": {204, 401, 403, 404, 412, 422, 503},
    },
    "/user/{user_id}": {
        "get": {200, 304, 401, 403, 404, 422, 503},
        "patch": {200, 400, 401, 403, 404, 412, 413, 422, 503},
        "delete": {204, 400, 401, 403, 404, 409, 412, 413, 422, 429, 503},
    },
    "/invitation/": {"post": {201, 400, 401, 403, 409, 413, 422, 503}, "get": {200, 401, 403, 422, 503}},
    "/invitation/{invitation_id}": {
        "get": {200, 304, 401, 403, 404, 422, 503},
        "delete": {204, 401, 403, 404, 412, 422, 503},
    },
    "/blog/": {"post": {201, 400, 401, 403, 409, 413, 422, 503}, "get": {200, 401, 403, 422, 503}},
    "/blog/changes": {"get": {200, 401, 403, 422, 503}},
    "/blog/{blog_id}": {
        "get": {200, 304, 401, 403, 404, 410, 422, 503},
        "put": {200, 400, 401, 403, 404, 409, 410, 412, 413, 422, 503},
        "patch": {200, 400, 401, 403, 404, 409, 410, 412, 413, 422, 503},
        "delete": {204, 401, 403, 404, 410, 412, 422, 503},
    },
    "/blog/slug/{slug}": {"get": {200, 301, 304, 401, 403, 404, 410, 503}},
    "/blog/{blog_id}/revisions": {"get": {200, 401, 403, 404, 410, 422, 503}},
    "/blog/{blog_id}/revisions/{number}": {"get": {200, 304, 401, 403, 404, 410, 422, 503}},
    "/blog/{blog_id}/revisions/{number}/restore": {"post": {201, 400, 401, 403, 404, 409, 410, 412, 413, 422, 503}},
    "/blog/{blog_id}/room": {"get": {200, 304, 401, 403, 404, 410, 422, 503}},
    "/room/": {"post": {201, 400, 401, 403, 409, 413, 422, 503}, "get": {200, 401, 403, 422, 503}},
    "/room/{room_id}": {
        "get": {200, 304, 401, 403, 404, 422, 503},
        "patch": {200, 400, 401, 403, 404, 412, 413, 422, 503},
        "delete": {204, 401, 403, 404, 409, 412, 422, 503},
    },
    "/room/{room_id}/messages": {
        "post": {201, 400, 401, 403, 404, 409, 413, 422, 429, 503},
        "get": {200, 401, 403, 404, 422, 503},
    },
    "/room/{room_id}/messages/{number}": {
        "get": {200, 304, 401, 403, 404, 422, 503},
        "delete": {204, 401, 403, 404, 410, 412, 422, 503},
    },
    "/tag/": {"get": {200, 401, 403, 422, 503}},
    "/media/": {"post": {201, 400, 401, 403, 409, 413, 422, 503}},
    "/media/{name}": {"get": {200, 206, 304, 404, 416, 503}, "delete": {204, 401, 403, 404, 412, 503}},
    "/health": {"get": {200}},
    "/ready": {"get": {200, 503}},
}
EMPTY = {
    ("post /revoke", "200"),
    ("post /password-reset", "202"),
    ("post /email-verification", "202"),
    ("get /media/{name}", "304"),
}
IMAGES = {("get /media/{name}", "200"), ("get /media/{name}", "206")}
UNPROTECTED = [
    "get /media/{name}",
    "post /login",
    "post /revoke",
    "get /.well-known/oauth-authorization-server",
    "post /password-reset",
    "post /password-reset/confirm",
    "post /email-verification",
    "post /email-verification/confirm",
    "post /user/",
    "get /health",
    "get /ready",
]


@pytest.fixture
def documented() -> FastAPI:
    return create_app(make_settings())


def test_every_answer_is_documented(documented: FastAPI) -> None:
    paths = documented.openapi()["paths"]
    found = {
        path: {method: {int(status) for status in operation["responses"]} for method, operation in operations.items()}
        for path, operations in paths.items()
    }
    assert found == OPERATIONS


def operations(app: FastAPI) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_answer_has_its_model_and_an_example(documented: FastAPI) -> None:
    schemas = documented.openapi()["components"]["schemas"]
    for name, operation in operations(documented):
        assert operation["summary"], name
        assert operation["description"], name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if status in ("204", "301", "304") or (name, status) in EMPTY:
                assert "content" not in answer
                continue
            ((media_type, content),) = answer["content"].items()
            if int(status) < 400:
                assert media_type == ("image/*" if (name, status) in IMAGES else "application/json")
            else:
                assert media_type == "application/problem+json"
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                for code, example in content["examples"].items():
                    assert example["value"]["code"] == code
                    assert example["value"]["status"] == int(status)
    for name, schema in schemas.items():
        for field, described in schema.get("properties", {}).items():
            if name not in ("Problem", "Fault") and described.get("type") in ("string", "integer", "number"):
                assert described.get("examples") or "const" in described or "description" in described, (name, field)
    assert "HTTPValidationError" not in schemas


def test_headers_are_documented(documented: FastAPI) -> None:
    paths = documented.openapi()["paths"]
    assert "Location" in paths["/blog/"]["post"]["responses"]["201"]["headers"]
    assert "Location" in paths["/user/"]["post"]["responses"]["201"]["headers"]
    assert "Link" in paths["/blog/"]["get"]["responses"]["200"]["headers"]
    assert "WWW-Authenticate" in paths["/blog/"]["get"]["responses"]["401"]["headers"]
    assert "Retry-After" in paths["/blog/"]["get"]["responses"]["503"]["headers"]
    assert "ETag" in paths["/user/me"]["get"]["responses"]["200"]["headers"]
    assert "ETag" in paths["/user/me"]["get"]["responses"]["304"]["headers"]
    assert "ETag" in paths["/user/me"]["patch"]["responses"]["200"]["headers"]
    assert "ETag" in paths["/user/me"]["patch"]["responses"]["412"]["headers"]
    for status in ("200", "206", "304"):
        assert "ETag" in paths["/media/{name}"]["get"]["responses"][status]["headers"]


def test_the_authorize_dialog_logs_in_at_login(documented: FastAPI) -> None:
    (scheme,) = documented.openapi()["components"]["securitySchemes"].values()
    assert scheme["type"] == "oauth2"
    assert scheme["flows"]["password"]["tokenUrl"] == "login"
    unprotected = [name for name, operation in operations(documented) if "security" not in operation]
    assert unprotected == UNPROTECTED


def test_it_says_whose_passwords_the_login_takes(documented: FastAPI) -> None:
    """RFC 9700, section 2.4, forbids the grant to all but the server's own sign-in."""
    described = documented.openapi()["paths"]["/login"]["post"]["description"]
    assert "server's own sign-in for its own users" in described
    assert "RFC 9700" in described


def test_what_comes_in_names_no_column_of_ours(documented: FastAPI) -> None:
    for name, schema in documented.openapi()["components"]["schemas"].items():
        if name == "UserOwn":
            continue
        assert not {"password_hash", "public_id", "token_digest", "refresh_digest", "email_verified_at"} & set(
            schema.get("properties", {})
        ), name


def test_reference_of_every_problem_resolves(documented: FastAPI) -> None:
    document = documented.openapi()
    for reference in set(re.findall(r"#/components/schemas/(\w+)", str(document))):
        assert reference in document["components"]["schemas"]
    assert documented.openapi() == document


async def test_documentation_needs_no_other_host(documented: FastAPI) -> None:
    async with client_of(documented) as client:
        for path in ("/docs", "/redoc"):
            page = (await client.get(path)).text
            links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
            assert links
            for link in links:
                assert link.startswith("/"), link
                assert (await client.get(link)).status_code == 200
        assert (await client.get("/openapi.json")).json()["info"]["title"] == "Blog"
        # ReDoc's script would fetch a logo from its maker's host.
        assert "img-src 'self' data:;" in (await client.get("/redoc")).headers["content-security-policy"]


@pytest.mark.parametrize("environment", list(Environment))
async def test_documentation_where_settings_name_it(environment: Environment) -> None:
    app = create_app(make_settings(environment=environment, docs_environments=frozenset({Environment.STAGING})))
    async with client_of(app) as client:
        documents = ("/docs", "/docs/rooms", "/redoc", "/openapi.json", "/asyncapi.json")
        for path in (*documents, "/static-offline-docs/swagger-ui.css"):
            assert (await client.get(path)).status_code == (200 if environment is Environment.STAGING else 404)


def test_an_app_without_a_secret() -> None:
    with pytest.raises(ValueError, match="secret key"):
        create_app(make_settings().model_copy(update={"secret_key": None}))


def test_the_door_names_the_cure_when_passlib_and_bcrypt_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ValueError("password cannot be longer than 72 bytes")

    monkeypatch.setenv("BLOG_SECRET_KEY", "k" * 32)
    monkeypatch.setattr(CryptContext, "hash", fail)
    monkeypatch.delitem(sys.modules, "blog.main", raising=False)
    with pytest.raises(SystemExit, match=r"^blog: passlib .* cannot hash with bcrypt .*pipenv sync"):
        importlib.import_module("blog.main")


async def test_the_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOG_PASSWORD_ROUNDS", "4")
    from blog.main import app

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        assert (await client.get("/user/me")).status_code == 401
