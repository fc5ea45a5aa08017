"""What machines are told."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """How the platform is."""

    status: Literal["alive", "ready"] = Field(examples=["ready"], description="What was asked, when it is so.")
