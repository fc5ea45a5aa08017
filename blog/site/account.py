"""Logging in and out in a browser, registering, and what helps where a password does not."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Form, Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from blog.dependencies import (
    LinkMailerOfApp,
    OneTimeLinks,
    RegistrationOfApp,
    SettingsOfApp,
    Users,
    get_user_of_address,
)
from blog.errors import Refusal, RegistrationClosed
from blog.grants import Grants
from blog.logs import security_event
from blog.middleware import client_of
from blog.schemas.user import Address, UserCreate
from blog.security.opaque import COOKIE
from blog.site.reading import TemplatesOfApp, Undone, meant, own_page
from blog.site.rendering import Templates
from blog.site.visitor import ForPeople, FromHere, path_of_site

LINK_SENT = "If there is an account with this address, a link is on its way."

router = APIRouter(include_in_schema=False, route_class=ForPeople)

Field = Annotated[str, Form()]


def form_page(
    templates: Templates, template: str, /, *, refusal: Refusal | None = None, told: str = "", **values: object
) -> Response:
    """A page with a form: empty, or as it was sent with what is wrong with it."""
    content = templates.render(template, canonical=None, told=refusal.detail if refusal else told, values=values)
    return own_page(content, refusal)


@router.get("/login")
async def show_login(templates: TemplatesOfApp, next: str = "/") -> Response:  # noqa: A002  (the query's own name)
    """Show the form that logs in."""
    return form_page(templates, "login.html", next=path_of_site(next))


@router.post("/login", dependencies=[FromHere])
async def log_in(
    request: Request,
    templates: TemplatesOfApp,
    settings: SettingsOfApp,
    username: Field = "",
    password: Field = "",
    next: Field = "/",  # noqa: A002
) -> Response:
    """Log in, and go on."""
    grants: Grants = request.app.state.grants
    onward = path_of_site(next)
    seen = {"client": client_of(request.scope), "user_agent": request.headers.get("User-Agent", "")}
    try:
        cookie = await grants.by_form(username, password, **seen)
    except Refusal as refusal:
        return form_page(templates, "login.html", refusal=refusal, next=onward, username=username)
    response = RedirectResponse(onward, HTTP_303_SEE_OTHER)
    lifetime = int(settings.login_lifetime.total_seconds())
    response.set_cookie(COOKIE, str(cookie), max_age=lifetime, secure=True, httponly=True, samesite="lax")
    return response


@router.get("/register")
async def show_registration(templates: TemplatesOfApp, settings: SettingsOfApp) -> Response:
    """Show the form that registers; whoever was invited has a link of their own."""
    if settings.registration != "open":
        raise RegistrationClosed
    return form_page(templates, "register.html")


@router.post("/register", dependencies=[FromHere])
async def register(
    templates: TemplatesOfApp,
    registration: RegistrationOfApp,
    users: Users,
    links: OneTimeLinks,
    background: BackgroundTasks,
    name: Field = "",
    email: Field = "",
    password: Field = "",
) -> Response:
    """Register, and go on to log in."""
    try:
        data = meant(UserCreate, {"name": name, "email": email, "password": password})
        await registration.register(data, await registration.admit(data), users, links, background)
    except Refusal as refusal:
        raise Undone(form_page(templates, "register.html", refusal=refusal, name=name, email=email)) from refusal
    return RedirectResponse("/login?next=/", HTTP_303_SEE_OTHER, background=background)


@router.get("/forgotten")
async def show_forgotten(templates: TemplatesOfApp) -> Response:
    """Show the form that asks for a link to a new password."""
    return form_page(templates, "forgotten.html")


@router.post("/forgotten", dependencies=[FromHere])
async def send_link(
    request: Request,
    templates: TemplatesOfApp,
    link_mailer: LinkMailerOfApp,
    background: BackgroundTasks,
    email: Field = "",
) -> Response:
    """Mail a link to a new password, if this is a user's address. The page is the same if it is not."""
    try:
        address = Address(email=email)
    except ValidationError:
        return form_page(templates, "forgotten.html", told="This is not an e-mail address.", email=email)
    user = await get_user_of_address(request, address)
    security_event("password_reset_requested", of=user.id if user else None)
    if user is not None:
        background.add_task(link_mailer.send_password_reset, user)
    return form_page(templates, "forgotten.html", told=LINK_SENT)
