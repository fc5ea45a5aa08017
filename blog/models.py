"""The tables and their relationships: the schema at a glance."""

from datetime import UTC, datetime
from enum import StrEnum
from unicodedata import normalize
from uuid import uuid4

from sqlalchemy import Column, Enum, Index, Integer, String, Text
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
TITLE_LENGTH = 200
BODY_LENGTH = 200_000

TABLE = {
    "sqlite_autoincrement": True,  # else SQLite hands out a deleted row's id once more
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",  # text is equal when its characters are, as on the other two
}

# TEXT is 64 KiB on MariaDB and MySQL.
LongText = Text().with_variant(MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def by_code_point(length: int) -> String:
    """Text that sorts by code point on every engine; PostgreSQL's own order depends on its locale."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


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

    __table_args__ = (Index(None, "role", "id"), TABLE)

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    # What tokens name: unlike a row id it is never another user's after a restore or a re-creation.
    public_id: str = Field(default_factory=lambda: uuid4().hex, max_length=32, unique=True)
    name: str = Field(max_length=NAME_LENGTH)
    name_folded: str = Field(sa_type=String(NAME_LENGTH * 2))
    email: str = Field(max_length=EMAIL_LENGTH)
    email_folded: str = Field(max_length=EMAIL_LENGTH, unique=True)
    about: str = Field(default="", sa_type=LongText)
    password_hash: str = Field(max_length=128)
    role: Role = Field(
        default=Role.AUTHOR,
        sa_type=Enum(Role, native_enum=False, length=16, values_callable=lambda roles: [role.value for role in roles]),
    )
    is_active: bool = True
    # Every token names the generation of its login. A new one ends them all, but for the one token spared.
    login_generation: str = Field(default_factory=lambda: uuid4().hex, max_length=32)
    spared_token_id: str | None = Field(default=None, max_length=32)
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now)

    blogs: list["Blog"] = Relationship(
        back_populates="creator", sa_relationship_kwargs={"lazy": "raise", "passive_deletes": "all"}
    )


class Blog(SQLModel, table=True):
    """One article. An index for every order that a list offers, each with the id to tell equals apart."""

    __table_args__ = (
        Index(None, "published_at", "id"),
        Index(None, "title_folded", "id"),
        Index(None, "creator_id", "published_at", "id"),
        Index(None, "creator_id", "title_folded", "id"),
        TABLE,
    )

    id: int = Field(default=None, sa_column=Column(Integer, primary_key=True))
    title: str = Field(max_length=TITLE_LENGTH)
    title_folded: str = Field(sa_type=by_code_point(TITLE_LENGTH))
    body: str = Field(sa_type=LongText)
    # The database refuses to delete a user who has blogs.
    creator_id: int = Field(foreign_key="user.id", ondelete="RESTRICT")
    created_at: datetime = Field(default_factory=now)
    updated_at: datetime = Field(default_factory=now)
    published_at: datetime = Field(default_factory=now)

    creator: User = Relationship(back_populates="blogs", sa_relationship_kwargs={"lazy": "raise"})


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
