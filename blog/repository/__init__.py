"""All SQL, one module a noun."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm.attributes import flag_modified
from sqlmodel import SQLModel


def assign(row: SQLModel, changes: Mapping[str, Any]) -> None:
    """Set columns of a table's object, so that the next flush writes each of them.

    Also the one that is as it was when it was loaded: somebody may have changed it since, and of
    two changes at once the later one shall stand whole.
    """
    for column, value in changes.items():
        setattr(row, column, value)
        flag_modified(row, column)
