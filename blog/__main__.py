"""The command line: one function a command."""

import asyncio
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from html import escape
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import alembic.command
import typer
from alembic.util import CommandError
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from blog import markdown, server
from blog.database import Database, alembic_config
from blog.errors import Refusal, Unrenderable
from blog.links import LIFETIMES, link_to
from blog.markdown import Rendered
from blog.media import NAME, Folder
from blog.models import Purpose, Role, User, now
from blog.repository.blog import BlogRepository
from blog.repository.link import LinkRepository
from blog.repository.media import MediaRepository
from blog.repository.user import UserRepository
from blog.schemas.types import PAGE_LIMIT, Email, Name, NewPassword, PageRequest
from blog.security.passwords import PasswordHasher
from blog.settings import Settings, read_settings

ResultT = TypeVar("ResultT")

RENDERED_AT_ONCE = 50
"""Blogs that one transaction renders anew."""
ORPHANS_AT_ONCE = 500
"""Files that are looked up with one statement."""

SAFE_SQLITE = (3, 51, 3)
"""The first without the fault in resetting the write-ahead log that can damage a database."""

cli = typer.Typer(help="The blog platform.", no_args_is_help=True, pretty_exceptions_enable=False)
users_cli = typer.Typer(help="Add, list and block users.", no_args_is_help=True)
media_cli = typer.Typer(help="Look after images.", no_args_is_help=True)
cli.add_typer(users_cli, name="user")
cli.add_typer(media_cli, name="media")

EmailArgument = Annotated[str, typer.Argument(metavar="EMAIL", help="The user's e-mail address, in any case.")]


@users_cli.command("add")
def add_user(
    email: Annotated[str, typer.Option(prompt="E-mail")],
    name: Annotated[str, typer.Option(prompt=True)],
    role: Annotated[Role | None, typer.Option(help="Without it, what the settings give everybody.")] = None,
) -> None:
    """Add a user. The password is asked for, or read from a pipe."""
    email, name, password = _valid(Email, email), _valid(Name, name), _read_password()
    settings = _prepare()
    password_hash = _hash(settings, password, name=name, email=email)
    given = role or Role(settings.default_role)
    user = _with_users(settings, lambda users: users.add(name, email, password_hash, role=given, verified=True))
    print(f"{user.email} is user {user.id}, {user.role.value}.")


@users_cli.command("list")
def list_users() -> None:
    """List all users, the newest first."""
    table = Table("id", "e-mail", "name", "role", "active", "since")

    async def fill(users: UserRepository) -> None:
        after = None
        while True:
            page = await users.page(PageRequest(PAGE_LIMIT, after))
            for user in page.rows:
                active = "yes" if user.is_active else "blocked"
                table.add_row(str(user.id), user.email, user.name, user.role.value, active, f"{user.created_at:%F}")
            after = page.next
            if after is None:
                return

    _with_users(_prepare(), fill, reads_only=True)
    Console().print(table)


@users_cli.command("block")
def block_user(email: EmailArgument) -> None:
    """Block a user; every login is over at once."""

    async def block(users: UserRepository) -> None:
        await users.update(await _find(users, email), {"is_active": False})

    _with_users(_prepare(), block)
    print(f"{email} is blocked.")


@users_cli.command("password")
def set_password(email: EmailArgument) -> None:
    """Set a user's password, asked for or read from a pipe; every login and token is over at once."""
    password = _read_password()
    settings = _prepare()
    user = _with_users(settings, lambda users: _find(users, email), reads_only=True)
    password_hash = _hash(settings, password, name=user.name, email=user.email)

    async def change(users: UserRepository) -> None:
        await users.change_password(await _find(users, email), password_hash, email_verified_at=now())

    _with_users(settings, change)
    print(f"{email} has a new password.")


@users_cli.command("rescue")
def rescue_user(email: EmailArgument) -> None:
    """Print a one-time link by which a user sets a new password, where no mail arrives."""
    settings = _prepare()
    purpose = Purpose.PASSWORD_RESET

    async def make(session: AsyncSession) -> str:
        user = await _find(UserRepository(session), email)
        if not user.is_active:
            _fail(f"{email} is blocked.")
        _, token = await LinkRepository(session).add(user.id, purpose, LIFETIMES[purpose])
        return link_to(settings.issuer, purpose, token)

    print(_in_transaction(settings, make))
    print(f"It is good once, for {LIFETIMES[purpose].total_seconds() / 60:.0f} minutes.", file=sys.stderr)


@media_cli.command("orphans")
def list_orphans() -> None:
    """List files that are no image's, images whose file is missing, and images that no blog names.

    It deletes nothing. An upload under way may be among the first.
    """
    settings = _prepare()
    folder = Folder(settings.media_folder)

    async def look(session: AsyncSession) -> None:
        media = MediaRepository(session)
        for names in _batched(folder.names(), ORPHANS_AT_ONCE):
            known = await media.known(names)
            for name in sorted(set(names) - known):
                print(f"file without an image: {name}")
        used = {name async for text in media.texts() for name in NAME.findall(text)}
        async for name in media.names():
            if await folder.find(name) is None:
                print(f"image without a file: {name}")
            elif name not in used:
                print(f"image in no blog: {name}")

    _in_transaction(settings, look, reads_only=True)


def _batched(names: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(names)
    while batch := list(islice(remaining, size)):
        yield batch


@cli.command()
def render() -> None:
    """Render blogs anew that another version of the platform rendered, and let searches find them."""
    print(f"{_render(_prepare())} blogs were rendered.")


@cli.command()
def serve() -> None:
    """Serve the platform. SQLite is brought to the current schema; other engines must be at it."""
    settings = _prepare()
    if settings.embedded and (rendered := _render(settings)):
        print(f"{rendered} blogs were rendered by this version of the platform.")
    _prepare_folder(settings)
    try:
        # Found out before anything says that it is there; uvicorn would say it among other things.
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        _fail(f"Cannot listen on {settings.host}, port {settings.port}: {str(error.strerror).partition(' (')[0]}")
    address = f"http://{settings.host}:{settings.port}"
    print(f"The platform is at {address}" + (f", its documentation at {address}/docs" if settings.serves_docs else ""))
    if not _with_users(settings, UserRepository.has_admin, reads_only=True):
        print(f"There is no admin yet. Make one with: {sys.executable} -m blog user add --role admin")
    if settings.embedded and sqlite3.sqlite_version_info < SAFE_SQLITE:
        print(
            f"SQLite here is {sqlite3.sqlite_version}; 3.51.3 mends a fault by which a file may be damaged "
            "when several processes write to it at once."
        )
    sys.stdout.flush()
    # To stop when asked is no failure; uvicorn raises the signal once more when its last request is answered.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.run(settings)


@cli.command()
def check() -> None:
    """Check settings, database, schema and the folder of images; exit code 1 when one of them is wrong."""
    settings = read_settings()
    print(f"settings  ok, {settings.environment.value}")
    if settings.embedded and not Path(str(settings.url.database)).exists():
        _fail(f"database  not made yet at {settings.url}. Make it with: python -m blog serve")
    try:
        at_head = _with_database(settings, Database.is_at_head)
    except (SQLAlchemyError, OSError) as error:
        _fail(f"database  does not answer at {settings.url}: {_first_line(error)}")
    print(f"database  ok, {settings.url}")
    if not at_head:
        _fail("schema    not at head. Run: alembic upgrade head")
    print("schema    ok, at head")
    _prepare_folder(settings)
    print(f"images    ok, {settings.media_folder}")


def _prepare() -> Settings:
    """The settings, once the schema is what the code expects: SQLite is brought to it, and made when there is none."""
    settings = read_settings()
    try:
        if settings.embedded:
            alembic.command.upgrade(alembic_config(settings), "head")
        elif not _with_database(settings, Database.is_at_head):
            _fail("The database's schema is not the one of this version. Run: alembic upgrade head")
    except CommandError as error:
        _fail(_first_line(error))
    except (SQLAlchemyError, OSError) as error:
        _fail(f"The database does not answer at {settings.url}: {_first_line(error)}")
    return settings


def _render(settings: Settings) -> int:
    """How many blogs had been rendered by another version; some at a time, so that others can write meanwhile."""

    async def render_some(database: Database, last: int) -> tuple[int, int]:
        async with database.fresh() as fresh:
            rows = await BlogRepository(fresh).rendered_before(last, RENDERED_AT_ONCE)
        if rows:
            rendered = [(row, _rendered(row.id, row.body)) for row in rows]
            async with database.write.begin() as session:
                await BlogRepository(session).render_again(rendered)
            last = rows[-1].id
        return last, len(rows)

    async def render_all(database: Database) -> int:
        last = number = 0
        while True:
            last, more = await render_some(database, last)
            if not more:
                return number
            number += more

    return _telling(lambda: _with_database(settings, render_all))


def _rendered(blog_id: int, body: str) -> Rendered:
    try:
        return markdown.render(body)
    except Unrenderable:
        # Written before there were bounds: it is shown as it stands.
        print(f"blog: the body of blog {blog_id} cannot be turned into a page", file=sys.stderr)
        return Rendered(f"<pre>{escape(body)}</pre>", body)


def _prepare_folder(settings: Settings) -> None:
    try:
        Folder(settings.media_folder).prepare()
    except OSError as error:
        _fail(f"Images cannot be stored in {settings.media_folder}: {error.strerror}")


def _with_database(settings: Settings, act: Callable[[Database], Awaitable[ResultT]]) -> ResultT:
    async def run() -> ResultT:
        async with aclosing(Database(settings)) as database:
            return await act(database)

    return asyncio.run(run())


def _in_transaction(
    settings: Settings, act: Callable[[AsyncSession], Awaitable[ResultT]], *, reads_only: bool = False
) -> ResultT:
    """Act in one transaction, or without one where nothing is written."""

    async def run(database: Database) -> ResultT:
        async with database.fresh() if reads_only else database.write.begin() as session:
            return await act(session)

    return _telling(lambda: _with_database(settings, run))


def _telling(act: Callable[[], ResultT]) -> ResultT:
    """Act, or end with a line that says why not."""
    try:
        return act()
    except Refusal as refusal:
        _fail(refusal.detail)
    except (SQLAlchemyError, OSError) as error:
        _fail(f"The database does not answer: {_first_line(error)}")


def _with_users(
    settings: Settings, act: Callable[[UserRepository], Awaitable[ResultT]], *, reads_only: bool = False
) -> ResultT:
    return _in_transaction(settings, lambda session: act(UserRepository(session)), reads_only=reads_only)


async def _find(users: UserRepository, email: str) -> User:
    user = await users.get_by_email(email)
    if user is None:
        _fail(f"There is no user with the address {email}.")
    return user


def _hash(settings: Settings, password: str, *, name: str, email: str) -> str:
    try:
        hasher = PasswordHasher(settings.password_rounds, settings.password_min_length, str(settings.base_url.host))
        hasher.refuse_weak(password, name=name, email=email)
        return asyncio.run(hasher.hash(password))
    except (RuntimeError, Refusal) as error:
        _fail(str(error))


def _read_password() -> str:
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    return _valid(NewPassword, password, name="password")


def _valid(kind: Any, value: str, *, name: str | None = None) -> str:
    try:
        return TypeAdapter[str](kind).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        _fail(f"{name or repr(value)}: {fault}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _fail(message: str) -> NoReturn:
    print(f"blog: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    cli()
