"""Logging in."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from blog.dependencies import Tokens, UserByPassword
from blog.errors import (
    BodyTooLarge,
    Busy,
    DatabaseUnavailable,
    FormRequired,
    InvalidCredentials,
    InvalidTokenRequest,
    Refusal,
    TooManyFailures,
    UnsupportedGrantType,
)
from blog.schemas.problem import refusals
from blog.schemas.token import Token


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


router = APIRouter(tags=["authentication"], route_class=TokenRoute)


@router.post(
    "/login",
    summary="Log in",
    response_model=Token,
    responses=refusals(
        InvalidTokenRequest,
        UnsupportedGrantType,
        InvalidCredentials,
        BodyTooLarge,
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
