"""What became of a text: unified diffs."""

from difflib import SequenceMatcher
from typing import Any

import anyio
import anyio.to_thread
from rapidfuzz.distance import LCSseq

from blog.turns import turn_at

QUEUE_TIMEOUT = 2.0
"""Seconds that a comparison waits for those before it."""

CONTEXT = 3
"""Lines around a change that are shown, as diff(1) does."""

MAX_CELLS = 4 * 10**8
"""Lines of one text by those of the other, but for those with which both begin and end: 50 MB and some tenths of a
second of work. Beyond it one is shown to replace the other. difflib's own search for what two texts have in common
has no such bound."""

Opcode = tuple[str, int, int, int, int]


class Differ:
    """Compares without blocking the event loop, one pair at a time, so that memory has a bound."""

    def __init__(self) -> None:
        self._comparing = anyio.CapacityLimiter(1)

    async def diff(self, old: str, new: str, old_name: str, new_name: str) -> str:
        """What `unified_diff` makes of them. Raises Busy when too many wait."""
        async with turn_at(self._comparing, patience=QUEUE_TIMEOUT):
            return await anyio.to_thread.run_sync(unified_diff, old, new, old_name, new_name)


def unified_diff(old: str, new: str, old_name: str, new_name: str) -> str:
    """The lines that have to go and to come to make `new` of `old`; empty when they are the same."""
    before, after = old.split("\n"), new.split("\n")
    if before == after:
        return ""
    matcher = SequenceMatcher[str]()
    matcher.opcodes = _opcodes(before, after)  # type: ignore[attr-defined]  # instead of finding its own
    shown = [f"--- {old_name}", f"+++ {new_name}"]
    for group in matcher.get_grouped_opcodes(CONTEXT):
        (_, first, _, first_new, _), (_, _, last, _, last_new) = group[0], group[-1]
        shown.append(f"@@ -{_range(first, last)} +{_range(first_new, last_new)} @@")
        for tag, start, end, start_new, end_new in group:
            if tag == "equal":
                shown += [f" {line}" for line in before[start:end]]
            else:
                shown += [f"-{line}" for line in before[start:end]]
                shown += [f"+{line}" for line in after[start_new:end_new]]
    return "\n".join([*shown, ""])


def _opcodes(before: list[str], after: list[str]) -> list[Opcode]:
    alike = _alike(before, after)
    # What both begin with is not what both end with, too.
    alike_at_end = _alike(before[alike:][::-1], after[alike:][::-1])
    end, end_new = len(before) - alike_at_end, len(after) - alike_at_end
    found: list[Opcode] = [("equal", 0, alike, 0, alike)] if alike else []
    between = _opcodes_between(before[alike:end], after[alike:end_new])
    found += [
        (tag, alike + start, alike + stop, alike + start_new, alike + stop_new)
        for tag, start, stop, start_new, stop_new in between
    ]
    if alike_at_end:
        found.append(("equal", end, len(before), end_new, len(after)))
    return found


def _alike(before: list[str], after: list[str]) -> int:
    """How many lines both begin with."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((number for number, (old, new) in pairs if old != new), min(len(before), len(after)))


def _opcodes_between(before: list[str], after: list[str]) -> list[Opcode]:
    if len(before) * len(after) > MAX_CELLS:
        return [("replace", 0, len(before), 0, len(after))]
    found: list[Opcode] = []
    opcodes: Any = LCSseq.opcodes(before, after)
    for tag, start, end, start_new, end_new in opcodes:
        if found and tag != "equal" != found[-1][0]:
            # What goes is shown before what comes in its place.
            found[-1] = ("replace", found[-1][1], end, found[-1][3], end_new)
        else:
            found.append((tag, start, end, start_new, end_new))
    return found


def _range(start: int, end: int) -> str:
    length = end - start
    # A range without lines is named by the line before it.
    return f"{start + 1 if length else start},{length}" if length != 1 else f"{start + 1}"
