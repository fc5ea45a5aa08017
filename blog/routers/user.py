"""Users."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.convertors import Convertor, register_url_convertor
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from blog.dependencies import (
    Admin,
    ConfirmPassword,
    CurrentClaims,
    CurrentUser,
    NamedUser,
    Passwords,
    RequestedPage,
    SettingsOfApp,
    Users,
    get_admin,
)
from blog.errors import (
    AdminRequired,
    Busy,
    DatabaseUnavailable,
    EmailTaken,
    Invalid,
    InvalidCursor,
    RegistrationClosed,
    TooManyFailures,
    UserHasBlogs,
    UserNotFound,
    WeakPassword,
    WrongPassword,
)
from blog.logs import security_event
from blog.models import Role, User
from blog.repository import UserRow
from blog.repository.user import UserRepository
from blog.schemas.problem import BEARER, BODY, LINK_TO_NEXT, LOCATION, refusals
from blog.schemas.types import Id, Line, PathId
from blog.schemas.user import (
    PasswordChange,
    ProfileUpdate,
    UserBulkUpdates,
    UserCreate,
    UserDelete,
    UserOwn,
    UserPublic,
    UserUpdate,
)

router = APIRouter(prefix="/user", tags=["user"])


class AnybodyElse(Convertor[str]):
    """A user in a path, but not `me`: what `/user/me` does not take would be taken for `/user/{user_id}`."""

    regex = "(?!me$)[^/]+"

    def convert(self, value: str) -> str:
        """As it stands: whether it is an id is for the route to judge."""
        return value

    def to_string(self, value: object) -> str:
        """What stands in the path of this user."""
        return str(value)


register_url_convertor("anybody_else", AnybodyElse())


@router.post(
    "/",
    summary="Register",
    status_code=HTTP_201_CREATED,
    response_model=UserOwn,
    responses=refusals(*BODY, RegistrationClosed, EmailTaken, WeakPassword, Busy, DatabaseUnavailable) | LOCATION,
)
async def register(
    data: UserCreate,
    settings: SettingsOfApp,
    passwords: Passwords,
    users: Users,
    request: Request,
    response: Response,
) -> User:
    """Add a user who can log in with this address and password."""
    if settings.registration == "closed":
        raise RegistrationClosed
    password_hash = await passwords.hash(data.password)
    user = await users.add(data.name, data.email, password_hash, role=Role(settings.default_role))
    security_event("user_registered", registered=user.id)
    response.headers["Location"] = request.url_for("show_user", user_id=user.id).path
    return user


@router.get(
    "/",
    summary="List users",
    response_model=list[UserOwn],
    responses=refusals(*BEARER, AdminRequired, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_users(
    _: Admin,
    users: Users,
    page: RequestedPage,
    role: Annotated[Role | None, Query(description="Users with this role.")] = None,
    is_active: Annotated[bool | None, Query(description="`false` for those who are blocked.")] = None,
    q: Annotated[Line | None, Query(max_length=100, description="Part of the name or the address.")] = None,
) -> Sequence[User]:
    """List users, the newest first. Only for admins."""
    return page.answer(await users.page(page.request, role=role, is_active=is_active, q=q))


@router.put(
    "/",
    summary="Change several users",
    response_model=list[UserOwn],
    responses=refusals(*BEARER, *BODY, AdminRequired, UserNotFound),
)
async def update_users(_: Admin, users: Users, data: UserBulkUpdates) -> list[User]:
    """Change role and activity of several users, all or none. Only for admins."""
    found = await users.get_many([update.id for update in data])
    if len(found) < len(data):
        raise UserNotFound("One of these users does not exist. None was changed.")
    return [await _change(users, found[update.id], update) for update in data]


@router.get("/me", summary="Read your own record", response_model=UserOwn, responses=refusals(*BEARER))
async def show_me(user: CurrentUser) -> UserRow:
    """Read your own record."""
    return user


@router.patch(
    "/me",
    summary="Change your own record",
    response_model=UserOwn,
    responses=refusals(*BEARER, *BODY, WrongPassword, EmailTaken, TooManyFailures, Busy),
)
async def update_me(data: ProfileUpdate, user: CurrentUser, confirm: ConfirmPassword, users: Users) -> User:
    """Change your name, your address or what you say about yourself. A new address needs your password."""
    changes = data.model_dump(exclude_unset=True, exclude={"current_password"})
    if "email" in changes:
        await confirm(data.current_password)
    changed = await users.update(await users.hold(user), changes)
    if "email" in changes:
        security_event("email_changed")
    return changed


@router.put(
    "/me/password",
    summary="Change your password",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, *BODY, WrongPassword, WeakPassword, TooManyFailures, Busy),
)
async def change_password(
    data: PasswordChange,
    user: CurrentUser,
    claims: CurrentClaims,
    confirm: ConfirmPassword,
    passwords: Passwords,
    users: Users,
) -> None:
    """Change your password. Every login of yours but this one is over."""
    await confirm(data.current_password)
    password_hash = await passwords.hash(data.new_password)
    await users.change_password(await users.hold(user), password_hash, spare=claims.token_id)
    security_event("password_changed")


@router.get(
    "/{user_id:anybody_else}",
    summary="Read a user",
    response_model=UserPublic,
    responses=refusals(*BEARER, UserNotFound, Invalid),
)
async def show_user(viewer: CurrentUser, user: NamedUser, users: Users) -> UserPublic:
    """Read a user, with the newest blogs."""
    sees_email = user.id == viewer.id or viewer.role is Role.ADMIN
    return UserPublic(
        id=user.id,
        name=user.name,
        about=user.about,
        email=user.email if sees_email else None,
        created_at=user.created_at,
        blogs=await users.newest_blogs(user),
    )


@router.patch(
    "/{user_id:anybody_else}",
    summary="Change a user",
    response_model=UserOwn,
    responses=refusals(*BEARER, *BODY, AdminRequired, UserNotFound),
)
async def update_user(_: Admin, user: NamedUser, users: Users, data: UserUpdate) -> User:
    """Change a user's role or activity; a blocked user's logins are over. Only for admins."""
    return await _change(users, user, data)


@router.delete(
    "/{user_id:anybody_else}",
    summary="Delete a user",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, *BODY, AdminRequired, WrongPassword, UserNotFound, UserHasBlogs, TooManyFailures, Busy),
)
async def delete_user(
    viewer: CurrentUser,
    user_id: Annotated[PathId, Path()],
    confirm: ConfirmPassword,
    users: Users,
    blogs: Annotated[Literal["delete", "reassign"] | None, Query(description="What becomes of the blogs.")] = None,
    to: Annotated[Id | None, Query(description="Whose they are then, with `blogs=reassign`.")] = None,
    data: UserDelete | None = None,
) -> None:
    """Delete a user: oneself with the password, or anybody as an admin, who alone may give the blogs to another."""
    if user_id != viewer.id or blogs == "reassign":
        await get_admin(viewer)
    if user_id == viewer.id:
        # Before the transaction begins: it would wait for the hash, and on SQLite all writers with it.
        await confirm(data.current_password if data else None)
        await users.hold(viewer)
    if (to is not None) != (blogs == "reassign"):
        raise Invalid("Say blogs=reassign and to={id} together.")
    await users.remove(user_id, blogs=blogs, to=to)
    security_event("user_deleted", deleted=user_id, blogs=blogs)


async def _change(users: UserRepository, user: User, data: UserUpdate) -> User:
    changes = data.model_dump(exclude_unset=True, exclude={"id"})
    changed = await users.update(user, changes)
    security_event("user_changed", changed=user.id, **changes)
    return changed
