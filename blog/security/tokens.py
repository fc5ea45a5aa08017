"""Access tokens: the only importer of python-jose.

A token is a JWT as RFC 9068 has it, read by the rules of RFC 8725. python-jose checks less than
it seems to, so what it leaves out is checked here: the type, unknown critical headers, claims
that are missing or of the wrong type, and a second spelling of one signature.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard
from uuid import uuid4

from jose import jwt

ALGORITHM = "HS256"
TYPE = "at+jwt"
LEEWAY = 30
"""Seconds by which the clocks of two machines may differ."""

# Three parts of base64url without padding, none absurdly long. 43 characters are the 32 bytes of the
# HMAC and two bits over, which must be zero: else four texts would be one token.
SHAPE = re.compile(r"[A-Za-z0-9_-]{10,256}\.[A-Za-z0-9_-]{2,2048}\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
# The only header that is issued, as python-jose writes it: any other type, algorithm or critical extension is none
# of ours, and is refused before anything is parsed.
HEADER = jwt.encode({}, "", algorithm=ALGORITHM, headers={"typ": TYPE}).partition(".")[0] + "."
IDENTIFIER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    `subject` is the user's public id, `token_id` the token's own, `generation` the user's
    `login_generation` at the time of the login. Each is 32 hexadecimal digits.
    """

    subject: str
    token_id: str
    generation: str


class AccessTokens:
    """Issues and reads this deployment's access tokens."""

    def __init__(self, secret: str, issuer: str, lifetime: timedelta) -> None:
        self.lifetime = lifetime
        self._secret = secret
        self._issuer = issuer
        self._options = {f"require_{claim}": True for claim in ("exp", "iat", "sub", "jti", "aud", "iss")} | {
            "leeway": LEEWAY
        }

    def issue(self, subject: str, generation: str) -> str:
        """A token for the user with this public id, valid from now for the lifetime."""
        issued_at = int(datetime.now(UTC).timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": subject,
            "iat": issued_at,
            "exp": issued_at + int(self.lifetime.total_seconds()),
            "jti": uuid4().hex,
            "gen": generation,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, headers={"typ": TYPE})

    def read(self, token: str) -> Claims | None:
        """The claims, or None for any token that is not ours and valid now."""
        if not SHAPE.fullmatch(token) or not token.startswith(HEADER):
            return None
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=self._issuer,
                issuer=self._issuer,
                options=self._options,
            )
        except Exception:  # JWTError, and RecursionError, TypeError, OverflowError… on hostile ones
            return None
        return _read(claims)


def _read(claims: dict[str, Any]) -> Claims | None:
    # bool is an int, and JSON has both.
    if any(type(claims.get(name)) is not int for name in ("iat", "exp")):
        return None
    subject, token_id, generation = claims.get("sub"), claims.get("jti"), claims.get("gen")
    if not (_is_identifier(subject) and _is_identifier(token_id) and _is_identifier(generation)):
        return None
    if claims["iat"] > datetime.now(UTC).timestamp() + LEEWAY:
        return None
    return Claims(subject, token_id, generation)


def _is_identifier(claim: object) -> TypeGuard[str]:
    return isinstance(claim, str) and IDENTIFIER.fullmatch(claim) is not None
