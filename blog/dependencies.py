"""FastAPI's wiring: who asks, in which session, for what; found or refused before a handler acts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, TypeVar
from urllib.parse import quote, urlencode

from fastapi import Depends, Form, Path, Query, Request, Response
from fastapi.security import OAuth2PasswordBearer
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from blog.attempts import Attempts
from blog.database import Database
from blog.errors import (
    AdminRequired,
    AuthorRequired,
    BlogNotFound,
    DatabaseUnavailable,
    FormRequired,
    InvalidCredentials,
    InvalidCursor,
    InvalidToken,
    InvalidTokenRequest,
    NotAuthenticated,
    NotBlogCreator,
    Refusal,
    SchemaOutdated,
    UnsupportedGrantType,
    UserNotFound,
    WrongPassword,
)
from blog.logs import request_fields, security_event
from blog.middleware import client_of
from blog.models import Blog, Role, User
from blog.repository import UserRow
from blog.repository.blog import BlogAnswer, BlogRepository
from blog.repository.user import UserRepository
from blog.schemas.token import TokenRequest
from blog.schemas.types import Email, Limit, Page, PageRequest, PathId
from blog.security.cursors import Cursors
from blog.security.passwords import PasswordHasher
from blog.security.tokens import AccessTokens, Claims
from blog.settings import Settings

PAGE_SIZE = 20
READY_TIMEOUT = 1.5
"""Seconds that the database may take to say that it is there."""

PAGE_PARAMETERS = ("limit", "cursor")

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

RowT = TypeVar("RowT")
Confirm = Callable[[str | None], Awaitable[None]]
email_address = TypeAdapter[str](Email)


class BearerToken(OAuth2PasswordBearer):
    """Takes the token from the Authorization header, and refuses as everything else here does."""

    async def __call__(self, request: Request) -> Claims:  # type: ignore[override]
        """What the request's token says, without asking the database. Raises NotAuthenticated and InvalidToken."""
        token = await super().__call__(request)
        tokens: AccessTokens = request.app.state.tokens
        claims = tokens.read(token) if token else None
        if claims is None or len(request.headers.getlist("Authorization")) > 1:
            raise InvalidToken
        return claims

    def make_not_authenticated_error(self) -> Refusal:  # type: ignore[override]
        """What the base class raises."""
        return NotAuthenticated()


get_claims = BearerToken(
    tokenUrl="login",  # relative, so that it holds behind a proxy's prefix
    description="Log in with your e-mail address as the username. Leave client_id and client_secret empty.",
)


async def get_settings(request: Request) -> Settings:
    """The settings of this app."""
    settings: Settings = request.app.state.settings
    return settings


async def get_passwords(request: Request) -> PasswordHasher:
    """The password hasher of this app."""
    passwords: PasswordHasher = request.app.state.passwords
    return passwords


async def get_tokens(request: Request) -> AccessTokens:
    """The issuer and reader of this app's access tokens."""
    tokens: AccessTokens = request.app.state.tokens
    return tokens


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """What reads in GET and HEAD; else one transaction, which begins with its first statement.

    Committed here and nowhere else, and before the answer leaves: `scope="function"`.
    """
    database: Database = request.app.state.database
    if request.method == "GET":
        async with database.read() as session:
            yield session
    else:
        async with database.write.begin() as session:
            yield session


Session = Annotated[AsyncSession, Depends(get_session, scope="function")]


async def get_ready_database(request: Request) -> None:
    """Refuses unless the database answers in time and has the schema of this version."""
    database: Database = request.app.state.database
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            at_head = await database.is_at_head()
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseUnavailable from error
    if not at_head:
        raise SchemaOutdated


ReadyDatabase = Annotated[None, Depends(get_ready_database)]


async def get_users(session: Session) -> UserRepository:
    """Users in the request's session."""
    return UserRepository(session)


async def get_blogs(session: Session) -> BlogRepository:
    """Blogs in the request's session."""
    return BlogRepository(session)


async def get_attempts(request: Request) -> Attempts:
    """The counter of this app's failed logins."""
    attempts: Attempts = request.app.state.attempts
    return attempts


SettingsOfApp = Annotated[Settings, Depends(get_settings)]
Passwords = Annotated[PasswordHasher, Depends(get_passwords)]
AttemptsOfApp = Annotated[Attempts, Depends(get_attempts)]
Tokens = Annotated[AccessTokens, Depends(get_tokens)]
Users = Annotated[UserRepository, Depends(get_users)]
Blogs = Annotated[BlogRepository, Depends(get_blogs)]


CurrentClaims = Annotated[Claims, Depends(get_claims)]


async def get_current_user(request: Request, claims: CurrentClaims, session: Session) -> UserRow:
    """The user whose token came with the request, as the database has it now."""
    database: Database = request.app.state.database
    if request.method == "GET" and database.read is database.fresh:
        user = await UserRepository(session).read_by_public_id(claims.subject)
    else:
        # A replica may not know yet that somebody was blocked, and a transaction that waits for a
        # password to be hashed would keep SQLite's one writer from everybody else.
        async with database.fresh() as fresh:
            user = await UserRepository(fresh).read_by_public_id(claims.subject)
    if user is None or not user.is_active:
        raise InvalidToken
    if claims.generation != user.login_generation and claims.token_id != user.spared_token_id:
        raise InvalidToken
    request_fields.get({})["user_id"] = user.id
    return user


CurrentUser = Annotated[UserRow, Depends(get_current_user)]


async def get_author(user: CurrentUser) -> UserRow:
    """The current user, who may write."""
    if user.role is Role.READER:
        raise AuthorRequired
    return user


async def get_admin(user: CurrentUser) -> UserRow:
    """The current user, who is an admin."""
    if user.role is not Role.ADMIN:
        raise AdminRequired
    return user


Author = Annotated[UserRow, Depends(get_author)]
Admin = Annotated[UserRow, Depends(get_admin)]


async def get_user_by_password(
    request: Request,
    response: Response,
    form: Annotated[TokenRequest, Form()],
    passwords: Passwords,
    attempts: AttemptsOfApp,
    users: Users,
) -> User:
    """The user who logs in with this form. An outdated hash is made anew."""
    database: Database = request.app.state.database
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in ("", *FORMS):
        raise FormRequired
    if form.grant_type not in ("", "password"):
        raise UnsupportedGrantType
    if not form.username or not form.password:
        raise InvalidTokenRequest
    try:
        account = email_address.validate_python(form.username)
    except ValidationError:
        account, user = form.username, None  # nobody registered with it
    else:
        async with database.fresh() as fresh:
            user = await UserRepository(fresh).get_by_email(account)
    # Counted under what was looked up: an address has any number of spellings.
    async with attempts.attempt(client_of(request.scope), account) as limits:
        verified, better = await passwords.verify(form.password, user.password_hash if user else None)
        if user is None or not verified or not user.is_active:
            security_event("login_failed", user_id=user.id if user else None)
            raise InvalidCredentials(headers={**InvalidCredentials.headers, **limits})
    if better is not None:
        await users.upgrade_hash(user, better)
    response.headers.update(limits)
    security_event("login_succeeded", user_id=user.id)
    return user


UserByPassword = Annotated[User, Depends(get_user_by_password)]


async def get_confirm(request: Request, user: CurrentUser, passwords: Passwords, attempts: AttemptsOfApp) -> Confirm:
    """Refuses what does not come with the current user's password. A wrong one counts as a failed login."""

    async def confirm(password: str | None) -> None:
        if password is None:
            raise WrongPassword
        async with attempts.attempt(client_of(request.scope), user.email_folded):
            verified, _ = await passwords.verify(password, user.password_hash)
            if not verified:
                security_event("password_not_confirmed")
                raise WrongPassword

    return confirm


ConfirmPassword = Annotated[Confirm, Depends(get_confirm)]


async def get_user(_: CurrentUser, users: Users, user_id: Annotated[PathId, Path()]) -> User:
    """The user whom the path names."""
    user = await users.get(user_id)
    if user is None:
        raise UserNotFound
    return user


async def read_blog(user: CurrentUser, blogs: Blogs, blog_id: Annotated[PathId, Path()]) -> BlogAnswer:
    """The blog that the path names, as an answer shows it."""
    blog = await blogs.read(blog_id, viewer=user)
    if blog is None:
        raise BlogNotFound
    return blog


async def get_blog(_: CurrentUser, blogs: Blogs, blog_id: Annotated[PathId, Path()]) -> Blog:
    """The blog that the path names, to be changed."""
    blog = await blogs.get(blog_id)
    if blog is None:
        raise BlogNotFound
    return blog


async def get_own_blog(user: CurrentUser, blog: Annotated[Blog, Depends(get_blog)]) -> Blog:
    """The blog that the path names, which is the current user's to change."""
    if blog.creator_id != user.id and user.role is not Role.ADMIN:
        raise NotBlogCreator
    return blog


NamedUser = Annotated[User, Depends(get_user)]
ShownBlog = Annotated[BlogAnswer, Depends(read_blog)]
OwnBlog = Annotated[Blog, Depends(get_own_blog)]


class Paging:
    """The page that a list's query asks for, and the link to the one after it."""

    def __init__(self, request: Request, response: Response, limit: int, cursor: str | None) -> None:
        self._cursors: Cursors = request.app.state.cursors
        self._response = response
        self._path = quote(request.scope["path"])
        self._filters = sorted(item for item in request.query_params.multi_items() if item[0] not in PAGE_PARAMETERS)
        # A cursor is good for the list that it was made for: its path, filters and order, with any limit.
        self._query = f"{self._path}?{urlencode(self._filters)}"
        after = None
        if cursor is not None:
            after = self._cursors.read(self._query, cursor)
            if after is None:
                raise InvalidCursor
        self.request = PageRequest(limit, after)

    def answer(self, page: Page[RowT]) -> Sequence[RowT]:
        """The rows of the page, with `Link: <…>; rel="next"` on the response when there are more."""
        if page.next is not None:
            cursor = self._cursors.write(self._query, page.next)
            query = urlencode([*self._filters, ("limit", self.request.limit), ("cursor", cursor)])
            self._response.headers["Link"] = f'<{self._path}?{query}>; rel="next"'
        return page.rows


async def get_paging(
    request: Request,
    response: Response,
    _: CurrentUser,
    limit: Annotated[Limit, Query(description="Rows on a page.")] = PAGE_SIZE,
    cursor: Annotated[str | None, Query(max_length=4096, description="From the `Link` of the page before.")] = None,
) -> Paging:
    """The page that the query asks for, once the login is known to be good."""
    return Paging(request, response, limit, cursor)


RequestedPage = Annotated[Paging, Depends(get_paging)]
