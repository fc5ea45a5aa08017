"""All SQL about users."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Delete, Select, Update, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import SQLModel, col

from blog.errors import EmailTaken, InvalidToken, Refusal, UserHasBlogs, UserNotFound
from blog.models import NAME_LENGTH, Media, ProfileCounter, Role, User, fold, now
from blog.repository import AnyRow, assign, execute, newest_first
from blog.schemas.types import Page, PageRequest
from blog.security.access import UserRow

ROWS_AT_ONCE = 1_000
"""Images that one statement deletes or gives to another, so that none outlasts the time a statement has."""

BY_ID = select(User).where(col(User.id) == bindparam("id"))
BY_EMAIL = select(User).where(col(User.email_folded) == bindparam("email"))
HOLD = (
    select(User)
    .where(
        col(User.id) == bindparam("id"),
        col(User.password_hash) == bindparam("password_hash"),
        col(User.is_active),
    )
    .with_for_update()
)
LOCKED = BY_ID.with_for_update().execution_options(populate_existing=True)
DELETE = delete(User).where(col(User.id) == bindparam("id"))
MEDIA_OF = select(col(Media.id)).where(col(Media.owner_id) == bindparam("owner"))
DELETE_MEDIA = delete(Media).where(col(Media.id).in_(bindparam("ids", expanding=True)))
REASSIGN_MEDIA = (
    update(Media).where(col(Media.id).in_(bindparam("ids", expanding=True))).values(owner_id=bindparam("to"))
)
COUNT_PROFILE = update(ProfileCounter).values(number=col(ProfileCounter.number) + 1)
ON_PAGES = {"name", "about"}
"""What pages show of a user."""
# What lets somebody in as this user: found by the user, deleted by its key, in the order in which all others do it.
LOGINS, _, LINKS = ACCESS = ("login_session", "personal_token", "one_time_link")
OF_USER: dict[str, Select[int]] = {}
DELETE_BY_ID: dict[str, Delete] = {}
KEPT_ANSWERS = "idempotency_key"
for name, table in ((name, SQLModel.metadata.tables[name]) for name in (*ACCESS, KEPT_ANSWERS)):
    (key,) = table.primary_key.columns
    OF_USER[name] = select(key).where(table.c.user_id == bindparam("owner")).order_by(key)
    DELETE_BY_ID[name] = delete(table).where(key.in_(bindparam("ids", expanding=True)))


class UserRepository:
    """Users in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, user_id: int) -> User | None:
        """The user with this id."""
        return await self._session.scalar(BY_ID, {"id": user_id})

    async def get_by_email(self, email: str) -> User | None:
        """The user with this address, in whatever case it is written."""
        return await self._session.scalar(BY_EMAIL, {"email": fold(email)})

    async def hold(self, user: UserRow | User, *, or_raise: type[Refusal] = InvalidToken) -> User:
        """The user who asks, to be changed, and locked for this transaction.

        Raises InvalidToken, or what is named instead, when the user is blocked or the password is another by now,
        as after a reset that came while this request waited for a hash.
        """
        seen = {"id": user.id, "password_hash": user.password_hash}
        held = await self._session.scalar(HOLD, seen)
        if held is None:
            raise or_raise
        return held

    async def lock(self, user_id: int) -> User:
        """The user with this id, whom nobody else changes or writes for until this transaction ends.

        Raises UserNotFound.
        """
        user = await self._session.scalar(LOCKED, {"id": user_id})
        if user is None:
            raise UserNotFound
        return user

    async def get_many(self, ids: Collection[int]) -> dict[int, User]:
        """Those of these users that exist, by id, and locked in one order so that two do not wait for each other."""
        statement = select(User).where(col(User.id).in_(ids)).order_by(col(User.id)).with_for_update()
        users = await self._session.scalars(statement)
        return {user.id: user for user in users}

    async def has_admin(self) -> bool:
        """Whether anybody active is an admin."""
        statement = select(col(User.id)).where(col(User.role) == Role.ADMIN, col(User.is_active)).limit(1)
        return await self._session.scalar(statement) is not None

    async def page(
        self, page: PageRequest, *, role: Role | None = None, is_active: bool | None = None, q: str | None = None
    ) -> Page[AnyRow]:
        """Users, the newest first; `q` is part of the name or the address, in any case."""
        users = SQLModel.metadata.tables["user"]
        statement = select(users)
        given = {"is_active": is_active, "role": role}
        chosen = {name: value for name, value in given.items() if value is not None}
        for name, value in chosen.items():
            statement = statement.where(users.c[name] == value)
        if q is not None:
            part = fold(q)
            statement = statement.where(
                col(User.name_folded).contains(part, autoescape=True)
                | col(User.email_folded).contains(part, autoescape=True)
            )
        index = f"ix_user_{'_'.join(chosen)}_id" if chosen else None
        return await newest_first(self._session, statement, users.c.id, page, {}, index=index)

    async def add(self, name: str, email: str, password_hash: str, *, role: Role, verified: bool = False) -> User:
        """A new user, whose address may be known to be the user's. Raises EmailTaken."""
        user = User(
            name=name,
            name_folded=_folded_name(name),
            email=email,
            email_folded=fold(email),
            password_hash=password_hash,
            role=role,
            email_verified_at=now() if verified else None,
        )
        self._session.add(user)
        await self._flush()
        return user

    async def update(self, user: User, changes: Mapping[str, Any]) -> User:
        """The user with these columns changed. Raises EmailTaken and UserNotFound.

        Blocking ends every login, token and link, so that none comes back when the block goes. A new address
        ends the links that went to the old one, a new role the invitations that the old one allowed.
        """
        changes = dict(changes)
        if "name" in changes:
            changes["name_folded"] = _folded_name(changes["name"])
        if "email" in changes:
            changes["email_folded"] = fold(changes["email"])
            if changes["email_folded"] != user.email_folded:
                changes.setdefault("email_verified_at", None)
        if changes:
            changes["updated_at"] = now()
        assign(user, changes)
        await self._flush()
        if changes.get("is_active") is False:
            await self._end(user.id, *ACCESS)
        elif "email" in changes or "role" in changes:
            await self._end(user.id, LINKS)
        if ON_PAGES & changes.keys():
            await execute(self._session, COUNT_PROFILE, {})
        return user

    async def change_password(
        self, user: User, password_hash: str, *, spare: int | None = None, **changes: Any
    ) -> None:
        """Set another hash, and end every login but `spare`, every personal token, link and invitation.

        Raises UserNotFound.
        """
        await self.update(user, {"password_hash": password_hash} | changes)
        await self._end(user.id, *ACCESS, spare=spare)

    async def give_media(self, user_id: int, *, to: int) -> None:
        """Give the images of this user, who is locked, to another."""
        await self._each_image_of(user_id, REASSIGN_MEDIA, to=to)

    async def remove(self, user_id: int) -> None:
        """Delete the user, who is locked or held, with the images that are left. Raises UserHasBlogs."""
        await self._each_image_of(user_id, DELETE_MEDIA)
        await self._end(user_id, *ACCESS, KEPT_ANSWERS)
        try:
            await execute(self._session, DELETE, {"id": user_id})
        except IntegrityError as error:
            raise UserHasBlogs from error
        await execute(self._session, COUNT_PROFILE, {})

    async def _end(self, user_id: int, *tables: str, spare: int | None = None) -> None:
        for table in tables:
            found = await self._session.scalars(OF_USER[table], {"owner": user_id})
            ids = [number for number in found if table != LOGINS or number != spare]
            if ids:
                await self._session.execute(DELETE_BY_ID[table], {"ids": ids})

    async def _each_image_of(self, owner: int, statement: Delete | Update, **values: int) -> None:
        ids = (await self._session.scalars(MEDIA_OF, {"owner": owner})).all()
        for start in range(0, len(ids), ROWS_AT_ONCE):
            await execute(self._session, statement, {"ids": ids[start : start + ROWS_AT_ONCE]} | values)

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
