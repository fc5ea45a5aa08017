"""What the platform refuses, and how it says so.

Every refusal is one class with its HTTP status, its stable code and its sentence::

    Refusal
    ├── Malformed                  400 malformed_request
    │   └── CrossOriginRefused     400 cross_origin_refused
    ├── UnknownHost                400 unknown_host
    ├── Unreadable                 400 bad_request
    │   └── InvalidTokenRequest    400 invalid_request
    │       ├── FormRequired           415 unsupported_media_type
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
    ├── TooSlow                    408 request_timeout
    ├── Conflict                   409 conflict
    │   ├── EmailTaken             409 email_taken
    │   └── UserHasBlogs           409 user_has_blogs
    ├── BodyTooLarge               413 content_too_large
    ├── Invalid                    422 invalid
    │   ├── InvalidCursor          422 invalid_cursor
    │   ├── Unstorable             422 unstorable
    │   └── WeakPassword           422 weak_password
    ├── TooManyRequests            429 too_many_requests
    │   └── TooManyFailures        429 too_many_failures
    ├── HeadersTooLarge            431 headers_too_large
    ├── Unexpected                 500 internal_error
    └── Unavailable                503 unavailable
        ├── Busy                   503 busy
        └── DatabaseUnavailable    503 database_unavailable
            └── SchemaOutdated     503 schema_outdated

422 is for a malformed request; a clash with what is stored is 409.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

CHALLENGE = 'Bearer realm="blog"'


class Refusal(Exception):  # noqa: N818  (most are nobody's error)
    """The base: one handler writes every subclass as RFC 9457 problem details.

    `detail` is the sentence a person reads, and `headers` go out with the answer, the class's own unless others are
    given; `oauth` is the error code of RFC 6749, section 5.2, for what the token endpoint refuses.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    detail: str
    oauth: ClassVar[str | None] = None
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None) -> None:
        self.detail = detail or self.detail
        self.headers = headers or self.headers
        super().__init__(self.detail)


class Malformed(Refusal):
    """What came is not HTTP."""

    status = 400
    code = "malformed_request"
    detail = "This is not a valid HTTP request."


class CrossOriginRefused(Malformed):
    """A browser asks whether a page of another site may do this."""

    code = "cross_origin_refused"
    detail = "A page of this site may not do this here: see BLOG_CORS_ORIGINS."


class UnknownHost(Refusal):
    """RFC 9112, section 3.2: one Host, and one that the settings know."""

    status = 400
    code = "unknown_host"
    detail = "This is not served under the name in the Host header: see BLOG_BASE_URL and BLOG_ALLOWED_HOSTS."


class Unreadable(Refusal):
    """The body is not what its type says: JSON that is no JSON, a form that is no form."""

    status = 400
    code = "bad_request"
    detail = "There was an error parsing the body."


class InvalidTokenRequest(Unreadable):
    """RFC 6749, section 5.2."""

    code = "invalid_request"
    detail = "Send the form fields username and password."
    oauth = "invalid_request"
    headers = MappingProxyType({"Cache-Control": "no-store"})


class FormRequired(InvalidTokenRequest):
    """RFC 6749, section 4.3.2: the token endpoint takes a form."""

    status = 415
    code = "unsupported_media_type"
    detail = "Send username and password as application/x-www-form-urlencoded."


class UnsupportedGrantType(InvalidTokenRequest):
    """RFC 6749, section 5.2."""

    code = "unsupported_grant_type"
    detail = "The only grant type here is password."
    oauth = "unsupported_grant_type"


class NotAuthenticated(Refusal):
    """No token came with the request, so no error code goes out: RFC 6750, section 3."""

    status = 401
    code = "not_authenticated"
    detail = "Log in at /login and send the token as Authorization: Bearer."
    headers = MappingProxyType({"WWW-Authenticate": CHALLENGE})


class InvalidToken(NotAuthenticated):
    """Malformed, forged, expired, revoked, or its user is gone: RFC 6750, section 3.1."""

    code = "invalid_token"
    detail = "This token is not valid, or not any more. Log in again."
    headers = MappingProxyType({"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'})


class InvalidCredentials(NotAuthenticated):
    """Unknown user, wrong password and blocked user, without telling which."""

    code = "invalid_grant"
    detail = "The e-mail address or the password is wrong."
    oauth = "invalid_grant"
    headers = MappingProxyType({"WWW-Authenticate": CHALLENGE, "Cache-Control": "no-store"})


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


class TooSlow(Refusal):
    """The request took too long to arrive."""

    status = 408
    code = "request_timeout"
    detail = "The request took too long to arrive."


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


class BodyTooLarge(Refusal):
    """More than the settings let in."""

    status = 413
    code = "content_too_large"
    detail = "This body is larger than what is taken here."


class Invalid(Refusal):
    """The request itself is malformed."""

    status = 422
    code = "invalid"
    detail = "The request is not as it should be; errors says where."


class InvalidCursor(Invalid):
    """Forged, cut, or made for another query."""

    code = "invalid_cursor"
    detail = "This cursor was not made for this query. Start again without one."


class Unstorable(Invalid):
    """The database does not take a value that the schemas let through."""

    code = "unstorable"
    detail = "Something in this request cannot be stored."


class WeakPassword(Invalid):
    """The settings ask for more than the schema does."""

    code = "weak_password"
    detail = "This password is too short."


class TooManyRequests(Refusal):
    """This client asks more often than the settings let it."""

    status = 429
    code = "too_many_requests"
    detail = "Too many requests from your address. Wait a moment."
    headers = MappingProxyType({"Retry-After": "60"})


class TooManyFailures(TooManyRequests):
    """Too many wrong passwords from one address or for one account."""

    code = "too_many_failures"
    detail = "Too many failed logins. Wait a moment and try again."
    oauth = "temporarily_unavailable"
    headers = MappingProxyType({"Retry-After": "60", "Cache-Control": "no-store"})


class HeadersTooLarge(Refusal):
    """More than a request's headers may take."""

    status = 431
    code = "headers_too_large"
    detail = "The headers of this request are larger than what is taken here."


class Unexpected(Refusal):
    """A fault of ours, written to the log."""

    status = 500
    code = "internal_error"
    detail = "Something went wrong here; the log says what, under this answer's X-Request-ID."


class Unavailable(Refusal):
    """Not just now: the server is stopping."""

    status = 503
    code = "unavailable"
    detail = "The server is stopping. Look whether a change was stored before you try again."
    headers = MappingProxyType({"Retry-After": "2"})


class Busy(Unavailable):
    """More passwords wait to be looked at than there is time for."""

    code = "busy"
    detail = "Too many people are logging in just now. Try again in a moment."
    oauth = "temporarily_unavailable"


class DatabaseUnavailable(Unavailable):
    """The database is lost, locked, frozen, has no connection free or gave way to another.

    A commit that got no answer may have happened, so it does not say that nothing was stored.
    """

    code = "database_unavailable"
    detail = "The database is not there for this just now. Look whether a change was stored before you try again."


class SchemaOutdated(DatabaseUnavailable):
    """The database answers, but its schema is not the one of this version."""

    code = "schema_outdated"
    detail = "The database's schema is not the one of this version. Run: alembic upgrade head."
