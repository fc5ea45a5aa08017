"""Registering: who may, and what becomes of it."""

from starlette.background import BackgroundTasks

from blog.database import Database
from blog.errors import InvalidLink, InvitationRequired, RegistrationClosed
from blog.links import LinkMailer
from blog.logs import security_event
from blog.models import Purpose, Role, User, fold
from blog.repository import AnyRow
from blog.repository.link import LinkRepository
from blog.repository.user import UserRepository
from blog.schemas.user import UserCreate
from blog.security.passwords import PasswordHasher
from blog.settings import Settings


class Registration:
    """Lets people become users, by the settings."""

    def __init__(
        self, database: Database, passwords: PasswordHasher, link_mailer: LinkMailer, settings: Settings
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._link_mailer = link_mailer
        self._settings = settings

    async def admit(self, data: UserCreate) -> AnyRow | None:
        """The invitation that came, or None where anybody may register without.

        Raises RegistrationClosed, InvitationRequired and InvalidLink.
        """
        if self._settings.registration == "closed":
            raise RegistrationClosed
        if data.invitation is None:
            if self._settings.registration == "invited":
                raise InvitationRequired
            return None
        async with self._database.fresh() as fresh:
            invitation = await LinkRepository(fresh).find(data.invitation, Purpose.INVITATION)
        if invitation is None or (invitation.email is not None and fold(invitation.email) != fold(data.email)):
            raise InvalidLink
        return invitation

    async def register(
        self,
        data: UserCreate,
        invitation: AnyRow | None,
        users: UserRepository,
        links: LinkRepository,
        background: BackgroundTasks,
    ) -> User:
        """A new user, in the session of the two repositories, who was admitted.

        Raises WeakPassword, Busy, InvalidLink and EmailTaken.
        """
        self._passwords.refuse_weak(data.password, name=data.name, email=data.email)
        password_hash = await self._passwords.hash(data.password)
        role = Role(self._settings.default_role)
        if invitation is not None:
            if not await links.use(invitation):
                raise InvalidLink
            role = invitation.role
        # An invitation that was sent to the address has shown that it is this user's.
        verified = invitation is not None and invitation.email is not None
        user = await users.add(data.name, data.email, password_hash, role=role, verified=verified)
        security_event("user_registered", registered=user.id, role=role)
        if self._settings.email_verification and not verified:
            background.add_task(self._link_mailer.send_email_verification, user, user.email)
        return user
