"""How many people read what: counted without cookies, and without storing who they are.

A reader is told from another for a day, by a digest that only this process can make, and only on that day: the salt is
thrown away at its end, and neither it nor a digest leaves the process. What is counted is stored every few seconds.
"""

import asyncio
import hashlib
import logging
import re
import secrets
from collections import Counter
from datetime import UTC, date, datetime

from sqlalchemy.exc import SQLAlchemyError

from blog.database import Database
from blog.middleware import network_of
from blog.repository.page import PageRepository

STORED_EVERY = 5.0
"""Seconds."""

MOST_KNOWN = 200_000
"""Digests of a day that are kept, of 16 bytes: beyond them whoever comes is taken for somebody new."""

PROGRAM = re.compile(r"bot|crawl|spider|slurp|preview|curl|wget|python|java/|go-http|feed|monitor", re.IGNORECASE)
"""What those call themselves that read for nobody in particular."""

ANY_POST = 0

logger = logging.getLogger(__name__)


class Readers:
    """Those of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._day = date.min
        self._salt = b""
        self._known: set[bytes] = set()
        self._read: Counter[tuple[int, int, date]] = Counter()
        self._task: asyncio.Task[None] | None = None

    def count(self, blog_id: int, creator_id: int, *, client: str, user_agent: str) -> None:
        """Somebody reads a post."""
        if not user_agent or PROGRAM.search(user_agent):
            return
        today = datetime.now(UTC).date()
        if today != self._day:
            self._day, self._salt = today, secrets.token_bytes(16)
            self._known.clear()
        told = f"{network_of(client)} {user_agent}"
        for what in (blog_id, ANY_POST):
            who = hashlib.blake2b(f"{creator_id} {what} {told}".encode(), key=self._salt, digest_size=16).digest()
            if who not in self._known:
                if len(self._known) < MOST_KNOWN:
                    self._known.add(who)
                self._read[creator_id, what, today] += 1
        if self._task is None:
            self._task = asyncio.create_task(self._store_on())

    async def store(self) -> None:
        """Store what was counted since the last time."""
        read, self._read = self._read, Counter()
        if not read:
            return
        try:
            async with self._database.write.begin() as session:
                await PageRepository(session).count_readers(read)
        except (SQLAlchemyError, OSError) as error:
            self._read.update(read)
            logger.warning("readers are not stored just now: %s", type(error).__name__)

    async def aclose(self) -> None:
        """Store what is left."""
        if self._task is not None:
            self._task.cancel()
        await self.store()

    async def _store_on(self) -> None:
        while True:
            await asyncio.sleep(STORED_EVERY)
            await self.store()
