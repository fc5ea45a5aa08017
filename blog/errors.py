"""What the platform refuses, and how it says so.

Every refusal is one class with its HTTP status, its stable code and its sentence::

    Refusal
    ├── Malformed                  400 malformed_request
    │   └── CrossOriginRefused     400 cross_origin_refused
    ├── UnknownHost                400 unknown_host
    ├── Unreadable                 400 bad_request
    │   └── InvalidTokenRequest    400 invalid_request
    │       ├── FormRequired           415 unsupported_media_type
    │       ├── UnsupportedGrantType   400 unsupported_grant_type
    │       ├── InvalidScope           400 invalid_scope
    │       └── InvalidRefreshToken    400 invalid_refresh_token
    ├── InvalidLink                400 invalid_link
    ├── NotAuthenticated           401 not_authenticated
    │   ├── InvalidToken           401 invalid_token
    │   └── InvalidCredentials     401 invalid_grant
    │       └── EmailNotVerified   401 email_not_verified
    ├── Forbidden                  403 forbidden
    │   ├── InsufficientScope      403 insufficient_scope
    │   │   ├── AdminRequired      403 admin_required
    │   │   └── AuthorRequired     403 author_required
    │   ├── FormRefused            403 form_refused
    │   ├── LoginRequired          403 login_required
    │   ├── NotBlogCreator         403 not_blog_creator
    │   ├── NotMediaOwner          403 not_media_owner
    │   ├── NotMessageWriter       403 not_message_writer
    │   ├── NotRoomOwner           403 not_room_owner
    │   ├── OriginRefused          403 origin_refused
    │   ├── RegistrationClosed     403 registration_closed
    │   │   └── InvitationRequired 403 invitation_required
    │   └── WrongPassword          403 wrong_password
    ├── NotFound                   404 not_found
    │   ├── BlogNotFound           404 blog_not_found
    │   ├── InvitationNotFound     404 invitation_not_found
    │   ├── RevisionNotFound       404 revision_not_found
    │   ├── MediaNotFound          404 media_not_found
    │   ├── MessageNotFound        404 message_not_found
    │   ├── RoomNotFound           404 room_not_found
    │   ├── SessionNotFound        404 session_not_found
    │   ├── TokenNotFound          404 token_not_found
    │   └── UserNotFound           404 user_not_found
    ├── TooSlow                    408 request_timeout
    ├── Conflict                   409 conflict
    │   ├── EmailTaken             409 email_taken
    │   ├── IdempotencyKeyInUse    409 idempotency_key_in_use
    │   ├── SlugTaken              409 slug_taken
    │   ├── MediaQuotaExceeded     409 media_quota_exceeded
    │   ├── RoomClosed             409 room_closed
    │   ├── RoomOfBlog             409 room_of_blog
    │   └── UserHasBlogs           409 user_has_blogs
    ├── BlogDeleted                410 blog_deleted
    ├── MessageRemoved             410 message_removed
    ├── PreconditionFailed         412 precondition_failed
    ├── BodyTooLarge               413 content_too_large
    ├── RangeNotSatisfiable        416 range_not_satisfiable
    ├── Invalid                    422 invalid
    │   ├── IdempotencyKeyReused   422 idempotency_key_reused
    │   ├── InvalidCursor          422 invalid_cursor
    │   ├── Unrenderable           422 unrenderable
    │   ├── NotAnImage             422 not_an_image
    │   ├── TooManyPixels          422 too_many_pixels
    │   ├── Unstorable             422 unstorable
    │   └── WeakPassword           422 weak_password
    ├── TooManyRequests            429 too_many_requests
    │   ├── TooManyFailures        429 too_many_failures
    │   ├── TooManyMessages        429 too_many_messages
    │   ├── TooManySockets         429 too_many_sockets
    │   └── SlowMode               429 slow_mode
    ├── HeadersTooLarge            431 headers_too_large
    ├── Unexpected                 500 internal_error
    └── Unavailable                503 unavailable
        ├── Busy                   503 busy
        ├── DatabaseUnavailable    503 database_unavailable
        │   └── SchemaOutdated     503 schema_outdated
        └── StorageUnavailable     503 storage_unavailable

422 is for a malformed request; a clash with what is stored is 409.
Apart from them stands what ends a request early with an answer that refuses nothing: `Answered`.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Self

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


class Answered(Exception):  # noqa: N818  (no error at all)
    """The answer is there already: nothing is changed, and what the request has begun is undone.

    `after` is what goes on behind the answer.
    """

    status: int

    def __init__(
        self, headers: Mapping[str, str], body: bytes = b"", *, after: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.headers = dict(headers)
        self.body = body
        self.after = after
        super().__init__(self.status)


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
    detail = "This is not a form with one value for each field that is asked for."
    oauth = "invalid_request"
    headers = MappingProxyType({"Cache-Control": "no-store"})


class FormRequired(InvalidTokenRequest):
    """RFC 6749, section 4.3.2, and RFC 7009, section 2.1: these endpoints take a form."""

    status = 415
    code = "unsupported_media_type"
    detail = "Send a form, as application/x-www-form-urlencoded."


class UnsupportedGrantType(InvalidTokenRequest):
    """RFC 6749, section 5.2."""

    code = "unsupported_grant_type"
    detail = "The grant types here are password and refresh_token."
    oauth = "unsupported_grant_type"


class InvalidScope(InvalidTokenRequest):
    """RFC 6749, section 5.2: unknown, more than is to be had, or none that the role allows."""

    code = "invalid_scope"
    detail = "There is no such scope here, or it is not yours to ask for."
    oauth = "invalid_scope"


class InvalidRefreshToken(InvalidTokenRequest):
    """Malformed, unknown, expired, used before, or its login is over: RFC 6749, section 5.2."""

    code = "invalid_refresh_token"
    detail = "This refresh token is not valid, or not any more. Log in again."
    oauth = "invalid_grant"


class InvalidLink(Refusal):
    """Unknown, expired, used before or made for something else."""

    status = 400
    code = "invalid_link"
    detail = "This link is not valid, or not any more. Ask for a new one."


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


class EmailNotVerified(InvalidCredentials):
    """The password is right, but nobody has shown yet that the address is theirs."""

    code = "email_not_verified"
    detail = "Your e-mail address is not confirmed yet: follow the link that was sent to it."


class Forbidden(Refusal):
    """We know who asks, and it is not theirs to ask."""

    status = 403
    code = "forbidden"
    detail = "You may not do this."


class InsufficientScope(Forbidden):
    """The token was made for less than this: RFC 6750, section 3.1."""

    code = "insufficient_scope"
    detail = "This token is not good for this."
    headers = MappingProxyType({"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope"'})

    @classmethod
    def lacking(cls, scope: str) -> Self:
        """The refusal that names the scope which is lacking."""
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
        return cls(f"This needs a token with the scope {scope}.", headers={"WWW-Authenticate": challenge})


class AdminRequired(InsufficientScope):
    """Only an admin may do this."""

    code = "admin_required"
    detail = "Only an admin may do this."


class AuthorRequired(InsufficientScope):
    """A reader may not write."""

    code = "author_required"
    detail = "Only an author or an admin may write blogs and open rooms."


class FormRefused(Forbidden):
    """It did not come from a page of this site, or from one of another login."""

    code = "form_refused"
    detail = "This form was not sent from a page of this site, or is too old. Open the page again and send it anew."


class LoginRequired(Forbidden):
    """A personal token makes no other tokens, which might outlive it."""

    code = "login_required"
    detail = "This needs a login: a personal token is not enough."


class NotBlogCreator(Forbidden):
    """Somebody else's blog."""

    code = "not_blog_creator"
    detail = "Only its creator or an admin may change this blog."


class NotMediaOwner(Forbidden):
    """Somebody else's image."""

    code = "not_media_owner"
    detail = "Only its author or an admin may delete this image."


class NotMessageWriter(Forbidden):
    """Somebody else's message, in somebody else's room."""

    code = "not_message_writer"
    detail = "Only its writer, the room's owner or an admin may remove this message."


class NotRoomOwner(Forbidden):
    """Somebody else's room."""

    code = "not_room_owner"
    detail = "Only its owner or an admin may change this room."


class OriginRefused(Forbidden):
    """A page of another site opens a WebSocket."""

    code = "origin_refused"
    detail = "A page of this site may not do this here: see BLOG_CORS_ORIGINS."


class RegistrationClosed(Forbidden):
    """The settings let nobody register."""

    code = "registration_closed"
    detail = "Registration is closed here. Ask an admin for an account."


class InvitationRequired(RegistrationClosed):
    """Only who was invited may register."""

    code = "invitation_required"
    detail = "Registration is by invitation here. Ask an admin for one."


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
    """No blog with this id or slug."""

    code = "blog_not_found"
    detail = "There is no such blog."


class InvitationNotFound(NotFound):
    """No invitation with this id is open."""

    code = "invitation_not_found"
    detail = "There is no open invitation with this id."


class RevisionNotFound(NotFound):
    """No revision of this blog with this number."""

    code = "revision_not_found"
    detail = "This blog has no revision with this number."


class MediaNotFound(NotFound):
    """No image with this name."""

    code = "media_not_found"
    detail = "There is no image with this name."


class MessageNotFound(NotFound):
    """No message in this room with this number."""

    code = "message_not_found"
    detail = "This room has no message with this number."


class RoomNotFound(NotFound):
    """No room with this id, or one of a blog that is not there for whoever asks."""

    code = "room_not_found"
    detail = "There is no room with this id."


class SessionNotFound(NotFound):
    """No login of this user with this id."""

    code = "session_not_found"
    detail = "You have no login with this id."


class TokenNotFound(NotFound):
    """No personal token of this user with this id."""

    code = "token_not_found"
    detail = "You have no personal token with this id."


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


class IdempotencyKeyInUse(Conflict):
    """A request with a key waited for another too long, which is the same one as a rule.

    It may be anything that holds the same row. Whichever it was, with the key it is safe to ask again.
    """

    code = "idempotency_key_in_use"
    detail = (
        "A request with this Idempotency-Key is at work still. Send yours once more in a moment, with the same key."
    )
    headers = MappingProxyType({"Retry-After": "2"})


class SlugTaken(Conflict):
    """Another blog has or had this slug."""

    code = "slug_taken"
    detail = "Another blog has this slug, or had it: its links must not lead here."


class MediaQuotaExceeded(Conflict):
    """The images of one author take as much room as the settings give them."""

    code = "media_quota_exceeded"
    detail = "Your images take all the room that you have here. Delete some first."


class RoomClosed(Conflict):
    """Nothing more is said in it."""

    code = "room_closed"
    detail = "This room is closed."


class RoomOfBlog(Conflict):
    """A blog has its room as long as it is there."""

    code = "room_of_blog"
    detail = "This room is a blog's and goes with it; until then it can be closed."


class UserHasBlogs(Conflict):
    """Deleting a user needs a word on what becomes of the blogs."""

    code = "user_has_blogs"
    detail = "This user has blogs: say blogs=delete, or as an admin blogs=reassign&to={id}."


class BlogDeleted(Refusal):
    """There was a blog with this id or slug, and there will be none again."""

    status = 410
    code = "blog_deleted"
    detail = "This blog was deleted."


class MessageRemoved(Refusal):
    """Its text is gone already."""

    status = 410
    code = "message_removed"
    detail = "This message was removed."


class PreconditionFailed(Refusal):
    """RFC 9110, section 13.1.1: what is there is not what the If-Match was written for."""

    status = 412
    code = "precondition_failed"
    detail = "It has changed since you read it: ETag says to what. Read it again before you change it."
    headers = MappingProxyType({"ETag": '"6c1f0e4b9a7d5832"'})


class BodyTooLarge(Refusal):
    """More than the settings let in."""

    status = 413
    code = "content_too_large"
    detail = "This body is larger than what is taken here."


class RangeNotSatisfiable(Refusal):
    """RFC 9110, section 15.5.17: it begins behind the end."""

    status = 416
    code = "range_not_satisfiable"
    detail = "There is nothing in this range."


class Invalid(Refusal):
    """The request itself is malformed."""

    status = 422
    code = "invalid"
    detail = "The request is not as it should be; errors says where."


class IdempotencyKeyReused(Invalid):
    """The key came with another body before."""

    code = "idempotency_key_reused"
    detail = "This Idempotency-Key came with another request before. Make a new one for each."


class InvalidCursor(Invalid):
    """Forged, cut, or made for another query."""

    code = "invalid_cursor"
    detail = "This cursor was not made for this query. Start again without one."


class Unrenderable(Invalid):
    """Markdown that takes too long, is nested too deeply or would grow too much when it becomes HTML."""

    code = "unrenderable"
    detail = "This text cannot be turned into a page."


class NotAnImage(Invalid):
    """Of another type, empty, cut off or broken, whatever it is called."""

    code = "not_an_image"
    detail = "This is not a whole PNG, JPEG, GIF, WebP or AVIF image."


class TooManyPixels(Invalid):
    """More, in all frames together, than the settings let in."""

    code = "too_many_pixels"
    detail = "This image has more pixels or frames than are taken here."


class Unstorable(Invalid):
    """The database does not take a value that the schemas let through."""

    code = "unstorable"
    detail = "Something in this request cannot be stored."


class WeakPassword(Invalid):
    """Too short for the settings, one of the most common ones, or made of what everybody knows of its user."""

    code = "weak_password"
    detail = "This password is too easily guessed."


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


class TooManyMessages(TooManyRequests):
    """More over one WebSocket than anybody types."""

    code = "too_many_messages"
    detail = "Too many messages. Wait a moment."


class TooManySockets(TooManyRequests):
    """As many WebSockets of this user, from this address or in this room as the settings let in."""

    code = "too_many_sockets"
    detail = "Too many WebSockets are open: close some first."


class SlowMode(TooManyRequests):
    """The room makes everybody wait between two messages."""

    code = "slow_mode"
    detail = "This room is slow. Wait a moment before you say more."

    @classmethod
    def until(cls, seconds: int) -> Self:
        """The refusal that says for how long to wait."""
        return cls(headers={"Retry-After": str(seconds)})


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
    """More passwords wait to be looked at, or texts to be rendered, than there is time for."""

    code = "busy"
    detail = "Too much is waiting for its turn just now. Try again in a moment."
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


class StorageUnavailable(Unavailable):
    """The folder of the images is full, or not to be read or written."""

    code = "storage_unavailable"
    detail = "Images cannot be stored or read just now. Try again later."
