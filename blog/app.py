"""The app: its parts put together, its refusals put into words."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_redoc_html
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from blog.database import Database
from blog.errors import DatabaseUnavailable, Invalid, Refusal
from blog.routers import authentication, blog, user
from blog.schemas.problem import MEDIA_TYPE, Fault, Problem, problem
from blog.security.cursors import Cursors
from blog.security.passwords import PasswordHasher
from blog.security.tokens import AccessTokens
from blog.settings import Settings

logger = logging.getLogger(__name__)

SHOWN_FAULTS = 20
"""Faults of one request that are named; a body of nothing but unknown fields has thousands."""

SHOWN_NAME = 100
"""Characters of a field's name that are shown."""

LOST = ("08", "28", "3D", "40", "53", "55", "57")
"""Classes of SQLSTATE that say the database is not there for a statement: no connection, no access,
no such database, given way to another, out of resources, locked, shutting down."""

DESCRIPTION = "Users log in at `/login` with their e-mail address and get a bearer token; authors write blogs with it."


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
        yield
        await database.dispose()

    metadata: dict[str, Any] = {
        "title": "Blog",
        "version": "1.0.0",
        "description": DESCRIPTION,
        "lifespan": lifespan,
        "redirect_slashes": False,  # it would redirect to whatever host the request names
    }
    if settings.serves_docs:
        app = FastAPIOffline(redoc_url=None, **metadata)
        app.add_api_route("/redoc", _show_redoc, include_in_schema=False)
        _complete_documentation(app)
    else:
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, **metadata)

    app.state.settings = settings
    app.state.database = database
    app.state.passwords = PasswordHasher(settings.password_rounds, settings.password_min_length)
    app.state.tokens = AccessTokens(secret, issuer, settings.access_token_lifetime)
    app.state.cursors = Cursors(secret)

    for router in (authentication.router, user.router, blog.router):
        app.include_router(router)

    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    # asyncpg says of a server that is not there what the operating system said of it.
    for lost in (DBAPIError, PoolTimeout, OSError):
        app.add_exception_handler(lost, _answer_lost_database)
    return app


async def _show_redoc(request: Request) -> Response:
    """ReDoc, kept from the logo that it would fetch from its maker's host."""
    root = request.scope.get("root_path", "")
    script = f"{root}/static-offline-docs/redoc.standalone.js"
    favicon = f"{root}/static-offline-docs/favicon.png"
    page = get_redoc_html(
        openapi_url=f"{root}/openapi.json",
        title="Blog - ReDoc",
        redoc_js_url=script,
        redoc_favicon_url=favicon,
        with_google_fonts=False,
    )
    page.headers["Content-Security-Policy"] = (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:"
    )
    return page


def _complete_documentation(app: FastAPI) -> None:
    """Add the schema of the problems that every refusal is documented with."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        problem_schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = document["components"]["schemas"]
        schemas.update(problem_schema.pop("$defs"), Problem=problem_schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _write(body: Problem, headers: Any) -> Response:
    return Response(
        body.model_dump_json(exclude_none=True), status_code=body.status, headers=headers, media_type=MEDIA_TYPE
    )


async def _answer_refusal(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101  (Starlette looks handlers up by this class)
    return _write(problem(refusal), refusal.headers)


async def _answer_http_exception(_: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such path, no such method, a body that cannot be read."""
    assert isinstance(error, HTTPException)  # noqa: S101
    title = HTTPStatus(error.status_code).phrase
    body = Problem(
        title=title,
        status=error.status_code,
        detail=f"{error.detail.rstrip('.')}.",
        code=title.lower().replace(" ", "_"),
    )
    return _write(body, error.headers)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # Not `input` and not `ctx`: they repeat what was sent, which may be a password.
    faults = [
        Fault(
            loc=[part if isinstance(part, int) else part[:SHOWN_NAME] for part in fault["loc"]],
            msg=fault["msg"].removeprefix("Value error, "),
            type=fault["type"],
        )
        for fault in error.errors()[:SHOWN_FAULTS]
    ]
    return _write(problem(Invalid, faults), None)


async def _answer_lost_database(_: Request, error: Exception) -> Response:
    if isinstance(error, DBAPIError) and not _is_lost(error):
        raise error  # the database does answer; what was asked was wrong
    logger.error("the database is not available: %s", error)
    return _write(problem(DatabaseUnavailable), DatabaseUnavailable.headers)


def _is_lost(error: DBAPIError) -> bool:
    if type(error) is DBAPIError:  # asyncpg's errors without a class of their own
        return str(getattr(error.orig, "sqlstate", None) or "08").startswith(LOST)
    return isinstance(error, OperationalError | InterfaceError)
