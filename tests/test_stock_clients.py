"""Stock OAuth2 clients log in, stay logged in by refreshing on their own, and are refused once they log out."""

import time
import warnings
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from fastapi import FastAPI
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from blog.app import create_app
from blog.models import User
from blog.security.access import Scope
from blog.security.tokens import LEEWAY, AccessTokens
from tests.answers import code
from tests.conftest import NO_TLS, SECRET, client_of, make_settings, serving
from tests.factories import PASSWORD, Factory, bearer

with warnings.catch_warnings(record=True):  # Authlib would rather have httpx2, and insists on saying so
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.httpx_client import AsyncOAuth2Client

Token = dict[str, Any]

get, post = partial(httpx.get, verify=NO_TLS), partial(httpx.post, verify=NO_TLS)


def run_out(tokens: AccessTokens, token: Token) -> Token:
    """What the client holds once its access token is over, for the client and for the platform."""
    claims = tokens.read(token["access_token"])
    assert claims is not None
    expired = tokens.issue(claims.subject, claims.login, claims.scopes, seconds=-LEEWAY - 1)
    return {**token, "access_token": expired, "expires_at": int(time.time()) - 1}


async def metadata_of(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/.well-known/oauth-authorization-server")
    metadata: dict[str, Any] = answer.raise_for_status().json()
    return metadata


class TestAuthlib:
    @pytest.fixture
    def updates(self) -> list[tuple[str, str]]:
        """Each refresh token that the client used, with the one that it got for it."""
        return []

    @pytest.fixture
    async def stock(
        self, app: FastAPI, client: httpx.AsyncClient, updates: list[tuple[str, str]]
    ) -> AsyncIterator[AsyncOAuth2Client]:
        """A client that was told nothing but where the platform is."""

        async def note(token: Token, refresh_token: str) -> None:
            updates.append((refresh_token, token["refresh_token"]))

        metadata = await metadata_of(client)
        async with AsyncOAuth2Client(
            "stock",
            token_endpoint=metadata["token_endpoint"],
            revocation_endpoint=metadata["revocation_endpoint"],
            update_token=note,
            transport=httpx.ASGITransport(app),
            base_url=metadata["issuer"],
        ) as stock:
            yield stock

    async def log_in(self, stock: AsyncOAuth2Client, user: User, **more: str) -> Token:
        endpoint = stock.metadata["token_endpoint"]
        token: Token = await stock.fetch_token(endpoint, username=user.email, password=PASSWORD, **more)
        return token

    async def refused(self, client: httpx.AsyncClient, stock: AsyncOAuth2Client, token: Token) -> None:
        assert code(await client.get("/user/me", headers=bearer(token["access_token"]))) == (401, "invalid_token")
        form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
        answer = await client.post("/login", data=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        with pytest.raises(OAuthError, match="invalid_grant"):
            await stock.refresh_token(stock.metadata["token_endpoint"], refresh_token=token["refresh_token"])

    @pytest.mark.parametrize("leave", ["log out", "revoke the access token", "revoke the refresh token"])
    async def test_from_login_to_logout(
        self,
        app: FastAPI,
        client: httpx.AsyncClient,
        factory: Factory,
        stock: AsyncOAuth2Client,
        updates: list[tuple[str, str]],
        leave: str,
    ) -> None:
        user = await factory.user()
        first = dict(await self.log_in(stock, user))
        assert (await stock.get("/user/me")).json()["email"] == user.email
        assert updates == []

        stock.token = run_out(app.state.tokens, first)
        over = stock.token["access_token"]
        assert code(await client.get("/user/me", headers=bearer(over))) == (401, "invalid_token")
        assert (await stock.get("/user/me")).json()["email"] == user.email
        second = dict(stock.token)
        assert updates == [(first["refresh_token"], second["refresh_token"])]
        assert second["access_token"] not in (first["access_token"], over)
        assert second["scope"] == first["scope"]
        assert second["expires_at"] > time.time()

        if leave == "log out":
            assert (await stock.post("/logout")).status_code == 204
        else:
            hint = leave.rpartition("the ")[2].replace(" ", "_")
            endpoint = stock.metadata["revocation_endpoint"]
            answer = await stock.revoke_token(endpoint, token=second[hint], token_type_hint=hint)
            assert answer.status_code == 200
        assert code(await stock.get("/user/me")) == (401, "invalid_token")
        for token in (first, second):
            await self.refused(client, stock, token)

    async def test_a_used_refresh_token_ends_the_login(
        self, client: httpx.AsyncClient, factory: Factory, stock: AsyncOAuth2Client
    ) -> None:
        first = dict(await self.log_in(stock, await factory.user()))
        second = dict(await stock.refresh_token(stock.metadata["token_endpoint"]))
        assert (await stock.get("/user/me")).status_code == 200
        await self.refused(client, stock, second | {"access_token": "x", "refresh_token": first["refresh_token"]})
        await self.refused(client, stock, second)

    async def test_two_requests_at_once_refresh_once(
        self, app: FastAPI, factory: Factory, stock: AsyncOAuth2Client, updates: list[tuple[str, str]]
    ) -> None:
        user = await factory.user()
        stock.token = run_out(app.state.tokens, await self.log_in(stock, user))
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await stock.get("/user/me")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert statuses == [200] * 5
        assert len(updates) == 1

    async def test_a_narrow_scope_outlives_a_refresh(
        self, app: FastAPI, factory: Factory, stock: AsyncOAuth2Client
    ) -> None:
        token = await self.log_in(stock, await factory.user(), scope="user:read")
        stock.token = run_out(app.state.tokens, token)
        assert (await stock.get("/user/me")).status_code == 200
        assert stock.token["scope"] == "user:read"
        assert code(await stock.post("/blog/", json={"title": "Notes", "body": "Text"})) == (403, "insufficient_scope")

    async def test_a_wrong_password(self, factory: Factory, stock: AsyncOAuth2Client) -> None:
        user = await factory.user()
        with pytest.raises(OAuthError, match="invalid_grant: The e-mail address or the password is wrong"):
            await stock.fetch_token(stock.metadata["token_endpoint"], username=user.email, password="another password")


@pytest.mark.processes
class TestRequestsOAuthlib:
    def test_from_login_to_logout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
        monkeypatch.setenv("BLOG_SECRET_KEY", SECRET)
        monkeypatch.setenv("BLOG_PASSWORD_ROUNDS", "4")
        updates: list[Token] = []
        account = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
        with serving(tmp_path) as address:
            post(f"{address}/user/", json=account).raise_for_status()
            metadata = get(f"{address}/.well-known/oauth-authorization-server").json()
            endpoint = f"{address}/login"
            tokens = AccessTokens([SECRET], metadata["issuer"])

            with OAuth2Session(
                client=LegacyApplicationClient("stock"), auto_refresh_url=endpoint, token_updater=updates.append
            ) as stock:
                first = dict(stock.fetch_token(endpoint, username=account["email"], password=PASSWORD))
                assert stock.get(f"{address}/user/me").json()["email"] == account["email"]
                assert updates == []

                stock.token = run_out(tokens, first)
                expired = get(f"{address}/user/me", headers=bearer(stock.token["access_token"]))
                assert code(expired) == (401, "invalid_token")
                assert stock.get(f"{address}/user/me").json()["email"] == account["email"]
                [second] = updates
                assert second["refresh_token"] != first["refresh_token"]
                assert second["scope"] == first["scope"]
                stock.token = second

                assert stock.post(f"{address}/logout").status_code == 204
                assert stock.get(f"{address}/user/me").status_code == 401
                for token in (first, second):
                    refused = get(f"{address}/user/me", headers=bearer(token["access_token"]))
                    assert code(refused) == (401, "invalid_token")
                    with pytest.raises(InvalidGrantError):
                        stock.refresh_token(endpoint, refresh_token=token["refresh_token"])


class TestMetadata:
    async def test_authlib_finds_nothing_wrong(self) -> None:
        app = create_app(make_settings(base_url="https://blog.example.com", allowed_hosts="127.0.0.1"))
        async with app.router.lifespan_context(app), client_of(app) as client:
            metadata = AuthorizationServerMetadata(await metadata_of(client))
        metadata.validate()
        assert metadata["issuer"] == "https://blog.example.com"
        # RFC 8414, section 3: the document is where its issuer says that it is.
        assert metadata["token_endpoint"] == "https://blog.example.com/login"
        assert metadata["revocation_endpoint"] == "https://blog.example.com/revoke"
        assert metadata["scopes_supported"] == list(Scope)
