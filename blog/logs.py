"""Log lines: one for each request and one for each security event, as JSON or for eyes.

A record's own fields are given as `extra={"fields": {...}}`; those of the request under way are added to
every record. Whatever came from outside is escaped: a record is one line, and holds nothing that a
terminal would obey.
"""

import json
import logging
import re
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_fields: ContextVar[dict[str, Any]] = ContextVar("request_fields")
"""What is known of the request under way: `request_id`, `client` and, once somebody is logged in, `user_id`."""

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, command a terminal, turn the direction of text or cannot be written."""

security = logging.getLogger("blog.security")


def configuration(*, readable: bool) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes: every logger's lines go to standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": ReadableFormatter if readable else JSONFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            "alembic": {"level": "WARNING"},  # it announces itself whenever it looks at a schema
            "python_multipart": {"level": "ERROR"},  # it warns of every form that is none, and strangers send them
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }


def security_event(event: str, **fields: Any) -> None:
    """Write that `event` happened in the request under way. Never give it a secret."""
    security.info(event, extra={"fields": fields})


class JSONFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return json.dumps(_described(record), default=str)


class ReadableFormatter(logging.Formatter):
    """Time, level, message and further fields on one line; behind it, indented, the traceback of an error."""

    said = ("logger", "method", "path", "status", "user_agent")
    """Fields that the message repeats, or that nobody looks for at home."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line or lines."""
        described = _described(record)
        time, level, message = described.pop("time"), described.pop("level"), described.pop("message")
        error = described.pop("error", "")
        line = f"{time} {level:7} {message}" + "".join(
            f" {name}={value}" for name, value in described.items() if name not in self.said
        )
        return "\n  | ".join(_escaped(part) for part in (line, *error.splitlines()))


def _described(record: logging.LogRecord) -> dict[str, Any]:
    described = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
        "logger": record.name,
        **getattr(record, "fields", {}),
        **request_fields.get({}),
    }
    if record.exc_info:
        described["error"] = "".join(traceback.format_exception(*record.exc_info))
    return described


def _escaped(text: str) -> str:
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
