"""The door: `uvicorn blog.main:app`."""

from blog.app import create_app
from blog.settings import read_settings

app = create_app(read_settings())
