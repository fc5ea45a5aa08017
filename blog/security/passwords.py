"""Password hashing: the only importer of passlib.

`bcrypt_sha256` hashes a digest of the password first, so that no byte past the 72nd is
ignored as plain bcrypt does; plain `bcrypt` is still verified, and upgraded at login.
"""

import importlib.metadata
import secrets
import unicodedata
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio.to_thread
from passlib.context import CryptContext

from blog.errors import Busy, WeakPassword
from blog.settings import PASSWORD_MAX_LENGTH

BCRYPT_BYTES = 72
"""What plain bcrypt reads of a password."""

CONCURRENT_HASHES = 1
"""Hashes under way at once in a process: bcrypt lets go of the interpreter lock, and a second would
take the second core from everybody who only reads."""

QUEUE_TIMEOUT = 4
"""Seconds that a password waits for its turn: about a dozen at bcrypt's cost of 12."""


class PasswordHasher:
    """Hashes and verifies without ever blocking the event loop.

    `rounds` is bcrypt's cost as a power of two, `min_length` what a new password needs in
    characters. Raises RuntimeError, which names the cure, when the installed passlib and bcrypt
    do not work with each other.
    """

    def __init__(self, rounds: int, min_length: int) -> None:
        self._min_length = min_length
        self._context = CryptContext(
            schemes=["bcrypt_sha256", "bcrypt"],
            deprecated="auto",
            bcrypt_sha256__rounds=rounds,
            bcrypt__rounds=rounds,
        )
        self._verifying = anyio.CapacityLimiter(CONCURRENT_HASHES)
        self._making = anyio.CapacityLimiter(CONCURRENT_HASHES)
        password = secrets.token_hex()
        try:
            # What an unknown user's password is compared with, so that the answer takes as long.
            self._nobodys_hash = self._context.hash(password)
            works = self._context.verify(password, self._nobodys_hash)
        except Exception as error:  # whatever an unfitting bcrypt does
            raise RuntimeError(_cure()) from error
        if not works or self._context.verify(password + "x", self._nobodys_hash):
            raise RuntimeError(_cure())

    def turn(self) -> AbstractAsyncContextManager[None]:
        """The turn of one password, whatever is done about it. Raises Busy when too many wait."""
        return _turn_at(self._verifying)

    async def hash(self, password: str) -> str:
        """A new hash, at most 128 characters, of a password that the schema has let through.

        Raises WeakPassword and Busy.
        """
        password = _normalized(password)
        if len(password) < self._min_length:
            raise WeakPassword(f"A password needs at least {self._min_length} characters.")
        # Only the first of those who want a new one waits among those who log in: a flood of
        # registrations holds up itself.
        async with _turn_at(self._making), self.turn():
            return await anyio.to_thread.run_sync(self._context.hash, password)

    async def verify(self, password: str, known: str | None) -> tuple[bool, str | None]:
        """Whether `password` is the one that `known` was made of, and a better hash where `known` is outdated.

        Without a known hash it takes as long and is False. For whoever has the turn.
        """
        if len(password) > PASSWORD_MAX_LENGTH:
            return False, None
        verified, better = await anyio.to_thread.run_sync(
            self._verify, _normalized(password), known or self._nobodys_hash
        )
        return (verified, better) if known is not None else (False, None)

    def _verify(self, password: str, known: str) -> tuple[bool, str | None]:
        if known.startswith("$2") and len(password.encode(errors="replace")) > BCRYPT_BYTES:
            return False, None  # it would not look at the rest, and the upgrade would keep whatever stood there
        try:
            return self._context.verify_and_update(password, known)
        except Exception:  # NUL, a lone surrogate, a hash of another kind: passlib has an error for each
            return False, None


@asynccontextmanager
async def _turn_at(limiter: anyio.CapacityLimiter) -> AsyncIterator[None]:
    try:
        with anyio.fail_after(QUEUE_TIMEOUT):
            await limiter.acquire()
    except TimeoutError:
        raise Busy from None
    try:
        yield
    finally:
        limiter.release()


def _normalized(password: str) -> str:
    # NIST SP 800-63B-4, section 3.1.1.2: one password however a keyboard composes its characters.
    return unicodedata.normalize("NFKC", password)


def _cure() -> str:
    passlib, bcrypt = (importlib.metadata.version(name) for name in ("passlib", "bcrypt"))
    return (
        f"passlib {passlib} cannot hash with bcrypt {bcrypt}. "
        "Install the versions that are locked, with 'pipenv sync', or 'bcrypt>=4.0.1,<4.1'."
    )
