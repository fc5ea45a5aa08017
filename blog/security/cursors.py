"""Cursors: where a list goes on, opaque and signed."""

import hashlib
from collections.abc import Sequence
from typing import Any

from itsdangerous import BadData, URLSafeSerializer


class Cursors:
    """Signs the position at which a page of a list ended.

    A cursor holds for one query only: `query` names the list with its filters and its order,
    and another query refuses the cursor. The first of the secrets signs, each verifies.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        # The serializer signs with the last.
        self._serializer = URLSafeSerializer(
            secrets[::-1], salt="cursor", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def write(self, query: str, position: tuple[Any, ...]) -> str:
        """The cursor of a position: numbers and strings."""
        return self._serializer.dumps([_digest(query), *position])

    def read(self, query: str, cursor: str) -> tuple[Any, ...] | None:
        """The position, or None for a cursor that was not made for this query."""
        try:
            made_for, *position = self._serializer.loads(cursor)
        except BadData:
            return None
        return tuple(position) if made_for == _digest(query) else None


def _digest(query: str) -> str:
    return hashlib.sha256(query.encode(errors="surrogatepass")).hexdigest()[:32]
