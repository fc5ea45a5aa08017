"""All SQL about logins and personal tokens."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import DateTime, bindparam, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from blog.models import ADDRESS_LENGTH, USER_AGENT_LENGTH, LoginSession, PersonalToken, now
from blog.repository import AnyRow, affects, execute, newest_first
from blog.schemas.types import UNSTORABLE, Page, PageRequest
from blog.security.access import SCOPES_OF, Caller, Scope, UserRow, read_scopes, write_scopes
from blog.security.opaque import PERSONAL, Cookie, RefreshToken, digest, make
from blog.security.tokens import Claims

MOST_LOGINS = 100
"""Living logins of one user: a program that logs in and never out ends its own oldest."""

NOTED_AGAIN_AFTER = timedelta(minutes=1)
"""How much later a personal token's next use is noted."""

users = SQLModel.metadata.tables["user"]
logins = SQLModel.metadata.tables["login_session"]
personal_tokens = SQLModel.metadata.tables["personal_token"]

# `now` is a function of SQL.
at = bindparam("at", type_=DateTime(timezone=True))

CALLER_BY_LOGIN = (
    select(users, logins.c.id.label("login_id"))
    .join(logins, logins.c.user_id == users.c.id)
    .where(
        logins.c.public_id == bindparam("login"),
        logins.c.expires_at > at,
        users.c.public_id == bindparam("subject"),
        users.c.is_active,
    )
)
CALLER_BY_PERSONAL_TOKEN = (
    select(
        users,
        personal_tokens.c.id.label("token_id"),
        personal_tokens.c.scope.label("token_scope"),
        personal_tokens.c.last_used_at.label("token_last_used_at"),
    )
    .join(personal_tokens, personal_tokens.c.user_id == users.c.id)
    .where(personal_tokens.c.token_digest == bindparam("digest"), personal_tokens.c.expires_at > at, users.c.is_active)
)
CALLER_BY_COOKIE = (
    select(users, logins.c.id.label("login_id"), logins.c.last_used_at, logins.c.created_at.label("began_at"))
    .join(logins, logins.c.user_id == users.c.id)
    .where(
        logins.c.family_digest == bindparam("family"),
        logins.c.refresh_digest == bindparam("secret"),
        logins.c.expires_at > at,
        users.c.is_active,
    )
)
GO_ON = (
    update(logins).where(logins.c.id == bindparam("login_id")).values(last_used_at=at, expires_at=bindparam("until"))
)
BY_FAMILY = (
    select(logins, users.c.public_id.label("subject"), users.c.role)
    .join(users, users.c.id == logins.c.user_id)
    .where(logins.c.family_digest == bindparam("family"), logins.c.expires_at > at, users.c.is_active)
)
ROTATE = (
    update(logins)
    .where(logins.c.id == bindparam("login_id"), logins.c.refresh_digest == bindparam("used"))
    .values(refresh_digest=bindparam("next"), last_used_at=at, expires_at=bindparam("until"))
)
OF_USER = select(logins).where(logins.c.user_id == bindparam("owner"), logins.c.expires_at > at)
BY_ID = OF_USER.where(logins.c.id == bindparam("login_id"))
# All by the primary key alone: two that came by different indexes would wait for each other on MariaDB, which comes by
# the owner's index as soon as the owner is asked for too.
END = delete(logins).where(logins.c.id == bindparam("login_id"))
END_ALL = delete(logins).where(logins.c.id.in_(bindparam("ids", expanding=True)))
ALL_OF_USER = (
    select(logins.c.id, logins.c.expires_at).where(logins.c.user_id == bindparam("owner")).order_by(logins.c.id.desc())
)
REVOKE = delete(personal_tokens).where(personal_tokens.c.id == bindparam("token_id"))
LOCK_PERSONAL_TOKEN = select(personal_tokens).where(personal_tokens.c.id == bindparam("token_id")).with_for_update()
PERSONAL_TOKENS_OF_USER = select(personal_tokens).where(personal_tokens.c.user_id == bindparam("owner"))
PERSONAL_TOKEN_OF_USER = PERSONAL_TOKENS_OF_USER.where(personal_tokens.c.id == bindparam("token_id"))
NOTE_USE = (
    update(personal_tokens)
    .where(
        personal_tokens.c.id == bindparam("token_id"),
        or_(personal_tokens.c.last_used_at.is_(None), personal_tokens.c.last_used_at < bindparam("before")),
    )
    .values(last_used_at=at)
)


class Lifetimes(NamedTuple):
    """How long a login lasts: unused, and in all."""

    idle: timedelta
    absolute: timedelta

    def end(self, began_at: datetime) -> datetime:
        """When a login that began then and is used now is over."""
        return min(now() + self.idle, began_at + self.absolute)


class LoginRepository:
    """Logins in one session of the database."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find_caller(self, claims: Claims) -> Caller | None:
        """Whoever asks with these claims, if the login lives and its user is not blocked."""
        seen = {"login": claims.login, "subject": claims.subject, "at": now()}
        user = (await execute(self._session, CALLER_BY_LOGIN, seen)).one_or_none()
        if user is None:
            return None
        return Caller(user, claims.scopes & SCOPES_OF[user.role], login_id=user.login_id)

    async def find_by_cookie(self, cookie: Cookie) -> tuple[Caller, AnyRow] | None:
        """Whoever's browser has this cookie, with all that the role allows, and when it was last used and began."""
        seen = {"family": digest(cookie.family), "secret": cookie.secret_digest, "at": now()}
        user = (await execute(self._session, CALLER_BY_COOKIE, seen)).one_or_none()
        return None if user is None else (Caller(user, SCOPES_OF[user.role], login_id=user.login_id), user)

    async def go_on(self, login_id: int, began_at: datetime, lifetimes: Lifetimes) -> None:
        """Let a login that is used last longer."""
        await execute(self._session, GO_ON, {"login_id": login_id, "at": now(), "until": lifetimes.end(began_at)})

    async def find_by_refresh_token(self, token: RefreshToken) -> AnyRow | None:
        """The living login that ever had this token, with its user's role and public id, the `subject`."""
        return (await execute(self._session, BY_FAMILY, {"family": digest(token.family), "at": now()})).one_or_none()

    async def page(self, page: PageRequest, user: UserRow) -> Page[AnyRow]:
        """The user's living logins, the newest first."""
        asked = {"owner": user.id, "at": now()}
        return await newest_first(self._session, OF_USER, logins.c.id, page, asked, index="ix_login_session_user_id_id")

    async def add(
        self,
        user_id: int,
        token: Cookie | RefreshToken,
        scopes: Collection[Scope],
        lifetimes: Lifetimes,
        *,
        user_agent: str,
        address: str,
    ) -> LoginSession:
        """A new login of the user, which goes on by this token.

        The user's logins that expired go, and the oldest of too many.
        """
        seen = (await execute(self._session, ALL_OF_USER, {"owner": user_id})).all()
        over = [login.id for n, login in enumerate(seen, start=2) if n > MOST_LOGINS or login.expires_at <= now()]
        if over:
            await execute(self._session, END_ALL, {"ids": over})
        login = LoginSession(
            user_id=user_id,
            family_digest=digest(token.family),
            refresh_digest=token.secret_digest,
            scope=write_scopes(scopes),
            user_agent=UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", user_agent)[:USER_AGENT_LENGTH],
            address=address[:ADDRESS_LENGTH],
            expires_at=lifetimes.end(now()),
        )
        self._session.add(login)
        await self._session.flush()
        return login

    async def rotate(self, login: AnyRow, used: RefreshToken, lifetimes: Lifetimes) -> RefreshToken | None:
        """The refresh token that replaces `used`, or None when another did before: of many at once, one succeeds."""
        token = used.next()
        change = {
            "login_id": login.id,
            "used": used.secret_digest,
            "next": token.secret_digest,
            "at": now(),
            "until": lifetimes.end(login.created_at),
        }
        return token if await affects(self._session, ROTATE, change) else None

    async def get(self, user: UserRow, login_id: int) -> AnyRow | None:
        """The user's living login with this id."""
        asked = {"login_id": login_id, "owner": user.id, "at": now()}
        return (await execute(self._session, BY_ID, asked)).one_or_none()

    async def end_all(self, user_id: int) -> None:
        """End every login of the user."""
        found = (await execute(self._session, ALL_OF_USER, {"owner": user_id})).all()
        await execute(self._session, END_ALL, {"ids": [login.id for login in found]})

    async def end(self, login_id: int) -> bool:
        """End a login; whether it was there."""
        return await affects(self._session, END, {"login_id": login_id})


class PersonalTokenRepository:
    """Personal tokens in one session of the database."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find_caller(self, token: str) -> tuple[Caller | None, datetime | None]:
        """Whoever asks with this token, if it lives and its user is not blocked, and when it was last seen in use."""
        seen = {"digest": digest(token), "at": now()}
        user = (await execute(self._session, CALLER_BY_PERSONAL_TOKEN, seen)).one_or_none()
        if user is None:
            return None, None
        scopes = read_scopes(user.token_scope) & SCOPES_OF[user.role]
        return Caller(user, scopes, token_id=user.token_id), user.token_last_used_at

    async def get(self, user: UserRow, token_id: int) -> AnyRow | None:
        """The user's personal token with this id, expired or not."""
        asked = {"token_id": token_id, "owner": user.id}
        return (await execute(self._session, PERSONAL_TOKEN_OF_USER, asked)).one_or_none()

    async def page(self, page: PageRequest, user: UserRow) -> Page[AnyRow]:
        """The user's personal tokens, expired ones too, the newest first."""
        index = "ix_personal_token_user_id_id"
        return await newest_first(
            self._session, PERSONAL_TOKENS_OF_USER, personal_tokens.c.id, page, {"owner": user.id}, index=index
        )

    async def add(
        self, user_id: int, name: str, scopes: Collection[Scope], expires_at: datetime
    ) -> tuple[PersonalToken, str]:
        """A new personal token of the user, and its text, which is nowhere else."""
        text = make(PERSONAL)
        token = PersonalToken(
            user_id=user_id, name=name, token_digest=digest(text), scope=write_scopes(scopes), expires_at=expires_at
        )
        self._session.add(token)
        await self._session.flush()
        return token, text

    async def note_use(self, token_id: int, used_at: datetime) -> None:
        """Note that it was used then, unless that is noted of a moment shortly before."""
        noted = {"token_id": token_id, "at": used_at, "before": used_at - NOTED_AGAIN_AFTER}
        await execute(self._session, NOTE_USE, noted)

    async def lock(self, token_id: int) -> AnyRow | None:
        """The token with this id, whoever's it is, and no use of it is noted until this transaction ends."""
        return (await execute(self._session, LOCK_PERSONAL_TOKEN, {"token_id": token_id})).one_or_none()

    async def revoke(self, token_id: int) -> bool:
        """Delete a token; whether it was there."""
        return await affects(self._session, REVOKE, {"token_id": token_id})
