"""The README's walk, pasted into a shell against a live server, gives what the README shows."""

import json
import re
import subprocess
from pathlib import Path

from tests.conftest import serving

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
    """The output without what is another in each run: times, tokens and cursors."""
    output = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", output)
    output = re.sub(r"eyJ[\w.…-]+", "TOKEN", output)
    output = re.sub(r"cursor=[\w.…-]+", "cursor=CURSOR", output)
    return output.replace("\r", "").strip()


def test_the_walk_gives_what_the_readme_shows(tmp_path: Path) -> None:
    steps = walk()
    assert len(steps) > 10
    script = "\n".join(f"{command}\necho; echo '{MARK}'" for command, _ in steps)
    with serving(tmp_path) as address:
        script = script.replace(ADDRESS, address)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    printed = done.stdout.split(f"{MARK}\n")
    for (command, shown), real in zip(steps, printed, strict=False):
        assert comparable(real) == comparable(shown), command
    assert len(printed) == len(steps) + 1


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    start, test = re.findall(r"```sh\n(python3 -m venv .*)\n```", README)
    assert start.endswith("pipenv sync && .pipenv/bin/pipenv run start")
    assert test in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_dependency_has_its_reason() -> None:
    pipfile = (ROOT / "Pipfile").read_text()
    packages = re.findall(r"^([\w-]+) = ", pipfile.partition("[dev-packages]")[0], re.MULTILINE)
    named = README.partition("## Dependencies")[2].partition("## Develop")[0]
    for package in packages:
        assert re.search(rf"\b{re.escape(package)}\b", named), package


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
