"""Templates, and what they all know: the site, its addresses, and how things are written."""

import gzip
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from email.utils import format_datetime
from functools import partial
from hashlib import sha256
from html import escape, unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from blog.settings import Settings

FOLDER = Path(__file__).parent
TAG = re.compile(r'<[a-z][a-z0-9]*(?: [a-z-]+="[^"]*")*>')
ADDRESS = re.compile(r' (href|src)="([^"]*)"')

ON_PAGE = {
    # What may be wider than a screen is reached by the keyboard, to be scrolled.
    "<pre>": '<pre tabindex="0">',
    "<table>": '<div class="wide" role="group" aria-label="Table" tabindex="0"><table>',
    "</table>": "</table></div>",
    # Other programs have no style sheet of ours: for them cells are aligned as HTML once did it.
    **{
        f'<{cell} align="{side}">': f'<{cell} class="{side}">'
        for cell in ("td", "th")
        for side in ("left", "center", "right")
    },
    # A section would want a heading.
    '<section class="footnotes">': '<div class="footnotes">',
    "</section>": "</div>",
}
"""What stands on a page in the place of tags of sanitised HTML."""
TAG_ON_PAGE = re.compile(rf"{TAG.pattern}|</(?:table|section)>")

FILES = {
    "site.css": "text/css",
    "icon.svg": "image/svg+xml",
    "discussion.js": "text/javascript",
    "desk.js": "text/javascript",
}
"""Files that pages ask for, and their media types."""
ACCENT = b"#0a5fb0"
"""What stands in them for the colour of the settings."""

CHARACTERS_A_MINUTE = 1_100
"""What people read of a text in letters, some 220 words."""

UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7ff]")
UNSPACED_A_MINUTE = 450
"""And of one in Chinese, Japanese or Korean characters."""

RIGHT_TO_LEFT = frozenset({"ar", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"})
RIGHT_TO_LEFT_SCRIPTS = frozenset({"arab", "hebr", "nkoo", "syrc", "thaa"})
"""Languages and scripts that are written from right to left."""


class File(NamedTuple):
    """What pages ask for, and the same compressed."""

    content: bytes
    packed: bytes


class Templates:
    """The site's templates; one in the folder of the settings goes before our own of the same name.

    Everything is escaped, whatever the template is called, and a name that is not there is an error.
    """

    def __init__(self, settings: Settings) -> None:
        folders = [FOLDER / "templates"]
        if settings.site_templates:
            folders.insert(0, settings.site_templates)
        self._environment = Environment(
            loader=FileSystemLoader(folders),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.files = {name: _file(name, settings.site_accent) for name in FILES}
        host = str(settings.base_url.host)
        self.absolute = partial(whole_address, settings.issuer)
        self.html_elsewhere = partial(html_elsewhere, settings.issuer)
        self.entry_id = partial(entry_id, host)
        self._environment.globals |= {
            "site": settings,
            "stylesheet": self._address("site.css"),
            "icon": self._address("icon.svg"),
            "discussion_script": self._address("discussion.js"),
            "desk_script": self._address("desk.js"),
            "direction": direction(settings.site_language),
            "post_path": post_path,
            "tag_path": tag_path,
            "author_path": author_path,
            "absolute": self.absolute,
            "entry_id": self.entry_id,
            "feed_id": partial(feed_id, host),
            "never": datetime(1970, 1, 1, tzinfo=UTC),
        }
        self._environment.filters |= {
            "day": day,
            "minute": minute,
            "rfc3339": rfc_3339,
            "rfc822": rfc_822,
            "minutes": minutes,
            "last_change": last_change,
            "on_page": on_page,
            "html_elsewhere": self.html_elsewhere,
        }

    def render(self, name: str, /, **values: Any) -> str:
        """What a template says of these values."""
        return self._environment.get_template(name).render(values)

    def _address(self, name: str) -> str:
        """Where a file is: another address when its content changes, so that nobody need ask twice."""
        return f"/static/{name}?{sha256(self.files[name].content).hexdigest()[:12]}"


def _file(name: str, accent: str) -> File:
    content = (FOLDER / "static" / name).read_bytes().replace(ACCENT, accent.encode())
    return File(content, gzip.compress(content, mtime=0))


class Bar(NamedTuple):
    """A day of a picture: where it is, how high its bar is, and what it stands for."""

    x: float
    height: float
    day: date
    readers: int
    posts: int


class Chart(NamedTuple):
    """A picture of posts and readers, in units of its own: a hundred high, ten a day wide."""

    bars: list[Bar]
    most: int
    total: int


def chart(days: Sequence[date], readers: Mapping[date, int], posts: Sequence[date]) -> Chart:
    """A picture of these days."""
    most = max([readers.get(day, 0) for day in days], default=0)
    written = Counter(posts)
    bars = [
        Bar(10 * place, 100 * readers.get(day, 0) / (most or 1), day, readers.get(day, 0), written[day])
        for place, day in enumerate(days)
    ]
    return Chart(bars, most, sum(readers.values()))


def post_path(post: Mapping[str, Any]) -> str:
    """Where a post is."""
    return f"/posts/{quote(str(post['slug']))}"


def tag_path(tag: str) -> str:
    """Where the posts of a tag are."""
    return f"/tags/{quote(tag, safe='')}"


def author_path(author: Mapping[str, Any]) -> str:
    """Where the posts of an author are."""
    return f"/authors/{author['id']}"


def whole_address(issuer: str, path: str) -> str:
    """The address of a path of this site."""
    return f"{issuer}{path}"


def entry_id(host: str, post: Mapping[str, Any]) -> str:
    """What tells a post from all others for ever, whatever it is called: RFC 4151."""
    return f"tag:{host},{post['created_at']:%Y-%m-%d}:blog/{post['id']}"


def feed_id(host: str, path: str) -> str:
    """The same of a feed."""
    return f"tag:{host},2026:feed{path}"


def direction(language: str) -> str:
    """In which direction a language is written."""
    primary, *parts = language.lower().split("-")
    scripts = {part for part in parts if len(part) == 4 and part.isalpha()}
    return "rtl" if scripts & RIGHT_TO_LEFT_SCRIPTS or (primary in RIGHT_TO_LEFT and not scripts) else "ltr"


def last_change(post: Mapping[str, Any]) -> datetime:
    """When a post became what readers see: one that was scheduled was written before it was there."""
    moment: datetime = max(post["updated_at"], post["published_at"])
    return moment


def day(moment: datetime) -> str:
    """A date as ISO 8601 has it, which every language reads."""
    return f"{moment:%Y-%m-%d}"


def minute(moment: datetime) -> str:
    """A date and the time of day, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M}"


def rfc_3339(moment: datetime) -> str:
    """A moment, in UTC."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def rfc_822(moment: datetime) -> str:
    """A moment as mail, RSS and headers have it."""
    return format_datetime(moment, usegmt=True)


def minutes(text: str) -> int:
    """How long it takes to read this."""
    unspaced = len(UNSPACED.findall(text))
    return max(1, round((len(text) - unspaced) / CHARACTERS_A_MINUTE + unspaced / UNSPACED_A_MINUTE))


def on_page(html: str) -> Markup:
    """What was sanitised, as a page shows it."""
    return Markup(TAG_ON_PAGE.sub(lambda tag: ON_PAGE.get(tag[0], tag[0]), html))  # noqa: S704


def html_elsewhere(issuer: str, post: Mapping[str, Any]) -> str:
    """A post's sanitised HTML for those who show it elsewhere: every address as it is on the post's own page."""
    page = whole_address(issuer, post_path(post))

    def whole(address: re.Match[str]) -> str:
        try:
            return f' {address[1]}="{escape(urljoin(page, unescape(address[2])))}"'
        except ValueError:  # it leads nowhere, as https://[ does
            return address[0]

    return TAG.sub(lambda tag: ADDRESS.sub(whole, tag[0]), str(post["html"]))
