"""Ports that no two processes of any test run are given."""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LOWEST = 10_000
"""Below it are those that servers have by default."""

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""First and last of the ports from which Linux takes one for a connection that goes out."""

IANA_EPHEMERAL = "49152 65535"
"""The same where there is no such file, by RFC 6335."""


def reserved_port() -> int:
    """Return a port of 127.0.0.1 that is this process's until it ends, whether or not something listens there.

    A port that was bound and closed again may be anybody's by the time a server binds it. This one is locked by a file
    of its name, and is none that the kernel gives to connections that go out.
    """
    folder = Path(tempfile.gettempdir()) / f"blog_test_ports_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in _candidates():
        # Neither closed, which would unlock it, nor removed, which would let two processes lock two files of one name.
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if _is_free(port):
            return port
        os.close(lock)
    raise RuntimeError("no port is free")


@cache
def _candidates() -> Iterator[int]:
    """Those that this process has not tried yet."""
    first, last = map(int, (EPHEMERAL.read_text() if EPHEMERAL.exists() else IANA_EPHEMERAL).split())
    ports = [port for port in range(LOWEST, 2**16) if not first <= port <= last] or list(range(LOWEST, 2**16))
    random.Random().shuffle(ports)  # not as a test may have seeded the one that all share
    return iter(ports)


def _is_free(port: int) -> bool:
    """Whether nobody else, who knows nothing of our locks, listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
