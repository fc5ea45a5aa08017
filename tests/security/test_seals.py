"""Seals: what is closed under some words opens under no others, however they are put together."""

import pytest

from blog.security.seals import Seals

SEALS = Seals(["0123456789abcdef0123456789abcdef"])
WORDS = ("7", "POST", "/blog/", "key")


def test_round_trip() -> None:
    assert SEALS.of(*WORDS).open(SEALS.of(*WORDS).close(b"said")) == b"said"


@pytest.mark.parametrize(
    "words",
    [
        ("7", "POST", "/blog", "/key"),
        ("7P", "OST", "/blog/", "key"),
        ("7", "POST", "/blog/key"),
        ("7", "POST", "/blog/", "key", ""),
        ("POST", "7", "/blog/", "key"),
    ],
)
def test_other_words(words: tuple[str, ...]) -> None:
    sealed, other = SEALS.of(*WORDS), SEALS.of(*words)
    assert other.names != sealed.names
    assert other.open(sealed.close(b"said")) is None
