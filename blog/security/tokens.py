"""Access tokens: the only importer of python-jose.

A token is a JWT as RFC 9068 has it, read by the rules of RFC 8725. python-jose checks less than
it seems to, so what it leaves out is checked here: the type, unknown critical headers, claims
that are missing or of the wrong type, and a second spelling of one signature.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeGuard
from uuid import uuid4

from jose import jwt

from blog.errors import InvalidScope
from blog.security.access import Scope, read_scopes, write_scopes

ALGORITHM = "HS256"
TYPE = "at+jwt"
LEEWAY = 30
"""Seconds by which the clocks of two machines may differ."""

# Three parts of base64url without padding, none absurdly long. 43 characters are the 32 bytes of the
# HMAC and two bits over, which must be zero: else four texts would be one token.
SHAPE = re.compile(r"[A-Za-z0-9_-]{10,256}\.[A-Za-z0-9_-]{2,2048}\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
IDENTIFIER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    `subject` is the user's public id and `login` the login's, each of 32 hexadecimal digits; `expires_at` is in seconds
    since 1970.
    """

    subject: str
    login: str
    scopes: frozenset[Scope]
    expires_at: int


class AccessTokens:
    """Issues and reads this deployment's access tokens.

    The first of the secrets signs. Each verifies the tokens that name it, so that a secret can be changed while tokens
    of the one before are about.
    """

    def __init__(self, secrets: Collection[str], issuer: str) -> None:
        # The only headers that are issued, as python-jose writes them: any other type, algorithm, key or critical
        # extension is none of ours, and is refused before anything is parsed.
        self._secrets = {_header(secret): secret for secret in reversed(tuple(secrets))}
        self._secret = next(iter(secrets))
        self._headers = {"typ": TYPE, "kid": _key_id(self._secret)}
        self._issuer = issuer
        self._options = {f"require_{claim}": True for claim in ("exp", "iat", "sub", "jti", "aud", "iss")} | {
            "leeway": LEEWAY
        }

    def issue(self, subject: str, login: str, scopes: Collection[Scope], *, seconds: int) -> str:
        """A token for the user with this public id in the login with this one, valid from now."""
        issued_at = int(datetime.now(UTC).timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": subject,
            "iat": issued_at,
            "exp": issued_at + seconds,
            "jti": uuid4().hex,
            "sid": login,
            "scope": write_scopes(scopes),
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, headers=self._headers)

    def read(self, token: str) -> Claims | None:
        """The claims, or None for any token that is not ours and valid now."""
        secret = self._secrets.get(token.partition(".")[0])
        if secret is None or not SHAPE.fullmatch(token):
            return None
        try:
            claims = jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                audience=self._issuer,
                issuer=self._issuer,
                options=self._options,
            )
        except Exception:  # JWTError, and RecursionError, TypeError, OverflowError… on hostile ones
            return None
        return _read(claims)


def _key_id(secret: str) -> str:
    return hashlib.sha256(f"key id of {secret}".encode()).hexdigest()[:16]


def _header(secret: str) -> str:
    return jwt.encode({}, "", algorithm=ALGORITHM, headers={"typ": TYPE, "kid": _key_id(secret)}).partition(".")[0]


def _read(claims: dict[str, Any]) -> Claims | None:
    # bool is an int, and JSON has both.
    if any(type(claims.get(name)) is not int for name in ("iat", "exp")):
        return None
    subject, login, scope = claims.get("sub"), claims.get("sid"), claims.get("scope")
    if not (_is_identifier(subject) and _is_identifier(login) and _is_identifier(claims.get("jti"))):
        return None
    if claims["iat"] > datetime.now(UTC).timestamp() + LEEWAY or not isinstance(scope, str):
        return None
    try:
        return Claims(subject, login, read_scopes(scope), claims["exp"])
    except InvalidScope:
        return None


def _is_identifier(claim: object) -> TypeGuard[str]:
    return isinstance(claim, str) and IDENTIFIER.fullmatch(claim) is not None
