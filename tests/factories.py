"""What a test needs before it begins, put straight into the database."""

from datetime import datetime
from itertools import count
from typing import Any, cast

from fastapi import FastAPI
from passlib.hash import bcrypt_sha256

from blog.models import Blog, Role, User
from blog.repository.blog import BlogRepository
from blog.repository.user import UserRepository

PASSWORD = "correct horse battery"
PASSWORD_HASH = bcrypt_sha256.using(rounds=4).hash(PASSWORD)  # type: ignore[no-untyped-call]


class Factory:
    """Users and blogs of one app."""

    def __init__(self, app: FastAPI) -> None:
        self._state = app.state
        self._numbers = count(1)

    async def user(
        self,
        name: str = "Ada",
        *,
        role: Role = Role.AUTHOR,
        email: str | None = None,
        password_hash: str = PASSWORD_HASH,
        is_active: bool = True,
    ) -> User:
        email = email or f"{name.lower()}{next(self._numbers)}@example.com"
        async with self._state.database.write.begin() as session:
            users = UserRepository(session)
            user = await users.add(name, email, password_hash, role=role)
            if not is_active:
                await users.update(user, {"is_active": False})
        return user

    async def admin(self) -> User:
        return await self.user("Root", role=Role.ADMIN)

    async def blog(
        self, creator: User, title: str = "Notes", body: str = "Text", *, published_at: datetime | None = None
    ) -> Blog:
        async with self._state.database.write.begin() as session:
            blogs = BlogRepository(session)
            added = await blogs.add(cast(Any, creator), title, body)
            blog = await blogs.get(added["id"])
            assert blog is not None
            if published_at is not None:
                await blogs.update(blog, {"published_at": published_at})
        return blog

    def login(self, user: User) -> dict[str, str]:
        """The headers of a request by this user."""
        return {"Authorization": f"Bearer {self._state.tokens.issue(user.public_id, user.login_generation)}"}

    async def logged_in(self, name: str = "Ada", *, role: Role = Role.AUTHOR) -> tuple[User, dict[str, str]]:
        """A new user and the headers of a request by that user."""
        user = await self.user(name, role=role)
        return user, self.login(user)
