"""All SQL about one-time links, invitations among them."""

from datetime import timedelta

from sqlalchemy import DateTime, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from blog.models import OneTimeLink, Purpose, Role, now
from blog.repository import AnyRow, affects, execute, newest_first
from blog.schemas.types import Page, PageRequest
from blog.security.opaque import LINK, digest, make

links = SQLModel.metadata.tables["one_time_link"]

purpose = bindparam("purpose", type_=links.c.purpose.type)
at = bindparam("at", type_=DateTime(timezone=True))

FIND = select(links).where(
    links.c.token_digest == bindparam("digest"), links.c.purpose == purpose, links.c.expires_at > at
)
USE = delete(links).where(links.c.id == bindparam("link_id"), links.c.expires_at > at)
OPEN = select(links).where(links.c.purpose == Purpose.INVITATION, links.c.expires_at > at)
OPEN_BY_ID = OPEN.where(links.c.id == bindparam("link_id"))
REMOVE = delete(links).where(links.c.purpose == Purpose.INVITATION, links.c.id == bindparam("link_id"))
MADE_SINCE = (
    select(links.c.id)
    .where(
        links.c.user_id == bindparam("owner"),
        links.c.purpose == purpose,
        links.c.created_at > at,
    )
    .limit(1)
)
EXPIRED = (
    select(links.c.id)
    .where(links.c.user_id == bindparam("owner"), links.c.purpose == purpose, links.c.expires_at <= at)
    .order_by(links.c.id)
)
# By the primary key: two that came by different indexes would wait for each other on MariaDB.
FORGET = delete(links).where(links.c.id.in_(bindparam("ids", expanding=True)))


class LinkRepository:
    """One-time links in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, token: str, purpose: Purpose) -> AnyRow | None:
        """The link with this token, if it is good for this and not over."""
        asked = {"digest": digest(token), "purpose": purpose, "at": now()}
        return (await execute(self._session, FIND, asked)).one_or_none()

    async def get_invitation(self, link_id: int) -> AnyRow | None:
        """The open invitation with this id."""
        return (await execute(self._session, OPEN_BY_ID, {"link_id": link_id, "at": now()})).one_or_none()

    async def page_of_invitations(self, page: PageRequest) -> Page[AnyRow]:
        """The open invitations, the newest first."""
        return await newest_first(
            self._session, OPEN, links.c.id, page, {"at": now()}, index="ix_one_time_link_purpose_id"
        )

    async def was_made_since(self, user_id: int, purpose: Purpose, age: timedelta) -> bool:
        """Whether a link for this user and purpose was made less than that ago."""
        asked = {"owner": user_id, "purpose": purpose, "at": now() - age}
        return (await execute(self._session, MADE_SINCE, asked)).one_or_none() is not None

    async def add(
        self, user_id: int, purpose: Purpose, lifetime: timedelta, *, email: str | None = None, role: Role | None = None
    ) -> tuple[OneTimeLink, str]:
        """A new link, and its token, which is nowhere else. Those of the same user and purpose that expired go."""
        expired = await execute(self._session, EXPIRED, {"owner": user_id, "purpose": purpose, "at": now()})
        if ids := list(expired.scalars()):
            await execute(self._session, FORGET, {"ids": ids})
        token = make(LINK)
        link = OneTimeLink(
            token_digest=digest(token),
            purpose=purpose,
            user_id=user_id,
            email=email,
            role=role,
            expires_at=now() + lifetime,
        )
        self._session.add(link)
        await self._session.flush()
        return link, token

    async def use(self, link: AnyRow) -> bool:
        """Delete the link; whether this was the one use."""
        return await affects(self._session, USE, {"link_id": link.id, "at": now()})

    async def remove_invitation(self, link_id: int) -> bool:
        """Delete an invitation; whether there was one."""
        return await affects(self._session, REMOVE, {"link_id": link_id})
