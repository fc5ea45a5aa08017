"""How tests read an answer, and what is there after it."""

from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlmodel import SQLModel


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be in the one shape that all refusals have."""
    said = f"{response.request.method} {response.url}: {response.status_code} {response.text[:200]}"
    assert response.headers.get("content-type") == "application/problem+json", said
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"].endswith(".")
    return response.status_code, problem["code"]


async def walk(client: httpx.AsyncClient, url: str, login: dict[str, str], *, limit: int = 100) -> list[Any]:
    """Everything on this page and those after it, of which none may hold more than `limit`."""
    rows: list[Any] = []
    while url:
        response = await client.get(url, headers=login)
        assert response.status_code == 200, (url, response.text)
        assert len(response.json()) <= limit, url
        rows += response.json()
        url = response.links.get("next", {}).get("url", "")
    return rows


async def count(app: FastAPI, model: type[SQLModel]) -> int:
    """How many rows of this model there are."""
    async with app.state.database.fresh() as session:
        return int(await session.scalar(select(func.count()).select_from(model)) or 0)
