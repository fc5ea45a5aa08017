"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a POST that is sent again makes nothing twice.

A route that creates names `Idempotent` in its signature, behind whoever asks, on a router of `KeepingRoute`. Its answer
is kept in the transaction that creates, so that there is a key only with an answer to it and what the answer tells of.
What is refused is not kept.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Self

from fastapi import BackgroundTasks, Depends, Header, Request, Response
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from blog.database import Database, was_outwaited
from blog.dependencies import Session
from blog.errors import Answered, IdempotencyKeyInUse, IdempotencyKeyReused, Invalid, Refusal
from blog.models import now
from blog.repository import AnyRow
from blog.repository.idempotency import IdempotencyRepository
from blog.security.access import Caller
from blog.security.seals import Seals

NAME = "Idempotency-Key"
OF_THE_MESSAGE = (b"content-length",)
"""Headers that are each answer's own."""


class Replayed(Answered):
    """What the same request was answered before."""

    def __init__(self, sealed: bytes, after: Callable[[], Awaitable[None]] | None) -> None:
        told, body = sealed.split(b"\n", 1)
        _, self.status, headers = json.loads(told)
        super().__init__(headers | {"Idempotency-Replayed": "true"}, body, after=after)


class KeptAnswer:
    """The answer to one request, which is kept under its key."""

    def __init__(self, request: Request, session: AsyncSession, key: str, fingerprint: str) -> None:
        caller: Caller | None = getattr(request.state, "caller", None)
        seals: Seals = request.app.state.seals
        self._database: Database = request.app.state.database
        self._session = session
        self._fingerprint = fingerprint
        self._user_id = None if caller is None else caller.user.id
        whose = "" if self._user_id is None else str(self._user_id)
        self._seal = seals.of(whose, request.method, request.scope["path"], key)
        self._expired: AnyRow | None = None

    async def replay(self, after: Callable[[], Awaitable[None]] | None = None) -> Self:
        """Raise Replayed if this was answered before, and IdempotencyKeyReused if something else was."""
        async with self._database.fresh() as fresh:
            row = await IdempotencyRepository(fresh).find(self._seal.names)
        if row is not None and row.expires_at <= now():
            self._expired, row = row, None
        content = None if row is None else self._seal.open(row.answer)
        if content is not None:
            if json.loads(content.split(b"\n", 1)[0])[0] != self._fingerprint:
                raise IdempotencyKeyReused
            raise Replayed(content, after)
        return self

    async def keep(self, response: Response) -> None:
        """Keep the answer in the request's transaction, which ends with this."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in response.raw_headers
            if name not in OF_THE_MESSAGE
        }
        told = json.dumps([self._fingerprint, response.status_code, headers]).encode()
        answers = IdempotencyRepository(self._session)
        await answers.forget(self._expired)
        await answers.add(self._seal.names[0], self._seal.close(told + b"\n" + bytes(response.body)), self._user_id)


async def fingerprint_of(request: Request) -> str:
    """What tells a request's content from others."""
    media_type, options = parse_options_header(request.headers.get("Content-Type", ""))
    body = await request.body()
    if media_type == b"multipart/form-data" and (boundary := options.get(b"boundary")):
        body = body.replace(b"--" + boundary, b"--")  # another one each time the same form is sent
    said = (request.scope["query_string"], media_type, body)
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in said)).hexdigest()


async def get_kept_answer(
    request: Request,
    session: Session,
    background: BackgroundTasks,
    key: Annotated[
        str | None,
        Header(
            alias=NAME,
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7E]+$",
            description="The same key with the same body makes nothing twice within a day, but gets the first answer.",
        ),
    ] = None,
) -> None:
    """Answers a request that was answered before, once it is known who asks. Raises Replayed."""
    if key is None:
        return
    if len(request.headers.getlist(NAME)) > 1:
        raise Invalid(f"One {NAME} is enough.")
    kept = KeptAnswer(request, session, key, await fingerprint_of(request))
    # By now `background` has what goes on behind every answer, such as that a token's use is noted.
    request.state.kept_answer = await kept.replay(background)


Idempotent = Annotated[None, Depends(get_kept_answer)]


class KeepingRoute(APIRoute):
    """Keeps the answer of a route that is `Idempotent`, before the transaction ends in which it was made."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request while the session is open still."""
        handle = super().get_route_handler()

        async def handle_and_keep(request: Request) -> Response:
            try:
                response = await handle(request)
                kept: KeptAnswer | None = getattr(request.state, "kept_answer", None)
                if kept is not None:
                    await kept.keep(response)
            except (Refusal, DBAPIError) as error:
                await _replay_of_twin(getattr(request.state, "kept_answer", None), error)
                raise
            return response

        return handle_and_keep


async def _replay_of_twin(kept: KeptAnswer | None, error: Refusal | DBAPIError) -> None:
    """Raise Replayed if the request failed because the same one was answered meanwhile.

    What this one has done is undone with its session, and nothing goes on behind it.
    """
    if kept is None:
        return
    waited = isinstance(error, DBAPIError) and was_outwaited(error)
    if waited or isinstance(error, Refusal | IntegrityError):
        await kept.replay()
    if waited:
        raise IdempotencyKeyInUse from error
