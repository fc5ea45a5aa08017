"""Rooms: what reaches all who listen in a second, and how long it takes, beside a bare broadcast in the same run."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.benchmarks import contestants, databases
from tests.benchmarks.crowd import Errand
from tests.benchmarks.load import Sample, Server, environment, forget_peak, peak_memory, started
from tests.conftest import SECRET, make_settings
from tests.ports import reserved_port

BARE, ONE, TWO = "bare broadcast", "platform", "platform, said at another process"
BESIDE_SOCKETS = 100
"""Files that a process may have open beside its sockets."""


class Fanout(NamedTuple):
    """Who told how many."""

    engine: str
    sockets: int
    teller: str


class Samples(NamedTuple):
    """Of messages as fast as they are acknowledged, where that was measured, and of a few at random moments."""

    race: Sample | None
    pace: Sample


class Hall(NamedTuple):
    """Where a crowd meets: those who listen at one server, who speaks at the same one or another."""

    teller: str
    listen: Server
    speak: Server


def allow_files(sockets: int) -> bool:
    """Let this process and those that it starts have so many sockets, if the system does."""
    needed = sockets + BESIDE_SOCKETS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        return False
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return True


@contextmanager
def halls(engine: str, sockets: int, folder: Path) -> Iterator[list[Hall]]:
    """The floor beneath, and the platform, whose processes share an engine that can be shared."""
    with ExitStack() as stack:
        port = reserved_port()
        bare = stack.enter_context(started(["-m", "tests.benchmarks.broadcast", str(port)], {}, folder, port))
        url = stack.enter_context(databases.made(engine, folder))
        databases.fill_platform(engine, url, blogs=100, password_hash="")
        variables = {"BLOG_DATABASE_URL": url.render_as_string(hide_password=False), "BLOG_SECRET_KEY": SECRET}
        variables |= {"BLOG_BASE_URL": make_settings().issuer}
        variables |= {f"BLOG_{whose}_SOCKET_LIMIT": str(sockets) for whose in ("USER", "ADDRESS", "ROOM")}
        servers = []
        for _ in range(1 if engine == "sqlite" else 2):
            port = reserved_port()
            serve = started(["-m", "blog", "serve"], variables | {"BLOG_PORT": str(port)}, folder, port)
            servers.append(stack.enter_context(serve))
        found = [Hall(BARE, bare, bare), Hall(ONE, servers[0], servers[0])]
        yield found if len(servers) == 1 else [*found, Hall(TWO, servers[0], servers[1])]


def measure(hall: Hall, sockets: int, seconds: int) -> Samples:
    """What a crowd of so many finds in this hall."""
    race = None if hall.teller == TWO else _send(hall, sockets, seconds, paced=False)
    return Samples(race, _send(hall, sockets, seconds, paced=True))


def _send(hall: Hall, sockets: int, seconds: int, *, paced: bool) -> Sample:
    token = contestants.token()
    path = "/"
    if hall.teller != BARE:
        # A new one each time: who joins it has nothing to be told of what was said before.
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(hall.listen.url + "/room/", json={"name": "Crowd"}, headers=headers, trust_env=False)
        path = f"/room/{answer.raise_for_status().json()['id']}/live"
    errand = Errand(hall.listen.url + path, hall.speak.url + path, token, sockets, seconds, paced)
    forget_peak(hall.listen.pid)
    process = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.crowd", json.dumps(errand._asdict())],
        env=environment({}),
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        raise SystemExit(f"bench: a crowd of {sockets} ended with {process.returncode}: {hall.teller}")
    return Sample(**json.loads(process.stdout))._replace(memory=peak_memory(hall.listen.pid))
