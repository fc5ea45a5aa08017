"""The app: its parts put together, its refusals put into words."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from blog import asyncapi, metrics
from blog.attempts import Attempts
from blog.database import Database, refusal_for
from blog.dependencies import get_bearer
from blog.diff import Differ
from blog.errors import Answered, DatabaseUnavailable, Invalid, NotFound, Refusal
from blog.grants import Grants
from blog.links import LinkMailer
from blog.live import Hub
from blog.mail import Mailer
from blog.markdown import Renderer
from blog.media import Folder, Images
from blog.middleware import METHODS, CrossOrigin, Guard, LastResort, Outside, refuse, write
from blog.registration import Registration
from blog.routers import authentication, blog, invitation, machine, media, room, tag, user
from blog.schemas.problem import Fault, Problem
from blog.security.cursors import Cursors
from blog.security.passwords import PasswordHasher
from blog.security.seals import Seals
from blog.security.tokens import AccessTokens
from blog.settings import Settings
from blog.site import account, desk, discussion, feeds, pages
from blog.site.kept import KeptPages, Shelf
from blog.site.pages import hashes_of
from blog.site.readers import Readers
from blog.site.reading import PageRoute, refusal_page, refuse_reader
from blog.site.rendering import Templates

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

What goes over the WebSockets of rooms is in `/asyncapi.json`, and `/docs/rooms` is a page to try them.
"""

STATIC = "/static-offline-docs"
FRAMEWORKS_OWN = "HTTPValidationError"


def create_app(settings: Settings) -> FastAPI:
    """An app with its own database; nothing is opened before the first request.

    Raises RuntimeError when the installed passlib and bcrypt do not fit.
    """
    secrets = settings.secrets
    database = Database(settings)
    passwords = PasswordHasher(settings.password_rounds, settings.password_min_length, str(settings.base_url.host))
    attempts = Attempts(database, passwords, secrets[0], settings.login_failure_limit)
    hub = Hub(database, settings)
    readers = Readers(database)
    mailer = Mailer(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with aclosing(database), aclosing(hub), aclosing(readers):
            yield

    metadata: dict[str, Any] = {
        "title": "Blog",
        "version": "1.0.0",
        "description": DESCRIPTION,
        "lifespan": lifespan,
        "openapi_tags": [{"name": name} for name in ("authentication", "user", "blog", "tag", "room", "machine")],
        "redirect_slashes": False,  # it would redirect to whatever host the request names
        "docs_url": None,
        "redoc_url": None,
    }
    if settings.serves_docs:
        app = FastAPIOffline(**metadata)
        app.add_api_route("/docs", _show_swagger, include_in_schema=False)
        app.add_api_route("/redoc", _show_redoc, include_in_schema=False)
        app.add_api_route("/docs/rooms", pages.show_rooms, include_in_schema=False)
        app.include_router(asyncapi.router)
        _complete_documentation(app)
    else:
        app = FastAPI(openapi_url=None, **metadata)

    app.state.settings = settings
    app.state.database = database
    app.state.passwords = passwords
    app.state.attempts = attempts
    app.state.grants = Grants(database, passwords, attempts, settings)
    app.state.tokens = AccessTokens(secrets, settings.issuer)
    app.state.cursors = Cursors(secrets)
    app.state.seals = Seals(secrets)
    app.state.mailer = mailer
    app.state.renderer = Renderer()
    app.state.media_folder = Folder(settings.media_folder)
    app.state.images = Images(settings.media_pixel_limit)
    app.state.differ = Differ()
    app.state.hub = hub
    app.state.templates = Templates(settings)
    app.state.shelf = Shelf(database)
    app.state.readers = readers
    app.state.link_mailer = LinkMailer(database, mailer, settings.issuer)
    app.state.registration = Registration(database, passwords, app.state.link_mailer, settings)

    # Blogs are asked for most, and routes are tried one by one.
    routers = (
        blog.router,
        tag.router,
        media.router,
        room.router,
        authentication.token_router,
        authentication.router,
        user.router,
        invitation.router,
    )
    # What browsers ask for at paths that programs use too comes first.
    site = (feeds.router, discussion.router, discussion.form_router, desk.router, pages.router)
    for router in (account.router, *routers, machine.router, *site):
        app.include_router(router)
    if settings.metrics:
        app.add_api_route("/metrics", _show_metrics, include_in_schema=False)
    app.router.default = _other_spelling(app.router.app, app.router.not_found)

    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(Answered, _answer_early)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    for invalid in (RequestValidationError, WebSocketRequestValidationError):
        app.add_exception_handler(invalid, _answer_invalid)
    # asyncpg says of a server that is not there what the operating system said of it, and SQLite's driver of a number
    # that is too large what Python says.
    for error in (SQLAlchemyError, OSError, OverflowError):
        app.add_exception_handler(error, _answer_database_error)

    # The last is the outermost.
    app.add_middleware(KeptPages, shelf=app.state.shelf, readers=readers)
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
            if scope["type"] == "websocket":  # which the framework would refuse with 403
                raise NotFound
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
    page.headers["Content-Security-Policy"] = (
        f"default-src 'self'; script-src 'self' {hashes_of(bytes(page.body), 'script')}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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


async def _answer_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101  (Starlette looks handlers up by this class)
    is_page = isinstance(request.scope.get("route"), PageRoute)
    return refuse_reader(request, refusal) if is_page else refuse(refusal)


async def _answer_early(_: Request, answered: Exception) -> Response:
    assert isinstance(answered, Answered)  # noqa: S101
    after = None if answered.after is None else BackgroundTask(answered.after)
    return Response(answered.body, answered.status, answered.headers, background=after)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: no such path, no such method, a body that cannot be read."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, Refusal):  # met while the body was read
        return await _answer_refusal(request, error.__cause__)
    if error.status_code == HTTPStatus.NOT_FOUND and "text/html" in request.headers.get("Accept", ""):
        return refusal_page(request, NotFound())
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
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)  # noqa: S101
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
            await get_bearer(request)
        except Refusal as refusal:
            return refusal
    return None


def _wants_token(dependant: Dependant) -> bool:
    return dependant.call is get_bearer or any(_wants_token(dependency) for dependency in dependant.dependencies)


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


async def _answer_database_error(request: Request, error: Exception) -> Response:
    refusal = refusal_for(error)
    if refusal is None:
        raise error
    # Only then is there no value of somebody's in its words.
    told = error if issubclass(refusal, DatabaseUnavailable) else type(error).__name__
    logger.error("the database refuses: %s", told)
    return await _answer_refusal(request, refusal())
