"""A real server and raw bytes: what no HTTP client would send, and what is answered."""

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx
import pytest

from blog.settings import Settings
from tests.answers import code
from tests.conftest import HANG, NO_TLS, SECRET, serving

pytestmark = pytest.mark.processes

MALFORMED, UNKNOWN_HOST = (400, "malformed_request"), (400, "unknown_host")
NOT_FOUND, NOT_ALLOWED, TOO_LARGE = (404, "not_found"), (405, "method_not_allowed"), (413, "content_too_large")
HEADERS_TOO_LARGE = (431, "headers_too_large")
LIMIT: int = Settings.model_fields["body_limit"].default


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOG_SECRET_KEY", SECRET)
        patch.setenv("BLOG_PASSWORD_ROUNDS", "4")
        with serving(folder) as address:
            yield address


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def code(self) -> tuple[int, str]:
        asked = httpx.Request("GET", "/")  # whatever it was: httpx could not say most of it
        return code(httpx.Response(self.status, headers=self.headers.items(), content=self.content, request=asked))


class Connection:
    """A socket on which answers are read as they come."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        assert parts.port is not None
        self.socket = socket.create_connection((parts.hostname, parts.port), HANG)
        self._file = self.socket.makefile("rb")
        self._host = f"Host: {parts.netloc}\r\n".encode()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, raw: bytes) -> None:
        """`<host>` in it stands for the Host header that is right. A server that has heard enough may close."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(raw.replace(b"<host>", self._host))

    def read(self, method: str = "GET") -> Answer:
        version, status, _ = self._file.readline().split(b" ", 2)
        assert version == b"HTTP/1.1"
        headers = http.client.parse_headers(self._file)
        length = 0 if method == "HEAD" else int(headers["Content-Length"])
        return Answer(int(status), headers, self._file.read(length))

    def is_closed(self) -> bool:
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


def ask(server: str, raw: bytes, method: str = "GET") -> Answer:
    with Connection(server) as connection:
        connection.send(raw)
        return connection.read(method)


def post(*headers: bytes, body: bytes = b"", path: bytes = b"/blog/") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n<host>" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


def get(path: bytes = b"/health", *headers: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n<host>" + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


def is_alive(server: str) -> bool:
    return httpx.get(f"{server}/health", verify=NO_TLS).status_code == 200


CHUNKED = b"Transfer-Encoding: chunked"

REFUSED: dict[str, tuple[bytes, tuple[int, str]]] = {
    # Who is asked.
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", UNKNOWN_HOST),
    "two hosts": (get(b"/health", b"Host: evil.example"), UNKNOWN_HOST),
    "one host twice": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n", UNKNOWN_HOST),
    "empty host": (b"GET /health HTTP/1.1\r\nHost:\r\n\r\n", UNKNOWN_HOST),
    "another host": (b"GET /blog HTTP/1.1\r\nHost: evil.example\r\n\r\n", UNKNOWN_HOST),
    "another host, with a slash": (b"GET /blog/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", UNKNOWN_HOST),
    "host with a path": (b"GET /health HTTP/1.1\r\nHost: a/b?c\r\n\r\n", UNKNOWN_HOST),
    "host with a user": (b"GET /health HTTP/1.1\r\nHost: evil.example@127.0.0.1\r\n\r\n", UNKNOWN_HOST),
    "host with a fragment": (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1#.evil.example\r\n\r\n", UNKNOWN_HOST),
    "host that is no text": (b"GET /health HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", UNKNOWN_HOST),
    "host of 10 kB": (b"GET /health HTTP/1.1\r\nHost: " + b"x" * 10_000 + b"\r\n\r\n", UNKNOWN_HOST),
    # What is asked.
    "TRACE": (get(b"/health", method=b"TRACE"), NOT_ALLOWED),
    "PUT": (get(b"/blog", method=b"PUT"), NOT_ALLOWED),
    "PROPFIND": (get(b"/blog/", method=b"PROPFIND"), NOT_ALLOWED),
    "BREW": (get(b"/blog/", method=b"BREW"), MALFORMED),
    "get": (get(method=b"get"), MALFORMED),
    "no method": (get(method=b""), MALFORMED),
    "two slashes": (get(b"//blog"), NOT_FOUND),
    "another host for a path": (get(b"//evil.example/%2e%2e"), NOT_FOUND),
    "dots": (get(b"/%2e%2e/etc/passwd"), NOT_FOUND),
    "more dots": (get(b"/static-offline-docs/../../../../../../etc/passwd"), NOT_FOUND),
    "byte that is no text": (get(b"/%ff"), NOT_FOUND),
    "NUL": (get(b"/%00"), NOT_FOUND),
    "line break": (get(b"/%0d%0aX-Evil:%20y"), NOT_FOUND),
    "percent": (get(b"/%zz%"), NOT_FOUND),
    "path of 30 kB": (get(b"/" + b"x" * 30_000), NOT_FOUND),
    "path of 40 kB": (get(b"/" + b"x" * 40_000), HEADERS_TOO_LARGE),
    "@ for a path": (get(b"@evil.example"), MALFORMED),
    "no slash": (get(b"health"), MALFORMED),
    "space in a path": (get(b"/he alth"), MALFORMED),
    "byte above ASCII": (get(b"/\xff"), MALFORMED),
    "raw NUL": (get(b"/\0"), MALFORMED),
    # How it is asked.
    "HTTP/0.9": (b"GET /health\r\n\r\n", UNKNOWN_HOST),
    "no HTTP": (b"hello\r\n\r\n", MALFORMED),
    "HTTP/9.9": (b"GET /health HTTP/9.9\r\n<host>\r\n", MALFORMED),
    "line feeds only": (b"GET /health HTTP/1.1\nHost: 127.0.0.1\n\n", MALFORMED),
    "carriage return in a header": (get(b"/health", b"X-A: b\rc"), MALFORMED),
    "NUL in a header": (get(b"/health", b"X-A: b\0c"), MALFORMED),
    "space before the colon": (get(b"/health", b"X-A : b"), MALFORMED),
    "no colon": (get(b"/health", b"X-A"), MALFORMED),
    "no name": (get(b"/health", b": b"), MALFORMED),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), MALFORMED),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", MALFORMED),
    "SSH": (b"SSH-2.0-OpenSSH_9.9\r\n", MALFORMED),
    # Where it ends: what two servers could read in two ways.
    "length and chunks": (post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"), MALFORMED),
    "chunks and length": (post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"), MALFORMED),
    "two lengths": (post(b"Content-Length: 2", b"Content-Length: 3", body=b"{} "), MALFORMED),
    "one length twice": (post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"), MALFORMED),
    "list of lengths": (post(b"Content-Length: 2, 2", body=b"{}"), MALFORMED),
    "length below zero": (post(b"Content-Length: -1"), MALFORMED),
    "length with a sign": (post(b"Content-Length: +2", body=b"{}"), MALFORMED),
    "length in hexadecimal": (post(b"Content-Length: 0x2", body=b"{}"), MALFORMED),
    "length of 23 digits": (post(b"Content-Length: " + b"9" * 23), MALFORMED),
    "empty length": (post(b"Content-Length:"), MALFORMED),
    "chunk that is no number": (post(CHUNKED, body=b"xyz\r\n{}\r\n0\r\n\r\n"), MALFORMED),
    "chunk below zero": (post(CHUNKED, body=b"-2\r\n{}\r\n0\r\n\r\n"), MALFORMED),
    "chunk longer than said": (post(CHUNKED, body=b"1\r\n{}\r\n0\r\n\r\n"), MALFORMED),
    "chunk of 23 digits": (post(CHUNKED, body=b"f" * 23 + b"\r\n{}\r\n0\r\n\r\n"), MALFORMED),
    "other coding": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), MALFORMED),
    "coding after chunks": (post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), MALFORMED),
    "chunks behind a space": (post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), MALFORMED),
    # How much.
    "token of 40 kB": (get(b"/user/me", b"Authorization: Bearer " + b"x" * 40_000), HEADERS_TOO_LARGE),
    "header of 5 MB": (get(b"/health", b"X-A: " + b"x" * 5_000_000), HEADERS_TOO_LARGE),
    "name of 5 MB": (get(b"/health", b"x" * 5_000_000 + b": y"), HEADERS_TOO_LARGE),
    "10,000 headers": (get(b"/health", *(b"X-%d: y" % number for number in range(10_000))), HEADERS_TOO_LARGE),
    "headers without an end": (b"GET /health HTTP/1.1\r\n<host>" + b"X-A: b\r\n" * 50_000, HEADERS_TOO_LARGE),
    "length over the limit": (post(b"Content-Length: %d" % (LIMIT + 1)), TOO_LARGE),
    "length of 60 MB": (post(b"Content-Length: 60000000", b"Expect: 100-continue"), TOO_LARGE),
    "chunks over the limit": (
        post(CHUNKED, body=(b"10000\r\n" + b"x" * 2**16 + b"\r\n") * (LIMIT // 2**16 + 1)),
        TOO_LARGE,
    ),
    "body of 60 MB": (post(b"Content-Length: 60000000", body=b"x" * 60_000_000), TOO_LARGE),
    "body of 60 MB for nobody": (
        post(b"Content-Length: 60000000", path=b"/nowhere", body=b"x" * 60_000_000),
        TOO_LARGE,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server: str, name: str) -> None:
    raw, refusal = REFUSED[name]
    answer = ask(server, raw)
    assert answer.code == refusal
    assert answer.headers["X-Request-ID"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "server" not in answer.headers
    assert not [header for header in answer.headers if header.lower().startswith("x-evil")]
    assert is_alive(server)


@pytest.mark.parametrize("name", [name for name, (_, refusal) in REFUSED.items() if refusal == MALFORMED])
def test_nothing_is_read_after_what_is_malformed(server: str, name: str) -> None:
    """Else it could hold a request that a proxy in front did not see as one."""
    with Connection(server) as connection:
        connection.send(REFUSED[name][0])
        assert connection.read().status == 400
        connection.send(b"GET /health HTTP/1.1\r\n<host>\r\n")
        assert connection.is_closed()


@pytest.mark.parametrize(
    "raw",
    [
        get(b"/health", b"X-A: " + b"x" * 30_000),
        get(b"/health", *(b"X-%d: y" % number for number in range(1_000))),
        get(b"/health", b"X-A: \xff\xfe\x80"),
        get(b"/health?%ff=%ff&%00"),
        get(b"/health", b"Connection: close, X-A", b"Upgrade: h2c, websocket", b"HTTP2-Settings: x"),
        get(b"/health", b"Content-Length: 0"),
        get(b"/health", b"Content-Length: 2") + b"{}",
        b"\r\n" + get(),
        get(b"http://127.0.0.1/health"),
        b"GET /health HTTP/1.1\r\nhOsT: LOCALHOST:1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    ],
    ids=lambda raw: ascii(raw[:40]),
)
def test_odd_but_allowed(server: str, raw: bytes) -> None:
    assert ask(server, raw).status == 200


@pytest.mark.parametrize("length", [LIMIT, 0, 1])
def test_body_within_the_limit_is_read(server: str, length: int) -> None:
    chunk = b"%x\r\n" % length + b" " * length + b"\r\n" if length else b""
    for raw in (
        post(b"Content-Length: %d" % length, b"Content-Type: application/json", body=b" " * length),
        post(CHUNKED, b"Content-Type: application/json", body=chunk + b"0\r\n\r\n"),
    ):
        assert ask(server, raw).code == (401, "not_authenticated")


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        (b"a.B-c_9", True),
        (b"x" * 64, True),
        (b"x" * 65, False),
        (b"", False),
        (b"a b", False),
        (b"a,b", False),
        (b"\xe6\x97\xa5\xe6\x9c\xac", False),
        (b"\xff", False),
        (b"<script>", False),
        (b"%0d%0aSet-Cookie:x", False),
        (b"x" * 30_000, False),
    ],
    ids=lambda part: ascii(part[:20]) if isinstance(part, bytes) else "",
)
def test_request_id(server: str, given: bytes, echoed: bool) -> None:
    for path in (b"/health", b"/nowhere"):
        answer = ask(server, get(path, b"X-Request-ID: " + given))
        (request_id,) = answer.headers.get_all("X-Request-ID", [])
        assert (request_id.encode() == given) == echoed
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", request_id)
        assert "Set-Cookie" not in answer.headers


def test_requests_behind_one_another_on_one_connection(server: str) -> None:
    """Each answer ends where it says it does, HEAD's too, which has the length of what it leaves out."""
    paths = [
        (b"HEAD", b"/health", 200),
        (b"GET", b"/nowhere", 404),
        (b"HEAD", b"/nowhere", 404),
        (b"GET", b"/health", 200),
    ]
    with Connection(server) as connection:
        for method, path, status in paths * 2:
            connection.send(get(path, method=method))
            answer = connection.read(method.decode())
            assert answer.status == status
            assert int(answer.headers["Content-Length"]) > 0
            assert (answer.content == b"") == (method == b"HEAD")
    with Connection(server) as connection:
        for method, path, _ in paths:
            connection.send(get(path, method=method))
        for method, _, status in paths:
            assert connection.read(method.decode()).status == status


def test_a_body_hides_no_second_request(server: str) -> None:
    hidden = b"GET /blog/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with Connection(server) as connection:
        connection.send(get(b"/nowhere", b"Content-Length: %d" % len(hidden)) + hidden + get(b"/health"))
        assert connection.read().code == NOT_FOUND
        assert connection.read().status == 200


def test_too_large_a_body_is_refused_before_it_is_sent(server: str) -> None:
    with Connection(server) as connection:
        connection.send(post(b"Content-Length: %d" % (LIMIT + 1), b"Expect: 100-continue"))
        assert connection.read().code == TOO_LARGE  # and no 100 before it


def test_nothing_was_stored(server: str) -> None:
    form = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
    raw = json.dumps(form).encode()
    length = b"Content-Length: %d" % len(raw)
    content_type = b"Content-Type: application/json"
    for smuggled in (
        post(content_type, length, CHUNKED, path=b"/user/", body=raw),
        post(content_type, length, length, path=b"/user/", body=raw),
        post(content_type, CHUNKED, path=b"/user/", body=b"%x\r\n" % len(raw) + raw + b"\r\nx\r\n\r\n"),
        post(content_type, length, path=b"/user/", body=raw).replace(b"<host>", b"Host: evil.example\r\n"),
    ):
        assert ask(server, smuggled).status == 400
    # Had one of them been let in, the address would be known by now.
    assert ask(server, post(content_type, length, path=b"/user/", body=raw)).status == 201


FORGED = "2026-11-21T09:30:00.000Z info    POST /login 200 user_id=1"


@pytest.mark.parametrize(
    ("path", "agent", "email"),
    [
        (f"/%0d%0a{quote(FORGED)}", "x", "ada@example.com"),
        (f"/%0a{quote(FORGED)}", "\x1b[2J\x1b]0;evil\x07", f"ada@example.com\r\n{FORGED}"),
        ("/%1b[2J%1b]0;evil%07%08%7f", "\x9b2J", "\x1b[2J@example.com"),
        ("/%c2%9b2J%c2%85", "\u202eevil", "\u202eada@example.com"),
        ("/%e2%80%a8%e2%80%a9%e2%80%ae", "\u2028", f"ada\u2028{FORGED}@example.com"),
        ("/%ed%a0%80%ff", "%0d%0a", "ada\x85@example.com"),
        ("/" + "x" * 20_000, "x" * 10_000, "x" * 10_000),
    ],
    ids=lambda part: ascii(part[:20]),
)
def test_a_request_is_one_line_of_the_log(server: str, folder: Path, path: str, agent: str, email: str) -> None:
    log = folder / "server.log"
    before = len(log.read_bytes())
    body = f"username={quote(email)}&password=S3cret-of-Ada".encode()
    user_agent = b"User-Agent: " + agent.encode()
    form = (b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: %d" % len(body))
    ask(server, get(path.encode(), user_agent))
    ask(server, post(user_agent, *form, path=b"/login", body=body))
    due = monotonic() + HANG
    while (written := log.read_bytes()[before:].decode()).count("\n") < 2 and monotonic() < due:
        sleep(0.01)  # an answer is out before its line is
    lines = written.splitlines()
    assert len(lines) >= 2
    assert written == "".join(f"{line}\n" for line in lines)
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+Z (info|warning) ", line) for line in lines)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", written)
    assert not [line for line in lines if line.startswith(FORGED)]
    assert max(map(len, lines)) < 2_000  # whoever asks does not fill the disk with a few requests
    assert "S3cret" not in written


def test_who_forwards_does_not_choose_the_address(server: str) -> None:
    """Whoever guesses passwords from one address is told to wait, whatever the request says of others."""
    limit: int = Settings.model_fields["login_failure_limit"].default
    answers: list[Any] = []
    for number in range(limit + 1):
        form = {"username": f"nobody{number}@example.com", "password": "S3cret-of-Ada"}
        forwarded = {
            "X-Forwarded-For": f"203.0.113.{number}",
            "Forwarded": f"for=203.0.113.{number}",
            "X-Real-IP": "::1",
        }
        answers.append(httpx.post(f"{server}/login", data=form, headers=forwarded, verify=NO_TLS))
    assert {answer.status_code for answer in answers[:-1]} <= {401, 429}
    assert code(answers[-1]) == (429, "too_many_failures")
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert "S3cret" not in answers[-1].text
    assert is_alive(server)
