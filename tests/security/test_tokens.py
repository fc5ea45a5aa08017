"""Every hostile token of which python-jose lets one through, or fails in its own way, is None here."""

import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from jose import jwt

from blog.security.tokens import AccessTokens, Claims

SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = "https://blog.example/"
SUBJECT, GENERATION = uuid4().hex, uuid4().hex


@pytest.fixture
def tokens() -> AccessTokens:
    return AccessTokens(SECRET, ISSUER, timedelta(minutes=15))


def claims(**changes: Any) -> dict[str, Any]:
    issued_at = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": SUBJECT,
        "iat": issued_at,
        "exp": issued_at + 900,
        "jti": uuid4().hex,
        "gen": GENERATION,
    } | changes
    return {name: value for name, value in good.items() if value is not ...}


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
    signed = f"{encode(header or {'alg': 'HS256', 'typ': 'at+jwt'})}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), digest))}"


def test_issued_token_is_read(tokens: AccessTokens) -> None:
    read = tokens.read(tokens.issue(SUBJECT, GENERATION))
    assert read is not None
    assert read == Claims(SUBJECT, read.token_id, GENERATION)
    assert tokens.read(forge(claims())) is not None


def test_issued_token_is_as_rfc_9068_has_it(tokens: AccessTokens) -> None:
    token = tokens.issue(SUBJECT, GENERATION)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "at+jwt"}
    inside = jwt.get_unverified_claims(token)
    assert set(inside) == {"iss", "aud", "sub", "iat", "exp", "jti", "gen"}
    assert inside["exp"] - inside["iat"] == 900
    assert tokens.read(tokens.issue(SUBJECT, GENERATION)) != tokens.read(token)


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "exp", "jti", "gen"])
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
        {"nbf": int(time.time()) + 3600},
        {"sub": 7},
        {"sub": ""},
        {"sub": "\0"},
        {"sub": f"{SUBJECT}\n"},
        {"sub": None},
        {"jti": 7},
        {"jti": "\0"},
        {"gen": None},
        {"gen": 0},
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
        {"alg": "HS256", "typ": "JWT"},
        {"alg": "HS256", "typ": "rt+jwt"},
        {"alg": "none", "typ": "at+jwt"},
        {"alg": "HS384", "typ": "at+jwt"},
        {"alg": "RS256", "typ": "at+jwt"},
        {"alg": None, "typ": "at+jwt"},
        {"typ": "at+jwt"},
        {"alg": "HS256", "typ": "at+jwt", "crit": ["exp"]},
        {"alg": "HS256", "typ": "at+jwt", "crit": []},
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
    assert tokens.read(forge(claims(), {"alg": "HS384", "typ": "at+jwt"}, digest=hashlib.sha384)) is None
    unsigned = f"{encode({'alg': 'none', 'typ': 'at+jwt'})}.{encode(claims())}."
    assert tokens.read(unsigned) is None
    assert tokens.read(unsigned + "x" * 43) is None


def test_changed_claims(tokens: AccessTokens) -> None:
    header, _, signature = tokens.issue(SUBJECT, GENERATION).split(".")
    assert tokens.read(f"{header}.{encode(claims())}.{signature}") is None


@pytest.mark.parametrize("tail", ["=", "==", "!!", "\n", " ", ".", ".x", "A", "\0", "é"])
def test_another_spelling(tokens: AccessTokens, tail: str) -> None:
    token = tokens.issue(SUBJECT, GENERATION)
    assert tokens.read(token + tail) is None
    assert tokens.read(tail + token) is None


def test_spare_bits_of_the_signature(tokens: AccessTokens) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = tokens.issue(SUBJECT, GENERATION)
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


def test_clocks_may_differ_a_little(tokens: AccessTokens) -> None:
    second = int(time.time())
    assert tokens.read(forge(claims(exp=second - 10))) is not None
    assert tokens.read(forge(claims(iat=second + 10))) is not None
