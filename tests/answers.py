"""How tests read an answer."""

import httpx


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be in the one shape that all refusals have."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"].endswith(".")
    return response.status_code, problem["code"]
