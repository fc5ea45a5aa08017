"""All SQL about what only pages for readers show: what changed, the archive, the map of the site."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    RowMapping,
    and_,
    bindparam,
    case,
    false,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.models import Blog, BlogChange, ProfileCounter, Reading, Room, User, now
from blog.repository import MOMENT, affects, execute

MAPPED = 1_000
"""Blogs in one part of the map, by id. The protocol takes 50,000, but everybody else waits while a part is written:
half a second for 10,000."""

MOST_PARTS = 50_000
"""Parts that the protocol lets a map have; of more blogs, or where ids have wide gaps, each is longer."""

PUBLISHED_AT: Any = col(Blog.published_at)
BEFORE = bindparam("before", type_=DateTime(timezone=True))

# The last change of anything that everybody sees, the next moment at which something comes into sight by itself, the
# last room, which may be a post's first, whether all is rendered by this version, and the last change of a profile.
STATE = select(
    select(func.max(col(BlogChange.public_number))).scalar_subquery(),
    # By the clock of whoever asks: to it something may be to come that was public at once to another worker's.
    select(func.min(PUBLISHED_AT)).where(col(Blog.is_draft) == false(), PUBLISHED_AT > MOMENT).scalar_subquery(),
    select(func.max(col(Room.id))).scalar_subquery(),
    select(func.min(col(Blog.renderer))).scalar_subquery(),
    select(col(ProfileCounter.number)).scalar_subquery(),
)
LAST_BEFORE = select(func.max(PUBLISHED_AT)).where(col(Blog.is_draft) == false(), PUBLISHED_AT < BEFORE)
READERS = select(col(Reading.day), col(Reading.readers)).where(
    col(Reading.creator_id) == bindparam("creator"), col(Reading.blog_id) == 0, col(Reading.day) >= bindparam("since")
)
POSTS_SINCE = (
    select(PUBLISHED_AT.label("published_at"))
    .where(
        col(Blog.creator_id) == bindparam("creator"),
        col(Blog.is_draft) == false(),
        bindparam("start", type_=DateTime(timezone=True)) <= PUBLISHED_AT,
        PUBLISHED_AT <= MOMENT,
    )
    .order_by(PUBLISHED_AT.desc())
    .limit(1_000)
)
COUNT_READERS = (
    update(Reading)
    .where(
        col(Reading.creator_id) == bindparam("creator"),
        col(Reading.blog_id) == bindparam("blog"),
        col(Reading.day) == bindparam("on"),
    )
    .values(readers=col(Reading.readers) + bindparam("more"))
)
IS_THERE = select(col(User.id)).where(col(User.id) == bindparam("creator"))
ADD_READERS = insert(Reading)
LAST_ID = select(func.max(col(Blog.id)))
PART = (
    select(col(Blog.slug), col(Blog.updated_at), PUBLISHED_AT.label("published_at"))
    .where(
        col(Blog.id) > bindparam("after", type_=Integer),
        col(Blog.id) <= bindparam("up_to", type_=BigInteger),  # the last part may end beyond every id
        # Hidden in a function: SQLite would find all that are public by their time.
        case((and_(col(Blog.is_draft) == false(), PUBLISHED_AT <= MOMENT), 1), else_=0) == 1,
    )
    .order_by(col(Blog.id))
)


class PageRepository:
    """What pages show, in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def state(self) -> tuple[Any, ...]:
        """What is another as soon as something is that a page shows."""
        return tuple((await execute(self._session, STATE, {"now": now()})).one())

    async def readers(self, creator: int, since: date) -> dict[date, int]:
        """How many read anything of this user's, by day."""
        return {
            row.day: row.readers for row in await execute(self._session, READERS, {"creator": creator, "since": since})
        }

    async def posts_since(self, creator: int, since: date) -> list[date]:
        """The days of this user's public posts since then, a thousand at most."""
        start = datetime.combine(since, time.min, UTC)
        rows = await execute(self._session, POSTS_SINCE, {"creator": creator, "start": start, "now": now()})
        return [row.published_at.date() for row in rows]

    async def count_readers(self, read: Mapping[tuple[int, int, date], int]) -> None:
        """Count so many more, of each creator, post and day; those of creators who are gone are forgotten."""
        for (creator, blog, day), more in sorted(read.items()):
            named = {"creator": creator, "blog": blog, "on": day, "more": more}
            if (
                not await affects(self._session, COUNT_READERS, named)
                and (await execute(self._session, IS_THERE, {"creator": creator})).first()
            ):
                row = {"creator_id": creator, "blog_id": blog, "day": day, "readers": more}
                await execute(self._session, ADD_READERS, row)

    async def months(self) -> list[datetime]:
        """The first moments, in UTC, of the months in which something was published, the newest first.

        One walk down to the next month for each of them, however much was published in it.
        """
        months: list[datetime] = []
        before = now() + timedelta(seconds=1)  # what is published this very second is there already
        while (last := (await execute(self._session, LAST_BEFORE, {"before": before})).scalar_one()) is not None:
            before = last.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0)
            months.append(before)
        return months

    async def parts_of_map(self) -> range:
        """The last id of each part of the map, which begins behind that of the one before."""
        last = (await execute(self._session, LAST_ID, {})).scalar_one() or 1
        size = max(MAPPED, -(-last // MOST_PARTS))
        return range(size, last + size, size)

    async def part_of_map(self, last: int, size: int) -> Sequence[RowMapping]:
        """Slugs and times of the public blogs in the part of so many ids that ends with this one."""
        cut = {"after": last - size, "up_to": last, "now": now()}
        return (await execute(self._session, PART, cut)).mappings().all()
