"""What keeps the platform from starting is said at once, in one line and without a secret."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url
from typer.testing import CliRunner, Result

from blog import __main__ as command_line
from tests.conftest import HANG, ROOT, SECRET

WORD = "hunter2"
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


def obey_permissions() -> None:
    """Root may write what is read-only, unless it gives that up."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


def started(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "blog", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "BLOG_SECRET_KEY": SECRET, "BLOG_PASSWORD_ROUNDS": "4"} | variables,
        preexec_fn=obey_permissions,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def ended(*command: str, **variables: str) -> Result:
    """Run a command in this process, which is faster, up to where it would serve."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"BLOG_{name}", value)
        patch.setattr("blog.server.run", lambda _: pytest.fail("it serves"))
        return CliRunner().invoke(command_line.cli, command)


def is_refused(done: subprocess.CompletedProcess[str] | Result, *words: str) -> None:
    code, said = (
        (done.exit_code, done.stderr or done.stdout) if isinstance(done, Result) else (done.returncode, done.stderr)
    )
    assert code == 1, done.stdout
    is_one_line(said, *words)
    assert SECRET not in done.stdout + done.stderr


def is_one_line(said: str, *words: str) -> None:
    (line,) = said.splitlines()
    assert "Traceback" not in line
    for word in words:
        assert word in line


@pytest.fixture
def database(tmp_path: Path, upgraded: Callable[[URL], None]) -> Iterator[Path]:
    path = tmp_path / "data" / "blog.db"
    path.parent.mkdir()
    upgraded(make_url(f"sqlite:///{path}"))
    yield path
    path.parent.chmod(0o700)


@pytest.mark.processes
def test_no_database_in_the_file_of_a_real_process(tmp_path: Path) -> None:
    (tmp_path / "blog.db").write_bytes(b"x" * 4096)
    is_refused(started(tmp_path, "serve"), "not a database")


@pytest.mark.parametrize("command", ["serve", "check"])
def test_no_database_in_the_file(environment: None, tmp_path: Path, command: str) -> None:
    (tmp_path / "blog.db").write_bytes(b"x" * 4096)
    is_refused(ended(command), "not a database")


def test_folder_for_a_file(environment: None, tmp_path: Path) -> None:
    (tmp_path / "blog.db").mkdir()
    is_refused(ended("serve"), "unable to open database file")


@pytest.mark.processes  # root would write there, in this process
def test_database_that_is_read_only(database: Path) -> None:
    for path in database.parent.iterdir():
        path.chmod(0o400)
    database.parent.chmod(0o500)
    is_refused(started(database.parent, "serve"), "readonly database")


@pytest.mark.processes
def test_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o500)
    is_refused(started(folder, "serve"), "unable to open database file")
    folder.chmod(0o700)


@pytest.mark.processes
@pytest.mark.parametrize(("command", "kind"), [("serve", "in one that is read-only"), ("check", "read-only")])
def test_folder_for_images_that_is_read_only(database: Path, tmp_path: Path, command: str, kind: str) -> None:
    folder = tmp_path / "media"
    folder.mkdir(0o500)
    given = folder / "deeper" if kind.startswith("in ") else folder
    done = started(database.parent, command, BLOG_MEDIA_FOLDER=str(given))
    is_refused(done, "Images cannot be stored", str(given))
    assert not list(folder.iterdir())


def test_file_in_the_place_of_the_folder_for_images(environment: None, tmp_path: Path) -> None:
    (tmp_path / "media").write_text("")
    is_refused(ended("serve", MEDIA_FOLDER=str(tmp_path / "media")), "Images cannot be stored", str(tmp_path / "media"))
    assert (tmp_path / "media").is_file()


def test_no_folder_for_the_secret(environment: None) -> None:
    is_refused(ended("serve", SECRET_KEY="", DATABASE_URL="sqlite:///missing/blog.db"), "secret key")


def test_port_in_use(environment: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        is_refused(ended("serve", PORT=port), "Address already in use", port)


def test_host_that_is_not_ours(environment: None) -> None:
    is_refused(ended("serve", HOST="192.0.2.1"), "192.0.2.1")


@pytest.mark.processes
def test_settings_that_are_wrong_in_a_real_process(tmp_path: Path) -> None:
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
    environment: None, tmp_path: Path, variables: dict[str, str], words: list[str]
) -> None:
    done = ended("serve", **variables)
    assert done.exit_code == 1
    is_one_line(done.output, *words)
    for secret in (WORD, SECRET[:31]):
        assert secret not in done.output
    assert not list(tmp_path.iterdir())
