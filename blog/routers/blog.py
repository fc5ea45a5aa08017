"""Blogs."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import StringConstraints
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT, HTTP_301_MOVED_PERMANENTLY

from blog.dependencies import (
    BlogReader,
    Blogs,
    BlogWriter,
    DifferOfApp,
    Followed,
    FollowedBlogs,
    OwnBlog,
    RendererOfApp,
    RequestedPage,
    RevisedBlog,
    RevisionOfOwn,
    Revisions,
    ShownBlog,
    ShownBySlug,
    ShownRevisions,
)
from blog.errors import (
    AuthorRequired,
    BlogDeleted,
    BlogNotFound,
    Busy,
    InsufficientScope,
    Invalid,
    InvalidCursor,
    NotBlogCreator,
    PreconditionFailed,
    RevisionNotFound,
    SlugTaken,
    Unrenderable,
)
from blog.idempotency import Idempotent, KeepingRoute
from blog.models import Status
from blog.preconditions import Conditions, Preconditions, etag_of
from blog.repository import AnyRow
from blog.repository.blog import BlogAnswer, BlogRepository, Held
from blog.schemas.blog import (
    FIELDS,
    BlogListed,
    BlogPublic,
    BlogUpdate,
    BlogWrite,
    Fields,
    FollowedChanges,
    Revision,
    RevisionListed,
    Sort,
    TagName,
)
from blog.schemas.problem import BEARER, BODY, CONDITIONAL, ETAG, IDEMPOTENT, LINK_TO_NEXT, LOCATION, refusals
from blog.schemas.types import Id, Text
from blog.security.access import Caller

router = APIRouter(prefix="/blog", tags=["blog"], route_class=KeepingRoute)


class Another(StringConvertor):
    """A blog in a path, but not `changes`: what that does not take would be taken for `/blog/{blog_id}`."""

    regex = "(?!changes$)[^/]+"


register_url_convertor("another", Another())

FIND = (BlogNotFound, BlogDeleted)
WRITE = (*BEARER, *BODY, InsufficientScope, AuthorRequired, SlugTaken, Unrenderable, Busy)
CHANGE = (NotBlogCreator, *FIND, PreconditionFailed)

Asked = Annotated[Text, StringConstraints(max_length=500)]


@router.post(
    "/",
    summary="Write a blog",
    status_code=HTTP_201_CREATED,
    response_model=BlogPublic,
    responses=refusals(*WRITE, *IDEMPOTENT) | LOCATION,
)
async def create_blog(
    writer: BlogWriter,
    _: Idempotent,
    blogs: Blogs,
    data: BlogWrite,
    renderer: RendererOfApp,
    conditions: Conditions,
    request: Request,
    response: Response,
) -> BlogAnswer:
    """Write a blog. You are its creator, and without a status it is published at once."""
    rendered = await renderer.render(data.body, writer.user.id)
    blog_id = await blogs.add(writer.user, data, rendered)
    response.headers["Location"] = request.url_for("show_blog", blog_id=blog_id).path
    return await _written(blogs, blog_id, writer, conditions)


@router.get(
    "/",
    summary="List blogs",
    response_model=list[BlogListed],
    response_model_exclude_unset=True,
    responses=refusals(*BEARER, InsufficientScope, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_blogs(
    reader: BlogReader,
    blogs: Blogs,
    page: RequestedPage,
    author: Annotated[Id | None, Query(description="The id of a user, for that user's blogs.")] = None,
    tag: Annotated[TagName | None, Query(description="Blogs that have this tag.")] = None,
    status: Annotated[Status | None, Query(description="Drafts and scheduled ones are your own.")] = None,
    q: Annotated[
        Asked | None,
        Query(description="Words that all occur in title or body, quoted ones in this order; the best first."),
    ] = None,
    sort: Annotated[
        Sort | None,
        Query(description="A minus for the last first; `title` in any case. Without it `-published_at`."),
    ] = None,
    fields: Annotated[Fields | None, Query(description="Only these fields, with commas between.")] = None,
) -> Sequence[BlogAnswer]:
    """List published blogs, and your own that are not, the newest first."""
    chosen = tuple(field for field in FIELDS if fields is None or field in fields.split(","))
    wanted: dict[str, Any] = {"viewer": reader, "fields": chosen, "author": author, "tag": tag, "status": status}
    if q is not None:
        return page.answer(await blogs.search(page.request, q, sort=sort, **wanted))
    return page.answer(await blogs.page(page.request, sort=sort or "-published_at", **wanted))


@router.get(
    "/changes",
    summary="Follow blogs",
    response_model=FollowedChanges,
    response_model_exclude_unset=True,
    responses=refusals(*BEARER, InsufficientScope, Invalid, InvalidCursor),
)
async def list_changes(reader: BlogReader, followed: Followed, source: FollowedBlogs) -> dict[str, Any]:
    """Follow what becomes of the blogs that you see: from the first one on, or from where you stopped.

    Each blog stands where it was last written and as it is now, so following to the end gives all there is. One that
    is deleted, or that you see no longer, is there without `blog`. There may be more while there are any, and one that
    you did not have may be called updated, because it was when you came to it.
    """
    changes, blogs = source
    entries, position = await changes.since(followed.position, followed.limit, viewer=reader)
    ids = [entry.blog_id for entry in entries if entry.kind != "deleted"]
    alive = await blogs.read_many(ids, viewer=reader, moment=position.moment)
    shown: list[dict[str, Any]] = []
    for entry in entries:
        if entry.blog_id in alive:
            shown.append({"id": entry.blog_id, "change": entry.kind, "at": entry.at, "blog": alive[entry.blog_id]})
        else:  # what was deleted between the two statements, too
            shown.append({"id": entry.blog_id, "change": "deleted", "at": entry.at})
    return {"changes": shown, "cursor": followed.cursor(position)}


@router.get(
    "/{blog_id:another}",
    summary="Read a blog",
    response_model=BlogPublic,
    responses=refusals(*BEARER, InsufficientScope, *FIND, Invalid) | CONDITIONAL,
)
async def show_blog(blog: ShownBlog) -> BlogAnswer:
    """Read a blog."""
    return blog


@router.get(
    "/slug/{slug}",
    summary="Read a blog by its slug",
    response_model=BlogPublic,
    responses=refusals(*BEARER, InsufficientScope, *FIND)
    | CONDITIONAL
    | {HTTP_301_MOVED_PERMANENTLY: {"description": "It has another slug now: `Location` says which."}},
)
async def show_blog_by_slug(blog: ShownBySlug, slug: str, request: Request) -> BlogAnswer | Response:
    """Read a blog by its slug; one that it had before leads to the one that it has."""
    if blog["slug"] != slug:
        path = request.url_for("show_blog_by_slug", slug=blog["slug"]).path
        return RedirectResponse(path, HTTP_301_MOVED_PERMANENTLY)
    return blog


@router.put(
    "/{blog_id:another}",
    summary="Replace a blog",
    response_model=BlogPublic,
    responses=refusals(*WRITE, *CHANGE) | ETAG,
)
async def replace_blog(
    writer: BlogWriter, blog_id: OwnBlog, blogs: Blogs, data: BlogWrite, renderer: RendererOfApp, conditions: Conditions
) -> BlogAnswer:
    """Give a blog a new title and body; what else is not sent stays as it was. For its creator and admins."""
    return await _change(writer, blog_id, blogs, data, renderer, conditions)


@router.patch(
    "/{blog_id:another}",
    summary="Change a blog",
    response_model=BlogPublic,
    responses=refusals(*WRITE, *CHANGE) | ETAG,
)
async def update_blog(
    writer: BlogWriter,
    blog_id: OwnBlog,
    blogs: Blogs,
    data: BlogUpdate,
    renderer: RendererOfApp,
    conditions: Conditions,
) -> BlogAnswer:
    """Change some of a blog; what is not sent stays as it was. For its creator and admins."""
    return await _change(writer, blog_id, blogs, data, renderer, conditions)


@router.delete(
    "/{blog_id:another}",
    summary="Delete a blog",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, InsufficientScope, AuthorRequired, *CHANGE, Invalid),
)
async def delete_blog(writer: BlogWriter, blog_id: OwnBlog, blogs: Blogs, conditions: Conditions) -> None:
    """Delete a blog for ever; nobody gets its slugs again. For its creator and admins."""
    await blogs.remove(await _hold(blogs, blog_id, writer, conditions))


@router.get(
    "/{blog_id}/revisions",
    summary="List a blog's revisions",
    response_model=list[RevisionListed],
    responses=refusals(*BEARER, InsufficientScope, NotBlogCreator, *FIND, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_revisions(blog_id: RevisedBlog, revisions: Revisions, page: RequestedPage) -> Sequence[dict[str, Any]]:
    """List every title and body that a blog has and had, the newest first. For its creator and admins."""
    return [_shown(row) for row in page.answer(await revisions.page(page.request, blog_id))]


@router.get(
    "/{blog_id}/revisions/{number}",
    summary="Read a revision",
    response_model=Revision,
    responses=refusals(*BEARER, InsufficientScope, NotBlogCreator, *FIND, RevisionNotFound, Invalid, Busy)
    | CONDITIONAL,
)
async def show_revision(revisions: ShownRevisions, differ: DifferOfApp) -> dict[str, Any]:
    """Read a title and body that a blog has or had, and what became of another. For its creator and admins."""
    revision, *others = revisions
    shown = _shown(revision) | {"body": revision.body}
    for other in others:
        before, after = (f"{row.title}\n\n{row.body}" for row in (other, revision))
        shown["diff"] = await differ.diff(before, after, str(other.number), str(revision.number))
    return shown


@router.post(
    "/{blog_id}/revisions/{number}/restore",
    summary="Restore a revision",
    status_code=HTTP_201_CREATED,
    response_model=BlogPublic,
    responses=refusals(*WRITE, *CHANGE, *IDEMPOTENT, RevisionNotFound) | LOCATION,
)
async def restore_revision(
    writer: BlogWriter,
    blog_id: OwnBlog,
    revision: RevisionOfOwn,
    _: Idempotent,
    blogs: Blogs,
    renderer: RendererOfApp,
    conditions: Conditions,
    request: Request,
    response: Response,
) -> BlogAnswer:
    """Give a blog a title and body that it had before, as a new revision. For its creator and admins."""
    rendered = await renderer.render(revision.body, writer.user.id)
    held = await _hold(blogs, blog_id, writer, conditions)
    number = await blogs.restore(held, revision.title, revision.body, rendered, writer.user)
    response.headers["Location"] = request.url_for("show_revision", blog_id=blog_id, number=number).path
    return await _written(blogs, blog_id, writer, conditions)


async def _change(
    writer: Caller,
    blog_id: int,
    blogs: BlogRepository,
    data: BlogUpdate,
    renderer: RendererOfApp,
    conditions: Preconditions,
) -> BlogAnswer:
    rendered = await renderer.render(data.body, writer.user.id) if "body" in data.model_fields_set else None
    held = await _hold(blogs, blog_id, writer, conditions)
    await blogs.update(held, data, rendered, writer.user)
    return await _written(blogs, blog_id, writer, conditions)


async def _hold(blogs: BlogRepository, blog_id: int, writer: Caller, conditions: Preconditions) -> Held:
    held = await blogs.hold(blog_id)
    if conditions.demands_etag:
        conditions.demand(etag_of(*(await blogs.read_written(blog_id, viewer=writer))["version"]))
    return held


async def _written(blogs: BlogRepository, blog_id: int, writer: Caller, conditions: Preconditions) -> BlogAnswer:
    """The blog as it is now, seen by whoever wrote it, though an admin may have made it a draft of somebody else's."""
    blog = await blogs.read_written(blog_id, viewer=writer)
    conditions.changed(etag_of(*blog["version"]))
    return blog


def _shown(row: AnyRow) -> dict[str, Any]:
    editor = None if row.editor_id is None else {"id": row.editor_id, "name": row.editor_name}
    return {"number": row.number, "title": row.title, "created_at": row.created_at, "editor": editor}
