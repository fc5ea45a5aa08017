"""The door: `uvicorn blog.main:app`."""

from blog.app import create_app
from blog.settings import read_settings

try:
    app = create_app(read_settings())
except RuntimeError as error:  # passlib and bcrypt do not fit: the message names the cure
    raise SystemExit(f"blog: {error}") from None
