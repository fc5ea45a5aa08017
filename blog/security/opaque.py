"""Opaque tokens: refresh tokens, personal tokens and one-time links.

Each is random, of 192 bits or more, and only its SHA-256 digest is stored: what cannot be guessed needs no slow hash.
A prefix tells people, and programs that look for leaked secrets, what they have found.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

PERSONAL = "blog_pat_"
REFRESH = "blog_rt_"
LINK = "blog_link_"

FAMILY_BYTES = 24
SECRET_BYTES = 32
PERSONAL_SHAPE = re.compile(rf"{PERSONAL}[\w-]{{43}}", re.ASCII)
COOKIE = "__Host-login"
"""Name of a browser's cookie: its prefix makes browsers take it from nobody but this very host, and only by HTTPS or
on this machine."""

COOKIE_SHAPE = re.compile(r"([\w-]{32})([\w-]{43})", re.ASCII)
REFRESH_SHAPE = re.compile(rf"{REFRESH}([\w-]{{32}})([\w-]{{43}})", re.ASCII)


def make(prefix: str) -> str:
    """A new token, of 256 bits: its prefix and 43 characters of base64url."""
    return prefix + secrets.token_urlsafe(SECRET_BYTES)


def is_personal(text: str) -> bool:
    """Whether a text can be a personal token."""
    return PERSONAL_SHAPE.fullmatch(text) is not None


def digest(token: str) -> str:
    """What is stored of a token: 64 hexadecimal digits."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


class Cookie(NamedTuple):
    """What a browser keeps of its login. It is no refresh token: what is stored of the two is not the same."""

    family: str
    secret: str

    def __str__(self) -> str:
        return f"{self.family}{self.secret}"

    @property
    def secret_digest(self) -> str:
        """What is stored of the secret."""
        return digest(f"cookie {self.secret}")

    @property
    def form_token(self) -> str:
        """What a form of this login's pages has in it, and no other site's: 64 hexadecimal digits."""
        return digest(f"form {self}")


def make_cookie() -> Cookie:
    """That of a new login."""
    return Cookie(secrets.token_urlsafe(FAMILY_BYTES), secrets.token_urlsafe(SECRET_BYTES))


def read_cookie(text: str) -> Cookie | None:
    """The cookie, or None for a text that cannot be one."""
    shape = COOKIE_SHAPE.fullmatch(text)
    return Cookie(*shape.groups()) if shape else None


class RefreshToken(NamedTuple):
    """A refresh token: a part that stays as long as its login, and one that each use replaces.

    By the first part a token that was used before is told from one that never was.
    """

    family: str
    secret: str

    def __str__(self) -> str:
        return f"{REFRESH}{self.family}{self.secret}"

    @property
    def secret_digest(self) -> str:
        """What is stored of the secret."""
        return digest(self.secret)

    def next(self) -> "RefreshToken":
        """The token that replaces this one."""
        return RefreshToken(self.family, secrets.token_urlsafe(SECRET_BYTES))


def make_refresh_token() -> RefreshToken:
    """The first of a new login."""
    return RefreshToken(secrets.token_urlsafe(FAMILY_BYTES), secrets.token_urlsafe(SECRET_BYTES))


def read_refresh_token(text: str) -> RefreshToken | None:
    """The token, or None for a text that cannot be one."""
    shape = REFRESH_SHAPE.fullmatch(text)
    return RefreshToken(*shape.groups()) if shape else None
