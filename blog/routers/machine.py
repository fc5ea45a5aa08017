"""What machines ask of the platform: whether it lives, and whether it can work."""

from fastapi import APIRouter

from blog.dependencies import ReadyDatabase
from blog.errors import DatabaseUnavailable, SchemaOutdated
from blog.schemas.machine import Health
from blog.schemas.problem import refusals

router = APIRouter(tags=["machine"])


@router.get("/health", summary="Does the process live?", response_model=Health)
async def show_health() -> Health:
    """Answer as long as the process lives, whatever the database does. Restart it when this fails."""
    return Health(status="alive")


@router.get(
    "/ready",
    summary="Can it serve?",
    response_model=Health,
    responses=refusals(DatabaseUnavailable, SchemaOutdated),
)
async def show_readiness(_: ReadyDatabase) -> Health:
    """Answer while the database does, within 1.5 seconds, and has this version's schema. Else send no requests here."""
    return Health(status="ready")
