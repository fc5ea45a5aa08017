"""What Prometheus reads."""

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL

from blog.app import create_app
from tests.conftest import NO_TLS, client_of, make_settings, on, serving


def counted(exposition: str, **labels: str) -> int:
    """How many requests with these labels there were."""
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(exposition)
            for sample in family.samples
            if sample.name == "blog_request_duration_seconds_count" and labels.items() <= sample.labels.items()
        )
    )


async def test_off_unless_asked_for() -> None:
    async with client_of(create_app(make_settings())) as client:
        assert (await client.get("/metrics")).status_code == 404


async def test_requests_by_route_method_and_status() -> None:
    async with client_of(create_app(make_settings(metrics=True))) as client:

        async def seen(**labels: str) -> int:
            return counted((await client.get("/metrics")).text, **labels)

        asked = [
            ("GET", "/blog/7", {"method": "GET", "route": "/blog/{blog_id}", "status": "401"}),
            ("GET", "/user/8/", {"method": "GET", "route": "/user/{user_id}", "status": "401"}),
            ("HEAD", "/health", {"method": "HEAD", "route": "/health", "status": "200"}),
            ("GET", "/random/9", {"method": "GET", "route": "none", "status": "404"}),
            ("BREW", "/health", {"method": "other", "route": "/health", "status": "405"}),
        ]
        for method, path, labels in asked:
            before = await seen(**labels)
            await client.request(method, path)
            await client.request(method, path)
            assert await seen(**labels) == before + 2
        response = await client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert "random" not in response.text
        assert "BREW" not in response.text


@on("postgresql")
@pytest.mark.processes
def test_all_workers_count_together(at_head: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOG_WORKERS", "2")
    monkeypatch.setenv("BLOG_METRICS", "true")
    with serving(tmp_path) as address:
        for _ in range(20):
            # A connection each, for whichever takes it.
            assert httpx.get(f"{address}/health", verify=NO_TLS).status_code == 200
        for _ in range(5):
            exposition = httpx.get(f"{address}/metrics", verify=NO_TLS).text
            assert counted(exposition, route="/health", status="200") == 20
