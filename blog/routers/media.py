"""Images."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import APIRouter, BackgroundTasks, Request, Response
from starlette.responses import FileResponse, MalformedRangeHeader
from starlette.responses import RangeNotSatisfiable as Beyond
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT
from starlette.types import Receive, Scope, Send

from blog.dependencies import (
    BlogWriter,
    FoundFile,
    KeptPicture,
    MediaFolder,
    MediaRows,
    OwnMedia,
    SettingsOfApp,
    Users,
)
from blog.errors import (
    AuthorRequired,
    Busy,
    InsufficientScope,
    MediaNotFound,
    MediaQuotaExceeded,
    NotAnImage,
    NotMediaOwner,
    PreconditionFailed,
    RangeNotSatisfiable,
    StorageUnavailable,
    TooManyPixels,
)
from blog.idempotency import Idempotent, KeepingRoute
from blog.logs import security_event
from blog.media import MEDIA_TYPES
from blog.preconditions import Conditions
from blog.schemas.media import FILE, FORM, MediaPublic
from blog.schemas.problem import BEARER, BODY, IDEMPOTENT, LOCATION, refusals

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/media", tags=["blog"], route_class=KeepingRoute)

HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    # Nothing that could run is ever served, and if it were, it would not run.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


class ImageResponse(FileResponse):
    """Starlette's, but for ranges that are none: RFC 9110, section 14.2, has them ignored, and refused in one shape
    when they are of nothing. And it opens the file before it promises it: an image may be deleted meanwhile.
    """

    media_type = None
    _file: anyio.AsyncFile[bytes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file. Raises MediaNotFound, StorageUnavailable and RangeNotSatisfiable."""
        try:
            self._file = await anyio.open_file(self.path, "rb")
        except FileNotFoundError:
            raise MediaNotFound from None
        except OSError as error:
            logger.error("an image cannot be read: %s", error)
            raise StorageUnavailable from error
        async with self._file:
            await super().__call__(scope, receive, send)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[anyio.AsyncFile[bytes]]:
        yield self._file

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except Beyond:
            raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{file_size}"}) from None


@router.post(
    "/",
    summary="Upload an image",
    status_code=HTTP_201_CREATED,
    response_model=MediaPublic,
    responses=refusals(
        *BEARER,
        *BODY,
        *IDEMPOTENT,
        InsufficientScope,
        AuthorRequired,
        MediaQuotaExceeded,
        NotAnImage,
        TooManyPixels,
        Busy,
        StorageUnavailable,
    )
    | LOCATION,
    openapi_extra=FORM,
)
async def create_media(
    writer: BlogWriter,
    _: Idempotent,
    kept: KeptPicture,
    users: Users,
    media: MediaRows,
    settings: SettingsOfApp,
    request: Request,
    response: Response,
) -> dict[str, Any]:
    """Upload an image. It gets a new name, is turned upright and loses what is not seen, as where it was taken."""
    name, picture = kept
    await users.hold(writer.user)
    row = await media.add(writer.user.id, name, picture, quota=settings.media_quota)
    url = request.url_for("show_media", name=name).path
    response.headers["Location"] = url
    return row.model_dump() | {"url": url}


@router.get(
    "/{name}",
    summary="Get an image",
    response_class=ImageResponse,
    responses=refusals(MediaNotFound, RangeNotSatisfiable, StorageUnavailable) | FILE,
)
async def show_media(file: FoundFile, conditions: Conditions, response: Response) -> Response:
    """Get an image. It never changes, so that whoever has it need not ask again."""
    path, stat_result = file
    response.headers.update(HEADERS)
    conditions.show(_etag(path.name))
    response.headers["Content-Disposition"] = f'inline; filename="{path.name}"'
    media_type = MEDIA_TYPES[path.suffix[1:]]
    return ImageResponse(path, headers=response.headers, media_type=media_type, stat_result=stat_result)


@router.delete(
    "/{name}",
    summary="Delete an image",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, InsufficientScope, AuthorRequired, NotMediaOwner, MediaNotFound, PreconditionFailed),
)
async def delete_media(
    media: OwnMedia, rows: MediaRows, folder: MediaFolder, conditions: Conditions, background: BackgroundTasks
) -> None:
    """Delete an image. For its author and admins."""
    conditions.demand(_etag(media.name))
    if not await rows.remove(media.id):
        raise MediaNotFound
    background.add_task(folder.remove, media.name)  # not before its row is gone for good
    security_event("media_deleted", media=media.name)


def _etag(name: str) -> str:
    """The entity tag of an image, which is never another."""
    return f'"{name.partition(".")[0]}"'
