"""Full text search: words as every engine's index understands them alike, the statements that ask it, and snippets.

The engines see nothing but tokens made here, so that they find the same in any script and no search can be a
syntax error. A token has its only 9 as its second character: where tokens are counted, none is found within another.
Capitals would say as much, but MariaDB makes them small in an index that is built of what is there.
"""

import re
from base64 import b32encode
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from html import escape
from itertools import islice, pairwise
from unicodedata import category, combining, decimal, normalize

from sqlalchemy import ColumnElement, Integer, Select, String, Text, bindparam, column, func, select
from sqlalchemy import text as sql
from sqlmodel import col

from blog.models import BODY_LENGTH, Blog, BlogText

CANDIDATES = 60
"""Matches, the newest ones, that are ranked: a word that is in every second blog costs no more than a rare one."""

LOOKED_THROUGH = 2_000
"""Blogs that have all words, the newest ones that are to be seen, that MariaDB looks for phrases in."""

TITLE_WEIGHT = 5
"""Times that a word of the title counts."""

MOST_IN_ORDER = 16_000
"""Words that phrases are found in, some 100,000 characters. PostgreSQL knows no position beyond 16,383."""

MOST_BYTES = 900_000
"""Bytes of a text's words as PostgreSQL keeps them, of which it takes a mebibyte. Chinese is nothing but
different pairs of characters, and so the end of a very long text is not found."""

MOST_WORDS = 24
"""Words of a search that count; the rest of a longer one is ignored."""

USUAL_LENGTH = 4_000.0
"""Length of terms at which one more occurrence raises a blog as much as a second word would."""

LONGEST_TOKEN = 80
"""MariaDB and MySQL index no word of more than 84 characters, nor any of less than 3."""

SNIPPET = 240
"""Characters of a snippet."""

SNIPPED = 20_000
"""Characters from a text's beginning, of which its snippet is taken."""

PIECE, OVERLAP = 4_000, 100
"""Characters that are looked at at once: the first of these pieces with anything in it has the snippet. A page of
snippets takes a millisecond, and fifty where all texts are long and were looked at to the end."""

LEVELS = (10, 14, 18, 22)
"""PostgreSQL's index finds matches in the order of their rows only by sorting all of them. Each blog has a token for
its block of 2^10, 2^14, … ids, and a search asks the newest two blocks of each size until it has enough: no block
has many matches if a smaller one had too few."""

# Scripts that put no spaces between words, Hangul because it puts endings onto them, and pictures.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17d3\u2600-\u27bf\u3005-\u3007\u3040-\u30ff\u3130-\u318f"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U0001f000-\U0001f3fa\U0001f400-\U0001faff\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# A word may end as the names of languages do: C++, C#.
_RUN = re.compile(rf"[{_UNSPACED}]+|[^\s+#{_UNSPACED}]+(?:(?:\+\+|#)(?![^\s{_UNSPACED}]))?")
_QUOTED = re.compile(r'["“”„«»]([^"“”„«»]*)["“”„«»]?|([^\s"“”„«»]+)')
# Letters with a stroke, and those without a dot, are letters of their own to Unicode, but not to who types.
_PLAIN = {
    ord(letter): plain for letter, plain in zip("łøđħŧıæœ", ("l", "o", "d", "h", "t", "i", "ae", "oe"), strict=True)
}


class _Folding(dict[int, str]):
    """What `str.translate` makes of each character, learned when it is first met: its folded form; nothing, for
    accents, points and vowel marks, and for what only shapes; and a space, for what is in no word."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = category(character)
        if (kind == "Cf" and character != "\u200b") or character in "\u0640\ufe0e\ufe0f" or 0x1F3FB <= code <= 0x1F3FF:
            folded = ""  # joiners, the Arabic stretch, colours of emoji; a space of no width is a space
        else:
            parts = normalize("NFKD", normalize("NFKC", character).casefold()).translate(_PLAIN)
            kept = (part for part in parts if combining(part) <= 9)  # over 9 are vowel points and accents
            folded = normalize("NFC", "".join(map(_plain, kept)))
        self[code] = folded
        return folded


def _plain(character: str) -> str:
    if character.isdecimal():
        return str(decimal(character))
    counts = character.isalnum() or character in "+#" or category(character)[0] == "M"
    return character if counts or _IS_UNSPACED.match(character) else " "


_FOLDING = _Folding()


# UAX #15 calls text safe that has no more than 30 marks in a row: it takes time that grows with the square of them to
# put them in order, 45 s for 200,000.
_ALL_MARKS = "".join(
    mark
    for mark in map(chr, range(0x300, 0x1F000))
    if category(mark)[0] == "M" and all(map(combining, normalize("NFKD", mark)))
)
_TOO_MANY_MARKS = re.compile(f"([{_ALL_MARKS}]{{30}})[{_ALL_MARKS}]+")


def _fold(text: str) -> str:
    if text.isascii():
        return text.translate(_FOLDING)
    # One character may be folded into eighteen.
    folded = normalize("NFC", _TOO_MANY_MARKS.sub(r"\1", text)).translate(_FOLDING)[:BODY_LENGTH]
    return normalize("NFC", folded)


def _words(folded: str) -> Iterator[str]:
    """The words in their order: of a run without spaces each two neighbours."""
    for run in _RUN.findall(folded):
        if not _IS_UNSPACED.match(run):
            yield run
        else:
            yield from map("".join, pairwise(run))


def _token(word: str) -> str:
    """A word as letters and digits of ASCII, of a length that every engine indexes, and no stop word."""
    if word.isascii() and word.isalnum() and "9" not in word and len(word) <= LONGEST_TOKEN - 2:
        return f"w9{word}"
    data = word.encode()
    return f"x9{_letters(data)}" if len(data) * 8 / 5 <= LONGEST_TOKEN - 3 else f"y9{_digest(data)}"


def _letters(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=").lower()


def _digest(data: bytes) -> str:
    return _letters(sha256(data).digest())


def token_of_mark(mark: str) -> str:
    """What stands for a mark among the terms."""
    return f"m9{_digest(mark.encode())}"


def terms_of(title: str, text: str, marks: Iterable[str] = ()) -> str:
    """What the engines index of a blog: the tokens of its title and its text in their order, then, once each, those
    for which there is no place in that order, and the single characters of runs without spaces.

    `marks` say what else a search may be confined to, such as `author 7`: where few of many matches are wanted,
    an index finds them and a condition looks at them all."""
    title, text = _fold(title), _fold(text)
    tokens = [token_of_mark(mark) for mark in marks]
    seen: set[str] = set()
    room = MOST_BYTES - sum(len(token) + 6 for token in tokens)

    def take(token: str) -> None:
        nonlocal room
        room -= 2 if token in seen else len(token) + 6
        if room >= 0:
            seen.add(token)
            tokens.append(token)

    for _ in range(TITLE_WEIGHT):
        for word in _words(title):
            take(_token(word))
        take(_BETWEEN)
    characters = dict.fromkeys(_IS_UNSPACED.findall(title) + _IS_UNSPACED.findall(text))
    room -= 20 * len(characters)  # they are few, and found wherever they are
    words = _words(text)
    for word in islice(words, MOST_IN_ORDER - len(tokens)):
        take(_token(word))
    take(_BETWEEN)
    for token in map(_token, words):
        if token not in seen:
            take(token)
    tokens += map(_token, characters)
    return "".join(f"{token} " for token in tokens)


_BETWEEN = "z9z"
"""A token that nobody can search for, so that no phrase begins in a title and ends in its repetition."""


def _parts(q: str) -> Iterator[tuple[list[str], list[str]]]:
    """The runs of each part of a search, and which of them are one character of a run without spaces: that is indexed
    on its own, beside the order."""
    for quoted, plain in _QUOTED.findall(q):
        runs = _RUN.findall(_fold(quoted or plain))
        yield runs, [run for run in runs if len(run) == 1 and _IS_UNSPACED.match(run)]


def _phrases(q: str) -> dict[tuple[str, ...], None]:
    """What has to occur: words in quotes, or without a space between them, in this order."""
    found: dict[tuple[str, ...], None] = {}
    room = MOST_WORDS
    for runs, alone in _parts(q):
        phrase = tuple(islice(_words(" ".join(run for run in runs if run not in alone)), room))
        for words in (phrase, *((character,) for character in alone)):
            if words and words not in found and room > 0:
                found[words] = None
                room -= len(words)
    return found


def query_of(q: str, marks: Iterable[str] = ()) -> str | None:
    """What the engines are asked for what somebody typed, and in blogs with these marks: all of it must occur, words in
    quotes or without a space between them as a phrase. None when there is nothing that can be searched for."""
    phrases = [f'"{" ".join(map(_token, words))}"' for words in _phrases(q)]
    if not phrases:
        return None
    return " ".join([*phrases, *(f'"{token_of_mark(mark)}"' for mark in marks)])


def ranked(dialect: str, *conditions: ColumnElement[bool]) -> Select[int]:
    """The ids of at most `CANDIDATES` blogs, the best first, for `:match`, a query that `query_of` made.

    Each word or phrase that occurs often for the length of a blog, or in its title, raises it; of those that are
    raised alike the newest comes first. `conditions` are on the columns of Blog.
    """
    number, terms = col(BlogText.blog_id), col(BlogText.terms)
    matching = _MATCHING[dialect].subquery("matching")
    newest = select(matching.c.blog_id)
    if conditions:
        newest = newest.join(Blog, col(Blog.id) == matching.c.blog_id).where(*conditions)
    if dialect != "postgresql":
        newest = newest.order_by(matching.c.blog_id.desc())
    if dialect == "mysql":
        words = newest.limit(LOOKED_THROUGH).subquery("words")
        newest = select(number).join(words, words.c.blog_id == number).where(_HAS_PHRASES).order_by(number.desc())
    newest = newest.limit(CANDIDATES)
    found, phrase = newest.subquery("found"), _PHRASES[dialect].subquery("phrase")
    # In bytes, which need not be counted; SQLite counts characters, which are as many.
    length = func.length if dialect == "sqlite" else func.octet_length
    size = length(terms)
    occurrences = (size - length(func.replace(terms, phrase.c.token, ""))) / (length(phrase.c.token) * 1.0)
    usual = size / USUAL_LENGTH + 1.0
    return (
        select(number)
        .select_from(found)
        .join(BlogText, number == found.c.blog_id)
        .join(phrase, length(phrase.c.token) <= size)
        .group_by(number)
        .order_by(func.sum(usual / (usual + occurrences)), number.desc())
    )


def _blocks() -> str:
    """PostgreSQL's matches, those in the newest two blocks of each size before others, and of each size newest first.

    By `-blog_id`, of which there is no index: it would be walked instead, and of each blog all the words be read.
    """
    parts, end = [], ""
    for level in LEVELS:
        block = f"((SELECT id FROM last) >> {level})"
        before = f"greatest({block} - 1, 0)"
        names = f"format('b{level}x%s|b{level}x%s', {block}, {before})"
        parts.append(f"(websearch_to_tsquery('simple', :match) && to_tsquery('simple', {names})){end}")
        end = f" AND -blog_id > -({before} << {level})"
    parts.append(f"websearch_to_tsquery('simple', :match){end}")
    levels = (
        f"SELECT * FROM (SELECT blog_id FROM blog_text WHERE vector @@ {part} ORDER BY -blog_id) AS level{number}"
        for number, part in enumerate(parts)
    )
    return f"WITH last AS (SELECT max(blog_id) AS id FROM blog_text) {' UNION ALL '.join(levels)}"


_MATCH = bindparam("match", type_=String)

_IN_MYSQL = (
    """JSON_TABLE(concat('[', replace(:match, '" "', '","'), ']'), '$[*]' COLUMNS (value TEXT PATH '$')) AS phrases"""
)
# What is searched for, all matches, to be taken from the newest down.
_MATCHING = {
    dialect: sql(statement).bindparams(_MATCH).columns(column("blog_id", Integer))
    for dialect, statement in (
        ("sqlite", "SELECT rowid AS blog_id FROM blog_terms WHERE blog_terms MATCH :match"),
        ("postgresql", _blocks()),
        (
            # Its own search for a phrase of words that are in most blogs takes minutes, beyond every limit and past
            # every kill: it is asked for the words, and the newest blogs that have them for the phrases.
            "mysql",
            """SELECT blog_id FROM blog_text WHERE MATCH (terms) AGAINST"""
            """ (concat('+', replace(replace(:match, '"', ''), ' ', ' +')) IN BOOLEAN MODE)""",
        ),
    )
}
# Whether the blogs that have the words have the phrases.
_HAS_PHRASES = sql(f"NOT EXISTS (SELECT 1 FROM {_IN_MYSQL} WHERE locate(concat(value, ' '), terms) = 0)")
# Its phrases, each as it stands among the terms, without the marks: every match has them.
_PHRASES = {
    dialect: sql(statement).bindparams(_MATCH).columns(column("token", Text))
    for dialect, statement in (
        (
            "sqlite",
            """SELECT value || ' ' AS token FROM json_each('[' || replace(:match, '" "', '","') || ']')"""
            """ WHERE value NOT LIKE 'm9%'""",
        ),
        (
            "postgresql",
            """SELECT value || ' ' AS token FROM unnest(string_to_array(btrim(:match, '"'), '" "')) AS value"""
            """ WHERE value NOT LIKE 'm9%'""",
        ),
        (
            "mysql",
            f"""SELECT concat(value, ' ') AS token FROM {_IN_MYSQL} WHERE value NOT LIKE 'm9%'""",
        ),
    )
}


def highlight(title: str, q: str) -> str:
    """The title as HTML, with what `q` searches for in <mark>."""
    return _marked(title, _matches(title, q), 0, len(title))


def snippet(text: str, q: str) -> str:
    """Some `SNIPPET` characters of the text as HTML, where most of what `q` searches for first is, in <mark>."""
    text = text[:SNIPPED]
    matches: list[Match] = []
    for start in range(0, len(text), PIECE):
        # From a little earlier, for what would be cut in two.
        start = max(0, start - OVERLAP)
        found = _matches(text[start : start + OVERLAP + PIECE], q)
        if found:
            matches = [(start + begin, start + end, what) for begin, end, what in found]
            break
    begin, end = _window(text, matches)
    return ("… " if begin else "") + _marked(text, matches, begin, end).strip() + (" …" if end < len(text) else "")


Match = tuple[int, int, str]
"""Where something begins and ends, and what it is."""

MOST_MATCHES = 500
"""Matches in one text that are looked at."""


def _matches(text: str, q: str) -> list[Match]:
    pattern = _pattern(q)
    if pattern is None:
        return []
    folded = text.translate(_FOLDING)
    found = islice(pattern.finditer(folded), MOST_MATCHES)
    if all(len(_FOLDING[ord(character)]) == 1 for character in set(text)):
        return [(match.start(), match.end(), match[0]) for match in found]
    origin = [place for place, character in enumerate(text) for _ in _FOLDING[ord(character)]] + [len(text)]
    matches = []
    for match in found:
        end = origin[match.end() - 1] + 1
        while end < len(text) and not _FOLDING[ord(text[end])]:
            end += 1  # the accents that follow a letter are its own
        matches.append((origin[match.start()], end, match[0]))
    return matches


@lru_cache(maxsize=256)
def _pattern(q: str) -> re.Pattern[str] | None:
    """What finds the words of a search in a folded text."""
    patterns: set[str] = set()
    for runs, alone in _parts(q):
        for words in (runs[:MOST_WORDS], *([run] for run in alone[:MOST_WORDS])):
            patterns.add(r"[\s+#]*".join(map(_whole, words)))
    longest = sorted(patterns - {""}, key=len, reverse=True)[:MOST_WORDS]
    return re.compile("|".join(longest)) if longest else None


def _whole(run: str) -> str:
    """What finds a run of `_RUN` where it would."""
    if _IS_UNSPACED.match(run):
        return re.escape(run)
    after = rf"[^\s{_UNSPACED}]"
    ends = after if run[-1] in "+#" else rf"[^\s+#{_UNSPACED}]|(?:\+\+|#)(?!{after})"
    first, rest = re.escape(run[0]), re.escape(run[1:])
    # Begins with a letter, which is looked for four times as fast as what must not be before it.
    return rf"{first}(?<![^\s+#{_UNSPACED}]{first}){rest}(?!{ends})"


def _window(text: str, matches: list[Match]) -> tuple[int, int]:
    """Where a snippet begins and ends: the most different words, then the most words, then the first."""
    best, place, first = (0, 0), 0, 0
    within: Counter[str] = Counter()
    for last, (_, end, what) in enumerate(matches):
        within[what] += 1
        while first < last and end - matches[first][0] > SNIPPET:
            within[matches[first][2]] -= 1
            first += 1
        score = (sum(count > 0 for count in within.values()), last - first)
        if score > best or last == 0:
            best, place = score, matches[first][0]
    begin = max(0, min(place - SNIPPET // 4, len(text) - SNIPPET))
    if begin:  # not within a word, where there is a space to begin at
        begin = text.find(" ", begin, place) + 1 or begin
    end = min(len(text), begin + SNIPPET)
    if end < len(text):
        space = text.rfind(" ", begin + SNIPPET // 2, end)
        end = space if space > 0 else end
    return begin, end


def _marked(text: str, matches: list[Match], begin: int, end: int) -> str:
    parts = []
    for start, stop, _ in matches:
        # What is longer than all that is shown is shown as far as it goes.
        if begin <= start < end and (stop <= end or stop - start > SNIPPET):
            parts += [escape(text[begin:start]), "<mark>", escape(text[start : min(stop, end)]), "</mark>"]
            begin = min(stop, end)
    return "".join(parts) + escape(text[begin:end])
