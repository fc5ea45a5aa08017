"""One-time links: made and mailed behind an answer, which neither waits for it nor tells of it."""

import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError

from blog.database import Database
from blog.errors import Refusal
from blog.mail import Mail, Mailer, email_verification, password_reset
from blog.models import Purpose, User
from blog.repository.link import LinkRepository
from blog.repository.user import UserRepository

LIFETIMES = {
    Purpose.PASSWORD_RESET: timedelta(minutes=30),
    Purpose.EMAIL_VERIFICATION: timedelta(days=1),
    Purpose.INVITATION: timedelta(days=7),
}

ONE_MAIL_IN = timedelta(minutes=1)
"""However often somebody asks, a user's account sends one mail of a kind in this time."""

logger = logging.getLogger(__name__)


def link_to(issuer: str, purpose: Purpose, token: str) -> str:
    """The link. Its token is behind the `#`, which no browser sends: it is in no log and no Referer."""
    return f"{issuer}/link#{purpose.value}={token}"


class LinkMailer:
    """Makes links and mails them. `issuer` is the base URL."""

    def __init__(self, database: Database, mailer: Mailer, issuer: str) -> None:
        self._database = database
        self._mailer = mailer
        self._issuer = issuer

    async def send_password_reset(self, user: User) -> None:
        """Mail the user a link to a new password."""
        await self._send(user, user.email, Purpose.PASSWORD_RESET, password_reset)

    async def send_email_verification(self, user: User, email: str) -> None:
        """Mail a link to an address by which it becomes this user's."""
        await self._send(user, email, Purpose.EMAIL_VERIFICATION, email_verification)

    async def _send(self, user: User, email: str, purpose: Purpose, write: Callable[[str, str], Mail]) -> None:
        try:
            async with self._database.write.begin() as session:
                # Of several who ask at once, all but one wait here, and then see the link of that one.
                await UserRepository(session).hold(user)
                links = LinkRepository(session)
                if await links.was_made_since(user.id, purpose, ONE_MAIL_IN):
                    return
                _, token = await links.add(user.id, purpose, LIFETIMES[purpose], email=email)
        except Refusal:  # another password by now, or blocked: whoever asked knows more than we did
            return
        except (SQLAlchemyError, OSError) as error:
            logger.error("no link was made: %s", type(error).__name__)
            return
        await self._mailer.send(write(email, link_to(self._issuer, purpose, token)))
