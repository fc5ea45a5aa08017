"""How often, how long and how many: a promise is proven with small numbers too, and in minutes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Numbers:
    is_full: bool
    """Whether bounds of time are asserted: on a machine that does nothing else."""

    cycles: int
    """How often a server is killed while clients write."""

    outage: float
    """Seconds for which a database is away or locked: longer than the platform lets anybody wait for one."""

    afterwards: float
    """Seconds in which nothing may be refused late, once a database is back."""

    full_disk: float
    """Seconds for which the disk is full, once writes are refused."""

    writing: float
    """Seconds in which clients write while others follow and page."""

    kept: int
    """Blogs that stay as they are meanwhile."""

    bad_connections: int
    unread: int
    """Connections that ask and do not read."""

    sockets: int
    """Guests in one room."""

    messages: int
    """Messages in a room whose guests are cut off."""

    room_kills: int
    """How often a platform is killed while guests talk."""

    attack: float
    """Seconds for which passwords are guessed before the owner logs in."""

    attacked_rounds: int
    """Of a password that is guessed; low enough that the queue does not time out on a slow machine."""

    slow_rounds: int
    """Of a password that is under way when the platform is told to end."""

    examples: int
    """Most examples of an operation that are made up at random."""

    boundaries: bool
    """Whether each operation is asked for all that stands at the bounds of its schema, too."""


SMALL = Numbers(
    is_full=False,
    cycles=3,
    outage=6,
    afterwards=0,
    full_disk=1,
    writing=4,
    kept=40,
    bad_connections=30,
    unread=12,
    sockets=60,
    messages=300,
    room_kills=2,
    attack=1,
    attacked_rounds=9,
    slow_rounds=9,
    examples=4,
    boundaries=False,
)
FULL = Numbers(
    is_full=True,
    cycles=25,
    outage=10,
    afterwards=4,
    full_disk=3,
    writing=30,
    kept=150,
    bad_connections=200,
    unread=40,
    sockets=300,
    messages=2_000,
    room_kills=10,
    attack=5,
    attacked_rounds=12,
    slow_rounds=13,
    examples=100,
    boundaries=True,
)
