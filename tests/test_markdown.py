"""Markdown to HTML and text: as the specification has it, without harm, within bounds."""

import asyncio
import hashlib
import inspect
import json
import random
import re
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

import html5lib
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments.token import STANDARD_TYPES

from blog import markdown
from blog.errors import Busy, Unrenderable
from blog.markdown import ALLOWANCE, CODE_LENGTH, GROWTH, LANGUAGES, MARKDOWN, MESSAGES, Renderer, render
from blog.models import BODY_LENGTH, MESSAGE_LENGTH
from tests.conftest import COMMONMARK

# --- The specification


def parsed(html: str) -> Element:
    """HTML as a browser understands it."""
    found: Element = html5lib.parseFragment(html, treebuilder="etree", namespaceHTMLElements=False)
    return found


def events(html: str) -> list[Any]:
    """What a page is made of, without what we add everywhere: rel=noopener, anchors at headings, colours in code."""
    found: list[Any] = []

    def say(data: str | None) -> None:
        if data and found and isinstance(found[-1], str):
            found[-1] += data
        elif data:
            found.append(data)

    def visit(element: Element) -> None:
        tag = str(element.tag)
        ours = tag == "span"
        if not ours:
            added = {("rel", "noopener")} if tag == "a" else set()
            if re.fullmatch("h[1-6]", tag):
                added.add(("id", element.get("id", "")))
            found.append((tag, sorted(set(element.attrib.items()) - added)))
        say(element.text)
        for child in element:
            visit(child)
            say(child.tail)
        if not ours:
            found.append(f"</{tag}>" if tag != "br" else (tag,))

    visit(parsed(html))
    return found


RAW_HTML = "raw HTML is shown, and does nothing"
DIFFERENCES = {
    RAW_HTML: [
        *(21, 31, *range(148, 192), 201, 308, 309, 344, 474, 475, 476, 490, 493, 523, 535, *range(612, 617), 622),
        *(624, 625, 626, 627, 628, 629, 630, 631, 642, 643),
    ],
    "only http, https and mailto are linked": [499, 595, 597, 598, 600],
    "a class is a language's name": [144],
    "an empty quote has no line break in it": [218, 239, 240],
}


WANTED = Path(__file__).with_name("commonmark.txt")


@pytest.fixture(scope="session")
def examples() -> list[dict[str, Any]]:
    """Return the examples of the specification; they are read from the one archive that is wanted."""
    assert COMMONMARK is not None
    archive = Path(COMMONMARK)
    assert f"--hash=sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}" in WANTED.read_text()
    with tarfile.open(archive) as tar:
        (name,) = (name for name in tar.getnames() if name.endswith("/tests/fixtures/commonmark.json"))
        file = tar.extractfile(name)
        assert file
        found: list[dict[str, Any]] = json.load(file)
    return found


def kinds(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        yield token.type
        yield from kinds(token.children or ())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.commonmark
def test_every_example_of_the_specification(examples: list[dict[str, Any]]) -> None:
    assert [example["example"] for example in examples] == list(range(1, 653))
    different = {
        example["example"]
        for example in examples
        if events(render(example["markdown"]).html) != events(example["html"])
    }
    assert different == {number for numbers in DIFFERENCES.values() for number in numbers}
    plain = MarkdownIt("commonmark")
    raw = {
        example["example"]
        for example in examples
        if {"html_block", "html_inline"}.intersection(kinds(plain.parse(example["markdown"])))
    }
    assert raw == set(DIFFERENCES[RAW_HTML])


# --- What may do harm

PAYLOADS = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "\x01javascript:alert(1)",
    "java&#x09;script:alert(1)",
    "java&NewLine;script:alert(1)",
    "&#106;avascript:alert(1)",
    "&#x6A&#x61;vascript&colon;alert(1)",
    "javascript&colon;alert(1)",
    "javascript&#58;alert(1)",
    "java\\script:alert(1)",
    "javascript\\:alert(1)",
    "vbscript:msgbox(1)",
    "data:text/html,<script>alert(1)</script>",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "data:image/svg+xml,<svg onload=alert(1)>",
    "data:image/png;base64,AAAA",
    "file:///etc/passwd",
    "blob:https://example.org/1",
    "about:blank",
    "view-source:https://example.org",
    "feed:javascript:alert(1)",
    "intent://x#Intent;end",
    "jar:javascript:alert(1)!/",
    'x" onerror="alert(1)',
    "x' onmouseover='alert(1)",
    "x`onerror=alert(1)",
    'x"><script>alert(1)</script>',
    '//example.org/"><img src=x onerror=alert(1)>',
    "\u2028javascript:alert(1)",
    "%6Aavascript:alert(1)",
    'https://a"onclick=alert(1)//',
]
HTML = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//example.org></ScRiPt>",
    "<img src=x onerror=alert(1)>",
    "<img src=x:x onerror=alert(1)//",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<form action=javascript:alert(1)><input type=submit>",
    "<button formaction=javascript:alert(1)>x",
    "<style>*{background:url(javascript:alert(1))}</style>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//example.org/>",
    "<link rel=stylesheet href=//example.org/x.css>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href='jav&#x0A;ascript:alert(1)'>x</a>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<!--><script>alert(1)</script-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml-stylesheet href='javascript:alert(1)'?>",
    "<div style='background:url(javascript:alert(1))'>",
    "<p id=location name=body class=admin>",
    "</code></pre><script>alert(1)</script>",
    "--></textarea></title><script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&#x3C;img src=x onerror=alert(1)&#x3E;",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<x/onclick=alert(1)>",
    "\x00<script\x00>alert(1)</script>",
    "<a\thref=x\x0bonclick=alert(1)>",
]
ADDRESSES = [
    "[x]({})",
    "[x](<{}>)",
    '[x](/ "{}")',
    "![x]({})",
    '![x](/ "{}")',
    "![{}](/x)",
    "<{}>",
    "[x][r]\n\n[r]: {}",
    "[x][r]\n\n[r]: <{}> '{}'",
    "![x][r]\n\n[r]: {}",
    "[![x]({})]({})",
    "# [x]({})",
    "a[^1]\n\n[^1]: [x]({})",
    "a^[![x]({})]",
    "| [x]({}) |\n|:-:|\n| ![x]({}) |",
    "> - [x]({})",
]
TEXTS = [
    "{}",
    "# {}",
    "**{}**",
    "~~{}~~ *{}*",
    "`{}`",
    "```{}\nx\n```",
    "```html\n{}\n```",
    "```php {}\n{}\n```",
    "    {}",
    "~~~ python {}\n{}",
    "[{}](/x)",
    "![{}](/x)",
    "- {}\n  > {}",
    "| {} |\n|---|\n| {} |",
    "a[^{}]\n\n[^{}]: {}",
    "a^[{}]",
    "[{}]: /x\n\n[{}]",
    "x\n{}\n===",
]
CLASSES = {
    "a": {"footnote-backref"},
    "hr": {"footnotes-sep"},
    "li": {"footnote-item"},
    "ol": {"footnotes-list"},
    "section": {"footnotes"},
    "span": set(STANDARD_TYPES.values()),
    "sup": {"footnote-ref"},
}
ALLOWED = {"align", "alt", "class", "href", "id", "rel", "src", "start", "title"}
OF_PAGES = {"h1", "h2", "h3", "h4", "h5", "h6", "section", "sup"}
"""What only a whole page has, and no message among others."""


def assert_harmless(body: str) -> None:
    assert_clean(render(body).html)
    html = render(body, MESSAGES).html
    assert_clean(html)
    for element in parsed(html).iter():
        assert element.tag not in OF_PAGES, html
        assert "id" not in element.attrib, html


def assert_clean(html: str) -> None:
    for element in parsed(html).iter():
        tag = str(element.tag)
        assert tag == "DOCUMENT_FRAGMENT" or tag in markdown.TAGS.split(), html
        assert set(element.attrib) <= ALLOWED, html
        for name in ("href", "src"):
            if name in element.attrib:
                # A browser drops blanks and controls before it reads the scheme.
                address = re.sub(r"[\x00-\x20]", "", element.attrib[name]).lower()
                assert urlsplit(address).scheme in ("", "http", "https", "mailto" if tag == "a" else ""), html
                assert not re.match(r"[^/?#]*script:|data:|blob:|file:", address), html
        if tag == "a" and "href" in element.attrib:
            assert element.get("rel") == "noopener"
        if "id" in element.attrib:
            assert re.match("(h|fn|fnref)-", element.attrib["id"]), html
        for css in element.get("class", "").split():
            assert css in CLASSES.get(tag, ()) or (tag == "code" and re.fullmatch(r"language-[\w.+#-]+", css)), html


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("shape", [*ADDRESSES, *TEXTS])
def test_nothing_does_harm(shape: str) -> None:
    for payload in (PAYLOADS + HTML) if shape in TEXTS else PAYLOADS:
        assert_harmless(shape.replace("{}", payload))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_thrown_together_does_no_harm() -> None:
    pieces = [
        *PAYLOADS,
        *HTML,
        *"[]()!<>*_`~|#^:-\n\"'\\&",
        "\n\n",
        "[^1]",
        "\n[^1]: ",
        "```",
        "|-|\n",
        "- ",
        "> ",
        "^[",
    ]
    chance = random.Random(7)
    for _ in range(400):
        body = "".join(chance.choices(pieces, k=chance.randint(2, 40)))
        assert_harmless(body)


@pytest.mark.parametrize(
    ("html", "clean"),
    [
        ('<h1 id="location">x</h1>', "<h1>x</h1>"),
        ('<code class="admin">x</code>', "<code>x</code>"),
        ('<span class="k admin">x</span>', '<span class="k">x</span>'),
        ('<img src="mailto:a@b.c">', "<img>"),
        ('<a href="javascript:1" onclick="1">x</a>', '<a rel="noopener">x</a>'),
        ('<td align="x" style="color: red">x</td>', "x"),
        ("<script>x</script><iframe></iframe>", ""),
    ],
)
def test_the_sanitiser_alone_would_do(html: str, clean: str) -> None:
    assert markdown.CLEANER.clean(html) == clean


# --- Bounds

LONG = BODY_LENGTH // 16
"""At which what grows faster than a body shows already, while most of the worst are looked at to their end."""


def full(pattern: str, before: str = "", after: str = "", *, length: int = LONG) -> str:
    room = length - len(before) - len(after)
    return before + (pattern * (room // len(pattern) + 1))[:room] + after


def deep(opening: str, closing: str) -> str:
    times = LONG // (len(opening) + len(closing))
    return opening * times + closing * times


CHINESE = "".join(chr(0x4E00 + number % 20_000) for number in range(BODY_LENGTH - 20))
WORST = {
    "references by address": full("[a]", f"[a]: /{'x' * 1_990}\n\n"),
    "references by a long address": full("[a]", f"[a]: /{'x' * 100_000}\n\n", length=BODY_LENGTH),
    "references by title": full("[a]", f"[a]: /x '{'y' * 1_980}'\n\n"),
    "references of images": full("![a]", f"[a]: /{'x' * 1_990}\n\n"),
    "a reference's endless title": full("x\n", "[a]: b '\n"),
    "a reference's endless label": full("x\n", "["),
    "references": "".join(f"[a{number}]: b\n" for number in range(16_000)),
    "footnotes used": full("[^1]", "[^1]: x\n\n"),
    "footnotes begun": full("[^", "[^1]: x\n\n"),
    "footnotes in footnotes": deep("^[", "]"),
    "footnotes in lines": full("^[a]"),
    "footnotes of themselves": "".join(f"[^{number}]: a [^{number}][^{number}]\n\n" for number in range(6_000))
    + "[^0]",
    "footnotes defined in a row": full("[^aaaa "),
    "quotes": full(">"),
    "a thousand quotes": ">" * 1_000 + " x",
    "quotes continued": full("x\n", "> " * 90 + "x\n"),
    "lists in steps": "".join("  " * level + "- x\n" for level in range(440)),
    "lists in a line": full("- " * 45 + "x\n"),
    "a thousand lists in a line": "- " * 1_000 + "x",
    "list items": full("-\n"),
    "numbered items": full("1. a\n"),
    "lists and quotes": full("> - " * 20 + "x\n"),
    "fences unclosed": full("~~~~\n```\n"),
    "fences that grow": "".join("`" * length + "\n" for length in range(3, 630)),
    "brackets": full("["),
    "brackets paired": deep("[", "]"),
    "brackets of images": full("!["),
    "links unclosed": full("[a]("),
    "links with parentheses": full("[a](((("),
    "images in images": deep("![", "](u)"),
    "images in images, 320 levels": "![" * 320 + "x" + "](u)" * 320,
    "images in images, 100 levels": "![" * 100 + "x" * 199_000 + "](u)" * 100,
    "emphasis unclosed": full("*a **b "),
    "emphasis in emphasis": deep("*a ", "a* "),
    "emphasis at the limit": full("*a " * 99 + "a* " * 99),
    "emphasis of two kinds": full("_a*"),
    "strikethrough in strikethrough": deep("~~a ", "a~~ "),
    "backticks": "".join("`" * length + " " for length in range(1, 630)),
    "backticks unclosed": full("`a ``b "),
    "a wide table": full("|" * 1_001 + "\n", "|a" * 1_000 + "|\n" + "|-" * 1_000 + "|\n"),
    "a table of missing cells": full("|x\n", "|a" * 256 + "|\n" + "|-" * 256 + "|\n"),
    "a short table of missing cells": "|a" * 256 + "|\n" + "|-" * 256 + "|\n" + "|x\n" * 256,
    "a long table": full("|1|2|3|\n", "|a|b|c|\n|-|-|-|\n"),
    "tables": full("|a|\n|-|\n\n"),
    "headings alike": full("# a\n"),
    "headings of emoji": full("# \N{PARTY POPPER}\n"),
    "headings underlined": full("a\n=\n"),
    "headings almost": full("a\n"),
    "a heading of marks": full("\u0301", "# "),
    "a host's name": f"[a](http://{CHINESE})",
    "links of hosts": full("<http://üäöéèßñ.com>"),
    "escapes in an address": full("ü", "[a](/", ")"),
    "autolinks begun": full("<a@a."),
    "ampersands": full("&"),
    "no-break spaces": full("\xa0", "x", "x"),
    "blanks": full(" ", "a", "b"),
    "line ends": full("a  \n"),
    "tags": full("<div>"),
    "backslashes": full("\\*"),
    "code in a language with much between": full('{"a": [1, "x"]},\n' * 1_000 + "```\n```json\n", "```json\n"),
    "code in every language": "".join(f"```{name}\n{'x = (1) ' * 200}\n```\n" for name in LANGUAGES.split()),
    **{
        f"{language} of {pattern!r}": full(
            (pattern * CODE_LENGTH)[: CODE_LENGTH - 1] + f"\n```\n```{language}\n", f"```{language}\n"
        )
        for language, pattern in [("scala", "a"), ("ini", "="), ("python", '"'), ("perl", "{"), ("console", '"a(')]
    },
    # As long as may be: of each part that takes the longest, one.
    "the longest emphasis": full("_a*", length=BODY_LENGTH),
    "the longest footnotes": full("^[a]", length=BODY_LENGTH),
    "the longest headings": full("# a\n", length=BODY_LENGTH),
    "the longest list": full("- " * 45 + "x\n", length=BODY_LENGTH),
    "the longest table": full("|" * 1_001 + "\n", "|a" * 1_000 + "|\n" + "|-" * 1_000 + "|\n", length=BODY_LENGTH),
    "the longest code": full("{" * (CODE_LENGTH - 1) + "\n```\n```perl\n", "```perl\n", length=BODY_LENGTH),
}


@pytest.mark.parametrize("name", WORST)
def test_the_worst_ends_and_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "TIME_LIMIT", 0.3)  # what is cut off is cut off sooner
    whole = WORST[name]
    assert len(whole) <= BODY_LENGTH
    for body, parser in ((whole, MARKDOWN), (whole[:MESSAGE_LENGTH], MESSAGES)):
        try:
            html, text = render(body, parser)
        except Unrenderable:
            continue
        assert len(html.encode()) <= GROWTH * len(body.encode()) + ALLOWANCE
        assert len(text) <= len(body)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("references by address", "grows too much"),
        ("references by title", "grows too much"),
        ("references of images", "grows too much"),
        ("footnotes used", "grows too much"),
        ("a short table of missing cells", "grows too much"),
        ("a thousand quotes", "nested too deeply"),
        ("a thousand lists in a line", "nested too deeply"),
        ("emphasis in emphasis", "nested too deeply"),
        ("strikethrough in strikethrough", "nested too deeply"),
    ],
)
def test_too_much_is_refused_for_its_reason(name: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "TIME_LIMIT", 60)  # on a slow machine time would be the first
    monkeypatch.setattr(markdown, "CLEANER", None)  # by then it would be in memory, and nothing interrupts nh3
    with pytest.raises(Unrenderable, match=detail):
        render(WORST[name])


def test_what_sanitising_adds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "GROWTH", 1)
    monkeypatch.setattr(markdown, "ALLOWANCE", 100)
    with pytest.raises(Unrenderable, match="grows too much"):
        render("x" + "\xa0" * 1_000 + "x")


def test_what_python_cannot_follow_is_refused() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        with pytest.raises(Unrenderable, match="nested too deeply"):
            render("![" * 90 + "x" + "](u)" * 90)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("body", ["", "x", "> x", "# x", "```python\nx\n```", "|a|\n|-|\n|b|"])
def test_time_that_is_over_is_over_everywhere(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "TIME_LIMIT", -1)
    if not body:
        assert render(body) == ("", "")
        return
    with pytest.raises(Unrenderable, match="too long"):
        render(body)


def late_after(calls: int) -> Callable[[], float]:
    clock = iter([0.0] * calls)
    return lambda: next(clock, 1e9)


def test_time_is_looked_at_in_code_and_headings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = 0
    for body in ("# a\n# b", "```python\na = 1 + 2\n```", "|||\n|-|-|\n||", "*a* **b**"):
        for calls in range(1, 400):
            monkeypatch.setattr(time, "thread_time", late_after(calls))
            try:
                render(body)
                break
            except Unrenderable:
                refused += 1
        else:
            pytest.fail("it looks at the clock too often")
    assert refused > 50


def test_a_long_reference_is_dropped_and_its_uses_stay() -> None:
    html, text = render(f"[a] [b]\n\n[a]: /{'x' * 2_001}\n[b]: /y\n")
    assert (html, text) == ('<p>[a] <a href="/y" rel="noopener">b</a></p>\n', "[a] b")


def test_ninety_levels_are_shown() -> None:
    html, text = render("> " * 90 + "x")
    assert (html.count("<blockquote>"), text) == (90, "x")


# --- What is shown


@pytest.mark.parametrize(
    ("body", "html"),
    [
        ("~~gone~~", "<p><s>gone</s></p>\n"),
        ('a & b < c "d"', '<p>a &amp; b &lt; c "d"</p>\n'),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>\n"),
        ("![a](/x.png 't')", '<p><img src="/x.png" alt="a" title="t"></p>\n'),
        ("![a](mailto:a@b.c)", '<p><img alt="a"></p>\n'),
        ("[a](//host/x)", '<p><a href="//host/x" rel="noopener">a</a></p>\n'),
        ("[a](HTTPS://host)", '<p><a href="HTTPS://host" rel="noopener">a</a></p>\n'),
        ("<a@b.org>", '<p><a href="mailto:a@b.org" rel="noopener">a@b.org</a></p>\n'),
        ("[a](javascript:x)", "<p>[a](javascript:x)</p>\n"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>\n'),
        ("    a<", "<pre><code>a&lt;\n</code></pre>\n"),
        ("a  \nb\nc", "<p>a<br>\nb\nc</p>\n"),
        ("a `b<` \\* &copy;", "<p>a <code>b&lt;</code> * ©</p>\n"),
        ("***", "<hr>\n"),
        ("", ""),
    ],
)
def test_html(body: str, html: str) -> None:
    assert render(body).html == html


@pytest.mark.parametrize(
    ("body", "html"),
    [
        ("# a *b*", "<p># a <em>b</em></p>\n"),
        ("###### a\n> ## b", "<p>###### a</p>\n<blockquote>\n<p>## b</p>\n</blockquote>\n"),
        ("a\n===", "<p>a\n===</p>\n"),
        ("a\n---", "<p>a</p>\n<hr>\n"),
        ("#tag and #another", "<p>#tag and #another</p>\n"),
        ("<h1 id=x>a</h1>", "<p>&lt;h1 id=x&gt;a&lt;/h1&gt;</p>\n"),
        ("a[^1] b^[c]", "<p>a[^1] b^[c]</p>\n"),
        ("a[^1]\n\n[^1]: two words", "<p>a[^1]</p>\n<p>[^1]: two words</p>\n"),
        ("~~a~~ **b** `c`", "<p><s>a</s> <strong>b</strong> <code>c</code></p>\n"),
        ("[a](/x) ![b](/y)", '<p><a href="/x" rel="noopener">a</a> <img src="/y" alt="b"></p>\n'),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("```python\nx\n```", '<pre><code class="language-python"><span class="n">x</span>\n</code></pre>\n'),
    ],
)
def test_html_of_a_message(body: str, html: str) -> None:
    assert render(body, MESSAGES).html == html


def test_a_table_with_its_alignment() -> None:
    html = render("| a | b | c | d |\n|---|:--|:-:|--:|\n| 1 | *2* | \\| | |\n").html
    assert re.findall("<t[hd][^\n]*", html) == [
        *("<thead>", "<th>a</th>", '<th align="left">b</th>', '<th align="center">c</th>', '<th align="right">d</th>'),
        *("<td>1</td>", '<td align="left"><em>2</em></td>', '<td align="center">|</td>', '<td align="right"></td>'),
    ]


def test_footnotes_find_each_other() -> None:
    html = render("# fn-1\n\na[^x] b[^x] c^[in *line*]\n\n[^x]: note\n").html
    page = parsed(html)
    ids = [element.attrib["id"] for element in page.iter() if "id" in element.attrib]
    links = [element.attrib["href"] for element in page.iter("a")]
    assert ids == ["h-fn-1", "fnref-1", "fnref-1:1", "fnref-2", "fn-1", "fn-2"]
    assert links == ["#fn-1", "#fn-1", "#fn-2", "#fnref-1", "#fnref-1:1", "#fnref-2"]
    assert [element.text for element in page.iter("a")][:3] == ["[1]", "[1]", "[2]"]


@pytest.mark.parametrize(
    ("body", "anchors"),
    [
        ("# Hello, *World* `x_1`!", ["h-hello-world-x_1"]),
        ("# Ärger & Öl", ["h-ärger-öl"]),
        ("# 你好，世界", ["h-你好-世界"]),
        ("# مرحبا بالعالم", ["h-مرحبا-بالعالم"]),
        ("# हिन्दी भाषा", ["h-हिन्दी-भाषा"]),
        ("# \N{PARTY POPPER}\n# \N{ROCKET}\n# 1\n#\n", ["h-1", "h-2", "h-1-2", "h-3"]),
        ("# a\n# a\n# a-2\n# A\n", ["h-a", "h-a-2", "h-a-2-2", "h-a-3"]),
        ("a\n===\n\n> ## b\n", ["h-a", "h-b"]),
        ("# ![picture](/x) [link](/y)", ["h-picture-link"]),
        ("# " + "word " * 100, ["h-" + "word-" * 11 + "word"]),
        ("# e\u0301\n# \u00e9", ["h-\u00e9", "h-\u00e9-2"]),
    ],
)
def test_anchors(body: str, anchors: list[str]) -> None:
    assert re.findall(r'<h\d id="(.*?)">', render(body).html) == anchors


def test_many_headings_have_an_anchor_each() -> None:
    html = render("# a\n# \N{ROCKET}\n" * 2_000 + "x" * 100_000).html
    anchors = re.findall(r'<h\d id="(.*?)">', html)
    assert len(anchors) == len(set(anchors)) == 4_000


def test_code_has_colours_by_class() -> None:
    assert render("``` Python title=x\ndef f(): return 'ü<'\n```").html == (
        '<pre><code class="language-Python"><span class="k">def</span> <span class="nf">f</span>'
        '<span class="p">():</span> <span class="k">return</span> <span class="s1">\'ü&lt;\'</span>\n</code></pre>\n'
    )


@pytest.mark.parametrize(
    ("info", "css"),
    [
        ("", ""),
        ("nope", ' class="language-nope"'),
        ("x++", ' class="language-x++"'),
        ("a&b", ""),
        ("x" * 41, ""),
    ],
)
def test_code_of_an_unknown_language_is_plain(info: str, css: str) -> None:
    assert render(f"```{info}\n\n \ta<b\n\n```").html == f"<pre><code{css}>\n \ta&lt;b\n\n</code></pre>\n"


def test_every_language_is_known_and_loses_nothing() -> None:
    assert set(LANGUAGES.split()) <= set(markdown._languages())
    code = "\n\n  if (x) { 'a' + \"b\" } // <c> # é\n\t$d: 1;\n\n"
    for name in LANGUAGES.split():
        html, text = render(f"```{name}\n{code}```")
        (element,) = parsed(html).iter("code")
        assert "".join(element.itertext()) == code, name
        assert text == code.strip("\n")


def test_long_code_and_much_code_is_plain() -> None:
    line = "x = 1\n"
    fits, long = line * (CODE_LENGTH // len(line)), line * (CODE_LENGTH // len(line) + 1)
    assert "<span" in render(f"```python\n{fits}```\n" + "x" * CODE_LENGTH * 4).html
    assert "<span" not in render(f"```python\n{long}```").html
    fences = f"```python\n{'x=1;' * 1_500}\n```\n" * 10
    codes = [len(list(element)) for element in parsed(render(fences).html).iter("code")]
    assert codes[0] > 0
    assert codes[-1] == 0


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("# One\ntwo *three*\n\n- four\n- five\n\n> six", "One\ntwo three\nfour\nfive\nsix"),
        ("| a | b |\n|---|---|\n| c | d |", "a\nb\nc\nd"),
        ("[shown](https://hidden.example 'and this') ![picture *of*](/hidden)", "shown picture of"),
        ("a[^1] b^[inline]\n\n[^1]: note", "a b\nnote\ninline"),
        ("a  \nb\nc", "a\nb\nc"),
        ("`code` &amp; \\*\n\n```py hidden\nx = 1\n\ny = 2\n```\n\n    z", "code & *\nx = 1\n\ny = 2\nz"),
        ("<https://example.org/x>", "https://example.org/x"),
        ("<b>raw</b> ~~gone~~", "<b>raw</b> gone"),
        ("***\n\n&nbsp;\n", ""),
        ("[^1]: unused", ""),
        ("![a\\*&copy; ![b\\*](/x)](/y)", "a*© b*"),
    ],
)
def test_text(body: str, text: str) -> None:
    assert render(body).text == text


# --- One at a time


def test_threads_share_the_parser() -> None:
    bodies = [f"# {number}\n\n[a][r] x[^1]\n\n[r]: /{number}\n[^1]: {number}\n" * 20 for number in range(8)]
    expected = [render(body) for body in bodies]
    found: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        found[number] = [render(bodies[number]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [expected[number]] * 5 for number in range(8)}


class Slow:
    """A render that waits in its thread until it is told to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.one_began, self.go = threading.Event(), threading.Event()

    def __call__(self, body: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        self.begun.append(body)
        self.one_began.set()
        self.go.wait(10)
        return body


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    slow = Slow()
    monkeypatch.setattr(markdown, "render", slow)
    yield slow
    slow.go.set()


async def test_one_body_at_a_time(slow: Slow) -> None:
    renderer = Renderer()
    tasks = [asyncio.create_task(renderer.render(body, 1)) for body in "abc"]
    await asyncio.to_thread(slow.one_began.wait, 10)
    await asyncio.sleep(0.05)
    assert slow.begun == ["a"]
    slow.go.set()
    assert [str(rendered) for rendered in await asyncio.gather(*tasks)] == slow.begun == ["a", "b", "c"]


async def test_who_sends_much_does_not_hold_up_others(slow: Slow) -> None:
    renderer = Renderer()
    tasks = [asyncio.create_task(renderer.render(body, 1)) for body in "abc"]
    await asyncio.to_thread(slow.one_began.wait, 10)
    tasks.append(asyncio.create_task(renderer.render("of another", 2)))
    await asyncio.sleep(0.05)
    slow.go.set()
    await asyncio.gather(*tasks)
    assert slow.begun == ["a", "of another", "b", "c"]


async def test_nobody_waits_for_ever(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "QUEUE_TIMEOUT", 0.01)
    renderer = Renderer()
    first = asyncio.create_task(renderer.render("a", 1))
    await asyncio.to_thread(slow.one_began.wait, 10)
    with pytest.raises(Busy):
        await renderer.render("b", 1)
    slow.go.set()
    await first
    assert str(await renderer.render("c", 1)) == "c"


async def test_a_refusal_gives_the_turn_back() -> None:
    renderer = Renderer()
    with pytest.raises(Unrenderable):
        await renderer.render(">" * 1_000, 1)
    assert (await renderer.render("x", 1)).text == "x"
