"""The tables and their relationships: the schema at a glance."""

from datetime import UTC, date, datetime
from enum import StrEnum
from unicodedata import normalize
from uuid import uuid4

from sqlalchemy import Column, Dialect, Enum, ForeignKeyConstraint, Index, Integer, String, Text, TypeDecorator
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlmodel import Field, Relationship, SQLModel

# A constraint without a name can't be altered on every engine. Set before the first table.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

NAME_LENGTH = 100
EMAIL_LENGTH = 254  # RFC 5321, section 4.5.3.1.3, less the angle brackets
ABOUT_LENGTH = 2_000
DIGEST_LENGTH = 64  # SHA-256 in hexadecimal digits
SCOPE_LENGTH = 200
USER_AGENT_LENGTH = 200
ADDRESS_LENGTH = 64
TITLE_LENGTH = 200
SLUG_LENGTH = 100
SUMMARY_LENGTH = 500
BODY_LENGTH = 200_000
TAG_LENGTH = 50
MAX_TAGS = 20
MEDIA_NAME_LENGTH = 40
MEDIA_TYPE_LENGTH = 20
ROOM_LENGTH = 100
MESSAGE_LENGTH = 4_000
REF_LENGTH = 64

TABLE = {
    "sqlite_autoincrement": True,  # else SQLite hands out a deleted row's id once more
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",  # text is equal when its characters are, as on the other two
}

# TEXT is 64 KiB on MariaDB and MySQL.
LongText = Text().with_variant(MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")

Tokens = Text().with_variant(MEDIUMTEXT(charset="ascii", collation="ascii_bin"), "mysql")


def by_code_point(length: int) -> String:
    """Text that sorts by code point on every engine; PostgreSQL's own order depends on its locale."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def by_value(names: type[StrEnum], length: int) -> Enum:
    """Text that is one of these values."""
    return Enum(names, native_enum=False, length=length, values_callable=lambda names: [name.value for name in names])


class Lines(TypeDecorator[list[str]]):
    """Several texts without line breaks in one column, a line each; MariaDB's JSON is no type of its own."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: list[str] | None, _: Dialect) -> str | None:
        """As the database keeps it."""
        return None if value is None else "\n".join(value)

    def process_result_value(self, value: str | None, _: Dialect) -> list[str] | None:
        """As it was."""
        return None if value is None else value.split("\n") if value else []


def now() -> datetime:
    """This second in UTC. Whole seconds are what all three engines keep."""
    return datetime.now(UTC).replace(microsecond=0)


def fold(text: str) -> str:
    """The form in which spellings that differ in case or width only are the same (UAX #15, NFKC)."""
    return normalize("NFKC", normalize("NFKC", text).casefold())


class Role(StrEnum):
    """What a user may do: a reader discusses, an author writes, an admin does everything."""

    READER = "reader"
    AUTHOR = "author"
    ADMIN = "admin"


class User(SQLModel, table=True):
    """Somebody with a login."""

    __table_args__ = (
        Index(None, "role", "id"),
        Index(None, "is_active", "id"),
        Index(None, "is_active", "role", "id"),
        TABLE,
    )

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    # What tokens name: unlike a row id it is never another user's after a restore or a re-creation.
    public_id: str = Field(default_factory=lambda: uuid4().hex, max_length=32, unique=True)
    name: str = Field(max_length=NAME_LENGTH)
    name_folded: str = Field(sa_type=String(NAME_LENGTH * 2))
    email: str = Field(max_length=EMAIL_LENGTH)
    email_folded: str = Field(max_length=EMAIL_LENGTH, unique=True)
    about: str = Field(default="", sa_type=LongText)
    password_hash: str = Field(max_length=128)
    role: Role = Field(default=Role.AUTHOR, sa_type=by_value(Role, 16))
    is_active: bool = True
    # When the address that is there now was confirmed, by a link or by an admin.
    email_verified_at: datetime | None = None
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now)

    blogs: list["Blog"] = Relationship(
        back_populates="creator", sa_relationship_kwargs={"lazy": "raise", "passive_deletes": "all"}
    )


class ProfileCounter(SQLModel, table=True):
    """How often something of a user has changed that pages show, or a user went: one row.

    Whoever counts has locked all users that it will, so that no two wait for each other.
    """

    __tablename__ = "profile_counter"
    __table_args__ = (TABLE,)

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int


class Status(StrEnum):
    """Who sees a blog: its creator, its creator until a moment that is to come, everybody."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    PUBLISHED = "published"


class Blog(SQLModel, table=True):
    """One article. An index for every order that a list offers, each with the id to tell equals apart.

    Everybody sees it once it is no draft and `published_at` is over; nothing has to happen at that moment. `html` is
    what the version `renderer` made of `body`. `tags` are shown as they are here; `BlogTag` finds blogs by them.
    `version` counts what was written, `revision` the titles and bodies among it.
    """

    __table_args__ = (
        Index(None, "is_draft", "published_at", "id"),
        Index(None, "is_draft", "title_folded", "id"),
        Index(None, "creator_id", "is_draft", "published_at", "id"),
        Index(None, "creator_id", "is_draft", "title_folded", "id"),
        Index(None, "renderer"),
        TABLE,
    )

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    slug: str = Field(max_length=SLUG_LENGTH)
    title: str = Field(max_length=TITLE_LENGTH)
    title_folded: str = Field(sa_type=by_code_point(TITLE_LENGTH))
    summary: str = Field(max_length=SUMMARY_LENGTH)
    body: str = Field(sa_type=LongText)
    html: str = Field(sa_type=LongText)
    renderer: int
    tags: list[str] = Field(sa_type=Lines(MAX_TAGS * (TAG_LENGTH + 1)))
    # The database refuses to delete a user who has blogs.
    creator_id: int = Field(foreign_key="user.id", ondelete="RESTRICT")
    is_draft: bool
    version: int = 1
    revision: int = 1
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now)
    published_at: datetime = Field(default_factory=now)

    creator: User = Relationship(back_populates="blogs", sa_relationship_kwargs={"lazy": "raise"})


class BlogSlug(SQLModel, table=True):
    """A slug that a blog has or had. It stays when the blog goes, so that nobody gets it again."""

    __tablename__ = "blog_slug"
    __table_args__ = (TABLE,)

    slug: str = Field(primary_key=True, max_length=SLUG_LENGTH)
    blog_id: int


class BlogRevision(SQLModel, table=True):
    """A title and body that a blog has or had. Whoever wrote it may be gone."""

    __tablename__ = "blog_revision"
    __table_args__ = (ForeignKeyConstraint(["blog_id"], ["blog.id"], ondelete="CASCADE"), TABLE)

    blog_id: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    title: str = Field(max_length=TITLE_LENGTH)
    body: str = Field(sa_type=LongText)
    editor_id: int
    created_at: datetime


class Tag(SQLModel, table=True):
    """A tag that some blog has. `blogs` is how many that are no drafts have it."""

    __table_args__ = (TABLE,)

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    name: str = Field(sa_type=by_code_point(TAG_LENGTH), unique=True)
    blogs: int = 0


class BlogTag(SQLModel, table=True):
    """That a blog has a tag, with what a list of the tag's blogs is ordered by and what it leaves out."""

    __tablename__ = "blog_tag"
    __table_args__ = (
        ForeignKeyConstraint(["blog_id"], ["blog.id"], ondelete="CASCADE"),
        Index(None, "tag_id", "is_draft", "published_at", "blog_id"),
        Index(None, "tag_id", "is_draft", "title_folded", "blog_id"),
        Index(None, "creator_id", "tag_id", "is_draft", "published_at", "blog_id"),
        Index(None, "creator_id", "tag_id", "is_draft", "title_folded", "blog_id"),
        TABLE,
    )

    blog_id: int = Field(primary_key=True)
    tag_id: int = Field(primary_key=True, foreign_key="tag.id")
    creator_id: int
    is_draft: bool
    published_at: datetime
    title_folded: str = Field(sa_type=by_code_point(TITLE_LENGTH))


class BlogChange(SQLModel, table=True):
    """What last became of a blog, and when in the order of all changes. It stays when the blog goes.

    `number` counts for its creator, `public_number` for everybody else: the last change by which they saw another blog
    than before, or one blog less. It is missing while they never saw the blog. One that was written before it was due
    comes into sight at `due_at`, without being written again.
    """

    __tablename__ = "blog_change"
    __table_args__ = (
        Index(None, "creator_id", "number", "blog_id"),
        Index(None, "public_number", "blog_id"),
        Index(None, "due_at", "blog_id"),
        TABLE,
    )

    blog_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    creator_id: int
    number: int
    created_number: int
    changed_at: datetime
    public_number: int | None = None
    # The change from which on others see it, or will see it; missing while it is a draft, and when it is deleted.
    public_since: int | None = None
    public_changed_at: datetime | None = None
    due_at: datetime | None = None
    # Whether others may have seen it at a moment at which they do not any more.
    was_public: bool = False
    deleted_at: datetime | None = None


class ChangeCounter(SQLModel, table=True):
    """The number of the last change: one row, which every transaction that writes blogs locks before anything else.

    Numbers are in the order of commits, therefore, and whoever has seen one has seen all below it.
    """

    __tablename__ = "change_counter"
    __table_args__ = (TABLE,)

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int


class BlogText(SQLModel, table=True):
    """What searching reads of a blog: its words as tokens, and its text as rendered, without the markup.

    Each engine's index of `terms` is in the migrations alone: no two have the same.
    """

    __tablename__ = "blog_text"
    __table_args__ = (TABLE,)

    blog_id: int = Field(primary_key=True, foreign_key="blog.id", ondelete="CASCADE")
    terms: str = Field(sa_type=Tokens)
    text: str = Field(sa_type=LongText)


class LoginSession(SQLModel, table=True):
    """One login, which lives as long as its refresh token is used, and no longer than its row.

    `family_digest` finds it by whatever refresh token it ever had, and `refresh_digest` tells the one that is good.
    """

    __tablename__ = "login_session"
    __table_args__ = (Index(None, "user_id", "id"), TABLE)

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    public_id: str = Field(default_factory=lambda: uuid4().hex, max_length=32, unique=True)
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE")
    family_digest: str = Field(max_length=DIGEST_LENGTH, unique=True)
    refresh_digest: str = Field(max_length=DIGEST_LENGTH)
    scope: str = Field(max_length=SCOPE_LENGTH)
    user_agent: str = Field(max_length=USER_AGENT_LENGTH)
    address: str = Field(max_length=ADDRESS_LENGTH)
    created_at: datetime = Field(default_factory=now)
    last_used_at: datetime = Field(default_factory=now)
    expires_at: datetime


class PersonalToken(SQLModel, table=True):
    """A token that a user made for a script."""

    __tablename__ = "personal_token"
    __table_args__ = (Index(None, "user_id", "id"), TABLE)

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE")
    name: str = Field(max_length=NAME_LENGTH)
    token_digest: str = Field(max_length=DIGEST_LENGTH, unique=True)
    scope: str = Field(max_length=SCOPE_LENGTH)
    created_at: datetime = Field(default_factory=now)
    last_used_at: datetime | None = None
    expires_at: datetime


class Purpose(StrEnum):
    """What a one-time link is for."""

    PASSWORD_RESET = "password_reset"  # noqa: S105  (the name of a purpose)
    EMAIL_VERIFICATION = "email_verification"
    INVITATION = "invitation"


class OneTimeLink(SQLModel, table=True):
    """A link that is good once: its row goes when it is used.

    It is the user's whose password or address it is about, or the admin's who invites. `email` is where it was sent
    to, if it was sent; `role` is what somebody invited becomes.
    """

    __tablename__ = "one_time_link"
    __table_args__ = (Index(None, "user_id", "purpose", "id"), Index(None, "purpose", "id"), TABLE)

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    token_digest: str = Field(max_length=DIGEST_LENGTH, unique=True)
    purpose: Purpose = Field(sa_type=by_value(Purpose, 32))
    user_id: int = Field(foreign_key="user.id", ondelete="CASCADE")
    email: str | None = Field(default=None, max_length=EMAIL_LENGTH)
    role: Role | None = Field(default=None, sa_type=by_value(Role, 16))
    created_at: datetime = Field(default_factory=now)
    expires_at: datetime


class Media(SQLModel, table=True):
    """An image, whose file has its name. It is its owner's, and goes with the owner."""

    __table_args__ = (Index(None, "owner_id", "size"), TABLE)

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    name: str = Field(max_length=MEDIA_NAME_LENGTH, unique=True)
    owner_id: int = Field(foreign_key="user.id", ondelete="CASCADE")
    media_type: str = Field(max_length=MEDIA_TYPE_LENGTH)
    size: int
    width: int
    height: int
    created_at: datetime = Field(default_factory=now)


class Room(SQLModel, table=True):
    """A live discussion: of a blog, or one that somebody opened, which lists show. An index for each of their orders.

    `last_number` is that of its last message, and `removals` counts those that were taken away: whoever has seen both
    has seen all there is. A blog's room is the creator's of the blog, and others' may be of somebody who is gone.
    """

    __table_args__ = (
        Index(None, "is_listed", "created_at", "id"),
        Index(None, "is_listed", "order", "id"),
        Index(None, "is_listed", "category", "created_at", "id"),
        Index(None, "is_listed", "category", "order", "id"),
        TABLE,
    )

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    name: str = Field(max_length=ROOM_LENGTH)
    category: str = Field(default="", max_length=ROOM_LENGTH)
    description: str = Field(default="", max_length=ROOM_LENGTH)
    room_type: str = Field(default="", max_length=ROOM_LENGTH)
    order: str = Field(default="", sa_type=by_code_point(ROOM_LENGTH))
    owner_id: int
    blog_id: int | None = Field(default=None, foreign_key="blog.id", ondelete="CASCADE", unique=True)
    is_listed: bool = True
    slow_mode: int = 0
    last_number: int = 0
    removals: int = 0
    created_at: datetime = Field(default_factory=now)
    closed_at: datetime | None = None


class Message(SQLModel, table=True):
    """What somebody said in a room. Numbers have no gaps: of one that was removed, all but the text stays.

    `removal` is which of the room's removals that was. `ref` is what its writer called it, so that it is not written
    twice. Whoever wrote it may be gone.
    """

    __table_args__ = (
        ForeignKeyConstraint(["room_id"], ["room.id"], ondelete="CASCADE"),
        Index(None, "room_id", "removal"),
        Index(None, "room_id", "writer_id", "number"),
        Index(None, "room_id", "writer_id", "ref", unique=True),
        TABLE,
    )

    room_id: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    writer_id: int
    ref: str | None = Field(default=None, max_length=REF_LENGTH)
    body: str = Field(sa_type=LongText)
    html: str = Field(sa_type=LongText)
    created_at: datetime = Field(default_factory=now)
    deleted_at: datetime | None = None
    removal: int | None = None


class RoomPresence(SQLModel, table=True):
    """That somebody is in a room by way of one process, until `expires_at` unless that process says so again."""

    __tablename__ = "room_presence"
    __table_args__ = (Index(None, "room_id", "expires_at"), Index(None, "expires_at"), TABLE)

    process: str = Field(primary_key=True, max_length=32)
    room_id: int = Field(primary_key=True)
    user_id: int = Field(primary_key=True)
    expires_at: datetime


class LoginFailure(SQLModel, table=True):
    """Wrong passwords within the minute that ends at `expires_at`, from one address or for one account.

    `key` is a keyed digest of what is counted: neither addresses nor what people type as a user name
    are stored.
    """

    __tablename__ = "login_failure"
    __table_args__ = (TABLE,)

    key: str = Field(primary_key=True, max_length=32)
    failures: int
    expires_at: datetime = Field(index=True)


class Reading(SQLModel, table=True):
    """How many read a post on some day; under the id 0, how many any of its creator's. Nobody of them is stored."""

    __table_args__ = (TABLE,)

    creator_id: int = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    blog_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    day: date = Field(primary_key=True)
    readers: int


class IdempotencyKey(SQLModel, table=True):
    """The answer to a request that came with an Idempotency-Key, until `expires_at`.

    `key` is a keyed digest of who asked for what under which key, and `answer` is sealed with the key that only the
    client knows. Nobody's are the answers to those who were not logged in.
    """

    __tablename__ = "idempotency_key"
    __table_args__ = (TABLE,)

    key: str = Field(primary_key=True, max_length=DIGEST_LENGTH)
    answer: str = Field(sa_type=LongText)
    user_id: int | None = Field(foreign_key="user.id", ondelete="CASCADE", index=True)
    expires_at: datetime = Field(index=True)
