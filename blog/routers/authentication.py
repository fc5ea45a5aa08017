"""Logging in and out, and the links that help where a password does not."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.status import HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT

from blog.dependencies import (
    AnyCaller,
    GrantOfForm,
    LinkMailerOfApp,
    Logins,
    MailerOfApp,
    OneTimeLinks,
    Passwords,
    PersonalTokens,
    ResetLink,
    Revocable,
    SettingsOfApp,
    Tokens,
    UserOfAddress,
    Users,
    VerificationLink,
)
from blog.errors import (
    BodyTooLarge,
    Busy,
    DatabaseUnavailable,
    EmailNotVerified,
    EmailTaken,
    FormRequired,
    InvalidCredentials,
    InvalidLink,
    InvalidRefreshToken,
    InvalidScope,
    InvalidTokenRequest,
    Refusal,
    TooManyFailures,
    UnsupportedGrantType,
    WeakPassword,
)
from blog.logs import security_event
from blog.mail import email_changed, password_changed
from blog.models import fold, now
from blog.schemas.problem import BEARER, BODY, refusals
from blog.schemas.token import Metadata, Token
from blog.schemas.user import PasswordReset
from blog.security.access import Scope, write_scopes


class TokenRoute(APIRoute):
    """Says in the words of RFC 6749, section 5.2, what the framework finds wrong with a form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, which raises InvalidTokenRequest for a form that cannot be read."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise InvalidTokenRequest from error
            except HTTPException as error:
                raise (error.__cause__ if isinstance(error.__cause__, Refusal) else InvalidTokenRequest()) from error

        return answer


router = APIRouter(tags=["authentication"])
# What answers in the words of RFC 6749.
token_router = APIRouter(tags=["authentication"], route_class=TokenRoute)

TOKEN_REFUSALS = (InvalidTokenRequest, FormRequired, BodyTooLarge, DatabaseUnavailable)


@token_router.post(
    "/login",
    summary="Log in",
    response_model=Token,
    responses=refusals(
        *TOKEN_REFUSALS,
        UnsupportedGrantType,
        InvalidScope,
        InvalidRefreshToken,
        InvalidCredentials,
        EmailNotVerified,
        TooManyFailures,
        Busy,
    ),
)
async def log_in(grant: GrantOfForm, settings: SettingsOfApp, tokens: Tokens, response: Response) -> Token:
    """Give an access token and a refresh token for an address and its password, or for a refresh token.

    This is the server's own sign-in for its own users: it takes the form of RFC 6749's password
    grant, so that any OAuth2 client library speaks it, but registers no clients and delegates nothing
    to third parties, to whom RFC 9700 forbids that grant. A refresh token is good once: whoever sends
    one a second time ends the login, because one of the two may have stolen it.
    """
    response.headers["Cache-Control"] = "no-store"  # RFC 6749, section 5.1
    seconds = int(min(settings.access_token_lifetime, grant.expires_at - now()).total_seconds())
    return Token(
        access_token=tokens.issue(grant.subject, grant.login, grant.scopes, seconds=seconds),
        expires_in=seconds,
        refresh_token=str(grant.refresh_token),
        scope=write_scopes(grant.scopes),
    )


@token_router.post("/revoke", summary="Revoke a token", response_class=Response, responses=refusals(*TOKEN_REFUSALS))
async def revoke(revocable: Revocable, logins: Logins, personal_tokens: PersonalTokens) -> None:
    """End the login that an access token or a refresh token is of, or delete a personal token (RFC 7009).

    Whoever has a token may revoke it. The answer is the same for one that is unknown or over.
    """
    login_id, token_id = revocable
    if login_id is not None and await logins.end(login_id):
        security_event("token_revoked", login=login_id)
    if token_id is not None and await personal_tokens.revoke(token_id):
        security_event("token_revoked", personal_token=token_id)


@router.post(
    "/logout",
    summary="Log out",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER),
)
async def log_out(caller: AnyCaller, logins: Logins, personal_tokens: PersonalTokens) -> None:
    """End the login that the token is of, everywhere and at once, or delete the personal token."""
    if caller.login_id is not None:
        await logins.end(caller.login_id)
    if caller.token_id is not None:
        await personal_tokens.revoke(caller.token_id)
    security_event("logged_out", login=caller.login_id, personal_token=caller.token_id)


@router.get(
    "/.well-known/oauth-authorization-server",
    summary="Read what clients configure themselves by",
    response_model=Metadata,
)
async def show_metadata(settings: SettingsOfApp) -> Metadata:
    """Read where tokens are to be had, and which (RFC 8414)."""
    return Metadata(
        issuer=settings.issuer,
        token_endpoint=f"{settings.issuer}/login",
        revocation_endpoint=f"{settings.issuer}/revoke",
        scopes_supported=list(Scope),
        response_types_supported=["none"],
        grant_types_supported=["password", "refresh_token"],
        token_endpoint_auth_methods_supported=["none"],
        revocation_endpoint_auth_methods_supported=["none"],
    )


@router.post(
    "/password-reset",
    summary="Ask for a new password",
    status_code=HTTP_202_ACCEPTED,
    response_class=Response,
    responses=refusals(*BODY, DatabaseUnavailable),
)
async def request_password_reset(
    known: UserOfAddress, link_mailer: LinkMailerOfApp, background: BackgroundTasks
) -> None:
    """Mail a one-time link to a new password, if this is a user's address. The answer is the same if it is not."""
    security_event("password_reset_requested", of=known.id if known else None)
    if known is not None:
        background.add_task(link_mailer.send_password_reset, known)


@router.post(
    "/password-reset/confirm",
    summary="Set a new password by a link",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BODY, InvalidLink, WeakPassword, Busy, DatabaseUnavailable),
)
async def confirm_password_reset(
    data: PasswordReset,
    asked: ResetLink,
    passwords: Passwords,
    users: Users,
    links: OneTimeLinks,
    mailer: MailerOfApp,
    background: BackgroundTasks,
) -> None:
    """Set a new password with the token of a link. Every login and every personal token of this user is over."""
    user, link = asked
    passwords.refuse_weak(data.password, name=user.name, email=user.email)
    password_hash = await passwords.hash(data.password)
    user = await users.hold(user, or_raise=InvalidLink)
    if not await links.use(link):
        raise InvalidLink
    await users.change_password(user, password_hash, email_verified_at=now())
    security_event("password_reset", user_id=user.id)
    background.add_task(mailer.send, password_changed(user.email))


@router.post(
    "/email-verification",
    summary="Ask for a link to confirm an address",
    status_code=HTTP_202_ACCEPTED,
    response_class=Response,
    responses=refusals(*BODY, DatabaseUnavailable),
)
async def request_email_verification(
    known: UserOfAddress, link_mailer: LinkMailerOfApp, background: BackgroundTasks
) -> None:
    """Mail a one-time link that confirms this address, if it is a user's. The answer is the same if it is not."""
    if known is not None and known.email_verified_at is None:
        background.add_task(link_mailer.send_email_verification, known, known.email)


@router.post(
    "/email-verification/confirm",
    summary="Confirm an address by a link",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BODY, InvalidLink, EmailTaken, DatabaseUnavailable),
)
async def confirm_email(
    asked: VerificationLink, users: Users, links: OneTimeLinks, mailer: MailerOfApp, background: BackgroundTasks
) -> None:
    """Confirm with the token of a link that the address which it was mailed to is yours."""
    user, link = asked
    user = await users.hold(user, or_raise=InvalidLink)
    if not await links.use(link):
        raise InvalidLink
    if fold(link.email) != user.email_folded:
        background.add_task(mailer.send, email_changed(user.email, link.email))
        security_event("email_changed", user_id=user.id)
    await users.update(user, {"email": link.email, "email_verified_at": now()})
    security_event("email_verified", user_id=user.id)
