"""Blogs, as they come in and go out."""

import unicodedata
from itertools import dropwhile
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from blog.models import BODY_LENGTH, MAX_TAGS, SLUG_LENGTH, SUMMARY_LENGTH, TAG_LENGTH, TITLE_LENGTH, Status, fold
from blog.schemas.types import BLANK, AbsentIfNone, Input, Line, Moment, Omissible, Output, Prose, Text, Time, visible

IN_SLUG = ("L", "M", "N")
"""Letters, their marks and numbers of any script."""

PARTING = ("\u200b", "\u200c")
"""What is invisible and stands between words (the first) or parts of one (the second); others of its kind, such as
hyphens to be, joiners and turns of direction, do not part what is around them."""

SUFFIX_LENGTH = 9
"""What is kept free at the end of a slug that is made, to tell it from another of the same title."""


def slug_of(text: str, length: int = SLUG_LENGTH - SUFFIX_LENGTH) -> str:
    """The words of a text with hyphens between, readable in any script; empty where there are none."""
    words = "".join(map(_in_slug, BLANK.sub("", fold(text)))).split()
    # A mark with no letter before it would sit on the hyphen.
    words = ["".join(dropwhile(_is_mark, word)) for word in words]
    slug = unicodedata.normalize("NFC", "-".join(filter(None, words)))
    if len(slug) > length:
        # Not in the middle of a word, unless the word is most of it.
        cut = slug.rfind("-", length // 2, length + 1)
        slug = slug[: cut if cut > 0 else length].rstrip("-")
    return slug


def is_slug(text: str) -> bool:
    """Whether this could be some blog's slug: engines differ in what they make of other characters in a comparison."""
    return all(character == "-" or unicodedata.category(character)[0] in IN_SLUG for character in text)


def _in_slug(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] in IN_SLUG:
        return character
    return "" if category == "Cf" and character not in PARTING else " "


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _slug(text: str) -> str:
    slug = slug_of(text, SLUG_LENGTH)
    if not slug:
        raise ValueError("holds no letter and no digit")
    return slug


def _tag(name: str) -> str:
    # Every one of them, so that a tag that is sent back as it was shown stays the same.
    tag = " ".join(fold(name).split()).lstrip("# ")
    if not tag or len(tag) > TAG_LENGTH:
        raise ValueError(f"not a tag of 1 to {TAG_LENGTH} characters")
    return tag


def _each_once(tags: list[str]) -> list[str]:
    return sorted(set(tags))


Title = Annotated[Line, StringConstraints(max_length=TITLE_LENGTH), Field(examples=["Notes on the engine"])]
Body = Annotated[
    Prose,
    StringConstraints(max_length=BODY_LENGTH),
    Field(
        description="Markdown: CommonMark with tables, strikethrough and footnotes, without raw HTML.",
        examples=["It weaves *algebraical* patterns."],
    ),
]
Summary = Annotated[Text, StringConstraints(max_length=SUMMARY_LENGTH), Field(examples=["What it weaves."])]
Slug = Annotated[
    Line,
    StringConstraints(max_length=SLUG_LENGTH),
    AfterValidator(_slug),
    Field(
        description="Letters and digits of any script with hyphens between, as which everything else counts. "
        "Without one it is made of the title. One that is changed leads to the new one for ever.",
        examples=["notes-on-the-engine"],
    ),
]
TagName = Annotated[
    Line,
    StringConstraints(max_length=TAG_LENGTH),
    AfterValidator(_tag),
    AfterValidator(visible),  # without the # too
    Field(description="In any case and width.", examples=["engines"]),
]
Tags = Annotated[list[TagName], Field(max_length=MAX_TAGS), AfterValidator(_each_once)]
PublishAt = Annotated[
    Time, Field(description="When everybody sees it: a time to come schedules it, one that is over dates it back.")
]

Sort = Literal["-published_at", "published_at", "title"]


class BlogUpdate(Input):
    """Some of a blog; what is not sent stays as it was."""

    title: Title = Omissible
    body: Body = Omissible
    summary: Summary = Omissible
    tags: Tags = Omissible
    slug: Slug = Omissible
    status: Status = Omissible
    publish_at: PublishAt = Omissible


class BlogWrite(BlogUpdate):
    """A whole blog. A new one is published at once unless it says otherwise."""

    title: Title
    body: Body


class Creator(Output):
    """Who wrote it; `email` is there for oneself and admins."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Ada"])
    email: str | None = AbsentIfNone


class Highlight(Output):
    """Where a search found it: HTML, in which `<mark>` is the only element."""

    title: str = Field(examples=["Notes on the <mark>engine</mark>"])
    body: str = Field(examples=["… the <mark>engine</mark> weaves …"])


Published = Annotated[Moment | None, Field(description="When everybody sees it or will see it; null for a draft.")]


class BlogListed(Output):
    """A blog in a list, with the fields that were asked for; `highlight` is there after a search."""

    id: Annotated[int, Field(examples=[7])] = Omissible
    slug: Annotated[str, Field(examples=["notes-on-the-engine"])] = Omissible
    title: Annotated[str, Field(examples=["Notes on the engine"])] = Omissible
    summary: Annotated[str, Field(examples=["What it weaves."])] = Omissible
    body: Annotated[str, Field(examples=["It weaves *algebraical* patterns."])] = Omissible
    tags: Annotated[list[str], Field(examples=[["engines"]])] = Omissible
    status: Status = Omissible
    created_at: Moment = Omissible
    updated_at: Moment = Omissible
    published_at: Published = Omissible
    revision: Annotated[int, Field(examples=[1])] = Omissible
    creator: Creator = Omissible
    highlight: Highlight = Omissible


class BlogPublic(Output):
    """A blog."""

    id: int = Field(examples=[7])
    slug: str = Field(examples=["notes-on-the-engine"])
    title: str = Field(examples=["Notes on the engine"])
    summary: str = Field(examples=["What it weaves."])
    body: str = Field(examples=["It weaves *algebraical* patterns."])
    html: str = Field(
        description="What the body shows, sanitised.", examples=["<p>It weaves <em>algebraical</em> patterns.</p>"]
    )
    tags: list[str] = Field(examples=[["engines"]])
    status: Status
    created_at: Moment
    updated_at: Moment
    published_at: Published
    revision: int = Field(description="The number of this title and body.", examples=[1])
    creator: Creator


FIELDS = tuple(field for field in BlogListed.model_fields if field != "highlight")
NAME_OF_FIELD = "|".join(FIELDS)
Fields = Annotated[
    str,
    StringConstraints(pattern=rf"^({NAME_OF_FIELD})(,({NAME_OF_FIELD}))*$"),
    Field(examples=["id,title,creator"]),
]


class Editor(Output):
    """Who wrote a revision."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Ada"])


class RevisionListed(Output):
    """A title and body that a blog has or had. `editor` is null when that user is gone."""

    number: int = Field(examples=[1])
    title: str = Field(examples=["Notes on the engine"])
    editor: Editor | None
    created_at: Moment


class Revision(RevisionListed):
    """The same, whole. `diff` is there when it was asked for."""

    body: str = Field(examples=["It weaves *algebraical* patterns."])
    diff: Annotated[
        str | None,
        Field(
            description="What became of the other revision, as a unified diff.",
            examples=["--- 1\n+++ 2\n@@ -1,2 +1,2 @@\n Notes on the engine\n-It spins.\n+It weaves.\n"],
        ),
    ] = AbsentIfNone


class Change(Output):
    """What became of a blog that you see or saw. `blog` is there unless it was deleted, as far as you can see."""

    id: int = Field(examples=[7])
    change: Literal["created", "updated", "deleted"] = Field(examples=["updated"])
    at: Moment
    blog: BlogListed | None = AbsentIfNone


class FollowedChanges(Output):
    """What became of blogs, in order, each with what it came to last; and what to go on with, always."""

    changes: list[Change]
    cursor: str = Field(examples=["WyJ4…"], description="For `since` of the next request.")
