"""Scopes (RFC 6749, section 3.3), and who asks with which of them."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from sqlalchemy import Row

from blog.errors import AdminRequired, AuthorRequired, InsufficientScope, InvalidScope
from blog.models import Role


class Scope(StrEnum):
    """What a token lets its bearer do, as far as the user's role allows it."""

    BLOG_READ = "blog:read"
    BLOG_WRITE = "blog:write"
    ROOM_READ = "room:read"
    ROOM_WRITE = "room:write"
    USER_READ = "user:read"
    USER_WRITE = "user:write"
    ADMIN = "admin"


DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        Scope.BLOG_READ: "Read blogs.",
        Scope.BLOG_WRITE: "Write, change and delete one's own blogs.",
        Scope.ROOM_READ: "Read discussions.",
        Scope.ROOM_WRITE: "Take part in discussions.",
        Scope.USER_READ: "Read users, one's own record, logins and personal tokens.",
        Scope.USER_WRITE: "Change one's own record and password, end logins, make personal tokens.",
        Scope.ADMIN: "What admins may: change users, and what belongs to others.",
    }
)

ALL = frozenset(Scope)
SCOPES_OF: Mapping[Role, frozenset[Scope]] = MappingProxyType(
    {Role.READER: ALL - {Scope.BLOG_WRITE, Scope.ADMIN}, Role.AUTHOR: ALL - {Scope.ADMIN}, Role.ADMIN: ALL}
)

UserRow = Row[*tuple[Any, ...]]
"""All columns of a user, to be known and shown but not changed."""


class Caller(NamedTuple):
    """Who asks: the user as the database has it now, and what the token that came lets this user do.

    One of `login_id` and `token_id` is there: the row of the login, or of the personal token.
    """

    user: UserRow
    scopes: frozenset[Scope]
    login_id: int | None = None
    token_id: int | None = None

    @property
    def is_admin(self) -> bool:
        """Whether this is an admin, with a token that is good for that."""
        return Scope.ADMIN in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise AdminRequired or AuthorRequired when the role lacks the scope, else InsufficientScope.

        A role is named where it is what lacks, because another token would not help.
        """
        if scope in self.scopes:
            return
        if scope not in SCOPES_OF[self.user.role]:
            raise AdminRequired if scope is Scope.ADMIN else AuthorRequired
        raise InsufficientScope.lacking(scope)


class _Nobody(NamedTuple):
    """Whoever reads without an account: no user has this id."""

    id: int = 0
    role: Role = Role.READER


ANYBODY = Caller(cast(UserRow, _Nobody()), frozenset())
"""Who sees what everybody sees."""


def read_scopes(text: str) -> frozenset[Scope]:
    """The scopes of a list with spaces between. Raises InvalidScope for one that is unknown."""
    try:
        return frozenset(Scope(word) for word in text.split(" ") if word)
    except ValueError:
        raise InvalidScope from None


def write_scopes(scopes: Collection[Scope]) -> str:
    """The list with spaces between, in one order."""
    return " ".join(scope for scope in Scope if scope in scopes)
