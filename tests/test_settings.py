"""What settings are refused, and where the secret key comes from."""

import os
import re
import secrets
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blog.settings import Settings, read_settings
from tests.conftest import HANG

ROOT = Path(__file__).parent.parent
KEY = "k" * 32


PRODUCTION = {"environment": "production", "secret_key": KEY}
SENDER = "blog@example.com"
NO_MAIL_SERVERS = [
    "hunter2",
    "mail.example.com",
    "mail.example.com:587",
    "https://blog:hunter2@mail.example.com",
    "smtp:blog:hunter2@mail.example.com",
    "smtp://",
    "smtp://blog:hunter2@",
    "smtp://blog:hunter2@:587",
    "smtp://blog:hunter2@mail.example.com:0",
    "smtp://blog:hunter2@mail.example.com:65536",
    "smtp://blog:hunter2@mail.example.com:-1",
    "smtp://blog:hunter2@mail.example.com:x",
    "smtp://blog:hunter2@[::1",
    "smtp://blog:hunter2@mail example.com",
    "smtp://blog:hunter2@mail.example.com\nRSET",
    "smtp://blog:hunter2@mail..example.com",
    "smtp://blog:hunter2@" + "x" * 64 + ".example.com",
]
NO_SENDERS = ["hunter2", "Blog <blog@example.com>", "blog@localhost", "blog@example.com\nBcc: eve@example.com"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"BLOG_{name.upper()}", value)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"environment": "prod"}, "BLOG_ENVIRONMENT: "),
        ({"environment": "production"}, "BLOG_SECRET_KEY is needed here"),
        ({"secret_key": "short but secret"}, "BLOG_SECRET_KEY: shorter than 32 bytes"),
        ({"secret_key": "k" * 31}, "BLOG_SECRET_KEY: shorter than 32 bytes"),
        ({"other_secret_keys": f"{KEY},short but secret"}, "BLOG_OTHER_SECRET_KEYS: shorter than 32 bytes"),
        ({"secret_key": "", "environment": "production"}, "BLOG_SECRET_KEY is needed here"),
        ({"database_url": "postgresql://u:hunter2@h/db"}, "BLOG_SECRET_KEY is needed here"),
        ({"database_url": "hunter2"}, "BLOG_DATABASE_URL: not a database URL"),
        ({"database_url": "oracle://u:hunter2@h/db"}, "BLOG_DATABASE_URL: the engine is one of sqlite, postgresql"),
        ({"database_url": "postgresql+psycopg://u:hunter2@h/db"}, "BLOG_DATABASE_URL: the engine is one of"),
        ({"database_url": "mysql://u:hunter2@h"}, "BLOG_DATABASE_URL: the URL names no database"),
        ({"database_url": "sqlite://"}, "BLOG_DATABASE_URL: SQLite needs a file"),
        ({"database_url": "sqlite:///:memory:"}, "BLOG_DATABASE_URL: SQLite needs a file"),
        ({"database_read_url": "sqlite:///other.db"}, "BLOG_DATABASE_READ_URL: SQLite has no replicas"),
        ({"workers": "2"}, "BLOG_WORKERS: SQLite has one writer"),
        ({"port": "hunter2"}, "BLOG_PORT: "),
        ({"port": "0"}, "BLOG_PORT: "),
        ({"access_token_lifetime": "PT2H"}, "BLOG_ACCESS_TOKEN_LIFETIME: "),
        ({"password_min_length": "7"}, "BLOG_PASSWORD_MIN_LENGTH: "),
        ({"docs_environments": "local,everywhere"}, "BLOG_DOCS_ENVIRONMENTS: "),
        ({"default_role": "admin"}, "BLOG_DEFAULT_ROLE: "),
        ({"port": "x", "registration": "x"}, "BLOG_REGISTRATION: "),
        ({"registration": "invite"}, "BLOG_REGISTRATION: "),
        ({"other_secret_keys": "short but secret"}, "BLOG_OTHER_SECRET_KEYS: shorter than 32 bytes"),
        ({"refresh_token_lifetime": "0"}, "BLOG_REFRESH_TOKEN_LIFETIME: "),
        ({"refresh_token_lifetime": "P366D"}, "BLOG_REFRESH_TOKEN_LIFETIME: "),
        ({"refresh_token_lifetime": "hunter2"}, "BLOG_REFRESH_TOKEN_LIFETIME: "),
        ({"login_lifetime": "-PT1S"}, "BLOG_LOGIN_LIFETIME: "),
        ({"login_lifetime": "P11Y"}, "BLOG_LOGIN_LIFETIME: "),
        ({"email_verification": "hunter2"}, "BLOG_EMAIL_VERIFICATION: "),
        ({"email_verification": "true"} | PRODUCTION, "BLOG_EMAIL_VERIFICATION needs BLOG_SMTP_URL here"),
        ({"email_verification": "true", "smtp_url": ""} | PRODUCTION, "BLOG_EMAIL_VERIFICATION needs BLOG_SMTP_URL"),
        *(({"smtp_url": url, "mail_from": SENDER}, "BLOG_SMTP_URL: not a mail server") for url in NO_MAIL_SERVERS),
        ({"smtp_url": "smtp://blog:hunter2@mail.example.com"}, "BLOG_MAIL_FROM is needed with BLOG_SMTP_URL"),
        ({"smtp_url": "smtp://mail.example.com", "mail_from": ""}, "BLOG_MAIL_FROM is needed with BLOG_SMTP_URL"),
        *(({"mail_from": sender}, "BLOG_MAIL_FROM: not an e-mail address") for sender in NO_SENDERS),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    set_all(monkeypatch, **variables)
    with pytest.raises(SystemExit) as refusal:
        read_settings()
    lines = str(refusal.value).splitlines()
    assert any(line.startswith(f"blog: {message}") for line in lines)
    assert all(line.startswith("blog: ") for line in lines)
    assert "hunter2" not in str(refusal.value)
    assert "short but" not in str(refusal.value)


def test_a_secret_is_as_long_as_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, secret_key="ü" * 16)
    assert read_settings().secrets == ("ü" * 16,)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:///./blog.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///./blog.db", "sqlite+aiosqlite"),
        ("postgresql://u:p@h/db", "postgresql+asyncpg"),
        ("postgresql+asyncpg://u:p@h/db", "postgresql+asyncpg"),
        ("postgres://u:p@h/db", "postgresql+asyncpg"),
        ("mysql://u:p@h/db", "mysql+asyncmy"),
        ("mariadb://u:p@h/db", "mysql+asyncmy"),
        ("mysql+asyncmy://u:p@h/db", "mysql+asyncmy"),
    ],
)
def test_drivers(monkeypatch: pytest.MonkeyPatch, url: str, driver: str) -> None:
    set_all(monkeypatch, database_url=url, secret_key=KEY)
    settings = read_settings()
    assert settings.url.drivername == settings.read_url.drivername == driver
    assert settings.embedded == driver.startswith("sqlite")


@pytest.mark.parametrize(("text", "lifetime"), [("60", timedelta(minutes=1)), ("PT5M", timedelta(minutes=5))])
def test_durations(monkeypatch: pytest.MonkeyPatch, text: str, lifetime: timedelta) -> None:
    set_all(monkeypatch, access_token_lifetime=text)
    assert read_settings().access_token_lifetime == lifetime


@pytest.mark.parametrize(("environments", "serves"), [("", False), ("staging , local", True), ("production", False)])
def test_docs_environments(monkeypatch: pytest.MonkeyPatch, environments: str, serves: bool) -> None:
    set_all(monkeypatch, docs_environments=environments)
    assert read_settings().serves_docs is serves


def test_no_docs_in_production_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, environment="production", secret_key=KEY)
    assert not read_settings().serves_docs


@pytest.mark.parametrize(
    ("variables", "issuer"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"port": "9000"}, "http://127.0.0.1:9000"),
        ({"port": "9000", "base_url": ""}, "http://127.0.0.1:9000"),
        ({"port": "9000", "base_url": "https://blog.example.com"}, "https://blog.example.com"),
        ({"port": "9000", "base_url": "https://example.com/blog/"}, "https://example.com/blog"),
    ],
)
def test_links_lead_to_the_port_that_is_listened_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], issuer: str
) -> None:
    set_all(monkeypatch, **variables)
    assert read_settings().issuer == issuer


def test_dot_env(folder: Path) -> None:
    (folder / ".env").write_text("BLOG_PORT=8123\nOTHER=1\n")
    assert read_settings().port == 8123


def test_settings_do_not_change() -> None:
    settings = read_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


def test_a_secret_is_made_once_and_kept(folder: Path) -> None:
    first = read_settings().secret_key
    assert first is not None
    assert len(first.get_secret_value()) == 64
    kept = folder / "blog.db.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert read_settings().secret_key == first
    assert [path.name for path in folder.iterdir()] == ["blog.db.key"]
    assert first.get_secret_value() not in repr(read_settings())


def test_first_starts_at_once_agree_on_one_secret() -> None:
    with ThreadPoolExecutor(8) as pool:
        keys: list[Any] = list(pool.map(lambda _: read_settings().secret_key, range(16)))
    assert len({key.get_secret_value() for key in keys}) == 1


def test_a_first_start_that_another_overtakes_takes_its_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has looked for a key and found none; the other's is there before its own is."""
    make = secrets.token_hex
    others: list[SecretStr | None] = []

    def make_late(size: int) -> str:
        monkeypatch.setattr(secrets, "token_hex", make)
        others.append(read_settings().secret_key)
        return make(size)

    monkeypatch.setattr(secrets, "token_hex", make_late)
    assert [read_settings().secret_key] == others
    assert [read_settings().secret_key] == others
    assert [path.name for path in folder.iterdir()] == ["blog.db.key"]


def test_no_secret_where_none_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, database_url="sqlite:///missing/blog.db")
    with pytest.raises(SystemExit, match="no secret key beside the database"):
        read_settings()


def test_a_kept_secret_that_is_too_short(folder: Path) -> None:
    (folder / "blog.db.key").write_text("short\n")
    with pytest.raises(SystemExit, match=r"blog\.db\.key holds less than 32 bytes"):
        read_settings()


def test_own_secret_makes_no_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    set_all(monkeypatch, secret_key=KEY)
    assert read_settings().secret_key == SecretStr(KEY)
    assert list(folder.iterdir()) == []


@pytest.mark.processes
@pytest.mark.parametrize("module", ["blog.main", "blog"])
def test_a_bad_setting_ends_the_program_with_one_line(module: str, folder: Path) -> None:
    command = [sys.executable, *(["-c", "import blog.main"] if module == "blog.main" else ["-m", "blog", "check"])]
    environment = os.environ | {"BLOG_SECRET_KEY": "short", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 1
    assert done.stderr == "blog: BLOG_SECRET_KEY: shorter than 32 bytes; make one with: openssl rand -hex 32\n"
    assert done.stdout == ""


def test_every_setting_is_documented() -> None:
    """In the class, in the README's table and in .env.example, with its default."""
    readme, example = (ROOT / "README.md").read_text(), (ROOT / ".env.example").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        variable = f"BLOG_{name.upper()}"
        (row,) = re.findall(rf"^\| `{variable}` \| (.*) \| (.*) \|$", readme, re.MULTILINE)
        assert row[1] == field.description, variable
        (line,) = re.findall(rf"^# {variable}=(.*)$", example, re.MULTILINE)
        assert line == row[0].replace("made on first start", "").strip("`"), variable


def test_the_example_sets_every_default(folder: Path) -> None:
    by_default = read_settings()
    (folder / ".env").write_text((ROOT / ".env.example").read_text().replace("# BLOG_", "BLOG_"))
    assert read_settings() == by_default
