"""`python -m blog`: what admins type, on each engine."""

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import alembic.command
import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from typer.testing import CliRunner, Result

from blog import __main__ as command_line
from blog.app import create_app
from blog.database import Database, alembic_config
from blog.markdown import VERSION, render
from blog.media import Folder, remake
from blog.models import Blog, OneTimeLink, Role, User, now
from blog.repository.blog import BlogRepository
from blog.repository.media import MediaRepository
from blog.repository.user import UserRepository
from blog.schemas.blog import BlogWrite
from blog.security.passwords import PasswordHasher
from tests.answers import code
from tests.conftest import HANG, NO_TLS, SECRET, client_of, make_settings, on, serving
from tests.factories import PASSWORD, PASSWORD_HASH, Factory, bearer, blog_row
from tests.images import image_of
from tests.ports import reserved_port

ROOT = Path(__file__).parent.parent

Run = Callable[..., Result]


@pytest.fixture
def empty(environment: None, new_database: URL, monkeypatch: pytest.MonkeyPatch) -> URL:
    """A database of the test's own that commands find, without a table."""
    monkeypatch.setenv("BLOG_DATABASE_URL", new_database.render_as_string(hide_password=False))
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


def log_in(url: URL, email: str, password: str) -> tuple[int, str]:
    """Return status and code of a login's answer where addresses are verified; the code is empty on success."""

    async def ask() -> tuple[int, str]:
        app = create_app(make_settings(url, email_verification=True))
        async with app.router.lifespan_context(app), client_of(app) as client:
            answer = await client.post("/login", data={"username": email, "password": password})
            return (200, "") if answer.status_code == 200 else code(answer)

    return asyncio.run(ask())


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

    @on("sqlite")
    def test_the_address_is_verified(self, at_head: URL) -> None:
        """By the admin who adds it: the user can log in without a link, which may not arrive."""
        add()
        assert log_in(at_head, "ada@example.com", PASSWORD) == (200, "")

    @on("sqlite")
    def test_of_the_role_that_settings_name(self, at_head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOG_DEFAULT_ROLE", "reader")
        assert "reader" in add("bob@example.com").output
        assert "author" in add("ada@example.com", role="author").output

    def test_taken(self, at_head: URL) -> None:
        add()
        done = add("ADA@example.com")
        assert (done.exit_code, done.output) == (1, "blog: There is a user with this e-mail address already.\n")

    @on("sqlite")
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"email": "ada"}, "blog: 'ada': "),
            ({"password": "short"}, "blog: password: "),
            ({"password": ""}, "blog: password: "),
            ({"password": "password1"}, "blog: This password is one of the most common ones"),
            ({"password": "the secret of Ada"}, "blog: This password has your name"),
            ({"password": "ada@example.com"}, "blog: This password has your name, your address"),
            ({"name": " "}, "blog: ' ': "),
        ],
    )
    def test_invalid(self, at_head: URL, arguments: dict[str, str], message: str) -> None:
        done = add(**arguments)
        assert done.exit_code == 1
        assert done.output.startswith(message)
        assert len(done.output.splitlines()) == 1

    @on("sqlite")
    def test_too_short_for_the_settings(self, at_head: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOG_PASSWORD_MIN_LENGTH", "30")
        done = add()
        assert (done.exit_code, done.output) == (1, "blog: A password needs at least 30 characters.\n")

    @on("sqlite")
    def test_unknown_role(self, at_head: URL) -> None:
        assert add(role="root").exit_code == 2

    @on("sqlite")
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

    def test_unknown(self, at_head: URL) -> None:
        done = run("user", "block", "nobody@example.com")
        assert done.exit_code == 1
        assert done.output == "blog: There is no user with the address nobody@example.com.\n"


@pytest.mark.parametrize(("command", "typed"), [("block", ""), ("password", "another password\n")])
async def test_every_login_and_token_is_over(at_head: URL, command: str, typed: str) -> None:
    """At once, on a platform that serves meanwhile."""
    app = create_app(make_settings(at_head))
    async with app.router.lifespan_context(app), client_of(app) as client:
        factory = Factory(app)
        user, login = await factory.logged_in()
        script, refresh_token = bearer(await factory.personal_token(user)), await factory.refresh_token(user)
        for headers in (login, script):
            assert (await client.get("/user/me", headers=headers)).status_code == 200
        done = await asyncio.to_thread(run, "user", command, user.email, stdin=typed)
        assert done.exit_code == 0, done.output
        for headers in (login, script):
            assert (await client.get("/user/me", headers=headers)).status_code == 401
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        assert (await client.post("/login", data=form)).status_code == 400


class TestUserRescue:
    def test_a_link_to_a_new_password(self, at_head: URL) -> None:
        add()
        done = run("user", "rescue", "ADA@example.com")
        assert done.exit_code == 0
        link = re.fullmatch(r"http://127\.0\.0\.1:8000/link#password_reset=(blog_link_[\w-]{43})\n", done.stdout)
        assert link
        assert done.stderr == "It is good once, for 30 minutes.\n"

        async def use() -> list[int]:
            app = create_app(make_settings(at_head))
            async with app.router.lifespan_context(app), client_of(app) as client:
                body = {"token": link[1], "password": "another password"}
                return [(await client.post("/password-reset/confirm", json=body)).status_code for _ in range(2)]

        assert asyncio.run(use()) == [204, 400]
        assert knows(user_of(at_head, "ada@example.com"), "another password")

    def test_a_link_ends(self, at_head: URL) -> None:
        add()
        before = now()
        run("user", "rescue", "ada@example.com")

        async def read() -> OneTimeLink:
            database = Database(make_settings(at_head))
            async with database.fresh() as session:
                link = (await session.scalars(sa.select(OneTimeLink))).one()
            await database.aclose()
            return link

        link = asyncio.run(read())
        assert timedelta(minutes=30) <= link.expires_at - before <= timedelta(minutes=31)

    def test_unknown_and_blocked(self, at_head: URL) -> None:
        add()
        run("user", "block", "ada@example.com")
        assert run("user", "rescue", "ada@example.com").output == "blog: ada@example.com is blocked.\n"
        done = run("user", "rescue", "nobody@example.com")
        assert (done.exit_code, done.output) == (1, "blog: There is no user with the address nobody@example.com.\n")


class TestUserPassword:
    @on("sqlite")
    @pytest.mark.parametrize(
        ("password", "reason"), [("password1", "one of the most common"), ("I am ada@example.com", "your address")]
    )
    def test_too_easily_guessed(self, at_head: URL, password: str, reason: str) -> None:
        add()
        done = run("user", "password", "ada@example.com", stdin=f"{password}\n")
        assert done.exit_code == 1
        assert reason in done.output
        assert knows(user_of(at_head, "ada@example.com"), PASSWORD)

    def test_from_a_pipe(self, at_head: URL) -> None:
        add()
        done = run("user", "password", "ada@example.com", stdin="another password\r\n")
        assert (done.exit_code, done.output) == (0, "ada@example.com has a new password.\n")
        user = user_of(at_head, "ada@example.com")
        assert knows(user, "another password")
        assert not knows(user, PASSWORD)

    @on("sqlite")
    def test_the_address_is_verified(self, at_head: URL) -> None:
        """A user who has followed no link can log in afterwards."""

        async def register(session: AsyncSession) -> None:
            await UserRepository(session).add("Ada", "ada@example.com", PASSWORD_HASH, role=Role.AUTHOR)

        in_transaction(at_head, register)
        assert log_in(at_head, "ada@example.com", PASSWORD) == (401, "email_not_verified")
        assert run("user", "password", "ada@example.com", stdin="another password\n").exit_code == 0
        assert log_in(at_head, "ada@example.com", "another password") == (200, "")

    @on("sqlite")
    @pytest.mark.processes
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
            ["images", "ok,"],
        ]
        assert SECRET not in done.output

    def test_not_at_head(self, empty: URL, engine_name: str) -> None:
        if engine_name == "sqlite":
            done = run("check")
            assert done.exit_code == 1
            assert done.output.splitlines()[-1].startswith("blog: database  not made yet")
            Path(str(empty.database)).touch()
        done = run("check")
        assert done.exit_code == 1
        assert done.output.splitlines()[-1] == "blog: schema    not at head. Run: alembic upgrade head"


class TestRender:
    @pytest.fixture
    def written(self, at_head: URL) -> URL:
        """Five blogs that another version rendered, and one of this version."""

        async def write(session: AsyncSession) -> None:
            user = await UserRepository(session).add("Ada", "ada@example.com", "", role=Role.AUTHOR)
            rows = [blog_row(user.id, f"Blog {number}", body=f"*{number}*", renderer=0) for number in range(5)]
            session.add_all([*rows, blog_row(user.id, "New", html="as it is")])

        in_transaction(at_head, write)
        return at_head

    def test_rendered_once(self, written: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command_line, "RENDERED_AT_ONCE", 2)
        assert (run("render").exit_code, run("render").output) == (0, "0 blogs were rendered.\n")
        html = [row.html.strip() for row in in_transaction(written, all_blogs)]
        assert html == [*(f"<p><em>{number}</em></p>" for number in range(5)), "as it is"]

    def test_nothing_there(self, at_head: URL) -> None:
        done = run("render")
        assert (done.exit_code, done.output) == (0, "0 blogs were rendered.\n")

    def test_what_is_written_meanwhile_stands(self, written: URL, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another body comes, and another blog goes, between reading what there is and storing what became of it."""
        render_again = BlogRepository.render_again

        async def late(blogs: BlogRepository, rows: Any) -> None:
            (first, _), (second, _), *_ = rows
            values = {"body": "Other", "html": "other", "revision": 2, "renderer": VERSION}
            await blogs._session.execute(sa.update(Blog).where(col(Blog.id) == first.id).values(**values))
            await blogs._session.execute(sa.delete(Blog).where(col(Blog.id) == second.id))
            await render_again(blogs, rows)

        monkeypatch.setattr(BlogRepository, "render_again", late)
        assert run("render").exit_code == 0
        html = [row.html.strip() for row in in_transaction(written, all_blogs)]
        assert html == ["other", *(f"<p><em>{number}</em></p>" for number in range(2, 5)), "as it is"]


async def all_blogs(session: AsyncSession) -> list[Blog]:
    return list((await session.scalars(sa.select(Blog).order_by(col(Blog.id)))).all())


def in_transaction(url: URL, act: Callable[[AsyncSession], Any]) -> Any:
    async def do() -> Any:
        async with aclosing(Database(make_settings(url))) as database, database.write.begin() as session:
            return await act(session)

    return asyncio.run(do())


@pytest.mark.parametrize("arguments", [["serve"], ["user", "list"], ["check"]])
def test_no_database(
    arguments: list[str], environment: None, engine_name: str, monkeypatch: pytest.MonkeyPatch
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
        monkeypatch.setenv("BLOG_PORT", str(reserved_port()))
        monkeypatch.setattr("signal.signal", lambda *_: None)
        calls: list[dict[str, Any]] = []
        monkeypatch.setattr("uvicorn.run", lambda app, **options: calls.append(options | {"app": app}))
        return calls

    def test_another_schema(self, empty: URL, engine_name: str, served: list[Any]) -> None:
        done = run("serve")
        if engine_name == "sqlite":
            assert done.exit_code == 0, done.output
            assert len(served) == 1
        else:
            assert done.exit_code == 1
            assert done.output.endswith("Run: alembic upgrade head\n")
            assert served == []

    @on("sqlite")
    def test_a_schema_of_a_later_version(self, empty: URL, served: list[Any]) -> None:
        async def pretend(session: AsyncSession) -> None:
            await session.execute(sa.text("UPDATE alembic_version SET version_num = 'later'"))

        alembic.command.upgrade(alembic_config(make_settings(empty)), "head")
        in_transaction(empty, pretend)
        done = run("serve")
        assert done.exit_code == 1
        assert len(done.output.splitlines()) == 1
        assert served == []

    def test_says_where_it_is_and_how_to_make_the_first_admin(
        self, at_head: URL, monkeypatch: pytest.MonkeyPatch, served: list[Any]
    ) -> None:
        port = int(os.environ["BLOG_PORT"])
        done = run("serve")
        assert f"http://127.0.0.1:{port}" in done.output
        assert "/docs" in done.output
        assert "user add --role admin" in done.output
        add(role="admin")
        monkeypatch.setenv("BLOG_DOCS_ENVIRONMENTS", "")
        done = run("serve")
        assert "/docs" not in done.output
        assert "user add --role admin" not in done.output
        for options in served:
            assert (options["app"], options["host"], options["port"]) == ("blog.main:app", "127.0.0.1", port)
            assert options["workers"] == 1
            assert not options["proxy_headers"]
            assert not options["server_header"]

    @on("sqlite")
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


@on("sqlite")
@pytest.mark.processes
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


@on("sqlite")
@pytest.mark.processes
def test_headers_of_the_server(server: str) -> None:
    assert "server" not in httpx.get(f"{server}/blog/", verify=NO_TLS).headers


@on("sqlite")
@pytest.mark.processes
def test_port_in_use(server: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BLOG_PORT": server.rpartition(":")[2]}
    command = [sys.executable, "-m", "blog", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


class TestMediaOrphans:
    def test_nothing(self, at_head: URL) -> None:
        done = run("media", "orphans")
        assert (done.exit_code, done.stdout) == (0, "")

    def test_each_kind(self, at_head: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for bound in ("blog.__main__.ORPHANS_AT_ONCE", "blog.repository.media.ROWS_AT_ONCE"):
            monkeypatch.setattr(bound, 2)
        monkeypatch.setattr("blog.repository.media.TEXTS_AT_ONCE", 1)
        add()
        user = user_of(at_head, "ada@example.com")
        assert user is not None
        picture, folder = remake(image_of("gif"), 10_000), Folder(tmp_path / "media")

        async def fill() -> list[str]:
            async with aclosing(Database(make_settings(at_head))) as database, database.write.begin() as session:
                media, names = MediaRepository(session), []
                for _ in range(5):
                    async with folder.keeping(picture) as name:
                        await media.add(user.id, name, picture, quota=10**9)
                    names.append(name)
                blogs = BlogRepository(session)
                for text in ("Text", f"![]({names[0]}) and ![](/media/{names[1]})", f"<{names[2]}>"):
                    await blogs.add(cast(Any, user), BlogWrite(title="Notes", body=text), render(text))
            await folder.remove(names[3])
            return names

        names = asyncio.run(fill())
        strangers = [".draft-x", "notes.txt", f"{'0' * 32}.png"]
        for stranger in strangers:
            (tmp_path / "media" / stranger).write_text("")
        done = run("media", "orphans")
        assert done.exit_code == 0
        assert sorted(done.stdout.splitlines()) == sorted(
            [
                *(f"file without an image: {stranger}" for stranger in strangers),
                f"image without a file: {names[3]}",
                f"image in no blog: {names[4]}",
            ]
        )
        assert len(list(folder.names())) == 7  # it deletes nothing
