"""The desk: where authors write, and everybody keeps the own account, in a browser.

Each form does what a request of the API does, by the same function, so that neither can do what the other refuses.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Form, Query, Request, Response
from pydantic import BaseModel
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER

from blog.dependencies import (
    Admin,
    BlogReader,
    Blogs,
    BlogWriter,
    ConfirmPassword,
    DifferOfApp,
    KeptPicture,
    LinkMailerOfApp,
    Logins,
    MailerOfApp,
    MediaRows,
    NamedUser,
    OwnBlog,
    OwnLogin,
    OwnToken,
    Passwords,
    PersonalTokens,
    RendererOfApp,
    RevisedBlog,
    RevisionOfOwn,
    Revisions,
    SettingsOfApp,
    ShownRevisions,
    UserReader,
    Users,
    UserWriter,
)
from blog.errors import BlogNotFound, PreconditionFailed, Refusal
from blog.models import Role, Status
from blog.preconditions import Conditions, etag_of
from blog.repository.blog import BlogAnswer
from blog.routers import authentication
from blog.routers import blog as blogs_api
from blog.routers import media as media_api
from blog.routers import user as users_api
from blog.schemas.blog import BlogUpdate, BlogWrite
from blog.schemas.token import PersonalTokenCreate
from blog.schemas.types import PageRequest
from blog.schemas.user import PasswordChange, ProfileUpdate, UserUpdate
from blog.security.access import Caller, Scope
from blog.security.opaque import COOKIE
from blog.site.reading import PAGE_HEADERS, Place, ReadingOfPage, TemplatesOfApp, Undone, lines, meant, own_page
from blog.site.rendering import Templates, chart, on_page
from blog.site.visitor import LoggedInRoute, cookie_of

LISTED = ("id", "slug", "title", "status", "created_at", "updated_at", "published_at")
SHOWN = 100
"""Logins, tokens, users and revisions on a page."""
DAYS = 90
"""Days that the picture of posts and readers shows."""
LIFETIME = timedelta(days=90)
"""Of a personal token that is made here."""
SECRET = ("secret_key", "other_secret_keys", "database_url", "database_read_url", "smtp_url")


class IdConvertor(IntegerConvertor):
    """An id in a path: of no more digits than any has, as Python reads no number of thousands."""

    regex = "[0-9]{1,10}"


register_url_convertor("id", IdConvertor())
router = APIRouter(prefix="/desk", include_in_schema=False, route_class=LoggedInRoute)

Text = Annotated[str, Form()]


def _page(
    request: Request, templates: Templates, name: str, caller: Caller, refusal: Refusal | None = None, **values: Any
) -> Response:
    """A page of somebody's own, which nobody keeps."""
    cookie = cookie_of(request)
    own = {"caller": caller, "form_token": cookie.form_token if cookie else "", "told": ""}
    if refusal is not None:
        own["told"] = refusal.detail
    content = templates.render(f"desk/{name}", canonical=None, **own | values)
    return own_page(content, refusal)


def _to(path: str, background: BackgroundTasks | None = None) -> Response:
    return RedirectResponse(path, HTTP_303_SEE_OTHER, background=background)


@router.get("")
async def show_desk(
    request: Request,
    reader: BlogReader,
    blogs: Blogs,
    templates: TemplatesOfApp,
    place: Place,
    status: Status | None = None,
) -> Response:
    """Show one's own posts, the newest first."""
    page = await blogs.page(place, viewer=reader, fields=LISTED, author=reader.user.id, status=status)
    further = None
    if page.next is not None:
        chosen = f"&status={status.value}" if status else ""
        further = f"/desk?before={page.next[0]}-{page.next[1]}{chosen}"
    values: dict[str, Any] = {"posts": page.rows, "status": status, "statuses": list(Status), "further": further}
    return _page(request, templates, "posts.html", reader, **values)


@router.get("/new")
async def show_new(request: Request, writer: BlogWriter, templates: TemplatesOfApp) -> Response:
    """Show the form for a new post."""
    return _page(request, templates, "edit.html", writer, **_form(PostForm()))


class PostForm(BaseModel):
    """A post as the form of the editor sends it."""

    title: str = ""
    body: str = ""
    summary: str = ""
    tags: str = ""
    slug: str = ""
    status: str = Status.DRAFT.value
    publish_at: str = ""
    etag: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """What of it is meant: an empty slug or moment is none, and moments are in UTC."""
        fields = {"title": self.title, "body": lines(self.body), "summary": lines(self.summary)}
        meant: dict[str, Any] = fields | {"status": self.status}
        meant["tags"] = [tag for tag in (part.strip() for part in self.tags.split(",")) if tag]
        if self.slug.strip():
            meant["slug"] = self.slug
        if self.publish_at and self.status != Status.DRAFT:
            # Browsers leave seconds out where there are none.
            meant["publish_at"] = f"{self.publish_at}{':00' if self.publish_at.count(':') == 1 else ''}Z"
        return meant


EditedPost = Annotated[PostForm, Form()]


def _sent(post: BlogAnswer) -> PostForm:
    """A post as its form shows it."""
    moment = post["published_at"] if post["status"] == Status.SCHEDULED else None
    return PostForm(
        title=post["title"],
        body=post["body"],
        summary=post["summary"],
        tags=", ".join(post["tags"]),
        slug=post["slug"],
        status=post["status"],
        publish_at=f"{moment:%Y-%m-%dT%H:%M:%S}" if moment else "",
    )


def _saved(request: Request, post: BlogAnswer, background: BackgroundTasks) -> Response:
    """The way back to the editor, or for its script what to go on with."""
    path = f"/desk/{post['id']}"
    if "application/json" in request.headers.get("Accept", ""):
        return JSONResponse({"path": path, "etag": etag_of(*post["version"])}, background=background)
    return _to(path, background)


@router.post("/new")
async def create(
    request: Request,
    response: Response,
    writer: BlogWriter,
    blogs: Blogs,
    renderer: RendererOfApp,
    templates: TemplatesOfApp,
    conditions: Conditions,
    background: BackgroundTasks,
    form: EditedPost,
) -> Response:
    """Write a new post."""
    try:
        data = meant(BlogWrite, form.fields)
        post = await blogs_api.create_blog(writer, None, blogs, data, renderer, conditions, request, response)
    except Refusal as refusal:
        raise Undone(_page(request, templates, "edit.html", writer, refusal, **_form(form))) from refusal
    return _saved(request, post, background)


@router.get("/{blog_id:id}")
async def show_post(
    request: Request, writer: BlogWriter, blog_id: OwnBlog, blogs: Blogs, templates: TemplatesOfApp
) -> Response:
    """Show a post in the editor."""
    post = await blogs.read(blog_id, viewer=writer)
    if post is None:
        raise BlogNotFound
    return _page(request, templates, "edit.html", writer, **_form(_sent(post), post=post))


@router.post("/{blog_id:id}")
async def save(
    request: Request,
    writer: BlogWriter,
    blog_id: OwnBlog,
    blogs: Blogs,
    reading: ReadingOfPage,
    renderer: RendererOfApp,
    differ: DifferOfApp,
    templates: TemplatesOfApp,
    conditions: Conditions,
    background: BackgroundTasks,
    form: EditedPost,
) -> Response:
    """Save a post, unless somebody else has meanwhile: then show what they made of it."""
    try:
        data = meant(BlogUpdate, form.fields)
        post = await blogs_api.update_blog(writer, blog_id, blogs, data, renderer, conditions)
    except PreconditionFailed as refusal:
        current = await reading.blogs.read(blog_id, viewer=writer)
        if current is None:
            raise BlogNotFound from None
        texts = f"{current['title']}\n\n{current['body']}", f"{form.title}\n\n{lines(form.body)}"
        diff = await differ.diff(*texts, "saved", "yours")
        values = _form(form, post=current, diff=diff)
        raise Undone(_page(request, templates, "edit.html", writer, refusal, **values)) from refusal
    except Refusal as refusal:
        stored = await reading.blogs.read(blog_id, viewer=writer)
        values = _form(form, post=stored, etag=form.etag)
        raise Undone(_page(request, templates, "edit.html", writer, refusal, **values)) from refusal
    return _saved(request, post, background)


def _form(form: PostForm, *, post: BlogAnswer | None = None, etag: str | None = None, diff: str = "") -> dict[str, Any]:
    """What the editor shows: a form, the post that is stored, and of what the form is a change."""
    if post is not None and etag is None:
        etag = etag_of(*post["version"])
    return {"sent": form, "post": post, "etag": etag or "", "diff": diff, "statuses": list(Status)}


@router.post("/{blog_id:id}/delete")
async def delete(writer: BlogWriter, blog_id: OwnBlog, blogs: Blogs, conditions: Conditions) -> Response:
    """Delete a post."""
    await blogs_api.delete_blog(writer, blog_id, blogs, conditions)
    return _to("/desk")


@router.post("/preview")
async def preview(writer: BlogWriter, renderer: RendererOfApp, body: Text = "") -> Response:
    """Show what becomes of a body; for the editor's script."""
    rendered = await renderer.render(lines(body), writer.user.id)
    return HTMLResponse(on_page(rendered.html), headers=PAGE_HEADERS)


@router.post("/media")
async def upload(
    request: Request,
    response: Response,
    writer: BlogWriter,
    kept: KeptPicture,
    users: Users,
    media: MediaRows,
    settings: SettingsOfApp,
) -> Response:
    """Keep an image that was dropped on the editor; for its script."""
    made = await media_api.create_media(writer, None, kept, users, media, settings, request, response)
    return JSONResponse({"url": made["url"]}, 201)


@router.get("/{blog_id:id}/revisions")
async def show_revisions(
    request: Request, reader: BlogReader, blog_id: RevisedBlog, revisions: Revisions, templates: TemplatesOfApp
) -> Response:
    """Show the titles and bodies that a post has and had."""
    page = await revisions.page(PageRequest(SHOWN, None), blog_id)
    return _page(request, templates, "revisions.html", reader, blog_id=blog_id, revisions=page.rows)


@router.get("/{blog_id:id}/revisions/{number}")
async def show_revision(
    request: Request,
    reader: BlogReader,
    blog_id: RevisedBlog,
    revisions: ShownRevisions,
    differ: DifferOfApp,
    templates: TemplatesOfApp,
    diff: Annotated[int | None, Query()] = None,
) -> Response:
    """Show a title and body that a post has or had, and what became of another."""
    shown = await blogs_api.show_revision(revisions, differ)
    return _page(request, templates, "revision.html", reader, blog_id=blog_id, revision=shown, other=diff)


@router.post("/{blog_id:id}/revisions/{number}/restore")
async def restore(
    request: Request,
    response: Response,
    writer: BlogWriter,
    blog_id: OwnBlog,
    revision: RevisionOfOwn,
    blogs: Blogs,
    renderer: RendererOfApp,
    conditions: Conditions,
) -> Response:
    """Give a post a title and body that it had before."""
    await blogs_api.restore_revision(writer, blog_id, revision, None, blogs, renderer, conditions, request, response)
    return _to(f"/desk/{blog_id}")


@router.get("/readers")
async def show_readers(
    request: Request, reader: BlogReader, reading: ReadingOfPage, templates: TemplatesOfApp
) -> Response:
    """Show a picture of one's posts and readers over time."""
    last = datetime.now(UTC).date()
    days = [last - timedelta(days=back) for back in reversed(range(DAYS))]
    readers = await reading.pages.readers(reader.user.id, days[0])
    posts = await reading.pages.posts_since(reader.user.id, days[0])
    picture = chart(days, readers, posts)
    return _page(request, templates, "readers.html", reader, picture=picture)


class AccountPage:
    """Somebody's own record, logins and personal tokens."""

    def __init__(
        self, request: Request, logins: Logins, personal_tokens: PersonalTokens, templates: TemplatesOfApp
    ) -> None:
        self._request = request
        self._logins = logins
        self._personal_tokens = personal_tokens
        self._templates = templates

    async def show(self, caller: Caller, *, refusal: Refusal | None = None, token: str = "") -> Response:
        """The page, with what was refused or the token that was made."""
        page = PageRequest(SHOWN, None)
        values = {
            "logins": (await self._logins.page(page, caller.user)).rows,
            "tokens": (await self._personal_tokens.page(page, caller.user)).rows,
            "scopes": sorted(caller.scopes, key=list(Scope).index),
            "token": token,
        }
        return _page(self._request, self._templates, "account.html", caller, refusal, **values)


Account = Annotated[AccountPage, Depends()]


@router.get("/account")
async def show_account(reader: UserReader, account: Account) -> Response:
    """Show one's own record, logins and personal tokens."""
    return await account.show(reader)


@router.post("/account")
async def change_account(
    writer: UserWriter,
    confirm: ConfirmPassword,
    settings: SettingsOfApp,
    users: Users,
    link_mailer: LinkMailerOfApp,
    mailer: MailerOfApp,
    conditions: Conditions,
    background: BackgroundTasks,
    account: Account,
    name: Text = "",
    about: Text = "",
) -> Response:
    """Change one's name and what one says about oneself."""
    try:
        data = meant(ProfileUpdate, {"name": name, "about": lines(about)})
        await users_api.update_me(data, writer, confirm, settings, users, link_mailer, mailer, conditions, background)
    except Refusal as refusal:
        raise Undone(await account.show(writer, refusal=refusal)) from refusal
    return _to("/desk/account", background)


@router.post("/account/password")
async def change_password(
    writer: UserWriter,
    confirm: ConfirmPassword,
    passwords: Passwords,
    users: Users,
    mailer: MailerOfApp,
    background: BackgroundTasks,
    account: Account,
    current_password: Text = "",
    new_password: Text = "",
) -> Response:
    """Change one's password, which ends every other login."""
    try:
        data = meant(PasswordChange, {"current_password": current_password, "new_password": new_password})
        await users_api.change_password(data, writer, confirm, passwords, users, mailer, background)
    except Refusal as refusal:
        raise Undone(await account.show(writer, refusal=refusal)) from refusal
    return _to("/desk/account", background)


@router.post("/account/sessions/{session_id}")
async def end_session(login: OwnLogin, logins: Logins) -> Response:
    """End one of one's logins."""
    await users_api.end_session(login, logins)
    return _to("/desk/account")


@router.post("/account/tokens")
async def create_token(
    request: Request,
    response: Response,
    writer: UserWriter,
    users: Users,
    personal_tokens: PersonalTokens,
    mailer: MailerOfApp,
    background: BackgroundTasks,
    account: Account,
    scopes: Annotated[Sequence[str], Form()] = (),
    name: Text = "",
) -> Response:
    """Make a personal token, which is shown on this page alone."""
    expires_at = f"{datetime.now(UTC) + LIFETIME:%Y-%m-%dT%H:%M:%SZ}"
    try:
        data = meant(PersonalTokenCreate, {"name": name, "scopes": list(scopes), "expires_at": expires_at})
        for scope in data.scopes:
            writer.require(scope)
        made = await users_api.create_token(
            writer, None, data, users, personal_tokens, mailer, background, request, response
        )
    except Refusal as refusal:
        raise Undone(await account.show(writer, refusal=refusal)) from refusal
    page = await account.show(writer, token=made["token"])
    page.background = background
    return page


@router.post("/account/tokens/{token_id}")
async def delete_token(token: OwnToken, personal_tokens: PersonalTokens, conditions: Conditions) -> Response:
    """Delete a personal token."""
    await users_api.delete_token(token, personal_tokens, conditions)
    return _to("/desk/account")


@router.post("/logout")
async def log_out(caller: UserReader, logins: Logins, personal_tokens: PersonalTokens) -> Response:
    """End this login, and forget its cookie."""
    await authentication.log_out(caller, logins, personal_tokens)
    return _forgotten("/")


@router.post("/logout/everywhere")
async def log_out_everywhere(caller: UserWriter, logins: Logins) -> Response:
    """End every login, this one too."""
    await logins.end_all(caller.user.id)
    return _forgotten("/login")


def _forgotten(path: str) -> Response:
    """The way on for a browser, which forgets its cookie."""
    response = _to(path)
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")
    return response


@router.get("/users")
async def show_users(
    request: Request,
    admin: Admin,
    users: Users,
    settings: SettingsOfApp,
    templates: TemplatesOfApp,
    q: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """Show users, and the settings that matter; for admins."""
    asked = "".join(character for character in q if character.isprintable()).strip()
    page = await users.page(PageRequest(SHOWN, None), q=asked or None)
    shown = {name: value for name, value in settings.model_dump(mode="json").items() if name not in SECRET}
    values: dict[str, Any] = {"users": page.rows, "q": asked, "roles": list(Role), "settings": shown}
    values["more"] = page.next is not None
    return _page(request, templates, "users.html", admin, **values)


@router.post("/users/{user_id}")
async def change_user(
    admin: Admin,
    user: NamedUser,
    users: Users,
    blogs: Blogs,
    conditions: Conditions,
    role: Text = "",
    is_active: Text = "",
) -> Response:
    """Change a user's role, or block or unblock somebody; for admins."""
    data = meant(UserUpdate, {"role": role, "is_active": is_active == "true"})
    await users_api.update_user(admin, user, users, blogs, conditions, data)
    return _to("/desk/users")
