"""Logging in."""

from fastapi import APIRouter, Response

from blog.dependencies import Tokens, UserByPassword
from blog.errors import (
    Busy,
    DatabaseUnavailable,
    FormRequired,
    InvalidCredentials,
    InvalidTokenRequest,
    TooManyFailures,
    UnsupportedGrantType,
)
from blog.schemas.problem import BODY, refusals
from blog.schemas.token import Token

router = APIRouter(tags=["authentication"])


@router.post(
    "/login",
    summary="Log in",
    response_model=Token,
    responses=refusals(
        *BODY,
        InvalidTokenRequest,
        UnsupportedGrantType,
        InvalidCredentials,
        FormRequired,
        TooManyFailures,
        Busy,
        DatabaseUnavailable,
    ),
)
async def log_in(user: UserByPassword, tokens: Tokens, response: Response) -> Token:
    """Give a bearer token for an e-mail address and its password.

    This is the server's own sign-in for its own users: it takes the form of RFC 6749's password
    grant, so that any OAuth2 client library speaks it, but registers no clients and delegates nothing
    to third parties, to whom RFC 9700 forbids that grant.
    """
    response.headers["Cache-Control"] = "no-store"  # RFC 6749, section 5.1
    return Token(
        access_token=tokens.issue(user.public_id, user.login_generation),
        expires_in=int(tokens.lifetime.total_seconds()),
    )
