"""The app: its parts put together, its refusals put into words."""

import hashlib
import logging
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from blog import metrics
from blog.attempts import Attempts
from blog.database import Database, refusal_for
from blog.dependencies import get_claims
from blog.errors import DatabaseUnavailable, Invalid, Refusal
from blog.middleware import METHODS, CrossOrigin, Guard, LastResort, Outside, refuse, write
from blog.routers import authentication, blog, machine, user
from blog.schemas.problem import Fault, Problem
from blog.security.cursors import Cursors
from blog.security.passwords import PasswordHasher
from blog.security.tokens import AccessTokens
from blog.settings import Settings

logger = logging.getLogger(__name__)

SHOWN_FAULTS = 20
"""Faults of one request that are named; a body of nothing but unknown fields has thousands."""

SHOWN_NAME = 100
"""Characters of a field's name that are shown."""

DESCRIPTION = """\
Users log in at `/login` with their e-mail address and get a bearer token; authors write blogs with it.

Every refusal is a problem as of RFC 9457 with a stable `code`, and every answer has an `X-Request-ID`: the request's
own, if it has a sensible one. A path answers with and without a slash at its end, and HEAD wherever GET does. A body's
fields are all known, and of two with one name the last counts.
"""

STATIC = "/static-offline-docs"
FRAMEWORKS_OWN = "HTTPValidationError"
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def create_app(settings: Settings) -> FastAPI:
    """An app with its own database; nothing is opened before the first request.

    Raises RuntimeError when the installed passlib and bcrypt do not fit.
    """
    if settings.secret_key is None:
        raise ValueError("an app needs a secret key")
    secret, issuer = settings.secret_key.get_secret_value(), str(settings.base_url)
    database = Database(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with aclosing(database):
            yield

    metadata: dict[str, Any] = {
        "title": "Blog",
        "version": "1.0.0",
        "description": DESCRIPTION,
        "lifespan": lifespan,
        "redirect_slashes": False,  # it would redirect to whatever host the request names
        "docs_url": None,
        "redoc_url": None,
    }
    if settings.serves_docs:
        app = FastAPIOffline(**metadata)
        app.add_api_route("/docs", _show_swagger, include_in_schema=False)
        app.add_api_route("/redoc", _show_redoc, include_in_schema=False)
        _complete_documentation(app)
    else:
        app = FastAPI(openapi_url=None, **metadata)

    app.state.settings = settings
    app.state.database = database
    app.state.passwords = PasswordHasher(settings.password_rounds, settings.password_min_length)
    app.state.attempts = Attempts(database, app.state.passwords, secret, settings.login_failure_limit)
    app.state.tokens = AccessTokens(secret, issuer, settings.access_token_lifetime)
    app.state.cursors = Cursors(secret)

    for router in (authentication.router, user.router, blog.router, machine.router):
        app.include_router(router)
    if settings.metrics:
        app.add_api_route("/metrics", _show_metrics, include_in_schema=False)
    app.router.default = _other_spelling(app.router.app, app.router.not_found)

    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    # asyncpg says of a server that is not there what the operating system said of it, and SQLite's driver of a number
    # that is too large what Python says.
    for error in (SQLAlchemyError, OSError, OverflowError):
        app.add_exception_handler(error, _answer_database_error)

    # The last is the outermost.
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(LastResort)
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(Outside, https=settings.base_url.scheme == "https", counts=settings.metrics)
    return app


def _other_spelling(route: ASGIApp, not_found: ASGIApp) -> ASGIApp:
    """What answers a path that no route has: the one with or without a slash at its end, if there is one."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if "respelled" in scope or path.endswith("//"):
            await not_found(scope, receive, send)
        else:
            # In place, so that a refusal knows the path that was found.
            scope.update(path=path[:-1] if path.endswith("/") else f"{path}/", respelled=True)
            await route(scope, receive, send)

    return answer


async def _show_metrics() -> Response:
    return Response(metrics.exposition(), headers={"Content-Type": metrics.MEDIA_TYPE})


def _show_swagger(request: Request) -> Response:
    root = request.scope.get("root_path", "")
    return _documentation(
        get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="Blog - Swagger UI",
            swagger_js_url=f"{root}{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{root}{STATIC}/favicon.png",
        )
    )


def _show_redoc(request: Request) -> Response:
    root = request.scope.get("root_path", "")
    return _documentation(
        get_redoc_html(
            openapi_url=f"{root}/openapi.json",
            title="Blog - ReDoc",
            redoc_js_url=f"{root}{STATIC}/redoc.standalone.js",
            redoc_favicon_url=f"{root}{STATIC}/favicon.png",
            with_google_fonts=False,
        )
    )


def _documentation(page: HTMLResponse) -> Response:
    """The page, with leave for its own script alone; ReDoc's would fetch a logo from its maker's host."""
    hashes = [b64encode(hashlib.sha256(script).digest()).decode() for script in INLINE_SCRIPT.findall(page.body)]
    scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    page.headers["Content-Security-Policy"] = (
        f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "worker-src blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page


def _complete_documentation(app: FastAPI) -> None:
    """Add the schema of the problems that every refusal is documented with, and take FastAPI's own away."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for operations in document["paths"].values():
            for operation in operations.values():
                # Of what takes parameters or a form it believes that they can be invalid.
                if FRAMEWORKS_OWN in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        problem_schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document["components"]["schemas"]
        for name in (FRAMEWORKS_OWN, "ValidationError"):
            schemas.pop(name, None)
        schemas.update(problem_schema.pop("$defs"), Problem=problem_schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _answer_refusal(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101  (Starlette looks handlers up by this class)
    return refuse(refusal)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such path, no such method, a body that cannot be read."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, Refusal):  # met while the body was read
        return refuse(error.__cause__)
    if error.status_code == HTTPStatus.BAD_REQUEST and (refusal := await _refused_first(request)):
        return refuse(refusal)
    title = HTTPStatus(error.status_code).phrase
    body = Problem(
        title=title,
        status=error.status_code,
        detail=f"{error.detail.rstrip('.')}.",
        code=title.lower().replace(" ", "_"),
    )
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed_methods(request))}
    return write(body, headers)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    if refusal := await _refused_first(request):
        return refuse(refusal)
    # Not `input` and not `ctx`: they repeat what was sent, which may be a password.
    faults = [
        Fault(
            loc=[part if isinstance(part, int) else part[:SHOWN_NAME] for part in fault["loc"]],
            msg=fault["msg"].removeprefix("Value error, "),
            type=fault["type"],
        )
        for fault in error.errors()[:SHOWN_FAULTS]
    ]
    return refuse(Invalid, faults)


async def _refused_first(request: Request) -> Refusal | None:
    """What somebody without a token is told of a malformed request to a route that wants one.

    FastAPI reads a body before it asks who sent it.
    """
    route = request.scope.get("route")
    if isinstance(route, APIRoute) and _wants_token(route.dependant):
        try:
            await get_claims(request)
        except Refusal as refusal:
            return refusal
    return None


def _wants_token(dependant: Dependant) -> bool:
    return dependant.call is get_claims or any(_wants_token(dependency) for dependency in dependant.dependencies)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes with the request's path; the framework names those of one route."""
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": "GET" if method == "HEAD" else method})[0] is Match.FULL
            for route in routes
        )
    ]


async def _answer_database_error(_: Request, error: Exception) -> Response:
    refusal = refusal_for(error)
    if refusal is None:
        raise error
    # Only then is there no value of somebody's in its words.
    told = error if issubclass(refusal, DatabaseUnavailable) else type(error).__name__
    logger.error("the database refuses: %s", told)
    return refuse(refusal)
