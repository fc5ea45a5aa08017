"""Tags."""

from collections.abc import Sequence

from fastapi import APIRouter

from blog.dependencies import BlogReader, RequestedPage, Tags
from blog.errors import InsufficientScope, Invalid, InvalidCursor
from blog.repository import AnyRow
from blog.schemas.problem import BEARER, LINK_TO_NEXT, refusals
from blog.schemas.tag import TagListed

router = APIRouter(prefix="/tag", tags=["tag"])


@router.get(
    "/",
    summary="List tags",
    response_model=list[TagListed],
    responses=refusals(*BEARER, InsufficientScope, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_tags(reader: BlogReader, tags: Tags, page: RequestedPage) -> Sequence[AnyRow]:
    """List the tags of blogs that you see, by name, each with how many have it."""
    return page.answer(await tags.page(page.request, viewer=reader))
