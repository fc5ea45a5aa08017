"""Blogs."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from blog.dependencies import Author, Blogs, CurrentUser, OwnBlog, RequestedPage, ShownBlog
from blog.errors import AuthorRequired, BlogNotFound, Invalid, InvalidCursor, NotBlogCreator
from blog.models import Blog
from blog.repository.blog import BlogAnswer
from blog.schemas.blog import FIELDS, BlogListed, BlogPublic, BlogUpdate, BlogWrite, Fields, Sort
from blog.schemas.problem import BEARER, BODY, LINK_TO_NEXT, LOCATION, refusals
from blog.schemas.types import Id

router = APIRouter(prefix="/blog", tags=["blog"])


@router.post(
    "/",
    summary="Write a blog",
    status_code=HTTP_201_CREATED,
    response_model=BlogPublic,
    responses=refusals(*BEARER, *BODY, AuthorRequired) | LOCATION,
)
async def create_blog(user: Author, blogs: Blogs, data: BlogWrite, request: Request, response: Response) -> BlogAnswer:
    """Write a blog. You are its creator."""
    blog = await blogs.add(user, data.title, data.body)
    response.headers["Location"] = request.url_for("show_blog", blog_id=blog["id"]).path
    return blog


@router.get(
    "/",
    summary="List blogs",
    response_model=list[BlogListed],
    response_model_exclude_unset=True,
    responses=refusals(*BEARER, Invalid, InvalidCursor) | LINK_TO_NEXT,
)
async def list_blogs(
    user: CurrentUser,
    blogs: Blogs,
    page: RequestedPage,
    author: Annotated[Id | None, Query(description="The id of a user, for that user's blogs.")] = None,
    sort: Annotated[Sort, Query(description="A minus for the last first; `title` in any case.")] = "-published_at",
    fields: Annotated[Fields | None, Query(description="Only these fields, with commas between.")] = None,
) -> Sequence[BlogAnswer]:
    """List blogs, the newest first."""
    chosen = tuple(field for field in FIELDS if fields is None or field in fields.split(","))
    return page.answer(await blogs.page(page.request, viewer=user, fields=chosen, sort=sort, author=author))


@router.get(
    "/{blog_id}",
    summary="Read a blog",
    response_model=BlogPublic,
    responses=refusals(*BEARER, BlogNotFound, Invalid),
)
async def show_blog(blog: ShownBlog) -> BlogAnswer:
    """Read a blog."""
    return blog


@router.put(
    "/{blog_id}",
    summary="Replace a blog",
    response_model=BlogPublic,
    responses=refusals(*BEARER, *BODY, NotBlogCreator, BlogNotFound),
)
async def replace_blog(blog: OwnBlog, blogs: Blogs, data: BlogWrite) -> Blog:
    """Give a blog a new title and body. For its creator and admins."""
    return await blogs.update(blog, data.model_dump())


@router.patch(
    "/{blog_id}",
    summary="Change a blog",
    response_model=BlogPublic,
    responses=refusals(*BEARER, *BODY, NotBlogCreator, BlogNotFound),
)
async def update_blog(blog: OwnBlog, blogs: Blogs, data: BlogUpdate) -> Blog:
    """Change some of a blog; what is not sent stays as it was. For its creator and admins."""
    return await blogs.update(blog, data.model_dump(exclude_unset=True))


@router.delete(
    "/{blog_id}",
    summary="Delete a blog",
    status_code=HTTP_204_NO_CONTENT,
    response_class=Response,
    responses=refusals(*BEARER, NotBlogCreator, BlogNotFound, Invalid),
)
async def delete_blog(blog: OwnBlog, blogs: Blogs) -> None:
    """Delete a blog. For its creator and admins."""
    await blogs.remove(blog)
