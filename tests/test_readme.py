"""The README's walk, pasted into a shell against a live server, gives what the README shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from blog.asyncapi import endings
from blog.schemas.room import CLIENT_FRAMES, SERVER_FRAMES
from tests.conftest import HANG, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
MARK = "--- next command ---"


def walk() -> list[tuple[str, str]]:
    """The commands of all console blocks with what they print."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            else:
                command, output = steps[-1]
                steps[-1] = (command, output + line + "\n")
    return steps


def comparable(output: str) -> str:
    """The output without what is another in each run: times, tokens, cursors and curl's version."""
    output = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", output)
    output = re.sub(r"eyJ[\w.…-]+", "TOKEN", output)
    output = re.sub(r"blog_rt_[\w…-]+", "TOKEN", output)
    output = re.sub(r"[0-9a-f]{32}\.gif", "NAME.gif", output)
    output = re.sub(r"curl/[\d.]+", "curl/VERSION", output)
    output = re.sub(r'cursor(=|":")[\w.…-]+', r"cursor\1CURSOR", output)
    return output.replace("\r", "").strip()


@pytest.mark.processes
def test_the_walk_gives_what_the_readme_shows(tmp_path: Path) -> None:
    steps = walk()
    assert len(steps) > 10
    script = "\n".join(f"{command}\necho; echo '{MARK}'" for command, _ in steps)
    for name, content in re.findall(r"Save this as `([\w.]+)`:\n\n```python\n(.*?)```", README, re.DOTALL):
        (tmp_path / name).write_text(content)
    with serving(tmp_path) as address:
        script = script.replace(ADDRESS, address)
        shell = ["bash", "-c", script]
        # So that `python3` has the packages of the platform's own environment.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG, check=True
        )
    printed = done.stdout.split(f"{MARK}\n")
    for (command, shown), real in zip(steps, printed, strict=False):
        assert comparable(real) == comparable(shown), command
    assert len(printed) == len(steps) + 1


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    start, test = re.findall(r"```sh\n(python3 -m venv .*)\n```", README)
    assert start.endswith("pipenv sync && .pipenv/bin/pipenv run start")
    assert test in map(str.strip, (ROOT / ".ci" / "run").read_text().splitlines())


def test_every_dependency_has_its_reason() -> None:
    pipfile = (ROOT / "Pipfile").read_text()
    packages = re.findall(r"^([\w-]+) = ", pipfile.partition("[dev-packages]")[0], re.MULTILINE)
    named = README.partition("## Dependencies")[2].partition("## Develop")[0]
    for package in packages:
        assert re.search(rf"\b{re.escape(package)}\b", named), package


def test_every_frame_and_every_ending_of_rooms_is_described() -> None:
    described = README.partition("\n### Live\n")[2].partition("\n## ")[0]
    for heading, frames in (("you send", CLIENT_FRAMES), ("you are told", SERVER_FRAMES)):
        rows = dict(re.findall(r"^\| `(\w+)`(.*)$", table(described, heading), re.MULTILINE))
        fields = {get_args(frame.model_fields["type"].annotation)[0]: set(frame.model_fields) for frame in frames}
        assert set(rows) == set(fields)
        for kind, names in fields.items():
            assert {f"`{name}`" for name in names - {"type"}} <= set(re.findall(r"`\w+`", rows[kind])), kind
    codes = {int(code) for code in re.findall(r"\b\d{4}\b", table(described, "code"))}
    assert codes == {1006} | {code for code, _, _ in endings()}


def table(text: str, heading: str) -> str:
    return text.partition(f"\n| {heading} |")[2].partition("\n\n")[0]


def test_pipfile_and_lock_name_no_registry() -> None:
    assert "[[source]]" not in (ROOT / "Pipfile").read_text()
    lock = json.loads((ROOT / "Pipfile.lock").read_text())
    assert lock["_meta"]["sources"] == []
    assert "://" not in (ROOT / "Pipfile.lock").read_text()


def test_every_script_of_the_pipfile_is_there() -> None:
    pipfile = (ROOT / "Pipfile").read_text()
    scripts = dict(re.findall(r'^(\w+) = "(.*)"$', pipfile.partition("[scripts]")[2], re.MULTILINE))
    assert set(scripts) == {"start", "test", "endure", "bench", "lint", "lock"}
    for name in scripts:
        assert f"pipenv run {name}" in README
