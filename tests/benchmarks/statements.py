"""SQL statements a request, but for BEGIN, counted in a process of its own: the app is asked there without a server."""

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, event

from tests.benchmarks.load import Probe, environment


def count(app: str, variables: Mapping[str, str], probes: Sequence[Probe], token: str, folder: Path) -> list[int]:
    """The statements of each probe. Ends the run when an answer is not 2xx."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.statements", app, token],
        input=json.dumps(probes),
        env=environment(variables),
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        raise SystemExit(f"bench: {app} does not answer as it should")
    counts: list[int] = json.loads(process.stdout)
    return counts


async def _count(app: Any, probes: Sequence[Probe], token: str) -> list[int]:
    seen: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    counts = []
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")
    async with app.router.lifespan_context(app), client:
        for probe in probes:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": probe.content_type}
            # The first request of a kind opens a connection, which asks the database who it is.
            for _ in range(1 if probe.alone else 2):
                seen.clear()
                async with client.stream(probe.method, probe.path, content=probe.body, headers=headers) as answer:
                    if not answer.is_success:
                        raise SystemExit(f"bench: {probe.request} was answered with {answer.status_code}")
            counts.append(len(seen))
    return counts


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    asked = [Probe(*probe) for probe in json.load(sys.stdin)]
    print(json.dumps(asyncio.run(_count(getattr(importlib.import_module(module), name), asked, sys.argv[2]))))
