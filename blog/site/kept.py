"""Pages that are made once, and kept until something that they show changes.

A page is kept with its entity tag and in its compressed form, and given away before anything is routed. It holds for as
long as the database's state is the one that it was made of, which each process asks for at most twice a second, and at
once after a request of its own that may have changed something. While the database is away, what is kept goes on being
given.
"""

import asyncio
import gzip
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blog.database import Database
from blog.middleware import client_of
from blog.preconditions import etag_of, names
from blog.repository import AnyRow
from blog.repository.page import PageRepository
from blog.repository.room import RoomRepository
from blog.site.readers import Readers

LOOKED_AT_EVERY = 0.5
"""Seconds for which nobody asks again whether something changed elsewhere."""

PATIENCE = 0.1
"""Seconds that a page which was true half a second ago waits to be told that it is."""

ROOM = 32 * 2**20
"""Bytes that kept pages may take; those that nobody asked for longest go first."""

AROUND = 2_000
"""Bytes that a page takes beside its body."""

COMPRESSED_FROM = 1_000
"""Bytes below which compressing saves no packet."""

GZIP = re.compile(r"(?:^|,) *(?:x-)?gzip *(?:; *q=(?!0(?:\.0*)? *(?:,|$))[^,]*)?(?:,|$)", re.IGNORECASE)
"""That coding among those that somebody can read, unless its weight is nothing."""

AT_ONCE = 100_000
"""Bytes that are compressed while everybody else waits, within two milliseconds; more are in a thread."""

KEEP = "blog.keep"
"""What a route puts into its scope: the state of what it is going to read."""

READ = "blog.read"
"""And the ids of the post that it shows and of its creator."""

DISCUSSED = "blog.discussed"
"""And the room whose messages the page shows: how far it is, as it was read."""

Key = tuple[str, bytes]


class Page(NamedTuple):
    """A page: what it was made of, what it says of itself, its body, and that compressed."""

    state: object
    post: tuple[int, int] | None
    room: AnyRow | None
    etag: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    packed: bytes | None

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + len(self.packed or b"") + AROUND


class Shelf:
    """The pages of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages: OrderedDict[Key, Page] = OrderedDict()
        self._size = 0
        self._state: object = None
        self._heads: Mapping[int, object] = {}
        self._looked_at = float("-inf")
        self._asking: asyncio.Task[Exception | None] | None = None
        self._asked: set[asyncio.Task[Exception | None]] = set()
        self._begun = self._told = 0

    async def find(self, key: Key) -> Page | None:
        """The page that is kept under this key, if it shows what is there now."""
        page = self._pages.get(key)
        if page is None or page.state != await self.look():
            return None
        if page.room is not None and self._heads.get(page.room.id) not in (None, head_of(page.room)):
            return None
        self._pages.move_to_end(key)
        return page

    def keep(self, key: Key, page: Page) -> None:
        """Keep a page, and throw away those that there is no room for any more."""
        before = self._pages.pop(key, None)
        self._size += page.size - (before.size if before else 0)
        self._pages[key] = page
        while self._size > ROOM:
            _, oldest = self._pages.popitem(last=False)
            self._size -= oldest.size

    def doubt(self) -> None:
        """Something may have changed: look before anything is given away.

        Whoever looks already may have looked before it.
        """
        self._looked_at = float("-inf")
        self._asking = None

    async def look(self) -> object:
        """The state of what pages show, not older than half a second, or what it was when the database says nothing.

        Raises what the database does when it never said anything.
        """
        is_in_doubt = self._looked_at == float("-inf")
        if self._asking is None and time.monotonic() - self._looked_at > LOOKED_AT_EVERY:
            self._begun += 1
            self._asking = asyncio.create_task(self._ask(self._begun))
            self._asked.add(self._asking)
            self._asking.add_done_callback(self._asked.discard)
        if self._asking is not None:
            # It is not cut off with whoever began it: others wait for it too.
            done, _ = await asyncio.wait([self._asking], timeout=None if is_in_doubt else PATIENCE)
            for asking in done:
                if self._state is None and (error := asking.result()) is not None:
                    raise error
        return self._state

    async def _ask(self, number: int) -> Exception | None:
        try:
            async with self._database.fresh() as session:
                state = await PageRepository(session).state()
                rooms = {page.room.id for page in self._pages.values() if page.room is not None}
                heads = await RoomRepository(session).heads(rooms)
            if number > self._told:
                self._state, self._told = state, number
                self._heads = {room: head_of(head) for room, head in heads.items()}
        except (SQLAlchemyError, OSError) as error:
            return error
        finally:
            if self._asking is asyncio.current_task():  # nobody has been in doubt since
                self._asking, self._looked_at = None, time.monotonic()
        return None


class KeptPages:
    """Answers with pages that are kept, and keeps those whose route wants it."""

    def __init__(self, app: ASGIApp, *, shelf: Shelf, readers: Readers) -> None:
        self._app = app
        self._shelf = shelf
        self._readers = readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] != "GET":
            await self._app(scope, receive, self._doubting(send))
        else:
            key = scope["path"], scope["query_string"]
            page = await self._shelf.find(key)
            if page is None:
                await self._app(scope, receive, self._keeping(key, scope, send))
            else:
                await self._give(page, scope, send)

    def _doubting(self, send: Send) -> Send:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._shelf.doubt()  # before whoever changed something knows that it is done
            await send(message)

        return send_on

    def _keeping(self, key: Key, scope: Scope, send: Send) -> Send:
        headers: list[tuple[bytes, bytes]] | None = None
        parts: list[bytes] = []

        async def send_on(message: Message) -> None:
            nonlocal headers
            if message["type"] == "http.response.start" and KEEP in scope and message["status"] == 200:
                headers = [header for header in message["headers"] if header[0] != b"content-length"]
            elif headers is None:
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    made = scope[KEEP], scope.get(READ), scope.get(DISCUSSED), headers, b"".join(parts)
                    is_long = len(made[-1]) > AT_ONCE
                    page = await anyio.to_thread.run_sync(_made, *made) if is_long else _made(*made)
                    self._shelf.keep(key, page)
                    await self._give(page, scope, send)

        return send_on

    async def _give(self, page: Page, scope: Scope, send: Send) -> None:
        asked = Headers(scope=scope)
        if page.post is not None:
            self._readers.count(*page.post, client=client_of(scope), user_agent=asked.get("User-Agent", ""))
        await give(page, asked, send)


async def give(page: Page, asked: Headers, send: Send) -> None:
    """Send a page: not to whoever has it already, and compressed to whoever can read that."""
    if names(asked.getlist("If-None-Match"), page.etag):
        kept = [header for header in page.headers if header[0] != b"content-type"]
        await send({"type": "http.response.start", "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
        return
    body, headers = page.body, page.headers
    if page.packed is not None and takes_gzip(asked):
        body, headers = page.packed, [*headers, (b"content-encoding", b"gzip")]
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def takes_gzip(asked: Headers) -> bool:
    """Whether who asks can read what is compressed (RFC 9110, section 12.5.3)."""
    return GZIP.search(asked.get("Accept-Encoding", "")) is not None


def head_of(room: AnyRow) -> tuple[object, ...]:
    """What is another as soon as something else is to be read in a room."""
    return room.last_number, room.removals, room.closed_at


def _made(
    state: object, post: tuple[int, int] | None, room: AnyRow | None, headers: list[tuple[bytes, bytes]], body: bytes
) -> Page:
    # Weak: the same page is there in two forms.
    etag = f"W/{etag_of(body)}"
    headers = [*headers, (b"etag", etag.encode()), (b"vary", b"Accept-Encoding")]
    packed = gzip.compress(body, mtime=0) if len(body) >= COMPRESSED_FROM else None
    return Page(state, post, room, etag, headers, body, packed)
