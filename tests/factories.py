"""What a test needs before it begins, put straight into the database."""

from collections.abc import Collection
from datetime import datetime, timedelta
from itertools import count
from typing import Any, cast

from fastapi import FastAPI
from passlib.hash import bcrypt_sha256
from sqlalchemy.ext.asyncio import AsyncSession

from blog.markdown import MESSAGES, VERSION, render
from blog.models import Blog, LoginSession, Role, Room, User, fold, now
from blog.repository.blog import BlogRepository
from blog.repository.login import Lifetimes, LoginRepository, PersonalTokenRepository
from blog.repository.room import RoomRepository
from blog.repository.user import UserRepository
from blog.schemas.blog import BlogWrite
from blog.schemas.room import RoomCreate
from blog.security.access import ALL, Caller, Scope
from blog.security.opaque import RefreshToken, make_refresh_token

LIFETIMES = Lifetimes(timedelta(days=14), timedelta(days=90))
PASSWORD = "correct horse battery"
PASSWORD_HASH = bcrypt_sha256.using(rounds=4).hash(PASSWORD)  # type: ignore[no-untyped-call]


def bearer(token: str) -> dict[str, str]:
    """The headers of a request with this token."""
    return {"Authorization": f"Bearer {token}"}


def blog_row(creator_id: int, title: str = "Notes", **fields: Any) -> Blog:
    """The row of a published blog and nothing else: no slug leads to it, no search finds it."""
    given: dict[str, Any] = {"slug": "", "summary": "", "html": "", "renderer": VERSION, "tags": [], "is_draft": False}
    given |= {"title": title, "title_folded": fold(title), "body": "Text", "creator_id": creator_id}
    return Blog(**given | fields)


async def _log_in(session: AsyncSession, user: User) -> tuple[LoginSession, RefreshToken]:
    token = make_refresh_token()
    seen = {"user_agent": "factory", "address": "192.0.2.7"}
    return await LoginRepository(session).add(user.id, token, ALL, LIFETIMES, **seen), token


class Factory:
    """Users, blogs and rooms of one app."""

    def __init__(self, app: FastAPI) -> None:
        self._state = app.state
        self._numbers = count(1)
        self.logins: dict[int, LoginSession] = {}

    async def user(
        self,
        name: str = "Ada",
        *,
        role: Role = Role.AUTHOR,
        email: str | None = None,
        password_hash: str = PASSWORD_HASH,
        is_active: bool = True,
    ) -> User:
        """A new user, who is logged in."""
        email = email or f"{name.lower()}{next(self._numbers)}@example.com"
        async with self._state.database.write.begin() as session:
            users = UserRepository(session)
            user = await users.add(name, email, password_hash, role=role)
            self.logins[user.id], _ = await _log_in(session, user)
            if not is_active:
                await users.update(user, {"is_active": False})
        return user

    async def admin(self) -> User:
        return await self.user("Root", role=Role.ADMIN)

    async def blog(
        self,
        creator: User,
        title: str = "Notes",
        body: str = "Text",
        *,
        published_at: datetime | None = None,
        **fields: Any,
    ) -> Blog:
        """A new blog; published now, unless `published_at` or `status` says otherwise."""
        if published_at is not None:
            fields["publish_at"] = published_at.isoformat()
        data = BlogWrite.model_validate({"title": title, "body": body} | fields)
        async with self._state.database.write.begin() as session:
            blog_id = await BlogRepository(session).add(cast(Any, creator), data, render(body))
        blog = await self.stored(blog_id)
        assert blog is not None
        return blog

    async def stored(self, blog_id: int) -> Blog | None:
        """The blog's row, as it is now."""
        async with self._state.database.fresh() as session:
            return cast("Blog | None", await session.get(Blog, blog_id))

    async def room(self, owner: User, name: str = "Looms", **fields: Any) -> Room:
        """A new room of this user's."""
        data = RoomCreate.model_validate({"name": name} | fields)
        async with self._state.database.write.begin() as session:
            return await RoomRepository(session).add(owner.id, data)

    async def message(self, room_id: int, writer: User, body: str = "Text") -> int:
        """The number of a new message."""
        caller, html = Caller(cast(Any, writer), ALL), render(body, MESSAGES).html
        async with self._state.database.write.begin() as session:
            rooms = RoomRepository(session)
            return await rooms.post(await rooms.hold(room_id), caller, body, html, moderates=True)

    def login(self, user: User, scopes: Collection[Scope] = ALL) -> dict[str, str]:
        """The headers of a request in this user's first login, with a token that is good for these scopes."""
        return self._access(user, self.logins[user.id], scopes)

    async def another_login(self, user: User) -> dict[str, str]:
        """The headers of a request in a new login of this user's."""
        async with self._state.database.write.begin() as session:
            login, _ = await _log_in(session, user)
        return self._access(user, login, ALL)

    async def refresh_token(self, user: User) -> str:
        """The refresh token of a new login of this user's."""
        async with self._state.database.write.begin() as session:
            _, token = await _log_in(session, user)
        return str(token)

    def _access(self, user: User, login: LoginSession, scopes: Collection[Scope]) -> dict[str, str]:
        return bearer(self._state.tokens.issue(user.public_id, login.public_id, scopes, seconds=900))

    async def personal_token(
        self, user: User, scopes: Collection[Scope] = ALL, *, lifetime: timedelta = timedelta(days=1)
    ) -> str:
        """A personal token of this user's."""
        async with self._state.database.write.begin() as session:
            tokens = PersonalTokenRepository(session)
            _, text = await tokens.add(user.id, "Script", scopes, now() + lifetime)
        return text

    async def logged_in(self, name: str = "Ada", *, role: Role = Role.AUTHOR) -> tuple[User, dict[str, str]]:
        """A new user and the headers of a request by that user."""
        user = await self.user(name, role=role)
        return user, self.login(user)
