"""How long a kept page goes on showing what was there before a change."""

import time
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.benchmarks.contestants import Contestant
from tests.benchmarks.databases import creators
from tests.benchmarks.load import Server, running

CHANGES = 10
TIMEOUT = 10
"""Seconds after which a page that does not change has failed."""


class Freshness(NamedTuple):
    """Milliseconds from a change's answer to the first page with it, in the worst case of `CHANGES`."""

    own: float
    other: float


def measure(platform: Contestant, folder: Path) -> Freshness:
    """Change a post through one worker, and read it there and at another one of the same database."""
    blog = f"/blog/{creators(platform.blogs)}"  # one of the first creator's, whose token we have
    headers = {"Authorization": f"Bearer {platform.token()}"}
    own, other = 0.0, 0.0
    with running(platform.app, platform.variables, folder) as second, httpx.Client(trust_env=False) as client:
        slug = client.get(platform.server.url + blog, headers=headers).raise_for_status().json()["slug"]
        path = f"/posts/{slug}"
        for number in range(CHANGES):
            for server in (platform.server, second):
                client.get(server.url + path).raise_for_status()
            title = f"Changed for the {number}. time"
            client.patch(platform.server.url + blog, headers=headers, json={"title": title}).raise_for_status()
            changed = time.perf_counter()
            own = max(own, _shown(client, platform.server, path, title) - changed)
            other = max(other, _shown(client, second, path, title) - changed)
    return Freshness(own * 1e3, other * 1e3)


def _shown(client: httpx.Client, server: Server, path: str, title: str) -> float:
    """When the page is there with this title."""
    due = time.perf_counter() + TIMEOUT
    while title not in client.get(server.url + path).raise_for_status().text:
        if time.perf_counter() > due:
            raise SystemExit(f"bench: {path} was not renewed within {TIMEOUT} s")
        time.sleep(0.005)
    return time.perf_counter()
