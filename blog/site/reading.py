"""What pages for readers stand on: what they are made of, which are kept, and how they refuse."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from blog.database import Database
from blog.dependencies import SettingsOfApp
from blog.errors import Answered, BlogDeleted, BlogNotFound, Invalid, NotAuthenticated, NotFound, Refusal, Unreadable
from blog.middleware import refuse
from blog.models import User
from blog.repository.blog import BlogAnswer, BlogRepository
from blog.repository.page import PageRepository
from blog.repository.room import RoomRepository
from blog.repository.user import UserRepository
from blog.schemas.blog import TagName, is_slug
from blog.schemas.types import MAX_ID, PageRequest
from blog.security.access import ANYBODY
from blog.site.kept import KEEP, Shelf
from blog.site.rendering import Templates

ModelT = TypeVar("ModelT", bound=BaseModel)
TAG_NAME: TypeAdapter[str] = TypeAdapter(TagName)
BEFORE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
"""Where a list goes on: behind the post of this moment, in seconds since 1970, and this id."""

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    # Without one to itself a browser would not say of a form either where it was sent from.
    "Referrer-Policy": "same-origin",
}


def refusal_page(request: Request, refusal: Refusal) -> Response:
    """A page that says what a refusal does."""
    templates: Templates = request.app.state.templates
    page = templates.render("refusal.html", refusal=refusal, canonical=None)
    return HTMLResponse(page, refusal.status, {**PAGE_HEADERS, **refusal.headers})


def refuse_reader(request: Request, refusal: Refusal) -> Response:
    """The same, or a problem to a program that takes no pages."""
    problem = refuse(refusal)
    taken = request.headers.get("Accept", "*/*")
    takes_pages = any(kind in taken for kind in ("text/html", "text/*", "*/*"))
    return refusal_page(request, refusal) if takes_pages else problem


class Reading(NamedTuple):
    """What pages are made of, in one session that sees whatever was committed before."""

    blogs: BlogRepository
    pages: PageRepository
    rooms: RoomRepository
    users: UserRepository


class PageRoute(APIRoute):
    """Is refused with a page, and sends whoever has to log in there.

    What is refused is raised up to the app, behind the request's transaction, which would be committed otherwise.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handle = super().get_route_handler()

        async def handle_for_people(request: Request) -> Response:
            try:
                await self.prepare(request)
                return await handle(request)
            except NotAuthenticated as refusal:
                path = request.url.path if request.method == "GET" else "/"
                raise Undone(RedirectResponse(f"/login?next={quote(path)}", HTTP_303_SEE_OTHER)) from refusal
            except RequestValidationError as error:
                raise NotFound from error
            except HTTPException as error:
                if isinstance(error.__cause__, Refusal):  # met while the form was read
                    raise
                raise Unreadable(f"{error.detail.rstrip('.')}.") from error

        return handle_for_people

    async def prepare(self, request: Request) -> None:
        """What comes before everything else."""


async def get_reading(request: Request) -> AsyncIterator[Reading]:
    """What pages are made of. Not of a replica, which may not have yet what they are kept as the state of."""
    database: Database = request.app.state.database
    async with database.fresh() as session:
        yield Reading(
            BlogRepository(session), PageRepository(session), RoomRepository(session), UserRepository(session)
        )


async def keep(request: Request) -> None:
    """Let the page be kept, unless it is asked for with a query, which would make another of it each time."""
    if not request.url.query:
        await _keep(request)


async def keep_list(request: Request, before: str = "") -> None:
    """Let each part of a list be kept."""
    if request.url.query in ("", f"before={before}"):
        await _keep(request)


async def _keep(request: Request) -> None:
    shelf: Shelf = request.app.state.shelf
    request.scope[KEEP] = await shelf.look()


async def get_templates(request: Request) -> Templates:
    """The site's templates."""
    templates: Templates = request.app.state.templates
    return templates


async def get_place(settings: SettingsOfApp, before: str = "") -> PageRequest:
    """The page that the query asks for. Raises NotFound for what no link says."""
    if not before:
        return PageRequest(settings.site_page_size, None)
    place = BEFORE.fullmatch(before)
    if place is None:
        raise NotFound
    return PageRequest(settings.site_page_size, (int(place[1]), min(int(place[2]), MAX_ID)))


ReadingOfPage = Annotated[Reading, Depends(get_reading, scope="function")]
TemplatesOfApp = Annotated[Templates, Depends(get_templates)]
Place = Annotated[PageRequest, Depends(get_place)]
Keep = Depends(keep)
KeepList = Depends(keep_list)


async def find_post(reading: Reading, slug: str) -> BlogAnswer:
    """The post that has or had this slug. Raises BlogNotFound and BlogDeleted."""
    if not is_slug(slug):
        raise BlogNotFound("There is no post at this address.")
    post = await reading.blogs.read_by_slug(slug, viewer=ANYBODY)
    if post is None:
        is_gone = await reading.blogs.was_deleted(viewer=ANYBODY, slug=slug)
        raise BlogDeleted if is_gone else BlogNotFound("There is no post at this address.")
    return post


async def find_author(reading: Reading, user_id: int) -> User:
    """The author with this id, who is there for readers as soon as there is something to read."""
    author = await reading.users.get(user_id)
    if author is None:
        raise NotFound("There is no author here.")
    return author


def name_of_tag(tag: str) -> str:
    """The tag that this spells. Raises NotFound."""
    try:
        return TAG_NAME.validate_python(tag)
    except ValueError:
        raise NotFound from None


class Undone(Answered):
    """A page that says what was refused: whatever the request has begun is undone."""

    def __init__(self, page: Response) -> None:
        self.status = page.status_code
        super().__init__(page.headers, bytes(page.body))


def lines(text: str) -> str:
    """Text as it was typed: browsers end lines in forms as mail does."""
    return text.replace("\r\n", "\n")


def meant(model: type[ModelT], fields: Mapping[str, Any]) -> ModelT:
    """What a form asks for. Raises Invalid with what is wrong with it, in a sentence; never with what was sent."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = f"{fault['loc'][0]}: " if fault["loc"] else ""
        raise Invalid(f"{where}{fault['msg'].removeprefix('Value error, ')}.") from None


def page_of(content: str) -> HTMLResponse:
    """An answer that is a page."""
    return HTMLResponse(content, headers=PAGE_HEADERS)


def own_page(content: str, refusal: Refusal | None = None) -> HTMLResponse:
    """An answer that is a page for one person, which nobody keeps; with what was refused, if something was."""
    headers = {**PAGE_HEADERS, "Cache-Control": "no-store", **(refusal.headers if refusal else {})}
    return HTMLResponse(content, refusal.status if refusal else 200, headers)
