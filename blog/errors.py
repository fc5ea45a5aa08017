"""What the platform refuses, and how it says so.

Every refusal is one class with its HTTP status, its stable code and its sentence::

    Refusal
    ├── Unreadable                 400 bad_request
    │   └── InvalidTokenRequest    400 invalid_request
    │       └── UnsupportedGrantType   400 unsupported_grant_type
    ├── NotAuthenticated           401 not_authenticated
    │   ├── InvalidToken           401 invalid_token
    │   └── InvalidCredentials     401 invalid_grant
    ├── Forbidden                  403 forbidden
    │   ├── AdminRequired          403 admin_required
    │   ├── AuthorRequired         403 author_required
    │   ├── NotBlogCreator         403 not_blog_creator
    │   ├── RegistrationClosed     403 registration_closed
    │   └── WrongPassword          403 wrong_password
    ├── NotFound                   404 not_found
    │   ├── BlogNotFound           404 blog_not_found
    │   └── UserNotFound           404 user_not_found
    ├── Conflict                   409 conflict
    │   ├── EmailTaken             409 email_taken
    │   └── UserHasBlogs           409 user_has_blogs
    ├── Invalid                    422 invalid
    │   ├── InvalidCursor          422 invalid_cursor
    │   └── WeakPassword           422 weak_password
    └── DatabaseUnavailable        503 database_unavailable

422 is for a malformed request; a clash with what is stored is 409.
"""

from collections.abc import Mapping
from typing import ClassVar

CHALLENGE = 'Bearer realm="blog"'


class Refusal(Exception):  # noqa: N818  (most are nobody's error)
    """The base: one handler writes every subclass as RFC 9457 problem details.

    `detail` is the sentence a person reads, the class's own unless one is given; `oauth` adds the members of RFC 6749,
    section 5.2; `headers` go out with the answer.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    detail: str
    oauth: ClassVar[bool] = False
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.detail
        super().__init__(self.detail)


class Unreadable(Refusal):
    """The body is not what its type says: JSON that is no JSON, a form that is no form."""

    status = 400
    code = "bad_request"
    detail = "There was an error parsing the body."


class InvalidTokenRequest(Unreadable):
    """RFC 6749, section 5.2."""

    code = "invalid_request"
    detail = "Send the form fields username and password."
    oauth = True
    headers: ClassVar[Mapping[str, str]] = {"Cache-Control": "no-store"}


class UnsupportedGrantType(InvalidTokenRequest):
    """RFC 6749, section 5.2."""

    code = "unsupported_grant_type"
    detail = "The only grant type here is password."


class NotAuthenticated(Refusal):
    """No token came with the request, so no error code goes out: RFC 6750, section 3."""

    status = 401
    code = "not_authenticated"
    detail = "Log in at /login and send the token as Authorization: Bearer."
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": CHALLENGE}


class InvalidToken(NotAuthenticated):
    """Malformed, forged, expired, revoked, or its user is gone: RFC 6750, section 3.1."""

    code = "invalid_token"
    detail = "This token is not valid, or not any more. Log in again."
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}


class InvalidCredentials(NotAuthenticated):
    """Unknown user, wrong password and blocked user, without telling which."""

    code = "invalid_grant"
    detail = "The e-mail address or the password is wrong."
    oauth = True
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": CHALLENGE, "Cache-Control": "no-store"}


class Forbidden(Refusal):
    """We know who asks, and it is not theirs to ask."""

    status = 403
    code = "forbidden"
    detail = "You may not do this."


class AdminRequired(Forbidden):
    """Only an admin may do this."""

    code = "admin_required"
    detail = "Only an admin may do this."


class AuthorRequired(Forbidden):
    """A reader may not write."""

    code = "author_required"
    detail = "Only an author or an admin may write blogs."


class NotBlogCreator(Forbidden):
    """Somebody else's blog."""

    code = "not_blog_creator"
    detail = "Only its creator or an admin may change this blog."


class RegistrationClosed(Forbidden):
    """The settings let nobody register."""

    code = "registration_closed"
    detail = "Registration is closed here. Ask an admin for an account."


class WrongPassword(Forbidden):
    """The step asks for the current password again, and it did not come or did not fit."""

    code = "wrong_password"
    detail = "This needs your current password, and what was sent is not it."


class NotFound(Refusal):
    """Nothing at this address."""

    status = 404
    code = "not_found"
    detail = "There is nothing here."


class BlogNotFound(NotFound):
    """No blog with this id."""

    code = "blog_not_found"
    detail = "There is no blog with this id."


class UserNotFound(NotFound):
    """No user with this id."""

    code = "user_not_found"
    detail = "There is no user with this id."


class Conflict(Refusal):
    """A clash with what is stored."""

    status = 409
    code = "conflict"
    detail = "This clashes with what is stored."


class EmailTaken(Conflict):
    """The address belongs to a user already, in whatever case it is written."""

    code = "email_taken"
    detail = "There is a user with this e-mail address already."


class UserHasBlogs(Conflict):
    """Deleting a user needs a word on what becomes of the blogs."""

    code = "user_has_blogs"
    detail = "This user has blogs: say blogs=delete, or as an admin blogs=reassign&to={id}."


class Invalid(Refusal):
    """The request itself is malformed."""

    status = 422
    code = "invalid"
    detail = "The request is not as it should be; errors says where."


class InvalidCursor(Invalid):
    """Forged, cut, or made for another query."""

    code = "invalid_cursor"
    detail = "This cursor was not made for this query. Start again without one."


class WeakPassword(Invalid):
    """The settings ask for more than the schema does."""

    code = "weak_password"
    detail = "This password is too short."


class DatabaseUnavailable(Refusal):
    """The database is lost, locked, has no connection free or gave way to another; nothing was stored."""

    status = 503
    code = "database_unavailable"
    detail = "The database is not there for this just now. Nothing was stored; try again."
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "2"}
