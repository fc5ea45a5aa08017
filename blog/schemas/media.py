"""Images, as they go out; they come in as a form's file."""

from typing import Any

from pydantic import Field

from blog.schemas.problem import CONDITIONAL
from blog.schemas.types import Moment, Output

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A PNG, JPEG, GIF, WebP or AVIF image. Its name is not looked at.",
                        }
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                }
            }
        },
    }
}
"""What the documentation says of an upload, which is read only once it is known who sends it."""

CONTENT: dict[str, Any] = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
FILE: dict[int | str, dict[str, Any]] = {
    200: CONDITIONAL[200] | {"description": "The image, of its own media type.", "content": CONTENT},
    206: CONDITIONAL[200] | {"description": "The part of it that a `Range` asks for.", "content": CONTENT},
    304: CONDITIONAL[304],
}


class MediaPublic(Output):
    """An image."""

    name: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015.jpg"])
    url: str = Field(examples=["/media/9f86d081884c7d659a2feaa0c55ad015.jpg"])
    media_type: str = Field(examples=["image/jpeg"])
    width: int = Field(examples=[4000])
    height: int = Field(examples=[3000])
    size: int = Field(description="In bytes.", examples=[2_891_594])
    created_at: Moment
