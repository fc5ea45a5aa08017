"""Medians, ratios and the one table."""

from collections.abc import Iterator, Sequence
from math import floor, log10
from statistics import median
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks import contestants as of
from tests.benchmarks.load import Sample

WIDTH = 140
MOST_GROWTH = 1.5
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

    def failed(self) -> bool:
        return any(sample.failed for samples in self.samples.values() for sample in samples)

    def print(self, caption: str) -> None:
        console = Console(highlight=False)
        console.width = max(console.width, WIDTH)  # a pipe's 80 columns would cut the table
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
        for engine in self._engines():
            if len(self._sizes(engine)) > 1:
                console.print(self._growth(engine))

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
        return median(sample.rate for sample in self.samples.get(key, [Sample(0, 0, 0)]))

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
