"""Who looks at pages: by a cookie, which is a login like any other, and whose forms these are."""

import hmac
import re
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from blog.dependencies import OF_BROWSER, find_by_cookie
from blog.errors import FormRefused, Invalid, InvalidToken
from blog.middleware import is_of_host
from blog.preconditions import FORM_ETAG
from blog.security.access import Caller
from blog.security.opaque import COOKIE, Cookie, read_cookie
from blog.settings import Settings
from blog.site.reading import PageRoute

PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
"""A path of this site: neither another host nor what browsers take for one."""

URLENCODED = "application/x-www-form-urlencoded"
FORM_TOKEN = "form_token"  # noqa: S105  (the field's name)


class ForPeople(PageRoute):
    """A path that programs use too, as it is meant when a browser asks for it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this is the route: not for who does not want a page."""
        if "text/html" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


class LoggedInRoute(PageRoute):
    """For who is logged in by a cookie; who is not logs in first, and comes back.

    A form has to come from a page of this site that was shown to this very login. It may say in `etag` what it is a
    change of, as a request says by If-Match.
    """

    async def prepare(self, request: Request) -> None:
        """See to it that no other site asks. Raises FormRefused."""
        if request.method != "GET":
            await _check_form(request)
        request.scope[OF_BROWSER] = True


async def _check_form(request: Request) -> None:
    check_origin(request)
    cookie = cookie_of(request)
    sent = request.headers.get("X-Form-Token", "")
    # A file is not read before it is known who sends it: its token comes in the header.
    if request.headers.get("Content-Type", "").startswith(URLENCODED):
        settings: Settings = request.app.state.settings
        # Escaped, a character takes up to twelve bytes: a long text is longer than what is taken of a field by itself.
        form = await request.form(max_part_size=settings.body_limit)
        sent, etag = sent or str(form.get(FORM_TOKEN, "")), form.get("etag")
        if isinstance(etag, str) and etag:
            request.scope[FORM_ETAG] = [etag]
    if cookie is not None and not hmac.compare_digest(sent.encode(errors="replace"), cookie.form_token.encode()):
        raise FormRefused


def cookie_of(request: Request) -> Cookie | None:
    """The cookie that came with a request."""
    return read_cookie(request.cookies.get(COOKIE, ""))


def check_origin(request: Request) -> None:
    """Refuse what a page of another site sends: browsers say where a form was sent from, and programs need not.

    Raises FormRefused.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    is_own = origin is None or is_of_host(origin, request.headers.get("Host", ""))
    if not is_own or site not in ("same-origin", "none"):
        raise FormRefused


async def get_origin(request: Request) -> None:
    """Refuses a form of another site, from somebody who is not logged in."""
    check_origin(request)


FromHere = Depends(get_origin)


class Visitor(NamedTuple):
    """Somebody who is logged in, and what this login's forms have in them."""

    caller: Caller
    form_token: str


async def get_visitor(request: Request) -> Visitor | None:
    """Who looks, if they are logged in."""
    cookie = cookie_of(request)
    if cookie is None:
        return None
    try:
        return Visitor(await find_by_cookie(request.app.state, cookie), cookie.form_token)
    except InvalidToken:
        return None


MaybeVisitor = Annotated[Visitor | None, Depends(get_visitor)]


def path_of_site(path: str) -> str:
    """The path, to go on to. Raises Invalid for what leads elsewhere."""
    if not PATH.fullmatch(path):
        raise Invalid("This leads to another site.")
    return path
