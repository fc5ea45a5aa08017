"""What the platform is held to and what was seen of it, and the table of it that a run ends with.

This is a plugin of pytest's that `tests/conftest.py` names: of several processes the one that prints collects no test,
and so does not read the conftest.py of this folder.
"""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from tests.endurance.load import Answers

PROPERTY = "figure"


class Figures:
    """Those of one test. One that is missed fails it once it is through.

    Without a tolerance, which is how many times as long as demanded things may take, times are only shown.
    """

    def __init__(self, item: pytest.Item, tolerance: float | None) -> None:
        self._item = item
        self._tolerance = tolerance
        self.missed: list[str] = []

    def at_most(self, what: str, demanded: float, seen: float, *, slack: float = 0.0) -> None:
        """Seconds; `math.inf` if it never happened.

        `slack` is what the machine may add without the platform being at fault; the table shows it.
        """
        if seen <= demanded:
            verdict = ""
        elif isinf(seen):
            verdict = "MISSED"
        elif self._tolerance is None:
            verdict = "too slow (asserted only with --full)"
        else:
            verdict = "within slack" if seen <= (demanded + slack) * self._tolerance else "MISSED"
        self._note(what, f"≤ {demanded:g} s", f"{seen:.3g} s", verdict)

    def at_least(self, what: str, demanded: int, seen: int) -> None:
        """How many there were: a test in which nothing happened proves nothing."""
        self._note(what, f"≥ {demanded}", str(seen), "" if seen >= demanded else "MISSED")

    def no_more_than(self, what: str, demanded: int, seen: int, unit: str) -> None:
        """Of something that takes no longer on a busy machine, and so has no tolerance."""
        self._note(what, f"≤ {demanded} {unit}", f"{seen} {unit}", "" if seen <= demanded else "MISSED")

    def equal(self, what: str, demanded: object, seen: object) -> None:
        self._note(what, str(demanded), str(seen), "" if seen == demanded else "MISSED")

    def statuses(self, what: str, demanded: set[int], *seen: Answers) -> None:
        """Those of many requests at once.

        On a busy machine a request may time out while it waits; a proper 503 is then accepted.
        """
        statuses = {status for answers in seen for status in answers.statuses}
        if self._tolerance is None or self._tolerance > 1:
            out_of_order = sum(answers.with_status(503).out_of_order for answers in seen)
            self.equal(f"{what}, 503 without Retry-After or problem", 0, out_of_order)
            statuses -= {503} - demanded
        self.equal(what, demanded, statuses)

    def seen(self, what: str, seen: object) -> None:
        """Nothing is demanded of this one."""
        self._note(what, "", str(seen), "")

    def _note(self, what: str, demanded: str, seen: str, verdict: str) -> None:
        self._item.user_properties.append((PROPERTY, [what, demanded, seen, verdict]))  # which go with its report
        if verdict == "MISSED":
            self.missed.append(f"{what}: demanded {demanded}, seen {seen}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tables: dict[str, list[list[str]]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "call":
            rows = [value for name, value in report.user_properties if name == PROPERTY]
            if rows:
                tables[report.nodeid.rpartition("/")[2]] = rows
    if not tables:
        return
    terminalreporter.section("demanded and seen")
    widths = [max(len(row[column]) for rows in tables.values() for row in rows) for column in (0, 1, 2)]
    for test, rows in sorted(tables.items()):
        terminalreporter.write_line(test, bold=True)
        for row in rows:
            cells = "  ".join(text.ljust(width) for text, width in zip(row[:3], widths, strict=True))
            terminalreporter.write_line(f"  {cells}  {row[3]}".rstrip(), red=row[3] == "MISSED")
