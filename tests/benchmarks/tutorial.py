"""The shape that FastAPI's and SQLModel's tutorials teach, as most such platforms start.

`def` endpoints in threads, an engine made at import, a session for each request, statements built for each
request, and answers nested through lazy relationships: each blog with its creator, each creator with all blogs.

It gets what the tutorials leave out where that alone would decide the race: an index on the foreign key. It checks
less than the platform (a token is a name that was signed) and answers a new blog without the nesting.
"""

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from sqlalchemy import Text
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, Session, SQLModel, create_engine, select

ALGORITHM = "HS256"
SECRET_KEY = os.environ.get("TUTORIAL_SECRET_KEY", "")
URL = os.environ.get("TUTORIAL_DATABASE_URL", "sqlite://")

engine = create_engine(URL, connect_args={"check_same_thread": False} if URL.startswith("sqlite") else {})


class Base(SQLModel, registry=registry()):
    """A registry of its own: blog.models has tables of the same names."""


class User(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    email: str = Field(unique=True, index=True)
    password: str
    blogs: list["Blog"] = Relationship(back_populates="creator")


class Blog(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    title: str
    body: str = Field(sa_type=Text)  # a plain str ends at 255 characters on MariaDB
    creator_id: int | None = Field(default=None, foreign_key="user.id", index=True)
    creator: User = Relationship(back_populates="blogs")


class BlogBase(SQLModel):
    title: str
    body: str


class ShowUser(SQLModel):
    name: str
    email: str
    blogs: list[BlogBase]


class ShowBlog(BlogBase):
    creator: ShowUser


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    Base.metadata.create_all(engine)
    if sys.version_info < (3, 12):
        # CPython 3.11 collects garbage in the middle of an allocation: with ORM objects in several threads 3.11.7 ended
        # in a segmentation fault within seconds. 3.12 waits for the next bytecode, and here it waits for a request.
        gc.disable()
    yield


def collect_garbage() -> None:
    if not gc.isenabled():
        ripe = [count > threshold for count, threshold in zip(gc.get_count(), gc.get_threshold(), strict=True)]
        if any(ripe):
            gc.collect(max(generation for generation in range(3) if ripe[generation]))


def get_session() -> Iterator[Session]:
    collect_garbage()
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
oauth2_scheme = OAuth2PasswordBearer(tokenUrl="login")


def get_current_user(token: Annotated[str, Depends(oauth2_scheme)], session: SessionDep) -> User:
    try:
        email = jwt.decode(token, SECRET_KEY, algorithms=[ALGORITHM]).get("sub")
    except JWTError:
        raise HTTPException(401, "Could not validate credentials") from None
    user = session.exec(select(User).where(User.email == email)).first()
    if user is None:
        raise HTTPException(401, "Could not validate credentials")
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
app = FastAPI(lifespan=lifespan)


@app.get("/blog/", response_model=list[ShowBlog])
def read_blogs(user: CurrentUser, session: SessionDep) -> Any:
    return session.exec(select(Blog)).all()


@app.get("/blog/{blog_id}", response_model=ShowBlog)
def read_blog(blog_id: int, user: CurrentUser, session: SessionDep) -> Any:
    blog = session.get(Blog, blog_id)
    if blog is None:
        raise HTTPException(404, "Blog not found")
    return blog


@app.post("/blog/", response_model=BlogBase, status_code=201)
def create_blog(data: BlogBase, user: CurrentUser, session: SessionDep) -> Any:
    blog = Blog(title=data.title, body=data.body, creator_id=user.id)
    session.add(blog)
    session.commit()
    session.refresh(blog)
    return blog
