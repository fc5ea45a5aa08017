"""Refusals as RFC 9457 problem details, in answers and in the documentation."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from blog.errors import (
    BodyTooLarge,
    DatabaseUnavailable,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    Invalid,
    InvalidToken,
    NotAuthenticated,
    Refusal,
    Unreadable,
)

MEDIA_TYPE = "application/problem+json"

BEARER = (NotAuthenticated, InvalidToken, DatabaseUnavailable)
"""What every endpoint that wants a token may answer."""

BODY = (Unreadable, BodyTooLarge, Invalid)
"""What every endpoint that takes a body may answer."""

IDEMPOTENT = (IdempotencyKeyInUse, IdempotencyKeyReused)
"""What every endpoint that takes an Idempotency-Key may answer."""

LINK_TO_NEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'The next page, as `<…>; rel="next"`; absent on the last one.',
                "schema": {"type": "string"},
            }
        }
    }
}
LOCATION: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            "Location": {"description": "Where it is.", "schema": {"type": "string"}},
            "Idempotency-Replayed": {
                "description": "`true` on what an earlier request with the same Idempotency-Key was answered.",
                "schema": {"type": "string"},
            },
        }
    }
}
_ETAG = {"ETag": {"description": "What to send as If-Match and If-None-Match.", "schema": {"type": "string"}}}
ETAG: dict[int | str, dict[str, Any]] = {200: {"headers": _ETAG}}
"""A change that answers with the tag of what it made."""
CONDITIONAL: dict[int | str, dict[str, Any]] = ETAG | {304: {"description": HTTPStatus(304).phrase, "headers": _ETAG}}
"""A resource that is read, and need not be sent to who has it."""


class Fault(BaseModel):
    """Where a malformed request is malformed; never with the value that was sent."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """A refusal. `code` is stable; `title` and `detail` are for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[Fault] | None = Field(default=None, description="Only with 422.")
    error: str | None = Field(default=None, description="RFC 6749, section 5.2; only from the token endpoint.")
    error_description: str | None = Field(default=None, description="As error.")


def problem(refusal: Refusal | type[Refusal], faults: Sequence[Fault] | None = None) -> Problem:
    """The problem details of a refusal."""
    return Problem(
        title=HTTPStatus(refusal.status).phrase,
        status=refusal.status,
        detail=refusal.detail,
        code=refusal.code,
        errors=list(faults) if faults else None,
        error=refusal.oauth,
        error_description=refusal.detail if refusal.oauth else None,
    )


def refusals(*classes: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for an endpoint that answers with these refusals, each with its example."""
    documented: dict[int | str, dict[str, Any]] = {}
    for refusal in classes:
        answer = documented.setdefault(
            refusal.status,
            {
                "description": HTTPStatus(refusal.status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        answer["content"][MEDIA_TYPE]["examples"][refusal.code] = {
            "summary": refusal.detail,
            "value": problem(refusal).model_dump(exclude_none=True),
        }
        if refusal.headers:
            answer["headers"] = {
                name: {"schema": {"type": "string"}, "example": value} for name, value in refusal.headers.items()
            }
    return documented
