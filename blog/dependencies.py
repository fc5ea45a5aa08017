"""FastAPI's wiring: who asks, in which session, for what; found or refused before a handler acts."""

import asyncio
import logging
import math
import os
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import quote, urlencode

from fastapi import BackgroundTasks, Depends, Form, Path, Query, Request, Response, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import State, UploadFile

from blog.attempts import Attempts
from blog.database import Database
from blog.diff import Differ
from blog.errors import (
    AuthorRequired,
    BlogDeleted,
    BlogNotFound,
    BodyTooLarge,
    DatabaseUnavailable,
    FormRequired,
    Invalid,
    InvalidCursor,
    InvalidLink,
    InvalidToken,
    InvalidTokenRequest,
    InvitationNotFound,
    LoginRequired,
    MediaNotFound,
    MediaQuotaExceeded,
    MessageNotFound,
    NotAuthenticated,
    NotBlogCreator,
    NotMediaOwner,
    NotMessageWriter,
    NotRoomOwner,
    Refusal,
    RevisionNotFound,
    RoomNotFound,
    SchemaOutdated,
    SessionNotFound,
    StorageUnavailable,
    TokenNotFound,
    UnsupportedGrantType,
    UserNotFound,
    WrongPassword,
)
from blog.grants import Grant, Grants
from blog.links import LinkMailer
from blog.live import Hub
from blog.logs import request_fields, security_event
from blog.mail import Mailer
from blog.markdown import Renderer
from blog.media import NAME, Folder, Images, Picture
from blog.middleware import client_of
from blog.models import Purpose, Role, User, now
from blog.preconditions import Conditions, etag_of
from blog.registration import Registration
from blog.repository import AnyRow
from blog.repository.blog import BlogAnswer, BlogRepository
from blog.repository.change import START, ChangeRepository, Position
from blog.repository.link import LinkRepository
from blog.repository.login import NOTED_AGAIN_AFTER, LoginRepository, PersonalTokenRepository
from blog.repository.media import SMALLEST, MediaRepository
from blog.repository.revision import RevisionRepository
from blog.repository.room import RoomRepository
from blog.repository.tag import TagRepository
from blog.repository.user import UserRepository
from blog.schemas.blog import is_slug
from blog.schemas.token import PersonalTokenCreate, RevocationRequest, TokenRequest
from blog.schemas.types import Limit, Page, PageRequest, PathId
from blog.schemas.user import Address, EmailConfirmation, PasswordReset, UserCreate
from blog.security.access import DESCRIPTIONS, Caller, Scope
from blog.security.cursors import Cursors
from blog.security.opaque import COOKIE, Cookie, is_personal, read_cookie, read_refresh_token
from blog.security.passwords import PasswordHasher
from blog.security.tokens import AccessTokens, Claims
from blog.settings import Settings

logger = logging.getLogger(__name__)

PAGE_SIZE = 20
READY_TIMEOUT = 1.5
"""Seconds that the database may take to say that it is there."""

PAGE_PARAMETERS = ("limit", "cursor")

OTHER_FIELDS = 8
FIELD_SIZE = 2**10
"""Bytes of a field of an upload that is no file: there is none that is wanted."""

OF_BROWSER = "blog.of_browser"
"""In the scope of a request by which a browser sends a form of our own pages, or asks for one."""

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

RowT = TypeVar("RowT")
Confirm = Callable[[str | None], Awaitable[None]]


def read_bearer(tokens: AccessTokens, token: str) -> Claims | str:
    """What an access token says, or a personal token as it stands. Raises InvalidToken."""
    if is_personal(token):
        return token
    claims = tokens.read(token)
    if claims is None:
        raise InvalidToken
    return claims


class BearerToken(OAuth2PasswordBearer):
    """Takes the token from the Authorization header, and refuses as everything else here does."""

    async def __call__(self, request: Request) -> Claims | Cookie | str:  # type: ignore[override]
        """What an access token says, or a personal token as it stands, without asking the database.

        Raises NotAuthenticated and InvalidToken.
        """
        if OF_BROWSER in request.scope:  # which has seen to it that no other site asks
            cookie = read_cookie(request.cookies.get(COOKIE, ""))
            if cookie is None:
                raise NotAuthenticated
            return cookie
        token = await super().__call__(request)
        if not token or len(request.headers.getlist("Authorization")) > 1:
            raise InvalidToken
        return read_bearer(request.app.state.tokens, token)

    def make_not_authenticated_error(self) -> Refusal:  # type: ignore[override]
        """What the base class raises."""
        return NotAuthenticated()


get_bearer = BearerToken(
    tokenUrl="login",  # relative, so that it holds behind a proxy's prefix
    refreshUrl="login",
    scopes=dict(DESCRIPTIONS),
    description="Log in with your e-mail address as the username. Leave client_id and client_secret empty, and choose "
    "no scope for all that your role allows.",
)


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


def _of_app(name: str) -> Any:
    """What this app keeps under this name in its state."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


def _in_session(repository: Callable[[AsyncSession], object]) -> Any:
    """A repository in the request's session."""

    async def get(session: Session) -> object:
        return repository(session)

    return Depends(get)


SettingsOfApp = Annotated[Settings, _of_app("settings")]
Passwords = Annotated[PasswordHasher, _of_app("passwords")]
AttemptsOfApp = Annotated[Attempts, _of_app("attempts")]
Tokens = Annotated[AccessTokens, _of_app("tokens")]
LinkMailerOfApp = Annotated[LinkMailer, _of_app("link_mailer")]
MailerOfApp = Annotated[Mailer, _of_app("mailer")]
RegistrationOfApp = Annotated[Registration, _of_app("registration")]
RendererOfApp = Annotated[Renderer, _of_app("renderer")]
DifferOfApp = Annotated[Differ, _of_app("differ")]
MediaFolder = Annotated[Folder, _of_app("media_folder")]
HubOfApp = Annotated[Hub, _of_app("hub")]
Users = Annotated[UserRepository, _in_session(UserRepository)]
Logins = Annotated[LoginRepository, _in_session(LoginRepository)]
PersonalTokens = Annotated[PersonalTokenRepository, _in_session(PersonalTokenRepository)]
OneTimeLinks = Annotated[LinkRepository, _in_session(LinkRepository)]
Blogs = Annotated[BlogRepository, _in_session(BlogRepository)]
Revisions = Annotated[RevisionRepository, _in_session(RevisionRepository)]
Tags = Annotated[TagRepository, _in_session(TagRepository)]
MediaRows = Annotated[MediaRepository, _in_session(MediaRepository)]
Rooms = Annotated[RoomRepository, _in_session(RoomRepository)]

Bearer = Annotated[Claims | Cookie | str, Depends(get_bearer)]


@asynccontextmanager
async def fresh_session(request: Request, session: AsyncSession) -> AsyncIterator[AsyncSession]:
    """The request's session where it reads what was committed just now, else another one that does.

    A replica may not know yet that somebody was blocked, and a transaction that waits for a password to be hashed
    would keep SQLite's one writer from everybody else.
    """
    database: Database = request.app.state.database
    if request.method == "GET" and database.read is database.fresh:
        yield session
    else:
        async with database.fresh() as fresh:
            yield fresh


async def get_followed(request: Request, session: Session) -> AsyncIterator[tuple[ChangeRepository, BlogRepository]]:
    """What became of blogs and the blogs themselves, read where they were written.

    A replica that has a change later than its time would hide it from whoever follows.
    """
    async with fresh_session(request, session) as fresh:
        yield ChangeRepository(fresh), BlogRepository(fresh)


FollowedBlogs = Annotated[tuple[ChangeRepository, BlogRepository], Depends(get_followed, scope="function")]


async def get_caller(request: Request, bearer: Bearer, session: Session, background: BackgroundTasks) -> Caller:
    """Whoever's token came with the request, as the database has them now: one statement for any kind of token."""
    if isinstance(bearer, Cookie):
        request.state.caller = caller = await find_by_cookie(request.app.state, bearer)
        return caller
    async with fresh_session(request, session) as fresh:
        caller, used = await _find_caller(fresh, bearer)
    if used is not None:
        background.add_task(_note_use, request.app.state.database, used, now())
    request.state.caller = caller
    return caller


async def _find_caller(fresh: AsyncSession, bearer: Claims | str) -> tuple[Caller, int | None]:
    """Whose token this is, and the id of a personal one whose use is to be noted. Raises InvalidToken."""
    used = None
    if isinstance(bearer, Claims):
        caller = await LoginRepository(fresh).find_caller(bearer)
    else:
        caller, last_used_at = await PersonalTokenRepository(fresh).find_caller(bearer)
        if caller and (last_used_at is None or last_used_at < now() - NOTED_AGAIN_AFTER):
            used = caller.token_id
    if caller is None:
        raise InvalidToken
    request_fields.get({})["user_id"] = caller.user.id
    return caller, used


async def find_by_cookie(state: State, cookie: Cookie) -> Caller:
    """Whose browser has this cookie. Raises InvalidToken."""
    grants: Grants = state.grants
    caller = await grants.by_cookie(cookie)
    if caller is None:
        raise InvalidToken
    request_fields.get({})["user_id"] = caller.user.id
    return caller


async def find_listener(state: State, token: str | Cookie) -> tuple[Caller, float]:
    """Who opens a WebSocket with this token or cookie, and until when it is good, in seconds since 1970.

    Raises InvalidToken and InsufficientScope.
    """
    if isinstance(token, Cookie):
        return await find_by_cookie(state, token), math.inf
    bearer = read_bearer(state.tokens, token)
    database: Database = state.database
    async with database.fresh() as fresh:
        caller, used = await _find_caller(fresh, bearer)
    caller.require(Scope.ROOM_READ)
    if used is not None:
        await _note_use(database, used, now())
    # That a personal token is over is seen when the hub looks whether it is there.
    return caller, bearer.expires_at if isinstance(bearer, Claims) else math.inf


async def _note_use(database: Database, token_id: int, used_at: datetime) -> None:
    try:
        async with database.write.begin() as session:
            await PersonalTokenRepository(session).note_use(token_id, used_at)
    except (SQLAlchemyError, OSError) as error:  # the answer has left; a later use will be noted
        logger.warning("the use of a personal token was not noted: %s", type(error).__name__)


AnyCaller = Annotated[Caller, Depends(get_caller)]


async def get_current_user(needed: SecurityScopes, caller: AnyCaller) -> Caller:
    """Whoever asks, once the token is found good for the scopes that the route needs."""
    for scope in needed.scopes:
        caller.require(Scope(scope))
    return caller


BlogReader = Annotated[Caller, Security(get_current_user, scopes=[Scope.BLOG_READ.value])]
BlogWriter = Annotated[Caller, Security(get_current_user, scopes=[Scope.BLOG_WRITE.value])]
RoomReader = Annotated[Caller, Security(get_current_user, scopes=[Scope.ROOM_READ.value])]
RoomWriter = Annotated[Caller, Security(get_current_user, scopes=[Scope.ROOM_WRITE.value])]
UserReader = Annotated[Caller, Security(get_current_user, scopes=[Scope.USER_READ.value])]
UserWriter = Annotated[Caller, Security(get_current_user, scopes=[Scope.USER_WRITE.value])]
Admin = Annotated[Caller, Security(get_current_user, scopes=[Scope.ADMIN.value])]


async def get_login_owner(caller: UserWriter) -> Caller:
    """Whoever asks, by a login and not by a personal token."""
    if caller.login_id is None:
        raise LoginRequired
    return caller


LoginOwner = Annotated[Caller, Depends(get_login_owner)]


async def get_token_giver(caller: LoginOwner, data: PersonalTokenCreate) -> Caller:
    """Whoever asks, by a login that is good for all that the new token shall be good for."""
    for scope in data.scopes:
        caller.require(scope)
    return caller


TokenGiver = Annotated[Caller, Depends(get_token_giver)]


async def get_token_form(request: Request, form: Annotated[TokenRequest, Form()]) -> TokenRequest:
    """The form of the token endpoint, complete for its grant type."""
    _demand_form(request)
    if form.grant_type not in ("", "password", "refresh_token"):
        raise UnsupportedGrantType
    if form.grant_type == "refresh_token":
        if not form.refresh_token:
            raise InvalidTokenRequest("Send the form field refresh_token.")
    elif not form.username or not form.password:
        raise InvalidTokenRequest("Send the form fields username and password.")
    return form


def _demand_form(request: Request) -> None:
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in ("", *FORMS):
        raise FormRequired


async def get_revocable(
    request: Request, form: Annotated[RevocationRequest, Form()], tokens: Tokens
) -> tuple[int | None, int | None]:
    """The login, or the personal token, that the token of this form is of; neither for one that is unknown or over."""
    _demand_form(request)
    if not form.token:
        raise InvalidTokenRequest("Send the form field token.")
    database: Database = request.app.state.database
    refresh_token, claims = read_refresh_token(form.token), tokens.read(form.token)
    async with database.fresh() as fresh:
        if refresh_token is not None:
            login = await LoginRepository(fresh).find_by_refresh_token(refresh_token)
            return (login.id if login else None), None
        if claims is not None:
            caller = await LoginRepository(fresh).find_caller(claims)
        else:
            caller, _ = await PersonalTokenRepository(fresh).find_caller(form.token)
    return (caller.login_id, caller.token_id) if caller else (None, None)


Revocable = Annotated[tuple[int | None, int | None], Depends(get_revocable)]


async def get_grant(
    request: Request, response: Response, form: Annotated[TokenRequest, Depends(get_token_form)]
) -> Grant:
    """What the password or the refresh token of this form is good for."""
    grants: Grants = request.app.state.grants
    if form.grant_type == "refresh_token":
        return await grants.by_refresh_token(form.refresh_token, form.scope)
    user_agent, client = request.headers.get("User-Agent", ""), client_of(request.scope)
    grant = await grants.by_password(form.username, form.password, form.scope, client=client, user_agent=user_agent)
    response.headers.update(grant.headers)
    return grant


GrantOfForm = Annotated[Grant, Depends(get_grant)]


async def get_user_of_address(request: Request, data: Address) -> User | None:
    """The user who has this address and may log in, if there is one."""
    database: Database = request.app.state.database
    async with database.fresh() as fresh:
        user = await UserRepository(fresh).get_by_email(data.email)
    return user if user is not None and user.is_active else None


UserOfAddress = Annotated[User | None, Depends(get_user_of_address)]


async def _find_link(request: Request, token: str, purpose: Purpose) -> tuple[User, AnyRow]:
    """The link with this token and its user. Looked up before anything waits, and before the user's row is locked."""
    database: Database = request.app.state.database
    async with database.fresh() as fresh:
        link = await LinkRepository(fresh).find(token, purpose)
        user = await UserRepository(fresh).get(link.user_id) if link is not None else None
    if link is None or user is None:
        raise InvalidLink
    return user, link


async def get_reset_link(request: Request, data: PasswordReset) -> tuple[User, AnyRow]:
    """The link to a new password whose token came, and its user."""
    return await _find_link(request, data.token, Purpose.PASSWORD_RESET)


async def get_verification_link(request: Request, data: EmailConfirmation) -> tuple[User, AnyRow]:
    """The link to an address whose token came, and its user."""
    return await _find_link(request, data.token, Purpose.EMAIL_VERIFICATION)


ResetLink = Annotated[tuple[User, AnyRow], Depends(get_reset_link)]
VerificationLink = Annotated[tuple[User, AnyRow], Depends(get_verification_link)]


async def get_admission(data: UserCreate, registration: RegistrationOfApp) -> AnyRow | None:
    """The invitation that came, or None where anybody may register without."""
    return await registration.admit(data)


Admission = Annotated[AnyRow | None, Depends(get_admission)]


async def get_confirm(request: Request, caller: UserWriter, passwords: Passwords, attempts: AttemptsOfApp) -> Confirm:
    """Refuses what does not come with the current user's password. A wrong one counts as a failed login."""
    user = caller.user

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


async def get_user(users: Users, user_id: Annotated[PathId, Path()]) -> User:
    """The user whom the path names."""
    user = await users.get(user_id)
    if user is None:
        raise UserNotFound
    return user


async def _refuse_blog(
    blogs: BlogRepository, viewer: Caller, *, blog_id: int | None = None, slug: str | None = None
) -> NoReturn:
    raise BlogDeleted if await blogs.was_deleted(viewer=viewer, blog_id=blog_id, slug=slug) else BlogNotFound


async def read_blog(
    reader: BlogReader, blogs: Blogs, blog_id: Annotated[PathId, Path()], conditions: Conditions
) -> BlogAnswer:
    """The blog that the path names, as an answer shows it; not read when whoever asks has it already."""
    if conditions.sees_etags:
        version = await blogs.read_version(viewer=reader, blog_id=blog_id)
        if version is not None:
            conditions.show(etag_of(*version))
    blog = await blogs.read(blog_id, viewer=reader)
    if blog is None:
        await _refuse_blog(blogs, reader, blog_id=blog_id)
    conditions.show(etag_of(*blog["version"]))
    return blog


async def read_blog_by_slug(reader: BlogReader, blogs: Blogs, slug: str, conditions: Conditions) -> BlogAnswer:
    """The blog that has or had the slug in the path, as an answer shows it; not read when whoever asks has it."""
    if not is_slug(slug):
        raise BlogNotFound
    if conditions.sees_etags:
        version = await blogs.read_version(viewer=reader, slug=slug)
        if version is not None:
            conditions.show(etag_of(*version))
    blog = await blogs.read_by_slug(slug, viewer=reader)
    if blog is None:
        await _refuse_blog(blogs, reader, slug=slug)
    if blog["slug"] == slug:
        conditions.show(etag_of(*blog["version"]))
    return blog


async def _find_own_blog(blogs: BlogRepository, caller: Caller, blog_id: int) -> int:
    blog = await blogs.find(blog_id, viewer=caller)
    if blog is None:
        await _refuse_blog(blogs, caller, blog_id=blog_id)
    if blog.creator_id != caller.user.id and not caller.is_admin:
        raise NotBlogCreator
    return blog_id


async def get_own_blog(request: Request, writer: BlogWriter, blog_id: Annotated[PathId, Path()]) -> int:
    """The id of the blog that the path names, which is the current user's to change.

    Looked up before the request's transaction begins: what is written is rendered first, and on SQLite all other
    writers would wait for it.
    """
    database: Database = request.app.state.database
    async with database.fresh() as fresh:
        return await _find_own_blog(BlogRepository(fresh), writer, blog_id)


async def get_revised_blog(reader: BlogReader, blogs: Blogs, blog_id: Annotated[PathId, Path()]) -> int:
    """The id of the blog that the path names, whose revisions the current user may read."""
    return await _find_own_blog(blogs, reader, blog_id)


OwnBlog = Annotated[int, Depends(get_own_blog)]
RevisedBlog = Annotated[int, Depends(get_revised_blog)]


async def _find_revision(revisions: RevisionRepository, blog_id: int, number: int, *, whole: bool = True) -> AnyRow:
    revision = await revisions.get(blog_id, number, whole=whole)
    if revision is None:
        raise RevisionNotFound
    return revision


async def read_revisions(
    revisions: Revisions,
    blog_id: RevisedBlog,
    number: Annotated[PathId, Path()],
    conditions: Conditions,
    diff: Annotated[PathId | None, Query(description="The number of another revision, to compare it with.")] = None,
) -> list[AnyRow]:
    """The revision that the path names, and the one to compare it with; not read when whoever asks has it already."""
    numbers = [number] if diff is None else [number, diff]
    for whole in (False, True) if conditions.sees_etags else (True,):
        found = [await _find_revision(revisions, blog_id, wanted, whole=whole) for wanted in numbers]
        # Title and body of one never change.
        conditions.show(
            etag_of(blog_id, *((row.number, row.created_at, row.editor_id, row.editor_name) for row in found))
        )
    return found


async def get_revision(request: Request, blog_id: OwnBlog, number: Annotated[PathId, Path()]) -> AnyRow:
    """The revision that the path names, to be written once more."""
    database: Database = request.app.state.database
    async with database.fresh() as fresh:
        return await _find_revision(RevisionRepository(fresh), blog_id, number)


async def get_uploaded_picture(request: Request, writer: BlogWriter, settings: SettingsOfApp) -> Picture:
    """The image of this form, made anew: read once it is known who sends it, and before the transaction begins."""
    database: Database = request.app.state.database
    images: Images = request.app.state.images
    async with database.fresh() as fresh:
        if await MediaRepository(fresh).used(writer.user.id) + SMALLEST > settings.media_quota:
            raise MediaQuotaExceeded
    try:
        async with request.form(max_files=1, max_fields=OTHER_FIELDS, max_part_size=FIELD_SIZE) as form:
            file = form.get("file")
            if len(form) > 1 or not isinstance(file, UploadFile):
                raise Invalid("Send one image as the field file of a form in multipart/form-data, and nothing else.")
            if (file.size or 0) > settings.media_size_limit:
                raise BodyTooLarge
            return await images.remake(file.file, writer.user.id)
    except OSError as error:  # of the temporary file that a large upload is kept in
        logger.error("an upload cannot be kept: %s", error)
        raise StorageUnavailable from error


UploadedPicture = Annotated[Picture, Depends(get_uploaded_picture)]


async def get_kept_picture(picture: UploadedPicture, folder: MediaFolder) -> AsyncIterator[tuple[str, Picture]]:
    """The name under which this form's image is kept by now, and the image.

    Not kept if the request is refused, or was answered meanwhile, until its transaction ends.
    """
    async with folder.keeping(picture) as name:
        yield name, picture


KeptPicture = Annotated[tuple[str, Picture], Depends(get_kept_picture, scope="function")]
MediaName = Annotated[str, Path(description="The image's own, as its `name` is.")]


async def get_file(folder: MediaFolder, name: MediaName) -> tuple[pathlib.Path, os.stat_result]:
    """The file of the image that the path names."""
    file = await folder.find(name)
    if file is None:
        raise MediaNotFound
    return file


FoundFile = Annotated[tuple[pathlib.Path, os.stat_result], Depends(get_file)]


async def get_own_media(writer: BlogWriter, media: MediaRows, name: MediaName) -> AnyRow:
    """The image that the path names, which is the current user's to delete."""
    found = await media.get(name) if NAME.fullmatch(name) else None
    if found is None:
        raise MediaNotFound
    if found.owner_id != writer.user.id and not writer.is_admin:
        raise NotMediaOwner
    return found


OwnMedia = Annotated[AnyRow, Depends(get_own_media)]


async def get_room_opener(writer: RoomWriter) -> Caller:
    """Whoever asks, if an author or an admin."""
    if writer.user.role is Role.READER:
        raise AuthorRequired
    return writer


RoomOpener = Annotated[Caller, Depends(get_room_opener)]


async def _find_room(rooms: RoomRepository, viewer: Caller, room_id: int) -> AnyRow:
    room = await rooms.read(room_id, viewer=viewer)
    if room is None:
        raise RoomNotFound
    return room


async def find_room(database: Database, viewer: Caller, room_id: int) -> AnyRow:
    """The room with this id, read where it was written. Raises RoomNotFound."""
    async with database.fresh() as fresh:
        return await _find_room(RoomRepository(fresh), viewer, room_id)


async def read_room(
    request: Request, reader: RoomReader, session: Session, room_id: Annotated[PathId, Path()]
) -> AnyRow:
    """The room that the path names, to be read."""
    async with fresh_session(request, session) as fresh:
        return await _find_room(RoomRepository(fresh), reader, room_id)


async def get_room(request: Request, writer: RoomWriter, room_id: Annotated[PathId, Path()]) -> AnyRow:
    """The room that the path names, to be written in."""
    return await find_room(request.app.state.database, writer, room_id)


ShownRoom = Annotated[AnyRow, Depends(read_room)]
NamedRoom = Annotated[AnyRow, Depends(get_room)]


def moderates(caller: Caller, room: AnyRow) -> bool:
    """Whether this room is the caller's to keep in order."""
    return caller.is_admin or room.owner_id == caller.user.id


def may_remove(caller: Caller, room: AnyRow, message: AnyRow) -> bool:
    """Whether this message is the caller's to take away."""
    return message.writer_id == caller.user.id or moderates(caller, room)


async def get_own_room(writer: RoomWriter, room: NamedRoom) -> AnyRow:
    """The room that the path names, which is the current user's to change."""
    if not moderates(writer, room):
        raise NotRoomOwner
    return room


OwnRoom = Annotated[AnyRow, Depends(get_own_room)]


async def find_room_of_blog(
    database: Database, rooms: RoomRepository, blogs: BlogRepository, reader: Caller, blog_id: int
) -> AnyRow:
    """The own room of a blog, made when somebody asks for it first. Raises BlogNotFound and BlogDeleted.

    The two repositories see whatever was committed before.
    """
    room = await rooms.read_of_blog(blog_id, viewer=reader)
    if room is None and await blogs.find(blog_id, viewer=reader) is not None:
        with suppress(IntegrityError):  # another request has made it meanwhile, or the blog is gone
            async with database.write.begin() as writing:
                await RoomRepository(writing).add_of_blog(blog_id)
        room = await rooms.read_of_blog(blog_id, viewer=reader)
    if room is None:
        await _refuse_blog(blogs, reader, blog_id=blog_id)
    return room


async def read_room_of_blog(
    request: Request, reader: RoomReader, session: Session, blog_id: Annotated[PathId, Path()]
) -> AnyRow:
    """The own room of the blog that the path names."""
    async with fresh_session(request, session) as fresh:
        rooms, blogs = RoomRepository(fresh), BlogRepository(fresh)
        return await find_room_of_blog(request.app.state.database, rooms, blogs, reader, blog_id)


RoomOfBlog = Annotated[AnyRow, Depends(read_room_of_blog)]


async def read_message(room: ShownRoom, rooms: Rooms, number: Annotated[PathId, Path()]) -> AnyRow:
    """The message of this room that the path names, to be read."""
    message = await rooms.read_message(room.id, number)
    if message is None:
        raise MessageNotFound
    return message


async def find_own_message(rooms: RoomRepository, writer: Caller, room: AnyRow, number: int) -> AnyRow:
    """The message of this number, which is this caller's to remove. Raises MessageNotFound and NotMessageWriter."""
    message = await rooms.read_message(room.id, number)
    if message is None:
        raise MessageNotFound
    if not may_remove(writer, room, message):
        raise NotMessageWriter
    return message


async def get_own_message(
    request: Request, writer: RoomWriter, room: NamedRoom, number: Annotated[PathId, Path()]
) -> AnyRow:
    """The message that the path names, which is the current user's to remove."""
    database: Database = request.app.state.database
    async with database.fresh() as fresh:
        return await find_own_message(RoomRepository(fresh), writer, room, number)


ShownMessage = Annotated[AnyRow, Depends(read_message)]
OwnMessage = Annotated[AnyRow, Depends(get_own_message)]


async def get_own_login(caller: UserWriter, logins: Logins, session_id: Annotated[PathId, Path()]) -> AnyRow:
    """The current user's login that the path names, to be ended."""
    login = await logins.get(caller.user, session_id)
    if login is None:
        raise SessionNotFound
    return login


async def read_own_token(
    caller: UserReader, personal_tokens: PersonalTokens, token_id: Annotated[PathId, Path()]
) -> AnyRow:
    """The current user's personal token that the path names, to be shown."""
    token = await personal_tokens.get(caller.user, token_id)
    if token is None:
        raise TokenNotFound
    return token


async def get_own_token(
    caller: UserWriter, personal_tokens: PersonalTokens, token_id: Annotated[PathId, Path()]
) -> AnyRow:
    """The current user's personal token that the path names, to be deleted."""
    return await read_own_token(caller, personal_tokens, token_id)


async def get_invitation(_: Admin, links: OneTimeLinks, invitation_id: Annotated[PathId, Path()]) -> AnyRow:
    """The open invitation that the path names."""
    invitation = await links.get_invitation(invitation_id)
    if invitation is None:
        raise InvitationNotFound
    return invitation


OwnLogin = Annotated[AnyRow, Depends(get_own_login)]
ShownToken = Annotated[AnyRow, Depends(read_own_token)]
OwnToken = Annotated[AnyRow, Depends(get_own_token)]
NamedInvitation = Annotated[AnyRow, Depends(get_invitation)]
NamedUser = Annotated[User, Depends(get_user)]
ShownBlog = Annotated[BlogAnswer, Depends(read_blog)]
ShownBySlug = Annotated[BlogAnswer, Depends(read_blog_by_slug)]
ShownRevisions = Annotated[list[AnyRow], Depends(read_revisions)]
RevisionOfOwn = Annotated[AnyRow, Depends(get_revision)]


class Paging:
    """The page that a list's query asks for, and the link to the one after it."""

    def __init__(self, request: Request, response: Response, limit: int, cursor: str | None) -> None:
        self._cursors: Cursors = request.app.state.cursors
        self._response = response
        self._path = quote(request.scope["path"])
        # Of one that is given twice the last one counts, so those of a name stay in their order.
        given = (item for item in request.query_params.multi_items() if item[0] not in PAGE_PARAMETERS)
        self._filters = sorted(given, key=itemgetter(0))
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
    limit: Annotated[Limit, Query(description="Rows on a page.")] = PAGE_SIZE,
    cursor: Annotated[str | None, Query(max_length=4096, description="From the `Link` of the page before.")] = None,
) -> Paging:
    """The page that the query asks for."""
    return Paging(request, response, limit, cursor)


RequestedPage = Annotated[Paging, Depends(get_paging)]


class Following:
    """From where somebody follows what becomes of blogs, and the cursor to go on with."""

    def __init__(self, request: Request, reader: Caller, limit: int, since: str | None) -> None:
        self._cursors: Cursors = request.app.state.cursors
        # Good for nobody else, who saw other drafts.
        self._query = f"changes?{reader.user.id}"
        self.limit = limit
        self.position = START
        if since is not None:
            position = self._cursors.read(self._query, since)
            if position is None:
                raise InvalidCursor
            self.position = Position(*position)

    def cursor(self, position: Position) -> str:
        """What to go on with from there."""
        return self._cursors.write(self._query, position)


async def get_following(
    request: Request,
    reader: BlogReader,
    limit: Annotated[Limit, Query(description="Changes in one answer.")] = PAGE_SIZE,
    since: Annotated[
        str | None,
        Query(max_length=4096, description="The `cursor` of the answer before; without one, from the first."),
    ] = None,
) -> Following:
    """From where the query follows."""
    return Following(request, reader, limit, since)


Followed = Annotated[Following, Depends(get_following)]
