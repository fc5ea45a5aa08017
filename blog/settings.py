"""Every knob, its default and its reason."""

import os
import re
import secrets
import tempfile
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    # One dialect name for both, so that a table's `mysql_` options hold on both.
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
}

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key is at least as long as its hash."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

PASSWORD_MAX_LENGTH = 128
"""Characters: long enough for any passphrase, short enough to be cheap to refuse."""


def _seconds(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _origin(value: str) -> str:
    # Without this a `*` would do, and with a path or a slash at the end no browser's Origin is ever equal to it.
    if not ORIGIN.fullmatch(value):
        raise ValueError("an origin is a scheme, a host and maybe a port, as in https://app.example.com")
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError("an address or a network, as in 10.0.0.0/8") from None


ItemT = TypeVar("ItemT")
Duration = Annotated[timedelta, BeforeValidator(_seconds)]
Several = Annotated[frozenset[ItemT], NoDecode, BeforeValidator(_split)]
Host = Annotated[str, StringConstraints(to_lower=True, pattern=r"^([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])$")]
Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]


class Environment(StrEnum):
    """Where the platform runs."""

    LOCAL = "local"
    STAGING = "staging"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """Read from environment variables with the prefix `BLOG_`, then from `.env`.

    Durations are seconds (`900`) or ISO 8601 (`PT15M`).
    """

    model_config = SettingsConfigDict(
        env_prefix="BLOG_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    environment: Environment = Field(
        Environment.LOCAL, description="`local`, `staging` or `production`, which demands a secret key of yours."
    )
    database_url: SecretStr = Field(
        SecretStr("sqlite:///./blog.db"),
        description="Where everything is stored: `sqlite:///FILE`, `postgresql://…`, `mysql://…` or `mariadb://…`.",
    )
    database_read_url: SecretStr | None = Field(
        None, description="A replica of the same database, for reading pages and lists; logins ask the first one."
    )
    database_pool_size: int = Field(
        10,
        ge=1,
        le=1000,
        description="Connections that each worker keeps to PostgreSQL or MariaDB for writing, and as many for reading.",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Signs tokens and cursors, at least 32 bytes. "
        "With SQLite outside production one is made on first start and kept beside the database.",
    )
    other_secret_keys: Several[SecretStr] = Field(
        frozenset(),
        description="Keys that verify but sign nothing, with commas between: the one before, until its tokens are "
        "over, or the next one, while machines are changed one by one.",
    )
    base_url: AnyHttpUrl = Field(
        AnyHttpUrl("http://127.0.0.1:8000"),
        description="The address under which people reach the platform: issuer and audience of its tokens, and where "
        "its links lead. With another `BLOG_PORT` it has that port.",
    )
    access_token_lifetime: Duration = Field(
        timedelta(minutes=15),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="How long an access token lasts, an hour at most; then it is refreshed.",
    )
    refresh_token_lifetime: Duration = Field(
        timedelta(days=14),
        ge=timedelta(seconds=1),
        le=timedelta(days=365),
        description="How long a login lasts that is not used: each use of its refresh token begins it anew.",
    )
    login_lifetime: Duration = Field(
        timedelta(days=90),
        ge=timedelta(seconds=1),
        le=timedelta(days=3650),
        description="How long a login lasts that is used, before the password is asked for again.",
    )
    registration: Literal["open", "invited", "closed"] = Field(
        "open",
        description="`open`: anyone may register. `invited`: whoever has an admin's invitation. "
        "`closed`: only admins add users, on the command line.",
    )
    email_verification: bool = Field(
        False,
        description="`true`: users log in only once they have followed a link that was sent to their address.",
    )
    smtp_url: SecretStr | None = Field(
        None,
        description="Where mail goes out: `smtp://USER:PASSWORD@HOST:587` (STARTTLS, which a password demands) or "
        "`smtps://…`. Without it none is sent; `local` writes to the log what would be.",
    )
    mail_from: str | None = Field(None, description="The sender's address of that mail.")
    default_role: Literal["reader", "author"] = Field(
        "author", description="What a new user may do: `author` or `reader`."
    )
    password_min_length: int = Field(
        8, ge=8, le=64, description="Characters a new password needs. 15 is NIST's figure for a lone factor."
    )
    password_rounds: int = Field(
        12,
        ge=4,
        le=16,
        description="bcrypt's cost, as a power of two; 12 takes about 0.3 s of one core for each login.",
    )
    docs_environments: Several[Environment] = Field(
        frozenset({Environment.LOCAL, Environment.STAGING}),
        description="Environments that serve `/docs`, `/redoc`, `/openapi.json` and `/asyncapi.json`, "
        "with commas between.",
    )
    metrics: bool = Field(
        False,
        description="`true` serves `/metrics` for Prometheus, to everybody who reaches it: close it at the proxy.",
    )
    login_failure_limit: int = Field(
        10,
        ge=1,
        le=100,
        description="Wrong passwords in a minute from one address, and for one account, before the next is 429.",
    )
    request_limit: int | None = Field(
        None,
        ge=1,
        description="Requests in a minute from one address before the next is 429; each worker counts for itself. "
        "Without it there is no such limit.",
    )
    body_limit: int = Field(
        3 * 2**20,
        ge=2**16,
        le=2**30,
        description="Bytes that the body of a request may have. "
        "A blog of the greatest length has up to 2.4 million when it is written in `\\u` escapes.",
    )
    media_folder: Path = Field(
        Path("media"), description="Where images are stored: a folder, made on first start; all workers share one."
    )
    media_size_limit: int = Field(
        10 * 2**20, ge=2**16, le=2**30, description="Bytes that an image may have when it is uploaded."
    )
    media_pixel_limit: int = Field(
        25_000_000,
        ge=1_000_000,
        le=150_000_000,
        description="Pixels that an image may have, in all its frames together; those of WebP and AVIF count twice. "
        "Each worker takes up to 20 MB a million while it looks at one.",
    )
    media_quota: int = Field(
        500 * 2**20,
        ge=0,
        description="Bytes that the images of one author may take together, each at least 4096.",
    )
    room_socket_limit: int = Field(
        5_000, ge=1, description="WebSockets that a room takes in each worker; each needs some 30 kB."
    )
    user_socket_limit: int = Field(400, ge=1, description="WebSockets that one user may have open at each worker.")
    address_socket_limit: int = Field(
        2_000, ge=1, description="WebSockets that may be open at each worker from one address."
    )
    allowed_hosts: Several[Host] = Field(
        frozenset(),
        description="Names under which people may reach the platform besides the base URL's, `BLOG_HOST`, `localhost` "
        "and the loopback addresses, with commas between.",
    )
    cors_origins: Several[Origin] = Field(
        frozenset(),
        description="Web sites whose scripts may use the API and join rooms, as in `https://app.example.com`, with "
        "commas between.",
    )
    trusted_proxies: Several[Network] = Field(
        frozenset(),
        description="Addresses or networks of the proxies in front, with commas between; only their `X-Forwarded-For` "
        "and `X-Forwarded-Proto` are believed.",
    )
    site_title: str = Field(
        "Blog", min_length=1, max_length=100, description="The site's name, on its pages and feeds."
    )
    site_description: str = Field("", max_length=300, description="What the site is about, in a sentence.")
    site_language: str = Field(
        "en",
        pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$",
        description="The language that most of it is written in, as in `en` or `pt-BR`.",
    )
    site_page_size: int = Field(10, ge=1, le=50, description="Posts on a page.")
    site_accent: str = Field(
        "#0a5fb0", pattern=r"^#[0-9a-fA-F]{6}$", description="The colour of links on pages, as in `#0a5fb0`."
    )
    site_templates: Path | None = Field(
        None,
        description="A folder with templates that go before those of the same name in `blog/site/templates`.",
    )
    host: str = Field("127.0.0.1", description="The address that `start` listens on.")
    port: int = Field(8000, ge=1, le=65535, description="The port that `start` listens on.")
    workers: int = Field(1, ge=1, le=64, description="Processes that serve. SQLite has one writer, so it takes one.")

    @model_validator(mode="before")
    @classmethod
    def _base_url_of_port(cls, values: dict[str, Any]) -> dict[str, Any]:
        port = str(values.get("port", ""))
        if port.isdecimal() and not values.get("base_url"):
            return {**values, "base_url": f"http://127.0.0.1:{port}"}
        return values

    @field_validator(
        "database_read_url", "secret_key", "smtp_url", "mail_from", "request_limit", "site_templates", mode="before"
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("database_url", "database_read_url")
    @classmethod
    def _known_engine(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            url = with_driver(value)
            if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
                raise ValueError("SQLite needs a file, as in sqlite:///./blog.db")
            if url.get_backend_name() != "sqlite" and not url.database:
                raise ValueError("the URL names no database")
        return value

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"shorter than {MIN_SECRET_BYTES} bytes; make one with: openssl rand -hex 32")
        return value

    @field_validator("other_secret_keys")
    @classmethod
    def _all_long_enough(cls, values: frozenset[SecretStr]) -> frozenset[SecretStr]:
        for value in values:
            cls._long_enough(value)
        return values

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            try:
                url = urlsplit(text)
                # What is wrong with a name is found here and not with the first mail.
                host = url.hostname and url.hostname.encode("idna")
                known = url.scheme in ("smtp", "smtps") and host and url.port != 0
            except ValueError:
                known = False
            # `urlsplit` takes line breaks away, and a space is in no name.
            if not known or not text.isprintable() or " " in text:
                raise ValueError("not a mail server, as in smtp://user:password@mail.example.com:587")
        return value

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                validate_email(value, check_deliverability=False)
            except EmailNotValidError:
                raise ValueError("not an e-mail address, as in blog@example.com") from None
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.secret_key is None and (not self.embedded or self.environment is Environment.PRODUCTION):
            raise ValueError("BLOG_SECRET_KEY is needed here; make one with: openssl rand -hex 32")
        if self.embedded and self.workers > 1:
            raise ValueError("BLOG_WORKERS: SQLite has one writer, so it is served by one process")
        if self.embedded and self.database_read_url is not None:
            raise ValueError("BLOG_DATABASE_READ_URL: SQLite has no replicas")
        if self.smtp_url is not None and self.mail_from is None:
            raise ValueError("BLOG_MAIL_FROM is needed with BLOG_SMTP_URL")
        if self.email_verification and self.smtp_url is None and self.environment is not Environment.LOCAL:
            raise ValueError("BLOG_EMAIL_VERIFICATION needs BLOG_SMTP_URL here, or nobody could log in")
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key that signs, and behind it those that verify too. Raises ValueError without one."""
        if self.secret_key is None:
            raise ValueError("an app needs a secret key")
        return tuple(key.get_secret_value() for key in (self.secret_key, *self.other_secret_keys))

    @property
    def issuer(self) -> str:
        """The base URL without a slash at its end: issuer and audience of tokens, and what links begin with."""
        return str(self.base_url).rstrip("/")

    @property
    def url(self) -> URL:
        """The database's URL, with its driver."""
        return with_driver(self.database_url)

    @property
    def read_url(self) -> URL:
        """The replica's URL with its driver; without a replica the database's own."""
        return with_driver(self.database_read_url or self.database_url)

    @property
    def embedded(self) -> bool:
        """Whether the database is a file of this process's own: SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def known_hosts(self) -> frozenset[str]:
        """Every name that a request's Host header may have, in lower case and without a port."""
        named = {str(self.base_url.host).lower(), self.host.lower(), f"[{self.host.lower()}]"}
        return self.allowed_hosts | LOOPBACK | named

    @property
    def serves_docs(self) -> bool:
        """Whether this environment is one that shows its API documentation."""
        return self.environment in self.docs_environments


def with_driver(url: SecretStr) -> URL:
    """The URL with the async driver of its engine.

    Raises ValueError, without the URL in it, for an engine or driver that is not ours.
    """
    try:
        parsed = make_url(url.get_secret_value())
    except ArgumentError:
        raise ValueError("not a database URL, as in postgresql://user:password@host/name") from None
    driver = DRIVERS.get(parsed.get_backend_name())
    if driver is None or parsed.drivername not in (parsed.get_backend_name(), driver):
        raise ValueError(f"the engine is one of {', '.join(DRIVERS)}")
    return parsed.set(drivername=driver)


def read_settings() -> Settings:
    """The settings of this process, complete with a secret key.

    A bad one ends the program with a line for each fault on standard error and code 1,
    and never with what was set, which may be a secret.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise SystemExit("\n".join(_faults(error))) from None
    if settings.secret_key is not None:
        return settings
    try:
        secret_key = _kept_secret(settings)
    except OSError as error:
        raise SystemExit(f"blog: no secret key beside the database: {error}") from None
    return settings.model_copy(update={"secret_key": secret_key})


def _faults(error: ValidationError) -> list[str]:
    faults = []
    for fault in error.errors(include_input=False, include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        name = f"BLOG_{fault['loc'][0]}: ".upper() if fault["loc"] else ""
        faults.append(f"blog: {name}{message}")
    return faults


def _kept_secret(settings: Settings) -> SecretStr:
    database = settings.url.database
    assert database is not None  # noqa: S101  (the validator has seen it)
    kept = Path(f"{database}.key")
    if not kept.exists():
        # Written whole under another name and linked, so that two first starts agree on one key
        # and none reads half of it; mkstemp gives the mode 0600.
        handle, draft = tempfile.mkstemp(dir=kept.parent, prefix=kept.name)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(MIN_SECRET_BYTES))
        try:
            os.link(draft, kept)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    secret = kept.read_text().strip()
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise SystemExit(f"blog: {kept} holds less than {MIN_SECRET_BYTES} bytes; remove it and start again")
    return SecretStr(secret)
