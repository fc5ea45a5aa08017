"""The AsyncAPI document of rooms."""

import re
from typing import Any

import jsonschema_rs
import pytest

from blog.app import create_app
from blog.asyncapi import ENDINGS, document
from blog.conversation import hangup_of
from blog.schemas.room import CLIENT_FRAMES, SERVER_FRAMES
from blog.settings import Environment
from tests.answers import code
from tests.conftest import client_of, make_settings

FRAMES = (*CLIENT_FRAMES, *SERVER_FRAMES)


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    return document(make_settings(), "1.0.0")


def test_every_frame_is_there_once_and_in_its_direction(documented: dict[str, Any]) -> None:
    operations = documented["operations"].values()
    directions = {
        operation["action"]: [message["$ref"].rpartition("/")[2] for message in operation["messages"]]
        for operation in operations
    }
    assert directions == {
        "receive": [frame.__name__ for frame in CLIENT_FRAMES],
        "send": [frame.__name__ for frame in SERVER_FRAMES],
    }
    for frame in FRAMES:
        message = documented["components"]["messages"][frame.__name__]
        assert message["payload"] == {"$ref": f"#/components/schemas/{frame.__name__}"}
        assert set(documented["components"]["schemas"][frame.__name__]["properties"]) == set(frame.model_fields)
    assert set(documented["channels"]["room"]["messages"]) == set(documented["components"]["messages"])


def test_references_resolve(documented: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/([^']+)'", str(documented)))
    assert len(references) > len(FRAMES)
    for reference in references:
        found = documented
        for name in reference.split("/"):
            found = found[name]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.__name__)
def test_every_frame_has_examples_that_are_as_its_schema_says(documented: dict[str, Any], frame: type) -> None:
    examples = documented["components"]["messages"][frame.__name__]["examples"]
    assert examples
    schema = {**documented, "$ref": f"#/components/schemas/{frame.__name__}"}
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    for example in examples:
        validator.validate(example["payload"])
        assert not validator.is_valid({**example["payload"], "type": "another"})
        assert not validator.is_valid({name: value for name, value in example["payload"].items() if name != "type"})


def test_the_channel(documented: dict[str, Any]) -> None:
    channel = documented["channels"]["room"]
    assert channel["address"] == "/room/{room_id}/live"
    assert list(channel["parameters"]) == ["room_id"]
    after = channel["bindings"]["ws"]["query"]["properties"]["after"]
    assert after["type"] == "integer"
    assert after["description"] == "The number of the last message that you have."


@pytest.mark.parametrize(
    ("base_url", "server"),
    [
        ("http://127.0.0.1:8000", {"host": "127.0.0.1:8000", "protocol": "ws"}),
        ("https://example.com/blog/", {"host": "example.com", "protocol": "wss", "pathname": "/blog"}),
    ],
)
def test_the_server_is_the_base_url(base_url: str, server: dict[str, str]) -> None:
    shown = document(make_settings(base_url=base_url), "1.0.0")["servers"]["platform"]
    assert {name: value for name, value in shown.items() if name != "security"} == server


def test_every_ending_has_its_code_and_reason(documented: dict[str, Any]) -> None:
    rows = dict(re.findall(r"^\| (\d{4} \| \S*) \| (.+) \|$", documented["info"]["description"], re.MULTILINE))
    for refusal in ENDINGS:
        hangup = hangup_of(refusal)
        assert rows[f"{hangup.code} | `{hangup.reason}`"] == refusal.detail
    assert {int(row[:4]) for row in rows} >= {1003, 1008, 1009, 1011, 1012, 1013, 4401, 4403, 4404, 4409}


async def test_it_is_served_beside_openapi(documented: dict[str, Any]) -> None:
    async with client_of(create_app(make_settings())) as client:
        answer = await client.get("/asyncapi.json")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == documented
        assert "/asyncapi.json" not in (await client.get("/openapi.json")).json()["paths"]


async def test_it_is_not_served_in_production() -> None:
    async with client_of(create_app(make_settings(environment=Environment.PRODUCTION))) as client:
        assert code(await client.get("/asyncapi.json")) == (404, "not_found")
