"""Blogs, as they come in and go out."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from blog.models import BODY_LENGTH, TITLE_LENGTH
from blog.schemas.types import Input, Line, Moment, Omissible, OthersDoNotSee, Output, Prose

Title = Annotated[Line, StringConstraints(max_length=TITLE_LENGTH), Field(examples=["Notes on the engine"])]
Body = Annotated[Prose, StringConstraints(max_length=BODY_LENGTH), Field(examples=["It weaves algebraical patterns."])]

Sort = Literal["-published_at", "published_at", "title"]


class BlogWrite(Input):
    """A whole blog."""

    title: Title
    body: Body


class BlogUpdate(Input):
    """Some of a blog; what is not sent stays as it was."""

    title: Title = Omissible
    body: Body = Omissible


class Creator(Output):
    """Who wrote it; `email` is there for oneself and admins."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Ada"])
    email: str | None = OthersDoNotSee


class BlogPublic(Output):
    """A blog."""

    id: int = Field(examples=[7])
    title: str = Field(examples=["Notes on the engine"])
    body: str = Field(examples=["It weaves algebraical patterns."])
    created_at: Moment
    updated_at: Moment
    published_at: Moment
    creator: Creator


FIELDS = tuple(BlogPublic.model_fields)
NAME_OF_FIELD = "|".join(FIELDS)
Fields = Annotated[
    str,
    StringConstraints(pattern=rf"^({NAME_OF_FIELD})(,({NAME_OF_FIELD}))*$"),
    Field(examples=["id,title,creator"]),
]


class BlogListed(Output):
    """A blog in a list, with the fields that were asked for."""

    id: Annotated[int, Field(examples=[7])] = Omissible
    title: Annotated[str, Field(examples=["Notes on the engine"])] = Omissible
    body: Annotated[str, Field(examples=["It weaves algebraical patterns."])] = Omissible
    created_at: Moment = Omissible
    updated_at: Moment = Omissible
    published_at: Moment = Omissible
    creator: Creator = Omissible
