"""Turns at work that would take the machine from everybody else."""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

import anyio

from blog.errors import Busy, TooManyMessages


@asynccontextmanager
async def turn_at(*limiters: anyio.CapacityLimiter, patience: float) -> AsyncIterator[None]:
    """The turn of one who waits at these, one after the other, for so many seconds in all. Raises Busy after them."""
    held: list[anyio.CapacityLimiter] = []
    try:
        try:
            with anyio.fail_after(patience):
                for limiter in limiters:
                    await limiter.acquire()
                    held.append(limiter)
        except TimeoutError:
            raise Busy from None
        yield
    finally:
        for limiter in reversed(held):
            limiter.release()


class Turns:
    """One turn at a time. Of each user only one waits in the line of all: whoever sends much holds up nobody else.

    A second at once would take the second core from everybody who only reads.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._line = anyio.CapacityLimiter(1)
        self._of_user: WeakValueDictionary[int, anyio.CapacityLimiter] = WeakValueDictionary()

    def of(self, user_id: int) -> AbstractAsyncContextManager[None]:
        """The turn of one of this user's. Raises Busy when it does not come in time."""
        own = self._of_user.setdefault(user_id, anyio.CapacityLimiter(1))
        return turn_at(own, self._line, patience=self._patience)


class Budget:
    """What a WebSocket may still send: a bucket that fills again by `rate` a second, up to `burst`."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._left = rate, burst, burst
        self._at = time.monotonic()

    def take(self) -> None:
        """Count one more. Raises TooManyMessages."""
        at = time.monotonic()
        self._left = min(self._burst, self._left + (at - self._at) * self._rate) - 1
        self._at = at
        if self._left < 0:
            raise TooManyMessages
