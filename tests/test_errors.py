"""The tree of refusals, each visited."""

import re

import httpx
from fastapi import FastAPI

from blog import errors
from blog.app import create_app
from blog.errors import IdempotencyKeyInUse, InsufficientScope, Refusal
from tests.answers import code
from tests.conftest import client_of, make_settings


def all_refusals(base: type[Refusal] = Refusal) -> list[type[Refusal]]:
    return [found for child in base.__subclasses__() for found in (child, *all_refusals(child))]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+) +(\d+) (\w+)", errors.__doc__ or "")
    assert drawn == [(refusal.__name__, str(refusal.status), refusal.code) for refusal in all_refusals()]
    assert len({refusal.code for refusal in all_refusals()}) == len(drawn)


async def test_every_refusal_has_the_one_shape() -> None:
    app: FastAPI = create_app(make_settings())
    for refusal in all_refusals():

        async def refuse(refusal: type[Refusal] = refusal) -> None:
            raise refusal

        app.add_api_route(f"/{refusal.__name__}", refuse)
    async with client_of(app) as client:
        for refusal in all_refusals():
            response = await client.get(f"/{refusal.__name__}")
            assert code(response) == (refusal.status, refusal.code)
            assert response.json()["detail"] == refusal.detail
            assert response.json().get("error") == refusal.oauth
            assert (
                refusal.headers.items()
                <= {name: value for name in refusal.headers if (value := response.headers.get(name))}.items()
            )
            assert ("retry-after" in response.headers) == (
                refusal.status in (429, 503) or refusal is IdempotencyKeyInUse
            )
            assert ("www-authenticate" in response.headers) == (
                refusal.status == 401 or issubclass(refusal, InsufficientScope)
            )


async def test_a_fault_of_ours_is_not_called_a_lost_database() -> None:
    from sqlalchemy.exc import ProgrammingError

    app = create_app(make_settings())

    async def fail() -> None:
        raise ProgrammingError("SELECT nonsense", {}, Exception("no such column"))

    app.add_api_route("/fail", fail)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        assert (await client.get("/fail")).status_code == 500
