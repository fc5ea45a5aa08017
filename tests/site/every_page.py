"""A site with something of everything on it, and every page that it shows: to readers, to authors and to admins."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import alembic.command
import httpx
from fastapi.routing import APIRoute
from sqlalchemy import make_url

from blog.app import create_app
from blog.database import alembic_config
from blog.models import Role
from blog.repository.page import PageRepository
from blog.repository.room import RoomRepository
from blog.schemas.room import RoomUpdate
from blog.site import account, desk, discussion, pages
from blog.site.readers import ANY_POST
from tests.conftest import NO_TLS, make_settings
from tests.factories import PASSWORD, Factory
from tests.site.browser import HTML, Browser
from tests.test_browser import Served, platform_with

T = TypeVar("T")

EVERYTHING = """\
## What it weaves

It *weaves* **algebraical** patterns[^1] as a [loom](https://example.com/) weaves ~~leaves~~ flowers, in `O(n)`.

![A dot](/static/icon.svg)

> It has no pretensions to *originate* anything.

```python
# What it does.
class Engine(Mill):
    def weave(self, pattern: str = "flowers", times=3) -> None:
        return [f"{pattern}\\n" for _ in range(times) if pattern is not None]
```

```diff
@@ -1 +1 @@
-leaves
+flowers
```

| Operation | Number of the variables that it acts upon | Statement of what becomes of them |
|:----------|:-----------------------------------------:|----------------------------------:|
| × | ²V₁ ²V₂ | equal to a number of some length |

1. A list
   - of lists

---

### A word of some length

Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft
https://example.com/a/very/long/address/that/nobody/would/want/to/read/to/the/end/of/on/a/telephone

[^1]: Of what *is* known.
"""
MARCH = datetime(2026, 3, 5, 12, tzinfo=UTC)

READER, AUTHOR, ADMIN = "reader", "author", "admin"

NO_PAGES = {"/robots.txt", "/static/{name}"}

PAGES: dict[str, dict[str, list[str]]] = {
    READER: {
        "/": ["/", "{older}"],
        "/tags/{tag:path}": ["/tags/looms"],
        "/authors/{user_id}": ["/authors/1"],
        "/archive": ["/archive"],
        "/archive/{year}/{month}": ["/archive/2026/3"],
        "/search": ["/search", "/search?q=weaves", "/search?q=nothing+of+it"],
        "/posts/{slug}": ["/posts/everything", "/posts/of-looms", "/posts/closed", "/posts/nowhere", "/posts/gone"],
        "/posts/{slug}/discussion": ["/posts/everything/discussion", "/posts/closed/discussion"],
        "/link": ["/link"],
        "/docs/rooms": ["/docs/rooms"],
        "/login": ["/login"],
        "/register": ["/register"],
        "/forgotten": ["/forgotten"],
    },
    AUTHOR: {
        "/posts/{slug}/discussion": ["/posts/everything/discussion"],
        "/desk": ["/desk"],
        "/desk/{blog_id:id}": ["/desk/1"],
    },
    ADMIN: {
        "/posts/{slug}/discussion": ["/posts/everything/discussion", "/posts/of-looms/discussion"],
        "/desk": ["/desk"],
        "/desk/new": ["/desk/new"],
        "/desk/{blog_id:id}": ["/desk/1", "/desk/2"],
        "/desk/{blog_id:id}/revisions": ["/desk/1/revisions"],
        "/desk/{blog_id:id}/revisions/{number}": ["/desk/1/revisions/1", "/desk/1/revisions/1?diff=2"],
        "/desk/readers": ["/desk/readers"],
        "/desk/account": ["/desk/account"],
        "/desk/users": ["/desk/users", "/desk/users?q=nobody"],
    },
}
"""What each asks for of every route that shows a page."""

FORMS: dict[str, dict[str, tuple[str, str, dict[str, str]]]] = {
    READER: {
        "/login": ("/login", "None", {"username": "ada@example.com", "password": "wrong"}),
        "/register": ("/register", "None", {"name": "Cid", "email": "nowhere", "password": PASSWORD}),
        "/forgotten": ("/forgotten", "None", {"email": "nobody@example.com"}),
    },
    AUTHOR: {},
    ADMIN: {
        "/posts/{slug}/discussion": (
            "/posts/everything/discussion",
            "/posts/everything/discussion",
            {"body": " "},
        ),
        "/desk/new": ("/desk/new", "/desk/new", {"title": " ", "body": "It *weaves*.", "tags": "looms"}),
        "/desk/{blog_id:id}": ("/desk/1", "/desk/1", {"body": f"{EVERYTHING}\nMine.", "etag": '"stale"'}),
        "/desk/account": ("/desk/account", "/desk/account", {"name": ""}),
        "/desk/account/password": (
            "/desk/account",
            "/desk/account/password",
            {"current_password": "wrong", "new_password": "staple battery horse"},
        ),
        "/desk/account/tokens": (
            "/desk/account",
            "/desk/account/tokens",
            {"name": "Backup", "scopes": "blog:read"},
        ),
    },
}
"""Forms that are answered with a page, by what was wrong with them or with what is told but once: where each is, where
it goes and what is put into it."""

LEADING_ON = {
    "/posts/{slug}/discussion/{number}/remove",
    "/desk/{blog_id:id}/delete",
    "/desk/{blog_id:id}/revisions/{number}/restore",
    "/desk/preview",
    "/desk/media",
    "/desk/account/sessions/{session_id}",
    "/desk/account/tokens/{token_id}",
    "/desk/logout",
    "/desk/logout/everywhere",
    "/desk/users/{user_id}",
}
"""Forms that lead to another page, or are of the editor's script."""


def routes(method: str) -> set[str]:
    """The paths of the site's routes that take this method."""
    routers = (account.router, desk.router, discussion.router, discussion.form_router, pages.router)
    return {
        route.path
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and method in (route.methods or ())
    }


class Shown(NamedTuple):
    """A page as it was answered to somebody."""

    name: str
    who: str
    response: httpx.Response

    @property
    def html(self) -> str:
        return self.response.text


class World(NamedTuple):
    """A site that is served, and what it shows; `cookies` are those of the logins of who has one."""

    served: Served
    shown: list[Shown]
    cookies: dict[str, str]


def in_thread(act: Callable[[], T]) -> T:
    """What this comes to in a thread of its own: in one that drives a browser there is an event loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


@contextmanager
def site_with(folder: Path, write: Callable[[Factory], Awaitable[None]], **settings: str) -> Iterator[Served]:
    """A site on SQLite whose rows were there before it was served."""
    configured = make_settings(make_url(f"sqlite:///{folder / 'blog.db'}"))

    async def fill() -> None:
        app = create_app(configured)
        async with app.router.lifespan_context(app):
            await write(Factory(app))

    def prepare() -> None:
        alembic.command.upgrade(alembic_config(configured), "head")
        asyncio.run(fill())

    in_thread(prepare)
    with platform_with(folder, **settings) as served:
        yield served


async def write_everything(factory: Factory) -> None:
    """What there is to see, in rows of ids that are known."""
    ada = await factory.user("Ada Lovelace", role=Role.ADMIN, email="ada@example.com")
    await factory.user("Bob", email="bob@example.com")
    written = {"summary": "On what the engine can do.", "tags": ["looms", "engines & mills"]}
    await factory.blog(ada, "Everything", EVERYTHING, **written, published_at=MARCH)
    await factory.blog(ada, "Scheduled", publish_at="2190-01-01T09:30:00Z")
    await factory.blog(ada, "Closed", published_at=MARCH)
    await factory.blog(ada, "Gone", published_at=MARCH)
    for number, title in enumerate(("Of looms", "A title that goes on for longer than a line of a telephone has")):
        when = MARCH + timedelta(days=30 * number)
        await factory.blog(ada, title, "It weaves patterns. " * 30, tags=["looms"], published_at=when)
    await factory.blog(ada, "Draft", status="draft")
    await factory.personal_token(ada)
    async with factory._state.database.write.begin() as session:
        rooms = RoomRepository(session)
        room = await rooms.add_of_blog(3)
        await rooms.update(room, RoomUpdate(is_closed=True))
        days = ((datetime.now(UTC) - timedelta(days=back)).date() for back in range(60))
        await PageRepository(session).count_readers({(ada.id, ANY_POST, day): day.day**2 % 17 for day in days})


async def look(served: Served) -> World:
    """Say and change what has to be said and changed first, and then ask for every page."""
    shown: list[Shown] = []
    cookies: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=served.address, verify=NO_TLS) as client:
        people = {who: Browser(client) for who in (READER, AUTHOR, ADMIN)}
        for who, name in ((ADMIN, "ada"), (AUTHOR, "bob")):
            await people[who].post("/login", {"username": f"{name}@example.com", "password": PASSWORD})
            cookies[who] = people[who].cookie
        bob, ada = people[AUTHOR], people[ADMIN]
        for person, text in ((bob, "Does it *think*?"), (ada, "It does what we tell it:\n\n    weave()"), (bob, "Oh.")):
            await person.send("/posts/everything/discussion", "/posts/everything/discussion", body=text)
        await bob.send("/posts/everything/discussion", "/posts/everything/discussion/3/remove")
        await ada.send("/desk/1", "/desk/1", body=f"{EVERYTHING}\nAnd more of it.")
        await ada.send("/desk/4", "/desk/4/delete")
        ada.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        for slug in ("everything", "of-looms"):
            await people[READER].get(f"/posts/{slug}")
        home = await people[READER].get("/")
        (older,) = {str(link.get("href")) for link in home.tree.iter(f"{HTML}a") if link.get("rel") == "next"}
        for who, person in people.items():
            asked = [path for paths in PAGES[who].values() for path in paths]
            for path in asked:
                page = await person.get(path.format(older=older))
                shown.append(Shown(f"{path} for {who}", who, page.response))
            for path, action, fields in FORMS[who].values():
                sent = await person.send(path, action, **fields)
                shown.append(Shown(f"{action} on {path} sent by {who}", who, sent.response))
    return World(served, shown, cookies)
