"""Seals: what only the server together with a client can read again."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Seal:
    """What is closed under words that nobody stores, some of which only a client knows.

    The first of the secrets closes, each opens. `names` say under what it can be stored: one for each secret, the
    first that of what is closed from now on.
    """

    def __init__(self, secrets: Sequence[str], words: Sequence[str]) -> None:
        said = b"".join(b"%d:%b" % (len(word.encode()), word.encode()) for word in words)
        self.names = tuple(_derive(secret, b"name", said).hex() for secret in secrets)
        self._fernet = MultiFernet([Fernet(urlsafe_b64encode(_derive(secret, b"seal", said))) for secret in secrets])

    def close(self, content: bytes) -> str:
        """The content, sealed."""
        return self._fernet.encrypt(content).decode()

    def open(self, sealed: str) -> bytes | None:
        """The content, or None for what was not sealed under these words and secrets."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            return None


class Seals:
    """Makes seals with the server's secrets."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets

    def of(self, *words: str) -> Seal:
        """The seal of these words."""
        return Seal(self._secrets, words)


def _derive(secret: str, purpose: bytes, said: bytes) -> bytes:
    # HMAC as a key derivation, one key a purpose: NIST SP 800-108, section 4.1, with a single block.
    return hmac.new(secret.encode(), b"blog answer\0" + purpose + b"\0" + said, hashlib.sha256).digest()
