"""A browser as far as these tests need one: it asks for pages, keeps its cookie and fills in forms."""

from typing import Any

import html5lib
import httpx

from blog.models import User
from tests.factories import PASSWORD

COOKIE = "__Host-login"
HTML = "{http://www.w3.org/1999/xhtml}"


class Page:
    """A page that was answered."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.tree = html5lib.parse(response.text)

    def text(self, name: str) -> list[str]:
        """What is to be read in each element of this name."""
        return [" ".join("".join(found.itertext()).split()) for found in self.tree.iter(HTML + name)]

    @property
    def told(self) -> str:
        """What the page says went wrong."""
        return " ".join("".join(found.itertext()) for found in self.tree.iter() if found.get("id") == "told").strip()

    @property
    def main(self) -> str:
        """What is to be read between header and footer."""
        return self.text("main")[0]

    def forms(self) -> dict[str, dict[str, str]]:
        """What each form would send as it is, by where it goes."""
        return {str(form.get("action")): _fields(form) for form in self.tree.iter(HTML + "form")}


def _fields(form: Any) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in form.iter():
        name = field.get("name")
        is_choice = field.get("type") in ("radio", "checkbox")
        if name is None or (is_choice and field.get("checked") is None):
            continue
        if field.tag == HTML + "textarea":
            fields[name] = "".join(field.itertext())
        elif field.tag == HTML + "select":
            (fields[name],) = [str(option.text) for option in field if option.get("selected") is not None]
        else:
            fields[name] = field.get("value", "")
    return fields


class Browser:
    """One person's."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.headers = {"Accept": "text/html,application/xhtml+xml", "User-Agent": "Mozilla/5.0"}

    async def get(self, path: str) -> Page:
        return Page(await self._client.get(path, headers=self.headers))

    async def post(self, path: str, fields: dict[str, Any], **headers: str) -> Page:
        origin = {"Origin": str(self._client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        return self._kept(await self._client.post(path, data=fields, headers=self.headers | origin | headers))

    async def send(self, path: str, action: str, **fields: Any) -> Page:
        """Open a page, fill in the form that goes to `action`, and send it."""
        form = (await self.get(path)).forms()[action]
        return await self.post(path if action == "None" else action, form | fields)

    async def log_in(self, user: User) -> None:
        page = await self.post("/login", {"username": user.email, "password": PASSWORD, "next": "/desk"})
        assert (page.response.status_code, page.response.headers["location"]) == (303, "/desk")

    @property
    def cookie(self) -> str:
        return self.headers["Cookie"].removeprefix(f"{COOKIE}=")

    def _kept(self, response: httpx.Response) -> Page:
        name, _, value = response.headers.get("set-cookie", "").partition(";")[0].partition("=")
        if name == COOKIE:
            self.headers["Cookie"] = f"{COOKIE}={value}"
        return Page(response)
