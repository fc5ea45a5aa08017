"""What is logged, and that it is one line a record."""

import io
import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from blog.errors import WrongPassword
from blog.logs import JSONFormatter, ReadableFormatter, configuration, request_fields
from tests.conftest import client_of, on
from tests.factories import PASSWORD, Factory, bearer

KINDS = ("access", "refresh")
HOSTILE = "a\r\nb\x1b[31mc\u2028d\u202ee\x00f\x9bg\ud800h"


class Lines(logging.Handler):
    """What loggers would write, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))

    def named(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("blog")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def record(message: str, error: BaseException | None = None, **fields: Any) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("blog.test", logging.INFO, "", 0, message, None, info)
    made.fields = fields
    return made


class TestFormats:
    @pytest.mark.parametrize("formatter", [JSONFormatter(), ReadableFormatter()])
    def test_what_comes_from_outside_is_escaped(self, formatter: logging.Formatter) -> None:
        line = formatter.format(record(HOSTILE, agent=HOSTILE))
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        line.encode()

    def test_json(self) -> None:
        request_fields.set({"request_id": "r", "client": "192.0.2.1"})
        try:
            raise LookupError("gone\n2026 forged line")
        except LookupError as error:
            line = JSONFormatter().format(record("failed", error, number=7))
        written = json.loads(line)
        assert len(line.splitlines()) == 1
        assert written["time"].endswith("Z")
        assert written["level"] == "info"
        assert written["logger"] == "blog.test"
        assert (written["message"], written["number"], written["request_id"]) == ("failed", 7, "r")
        assert "Traceback" in written["error"]

    def test_a_traceback_for_eyes_is_indented(self) -> None:
        try:
            raise LookupError("gone\n2026 forged line")
        except LookupError as error:
            first, *others = ReadableFormatter().format(record("failed", error)).splitlines()
        assert " info    failed" in first
        assert others
        assert all(line.startswith("  | ") for line in others)

    @pytest.mark.parametrize("readable", [True, False])
    def test_configuration(self, readable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        written = io.StringIO()
        monkeypatch.setattr("sys.stderr", written)
        try:
            logging.config.dictConfig(configuration(readable=readable))
            logging.getLogger("uvicorn.error").info("started")
        finally:
            root.handlers[:] = before
            root.setLevel(level)
        assert written.getvalue().startswith("{") != readable
        assert "started" in written.getvalue()


@on("sqlite")
class TestRequests:
    async def test_one_line_each(self, app: FastAPI, factory: Factory, lines: Lines) -> None:
        user, login = await factory.logged_in()
        async with client_of(app) as client:
            await client.get("/user/me?q=secret", headers=login | {"X-Request-ID": "r1", "User-Agent": "\x1b[31m" * 99})
            await client.head("/nowhere%0D%0Aforged", headers={"X-Request-ID": "r2"})
        first, second = lines.lines
        assert first["message"] == "GET /user/me 200"
        assert (first["method"], first["path"], first["status"]) == ("GET", "/user/me", 200)
        assert (first["request_id"], first["user_id"], first["client"]) == ("r1", user.id, "127.0.0.1")
        assert first["duration_ms"] > 0
        assert len(first["user_agent"]) == 200
        assert "secret" not in str(first)
        assert (second["method"], second["status"], second["request_id"]) == ("HEAD", 404, "r2")
        assert second["path"] == "/nowhere\r\nforged"
        assert "user_id" not in second

    async def test_a_line_for_what_failed(self, app: FastAPI, lines: Lines) -> None:
        async with client_of(app) as client:
            await client.get("/health", headers={"Host": "evil.example"})
        assert [line["message"] for line in lines.lines] == ["GET /health 400"]


class TestSecurityEvents:
    async def test_of_a_life(self, client: httpx.AsyncClient, factory: Factory, lines: Lines) -> None:
        form = {"username": "ada@example.com", "password": PASSWORD}
        registered = await client.post("/user/", json={"name": "Ada", "email": form["username"], "password": PASSWORD})
        ada = registered.json()["id"]
        await client.post("/login", data=form | {"password": "a wrong one"})
        await client.post("/login", data=form | {"username": "nobody@example.com"})
        token = (await client.post("/login", data=form)).json()["access_token"]
        login = {"Authorization": f"Bearer {token}", "X-Request-ID": "r1"}
        change = {"current_password": PASSWORD, "new_password": "another password"}
        assert (await client.get("/user/", headers=login)).status_code == 403
        assert (await client.patch("/user/me", json={"email": "b@example.com"}, headers=login)).status_code == 403
        new_address = {"email": "b@example.com", "current_password": PASSWORD}
        assert (await client.patch("/user/me", json=new_address, headers=login)).status_code == 200
        assert (await client.put("/user/me/password", json=change, headers=login)).status_code == 204
        admin = await factory.admin()
        changed = await client.patch(f"/user/{ada}", json={"role": "reader"}, headers=factory.login(admin))
        assert changed.status_code == 200
        bulk = [{"id": ada, "is_active": False}]
        assert (await client.put("/user/", json=bulk, headers=factory.login(admin))).status_code == 200
        assert (await client.delete(f"/user/{ada}", headers=factory.login(admin))).status_code == 204

        assert lines.named("user_registered")[0]["registered"] == ada
        assert [line["user_id"] for line in lines.named("login_failed")] == [ada, None]
        assert [line["user_id"] for line in lines.named("login_succeeded")] == [ada]
        refused = lines.named("refused")
        assert [line["code"] for line in refused] == ["admin_required", WrongPassword.code]
        assert {(line["status"], line["user_id"], line["request_id"]) for line in refused} == {(403, ada, "r1")}
        assert [line["user_id"] for line in lines.named("email_changed")] == [ada]
        assert [line["user_id"] for line in lines.named("password_changed")] == [ada]
        changes = lines.named("user_changed")
        assert [(line["user_id"], line["changed"]) for line in changes] == [(admin.id, ada)] * 2
        assert (changes[0]["role"], changes[1]["is_active"]) == ("reader", False)
        assert lines.named("user_deleted")[0]["deleted"] == ada
        assert all(line["client"] == "127.0.0.1" for line in lines.lines)
        # On a developer's machine the log is where mail goes, which alone names addresses.
        mails = [line for line in lines.lines if line["logger"] == "blog.mail"]
        assert [line["to"] for line in mails] == ["ada@example.com", "b@example.com"]
        written = str([line for line in lines.lines if line not in mails] + [line | {"to": ""} for line in mails])
        written = written.replace("Your account's e-mail address is b@example.com from now on", "")
        for secret in (PASSWORD, "a wrong one", "another password", token, "@example.com", "$bcrypt"):
            assert secret not in written

    @on("sqlite")
    async def test_a_secret_is_in_no_log_and_told_once(
        self, client: httpx.AsyncClient, factory: Factory, lines: Lines
    ) -> None:
        answers: list[str] = []

        async def note(response: httpx.Response) -> None:
            answers.append((await response.aread()).decode())

        client.event_hooks = {"response": [note]}
        root = factory.login(await factory.admin())
        passwords = ["the first riddle", "the second riddle", "the third riddle"]
        weak = ["iloveyou", "Ada’s own secret", "short#1"]

        made = (await client.post("/invitation/", json={}, headers=root)).json()
        account = {"name": "Ada", "email": "ada@example.com", "invitation": made["token"]}
        for password in (*weak, passwords[0]):
            await client.post("/user/", json=account | {"password": password})
        form = {"username": account["email"], "password": passwords[0]}
        await client.post("/login", data=form | {"password": weak[0]})
        first = (await client.post("/login", data=form)).json()
        login = bearer(first["access_token"])
        script = {"name": "Script", "scopes": ["user:read"], "expires_at": "2199-01-01T00:00:00Z"}
        personal = (await client.post("/user/me/tokens", json=script, headers=login)).json()["token"]
        assert (await client.get("/user/me", headers=bearer(personal))).status_code == 200
        for password in (*weak, passwords[1]):
            change = {"current_password": passwords[0], "new_password": password}
            changed = await client.put("/user/me/password", json=change, headers=login)
        assert changed.status_code == 204
        await client.post("/password-reset", json={"email": account["email"]})
        (link,) = [line["link"] for line in lines.lines if line.get("link")]
        reset = link.rpartition("=")[2]
        for password in (*weak, passwords[2]):
            confirmed = await client.post("/password-reset/confirm", json={"token": reset, "password": password})
        assert confirmed.status_code == 204
        used = (await client.post("/login", data=form | {"password": passwords[2]})).json()
        again = {"grant_type": "refresh_token", "refresh_token": used["refresh_token"]}
        last = (await client.post("/login", data=again)).json()
        assert (await client.post("/login", data=again)).status_code == 400
        assert lines.named("refresh_token_reused")

        # On a developer's machine the log is where mail goes.
        written = str([line for line in lines.lines if line["logger"] != "blog.mail"])
        tokens = [made["token"], personal, *(pair[f"{kind}_token"] for pair in (first, used, last) for kind in KINDS)]
        for secret in (*passwords, *weak, reset, *tokens, "$bcrypt"):
            assert secret not in written
            assert sum(secret in answer for answer in answers) == (1 if secret in tokens else 0), secret

    async def test_too_many_failures(self, client: httpx.AsyncClient, lines: Lines) -> None:
        for _ in range(11):
            await client.post("/login", data={"username": "ada@example.com", "password": "a wrong one"})
        assert len(lines.named("login_failed")) == 10
        (refused,) = lines.named("refused")
        assert (refused["status"], refused["code"]) == (429, "too_many_failures")
