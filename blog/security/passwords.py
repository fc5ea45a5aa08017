"""Password hashing: the only importer of passlib.

`bcrypt_sha256` hashes a digest of the password first, so that no byte past the 72nd is
ignored as plain bcrypt does; plain `bcrypt` is still verified, and upgraded at login.
"""

import importlib.metadata
import re
import secrets
import unicodedata
from contextlib import AbstractAsyncContextManager

import anyio.to_thread
from passlib.context import CryptContext
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from blog.errors import WeakPassword
from blog.models import fold
from blog.settings import PASSWORD_MAX_LENGTH
from blog.turns import turn_at

COMMON = frozenset(FREQUENCY_LISTS["passwords"])
"""The 30,000 most common passwords of those that leaked, in lower case."""

MEANINGFUL = 4
"""Letters of a name or an address that are not in a password by chance; three are no chance as a word of their own."""

WORD_OF_THREE = re.compile(r"(?<![^\W\d_])[^\W\d_]{3}(?![^\W\d_])")

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
    characters, and `site` the platform's host name, which is in no password. Raises RuntimeError,
    which names the cure, when the installed passlib and bcrypt do not work with each other.
    """

    def __init__(self, rounds: int, min_length: int, site: str = "") -> None:
        self._min_length = min_length
        self._site = site
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
        return turn_at(self._verifying, patience=QUEUE_TIMEOUT)

    def refuse_weak(self, password: str, *, name: str, email: str) -> None:
        """Raise WeakPassword, with the reason, for a password that is no good for the user with this name and address.

        As NIST SP 800-63B-4, section 3.1.1.2, has it: what is common or belongs to its user is refused, and no
        kind of character is demanded.
        """
        password = _normalized(password)
        if len(password) < self._min_length:
            raise WeakPassword(f"A password needs at least {self._min_length} characters.")
        folded = fold(password)
        if folded in COMMON:
            raise WeakPassword("This password is one of the most common ones, which are tried first.")
        address = fold(email)
        words = WORD_OF_THREE.findall(folded)
        for known in (*re.split(r"\W+", fold(name)), fold(name), address, address.partition("@")[0], self._site):
            if known in words or (len(known) >= MEANINGFUL and known in folded):
                raise WeakPassword("This password has your name, your address or the site's name in it.")

    async def hash(self, password: str) -> str:
        """A new hash, at most 128 characters, of a password that `refuse_weak` has let through. Raises Busy."""
        password = _normalized(password)
        # Only the first of those who want a new one waits among those who log in: a flood of
        # registrations holds up itself.
        async with turn_at(self._making, patience=QUEUE_TIMEOUT), self.turn():
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


def _normalized(password: str) -> str:
    # NIST SP 800-63B-4, section 3.1.1.2: one password however a keyboard composes its characters.
    return unicodedata.normalize("NFKC", password)


def _cure() -> str:
    passlib, bcrypt = (importlib.metadata.version(name) for name in ("passlib", "bcrypt"))
    return (
        f"passlib {passlib} cannot hash with bcrypt {bcrypt}. "
        "Install the versions that are locked, with 'pipenv sync', or 'bcrypt>=4.0.1,<4.1'."
    )
