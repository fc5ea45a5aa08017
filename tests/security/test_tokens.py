"""Every hostile token of which python-jose lets one through, or fails in its own way, is None here."""

import base64
import hashlib
import hmac
import json
import time
from datetime import datetime, tzinfo
from typing import Any, Self
from uuid import uuid4

import pytest
from jose import jwt

from blog.security.access import Scope
from blog.security.tokens import AccessTokens, Claims, _key_id

SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = "https://blog.example/"
SUBJECT, LOGIN = uuid4().hex, uuid4().hex
SCOPES = frozenset({Scope.BLOG_READ, Scope.USER_READ})


@pytest.fixture
def tokens() -> AccessTokens:
    return AccessTokens([SECRET], ISSUER)


def claims(**changes: Any) -> dict[str, Any]:
    issued_at = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": SUBJECT,
        "iat": issued_at,
        "exp": issued_at + 900,
        "jti": uuid4().hex,
        "sid": LOGIN,
        "scope": "blog:read user:read",
    } | changes
    return {name: value for name, value in good.items() if value is not ...}


def issue(tokens: AccessTokens) -> str:
    return tokens.issue(SUBJECT, LOGIN, SCOPES, seconds=900)


def header_of(secret: str) -> dict[str, Any]:
    return {"alg": "HS256", "kid": _key_id(secret), "typ": "at+jwt"}


def encode(part: bytes | dict[str, Any]) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def forge(
    payload: bytes | dict[str, Any],
    header: bytes | dict[str, Any] | None = None,
    secret: str = SECRET,
    digest: Any = hashlib.sha256,
) -> str:
    """A signed token with whatever inside."""
    signed = f"{encode(header or header_of(SECRET))}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), digest))}"


def test_issued_token_is_read(tokens: AccessTokens) -> None:
    token = issue(tokens)
    assert tokens.read(token) == Claims(SUBJECT, LOGIN, SCOPES, jwt.get_unverified_claims(token)["exp"])
    assert tokens.read(forge(claims())) is not None


def test_issued_token_is_as_rfc_9068_has_it(tokens: AccessTokens) -> None:
    token = issue(tokens)
    assert jwt.get_unverified_header(token) == header_of(SECRET)
    inside = jwt.get_unverified_claims(token)
    assert set(inside) == {"iss", "aud", "sub", "iat", "exp", "jti", "sid", "scope"}
    assert inside["exp"] - inside["iat"] == 900
    assert jwt.get_unverified_claims(issue(tokens))["jti"] != inside["jti"]


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "exp", "jti", "sid", "scope"])
def test_missing_claim(tokens: AccessTokens, name: str) -> None:
    assert tokens.read(forge(claims(**{name: ...}))) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example/"},
        {"aud": "https://other.example/"},
        {"aud": ["https://other.example/"]},
        {"exp": int(time.time()) - 60},
        {"exp": str(int(time.time()) + 900)},
        {"exp": time.time() + 900},
        {"exp": None},
        {"exp": [1]},
        {"exp": True},
        {"iat": int(time.time()) + 3600},
        {"iat": "now"},
        {"iat": None},
        {"iat": True},
        {"iat": time.time()},
        {"iat": str(int(time.time()))},
        {"nbf": int(time.time()) + 3600},
        {"sub": 7},
        {"sub": ""},
        {"sub": "\0"},
        {"sub": f"{SUBJECT}\n"},
        {"sub": None},
        {"jti": 7},
        {"jti": "\0"},
        {"sid": None},
        {"sid": 0},
        {"scope": None},
        {"scope": ["blog:read"]},
        {"scope": "everything"},
    ],
)
def test_wrong_claim(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    assert tokens.read(forge(claims(**changes))) is None


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"null", b"{", b"\xff", json.dumps(claims()).replace('"exp": ', '"exp": 1e999, "x": ').encode()],
)
def test_wrong_payload(tokens: AccessTokens, payload: bytes) -> None:
    assert tokens.read(forge(payload)) is None


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "at+jwt"},
        header_of(SECRET) | {"alg": "HS256", "typ": "JWT"},
        header_of(SECRET) | {"alg": "HS256", "typ": "rt+jwt"},
        header_of(SECRET) | {"alg": "none", "typ": "at+jwt"},
        header_of(SECRET) | {"alg": "HS384", "typ": "at+jwt"},
        header_of(SECRET) | {"alg": "RS256", "typ": "at+jwt"},
        header_of(SECRET) | {"alg": None, "typ": "at+jwt"},
        {"typ": "at+jwt", "kid": _key_id(SECRET)},
        header_of(SECRET) | {"kid": "0" * 16},
        header_of(SECRET) | {"alg": "HS256", "typ": "at+jwt", "crit": ["exp"]},
        header_of(SECRET) | {"alg": "HS256", "typ": "at+jwt", "crit": []},
        b"[]",
        b"null",
        b"not JSON at all",
        b"[" * 180,
    ],
)
def test_wrong_header(tokens: AccessTokens, header: Any) -> None:
    assert tokens.read(forge(claims(), header)) is None


def test_wrong_signature(tokens: AccessTokens) -> None:
    assert tokens.read(forge(claims(), secret="another secret of thirty-two byte")) is None
    assert (
        tokens.read(forge(claims(), header_of(SECRET) | {"alg": "HS384", "typ": "at+jwt"}, digest=hashlib.sha384))
        is None
    )
    unsigned = f"{encode({'alg': 'none', 'typ': 'at+jwt'})}.{encode(claims())}."
    assert tokens.read(unsigned) is None
    assert tokens.read(unsigned + "x" * 43) is None


def test_changed_claims(tokens: AccessTokens) -> None:
    header, _, signature = issue(tokens).split(".")
    assert tokens.read(f"{header}.{encode(claims())}.{signature}") is None


@pytest.mark.parametrize("tail", ["=", "==", "!!", "\n", " ", ".", ".x", "A", "\0", "é"])
def test_another_spelling(tokens: AccessTokens, tail: str) -> None:
    token = issue(tokens)
    assert tokens.read(token + tail) is None
    assert tokens.read(tail + token) is None


def test_spare_bits_of_the_signature(tokens: AccessTokens) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = issue(tokens)
    same_bytes = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    assert base64.urlsafe_b64decode(same_bytes[-43:] + "=") == base64.urlsafe_b64decode(token[-43:] + "=")
    assert tokens.read(same_bytes) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "x.y.z",
        "a.b.c.d.e",
        "é.é.é",
        "\ud800",
        "x" * 40_000,
        encode(b"[" * 1_100) + ".e30." + "A" * 43,
        encode(b"[" * 40_000) + ".e30." + "A" * 43,
        forge(claims(padding="x" * 4_000)),
    ],
)
def test_malformed(tokens: AccessTokens, token: str) -> None:
    assert tokens.read(token) is None


def test_clocks_may_differ_by_thirty_seconds_and_no_more(tokens: AccessTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(second, tz)

    second = int(time.time())
    for module in ("blog.security.tokens", "jose.jwt"):
        monkeypatch.setattr(f"{module}.datetime", StoppedClock)
    for seconds, is_read in {-30: True, 0: True, 30: True, 31: False, 300: False, 3_000: False}.items():
        later = tokens.read(forge(claims(iat=second + seconds, exp=second + seconds + 900)))
        assert (later is not None) is is_read, seconds
        over = tokens.read(forge(claims(iat=second - 900, exp=second - seconds)))
        assert (over is not None) is is_read, seconds


def test_a_key_that_was_replaced() -> None:
    old, new = "old" * 11, "new" * 11
    token = issue(AccessTokens([old], ISSUER))
    both = AccessTokens([new, old], ISSUER)
    assert both.read(token) == Claims(SUBJECT, LOGIN, SCOPES, jwt.get_unverified_claims(token)["exp"])
    assert jwt.get_unverified_header(issue(both))["kid"] == _key_id(new)
    assert AccessTokens([new], ISSUER).read(issue(both)) is not None
    assert AccessTokens([new], ISSUER).read(token) is None
    # The name of a key is not the key.
    assert both.read(forge(claims(), header_of(new), old)) is None
