"""The door: `uvicorn blog.main:app`."""

import gc

from blog.app import create_app
from blog.settings import read_settings

try:
    app = create_app(read_settings())
except RuntimeError as error:  # passlib and bcrypt do not fit: the message names the cure
    raise SystemExit(f"blog: {error}") from None

# What is there by now stays. Looking through it again each time costs the collector, and every request
# that waits for it, a tenth of a second.
gc.collect()
gc.freeze()
