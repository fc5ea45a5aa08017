"""Mail goes out through a real server, and nothing secret goes to one that nobody knows."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from blog import mail
from blog.app import create_app
from blog.mail import Mail, Mailer
from tests.conftest import HANG, client_of, make_settings
from tests.factories import Factory
from tests.ports import reserved_port

MAIL = Mail("Ada@example.com", "Greetings", "Some words, ünd more.", "https://blog.example.com/link#x=y")


class Post:
    """A mail server's other side: what it took in, and who logged in."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.refusals = 0

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refusals:
            self.refusals -= 1
            return "451 Later"
        self.envelopes.append((session.ssl is not None, envelope.mail_from, envelope.rcpt_tos))
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        return "250 OK"

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss word")


Start = Callable[..., str]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def start(post: Post) -> Iterator[Start]:
    """Starts a mail server on the loopback; its address."""
    controllers: list[Controller] = []

    def run(**options: Any) -> str:
        port = reserved_port()
        controller = Controller(post, hostname="127.0.0.1", port=port, authenticator=post.authenticate, **options)
        controller.start()
        controllers.append(controller)
        return f"127.0.0.1:{port}"

    yield run
    for controller in controllers:
        # It stops as it is, and what is closing then stays half closed.
        asyncio.run_coroutine_threadsafe(nobody_is_connected(), controller.loop).result(timeout=HANG)
        controller.stop()


async def nobody_is_connected() -> None:
    """Wait until everybody has left whom this loop serves, a task each."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    await no_tls_is_open()


async def no_tls_is_open() -> None:
    """Close each connection of this loop whose other end has not said yet that TLS is over."""
    loop: Any = asyncio.get_running_loop()
    for transport in list(loop._transports.values()):
        if isinstance(transport.get_protocol(), asyncio.sslproto.SSLProtocol):
            transport.abort()
    await asyncio.sleep(0)  # in which a transport that was closed is lost


@pytest.fixture(autouse=True)
async def hung_up() -> AsyncIterator[None]:
    yield
    await no_tls_is_open()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    private = serialization.PrivateFormat.PKCS8
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate)
    return made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "PAUSES", (0, 0, 0))


def mailer(url: str | None, **changes: Any) -> Mailer:
    return Mailer(make_settings(smtp_url=url, mail_from="blog@example.com", **changes))


async def test_sent(post: Post, start: Start) -> None:
    await mailer(f"smtp://{start()}").send(MAIL)
    (message,) = post.mails
    assert (message["From"], message["To"], message["Subject"]) == ("blog@example.com", MAIL.to, MAIL.subject)
    assert message.get_content().splitlines() == [MAIL.text, "", MAIL.link]
    assert post.envelopes == [(False, "blog@example.com", [MAIL.to])]


async def test_encrypted_where_the_server_offers_it(
    post: Post, start: Start, context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await mailer(f"smtp://{start(tls_context=context)}").send(MAIL)
    assert post.envelopes == [(True, "blog@example.com", [MAIL.to])]


@pytest.mark.parametrize("user", ["blog", "bl%C3%B6g"])
async def test_with_a_password(
    post: Post, start: Start, context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await mailer(f"smtp://{user}:p%40ss%20word@{start(tls_context=context)}").send(MAIL)
    assert post.logins == [(unquote(user).encode(), b"p@ss word")]
    assert len(post.mails) == 1


async def test_over_tls_from_the_first_byte(
    post: Post, start: Start, context: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await mailer(f"smtps://{start(ssl_context=context)}").send(MAIL)
    assert len(post.mails) == 1


@pytest.mark.parametrize("encrypts", [False, True])
async def test_no_password_for_a_server_that_nobody_knows(
    post: Post, start: Start, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture, encrypts: bool
) -> None:
    """It offers no encryption, or shows a certificate of its own."""
    options: dict[str, Any] = {"tls_context": context} if encrypts else {"auth_require_tls": False}
    await mailer(f"smtp://blog:p%40ss%20word@{start(**options)}").send(MAIL)
    assert post.logins == []
    assert post.mails == []
    assert [record.getMessage() for record in caplog.records if record.name == "blog.mail"] == ["mail was not sent"] * 3


async def test_tried_again(post: Post, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    post.refusals = 2
    await mailer(f"smtp://{start()}").send(MAIL)
    assert len(post.mails) == 1
    assert [record.levelname for record in caplog.records if record.name == "blog.mail"] == ["ERROR"] * 2


async def test_given_up(caplog: pytest.LogCaptureFixture) -> None:
    await mailer("smtp://blog:secret@127.0.0.1:9").send(MAIL)
    lines = [record for record in caplog.records if record.name == "blog.mail"]
    assert [record.__dict__["fields"]["error"] for record in lines] == ["SMTPConnectError"] * 3
    for secret in ("secret", MAIL.to, "x=y"):
        assert secret not in caplog.text


async def test_a_domain_in_letters_of_its_own(post: Post, start: Start) -> None:
    """A server that knows ASCII only delivers it too."""
    await mailer(f"smtp://{start(enable_SMTPUTF8=False)}").send(MAIL._replace(to="ada@bücher.example.com"))
    assert post.envelopes == [(False, "blog@example.com", ["ada@xn--bcher-kva.example.com"])]


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The address of a server that takes connections and says nothing."""
    connections: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for writer in connections:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    await server.wait_closed()


async def test_a_server_that_hangs_is_given_up(
    silent: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "TIMEOUT", 0.05)
    await mailer(silent).send(MAIL)
    lines = [record for record in caplog.records if record.name == "blog.mail"]
    assert [record.__dict__["fields"]["error"] for record in lines] == ["TimeoutError"] * 3


async def test_the_platform_stops_meanwhile(silent: str, caplog: pytest.LogCaptureFixture) -> None:
    """At once, with a line for each mail that was not sent and no traceback."""
    sender = mailer(silent)
    sending = [asyncio.create_task(sender.send(MAIL)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in sending:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*sending), timeout=HANG)
    lines = [record for record in caplog.records if record.name == "blog.mail"]
    assert [record.__dict__["fields"]["error"] for record in lines] == ["the server stops"] * 10


async def test_so_many_wait_and_no_more(
    silent: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "MOST_MAILS", 2)
    monkeypatch.setattr(mail, "TIMEOUT", 0.05)
    sender = mailer(silent)
    await asyncio.gather(*(sender.send(MAIL) for _ in range(5)))
    reasons = [record.__dict__["fields"]["error"] for record in caplog.records if record.name == "blog.mail"]
    assert reasons.count("too many wait for the mail server") == 3
    caplog.clear()
    await sender.send(MAIL)
    assert "too many" not in str([record.__dict__["fields"] for record in caplog.records])


async def test_without_a_server_it_is_in_the_log_at_home(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await mailer(None).send(MAIL)
    (record,) = caplog.records
    assert record.getMessage() == "mail: Greetings Some words, ünd more."
    assert record.__dict__["fields"] == {"to": MAIL.to, "link": MAIL.link}


async def test_without_a_server_it_is_nowhere_in_production(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await mailer(None, environment="production").send(MAIL)
    assert [record.getMessage() for record in caplog.records] == ["no mail was sent: BLOG_SMTP_URL is not set"]
    assert "x=y" not in caplog.text
    assert MAIL.to not in str(caplog.records[0].__dict__)


@pytest.mark.parametrize("hostile", ["a@example.com\r\nBcc: eve@example.com", "a@example.com\n\nHello"])
async def test_a_header_is_one_line(post: Post, start: Start, hostile: str) -> None:
    with pytest.raises(ValueError, match="invalid characters"):
        await mailer(f"smtp://{start()}").send(MAIL._replace(to=hostile))
    assert post.mails == []


async def test_the_whole_way(app: Any, factory: Factory, post: Post, start: Start) -> None:
    """From the request to the mail, and by its link to a new password."""
    user = await factory.user()
    settings = app.state.settings.model_copy(
        update={"smtp_url": make_settings(smtp_url=f"smtp://{start()}", mail_from="x@example.com").smtp_url}
        | {"mail_from": "blog@example.com"}
    )
    another = create_app(settings)
    async with another.router.lifespan_context(another), client_of(another) as client:
        assert (await client.post("/password-reset", json={"email": user.email})).status_code == 202
        link = post.mails[0].get_content().splitlines()[2]
        token = link.partition("#password_reset=")[2]
        body = {"token": token, "password": "a new password"}
        assert (await client.post("/password-reset/confirm", json=body)).status_code == 204
    assert [message["Subject"] for message in post.mails] == ["Set a new password", "Your password was changed"]
    assert [message["To"] for message in post.mails] == [user.email] * 2
