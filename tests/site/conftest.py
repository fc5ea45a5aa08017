"""How tests read the site."""

from typing import Any, cast
from xml.etree.ElementTree import Element

import html5lib
import httpx
import pytest
from fastapi import FastAPI


class Document:
    """A page, as a browser takes it: one in which it would have to mend anything is an error."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        self.root: Element = cast(Element, parser.parse(response.text))

    def all(self, path: str) -> list[Element]:
        """The elements that an XPath names."""
        return self.root.findall(path)

    def texts(self, path: str) -> list[str]:
        """What is to be read in each of them."""
        return [text_of(element) for element in self.all(path)]

    def links(self, **attributes: str) -> list[str]:
        """Where the links and anchors with these attributes lead."""
        return [
            element.get("href", "")
            for kind in ("link", "a")
            for element in self.all(f".//{kind}")
            if all(element.get(name) == value for name, value in attributes.items())
        ]

    @property
    def titles(self) -> list[str]:
        """The titles of the posts in a list."""
        return self.texts(".//article/h2")


def text_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


class Reader:
    """Somebody without an account, who asks for pages.

    Tests write past the app, which looks each time, therefore.
    """

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app = app
        self._client = client

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """The answer to a browser."""
        self.app.state.shelf.doubt()
        return await self._client.get(path, headers={"Accept": "text/html"} | headers)

    async def open(self, path: str, status: int = 200) -> Document:
        """The page that is there."""
        response = await self.get(path)
        assert response.status_code == status, (path, response.text)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        return Document(response)

    async def walk(self, path: str) -> list[str]:
        """The titles on all pages of a list, by its links from one to the next."""
        found: list[str] = []
        further: Any = [path]
        while further:
            page = await self.open(further[0])
            assert page.titles, "a link to a page without posts"
            found += page.titles
            further = page.links(rel="next")
        return found


@pytest.fixture
def reader(app: FastAPI, client: httpx.AsyncClient) -> Reader:
    return Reader(app, client)
