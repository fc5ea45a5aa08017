"""Who may do what: every operation of the documentation against everybody who may ask, with any kind of token."""

from collections.abc import Collection
from datetime import timedelta
from itertools import product
from typing import Any, NamedTuple, cast

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, insert, select
from sqlmodel import SQLModel

from blog.app import create_app
from blog.markdown import render
from blog.media import remake
from blog.models import (
    Blog,
    BlogChange,
    BlogSlug,
    ChangeCounter,
    LoginSession,
    Media,
    Message,
    OneTimeLink,
    PersonalToken,
    ProfileCounter,
    Purpose,
    Role,
    Room,
    Tag,
    User,
    now,
)
from blog.repository.blog import BlogRepository
from blog.schemas.blog import BlogWrite
from blog.security.access import Scope
from blog.security.opaque import PERSONAL, digest, make
from tests.answers import code
from tests.conftest import make_settings
from tests.factories import PASSWORD, PASSWORD_HASH, bearer
from tests.images import image_of

READ, WRITE = Scope.BLOG_READ, Scope.BLOG_WRITE
ROOM_READ, ROOM_WRITE = Scope.ROOM_READ, Scope.ROOM_WRITE
USER_READ, USER_WRITE, ADMIN = Scope.USER_READ, Scope.USER_WRITE, Scope.ADMIN

EVERY = frozenset(Scope)
ROLES = {"owner": Role.AUTHOR, "other": Role.AUTHOR, "reader": Role.READER, "admin": Role.ADMIN}
HAVE = {Role.ADMIN: EVERY, Role.AUTHOR: EVERY - {ADMIN}, Role.READER: EVERY - {ADMIN, WRITE}}

NO_TOKEN = (401, "not_authenticated")
NARROW = (403, "insufficient_scope")
NOT_OF_ROLE = {ADMIN: (403, "admin_required"), WRITE: (403, "author_required")}
NO_LOGIN = (403, "login_required")
NOT_CREATOR, NOT_OWNER = (403, "not_blog_creator"), (403, "not_room_owner")
NO_SESSION, NO_TOKEN_OF_ONES_OWN = (404, "session_not_found"), (404, "token_not_found")

CHALLENGE = 'Bearer realm="blog"'

# What the tokens in bodies and paths are; no two tables hold the same one.
SPARE, RESET, VERIFICATION, INVITATION = make(PERSONAL), "blog_link_reset", "blog_link_verify", "blog_link_invite"
NOTES = {"title": "Changed", "body": "Text"}
LOOMS = {"name": "Changed"}
EMAIL = "owner@example.com"
LATER = now() + timedelta(days=1)
NEW = {"name": "New", "email": "new@example.com", "password": PASSWORD}


class Operation(NamedTuple):
    """What an operation on what is the owner's wants, and what it answers.

    Nobody needs a token who is `public`; else a token needs `scope`, if there is one, and then the answer depends on
    who asks: `owner`, an `admin` whose token is good for that, or any `other`. The last two get the owner's answer
    where nothing else is said; a scope for an answer is one that is needed too. What is `for_authors` is not for
    readers, whatever their tokens are good for. `shows` are those of the three whose good answer has the owner's
    address in it.
    """

    owner: int
    scope: Scope | None = None
    other: tuple[int, str] | Scope | None = None
    admin: tuple[int, str] | None = None
    public: bool = False
    by_login_only: bool = False
    for_authors: bool = False
    shows: str = ""
    body: Any = None
    file: bytes | None = None
    form: dict[str, str] | None = None
    query: str = ""


TABLE = {
    "post /login": Operation(200, public=True, form={"username": EMAIL, "password": PASSWORD}),
    "post /revoke": Operation(200, public=True, form={"token": SPARE}),
    "get /.well-known/oauth-authorization-server": Operation(200, public=True),
    "post /password-reset": Operation(202, public=True, body={"email": EMAIL}),
    "post /password-reset/confirm": Operation(204, public=True, body={"token": RESET, "password": "a new password"}),
    "post /email-verification": Operation(202, public=True, body={"email": EMAIL}),
    "post /email-verification/confirm": Operation(204, public=True, body={"token": VERIFICATION}),
    "post /user/": Operation(201, public=True, body=NEW),
    "get /health": Operation(200, public=True),
    "get /ready": Operation(200, public=True),
    "post /logout": Operation(204),
    "get /user/me": Operation(200, USER_READ, shows="owner"),
    "patch /user/me": Operation(200, USER_WRITE, shows="owner", body={"about": "Changed."}),
    "put /user/me/password": Operation(
        204, USER_WRITE, body={"current_password": PASSWORD, "new_password": "a new password"}
    ),
    "get /user/me/sessions": Operation(200, USER_READ),
    "delete /user/me/sessions/{session_id}": Operation(204, USER_WRITE, other=NO_SESSION, admin=NO_SESSION),
    "get /user/me/tokens": Operation(200, USER_READ),
    "post /user/me/tokens": Operation(
        201,
        USER_WRITE,
        by_login_only=True,
        body={"name": "Script", "scopes": [USER_WRITE], "expires_at": "2199-01-01T00:00:00Z"},
    ),
    "get /user/me/tokens/{token_id}": Operation(200, USER_READ, other=NO_TOKEN_OF_ONES_OWN, admin=NO_TOKEN_OF_ONES_OWN),
    "delete /user/me/tokens/{token_id}": Operation(
        204, USER_WRITE, other=NO_TOKEN_OF_ONES_OWN, admin=NO_TOKEN_OF_ONES_OWN
    ),
    "get /user/{user_id}": Operation(200, USER_READ, shows="owner admin"),
    "delete /user/{user_id}": Operation(
        204, USER_WRITE, other=ADMIN, query="?blogs=delete", body={"current_password": PASSWORD}
    ),
    "get /user/": Operation(200, ADMIN, shows="owner admin"),
    "put /user/": Operation(200, ADMIN, shows="owner admin", body=[{"role": "reader"}]),
    "patch /user/{user_id}": Operation(200, ADMIN, shows="owner admin", body={"role": "reader"}),
    "post /invitation/": Operation(201, ADMIN, body={"role": "reader"}),
    "get /invitation/": Operation(200, ADMIN),
    "get /invitation/{invitation_id}": Operation(200, ADMIN),
    "delete /invitation/{invitation_id}": Operation(204, ADMIN),
    "get /blog/": Operation(200, READ, shows="owner admin"),
    "post /blog/": Operation(201, WRITE, shows="owner", body=NOTES),
    "get /blog/{blog_id}": Operation(200, READ, shows="owner admin"),
    "put /blog/{blog_id}": Operation(200, WRITE, other=NOT_CREATOR, shows="owner admin", body=NOTES),
    "patch /blog/{blog_id}": Operation(200, WRITE, other=NOT_CREATOR, shows="owner admin", body={"title": "Changed"}),
    "delete /blog/{blog_id}": Operation(204, WRITE, other=NOT_CREATOR),
    "get /blog/changes": Operation(200, READ, shows="owner admin"),
    "get /blog/slug/{slug}": Operation(200, READ, shows="owner admin"),
    "get /blog/{blog_id}/revisions": Operation(200, READ, other=NOT_CREATOR),
    "get /blog/{blog_id}/revisions/{number}": Operation(200, READ, other=NOT_CREATOR),
    "post /blog/{blog_id}/revisions/{number}/restore": Operation(201, WRITE, other=NOT_CREATOR, shows="owner admin"),
    "get /tag/": Operation(200, READ),
    "post /media/": Operation(201, WRITE, file=image_of("gif")),
    "get /media/{name}": Operation(200, public=True),
    "delete /media/{name}": Operation(204, WRITE, other=(403, "not_media_owner")),
    "get /room/": Operation(200, ROOM_READ),
    "post /room/": Operation(201, ROOM_WRITE, for_authors=True, body=LOOMS),
    "get /room/{room_id}": Operation(200, ROOM_READ),
    "get /blog/{blog_id}/room": Operation(200, ROOM_READ),
    "patch /room/{room_id}": Operation(200, ROOM_WRITE, other=NOT_OWNER, body=LOOMS),
    "delete /room/{room_id}": Operation(204, ROOM_WRITE, other=NOT_OWNER),
    "get /room/{room_id}/messages": Operation(200, ROOM_READ),
    "post /room/{room_id}/messages": Operation(201, ROOM_WRITE, body={"body": "Text"}),
    "get /room/{room_id}/messages/{number}": Operation(200, ROOM_READ),
    "delete /room/{room_id}/messages/{number}": Operation(204, ROOM_WRITE, other=(403, "not_message_writer")),
}


class Asker(NamedTuple):
    """Somebody who asks, with a token good for these scopes; `who` is in ROLES, except for NOBODY."""

    who: str
    scopes: frozenset[Scope] = EVERY
    personal: bool = False

    @property
    def name(self) -> str:
        scopes = "everything" if self.scopes == EVERY else " ".join(self.scopes)
        return f"{self.who} with {'a personal token' if self.personal else 'a login'} for {scopes}"

    @property
    def role(self) -> Role:
        return ROLES[self.who]

    @property
    def kind(self) -> str:
        """As the table has it: an admin with a token that is not good for that is one of the others."""
        return self.who if self.who == "owner" or (self.who == "admin" and ADMIN in self.scopes) else "other"


NOBODY = Asker("nobody")
FULL = [NOBODY, *map(Asker, ROLES), Asker("owner", personal=True), Asker("admin", personal=True)]
ASKERS = [
    *FULL,
    *(
        Asker(who, frozenset({scope}), personal)
        for who, scope, personal in product(("owner", "admin"), Scope, (False, True))
    ),
]


FEW = [NOBODY, Asker("owner"), Asker("other"), Asker("admin", personal=True)]
"""Enough to see that refusals leave no trace on every engine, and good answers do what they say."""


class Answer(NamedTuple):
    """Status, code if it is a refusal, and challenge if there is one."""

    status: int
    code: str | None = None
    challenge: str | None = None


def lacking(asker: Asker, scope: Scope) -> Answer | None:
    """The refusal for the lack of a scope, if it lacks: by the role, which no other token would help, or the token."""
    challenge = f'{CHALLENGE}, error="insufficient_scope"'
    if scope not in HAVE[asker.role]:
        return Answer(*NOT_OF_ROLE[scope], challenge)
    if scope not in asker.scopes:
        return Answer(*NARROW, f'{challenge}, scope="{scope}"')
    return None


def expected(operation: Operation, asker: Asker) -> Answer:
    if operation.public:
        return Answer(operation.owner)
    if asker is NOBODY:
        return Answer(*NO_TOKEN, CHALLENGE)
    if operation.scope and (refusal := lacking(asker, operation.scope)):
        return refusal
    if operation.for_authors and asker.role is Role.READER:
        return Answer(*NOT_OF_ROLE[WRITE], f'{CHALLENGE}, error="insufficient_scope"')
    if operation.by_login_only and asker.personal:
        return Answer(*NO_LOGIN)
    special = {"other": operation.other, "admin": operation.admin}.get(asker.kind)
    if isinstance(special, Scope):
        return lacking(asker, special) or Answer(operation.owner)
    return Answer(*special) if special else Answer(operation.owner)


TABLES = [table for table in SQLModel.metadata.sorted_tables if table.name not in ("login_failure", "idempotency_key")]


class World:
    """An owner with one of everything, the others, and a token of each kind for each of them."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self._app = app
        self._client = client
        self.headers: dict[Asker, dict[str, str]] = {NOBODY: {}}
        self.ids: dict[str, Any] = {}

    async def make(self) -> None:
        async with self._app.state.database.write.begin() as session:
            users = {
                who: User(
                    name=who,
                    name_folded=who,
                    email=f"{who}@example.com",
                    email_folded=f"{who}@example.com",
                    password_hash=PASSWORD_HASH,
                    role=role,
                )
                for who, role in ROLES.items()
            }
            session.add_all(users.values())
            await session.flush()
            logins = {
                who: LoginSession(
                    user_id=user.id,
                    family_digest=digest(who),
                    refresh_digest=digest(who),
                    scope="",
                    user_agent="",
                    address="",
                    expires_at=LATER,
                )
                for who, user in [*users.items(), ("spare", users["owner"])]
            }
            session.add_all(logins.values())
            for asker in ASKERS[1:]:
                user, text = users[asker.who], make(PERSONAL)
                if asker.personal:
                    session.add(personal_token(user, text, asker.scopes))
                    self.headers[asker] = bearer(text)
                else:
                    tokens, login = self._app.state.tokens, logins[asker.who]
                    token = tokens.issue(user.public_id, login.public_id, asker.scopes, seconds=900)
                    self.headers[asker] = bearer(token)
            spare = personal_token(users["owner"], SPARE, EVERY)
            owner, admin = users["owner"], users["admin"]
            reset = one_time_link(owner, RESET, Purpose.PASSWORD_RESET, email=EMAIL)
            verification = one_time_link(owner, VERIFICATION, Purpose.EMAIL_VERIFICATION, email=EMAIL)
            invitation = one_time_link(admin, INVITATION, Purpose.INVITATION, role=Role.READER)
            picture = remake(image_of("gif"), 10_000)
            async with self._app.state.media_folder.keeping(picture) as name:
                media = Media(
                    name=name, owner_id=owner.id, media_type="image/gif", size=len(picture.content), width=1, height=1
                )
            session.add_all([spare, reset, verification, invitation, media])
            await session.flush()
            blog_id = await BlogRepository(session).add(
                cast(Any, owner), BlogWrite(title="Notes", body="Text", tags=["engines"]), render("Text")
            )
            room = Room(name="Looms", owner_id=owner.id, last_number=1)
            session.add_all([room, Room(name="Notes", owner_id=owner.id, blog_id=blog_id, is_listed=False)])
            await session.flush()
            session.add(Message(room_id=room.id, number=1, writer_id=owner.id, body="Text", html="<p>Text</p>"))
            self.ids = {
                "user_id": owner.id,
                "session_id": logins["spare"].id,
                "token_id": spare.id,
                "invitation_id": invitation.id,
                "blog_id": blog_id,
                "slug": "notes",
                "number": 1,
                "name": name,
                "room_id": room.id,
            }

    async def ask(self, name: str, asker: Asker, *, malformed: bool = False) -> httpx.Response:
        operation = TABLE[name]
        method, path = name.split(" ")
        body: Any
        if malformed:
            body = 7
        elif isinstance(operation.body, list):
            body = [entry | {"id": self.ids["user_id"]} for entry in operation.body]
        else:
            body = operation.body
        url = path.format(**self.ids) + operation.query
        files = {"file": operation.file} if operation.file else None
        return await self._client.request(
            method, url, json=body, data=operation.form, files=files, headers=self.headers[asker]
        )

    async def rows(self) -> dict[str, list[Any]]:
        async with self._app.state.database.fresh() as session:
            found = {}
            for table in TABLES:
                statement = select(table).order_by(*table.primary_key.columns)
                found[table.name] = [row._asdict() for row in await session.execute(statement)]
        return found

    async def restore(self, rows: dict[str, list[Any]]) -> None:
        async with self._app.state.database.write.begin() as session:
            # The rest goes with its room, blog or user.
            for model in (Room, Blog, BlogChange, BlogSlug, Tag, ChangeCounter, ProfileCounter, User):
                await session.execute(delete(model))
            for table in TABLES:
                if rows[table.name]:
                    await session.execute(insert(table), rows[table.name])


def personal_token(user: User, text: str, scopes: Collection[Scope]) -> PersonalToken:
    return PersonalToken(
        user_id=user.id,
        name=text,
        token_digest=digest(text),
        scope=" ".join(scopes),
        expires_at=LATER,
        last_used_at=LATER,  # so that no use is noted behind an answer
    )


def one_time_link(user: User, text: str, purpose: Purpose, **more: Any) -> OneTimeLink:
    made_at = LATER - timedelta(days=2)  # long enough ago for another to be mailed
    return OneTimeLink(
        user_id=user.id, token_digest=digest(text), purpose=purpose, created_at=made_at, expires_at=LATER, **more
    )


@pytest.fixture
async def world(app: FastAPI, client: httpx.AsyncClient) -> World:
    world = World(app, client)
    await world.make()
    return world


@pytest.mark.parametrize("name", TABLE)
async def test_who_may_do_what(world: World, engine_name: str, name: str) -> None:
    before, operation = await world.rows(), TABLE[name]

    async def ask(asker: Asker, answer: Answer, *, malformed: bool = False) -> None:
        response = await world.ask(name, asker, malformed=malformed)
        status, refused = code(response) if response.is_error else (response.status_code, None)
        assert Answer(status, refused, response.headers.get("www-authenticate")) == answer, asker.name
        sees = response.is_success and asker.kind in operation.shows.split()
        assert (EMAIL in response.text) == sees, asker.name

    good = []
    # Who may is decided before what differs between engines. What is public looks at no token.
    for asker in FEW if engine_name != "sqlite" else FULL if operation.public else ASKERS:
        answer = expected(operation, asker)
        if answer.code is None:
            good.append(asker)
        else:
            await ask(asker, answer)
            lacks = asker is NOBODY or (operation.scope and lacking(asker, operation.scope))
            if operation.body is not None and lacks:
                await ask(asker, answer, malformed=True)  # who may not is told so, whatever was sent
    assert await world.rows() == before, "refused, and done all the same"
    assert good
    for asker in good:
        await ask(asker, expected(operation, asker))
        if not name.startswith("get "):
            assert await world.rows() != before, asker.name
            await world.restore(before)
    if name.startswith("get "):
        assert await world.rows() == before


def test_every_operation_is_in_the_table_with_its_scope() -> None:
    wants = {
        f"{method} {path}": operation.get("security", "public")
        for path, operations in create_app(make_settings()).openapi()["paths"].items()
        for method, operation in operations.items()
    }
    assert wants == {
        name: "public" if operation.public else [{"BearerToken": [operation.scope] if operation.scope else []}]
        for name, operation in TABLE.items()
    }
