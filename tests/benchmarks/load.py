"""Servers, and their requests a second, p99 and memory: under wrk or, where an answer is a gigabyte, one by one."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template
from typing import NamedTuple

import httpx

ROOT = Path(__file__).parents[2]
START_TIMEOUT = 30
"""Seconds that a server may take to listen."""

TIMEOUT = 60
"""Seconds that an answer is waited for: what took longer is shown as if it took so long."""

PAUSE = 1.5
"""Seconds in which a server ends what wrk has cut off where that takes long: hashing passwords."""

SCRIPT = Template(
    """
wrk.method = $method
wrk.body = $body
wrk.headers["Authorization"] = $authorization
wrk.headers["Content-Type"] = $content_type
$choose
done = function(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
    local p50, p95, p99 = latency:percentile(50), latency:percentile(95), latency:percentile(99)
    print(string.format("[%d, %d, %f, %f, %f, %d]", summary.requests, summary.duration, p50, p95, p99, failed))
end
"""
)
CHOOSE = 'request = function() return wrk.format(nil, "/blog/" .. math.random({ids})) end'


class Probe(NamedTuple):
    """What a server is asked. With `ids`, wrk asks for random blogs up to that id instead of `path`."""

    request: str
    path: str
    method: str = "GET"
    body: str = ""
    content_type: str = "application/json"
    ids: int = 0
    connections: int | None = None
    alone: bool = False


class Sample(NamedTuple):
    """Requests a second, milliseconds, requests that went wrong, and bytes of memory at the most."""

    rate: float
    p50: float
    p95: float
    p99: float
    failed: int
    memory: int | None = None


class Server(NamedTuple):
    """A running server."""

    url: str
    pid: int
    log: Path


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """That of a process which runs elsewhere, where no `.env` lies."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": paths, **variables}


@contextmanager
def running(app: str, variables: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """One worker of uvicorn on a free port of loopback, ended at the end."""
    # Not conftest's: whoever imports that loses the settings that a process of ours was given.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    with started([*command, "--no-access-log", "--log-level", "warning"], variables, folder, port) as server:
        yield server


@contextmanager
def started(command: Sequence[str], variables: Mapping[str, str], folder: Path, port: int) -> Iterator[Server]:
    """What Python runs as a server at this port of loopback, ended at the end."""
    log = folder / f"{port}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *command], env=environment(variables), cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait(process, port, log)
        yield Server(f"http://127.0.0.1:{port}", process.pid, log)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"bench: a server did not start\n{log.read_text()}")


def measure(server: Server, probes: Sequence[Probe], token: str, *, seconds: int, connections: int) -> list[Sample]:
    """What the server makes of these probes, all asked at the same time."""
    forget_peak(server.pid)
    if probes[0].alone:
        samples = [_ask_alone(server, probes[0], token, seconds)]
    else:
        started = [_start_wrk(server, probe, token, seconds, probe.connections or connections) for probe in probes]
        samples = [_read_wrk(process) for process in started]
    if len(probes) > 1:
        time.sleep(PAUSE)
    return [sample._replace(memory=peak_memory(server.pid)) for sample in samples]


def _start_wrk(server: Server, probe: Probe, token: str, seconds: int, connections: int) -> "subprocess.Popen[str]":
    # JSON's strings are Lua's too, as long as they are ASCII.
    script = SCRIPT.substitute(
        method=json.dumps(probe.method),
        body=json.dumps(probe.body),
        authorization=json.dumps(f"Bearer {token}"),
        content_type=json.dumps(probe.content_type),
        choose=CHOOSE.format(ids=probe.ids) if probe.ids else "",
    )
    file = server.log.with_name(f"{probe.method}.lua")
    file.write_text(script)
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT}s", "-s", str(file)]
    return subprocess.Popen(["wrk", *options, server.url + probe.path], stdout=subprocess.PIPE, text=True)


def _read_wrk(process: "subprocess.Popen[str]") -> Sample:
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"bench: wrk ended with {process.returncode}\n{output}")
    requests, microseconds, p50, p95, p99, failed = json.loads(output.splitlines()[-1])
    return Sample(requests / microseconds * 1e6, p50 / 1e3, p95 / 1e3, p99 / 1e3, failed)


def _ask_alone(server: Server, probe: Probe, token: str, seconds: int) -> Sample:
    durations: list[float] = []
    failed = 0
    with httpx.Client(timeout=TIMEOUT, trust_env=False, headers={"Authorization": f"Bearer {token}"}) as client:
        while sum(durations) < seconds and not failed:
            began = time.perf_counter()
            failed += not _answers(client, server.url + probe.path, began + TIMEOUT)
            durations.append(time.perf_counter() - began)
    durations.sort()
    p50, p95, p99 = (durations[int(len(durations) * part)] * 1e3 for part in (0.5, 0.95, 0.99))
    return Sample(len(durations) / sum(durations), p50, p95, p99, failed)


def _answers(client: httpx.Client, url: str, deadline: float) -> bool:
    """Whether the answer is 2xx. It is not kept, nor waited for beyond the deadline."""
    try:
        with client.stream("GET", url) as answer:
            for _ in answer.iter_raw():
                if time.perf_counter() > deadline:
                    break
            return answer.is_success
    except httpx.TimeoutException:
        return True  # slow is not wrong
    except httpx.HTTPError:
        return False


def forget_peak(pid: int) -> None:
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): makes the present the peak


def peak_memory(pid: int) -> int | None:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), None)
    return None
