"""All SQL about images."""

from collections.abc import AsyncIterator, Collection

from sqlalchemy import and_, bindparam, case, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from blog.errors import MediaQuotaExceeded
from blog.media import Picture
from blog.models import BlogRevision, Media
from blog.repository import AnyRow, affects, execute

SMALLEST = 4096
"""Bytes that an image counts at least: what a file takes on a disk, and a row for each is not free either."""

ROWS_AT_ONCE = 1_000
TEXTS_AT_ONCE = 50
"""Texts that are in memory at once, of 200,000 characters each."""

media = SQLModel.metadata.tables["media"]

BY_NAME = select(media).where(media.c.name == bindparam("name"))
USED = select(func.coalesce(func.sum(case((media.c.size < SMALLEST, SMALLEST), else_=media.c.size)), 0)).where(
    media.c.owner_id == bindparam("owner")
)
DELETE = delete(media).where(media.c.id == bindparam("number"))
KNOWN = select(media.c.name).where(media.c.name.in_(bindparam("names", expanding=True)))

BLOG, REVISION = col(BlogRevision.blog_id), col(BlogRevision.number)
TEXTS = (
    select(BLOG, REVISION, col(BlogRevision.body))
    .where(or_(bindparam("blog") < BLOG, and_(bindparam("blog") == BLOG, bindparam("revision") < REVISION)))
    .order_by(BLOG, REVISION)
    .limit(TEXTS_AT_ONCE)
)
"""Every body that a blog has or had, and may have again."""
NAMES = select(media.c.id, media.c.name).where(media.c.id > bindparam("after")).order_by(media.c.id).limit(ROWS_AT_ONCE)


class MediaRepository:
    """Images in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, name: str) -> AnyRow | None:
        """The image with this name."""
        return (await execute(self._session, BY_NAME, {"name": name})).one_or_none()

    async def used(self, owner_id: int) -> int:
        """Bytes that the images of this user count."""
        return int((await execute(self._session, USED, {"owner": owner_id})).scalar_one())

    async def add(self, owner_id: int, name: str, picture: Picture, *, quota: int) -> Media:
        """A new image of a user whose row is held, so that no other is added meanwhile. Raises MediaQuotaExceeded."""
        size = len(picture.content)
        if await self.used(owner_id) + max(size, SMALLEST) > quota:
            raise MediaQuotaExceeded
        row = Media(
            name=name,
            owner_id=owner_id,
            media_type=picture.kind.media_type,
            size=size,
            width=picture.width,
            height=picture.height,
        )
        self._session.add(row)
        await self._session.flush()
        return row

    async def remove(self, media_id: int) -> bool:
        """Delete an image's row; whether it was there."""
        return await affects(self._session, DELETE, {"number": media_id})

    async def known(self, names: Collection[str]) -> set[str]:
        """Those of these names that images have."""
        return set((await execute(self._session, KNOWN, {"names": list(names)})).scalars())

    async def names(self) -> AsyncIterator[str]:
        """The names of all images, the oldest first."""
        after = 0
        while rows := (await execute(self._session, NAMES, {"after": after})).all():
            for row in rows:
                yield row.name
            after = rows[-1].id

    async def texts(self) -> AsyncIterator[str]:
        """Every text that may name an image."""
        last = {"blog": 0, "revision": 0}
        while rows := (await execute(self._session, TEXTS, last)).all():
            for row in rows:
                yield row.body
            last = {"blog": rows[-1].blog_id, "revision": rows[-1].number}
