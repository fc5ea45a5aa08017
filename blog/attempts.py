"""Attempts at a password: so many may fail in a minute from one address, and for one account.

Counted in the database, so that all workers count together, and before the password is looked at, so
that a burst of attempts at once counts as so many. No stranger locks anybody out: where too many
failed for an account, each address still has one attempt, which succeeds with the right password.
"""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from blog.database import Database
from blog.errors import DatabaseUnavailable, TooManyFailures
from blog.middleware import WINDOW, network_of, rate_limit
from blog.models import fold, now
from blog.repository.login_failure import FailureRow, LoginFailureRepository
from blog.security.passwords import PasswordHasher

MINUTE = timedelta(seconds=WINDOW)
FORGET_AFTER = timedelta(minutes=10)
SLOW, GONE = 1, 2
"""Seconds: a database that took longer than the first to refuse an attempt is not asked for as long as
the second, or each of those that waited behind it would wait as long."""


class Keys(NamedTuple):
    """What an attempt is counted under, each as 32 hexadecimal digits."""

    address: str
    account: str
    both: str


class Attempts:
    """Counts attempts at passwords; `limit` is how many may fail in a minute."""

    def __init__(self, database: Database, passwords: PasswordHasher, secret: str, limit: int) -> None:
        self._database = database
        self._passwords = passwords
        self._secret = secret.encode()
        self._limit = limit
        self._gone_until = 0.0
        self._forgot_at = now()

    @asynccontextmanager
    async def attempt(self, client: str, account: str) -> AsyncIterator[dict[str, str]]:
        """One attempt from the address `client` at the password of `account`, which fails if the body raises.

        Gives the RateLimit headers of the answer when it does. Raises TooManyFailures, Busy and
        DatabaseUnavailable before the body.
        """
        address, account = network_of(client), fold(account)
        keys = Keys(self._key(address), self._key("", account), self._key(address, account))
        async with self._database.fresh() as session:
            # Most of an attack ends here, and writes nothing.
            self._judge(keys, await LoginFailureRepository(session).read(keys, now=now(), window=MINUTE), own=0)
        # What waits for its turn is not counted yet, else many right passwords at once would look like many
        # wrong ones.
        async with self._passwords.turn():
            counted = await self._count(keys)
            yield self._judge(keys, counted, own=1)
            async with self._database.write.begin() as session:
                await LoginFailureRepository(session).count(keys, -1, now=now(), window=MINUTE)

    async def _count(self, keys: Keys) -> Mapping[str, FailureRow]:
        """Count one more, in a transaction of its own: it stands whatever becomes of the request."""
        if time.monotonic() < self._gone_until:
            raise DatabaseUnavailable
        at, began = now(), time.monotonic()
        try:
            async with self._database.write.begin() as session:
                failures = LoginFailureRepository(session)
                await failures.count(keys, 1, now=at, window=MINUTE)
                counted = await failures.read(keys, now=at, window=MINUTE)
        except (SQLAlchemyError, OSError):
            if time.monotonic() - began > SLOW:
                self._gone_until = time.monotonic() + GONE
            raise
        if at - self._forgot_at > MINUTE:
            self._forgot_at = at
            async with self._database.write.begin() as session:
                await LoginFailureRepository(session).forget(at - FORGET_AFTER)
        return counted

    def _judge(self, keys: Keys, counted: Mapping[str, FailureRow], *, own: int) -> dict[str, str]:
        """The RateLimit headers, unless too many failed beside this attempt's `own`. Raises TooManyFailures."""
        failures = {key: row.failures - own for key, row in counted.items()}
        of_address, of_account, of_both = (failures.get(key, 0) for key in keys)
        headers = self._headers(counted.get(keys.address))
        if of_address >= self._limit:
            blocking = counted[keys.address]
        elif of_account >= self._limit and of_both > 0:
            blocking = counted[keys.account]
        else:
            return headers
        wait = {"Retry-After": str(_seconds_until(blocking.expires_at))}
        raise TooManyFailures(headers={**TooManyFailures.headers, **headers, **wait})

    def _headers(self, row: FailureRow | None) -> dict[str, str]:
        remaining = self._limit - (row.failures if row else 0)
        seconds = _seconds_until(row.expires_at) if row else WINDOW
        return rate_limit("login", limit=self._limit, remaining=remaining, seconds=seconds)

    def _key(self, *parts: str) -> str:
        return hmac.new(self._secret, "\0".join(parts).encode(errors="replace"), hashlib.sha256).hexdigest()[:32]


def _seconds_until(expires_at: datetime) -> int:
    return max(1, int((expires_at - now()).total_seconds()))
