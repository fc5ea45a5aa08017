"""Grants of RFC 6749: what a password or a refresh token is good for.

In transactions of their own: nothing waits for a password inside one, and what a stolen refresh token brings about
stands although its request is refused.
"""

from datetime import datetime
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from blog.attempts import Attempts
from blog.database import Database
from blog.errors import EmailNotVerified, InvalidCredentials, InvalidRefreshToken, InvalidScope
from blog.logs import security_event
from blog.models import LoginSession, Role, User, now
from blog.repository.login import NOTED_AGAIN_AFTER, Lifetimes, LoginRepository
from blog.repository.user import UserRepository
from blog.schemas.types import Email
from blog.security.access import ALL, SCOPES_OF, Caller, Scope, read_scopes
from blog.security.opaque import Cookie, RefreshToken, make_cookie, make_refresh_token, read_refresh_token
from blog.security.passwords import PasswordHasher
from blog.settings import Settings

email_address = TypeAdapter[str](Email)


class Grant(NamedTuple):
    """What an access token is issued for: a user in a login, each by public id, until `expires_at` at most.

    `headers` go out with the answer.
    """

    subject: str
    login: str
    scopes: frozenset[Scope]
    expires_at: datetime
    refresh_token: RefreshToken
    headers: dict[str, str]


class Grants:
    """Logs users in, and keeps them logged in."""

    def __init__(self, database: Database, passwords: PasswordHasher, attempts: Attempts, settings: Settings) -> None:
        self._database = database
        self._passwords = passwords
        self._attempts = attempts
        self._lifetimes = Lifetimes(settings.refresh_token_lifetime, settings.login_lifetime)
        self._verified_only = settings.email_verification

    async def by_password(self, username: str, password: str, scope: str, *, client: str, user_agent: str) -> Grant:
        """A new login of the user with this address, from the address `client`.

        An empty scope is all that the role allows, now and later. Raises InvalidScope, InvalidCredentials,
        EmailNotVerified, TooManyFailures and Busy.
        """
        wanted = read_scopes(scope) or ALL
        token = make_refresh_token()
        user, scopes, login, headers = await self._log_in(username, password, token, wanted, client, user_agent)
        return Grant(user.public_id, login.public_id, scopes, login.expires_at, token, headers)

    async def by_form(self, username: str, password: str, *, client: str, user_agent: str) -> Cookie:
        """The cookie of a new login in a browser. Raises as `by_password`."""
        cookie = make_cookie()
        await self._log_in(username, password, cookie, ALL, client, user_agent)
        return cookie

    async def by_cookie(self, cookie: Cookie) -> Caller | None:
        """Whoever's browser has this cookie; the login lasts longer by it."""
        async with self._database.fresh() as session:
            found = await LoginRepository(session).find_by_cookie(cookie)
        if found is None:
            return None
        caller, login = found
        if login.last_used_at < now() - NOTED_AGAIN_AFTER:
            async with self._database.write.begin() as session:
                await LoginRepository(session).go_on(login.login_id, login.began_at, self._lifetimes)
        return caller

    async def _log_in(
        self,
        username: str,
        password: str,
        token: Cookie | RefreshToken,
        wanted: frozenset[Scope],
        client: str,
        user_agent: str,
    ) -> tuple[User, frozenset[Scope], LoginSession, dict[str, str]]:
        try:
            account = email_address.validate_python(username)
        except ValidationError:
            account, user = username, None  # nobody registered with it
        else:
            async with self._database.fresh() as session:
                user = await UserRepository(session).get_by_email(account)
        # Counted under what was looked up: an address has any number of spellings.
        async with self._attempts.attempt(client, account) as headers:
            verified, better = await self._passwords.verify(password, user.password_hash if user else None)
            if user is None or not verified or not user.is_active:
                security_event("login_failed", user_id=user.id if user else None)
                raise InvalidCredentials(headers={**InvalidCredentials.headers, **headers})
        if self._verified_only and user.email_verified_at is None:
            security_event("login_not_verified", user_id=user.id)
            raise EmailNotVerified
        scopes = _granted(wanted, user.role)
        async with self._database.write.begin() as session:
            # The password may be another since it was looked at, or the user blocked: the login would outlive that.
            held = await UserRepository(session).hold(user, or_raise=InvalidCredentials)
            if better is not None:
                held.password_hash = better
            logins = LoginRepository(session)
            seen = {"user_agent": user_agent, "address": client}
            login = await logins.add(held.id, token, wanted, self._lifetimes, **seen)
        security_event("login_succeeded", user_id=user.id, login=login.id)
        return user, scopes, login, headers

    async def by_refresh_token(self, text: str, scope: str) -> Grant:
        """The login that this refresh token is of, with the token that replaces it.

        Whoever brings one that was used before, or one of several who bring the same at once, may have stolen it: the
        login is over for all of them. Raises InvalidScope and InvalidRefreshToken.
        """
        wanted, used = read_scopes(scope), read_refresh_token(text)
        if used is None:
            raise InvalidRefreshToken
        async with self._database.fresh() as session:
            login = await LoginRepository(session).find_by_refresh_token(used)
        if login is None:
            raise InvalidRefreshToken
        held = read_scopes(login.scope)
        if not wanted <= held:
            raise InvalidScope
        scopes = _granted(wanted or held, login.role)
        async with self._database.write.begin() as session:
            logins = LoginRepository(session)
            token = await logins.rotate(login, used, self._lifetimes)
            ended = token is None and await logins.end(login.id)
        if ended:
            security_event("refresh_token_reused", user_id=login.user_id, login=login.id)
        if token is None:
            raise InvalidRefreshToken
        return Grant(login.subject, login.public_id, scopes, self._lifetimes.end(login.created_at), token, {})


def _granted(wanted: frozenset[Scope], role: Role) -> frozenset[Scope]:
    scopes = wanted & SCOPES_OF[role]
    if not scopes:
        raise InvalidScope
    return scopes
