"""Tags, as they go out."""

from pydantic import Field

from blog.schemas.types import Output


class TagListed(Output):
    """A tag, and how many blogs that you see have it."""

    name: str = Field(examples=["engines"])
    blogs: int = Field(examples=[3])
