"""Medians, ratios and the tables."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import floor, log10
from statistics import median
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks import contestants as of
from tests.benchmarks.crowd import POSTS_A_SECOND, SPEAKERS
from tests.benchmarks.fanout import BARE, Fanout, Samples
from tests.benchmarks.freshness import CHANGES, Freshness
from tests.benchmarks.load import Sample

WIDTH = 140
MOST_GROWTH = 1.5
MOST_SEARCH = 5
RIVALS = {of.ONE: of.ONE, of.FIRST_PAGE: of.ALL, of.LAST_PAGE: of.ALL, of.WRITE: of.WRITE}
"""What the tutorial's shape is asked for the same purpose."""


class Key(NamedTuple):
    """What was measured; `blogs` is 0 where no database is asked."""

    engine: str
    blogs: int
    request: str
    contestant: str


class Results:
    """All samples, the SQL statements of each request, and the drivers without which the tutorial was left out."""

    def __init__(self) -> None:
        self.samples: dict[Key, list[Sample]] = {}
        self.statements: dict[Key, int] = {}
        self.missing_drivers: dict[str, str] = {}
        self.freshness: dict[tuple[str, int], Freshness] = {}
        self.fanouts: dict[Fanout, list[Samples]] = {}

    def failed(self) -> bool:
        asked = [sample for samples in self.samples.values() for sample in samples]
        told = [sample for samples in self.fanouts.values() for pair in samples for sample in pair if sample]
        return any(sample.failed for sample in [*asked, *told])

    def print(self, caption: str) -> None:
        console = Console(highlight=False)
        console.width = max(console.width, WIDTH)  # a pipe's 80 columns would cut the table
        if self.samples:
            self._print_requests(console, caption)
        if self.fanouts:
            self._print_fanouts(console)

    def _print_requests(self, console: Console, caption: str) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("engine", "blogs", "request", "of"):
            table.add_column(name, justify="right" if name == "blogs" else "left", no_wrap=True)
        for name in ("requests/s", "p99 ms", "× tutorial", "× FastAPI", "peak MB", "SQL"):
            table.add_column(name, justify="right", no_wrap=True)
        for engine in self._engines():
            for row in self._rows(engine):
                table.add_row(*row)
            table.add_section()
        console.print(table)
        console.print(caption)
        self._print_searches(console)
        self._print_pages(console)
        for engine in self._engines():
            if len(self._sizes(engine)) > 1:
                console.print(self._growth(engine))

    def _print_searches(self, console: Console) -> None:
        """What a search takes beside one blog of the same run."""
        table = Table(box=box.SIMPLE_HEAD, title="Searching: GET /blog/?q=…&limit=20, beside GET /blog/{id}")
        for name in ("engine", "blogs", "searched for"):
            table.add_column(name, justify="right" if name == "blogs" else "left", no_wrap=True)
        for name in ("p50 ms", "p95 ms", "p95 of one blog", "×"):
            table.add_column(name, justify="right", no_wrap=True)
        for key in self.samples:
            if key.request in of.FOUND:
                p50, p95 = (median(getattr(sample, name) for sample in self.samples[key]) for name in ("p50", "p95"))
                one = median(
                    sample.p95 for sample in self.samples.get(key._replace(request=of.ONE), [Sample(0, 0, 0, 0, 0)])
                )
                kind = key.request.removeprefix("?q= ")
                figures = (_number(p50), _number(p95), _number(one), _ratio(p95, one))
                table.add_row(key.engine, f"{key.blogs:,}", kind, *figures)
        console.print(table)
        console.print(f"At most {MOST_SEARCH} times one blog's p95 is wanted on PostgreSQL and SQLite.")

    def _print_pages(self, console: Console) -> None:
        """What pages take when they are kept, beside as many constant bytes, and when each is made anew."""
        table = Table(box=box.SIMPLE_HEAD, title="Pages")
        for name in ("engine", "blogs", "page"):
            table.add_column(name, justify="right" if name == "blogs" else "left", no_wrap=True)
        for name in ("kept, req/s", "× Starlette", "anew, p50 ms", "× of the fewest", "peak MB"):
            table.add_column(name, justify="right", no_wrap=True)
        for engine, page in product(self._engines(), of.PAGES):
            sizes = self._sizes(engine)
            for blogs in sizes:
                kept = Key(engine, blogs, of.KEPT.format(page), of.PLATFORM)
                anew = kept._replace(request=of.ANEW.format(page))
                cost, least = (self._p50(key) for key in (anew, anew._replace(blogs=sizes[0])))
                peaks = [sample.memory for sample in self.samples.get(anew, ()) if sample.memory is not None]
                table.add_row(
                    engine,
                    f"{blogs:,}",
                    page,
                    _number(self._rate(kept)),
                    _ratio(self._rate(kept), self._rate(kept._replace(contestant=of.STARLETTE))),
                    _number(cost),
                    _ratio(cost, least),
                    _number(max(peaks) / 1e6) if peaks else "n/a",
                )
        console.print(table)
        console.print(
            f"Kept, half of Starlette's rate is wanted, and anew at most {MOST_GROWTH} times the fewest's time."
        )
        for (engine, blogs), fresh in self.freshness.items():
            console.print(
                f"{engine}, {blogs:,} blogs: of {CHANGES} changes of a post its page shows each after "
                f"{_number(fresh.own)} ms at most where it was made, {_number(fresh.other)} ms at another worker "
                "(the next request and 1,000 ms are wanted)"
            )

    def _p50(self, key: Key) -> float:
        return median(sample.p50 for sample in self.samples.get(key, [Sample(0, 0, 0, 0, 0)]))

    def _print_fanouts(self, console: Console) -> None:
        """What reaches all in a room, beside what a bare broadcast reaches in the same run."""
        table = Table(box=box.SIMPLE_HEAD, title="Rooms: a message to everybody")
        for name in ("engine", "sockets", "by"):
            table.add_column(name, justify="right" if name == "sockets" else "left", no_wrap=True)
        for name in ("delivered/s", "× bare", "p50 ms", "p99 ms", "peak MB"):
            table.add_column(name, justify="right", no_wrap=True)
        for key, samples in self.fanouts.items():
            rate, bare = self._delivered(key), self._delivered(key._replace(teller=BARE))
            failed = sum(sample.failed for pair in samples for sample in pair if sample)
            p50, p99 = (median(getattr(pair.pace, name) for pair in samples) for name in ("p50", "p99"))
            peaks = [sample.memory for pair in samples for sample in pair if sample and sample.memory is not None]
            table.add_row(
                key.engine,
                f"{key.sockets:,}",
                key.teller,
                (_number(rate) if rate else "—") + (f" ({failed} failed)" if failed else ""),
                _ratio(rate, bare) if key.teller != BARE else "—",
                _number(p50),
                _number(p99),
                _number(max(peaks) / 1e6) if peaks else "n/a",
            )
        console.print(table)
        console.print(
            f"Delivered to all sockets together while {SPEAKERS} of them post as fast as they are acknowledged; "
            f"milliseconds from post to delivery at {POSTS_A_SECOND} messages a second, at random moments."
        )

    def _delivered(self, key: Fanout) -> float:
        """The median, or 0 for what was not measured."""
        return median([pair.race.rate for pair in self.fanouts.get(key, ()) if pair.race] or [0])

    def _engines(self) -> list[str]:
        return list(dict.fromkeys(key.engine for key in self.samples))

    def _sizes(self, engine: str) -> list[int]:
        return sorted({key.blogs for key in self.samples if key.engine == engine and key.blogs})

    def _rows(self, engine: str) -> Iterator[Sequence[str]]:
        keys = [key for key in self.samples if key.engine == engine]
        if engine in self.missing_drivers:
            yield engine, "", f"left out: no {self.missing_drivers[engine]}", of.TUTORIAL
        else:
            keys += [Key(engine, n, of.ALL, of.TUTORIAL) for n in self._sizes(engine) if n > of.MOST_LISTED]
        for key in sorted(keys, key=lambda key: (key.blogs, of.REQUESTS.index(key.request))):
            yield engine, f"{key.blogs:,}" if key.blogs else "", key.request, key.contestant, *self._figures(key)

    def _figures(self, key: Key) -> Sequence[str]:
        samples = self.samples.get(key)
        if samples is None:
            return "—" * 6
        rate, failed = self._rate(key), sum(sample.failed for sample in samples)
        rival = self._rate(key._replace(request=RIVALS.get(key.request, ""), contestant=of.TUTORIAL))
        floor = self._rate(Key(key.engine, 0, of.CONSTANT, of.FASTAPI))
        peaks = [sample.memory for sample in samples if sample.memory is not None]
        return (
            _number(rate) + (f" ({failed} failed)" if failed else ""),
            _number(median(sample.p99 for sample in samples)),
            _ratio(rate, rival) if key.contestant == of.PLATFORM else "—",
            _ratio(rate, floor),
            _number(max(peaks) / 1e6) if peaks else "n/a",
            str(self.statements.get(key, 0)),
        )

    def _rate(self, key: Key) -> float:
        """The median, or 0 for what was not measured."""
        return median(sample.rate for sample in self.samples.get(key, [Sample(0, 0, 0, 0, 0)]))

    def _growth(self, engine: str) -> str:
        sizes = self._sizes(engine)
        smallest, largest = sizes[0], sizes[-1]
        first, last = (
            _ratio(*(self._rate(Key(engine, blogs, request, of.PLATFORM)) for blogs in (smallest, largest)))
            for request in (of.FIRST_PAGE, of.LAST_PAGE)
        )
        return (
            f"{engine}: at {largest:,} blogs the first page costs {first} of what it costs at {smallest:,}, "
            f"the last page {last} (at most {MOST_GROWTH} is wanted)"
        )


def _number(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}" if value else "0"


def _ratio(value: float, other: float) -> str:
    return _number(value / other) if value and other else "—"
