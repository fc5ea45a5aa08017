"""What `POST /login` takes and gives."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TokenRequest(BaseModel):
    """The form of RFC 6749, section 4.3.2. As section 3.2 has it, fields unknown here are ignored.

    Every field may be missing, because the answer to that is RFC 6749's own and not a 422.
    """

    model_config = ConfigDict(json_schema_extra={"required": ["username", "password"]})

    grant_type: str = Field("password", description="`password` and nothing else.", examples=["password"])
    username: str = Field("", description="The e-mail address, in any case.", examples=["ada@example.com"])
    password: str = Field("", examples=["correct horse battery"], json_schema_extra={"format": "password"})


class Token(BaseModel):
    """The answer of RFC 6749, section 5.1."""

    access_token: str = Field(examples=["eyJhbGciOi….eyJpc3MiOi….7mOD9v…"])
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (the name of a type)
    expires_in: int = Field(description="Seconds from now.", examples=[900])
