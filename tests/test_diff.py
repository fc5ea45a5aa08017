"""Unified diffs: applied to the old text, each gives the new one."""

import asyncio
import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from blog.diff import MAX_CELLS, Differ, unified_diff
from blog.errors import Busy

HEADER = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


def applied(old: str, diff: str) -> str:
    """The text that the diff makes of `old`, each of whose lines it must name as it is."""
    if not diff:
        return old
    before, after = old.split("\n"), list[str]()
    lines = diff.split("\n")
    assert lines.pop() == ""
    assert [line[:4] for line in lines[:2]] == ["--- ", "+++ "]
    at = 0
    number = 2
    while number < len(lines):
        found = HEADER.fullmatch(lines[number])
        assert found, lines[number]
        start, length, start_new, length_new = (1 if group is None else int(group) for group in found.groups())
        first = start - 1 if length else start
        after += before[at:first]
        assert len(after) == (start_new - 1 if length_new else start_new)
        at, end_new = first, len(after) + length_new
        number += 1
        while number < len(lines) and (at < first + length or len(after) < end_new):
            kind, line = lines[number][0], lines[number][1:]
            assert kind in " -+"
            if kind != "+":
                assert before[at] == line
                at += 1
            if kind != "-":
                after.append(line)
            number += 1
        assert (at, len(after)) == (first + length, end_new)
    return "\n".join(after + before[at:])


def edited(source: random.Random, lines: list[str], alphabet: Sequence[str]) -> list[str]:
    lines = list(lines)
    for _ in range(source.randrange(1, 6)):
        start = source.randrange(len(lines) + 1)
        end = min(len(lines), start + source.randrange(4))
        lines[start:end] = [source.choice(alphabet) for _ in range(source.randrange(4))]
    return lines


@pytest.mark.parametrize("alphabet", ["ab", "abcdefgh", ["", " ", "-", "+", "@@ -1 +1 @@", "--- 1", "\r", "é", "\t"]])
def test_random_edits(alphabet: Sequence[str]) -> None:
    source = random.Random(7)
    for size in (1, 2, 5, 30, 200):
        for _ in range(100):
            old = [source.choice(alphabet) for _ in range(size)]
            new = edited(source, old, alphabet)
            before, after = "\n".join(old), "\n".join(new)
            assert applied(before, unified_diff(before, after, "1", "2")) == after
            assert applied(after, unified_diff(after, before, "2", "1")) == before


@pytest.mark.patch
def test_patch_applies_it(tmp_path: Path) -> None:
    """The program that everybody has; its lines end where ours are parted."""
    source = random.Random(8)
    for _ in range(20):
        old = [source.choice("abcdefgh") for _ in range(60)]
        new = edited(source, old, "abcdefgh")
        file = tmp_path / "text"
        file.write_text("\n".join([*old, ""]))
        diff = unified_diff("\n".join(old), "\n".join(new), "text", "text")
        if diff:
            subprocess.run(["patch", "--silent", str(file)], input=diff, text=True, check=True)
        assert file.read_text() == "\n".join([*new, ""])


@pytest.mark.parametrize(
    ("old", "new", "diff"),
    [
        ("a", "a", ""),
        ("", "", ""),
        ("", "a", "--- 1\n+++ 2\n@@ -1 +1 @@\n-\n+a\n"),
        ("a", "a\n", "--- 1\n+++ 2\n@@ -1 +1,2 @@\n a\n+\n"),
        ("a\nb", "b", "--- 1\n+++ 2\n@@ -1,2 +1 @@\n-a\n b\n"),
        ("a\r\nb", "a\nb", "--- 1\n+++ 2\n@@ -1,2 +1,2 @@\n-a\r\n+a\n b\n"),
        ("a\u2028b\x0cc", "a\u2028b", "--- 1\n+++ 2\n@@ -1 +1 @@\n-a\u2028b\x0cc\n+a\u2028b\n"),
    ],
)
def test_shown(old: str, new: str, diff: str) -> None:
    assert unified_diff(old, new, "1", "2") == diff
    assert applied(old, diff) == new


def test_what_goes_comes_first() -> None:
    lines = unified_diff("1\n2\n3\n4", "1\nx\ny\n4", "1", "2").split("\n")
    assert lines[3:-1] == [" 1", "-2", "-3", "+x", "+y", " 4"]


def test_context() -> None:
    """Three lines around a change, and far from one nothing."""
    old = [str(number) for number in range(40)]
    new = ["x" if number in (10, 30) else str(number) for number in range(40)]
    shown = unified_diff("\n".join(old), "\n".join(new), "1", "2").split("\n")
    assert [line for line in shown if line.startswith("@@")] == ["@@ -8,7 +8,7 @@", "@@ -28,7 +28,7 @@"]
    assert len(shown) == 2 + 2 * (1 + 3 + 2 + 3) + 1


class TestBounds:
    def test_one_line_of_many(self) -> None:
        """However long the two are, where they differ in little that is what is shown."""
        lines = [str(number % 10) for number in range(100_000)]
        assert len(lines) ** 2 > MAX_CELLS
        old = "\n".join(lines)
        for at in (0, 1, 50_000, 99_999):
            new = "\n".join([*lines[:at], "x", *lines[at + 1 :]])
            diff = unified_diff(old, new, "1", "2")
            assert len(diff) < 100
            assert applied(old, diff) == new
        for new in (old + "\n0", "0\n" + old):
            diff = unified_diff(old, new, "1", "2")
            assert len(diff) < 100
            assert applied(old, diff) == new

    @pytest.mark.parametrize("lines", [20_000, 200_000])
    def test_nothing_in_common(self, lines: int) -> None:
        """The longest bodies of the shortest lines, in a bounded time."""
        source = random.Random(9)
        old, new = ("\n".join(source.choices("abcdefgh", k=lines)) for _ in range(2))
        diff = unified_diff(old, new, "1", "2")
        assert len(diff) < 2 * (len(old) + len(new)) + 20 * lines
        assert applied(old, diff) == new


class TestDiffer:
    async def test_loop_goes_on(self) -> None:
        """While one compares, others are served."""
        source = random.Random(9)
        old, new = ("\n".join(source.choices("abcdefgh", k=20_000)) for _ in range(2))
        comparing = asyncio.create_task(Differ().diff(old, new, "1", "2"))
        turns = 0
        while not comparing.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 3
        assert applied(old, await comparing) == new

    async def test_busy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("blog.diff.QUEUE_TIMEOUT", 0.001)
        differ = Differ()
        differ._comparing.acquire_on_behalf_of_nowait(other := object())
        with pytest.raises(Busy):
            await differ.diff("a", "b", "1", "2")
        differ._comparing.release_on_behalf_of(other)
        assert await differ.diff("a", "a", "1", "2") == ""
