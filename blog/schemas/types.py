"""The types that requests and answers share: text, ids, times, pages."""

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from blog.models import EMAIL_LENGTH, NAME_LENGTH, fold
from blog.settings import PASSWORD_MAX_LENGTH

MAX_ID = 2**31 - 1
"""What an INTEGER holds on PostgreSQL and MariaDB."""

NOBODY = 0
"""An id that no row has."""

PAGE_LIMIT = 100
"""The most that one page of a list holds."""

# PostgreSQL stores no NUL, no engine half of a surrogate pair, and XML, so no feed, the other controls.
UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
# Not what is unassigned: it is this year's emoji to a Python of last year.
INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")
# Unicode counts fillers as letters, selectors as marks and the blank of Braille as a symbol.
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
# Beyond them databases and clients differ in what a time is.
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
DECIMAL = re.compile("[1-9][0-9]{0,9}")
MAX_DECIMAL = 10**10 - 1
RowT = TypeVar("RowT")


class Input(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    """An answer, built from a row or from a table's object, and not judged again: its types are plain."""

    model_config = ConfigDict(from_attributes=True)


def _decimal(value: Any) -> Any:
    # Pydantic would take True, 1.0, +1, 1_0 and full-width digits for an id too.
    if isinstance(value, bool | float) or (isinstance(value, str) and not DECIMAL.fullmatch(value)):
        raise ValueError("not an id")
    return value


def _decimal_or_zero(value: Any) -> Any:
    return 0 if value == "0" else _decimal(value)


def _possible(value: int) -> int:
    return value if value <= MAX_ID else NOBODY


def _storable(text: str) -> str:
    if UNSTORABLE.search(text):
        raise ValueError("holds a character that cannot be stored, such as NUL")
    return text


def visible(text: str) -> str:
    """The text, in which there is something to see. Raises ValueError."""
    if all(unicodedata.category(character) in INVISIBLE or BLANK.match(character) for character in text):
        raise ValueError("shows nothing")
    return text


def _one_line(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError("holds a line break or another control character")
    return text


def _mailable(text: str) -> str:
    # Not pydantic's EmailStr, which takes "Ada <ada@example.com>" too and repeats what it does not take.
    try:
        email = validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError:
        raise ValueError("not an e-mail address, as in ada@example.com") from None
    if "=?" in email:
        # RFC 2047, section 5: never in an address. Programs for mail decode it all the same, into another address.
        raise ValueError("holds the beginning of an encoded word")
    if len(fold(email)) > EMAIL_LENGTH:
        raise ValueError(f"longer than {EMAIL_LENGTH} characters")
    return email


def _rfc_3339(value: Any) -> Any:
    # Pydantic would take a number for the seconds since 1970 too.
    if not isinstance(value, str) or not RFC_3339.fullmatch(value):
        raise ValueError("not a time with an offset, as in 2027-11-21T09:30:00Z")
    return value


def _sane(time: datetime) -> datetime:
    if not EARLIEST <= time < LATEST:
        raise ValueError(f"not between {EARLIEST.year} and {LATEST.year}")
    return time.astimezone(UTC).replace(microsecond=0)


def _omissible(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Omissible: Any = Field(default=None, json_schema_extra=_omissible)
"""A field that may be left out but not be null: a default is never validated, a null is."""

# Bounds come before the validator, or the documentation has none.
Id = Annotated[int, Field(ge=1, le=MAX_ID, examples=[7]), BeforeValidator(_decimal)]
PathId = Annotated[int, Field(ge=1, le=MAX_DECIMAL, examples=[7]), BeforeValidator(_decimal), AfterValidator(_possible)]
"""The id in a path: one that is larger than any names nothing, which is 404 and not 422."""
Number = Annotated[int, Field(ge=0, le=MAX_ID, examples=[7]), BeforeValidator(_decimal_or_zero)]
"""That of a message, or 0 before the first."""
Text = Annotated[
    str,
    AfterValidator(_storable),
    Field(description="Without control characters other than tabs and line breaks."),
]
Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1),
    AfterValidator(_storable),
    AfterValidator(_one_line),
    AfterValidator(visible),
    Field(description="One line in which there is something to see, without control characters."),
]
"""Text without line breaks in which there is something to see."""
Label = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(_storable),
    AfterValidator(_one_line),
    Field(description="One line without control characters, or nothing."),
]
Prose = Annotated[Text, StringConstraints(min_length=1), AfterValidator(visible)]
"""Text of any number of lines in which there is something to see."""
Limit = Annotated[int, Field(ge=1, le=PAGE_LIMIT), BeforeValidator(_decimal)]
Email = Annotated[
    str,
    AfterValidator(_storable),
    StringConstraints(max_length=EMAIL_LENGTH * 2),
    AfterValidator(_mailable),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": EMAIL_LENGTH, "examples": ["ada@example.com"]}),
]
Name = Annotated[Line, StringConstraints(max_length=NAME_LENGTH), Field(examples=["Ada"])]
NewPassword = Annotated[
    Text, StringConstraints(min_length=8, max_length=PASSWORD_MAX_LENGTH), Field(examples=["correct horse battery"])
]
"""Any characters that can be stored; the settings may ask for more of them."""
Time = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc_3339),
    AfterValidator(_sane),
    Field(description="RFC 3339 with an offset; kept in whole seconds.", examples=["2027-11-21T09:30:00Z"]),
]
Moment = Annotated[datetime, Field(examples=["2026-11-21T09:30:00Z"])]
"""RFC 3339 in UTC; tables keep whole seconds, so no fraction is shown."""
AbsentIfNone: Any = Field(default=None, exclude_if=lambda value: value is None)
"""A field of an answer that is not there when there is nothing to be said, or nothing for whoever asks."""


class PageRequest(NamedTuple):
    """How many rows, and after which position: that of the cursor, or None to start."""

    limit: int
    after: tuple[Any, ...] | None


class Page(NamedTuple, Generic[RowT]):
    """Rows of a list, and the position from which it goes on, or None at its end."""

    rows: Sequence[RowT]
    next: tuple[Any, ...] | None
