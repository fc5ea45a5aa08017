"""No database: what FastAPI costs when it answers the same model each time."""

from fastapi import FastAPI
from pydantic import BaseModel

from tests.benchmarks.bare import BLOG


class Creator(BaseModel):
    name: str
    email: str


class Blog(BaseModel):
    title: str
    body: str
    creator: Creator


app = FastAPI()
blog = Blog.model_validate(BLOG)


@app.get("/", response_model=Blog)
async def show() -> Blog:
    return blog
