"""Invitations: links by which somebody may register."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from blog import mail
from blog.dependencies import Admin, MailerOfApp, NamedInvitation, OneTimeLinks, RequestedPage, SettingsOfApp, Users
from blog.errors import (
    AdminRequired,
    InsufficientScope,
    Invalid,
    InvalidCursor,
    InvitationNotFound,
    PreconditionFailed,
    RegistrationClosed,
)
from blog.idempotency import Idempotent, KeepingRoute
from blog.links import LIFETIMES, link_to
from blog.logs import security_event
from blog.models import Purpose, Role
from blog.preconditions import Conditions, etag_of
from blog.repository import AnyRow
from blog.schemas.problem import BEARER, BODY, CONDITIONAL, IDEMPOTENT, LINK_TO_NEXT, LOCATION, refusals
from blog.schemas.types import PathId
from blog.schemas.user import Invitation, InvitationCreate, InvitationCreated

router = APIRouter(prefix="/invitation", tags=["user"], route_class=KeepingRoute)

ADMIN = (*BEARER, InsufficientScope, AdminRequired)


@router.post(
    "/",
    summary="Invite somebody",
    status_code=HTTP_201_CREATED,
    response_model=InvitationCreated,
    responses=refusals(*ADMIN, *BODY, *IDEMPOTENT, RegistrationClosed) | LOCATION,
)
async def create_invitation(
    admin: Admin,
    _: Idempotent,
    data: InvitationCreate,
    settings: SettingsOfApp,
    users: Users,
    links: OneTimeLinks,
    mailer: MailerOfApp,
    background: BackgroundTasks,
    request: Request,
    response: Response,
) -> dict[str, Any]:
    """Make a link by which one person can register within a week; with an address it is mailed there. For admins."""
    if settings.registration == "closed":
        raise RegistrationClosed
    await users.hold(admin.user)  # a change of the password that ends all invitations ends this one too
    lifetime = LIFETIMES[Purpose.INVITATION]
    role = data.role or Role(settings.default_role)
    invitation, token = await links.add(admin.user.id, Purpose.INVITATION, lifetime, email=data.email, role=role)
    security_event("invitation_created", invitation=invitation.id, role=role)
    link = link_to(settings.issuer, Purpose.INVITATION, token)
    if data.email is not None:
        background.add_task(mailer.send, mail.invitation(data.email, link))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Location"] = request.url_for("show_invitation", invitation_id=invitation.id).path
    return invitation.model_dump() | {"token": token, "link": link}


@router.get(
    "/",
    summary="List invitations",
    response_model=list[Invitation],
    responses=refusals(*ADMIN, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_invitations(_: Admin, page: RequestedPage, links: OneTimeLinks) -> Sequence[AnyRow]:
    """List the invitations that nobody has used yet, the newest first. For admins."""
    return page.answer(await links.page_of_invitations(page.request))


@router.get(
    "/{invitation_id}",
    summary="Read an invitation",
    response_model=Invitation,
    responses=refusals(*ADMIN, InvitationNotFound, Invalid) | CONDITIONAL,
)
async def show_invitation(invitation: NamedInvitation, conditions: Conditions) -> Invitation:
    """Read an invitation that nobody has used yet; not what invites. For admins."""
    shown = Invitation.model_validate(invitation)
    conditions.show(etag_of(shown))
    return shown


@router.delete(
    "/{invitation_id}",
    summary="Take an invitation back",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*ADMIN, InvitationNotFound, PreconditionFailed, Invalid),
)
async def delete_invitation(
    _: Admin, links: OneTimeLinks, conditions: Conditions, invitation_id: Annotated[PathId, Path()]
) -> None:
    """Take an invitation back: its link is good for nothing any more. For admins."""
    if conditions.demands_etag:
        # Not locked: an invitation is as it was made until it is gone.
        invitation = await links.get_invitation(invitation_id)
        if invitation is None:
            raise InvitationNotFound
        conditions.demand(etag_of(Invitation.model_validate(invitation)))
    if not await links.remove_invitation(invitation_id):
        raise InvitationNotFound
    security_event("invitation_deleted", invitation=invitation_id)
