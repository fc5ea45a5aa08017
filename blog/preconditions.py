"""Entity tags and the requests that depend on them: RFC 9110, sections 8.8.3 and 13."""

import hashlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request, Response
from pydantic import BaseModel

from blog.errors import Answered, PreconditionFailed

ETAG_DIGITS = 32
FORM_ETAG = "blog.form_etag"
"""In the scope of a request whose form says so: what it is a change of, as a list of one."""


def etag_of(*parts: object) -> str:
    """A strong entity tag of what these show: models by their JSON, all else by what `repr` tells of it."""
    digest = hashlib.sha256()
    for part in parts:
        told = (part.model_dump_json() if isinstance(part, BaseModel) else repr(part)).encode(errors="backslashreplace")
        digest.update(b"%d:%b" % (len(told), told))
    return f'"{digest.hexdigest()[:ETAG_DIGITS]}"'


class NotModified(Answered):
    """Whoever asks has it already: RFC 9110, section 15.4.5."""

    status = 304


class Preconditions:
    """The If-Match and If-None-Match of a request, and the ETag of its answer.

    A change that `demands_etag`, and an answer to who `sees_etags`, compare one; for others none need be made.
    """

    def __init__(self, request: Request, response: Response, background: BackgroundTasks) -> None:
        self._match = request.headers.getlist("If-Match") or request.scope.get(FORM_ETAG, [])
        self._none_match = request.headers.getlist("If-None-Match")
        self._response = response
        self._background = background
        self.sees_etags = bool(self._none_match)
        self.demands_etag = bool(self._match or self._none_match)

    def demand(self, etag: str) -> None:
        """Let a change go on unless If-Match names others than `etag`, which is that of what is there and locked.

        Or If-None-Match names it. Raises PreconditionFailed.
        """
        # Strong comparison, and our tags are strong: one that is marked as weak is not among them.
        if (self._match and not _holds(self._match, {etag})) or self._has(etag):
            raise PreconditionFailed(headers={"ETag": etag})

    def show(self, etag: str) -> None:
        """Put `etag` on the answer. Raises NotModified when the request's If-None-Match names it."""
        self.changed(etag)
        # What was fetched with a token is one person's, and may be another thing at any time.
        self._response.headers.setdefault("Cache-Control", "private, no-cache")
        if self._has(etag):
            # With the tasks: that a token was used is noted behind this answer as behind any other.
            raise NotModified(self._response.headers, after=self._background)

    def changed(self, etag: str) -> None:
        """Put the `etag` of what a change has made on its answer."""
        self._response.headers["ETag"] = etag

    def _has(self, etag: str) -> bool:
        return names(self._none_match, etag)


def names(lines: Sequence[str], etag: str) -> bool:
    """Whether an If-None-Match, in however many lines, names this tag: by weak comparison, which it asks for."""
    strong = etag.removeprefix("W/")
    return _holds(lines, {strong, f"W/{strong}"})


def _holds(lines: Sequence[str], etags: set[str]) -> bool:
    """Whether a list of tags, in however many lines, names one of these. None of ours has a comma in it."""
    field = ",".join(lines)
    return field.strip() == "*" or any(member.strip() in etags for member in field.split(","))


async def get_preconditions(request: Request, response: Response, background: BackgroundTasks) -> Preconditions:
    """The conditions that the request makes."""
    return Preconditions(request, response, background)


Conditions = Annotated[Preconditions, Depends(get_preconditions)]
