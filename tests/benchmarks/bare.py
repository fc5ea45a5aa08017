"""No framework: what uvicorn itself costs when it answers the same blog each time."""

import json
from typing import Any

BODY = ("It weaves algebraical patterns just as the loom weaves flowers and leaves. " * 14)[:1_000]
BLOG = {"title": "Blog 7", "body": BODY, "creator": {"name": "Author 1", "email": "author1@example.com"}}
ANSWER = json.dumps(BLOG).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})
