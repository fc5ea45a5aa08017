"""Markdown to sanitised HTML and to plain text: the only importer of markdown-it, Pygments and nh3.

CommonMark with tables, strikethrough, footnotes, anchors at headings and colours in code, and without raw HTML. It is
done once, when a text is written. Whoever wrote the text may mean harm, so time, nesting and size are bounded.
"""

import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

import anyio.to_thread
import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from mdit_py_plugins.footnote import footnote_plugin
from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class, get_all_lexers
from pygments.token import STANDARD_TYPES, Whitespace, _TokenType

from blog.errors import Unrenderable
from blog.turns import Turns

VERSION = 1
"""Goes up whenever the same body gives other HTML or other text, so that what was rendered before can be found."""

TIME_LIMIT = 1.0
"""Seconds of its thread's processor time that one body may take: about ten times what 200,000
ordinary characters do.
Not seconds of the clock, which would refuse an honest text whenever the machine is busy."""

QUEUE_TIMEOUT = 4
"""Seconds that a body waits for its turn."""

GROWTH, ALLOWANCE = 4, 65_536
"""HTML is at most so many times the size of its body, and so many bytes beside."""

NESTING = 100
"""Elements inside each other. nh3 takes time that grows with the cube of it, and nothing can interrupt nh3."""

REFERENCE_LENGTH = 2_000
"""Characters of a reference's address and title, since every use repeats them: more is no address that works."""

CODE_LENGTH = 8_000
"""Characters of code that get colours. A lexer's regular expressions may take time that grows with the square of
this, half a second at worst in the languages below; they hold the interpreter lock, and nothing can interrupt them."""

ANCHOR_LENGTH = 60
"""Characters of a heading that its anchor shows."""

SCHEMES = frozenset({"http", "https", "mailto"})
SCHEME = re.compile(r"([^/?#:]*):")  # java%09script: too, which is one to whoever decodes it once more

# A lexer that was used once stays in memory with all its tables, and there are 600: only what blogs are written about,
# and none of those that took longest over hostile text (Julia, Matlab, OCaml).
LANGUAGES = """
    awk bash bat c cmake clojure coffeescript common-lisp cpp csharp css dart diff docker elixir elm erlang fortran
    fsharp gherkin go graphql groovy haskell hcl html http ini java javascript jinja json json5 jsx kotlin latex
    less lua make markdown nginx nix objective-c pascal perl php powershell prolog protobuf pycon python r
    rst ruby rust sass scala scheme scss shell-session sql swift tcl terraform toml tsx typescript vim vue xml yaml zig
"""

TAGS = """
    a blockquote br code em h1 h2 h3 h4 h5 h6 hr img li ol p pre s section span strong sup
    table tbody td th thead tr ul
"""


class Rendered(NamedTuple):
    """A body as a page shows it.

    `html` is sanitised. `text` is what is to be read in it, without markup, for search and excerpts: code too, but
    neither addresses behind links nor marks of footnotes; what stands in different blocks is apart by a line break.
    """

    html: str
    text: str


class Renderer:
    """Renders without blocking the event loop, one body at a time: a second would take the second core from readers."""

    def __init__(self) -> None:
        self._turns = Turns(QUEUE_TIMEOUT)

    async def render(self, body: str, author: int) -> Rendered:
        """What `render` makes of a body by this user. Raises Unrenderable, and Busy when too many bodies wait."""
        async with self._turns.of(author):
            return await anyio.to_thread.run_sync(render, body)

    async def render_message(self, body: str, writer: int) -> Rendered:
        """The same for what somebody says: many stand on one page, so none has headings, anchors or footnotes."""
        async with self._turns.of(writer):
            return await anyio.to_thread.run_sync(render, body, MESSAGES)


def render(body: str, parser: "_Parser | None" = None) -> Rendered:
    """Give the sanitised HTML and the text of a body. Raises Unrenderable when it takes too much of anything."""
    parser = parser or MARKDOWN
    work = _Work(body)
    env = {"work": work}
    try:
        tokens = parser.parse(body, env)
        text = "\n".join(_texts(tokens))
        html = parser.renderer.render(tokens, parser.options, env)
    except RecursionError:
        # Labels are parsed inside labels, which takes several calls a level: how deep the stack was before decides.
        raise Unrenderable(TOO_DEEP) from None
    html = CLEANER.clean(html)
    if len(html.encode()) > work.limit:  # it writes a no-break space as &nbsp;
        raise Unrenderable(TOO_LARGE)
    return Rendered(html, text)


TOO_DEEP = "This text is nested too deeply to be shown."
TOO_LARGE = "This text grows too much when it is turned into a page: it repeats references, footnotes or table cells."
TOO_LONG = "This text takes too long to be turned into a page."


class _Work:
    """What is left for one body: time, room and levels."""

    def __init__(self, body: str) -> None:
        self.limit = GROWTH * len(body.encode()) + ALLOWANCE
        self._room = self.limit
        self._colours = self.limit // 2
        self._depth = 0
        self._deadline = time.thread_time() + TIME_LIMIT

    def go_on(self) -> None:
        """Raise Unrenderable when the time is over."""
        if time.thread_time() > self._deadline:
            raise Unrenderable(TOO_LONG)

    def write(self, html: str, nesting: int) -> None:
        """Count what is written, before it is put together. Raises Unrenderable at too much, too deep or too late."""
        self.go_on()
        self._room -= len(html)
        if self._room < 0:
            raise Unrenderable(TOO_LARGE)
        self._depth += nesting
        if self._depth > NESTING:
            raise Unrenderable(TOO_DEEP)

    def colour(self, spans: Iterable[str]) -> str | None:
        """Put spans together, or give None where colours would take the room of what is to be read."""
        room = self._colours
        found = []
        for span in spans:
            room -= len(span)
            if room < 0:
                return None
            found.append(span)
        self._colours = room
        return "".join(found)


def _go_on_inline(state: StateInline, silent: bool) -> bool:  # noqa: ARG001  (a rule's face)
    state.env["work"].go_on()
    return False


def _go_on_pairs(state: StateInline) -> None:
    state.env["work"].go_on()  # an empty cell of a table has nothing for the other rules


def _go_on_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:  # noqa: ARG001  (a rule's face)
    state.env["work"].go_on()
    return False


def _drop_long_references(state: StateCore) -> None:
    references = state.env.get("references", {})
    for label in [
        label for label, found in references.items() if len(found["href"]) + len(found["title"]) > REFERENCE_LENGTH
    ]:
        del references[label]


def _align(state: StateCore) -> None:
    # The parser aligns cells by an inline style, which the sanitiser and a page's policy refuse.
    for token in state.tokens:
        if token.type in ("th_open", "td_open") and "style" in token.attrs:
            token.attrs = {"align": str(token.attrs["style"]).removeprefix("text-align:")}


def _anchor(state: StateCore) -> None:
    # The prefix has a hyphen, so that no heading takes the name of a variable that a page's script reads as
    # window.name, and none that of a footnote.
    taken: set[str] = set()
    last: dict[str, int] = {}
    for heading, content in zip(state.tokens, state.tokens[1:], strict=False):
        if heading.type != "heading_open":
            continue
        state.env["work"].go_on()
        slug = _slug(" ".join(_inline_texts(content.children or [])))
        anchor = f"h-{slug or 1}"  # a heading without a letter is known by its number
        while anchor in taken:
            # Kept for the next one, or many equal headings would each count from the start.
            last[slug] = last.get(slug, 1) + 1
            anchor = f"h-{slug}-{last[slug]}" if slug else f"h-{last[slug]}"
        taken.add(anchor)
        heading.attrs["id"] = anchor


def _slug(title: str) -> str:
    # Letters, digits and marks of any script: without its marks, a word of Hindi or Thai is no word.
    title = unicodedata.normalize("NFC", title[: 4 * ANCHOR_LENGTH]).lower()
    kept = "".join(c if c == "_" or unicodedata.category(c)[0] in "LMN" else " " for c in title)
    return "-".join(kept.split())[:ANCHOR_LENGTH].strip("-")


def _texts(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type == "inline":
            text = "".join(_inline_texts(token.children or [])).strip()
        elif token.type in ("fence", "code_block"):
            text = token.content.strip("\n")
        else:
            continue
        if text:
            yield text


def _inline_texts(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in ("softbreak", "hardbreak"):
            yield "\n"
        elif token.type == "image":
            yield from _inline_texts(token.children or [])
        elif token.type in ("text", "text_special", "code_inline"):
            yield token.content


@cache
def _languages() -> dict[str, str]:
    """Each name that Pygments knows one of our languages by, and what its lexer is called."""
    wanted = frozenset(LANGUAGES.split())
    lexers = [(name, aliases) for name, aliases, _, _ in get_all_lexers(plugins=False)]
    return {alias: name for name, aliases in lexers if wanted.intersection(aliases) for alias in aliases}


@cache
def _lexer_class(name: str) -> type[Lexer] | None:
    return find_lexer_class(name)


@cache
def _css(kind: _TokenType) -> str:
    while kind not in STANDARD_TYPES and kind.parent is not None:
        kind = kind.parent  # what only one lexer knows looks like what it is a kind of
    # Nobody sees the colour of a blank.
    return "" if kind is Whitespace else STANDARD_TYPES.get(kind, "")


def _coloured(code: str, language: str, work: _Work) -> str | None:
    """Give code in spans with Pygments' classes, or None when it stays plain."""
    name = _languages().get(language.lower())
    lexer_class = _lexer_class(name) if name and len(code) <= CODE_LENGTH else None
    if lexer_class is None:
        return None
    # A lexer may keep notes in itself while it reads, so each reading has its own.
    lexer = lexer_class(stripnl=False, ensurenl=False)
    return work.colour(_spans(lexer.get_tokens(code), work))


def _spans(tokens: Iterable[tuple[_TokenType, str]], work: _Work) -> Iterator[str]:
    for css, group in groupby(tokens, lambda token: _css(token[0])):
        work.go_on()
        text = escape("".join(value for _, value in group), quote=False)
        yield f'<span class="{css}">{text}</span>' if css else text


class _Html(RendererHTML):
    """Writes HTML as markdown-it does, but counts it, and names and colours things as we do."""

    def render(self, tokens: Sequence[Token], options: OptionsDict, env: EnvType) -> str:
        return "".join(
            self.renderInline(token.children or [], options, env)
            if token.type == "inline"
            else self._counted(tokens, index, options, env)
            for index, token in enumerate(tokens)
        )

    def renderInline(self, tokens: Sequence[Token], options: OptionsDict, env: EnvType) -> str:  # noqa: N802
        return "".join(self._counted(tokens, index, options, env) for index in range(len(tokens)))

    def _counted(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[index]
        html: str = self.rules.get(token.type, self.renderToken)(tokens, index, options, env)
        env["work"].write(html, token.nesting)
        return html

    # Quotes need no escape between tags, and would be six times their size with one.

    def text(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        return escape(tokens[idx].content, quote=False)

    def code_inline(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        return f"<code>{escape(tokens[idx].content, quote=False)}</code>"

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        return f"<pre><code>{escape(tokens[idx].content, quote=False)}</code></pre>\n"

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG002
        token = tokens[idx]
        language = (unescapeAll(token.info).split() or [""])[0]
        name = f' class="language-{escape(language)}"' if language else ""
        code = _coloured(token.content, language, env["work"]) or escape(token.content, quote=False)
        return f"<pre><code{name}>{code}</code></pre>\n"


def _footnote_name(self: Any, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG001
    return f"-{tokens[idx].meta['id'] + 1}"


def _footnote_mark(self: Any, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:  # noqa: ARG001
    return f"[{tokens[idx].meta['id'] + 1}]"


class _Parser(MarkdownIt):
    """Built once: a parse keeps what it notes in its own states and `env`, so threads may share it."""

    def __init__(self, *, of_messages: bool = False) -> None:
        # Below so many levels the parser leaves things out without a word: one more than is written, so it is refused.
        super().__init__("commonmark", {"html": False, "maxNesting": NESTING + 1}, renderer_cls=_Html)
        self.enable(["table", "strikethrough"]).use(footnote_plugin)
        self.add_render_rule("footnote_anchor_name", _footnote_name)
        self.add_render_rule("footnote_caption", _footnote_mark)
        self.inline.ruler.before("text", "go_on", _go_on_inline)
        self.inline.ruler2.before("balance_pairs", "go_on", _go_on_pairs)
        ends = ["paragraph", "reference", "blockquote", "list"]
        self.block.ruler.before("table", "go_on", _go_on_block, {"alt": ends})
        self.core.ruler.after("block", "drop_long_references", _drop_long_references)
        self.core.ruler.push("align", _align)
        self.core.ruler.push("anchor", _anchor)
        if of_messages:
            self.disable(["heading", "lheading", "footnote_def", "footnote_inline", "footnote_ref", "footnote_tail"])

    def validateLink(self, url: str) -> bool:  # noqa: N802
        # What has no scheme is an address on this site, or //host, which leads nowhere that https://host does not.
        scheme = SCHEME.match(url)
        return not scheme or scheme[1].lower() in SCHEMES


MARKDOWN, MESSAGES = _Parser(), _Parser(of_messages=True)

OUR_ID = re.compile(r"(h|fn|fnref)-[^\s]+")
LANGUAGE_CLASS = re.compile(r"language-[\w.+#-]{1,40}")


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "id":
        return value if OUR_ID.fullmatch(value) else None
    if (tag, name) == ("code", "class"):
        return value if LANGUAGE_CLASS.fullmatch(value) else None
    if (tag, name) == ("img", "src"):
        return None if value.lower().startswith("mailto:") else value
    return value


# The second lock on the same door: the parser lets nothing else through, and if it ever did, this would not.
CLEANER = nh3.Cleaner(
    tags=set(TAGS.split()),
    attributes={
        "a": {"href", "title", "id"},
        "code": {"class"},
        "img": {"src", "alt", "title"},
        "li": {"id"},
        "ol": {"start"},
        **{f"h{level}": {"id"} for level in range(1, 7)},
    },
    tag_attribute_values={cell: {"align": {"left", "center", "right"}} for cell in ("td", "th")},
    allowed_classes={
        "a": {"footnote-backref"},
        "hr": {"footnotes-sep"},
        "li": {"footnote-item"},
        "ol": {"footnotes-list"},
        "section": {"footnotes"},
        "span": set(STANDARD_TYPES.values()),
        "sup": {"footnote-ref"},
    },
    attribute_filter=_attribute,
    url_schemes=set(SCHEMES),
    link_rel="noopener",
)
