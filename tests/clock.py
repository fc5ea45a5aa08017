"""A clock that tests move, where blogs and rooms are read and written."""

from datetime import UTC, datetime, timedelta

import pytest

READ_BY = ("blog", "tag", "change", "room", "page")
"""Modules of `blog.repository` that ask for the time."""


class Clock:
    """What time blogs and rooms take it to be: it stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = datetime.now(UTC).replace(microsecond=0)
        for module in READ_BY:
            monkeypatch.setattr(f"blog.repository.{module}.now", lambda: self.time)

    def after(self, seconds: int) -> str:
        """So many seconds from now, as a request says it."""
        return f"{self.time + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"

    def passes(self, seconds: int) -> None:
        """Let so many seconds pass."""
        self.time += timedelta(seconds=seconds)
