"""All SQL, one module a noun."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import CursorResult, Executable, Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import flag_modified
from sqlmodel import SQLModel

UserRow = Row[*tuple[Any, ...]]
"""All columns of a user: who asks, to be known and shown but not changed."""


def assign(row: SQLModel, changes: Mapping[str, Any]) -> None:
    """Set columns of a table's object, so that the next flush writes each of them.

    Also the one that is as it was when it was loaded: somebody may have changed it since, and of
    two changes at once the later one shall stand whole.
    """
    for column, value in changes.items():
        setattr(row, column, value)
        flag_modified(row, column)


async def execute(
    session: AsyncSession, statement: Executable, parameters: Mapping[str, Any]
) -> CursorResult[*tuple[Any, ...]]:
    """Execute a statement on tables' columns in the session's transaction, past its machinery for objects.

    A row costs half of what an object does, and reading is what a blog does most.
    """
    return await (await session.connection()).execute(statement, parameters)
