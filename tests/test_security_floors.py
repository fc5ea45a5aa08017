"""No package is older than the mending of what is known to be wrong with it."""

import json
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parent.parent

# The range that is safe, and why. What is not in the Pipfile comes with something that is.
SAFE = {
    "anyio": ">=4.4.0",  # two threads that start at once could share one event loop's state
    "asyncmy": ">=0.2.12",  # CVE-2025-65896: SQL from the keys of a dict; 0.2.11 was said to mend it and does not
    "asyncpg": ">=0.21.0",  # CVE-2020-17446: a hostile server could run code in the client
    "bcrypt": ">=4.0.1,<4.1",  # from 4.1 on passlib 1.7.4 logs a traceback, and from 5 on it fails on every hash
    "cryptography": ">=50.0.0",  # CVE-2026-69247, and OpenSSL in its wheels, mended with each of its releases
    "dnspython": ">=2.6.1",  # CVE-2023-29483: a forged answer stops a resolution
    "ecdsa": ">=0.19.2",  # CVE-2026-33936: malformed DER; CVE-2024-23342 stays, and HS256 does not come near it
    "email-validator": ">=2.4.0",  # whose verdicts the tests of addresses hold
    "fastapi": ">=0.165",  # commits before it answers (0.121), and reads no JSON from a form of another site
    "h11": ">=0.16.0",  # CVE-2025-43859: the end of a chunk was not looked at, so one request could hide in another
    "httptools": ">=0.9",  # whose llhttp refuses what test_protocol.py sends
    "idna": ">=3.15",  # CVE-2026-45409 and CVE-2024-3651: a long name took quadratic time
    "mako": ">=1.3.12",  # CVE-2026-41205 and CVE-2026-44307: templates from outside their folder
    "markdown-it-py": ">=2.2.0",  # CVE-2023-26302 and CVE-2023-26303: bytes that crash it
    "passlib": ">=1.7.4,<1.8",  # the one whose hashes and errors passwords.py knows
    "pyasn1": ">=0.6.3",  # CVE-2026-30922 and CVE-2026-23490: memory and recursion without bound
    "pydantic": ">=2.4.0",  # CVE-2024-3772: an address took quadratic time
    "pygments": ">=2.20.0",  # CVE-2026-4539: a lexer that takes quadratic time
    "python-dotenv": ">=1.2.2",  # CVE-2026-28684: follows a symbolic link where it writes
    "python-jose": ">=3.5.0",  # CVE-2024-33663 and CVE-2024-33664 are mended in 3.4.0, which keeps pyasn1 below 0.5
    "python-multipart": ">=0.0.31",  # CVE-2026-53538 to 53540, CVE-2026-42561, CVE-2026-40347 and earlier ones
    "rsa": ">=4.7",  # CVE-2020-25658: the time of a decryption told of its key
    "sqlmodel": ">=0.0.45",  # keeps the zone of a time on every engine
    "starlette": ">=1.3.1",  # CVE-2026-54283: forms without their limits; CVE-2026-54282 and 48710: Host in the path
    "uvicorn": ">=0.31.0",  # knows networks of trusted proxies; before, a proxy's whole network was nobody or everybody
}
LOCK: dict[str, Any] = json.loads((ROOT / "Pipfile.lock").read_text())["default"]
PIPFILE: dict[str, Any] = tomllib.loads((ROOT / "Pipfile").read_text())["packages"]


def bounds(specifiers: SpecifierSet) -> tuple[Version, Version | None]:
    """The lowest version that is let in, and the first above that is not."""
    by_operator = {specifier.operator: Version(specifier.version) for specifier in specifiers}
    assert by_operator.keys() <= {">=", "<"}, "a range is told by its two ends"
    return by_operator.get(">=", Version("0")), by_operator.get("<")


@pytest.mark.parametrize("package", SAFE)
def test_installed_and_locked_are_safe(package: str) -> None:
    locked = LOCK[package]["version"].removeprefix("==")
    assert version(package) in SpecifierSet(SAFE[package])
    assert locked in SpecifierSet(SAFE[package])


@pytest.mark.parametrize("package", sorted(SAFE.keys() & PIPFILE.keys()))
def test_the_next_lock_cannot_be_unsafe(package: str) -> None:
    asked = PIPFILE[package]
    lowest, above = bounds(SpecifierSet(asked if isinstance(asked, str) else asked["version"]))
    lowest_safe, above_safe = bounds(SpecifierSet(SAFE[package]))
    assert lowest >= lowest_safe
    if above_safe is not None:
        assert above is not None
        assert above <= above_safe


def test_what_reads_strangers_bytes_is_judged() -> None:
    """Whatever the Pipfile asks for that parses a request, a token, an address or a row."""
    readers = {"fastapi", "starlette", "uvicorn", "httptools", "python-multipart", "python-jose", "email-validator"}
    readers |= {"passlib", "bcrypt", "asyncpg", "asyncmy"}
    assert readers <= SAFE.keys()
    assert readers <= PIPFILE.keys()
