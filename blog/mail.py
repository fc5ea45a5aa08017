"""Mail: what it says, and how it goes out."""

import asyncio
import logging
from email.message import EmailMessage
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import aiosmtplib
from email_validator import validate_email

from blog.settings import Environment, Settings

TIMEOUT = 10
"""Seconds that a mail server may take for a mail."""

PAUSES = (0, 1, 5)
"""Seconds to wait before each attempt."""

CONCURRENT_MAILS = 4
"""Mails under way at once in a process."""

MOST_MAILS = 1_000
"""Mails that wait in a process, when the mail server hangs, before more are given up."""

logger = logging.getLogger(__name__)


class Mail(NamedTuple):
    """A mail to one address; a `link` stands on a line of its own between `text` and the end."""

    to: str
    subject: str
    text: str
    link: str | None = None


def password_reset(to: str, link: str) -> Mail:
    """For somebody who forgot the password."""
    text = "With this link you can set a new password within the next half hour. If you did not ask for it, do nothing."
    return Mail(to, "Set a new password", text, link)


def password_changed(to: str) -> Mail:
    """For somebody whose password is another now."""
    text = (
        "Your password was changed, and every other login of yours is over. If it was not you, set a new one at once."
    )
    return Mail(to, "Your password was changed", text)


def personal_token_created(to: str, name: str) -> Mail:
    """For somebody in whose account a personal token was made."""
    text = f"A personal token was made in your account: {name}. If it was not you, change your password at once."
    return Mail(to, "A personal token was made", text)


def email_changed(to: str, email: str) -> Mail:
    """For somebody who had another address until now."""
    text = f"Your account's e-mail address is {email} from now on. If it was not you, ask an admin for help at once."
    return Mail(to, "Your e-mail address was changed", text)


def email_verification(to: str, link: str) -> Mail:
    """For somebody whose address nobody has shown to be the own one yet."""
    text = "With this link you confirm within a day that this is your address. If you did not register it, do nothing."
    return Mail(to, "Confirm your e-mail address", text, link)


def invitation(to: str, link: str) -> Mail:
    """For somebody who may register."""
    return Mail(to, "You are invited", "With this link you can register within a week.", link)


class Mailer:
    """Sends mail through the server of the settings; where there is none, `local` writes it to the log instead."""

    def __init__(self, settings: Settings) -> None:
        self._url = urlsplit(settings.smtp_url.get_secret_value()) if settings.smtp_url else None
        self._from = settings.mail_from
        self._tells = settings.environment is Environment.LOCAL
        self._turns = asyncio.Semaphore(CONCURRENT_MAILS)
        self._waiting = 0

    async def send(self, mail: Mail) -> None:
        """Send it, with a few attempts. What fails is logged: nobody waits for it."""
        if self._url is None:
            if self._tells:
                told = {"to": mail.to, "link": mail.link}
                logger.info("mail: %s %s", mail.subject, mail.text, extra={"fields": told})
            else:
                logger.error("no mail was sent: BLOG_SMTP_URL is not set")
            return
        if self._waiting >= MOST_MAILS:
            _log_failure(mail, "too many wait for the mail server")
            return
        self._waiting += 1
        try:
            for pause in PAUSES:
                await asyncio.sleep(pause)
                async with self._turns:
                    if await self._deliver(self._url, mail):
                        return
        except asyncio.CancelledError:  # the server stops; the answer left long ago
            _log_failure(mail, "the server stops")
        finally:
            self._waiting -= 1

    async def _deliver(self, url: SplitResult, mail: Mail) -> bool:
        # A domain in letters of its own has a name in ASCII too, which every server knows.
        to = validate_email(mail.to, check_deliverability=False).ascii_email or mail.to
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._from, to, mail.subject
        message.set_content("\n\n".join(part for part in (mail.text, mail.link) if part) + "\n")
        try:
            async with asyncio.timeout(TIMEOUT):
                await aiosmtplib.send(
                    message,
                    # Not read from the headers, which are decoded on the way: an address could be made to name others.
                    recipients=[to],
                    sender=self._from,
                    hostname=url.hostname,
                    port=url.port,
                    username=unquote(url.username) if url.username else None,
                    password=unquote(url.password or "") if url.username else None,
                    use_tls=url.scheme == "smtps",
                    # None is where the server offers it; but a password goes to nobody unknown.
                    start_tls=None if url.scheme == "smtps" or not url.username else True,
                )
        except (OSError, aiosmtplib.SMTPException) as error:
            # Not its words: they may repeat the address, the password or what the server was told.
            _log_failure(mail, type(error).__name__)
            return False
        return True


def _log_failure(mail: Mail, reason: str) -> None:
    logger.error("mail was not sent", extra={"fields": {"subject": mail.subject, "error": reason}})
