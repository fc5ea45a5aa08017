"""Tokens and logins, as they come in and go out."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from blog.models import now
from blog.schemas.types import Input, Moment, Name, Output, Time
from blog.security.access import Scope


class TokenRequest(BaseModel):
    """The form of RFC 6749, sections 4.3.2 and 6. As section 3.2 has it, fields unknown here are ignored.

    Every field may be missing, because the answer to that is RFC 6749's own and not a 422.
    """

    grant_type: str = Field("password", description="`password` or `refresh_token`.", examples=["password"])
    username: str = Field("", description="The e-mail address, in any case.", examples=["ada@example.com"])
    password: str = Field("", examples=["correct horse battery"], json_schema_extra={"format": "password"})
    refresh_token: str = Field("", description="With `grant_type=refresh_token`; each is good once.")
    # No example: /docs would send it unless somebody takes it out.
    scope: str = Field("", description="Scopes with spaces between, as in `blog:read`; none for all that you may.")


class RevocationRequest(BaseModel):
    """The form of RFC 7009, section 2.1. A hint is ignored, as any field unknown here: a token tells its type."""

    token: str = Field("", description="An access token, a refresh token or a personal token.")


class Token(BaseModel):
    """The answer of RFC 6749, section 5.1."""

    access_token: str = Field(examples=["eyJhbGciOi….eyJpc3MiOi….7mOD9v…"])
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (the name of a type)
    expires_in: int = Field(description="Seconds from now.", examples=[900])
    refresh_token: str = Field(description="Good once, for the next pair.", examples=["blog_rt_hV0sC1…"])
    scope: str = Field(description="What the access token is good for.", examples=["blog:read blog:write"])


class Metadata(BaseModel):
    """The metadata of RFC 8414, section 2."""

    issuer: str = Field(examples=["https://blog.example.com"])
    token_endpoint: str = Field(examples=["https://blog.example.com/login"])
    revocation_endpoint: str = Field(examples=["https://blog.example.com/revoke"])
    scopes_supported: list[Scope]
    response_types_supported: list[str] = Field(description="`none`: there is no authorization endpoint.")
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str] = Field(description="None: no clients are registered.")
    revocation_endpoint_auth_methods_supported: list[str] = Field(description="As for the token endpoint.")


def _future(time: datetime) -> datetime:
    if time <= now():
        raise ValueError("not in the future")
    return time


def _distinct(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes):
        raise ValueError("names a scope twice")
    return scopes


class PersonalTokenCreate(Input):
    """A personal token to be made."""

    name: Name
    scopes: Annotated[
        list[Scope],
        Field(min_length=1, max_length=len(Scope), json_schema_extra={"uniqueItems": True}, examples=[["blog:read"]]),
        AfterValidator(_distinct),
    ]
    expires_at: Annotated[Time, AfterValidator(_future)]


class PersonalTokenShown(Output):
    """A personal token, but not the token itself."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Backup"])
    scopes: Annotated[list[Scope], BeforeValidator(lambda scope: scope.split())] = Field(validation_alias="scope")
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment | None = Field(description="To the minute; null for one that was never used.")


class PersonalTokenCreated(PersonalTokenShown):
    """A new personal token, with the token itself: it is shown here and never again."""

    token: str = Field(examples=["blog_pat_hV0sC1…"])


class LoginShown(Output):
    """Where a user is logged in."""

    id: int = Field(examples=[7])
    user_agent: str = Field(examples=["Mozilla/5.0 (X11; Linux x86_64)"], description="What the program called itself.")
    address: str = Field(examples=["192.0.2.7"])
    scope: str = Field(examples=["blog:read blog:write"], description="What it may do, as far as your role allows it.")
    created_at: Moment
    last_used_at: Moment = Field(
        description="When its refresh token was used last, or to the minute a browser's cookie, or when it began."
    )
    expires_at: Moment
    current: bool = Field(description="Whether it is the one that asks.")
