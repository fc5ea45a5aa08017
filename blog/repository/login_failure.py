"""All SQL about failed logins."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Insert, Integer, Row, and_, bindparam, case, delete, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from blog.models import LoginFailure
from blog.repository import execute

KEYS = range(3)
"""Numbers of the keys that one attempt is counted under."""

FailureRow = Row[str, int, datetime]

key, failures, expires_at = col(LoginFailure.key), col(LoginFailure.failures), col(LoginFailure.expires_at)
change = bindparam("change", type_=Integer)

# A clock that was set back must not make a minute last for an hour.
IS_CURRENT = and_(expires_at > bindparam("now"), expires_at <= bindparam("end"))
ROWS: list[dict[str, Any]] = [
    {"key": bindparam(f"key{n}"), "failures": bindparam("first"), "expires_at": bindparam("end")} for n in KEYS
]
CHANGED = {  # in this order: MySQL and MariaDB assign from left to right
    "failures": case((and_(IS_CURRENT, failures + change > 0), failures + change), else_=bindparam("first")),
    "expires_at": case((IS_CURRENT, expires_at), else_=bindparam("end")),
}
COUNT: dict[str, Insert] = {
    "sqlite": sqlite.insert(LoginFailure).values(ROWS).on_conflict_do_update(index_elements=["key"], set_=CHANGED),
    "postgresql": postgresql.insert(LoginFailure)
    .values(ROWS)
    .on_conflict_do_update(index_elements=["key"], set_=CHANGED),
    "mysql": mysql.insert(LoginFailure).values(ROWS).on_duplicate_key_update(list(CHANGED.items())),
}
READ = select(key, failures, expires_at).where(IS_CURRENT, key.in_([bindparam(f"key{n}") for n in KEYS]))
FORGET = delete(LoginFailure).where(expires_at < bindparam("before"))


class LoginFailureRepository:
    """Counts of failed logins in one session, three keys at a time."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def read(self, keys: Collection[str], *, now: datetime, window: timedelta) -> dict[str, FailureRow]:
        """What is counted under these keys in the window that holds `now`."""
        rows = (await execute(self._session, READ, _named(keys) | {"now": now, "end": now + window})).all()
        return {row.key: row for row in rows}

    async def count(self, keys: Collection[str], change: int, *, now: datetime, window: timedelta) -> None:
        """Count one more (1) or one less (-1) under each key; a window begins where there is none."""
        parameters = {"change": change, "first": max(change, 0), "now": now, "end": now + window}
        await execute(self._session, COUNT[self._session.get_bind().dialect.name], _named(keys) | parameters)

    async def forget(self, before: datetime) -> None:
        """Delete what expired before then."""
        await execute(self._session, FORGET, {"before": before})


def _named(keys: Collection[str]) -> dict[str, Any]:
    # In one order for everybody, so that no two wait for each other's rows.
    return {f"key{n}": key for n, key in enumerate(sorted(keys))}
