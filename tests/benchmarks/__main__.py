"""`python -m tests.benchmarks`: the options, and the order in which things are measured."""

import argparse
import asyncio
import logging
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from blog.security.passwords import PasswordHasher
from blog.settings import Settings
from tests.benchmarks import contestants, fanout, freshness, load
from tests.benchmarks.bare import BODY
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.databases import creators
from tests.benchmarks.fanout import Fanout
from tests.benchmarks.load import Probe
from tests.benchmarks.report import Key, Results
from tests.benchmarks.statements import count
from tests.conftest import ENGINES
from tests.factories import PASSWORD

PARTS = ["requests", "rooms"]
NO_WRK = "bench: wrk is not installed. Install it with: apt install wrk, dnf install wrk or brew install wrk"
NO_FILES = "bench: a process may not have so many sockets here. Allow more files (ulimit -n) or measure fewer --sockets"


def main() -> int:
    options = read_options()
    if "requests" in options.only and shutil.which("wrk") is None:
        log(NO_WRK)
        return 1
    if "rooms" in options.only and not fanout.allow_files(max(options.sockets)):
        log(NO_FILES)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))  # so that servers and databases go too
    logging.getLogger("asyncmy").setLevel(logging.ERROR)  # MariaDB warns at each migration that keys have no names
    results = Results()
    try:
        for engine in options.engines:
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blog_bench_")))
                if "requests" in options.only:
                    with ExitStack() as servers:
                        Bench(engine, options, results, folder).run(servers)
                if "rooms" in options.only:
                    measure_rooms(engine, options, results, folder)
    finally:  # what was measured before something went wrong is shown all the same
        results.print(caption(options))
    return 1 if results.failed() else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench", description="Measure the platform beside FastAPI's tutorial.")
    parser.add_argument("--blogs", type=sizes, default=[100, 10_000, 1_000_000], help="sizes, with commas between")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--connections", type=int, default=16, help="that ask at once")
    parser.add_argument("--sockets", type=numbers, default=[100, 1_000], help="in a room, with commas between")
    parser.add_argument("--only", choices=PARTS, nargs=1, default=PARTS, help="measure only this")
    parser.add_argument("--engines", type=engines, default=ENGINES, help=f"default: {','.join(ENGINES)}")
    return parser.parse_args()


def sizes(text: str) -> list[int]:
    found = numbers(text)
    if found[0] < 100:
        raise argparse.ArgumentTypeError("100 is the least")
    return found


def numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def engines(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(ENGINES)}: set BLOG_TEST_…_URL")
    return names


def caption(options: argparse.Namespace) -> str:
    authors = ", ".join(f"{creators(blogs):,} for {blogs:,}" for blogs in options.blogs)
    return (
        f"Medians of {options.runs} runs of {options.seconds} s, {options.connections} connections, one worker each; "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, which wrk shares. Blogs of some {len(BODY):,} "
        f"characters, read by random id; creators: {authors}.\n× compares requests a second. A page is compared with "
        "the tutorial's list, which is of all blogs with all their creators' blogs inside, asked one by one. "
        "Peak is the server's resident memory while it was measured."
    )


def measure_rooms(engine: str, options: argparse.Namespace, results: Results, folder: Path) -> None:
    with fanout.halls(engine, max(options.sockets), folder) as halls:
        for number in range(options.runs):
            log(f"{engine}: rooms, run {number + 1} of {options.runs}")
            for sockets in options.sockets:
                for hall in halls:
                    samples = fanout.measure(hall, sockets, options.seconds)
                    results.fanouts.setdefault(Fanout(engine, sockets, hall.teller), []).append(samples)


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Bench:
    """All measurements on one engine. All sizes are there at once, so that they take turns too."""

    def __init__(self, engine: str, options: argparse.Namespace, results: Results, folder: Path) -> None:
        self._engine = engine
        self._options = options
        self._results = results
        self._folder = folder

    def run(self, stack: ExitStack) -> None:
        started = self._start(stack)
        # Whatever reads comes first: what is written makes a hundred blogs more.
        for kind in ("reads", "writes"):
            asked = [(contestant, probes) for contestant in started for probes in getattr(contestant, kind)]
            for contestant, probes in asked:
                self._count(contestant, probes)
            # One request of all contestants, then the next request: a noisy minute hits all alike.
            asked.sort(key=lambda pair: contestants.REQUESTS.index(pair[1][0].request))
            for number in range(self._options.runs):
                log(f"{self._engine}: {kind}, run {number + 1} of {self._options.runs}")
                for contestant, probes in asked:
                    self._measure(contestant, probes)
        for contestant in started:
            if contestant.name == contestants.PLATFORM:
                found = freshness.measure(contestant, self._folder)
                self._results.freshness[self._engine, contestant.blogs] = found

    def _start(self, stack: ExitStack) -> list[Contestant]:
        rounds = Settings.model_fields["password_rounds"].default
        password_hash = asyncio.run(PasswordHasher(rounds, 8).hash(PASSWORD))
        floors = {contestants.BARE: "tests.benchmarks.bare:app", contestants.FASTAPI: "tests.benchmarks.constant:app"}
        started = [stack.enter_context(contestants.floor(name, app, self._folder)) for name, app in floors.items()]
        driver = contestants.missing_driver(self._engine)
        if driver is not None:
            self._results.missing_drivers[self._engine] = driver
        for blogs in self._options.blogs:
            began = time.monotonic()
            if driver is None:
                started.append(stack.enter_context(contestants.tutorial_shape(self._engine, blogs, self._folder)))
            made = contestants.platform(self._engine, blogs, password_hash, self._folder)
            started.append(stack.enter_context(made))
            started.append(stack.enter_context(contestants.constant_pages(started[-1], self._folder)))
            log(f"{self._engine}: {blogs:,} blogs for each, filled in {time.monotonic() - began:.0f} s")
        return started

    def _key(self, contestant: Contestant, probe: Probe) -> Key:
        return Key(self._engine, contestant.blogs, probe.request, contestant.name)

    def _count(self, contestant: Contestant, probes: Sequence[Probe]) -> None:
        if contestant.variables:
            counts = count(contestant.app, contestant.variables, probes, contestant.token(), self._folder)
            for probe, number in zip(probes, counts, strict=True):
                self._results.statements[self._key(contestant, probe)] = number

    def _measure(self, contestant: Contestant, probes: Sequence[Probe]) -> None:
        options = {"seconds": self._options.seconds, "connections": self._options.connections}
        samples = load.measure(contestant.server, probes, contestant.token(), **options)
        for probe, sample in zip(probes, samples, strict=True):
            key = self._key(contestant, probe)
            self._results.samples.setdefault(key, []).append(sample)
            if sample.failed:
                last = contestant.server.log.read_text(errors="replace").strip().rpartition("\n")[2]
                log(f"bench: {sample.failed} requests failed: {', '.join(map(str, key))}: {last}")


if __name__ == "__main__":
    sys.exit(main())
