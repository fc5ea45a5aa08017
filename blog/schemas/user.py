"""Users, as they come in and go out."""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictBool, StringConstraints

from blog.models import ABOUT_LENGTH, Role, Status
from blog.schemas.types import AbsentIfNone, Email, Id, Input, Moment, Name, NewPassword, Omissible, Output, Text

BULK_LIMIT = 100
"""Users that one bulk change takes."""

About = Annotated[Text, StringConstraints(max_length=ABOUT_LENGTH), Field(examples=["Wrote the first program."])]
OneTime = Annotated[
    str, StringConstraints(max_length=200), Field(description="What the link holds.", examples=["blog_link_hV0sC1…"])
]
CurrentPassword = Annotated[str, Field(examples=["correct horse battery"])]


class UserCreate(Input):
    """Somebody who registers."""

    name: Name
    email: Email
    password: NewPassword
    invitation: OneTime = Omissible


class ProfileUpdate(Input):
    """What users change of themselves. A new address needs the current password."""

    name: Name = Omissible
    email: Email = Omissible
    about: About = Omissible
    current_password: CurrentPassword = Omissible


class PasswordChange(Input):
    """A new password, by somebody who knows the old one."""

    current_password: CurrentPassword
    new_password: NewPassword


class Address(Input):
    """Whom a link should be mailed to."""

    email: Email


class PasswordReset(Input):
    """A new password, by somebody who has a link to it."""

    token: OneTime
    password: NewPassword


class EmailConfirmation(Input):
    """An address, by somebody who has a link that was sent there."""

    token: OneTime


class InvitationCreate(Input):
    """Somebody to be invited. With an address the link is mailed there, and only this address can register with it.

    Without a role it is the one that everybody gets who registers.
    """

    email: Email = Omissible
    role: Role = Omissible


class UserUpdate(Input):
    """What admins change of a user."""

    role: Role = Omissible
    is_active: StrictBool = Omissible


class UserBulkUpdate(UserUpdate):
    """The same, of one user among several."""

    id: Id


def _distinct(updates: list[UserBulkUpdate]) -> list[UserBulkUpdate]:
    if len({update.id for update in updates}) < len(updates):
        raise ValueError("names a user twice")
    return updates


UserBulkUpdates = Annotated[list[UserBulkUpdate], Field(min_length=1, max_length=BULK_LIMIT), AfterValidator(_distinct)]


class UserDelete(Input):
    """The password of somebody who deletes the own account."""

    current_password: CurrentPassword


class UserOwn(Output):
    """A user, as the user and admins see it."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Ada"])
    email: str = Field(examples=["ada@example.com"])
    about: str = Field(examples=["Wrote the first program."])
    role: Role
    is_active: bool
    email_verified_at: Moment | None = Field(description="When the address was confirmed, by a link or by an admin.")
    created_at: Moment
    updated_at: Moment


class BlogTitle(Output):
    """A blog in its creator's list."""

    id: int = Field(examples=[7])
    title: str = Field(examples=["Notes on the engine"])
    status: Status
    published_at: Moment | None = Field(description="Null for a draft.")


class UserPublic(Output):
    """A user, as other users see it; `email` is there for oneself and admins."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Ada"])
    about: str = Field(examples=["Wrote the first program."])
    email: str | None = AbsentIfNone
    created_at: Moment
    blogs: list[BlogTitle] = Field(description="The newest 20; the rest are at `GET /blog/?author={id}`.")


class Invitation(Output):
    """An invitation that nobody has used yet."""

    id: int = Field(examples=[7])
    email: str | None = Field(examples=["ada@example.com"], description="Who alone may use it, if anybody is named.")
    role: Role
    created_at: Moment
    expires_at: Moment


class InvitationCreated(Invitation):
    """A new invitation, with what invites: it is shown here and never again."""

    token: str = Field(examples=["blog_link_hV0sC1…"], description="For the `invitation` of `POST /user/`.")
    link: str = Field(examples=["https://blog.example.com/link#invitation=blog_link_hV0sC1…"])
