"""All SQL about users."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Delete, Row, Update, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import SQLModel, col

from blog.errors import EmailTaken, InvalidToken, UserHasBlogs, UserNotFound
from blog.models import NAME_LENGTH, Blog, Role, User, fold, now
from blog.repository import UserRow, assign, execute
from blog.schemas.types import Page, PageRequest

NEWEST_BLOGS = 20
BLOGS_AT_ONCE = 1_000
"""Blogs that one statement deletes or gives to another, so that none outlasts the time a statement has."""

BlogTitleRow = Row[int, str, datetime]

BY_ID = select(User).where(col(User.id) == bindparam("id"))
BY_PUBLIC_ID = select(SQLModel.metadata.tables["user"]).where(col(User.public_id) == bindparam("public_id"))
BY_EMAIL = select(User).where(col(User.email_folded) == bindparam("email"))
NEWEST = (
    select(col(Blog.id), col(Blog.title), col(Blog.published_at))
    .where(col(Blog.creator_id) == bindparam("id"))
    .order_by(col(Blog.published_at).desc(), col(Blog.id).desc())
    .limit(NEWEST_BLOGS)
)
HOLD = (
    select(User)
    .where(
        col(User.id) == bindparam("id"),
        col(User.password_hash) == bindparam("password_hash"),
        col(User.login_generation) == bindparam("generation"),
        col(User.is_active),
    )
    .with_for_update()
)
LOCK = select(col(User.id)).where(col(User.id) == bindparam("id")).with_for_update()
DELETE = delete(User).where(col(User.id) == bindparam("id")).execution_options(synchronize_session=False)
BLOGS_OF = select(col(Blog.id)).where(col(Blog.creator_id) == bindparam("creator"))
DELETE_BLOGS = (
    delete(Blog).where(col(Blog.id).in_(bindparam("ids", expanding=True))).execution_options(synchronize_session=False)
)
REASSIGN_BLOGS = (
    update(Blog)
    .where(col(Blog.id).in_(bindparam("ids", expanding=True)))
    .values(creator_id=bindparam("to"))
    .execution_options(synchronize_session=False)
)
UPGRADE_HASH = (
    update(User)
    .where(col(User.id) == bindparam("user_id"), col(User.password_hash) == bindparam("outdated"))
    .values(password_hash=bindparam("better"))
    .execution_options(synchronize_session=False)
)


class UserRepository:
    """Users in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, user_id: int) -> User | None:
        """The user with this id."""
        return await self._session.scalar(BY_ID, {"id": user_id})

    async def read_by_public_id(self, public_id: str) -> UserRow | None:
        """The user whom a token names, to be known and shown but not changed."""
        return (await execute(self._session, BY_PUBLIC_ID, {"public_id": public_id})).one_or_none()

    async def get_by_email(self, email: str) -> User | None:
        """The user with this address, in whatever case it is written."""
        return await self._session.scalar(BY_EMAIL, {"email": fold(email)})

    async def hold(self, user: UserRow) -> User:
        """The user of this request's login, to be changed, and locked for this transaction.

        Raises InvalidToken when the password or the login is another by now, as after a reset that
        came while this request waited for a hash.
        """
        seen = {"id": user.id, "password_hash": user.password_hash, "generation": user.login_generation}
        held = await self._session.scalar(HOLD, seen)
        if held is None:
            raise InvalidToken
        return held

    async def get_many(self, ids: Collection[int]) -> dict[int, User]:
        """Those of these users that exist, by id, and locked in one order so that two do not wait for each other."""
        statement = select(User).where(col(User.id).in_(ids)).order_by(col(User.id)).with_for_update()
        users = await self._session.scalars(statement)
        return {user.id: user for user in users}

    async def has_admin(self) -> bool:
        """Whether anybody active is an admin."""
        statement = select(col(User.id)).where(col(User.role) == Role.ADMIN, col(User.is_active)).limit(1)
        return await self._session.scalar(statement) is not None

    async def newest_blogs(self, user: User) -> Sequence[BlogTitleRow]:
        """Id, title and time of the user's newest blogs, at most 20."""
        return (await self._session.execute(NEWEST, {"id": user.id})).all()

    async def page(
        self, page: PageRequest, *, role: Role | None = None, is_active: bool | None = None, q: str | None = None
    ) -> Page[User]:
        """Users, the newest first; `q` is part of the name or the address, in any case."""
        statement = select(User).order_by(col(User.id).desc()).limit(page.limit + 1)
        if page.after is not None:
            statement = statement.where(col(User.id) < page.after[0])
        if role is not None:
            statement = statement.where(col(User.role) == role)
        if is_active is not None:
            statement = statement.where(col(User.is_active) == is_active)
        if q is not None:
            part = fold(q)
            statement = statement.where(
                col(User.name_folded).contains(part, autoescape=True)
                | col(User.email_folded).contains(part, autoescape=True)
            )
        users = (await self._session.scalars(statement)).all()
        more = len(users) > page.limit
        users = users[: page.limit]
        return Page(users, (users[-1].id,) if more else None)

    async def add(self, name: str, email: str, password_hash: str, *, role: Role) -> User:
        """A new user. Raises EmailTaken."""
        user = User(
            name=name,
            name_folded=_folded_name(name),
            email=email,
            email_folded=fold(email),
            password_hash=password_hash,
            role=role,
        )
        self._session.add(user)
        await self._flush()
        return user

    async def update(self, user: User, changes: Mapping[str, Any]) -> User:
        """The user with these columns changed. Raises EmailTaken and UserNotFound.

        Blocking ends every login, so that none comes back when the block goes.
        """
        changes = dict(changes)
        if "name" in changes:
            changes["name_folded"] = _folded_name(changes["name"])
        if "email" in changes:
            changes["email_folded"] = fold(changes["email"])
        if changes.get("is_active") is False:
            changes |= _new_generation(spare=None)
        if changes:
            changes["updated_at"] = now()
        assign(user, changes)
        await self._flush()
        return user

    async def change_password(self, user: User, password_hash: str, *, spare: str | None = None) -> None:
        """Set another hash and end every login but that of the token `spare`. Raises UserNotFound."""
        await self.update(user, {"password_hash": password_hash} | _new_generation(spare=spare))

    async def upgrade_hash(self, user: User, better: str) -> None:
        """Replace the hash by a better one of the same password, unless another came in between."""
        outdated = {"user_id": user.id, "outdated": user.password_hash, "better": better}
        await self._session.execute(UPGRADE_HASH, outdated)

    async def remove(
        self, user_id: int, *, blogs: Literal["delete", "reassign"] | None = None, to: int | None = None
    ) -> None:
        """Delete the user, and the blogs too or give them to the user `to`.

        Raises UserNotFound for either user, and UserHasBlogs when nothing is said of the blogs.
        """
        # Locked first: whoever writes a blog for this user now waits, and then finds no user.
        if await self._session.scalar(LOCK, {"id": user_id}) is None:
            raise UserNotFound
        if blogs == "delete":
            await self._each_blog_of(user_id, DELETE_BLOGS)
        elif blogs == "reassign":
            if await self._session.scalar(LOCK, {"id": to}) is None:
                raise UserNotFound("There is no user with the id that the blogs should go to.")
            await self._each_blog_of(user_id, REASSIGN_BLOGS, to=to)
        try:
            await self._session.execute(DELETE, {"id": user_id})
        except IntegrityError as error:
            raise UserHasBlogs from error

    async def _each_blog_of(self, creator: int, statement: Delete | Update, **values: int | None) -> None:
        ids = (await self._session.scalars(BLOGS_OF, {"creator": creator})).all()
        for start in range(0, len(ids), BLOGS_AT_ONCE):
            await self._session.execute(statement, {"ids": ids[start : start + BLOGS_AT_ONCE]} | values)

    async def _flush(self) -> None:
        try:
            await self._session.flush()
        except IntegrityError as error:
            raise EmailTaken from error
        except StaleDataError as error:
            raise UserNotFound from error


def _folded_name(name: str) -> str:
    # Folding can make text longer.
    return fold(name)[: NAME_LENGTH * 2]


def _new_generation(*, spare: str | None) -> dict[str, Any]:
    return {"login_generation": uuid4().hex, "spared_token_id": spare}
