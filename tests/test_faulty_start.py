"""What keeps the platform from starting is said at once, in one line and without a secret."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import alembic.command
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from blog import __main__ as command_line
from blog.database import alembic_config
from tests.conftest import ROOT, SECRET, crowd, make_settings

SECONDS = 5
WORD = "hunter2"
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


def obey_permissions() -> None:
    """Root may write what is read-only, unless it gives that up."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


def started(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    began = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "blog", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "BLOG_SECRET_KEY": SECRET, "BLOG_PASSWORD_ROUNDS": "4"} | variables,
        preexec_fn=obey_permissions,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert monotonic() - began < SECONDS * crowd()
    return done


def is_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0, done.stdout
    is_one_line(done.stderr, *words)
    assert SECRET not in done.stdout + done.stderr


def is_one_line(said: str, *words: str) -> None:
    (line,) = said.splitlines()
    assert "Traceback" not in line
    for word in words:
        assert word in line


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data" / "blog.db"
    path.parent.mkdir()
    alembic.command.upgrade(alembic_config(make_settings(make_url(f"sqlite:///{path}"))), "head")
    yield path
    path.parent.chmod(0o700)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_no_database_in_the_file(tmp_path: Path, command: str) -> None:
    (tmp_path / "blog.db").write_bytes(b"x" * 4096)
    is_refused(started(tmp_path, command), "not a database")


def test_folder_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "blog.db").mkdir()
    is_refused(started(tmp_path, "serve"), "unable to open database file")


def test_database_that_is_read_only(database: Path) -> None:
    for path in database.parent.iterdir():
        path.chmod(0o400)
    database.parent.chmod(0o500)
    is_refused(started(database.parent, "serve"), "readonly database")


def test_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o500)
    is_refused(started(folder, "serve"), "unable to open database file")
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("command", "kind"),
    [("serve", "in one that is read-only"), ("serve", "a file"), ("check", "read-only")],
)
def test_no_folder_for_images(database: Path, tmp_path: Path, command: str, kind: str) -> None:
    folder = tmp_path / "media"
    if "file" in kind:
        folder.write_text("")
    else:
        folder.mkdir(0o500)
    given = folder / "deeper" if kind.startswith("in ") else folder
    done = started(database.parent, command, BLOG_MEDIA_FOLDER=str(given))
    is_refused(done, "Images cannot be stored", str(given))
    assert folder.is_file() or not list(folder.iterdir())


def test_no_folder_for_the_secret(tmp_path: Path) -> None:
    is_refused(
        started(tmp_path, "serve", BLOG_SECRET_KEY="", BLOG_DATABASE_URL="sqlite:///missing/blog.db"), "secret key"
    )


def test_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        is_refused(started(tmp_path, "serve", BLOG_PORT=port), "Address already in use", port)


def test_host_that_is_not_ours(tmp_path: Path) -> None:
    is_refused(started(tmp_path, "serve", BLOG_HOST="192.0.2.1"), "192.0.2.1")


def test_settings_that_are_wrong(tmp_path: Path) -> None:
    is_refused(started(tmp_path, "serve", BLOG_DATABASE_URL=f"postgresql://u:{SECRET}@h:x/db"), "BLOG_DATABASE_URL")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SMTP_URL": f"smtp://blog:{WORD}@"}, ["BLOG_SMTP_URL", "mail server"]),
        ({"SMTP_URL": f"smtp://blog:{WORD}@mail.example.com"}, ["BLOG_MAIL_FROM", "BLOG_SMTP_URL"]),
        ({"MAIL_FROM": SECRET}, ["BLOG_MAIL_FROM", "e-mail address"]),
        ({"OTHER_SECRET_KEYS": f"{SECRET},{SECRET[:31]}"}, ["BLOG_OTHER_SECRET_KEYS", "32 bytes"]),
        ({"EMAIL_VERIFICATION": "true", "ENVIRONMENT": "production"}, ["BLOG_EMAIL_VERIFICATION", "BLOG_SMTP_URL"]),
    ],
    ids=lambda part: "-".join(part),
)
def test_settings_of_logins_and_mail_that_are_wrong(
    environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: list[str]
) -> None:
    """As a command finds them that runs in this process, which is the same and faster."""
    for name, value in variables.items():
        monkeypatch.setenv(f"BLOG_{name}", value)
    monkeypatch.setattr("blog.server.run", lambda _: None)
    done = CliRunner().invoke(command_line.cli, ["serve"])
    assert done.exit_code == 1
    is_one_line(done.output, *words)
    for secret in (WORD, SECRET[:31]):
        assert secret not in done.output
    assert not list(tmp_path.iterdir())
