"""`python -m blog`: what admins type, on each engine."""

import asyncio
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import alembic.command
import httpx
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from blog import __main__ as command_line
from blog.database import Database, alembic_config
from blog.models import Role, User
from blog.repository.user import UserRepository
from blog.security.passwords import PasswordHasher
from tests.conftest import SECRET, make_settings, serving
from tests.factories import PASSWORD

ROOT = Path(__file__).parent.parent

Run = Callable[..., Result]


@pytest.fixture
def environment(new_database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    variables = {
        "BLOG_DATABASE_URL": new_database.render_as_string(hide_password=False),
        "BLOG_SECRET_KEY": SECRET,
        "BLOG_PASSWORD_ROUNDS": "4",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def at_head(environment: dict[str, str], new_database: URL) -> URL:
    alembic.command.upgrade(alembic_config(make_settings(new_database)), "head")
    return new_database


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(command_line.cli, arguments, input=stdin)


def add(email: str = "ada@example.com", *, password: str = PASSWORD, **options: str) -> Result:
    extra = [part for name, value in options.items() for part in (f"--{name}", value)]
    return run("user", "add", "--email", email, "--name", "Ada", *extra, stdin=f"{password}\n")


def user_of(url: URL, email: str) -> User | None:
    async def find() -> User | None:
        database = Database(make_settings(url))
        async with database.fresh() as session:
            user = await UserRepository(session).get_by_email(email)
        await database.aclose()
        return user

    return asyncio.run(find())


def knows(user: User | None, password: str) -> bool:
    assert user is not None
    return asyncio.run(PasswordHasher(4, 8).verify(password, user.password_hash))[0]


class TestUserAdd:
    @pytest.mark.parametrize("role", list(Role))
    def test_added(self, at_head: URL, role: Role) -> None:
        done = add("Ada@Example.com", role=role.value)
        user = user_of(at_head, "ada@example.com")
        assert user is not None
        assert (user.name, user.email, user.role) == ("Ada", "Ada@example.com", role)
        assert knows(user, PASSWORD)
        assert (done.exit_code, done.output) == (0, f"Ada@example.com is user {user.id}, {role.value}.\n")

    def test_asked_for(self, at_head: URL) -> None:
        done = run("user", "add", stdin=f"bob@example.com\nBob\n{PASSWORD}\n")
        assert done.exit_code == 0, done.output
        user = user_of(at_head, "bob@example.com")
        assert user is not None
        assert user.role is Role.AUTHOR
        assert knows(user, PASSWORD)

    def test_taken(self, at_head: URL) -> None:
        add()
        done = add("ADA@example.com")
        assert (done.exit_code, done.output) == (1, "blog: There is a user with this e-mail address already.\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"email": "ada"}, "blog: 'ada': "),
            ({"password": "short"}, "blog: password: "),
            ({"password": ""}, "blog: password: "),
            ({"name": " "}, "blog: ' ': "),
        ],
    )
    def test_invalid(self, at_head: URL, arguments: dict[str, str], message: str) -> None:
        done = add(**arguments)
        assert done.exit_code == 1
        assert done.output.startswith(message)
        assert len(done.output.splitlines()) == 1

    def test_too_short_for_the_settings(self, at_head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOG_PASSWORD_MIN_LENGTH", "30")
        done = add()
        assert (done.exit_code, done.output) == (1, "blog: A password needs at least 30 characters.\n")

    def test_unknown_role(self, at_head: URL) -> None:
        assert add(role="root").exit_code == 2

    def test_passlib_and_bcrypt_do_not_fit(self, at_head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("passlib 1.7.4 cannot hash with bcrypt 5.0.0.")

        monkeypatch.setattr(command_line, "PasswordHasher", fail)
        done = add()
        assert (done.exit_code, done.output) == (1, "blog: passlib 1.7.4 cannot hash with bcrypt 5.0.0.\n")


class TestUserList:
    def test_listed(self, at_head: URL) -> None:
        assert run("user", "list").exit_code == 0
        add("ada@example.com", role="admin")
        add("bob@example.com")
        run("user", "block", "bob@example.com")
        lines = run("user", "list").output.splitlines()
        (bob,) = [line for line in lines if "bob@example.com" in line]
        (ada,) = [line for line in lines if "ada@example.com" in line]
        assert lines.index(bob) < lines.index(ada)
        assert "blocked" in bob
        assert "admin" in ada
        assert " yes " in ada

    def test_more_than_a_page(self, at_head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command_line, "PAGE_LIMIT", 2)
        for number in range(5):
            add(f"ada{number}@example.com")
        assert run("user", "list").output.count("@example.com") == 5


class TestUserBlock:
    def test_blocked(self, at_head: URL) -> None:
        add()
        before = user_of(at_head, "ada@example.com")
        done = run("user", "block", "ADA@example.com")
        assert (done.exit_code, done.output) == (0, "ADA@example.com is blocked.\n")
        after = user_of(at_head, "ada@example.com")
        assert before is not None
        assert after is not None
        assert not after.is_active
        assert after.login_generation != before.login_generation

    def test_unknown(self, at_head: URL) -> None:
        done = run("user", "block", "nobody@example.com")
        assert done.exit_code == 1
        assert done.output == "blog: There is no user with the address nobody@example.com.\n"


class TestUserPassword:
    def test_from_a_pipe(self, at_head: URL) -> None:
        add()
        before = user_of(at_head, "ada@example.com")
        done = run("user", "password", "ada@example.com", stdin="another password\r\n")
        assert (done.exit_code, done.output) == (0, "ada@example.com has a new password.\n")
        after = user_of(at_head, "ada@example.com")
        assert before is not None
        assert after is not None
        assert knows(after, "another password")
        assert not knows(after, PASSWORD)
        assert after.login_generation != before.login_generation

    def test_asked_for_twice_on_a_terminal(self, at_head: URL) -> None:
        """A real terminal: what is typed is not shown, and two that differ are asked for again."""
        add()
        controller, terminal = pty.openpty()
        command = [sys.executable, "-m", "blog", "user", "password", "ada@example.com"]
        process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        os.close(terminal)
        shown = b""
        for prompt, answer in (
            (b"Password: ", b"typed password\n"),
            (b"confirmation: ", b"mistyped\n"),
            (b"Password: ", b"typed password\n"),
            (b"confirmation: ", b"typed password\n"),
            (b"has a new password.", b""),
        ):
            part = b""
            while prompt not in part:
                assert select.select([controller], [], [], 30)[0], shown + part
                part += os.read(controller, 1024)
            shown += part
            os.write(controller, answer)
        assert process.wait(30) == 0
        os.close(controller)
        assert b"do not match" in shown
        assert b"typed password" not in shown
        assert knows(user_of(at_head, "ada@example.com"), "typed password")


class TestCheck:
    def test_ok(self, at_head: URL) -> None:
        done = run("check")
        assert done.exit_code == 0, done.output
        assert [line.split()[:2] for line in done.output.splitlines()] == [
            ["settings", "ok,"],
            ["database", "ok,"],
            ["schema", "ok,"],
        ]
        assert SECRET not in done.output

    def test_not_at_head(self, environment: dict[str, str], new_database: URL, engine_name: str) -> None:
        if engine_name == "sqlite":
            done = run("check")
            assert done.exit_code == 1
            assert done.output.splitlines()[-1].startswith("blog: database  not made yet")
            Path(str(new_database.database)).touch()
        done = run("check")
        assert done.exit_code == 1
        assert done.output.splitlines()[-1] == "blog: schema    not at head. Run: alembic upgrade head"


@pytest.mark.parametrize("arguments", [["serve"], ["user", "list"], ["check"]])
def test_no_database(
    arguments: list[str], environment: dict[str, str], engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {
        "sqlite": "sqlite:///missing/blog.db",
        "postgresql": "postgresql://nobody:hunter2@127.0.0.1:9/blog",
        "mariadb": "mariadb://nobody:hunter2@127.0.0.1:9/blog",
    }
    monkeypatch.setenv("BLOG_DATABASE_URL", urls[engine_name])
    done = run(*arguments)
    assert done.exit_code == 1
    expected = "not made yet" if (engine_name, arguments) == ("sqlite", ["check"]) else "does not answer"
    assert expected in done.output.splitlines()[-1]
    assert "hunter2" not in done.output
    assert "Traceback" not in done.output


def test_database_goes_away_meanwhile(at_head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    async def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(UserRepository, "page", fail)
    done = run("user", "list")
    assert done.exit_code == 1
    assert done.output.startswith("blog: The database does not answer: ")


class TestServe:
    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        monkeypatch.setattr("signal.signal", lambda *_: None)
        calls: list[dict[str, Any]] = []
        monkeypatch.setattr("uvicorn.run", lambda app, **options: calls.append(options | {"app": app}))
        return calls

    def test_another_schema(self, environment: dict[str, str], engine_name: str, served: list[Any]) -> None:
        done = run("serve")
        if engine_name == "sqlite":
            assert done.exit_code == 0, done.output
            assert len(served) == 1
        else:
            assert done.exit_code == 1
            assert done.output.endswith("Run: alembic upgrade head\n")
            assert served == []

    def test_a_schema_of_a_later_version(self, at_head: URL, engine_name: str, served: list[Any]) -> None:
        async def pretend() -> None:
            from sqlalchemy import text

            database = Database(make_settings(at_head))
            async with database.write.begin() as session:
                await session.execute(text("UPDATE alembic_version SET version_num = 'later'"))
            await database.aclose()

        asyncio.run(pretend())
        done = run("serve")
        assert done.exit_code == 1
        assert len(done.output.splitlines()) == 1
        assert served == []

    def test_says_where_it_is_and_how_to_make_the_first_admin(
        self, at_head: URL, monkeypatch: pytest.MonkeyPatch, served: list[Any]
    ) -> None:
        monkeypatch.setenv("BLOG_PORT", "8123")
        done = run("serve")
        assert "http://127.0.0.1:8123" in done.output
        assert "/docs" in done.output
        assert "user add --role admin" in done.output
        add(role="admin")
        monkeypatch.setenv("BLOG_DOCS_ENVIRONMENTS", "")
        done = run("serve")
        assert "/docs" not in done.output
        assert "user add --role admin" not in done.output
        for options in served:
            assert (options["app"], options["host"], options["port"]) == ("blog.main:app", "127.0.0.1", 8123)
            assert options["workers"] == 1
            assert not options["proxy_headers"]
            assert not options["server_header"]

    def test_believes_the_proxies_that_settings_name(
        self, at_head: URL, monkeypatch: pytest.MonkeyPatch, served: list[Any]
    ) -> None:
        monkeypatch.setenv("BLOG_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")
        run("serve")
        assert served[0]["proxy_headers"]
        assert served[0]["forwarded_allow_ips"] == ["10.0.0.0/8", "127.0.0.1/32"]

    @pytest.mark.parametrize("version", [(3, 51, 2), (3, 51, 3)])
    def test_warns_of_an_old_sqlite(
        self,
        at_head: URL,
        engine_name: str,
        monkeypatch: pytest.MonkeyPatch,
        served: list[Any],
        version: tuple[int, int, int],
    ) -> None:
        monkeypatch.setattr("sqlite3.sqlite_version_info", version)
        warns = "may be damaged" in run("serve").output
        assert warns == (engine_name == "sqlite" and version < (3, 51, 3))


@pytest.fixture
def server(at_head: URL, tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path) as address:
        yield address


def test_stock_client_of_oauth2(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from oauthlib.oauth2 import LegacyApplicationClient
    from requests_oauthlib import OAuth2Session

    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")  # it is our own machine
    assert add().exit_code == 0
    with OAuth2Session(client=LegacyApplicationClient(client_id="any")) as session:
        token = session.fetch_token(f"{server}/login", username="ada@example.com", password=PASSWORD)
        assert token["token_type"] == "bearer"
        written = session.post(f"{server}/blog/", json={"title": "Notes", "body": "Text"})
        assert session.get(server + written.headers["location"]).json() == written.json()


def test_headers_of_the_server(server: str) -> None:
    assert "server" not in httpx.get(f"{server}/blog/").headers


def test_port_in_use(server: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BLOG_PORT": server.rpartition(":")[2]}
    command = [sys.executable, "-m", "blog", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
