"""Users."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from blog.dependencies import (
    Admin,
    Admission,
    Blogs,
    ConfirmPassword,
    LinkMailerOfApp,
    Logins,
    MailerOfApp,
    NamedUser,
    OneTimeLinks,
    OwnLogin,
    OwnToken,
    Passwords,
    PersonalTokens,
    RegistrationOfApp,
    RequestedPage,
    SettingsOfApp,
    ShownToken,
    TokenGiver,
    UserReader,
    Users,
    UserWriter,
)
from blog.errors import (
    AdminRequired,
    Busy,
    DatabaseUnavailable,
    EmailTaken,
    InsufficientScope,
    Invalid,
    InvalidCursor,
    InvalidLink,
    InvitationRequired,
    LoginRequired,
    PreconditionFailed,
    RegistrationClosed,
    SessionNotFound,
    TokenNotFound,
    TooManyFailures,
    UserHasBlogs,
    UserNotFound,
    WeakPassword,
    WrongPassword,
)
from blog.idempotency import Idempotent, KeepingRoute
from blog.logs import security_event
from blog.mail import email_changed, password_changed, personal_token_created
from blog.models import Role, User, fold
from blog.preconditions import Conditions, Preconditions, etag_of
from blog.repository import AnyRow
from blog.repository.blog import BlogRepository
from blog.repository.user import UserRepository
from blog.schemas.problem import BEARER, BODY, CONDITIONAL, ETAG, IDEMPOTENT, LINK_TO_NEXT, LOCATION, refusals
from blog.schemas.token import LoginShown, PersonalTokenCreate, PersonalTokenCreated, PersonalTokenShown
from blog.schemas.types import Id, Line, PageRequest, PathId
from blog.schemas.user import (
    BlogTitle,
    PasswordChange,
    ProfileUpdate,
    UserBulkUpdates,
    UserCreate,
    UserDelete,
    UserOwn,
    UserPublic,
    UserUpdate,
)
from blog.security.access import SCOPES_OF, Caller, Scope, read_scopes, write_scopes

router = APIRouter(prefix="/user", tags=["user"], route_class=KeepingRoute)

NEWEST_BLOGS = 20
IN_TITLE = tuple(BlogTitle.model_fields)


class AnybodyElse(StringConvertor):
    """A user in a path, but not `me`: what `/user/me` does not take would be taken for `/user/{user_id}`."""

    regex = "(?!me$)[^/]+"


register_url_convertor("anybody_else", AnybodyElse())


@router.post(
    "/",
    summary="Register",
    status_code=HTTP_201_CREATED,
    response_model=UserOwn,
    responses=refusals(
        *BODY,
        *IDEMPOTENT,
        RegistrationClosed,
        InvitationRequired,
        InvalidLink,
        EmailTaken,
        WeakPassword,
        Busy,
        DatabaseUnavailable,
    )
    | LOCATION,
)
async def register(
    _: Idempotent,
    data: UserCreate,
    invitation: Admission,
    registration: RegistrationOfApp,
    users: Users,
    links: OneTimeLinks,
    background: BackgroundTasks,
    request: Request,
    response: Response,
) -> User:
    """Add a user who can log in with this address and password, where it need be with an invitation."""
    user = await registration.register(data, invitation, users, links, background)
    response.headers["Location"] = request.url_for("show_user", user_id=user.id).path
    return user


@router.get(
    "/",
    summary="List users",
    response_model=list[UserOwn],
    responses=refusals(*BEARER, InsufficientScope, AdminRequired, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_users(
    _: Admin,
    users: Users,
    page: RequestedPage,
    role: Annotated[Role | None, Query(description="Users with this role.")] = None,
    is_active: Annotated[bool | None, Query(description="`false` for those who are blocked.")] = None,
    q: Annotated[Line | None, Query(max_length=100, description="Part of the name or the address.")] = None,
) -> Sequence[AnyRow]:
    """List users, the newest first. Only for admins."""
    return page.answer(await users.page(page.request, role=role, is_active=is_active, q=q))


@router.put(
    "/",
    summary="Change several users",
    response_model=list[UserOwn],
    responses=refusals(*BEARER, *BODY, InsufficientScope, AdminRequired, UserNotFound),
)
async def update_users(_: Admin, users: Users, data: UserBulkUpdates) -> list[User]:
    """Change role and activity of several users, all or none. Only for admins."""
    found = await users.get_many([update.id for update in data])
    if len(found) < len(data):
        raise UserNotFound("One of these users does not exist. None was changed.")
    return [await _change(users, found[update.id], update) for update in data]


@router.get(
    "/me",
    summary="Read your own record",
    response_model=UserOwn,
    responses=refusals(*BEARER, InsufficientScope) | CONDITIONAL,
)
async def show_me(reader: UserReader, conditions: Conditions) -> UserOwn:
    """Read your own record."""
    own = UserOwn.model_validate(reader.user)
    conditions.show(etag_of(own))
    return own


@router.patch(
    "/me",
    summary="Change your own record",
    response_model=UserOwn,
    responses=refusals(
        *BEARER, *BODY, InsufficientScope, WrongPassword, PreconditionFailed, EmailTaken, TooManyFailures, Busy
    )
    | ETAG,
)
async def update_me(
    data: ProfileUpdate,
    caller: UserWriter,
    confirm: ConfirmPassword,
    settings: SettingsOfApp,
    users: Users,
    link_mailer: LinkMailerOfApp,
    mailer: MailerOfApp,
    conditions: Conditions,
    background: BackgroundTasks,
) -> UserOwn:
    """Change your name, your address or what you say about yourself.

    A new address needs your password, and where addresses are verified the old one stays until you have followed
    the link that is mailed to the new one.
    """
    changes = data.model_dump(exclude_unset=True, exclude={"current_password"})
    if "email" in changes:
        await confirm(data.current_password)
    user = await users.hold(caller.user)
    if conditions.demands_etag:
        conditions.demand(etag_of(UserOwn.model_validate(user)))
    if "email" in changes and fold(data.email) != user.email_folded:
        if settings.email_verification:
            if await users.get_by_email(changes.pop("email")) is not None:
                raise EmailTaken
            background.add_task(link_mailer.send_email_verification, user, data.email)
        else:
            background.add_task(mailer.send, email_changed(user.email, data.email))
            security_event("email_changed")
    own = UserOwn.model_validate(await users.update(user, changes))
    conditions.changed(etag_of(own))
    return own


@router.put(
    "/me/password",
    summary="Change your password",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, *BODY, InsufficientScope, WrongPassword, WeakPassword, TooManyFailures, Busy),
)
async def change_password(
    data: PasswordChange,
    caller: UserWriter,
    confirm: ConfirmPassword,
    passwords: Passwords,
    users: Users,
    mailer: MailerOfApp,
    background: BackgroundTasks,
) -> None:
    """Change your password. Every login of yours but this one is over, and every personal token and invitation."""
    await confirm(data.current_password)
    user = caller.user
    passwords.refuse_weak(data.new_password, name=user.name, email=user.email)
    password_hash = await passwords.hash(data.new_password)
    await users.change_password(await users.hold(user), password_hash, spare=caller.login_id)
    security_event("password_changed")
    background.add_task(mailer.send, password_changed(user.email))


@router.get(
    "/me/sessions",
    summary="List your logins",
    response_model=list[LoginShown],
    responses=refusals(*BEARER, InsufficientScope, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_sessions(caller: UserReader, page: RequestedPage, logins: Logins) -> Sequence[dict[str, Any]]:
    """List where you are logged in, the newest first."""
    rows = page.answer(await logins.page(page.request, caller.user))
    allowed = SCOPES_OF[caller.user.role]
    return [
        row._asdict() | {"scope": write_scopes(read_scopes(row.scope) & allowed), "current": row.id == caller.login_id}
        for row in rows
    ]


@router.delete(
    "/me/sessions/{session_id}",
    summary="End a login",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, InsufficientScope, SessionNotFound, Invalid),
)
async def end_session(login: OwnLogin, logins: Logins) -> None:
    """End one of your logins, everywhere and at once."""
    if not await logins.end(login.id):
        raise SessionNotFound
    security_event("login_ended", login=login.id)


@router.post(
    "/me/tokens",
    summary="Make a personal token",
    status_code=HTTP_201_CREATED,
    response_model=PersonalTokenCreated,
    responses=refusals(*BEARER, *BODY, *IDEMPOTENT, InsufficientScope, LoginRequired) | LOCATION,
)
async def create_token(
    caller: TokenGiver,
    _: Idempotent,
    data: PersonalTokenCreate,
    users: Users,
    personal_tokens: PersonalTokens,
    mailer: MailerOfApp,
    background: BackgroundTasks,
    request: Request,
    response: Response,
) -> dict[str, Any]:
    """Make a token for a script, with some of your own token's scopes. The token itself is shown only here."""
    user = await users.hold(caller.user)  # a change of the password that ends all tokens ends this one too
    token, text = await personal_tokens.add(user.id, data.name, data.scopes, data.expires_at)
    security_event("personal_token_created", personal_token=token.id, scope=token.scope)
    background.add_task(mailer.send, personal_token_created(user.email, token.name))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Location"] = request.url_for("show_token", token_id=token.id).path
    return token.model_dump() | {"token": text}


@router.get(
    "/me/tokens",
    summary="List your personal tokens",
    response_model=list[PersonalTokenShown],
    responses=refusals(*BEARER, InsufficientScope, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_tokens(caller: UserReader, page: RequestedPage, personal_tokens: PersonalTokens) -> Sequence[AnyRow]:
    """List your personal tokens, the newest first; those that expired too."""
    return page.answer(await personal_tokens.page(page.request, caller.user))


@router.get(
    "/me/tokens/{token_id}",
    summary="Read a personal token",
    response_model=PersonalTokenShown,
    responses=refusals(*BEARER, InsufficientScope, TokenNotFound, Invalid) | CONDITIONAL,
)
async def show_token(token: ShownToken, conditions: Conditions) -> PersonalTokenShown:
    """Read what a personal token of yours is good for; not the token itself."""
    shown = PersonalTokenShown.model_validate(token)
    conditions.show(etag_of(shown))
    return shown


@router.delete(
    "/me/tokens/{token_id}",
    summary="Delete a personal token",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, InsufficientScope, TokenNotFound, PreconditionFailed, Invalid),
)
async def delete_token(token: OwnToken, personal_tokens: PersonalTokens, conditions: Conditions) -> None:
    """Delete a personal token of yours: it is good for nothing any more."""
    if conditions.demands_etag:
        locked = await personal_tokens.lock(token.id)
        if locked is None:
            raise TokenNotFound
        conditions.demand(etag_of(PersonalTokenShown.model_validate(locked)))
    if not await personal_tokens.revoke(token.id):
        raise TokenNotFound
    security_event("personal_token_deleted", personal_token=token.id)


@router.get(
    "/{user_id:anybody_else}",
    summary="Read a user",
    response_model=UserPublic,
    responses=refusals(*BEARER, InsufficientScope, UserNotFound, Invalid) | CONDITIONAL,
)
async def show_user(viewer: UserReader, user: NamedUser, blogs: Blogs, conditions: Conditions) -> UserPublic:
    """Read a user, with the newest blogs that you see."""
    shown, etag = await _show(blogs, user, viewer)
    conditions.show(etag)
    return shown


@router.patch(
    "/{user_id:anybody_else}",
    summary="Change a user",
    response_model=UserOwn,
    responses=refusals(*BEARER, *BODY, InsufficientScope, AdminRequired, UserNotFound, PreconditionFailed),
)
async def update_user(
    admin: Admin, user: NamedUser, users: Users, blogs: Blogs, conditions: Conditions, data: UserUpdate
) -> User:
    """Change a user's role or activity; a blocked user's logins are over. Only for admins."""
    await _demand(conditions, users, blogs, user.id, admin)
    return await _change(users, user, data)


@router.delete(
    "/{user_id:anybody_else}",
    summary="Delete a user",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(
        *BEARER,
        *BODY,
        InsufficientScope,
        AdminRequired,
        WrongPassword,
        UserNotFound,
        PreconditionFailed,
        UserHasBlogs,
        TooManyFailures,
        Busy,
    ),
)
async def delete_user(
    caller: UserWriter,
    user_id: Annotated[PathId, Path()],
    confirm: ConfirmPassword,
    users: Users,
    written: Blogs,
    conditions: Conditions,
    blogs: Annotated[Literal["delete", "reassign"] | None, Query(description="What becomes of the blogs.")] = None,
    to: Annotated[Id | None, Query(description="Whose they are then, with `blogs=reassign`.")] = None,
    data: UserDelete | None = None,
) -> None:
    """Delete a user: oneself with the password, or anybody as an admin, who alone may give the blogs to another.

    What only admins may needs a token with the scope `admin`, too.
    """
    if user_id != caller.user.id or blogs == "reassign":
        caller.require(Scope.ADMIN)
    if user_id == caller.user.id:
        # Before the transaction begins: it would wait for the hash, and on SQLite all writers with it.
        await confirm(data.current_password if data else None)
    if (to is not None) != (blogs == "reassign"):
        raise Invalid("Say blogs=reassign and to={id} together.")
    turn = await written.take_turn() if blogs else 0
    if user_id == caller.user.id:
        await users.hold(caller.user)
    else:
        await users.lock(user_id)
    await _demand(conditions, users, written, user_id, caller)
    if to is not None:
        await written.give_all_of(user_id, turn, to=to)
        await users.give_media(user_id, to=to)
    elif blogs:
        await written.remove_all_of(user_id, turn)
    await users.remove(user_id)
    security_event("user_deleted", deleted=user_id, blogs=blogs)


async def _show(blogs: BlogRepository, user: User, viewer: Caller) -> tuple[UserPublic, str]:
    """What `viewer` sees of this user, and its entity tag."""
    newest = await blogs.page(PageRequest(NEWEST_BLOGS, None), viewer=viewer, fields=IN_TITLE, author=user.id)
    sees_all = user.id == viewer.user.id or viewer.is_admin
    shown = UserPublic(
        id=user.id,
        name=user.name,
        about=user.about,
        email=user.email if sees_all else None,
        created_at=user.created_at,
        blogs=[BlogTitle.model_validate(blog) for blog in newest.rows],
    )
    # What admins change is seen elsewhere, but of two who change it at once one shall hear of the other. Nobody else
    # gets a tag of it, which would tell by trying what it is.
    return shown, etag_of(shown, UserOwn.model_validate(user)) if sees_all else etag_of(shown)


async def _demand(
    conditions: Preconditions, users: UserRepository, blogs: BlogRepository, user_id: int, caller: Caller
) -> None:
    if conditions.demands_etag:
        _, etag = await _show(blogs, await users.lock(user_id), caller)
        conditions.demand(etag)


async def _change(users: UserRepository, user: User, data: UserUpdate) -> User:
    changes = data.model_dump(exclude_unset=True, exclude={"id"})
    changed = await users.update(user, changes)
    security_event("user_changed", changed=user.id, **changes)
    return changed
