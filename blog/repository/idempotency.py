"""All SQL about answers that are kept under an Idempotency-Key."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import DateTime, bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from blog.models import now
from blog.repository import AnyRow, execute

KEPT = timedelta(days=1)

FORGOTTEN_AT_ONCE = 10
"""Expired answers that go when another comes: more than one, so that they grow fewer."""

kept = SQLModel.metadata.tables["idempotency_key"]

at = bindparam("at", type_=DateTime(timezone=True))

FIND = select(kept).where(kept.c.key.in_(bindparam("keys", expanding=True)))
EXPIRED = select(kept.c.key).where(kept.c.expires_at <= at).order_by(kept.c.expires_at).limit(FORGOTTEN_AT_ONCE)
# Whoever tidies up waits for nobody, and comes by the primary key alone: on MariaDB two that came by different indexes
# would wait for each other, and on PostgreSQL two that came in a different order.
TAKE = (
    select(kept.c.key)
    .where(kept.c.key.in_(bindparam("keys", expanding=True)), kept.c.expires_at <= at)
    .with_hint(kept, "FORCE INDEX (PRIMARY)", "mysql")
    .with_for_update(skip_locked=True)
)
FORGET = delete(kept).where(kept.c.key.in_(bindparam("keys", expanding=True)))
ADD = insert(kept)


class IdempotencyRepository:
    """Kept answers in one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, keys: Sequence[str]) -> AnyRow | None:
        """What is kept under one of these keys, expired or not."""
        return (await execute(self._session, FIND, {"keys": keys})).first()

    async def forget(self, expired: AnyRow | None) -> None:
        """Delete this row if it is given, and some of the others that expired."""
        keys = {key for (key,) in (await execute(self._session, EXPIRED, {"at": now()})).all()}
        if expired is not None:
            keys.add(expired.key)
        if keys:
            taken = (await execute(self._session, TAKE, {"keys": list(keys), "at": now()})).all()
            await execute(self._session, FORGET, {"keys": [key for (key,) in taken]})

    async def add(self, key: str, answer: str, user_id: int | None) -> None:
        """Keep a sealed answer for a day. Raises IntegrityError when one is kept under this key."""
        row = {"key": key, "answer": answer, "user_id": user_id, "expires_at": now() + KEPT}
        await execute(self._session, ADD, row)
