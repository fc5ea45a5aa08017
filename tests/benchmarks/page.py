"""No page but so many bytes, each time the same, by nothing but Starlette: `/{size}`."""

from functools import cache

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route


@cache
def body(size: int) -> bytes:
    return b"x" * size


async def show(request: Request) -> HTMLResponse:
    return HTMLResponse(body(request.path_params["size"]))


app = Starlette(routes=[Route("/{size:int}", show)])
