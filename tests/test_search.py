"""Words of any script, the same on every engine: what is found, in which order, and how it is shown."""

import re
import sqlite3
import threading
import unicodedata
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import ColumnElement, delete, insert, text, update
from sqlmodel import col

from blog.database import OneTripCursor
from blog.models import Blog, BlogText, User
from blog.repository import execute
from blog.search import (
    CANDIDATES,
    LEVELS,
    LONGEST_TOKEN,
    LOOKED_THROUGH,
    MOST_BYTES,
    MOST_IN_ORDER,
    MOST_WORDS,
    PIECE,
    SNIPPED,
    SNIPPET,
    highlight,
    query_of,
    ranked,
    snippet,
    terms_of,
)
from tests.conftest import on
from tests.factories import Factory, blog_row

# SECURITY.md, 4.2, row 20, and what else means something to one of the engines.
LONG_TO_FOLD = {
    "marks": "a" + "\u0315" * 100_000 + "\u0300" * 99_999,
    "kept marks": "a" + "\u3099\u0338" * 100_000,
    "tones": "a" + "\u302e\u302a" * 100_000,
    "vowels": "\u0f73" * 200_000,
    "phrases": "\ufdfa" * 200_000,
    "squares": "\u3320" * 200_000,
}

HOSTILE = [
    *(
        '"',
        "*",
        "AND",
        "OR",
        "NOT",
        "NEAR(",
        "NEAR(a b, 2)",
        "foo:x",
        "title:",
        "terms:foo",
        "-",
        "^",
        "()",
        "'",
        "+",
        "@",
    ),
    *('a"', "+-", "<->", "!", "\0", "a\0b", '"' * 9_999, "&", "|", "a & b", "a | !b", "~a", "<a", ">a", "a*", "a:*"),
    *(
        "@distance",
        '"a b" @2',
        "%",
        "_",
        "\\",
        "\\'",
        ";",
        "--",
        "/*",
        "{a b}: c",
        ", ",
        "a-b",
        "w9foo",
        "z9z",
        "b10x0",
    ),
    *("'; DROP TABLE blog_text; --", "[", "]", '","', '" "', '" +"', "NULL", "\ud800", "\U0010ffff", " ", "", "\n\t"),
    *("a " * 5_000, "x" * 100_000, "語" * 5_000, "é" * 10_000, "((((((", "a AND", ":match", "$1", "%s", "?"),
]


class Corpus:
    """Blogs of one user, whose texts are indexed as those of the platform are."""

    def __init__(self, app: FastAPI, factory: Factory) -> None:
        self.database = app.state.database
        self.factory = factory
        self.creator: User | None = None
        self.dialect: str = self.database.engines[0].dialect.name

    async def add(self, title: str, body: str = "", *, marks: tuple[str, ...] = ()) -> int:
        self.creator = self.creator or await self.factory.user()
        blog = await self.factory.blog(self.creator, title[:200] or "-", "x")
        async with self.database.write.begin() as session:
            rewritten = update(BlogText).where(col(BlogText.blog_id) == blog.id)
            await execute(session, rewritten.values(terms=terms_of(title, body, marks), text=body), {})
        return blog.id

    async def find(self, q: str, *conditions: ColumnElement[bool], marks: tuple[str, ...] = ()) -> list[int]:
        async with self.database.read() as session:
            dialect = session.get_bind().dialect.name
            match = query_of(q, marks)
            if match is None:
                return []
            return list((await execute(session, ranked(dialect, *conditions), {"match": match})).scalars())


@pytest.fixture
def corpus(app: FastAPI, factory: Factory) -> Corpus:
    return Corpus(app, factory)


class TestTerms:
    @pytest.mark.parametrize(
        "written",
        [
            "a",
            "The",
            "x" * 500,
            "é" * 500,
            "語" * 100,
            "Привет мир",
            "C++",
            "1999",
            "w9w9",
            "नमस्ते",
            "🎉👩‍👩‍👧",
            "a\ud800b",
            "ﷺ" * 30,
        ],
    )
    def test_are_ascii_of_a_length_that_every_engine_indexes(self, written: str) -> None:
        tokens = terms_of(written, written, ["author 7"]).split()
        for token in tokens:
            assert token.isascii()
            assert token.isalnum()
            assert 3 <= len(token) <= LONGEST_TOKEN
            assert token == token.lower()
            assert (token[1], token.count("9")) == ("9", 1)

    def test_long_words_are_told_apart(self) -> None:
        assert terms_of("", "x" * 500) != terms_of("", "x" * 499 + "y")
        assert terms_of("", "ж" * 500) != terms_of("", "ж" * 499 + "я")

    def test_a_text_of_nothing_but_different_words_fits_into_postgresql(self) -> None:
        body = "".join(map(chr, range(0x4E00, 0x9FFF)))
        body = "".join(a + b for a, b in zip(body * 5, body[7:] + body * 5, strict=False))[:200_000]
        tokens = terms_of("Title", body).split()
        assert len(tokens) > MOST_IN_ORDER
        positions = 2 * len(tokens)
        assert sum(len(token) + 4 for token in set(tokens)) + positions < 1_048_575
        assert sum(len(token) + 8 for token in set(tokens)) > MOST_BYTES / 2

    def test_a_word_far_behind_is_there_once(self) -> None:
        tokens = terms_of("", "a b " * MOST_IN_ORDER + "last c last").split()
        assert tokens.count("w9last") == tokens.count("w9c") == 1
        assert len(tokens) < MOST_IN_ORDER + 10

    @pytest.mark.parametrize(
        "text",
        LONG_TO_FOLD.values(),
        ids=LONG_TO_FOLD,
    )
    def test_what_is_long_to_fold(self, text: str) -> None:
        """Marks in no order, and characters that are several others."""
        assert "w9first" in terms_of("Title", f"first {text} last").split()

    def test_marks(self) -> None:
        """As many as anybody writes count, in any order."""
        dots, below = "\u0307" * 5, "\u0323" * 5
        assert (
            len({terms_of("", f"a{marks}b \u0915\u093c\u094d{marks}") for marks in (dots + below, below + dots)}) == 1
        )
        assert terms_of("", "a" + "\u0307" * 31 + " b") == terms_of("", "a b")


class TestQuery:
    @pytest.mark.parametrize(
        "q", ["", " ", '"', '""', "-", "()", "!?", "\0", "\ud800", "…", "“”", "+", "\u0301", "\u200b"]
    )
    def test_nothing_to_search_for(self, q: str) -> None:
        assert query_of(q) is None

    def test_is_of_bounded_length(self) -> None:
        for q in HOSTILE:
            assert len((query_of(q) or "").split()) <= MOST_WORDS
        assert len((query_of(" ".join(map(str, range(1_000)))) or "").split()) == MOST_WORDS

    def test_the_same_word_counts_once(self) -> None:
        assert query_of("Word word WORD") == query_of("word")


SCRIPTS = {
    # what is written: what finds it, what does not
    "Crème brûlée à la carte": (["creme", "BRULEE", "brûlée", "CRE\u0300ME", '"a la carte"'], ["crem", "brulees"]),
    "Große Straße in Köln": (["strasse", "STRASSE", "straße", "koln", "grosse"], ["stras", "koeln"]),
    "İstanbul ile Isparta, ığdır": (["istanbul", "İSTANBUL", "isparta", "ISPARTA", "igdir"], ["stanbul"]),
    "Ὀδυσσεύς ὁ πολύτροπος ΣΊΣΥΦΟΣ": (["Οδυσσευς", "ΟΔΥΣΣΕΥΣ", "σισυφος", "σίσυφοσ"], ["Οδυσσευ"]),
    "Ещё один ёжик и Йод": (["еще", "ЁЖИК", "ежик", "йод"], ["ёж"]),
    "בְּרֵאשִׁית בָּרָא": (["בראשית", "ברא", "בְּרֵאשִׁית"], ["בר"]),
    "اَلْعَرَبِيَّةُ أحمد كتـــاب": (["العربية", "احمد", "كتاب"], ["عرب"]),
    "नमस्ते दुनिया किताब": (["नमस्ते", "दुनिया", "किताब"], ["नमस", "कताब"]),
    "ภาษาไทยง่ายมาก": (["ภาษา", "ไทย", "ภาษาไทย", "ก"], ["ไทยภาษา", "จ"]),
    "東京都庁へ行く": (["東京", "京都", "東京都", "都庁", "京", "く", "東京都庁へ行く"], ["京東", "東都", "大"]),
    "ガードレールとｶﾞｰﾄﾞ": (["ガード", "ｶﾞｰﾄﾞ", "レール"], ["カート"]),
    "서울에서 만나요": (["서울", "서울에서", "만나", "요"], ["울서", "나만"]),
    "Party 🎉 with 👩🏽‍💻": (["🎉", "party", "👩‍💻", "👩"], ["🎈"]),
    "Since 2024, 1999: 3.14, ٢٠٢٥, ４２ and 1,000": (
        ["2024", "1999", "3.14", "2025", "42", '"1 000"'],
        ["202", "14.3"],
    ),
    "C++ and C# and .NET, but no F": (["c++", "C#", ".net", "net", "f"], ["c", "f#", "g++"]),
    "Write to Ada.Lovelace@example.com": (
        ["ada.lovelace@example.com", "ada", "example.com", "ADA.LOVELACE"],
        ["com.example"],
    ),
    "it's a well-known o’clock": (["it's", "well-known", "known", "o'clock"], ["known-well"]),
    "Łódź, Ærø, đoković": (["lodz", "aero", "Đokovic"], ["odz"]),
    "The be to of and a in that": (["the", "a", "to be".replace(" ", "\u3000"), '"of and a"', "that"], ["then"]),
    "x" * 300 + " " + "ж" * 300: (["x" * 300, "Ж" * 300], ["x" * 299, "ж" * 299]),
    "soft\u00adware zero\u200bwidth می\u200cخواهم": (
        ["software", "width", "می‌خواهم", "ميخواهم".replace("ي", "ی")],
        ["ware"],
    ),
    "snake_case under_score": (["snake_case", "case", "score"], ["snak"]),
}


class TestEveryEngine:
    async def test_scripts(self, corpus: Corpus) -> None:
        ids = {
            written: (await corpus.add(written), await corpus.add("-", f"Before. {written} After."))
            for written in SCRIPTS
        }
        for written, (found, missed) in SCRIPTS.items():
            for q in found:
                for form in ("NFC", "NFD"):
                    answer = await corpus.find(unicodedata.normalize(form, q))
                    assert {*ids[written]} <= {*answer}, (written, q, form)
            for q in missed:
                assert not {*ids[written]} & {*await corpus.find(q)}, (written, q)

    async def test_nothing_typed_is_an_error(self, corpus: Corpus) -> None:
        blog_id = await corpus.add("w9foo b10x0 a b", "AND OR NOT NEAR title x'y foo:x a*b")
        for q in HOSTILE:
            assert set(await corpus.find(q)) <= {blog_id}, q
        assert await corpus.find("AND") == await corpus.find("near") == await corpus.find("w9foo") == [blog_id]
        assert await corpus.find("AND nothing") == []

    async def test_all_words_must_occur_in_any_order(self, corpus: Corpus) -> None:
        both = await corpus.add("Apples", "and then oranges")
        await corpus.add("Apples")
        await corpus.add("-", "oranges")
        assert await corpus.find("oranges apples") == [both]
        assert await corpus.find("oranges apples pears") == []

    async def test_phrases(self, corpus: Corpus) -> None:
        phrase = await corpus.add("-", "Living in New York, New Mexico")
        scattered = await corpus.add("York", "is not new")
        assert (
            await corpus.find('"new york"')
            == await corpus.find("new-york")
            == await corpus.find("“New York”")
            == [phrase]
        )
        assert await corpus.find('"york new') == [phrase]
        assert set(await corpus.find("new york")) == {phrase, scattered}
        assert await corpus.find('"new york" "new mexico"') == [phrase]
        assert await corpus.find('"york mexico"') == []

    async def test_no_phrase_goes_from_the_title_to_the_text(self, corpus: Corpus) -> None:
        await corpus.add("One two", "three four")
        assert await corpus.find('"two three"') == await corpus.find('"two one"') == []

    async def test_the_best_first(self, corpus: Corpus) -> None:
        filler = "some words that say nothing "
        titled = await corpus.add("About whales", filler * 12)
        often = await corpus.add("-", f"whales and whales {filler * 11} whales")
        once = await corpus.add("-", f"whales {filler * 12}")
        long = await corpus.add("-", f"whales {filler * 60}")
        newest = await corpus.add("-", f"whales {filler * 12}")
        await corpus.add("-", filler)
        assert await corpus.find("whales") == [titled, often, newest, once, long]
        assert (await corpus.find("whales nothing"))[:2] == [titled, often]

    async def test_the_best_first_where_every_blog_has_the_word(self, corpus: Corpus) -> None:
        titled = await corpus.add("Whales", "a b c d e")
        twice = await corpus.add("-", "whales whales a b c d e")
        once = await corpus.add("-", "whales a b c d e f")
        assert await corpus.find("whales") == [titled, twice, once]

    async def test_a_phrase_that_occurs_often(self, corpus: Corpus) -> None:
        often = await corpus.add("-", "東京都 と 東京都 と 東京都")
        once = await corpus.add("-", "東京都 と 大阪市 と 名古屋")
        assert await corpus.find("東京都") == [often, once]

    async def test_changes_and_deletions(self, corpus: Corpus) -> None:
        first, second, third = [await corpus.add(f"Number{number}", "shared") for number in range(3)]
        async with corpus.database.write.begin() as session:
            new = update(BlogText).where(col(BlogText.blog_id) == first)
            await execute(session, new.values(terms=terms_of("Renamed", "shared"), text="shared"), {})
            await execute(session, delete(BlogText).where(col(BlogText.blog_id) == second), {})
        assert await corpus.find("number0") == await corpus.find("number1") == []
        assert await corpus.find("renamed") == [first]
        assert set(await corpus.find("shared")) == {first, third}

        async with corpus.database.write.begin() as session:
            await execute(session, delete(Blog).where(col(Blog.id) == third), {})
        assert await corpus.find("number2") == []
        assert await corpus.find("shared") == [first]
        await self._assert_whole(corpus)

    async def test_what_is_rolled_back_is_not_found(self, corpus: Corpus) -> None:
        blog_id = await corpus.add("Kept")
        async with corpus.database.write() as session:
            new = update(BlogText).where(col(BlogText.blog_id) == blog_id)
            await execute(session, new.values(terms=terms_of("Dropped", "")), {})
            await session.rollback()
        assert await corpus.find("dropped") == []
        assert await corpus.find("kept") == [blog_id]

    async def test_a_user_with_many_blogs_goes(self, corpus: Corpus) -> None:
        kept = await corpus.add("Kept", "shared")
        kept_by, corpus.creator = corpus.creator, None
        await corpus.add("Gone", "shared")
        leaver = corpus.creator
        assert leaver is not None
        assert kept_by is not None
        many = 2_000
        async with corpus.database.write.begin() as session:
            session.add_all(blog_row(leaver.id, "x") for _ in range(many))
            await session.flush()
            rows = text("INSERT INTO blog_text (blog_id, terms, text) SELECT id, :terms, '' FROM blog"
                        " WHERE creator_id = :creator AND title = 'x'")  # fmt: skip
            await session.execute(rows, {"terms": terms_of("x", "shared crowd"), "creator": leaver.id})
        assert len(await corpus.find("crowd")) == CANDIDATES
        async with corpus.database.write.begin() as session:
            await execute(session, delete(Blog).where(col(Blog.creator_id) == leaver.id), {})
            await execute(session, delete(User).where(col(User.id) == leaver.id), {})
        assert await corpus.find("crowd") == []
        assert await corpus.find("shared") == [kept]
        await self._assert_whole(corpus)

    async def _assert_whole(self, corpus: Corpus) -> None:
        async with corpus.database.write.begin() as session:
            if session.get_bind().dialect.name == "sqlite":
                # Fails when the index is not what the rows say.
                check = "INSERT INTO blog_terms (blog_terms, rank) VALUES ('integrity-check', 1)"
                await session.execute(text(check))

    async def test_the_newest_candidates_in_blocks_of_all_sizes(self, app_apart: FastAPI) -> None:
        """As many as there are, each once, wherever the ids are; behind which the engine goes on with its own."""
        corpus = Corpus(app_apart, Factory(app_apart))
        creator = await corpus.factory.user()
        base = 2**28 + int(uuid4().hex[:5], 16)
        ids = sorted(
            {base + step for step in (0, 1, 2, 2**9, 2**10, 2**11, 2**14, 2**16, 2**18, 2**20, 2**22, 2**23, 2**25)}
        )
        async with corpus.database.write.begin() as session:
            session.add_all(blog_row(creator.id, id=number) for number in ids)
            await session.flush()
            rows = [{"blog_id": number, "terms": terms_of("", "everywhere"), "text": ""} for number in ids]
            await session.execute(insert(BlogText), rows)
        assert await corpus.find("everywhere") == ids[::-1]
        async with corpus.database.write.begin() as session:
            await execute(session, delete(Blog).where(col(Blog.id) == ids[-1]), {})
        assert await corpus.find("everywhere") == ids[-2::-1]

    @on("sqlite", "postgresql")
    async def test_plans(self, corpus: Corpus) -> None:
        """Matches come from the newest on, by the index of words, and are not all sorted or all looked at.

        MariaDB's index knows no order.
        """
        await corpus.add("Word")
        async with corpus.database.read() as session:
            dialect = session.get_bind().dialect
            statement = ranked(dialect.name, col(Blog.creator_id) > 0)
            statement = statement.params(match=query_of("word"))
            sql = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).replace("%%", "%")
            if dialect.name == "sqlite":
                plan = [row[3] for row in await session.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
                assert plan.count("USE TEMP B-TREE FOR ORDER BY") == 1, plan
                (scan,) = (line for line in plan if "blog_terms" in line)
                assert re.search(r"SCAN blog_terms VIRTUAL TABLE INDEX \d+:M", scan)
                assert plan.index(scan) < min(plan.index(line) for line in plan if line.startswith("SEARCH"))
            else:
                connection = await (await session.connection()).get_raw_connection()
                driver: Any = connection.driver_connection
                plans = []
                for ways in (("seqscan", "indexscan"), ("seqscan", "bitmapscan")):  # right for the row that is there
                    async with driver.transaction():
                        for way in ways:
                            await driver.execute(f"SET LOCAL enable_{way} = off")
                        plans.append([row[0] for row in await driver.fetch(f"EXPLAIN {sql}")])
                plan, walk = plans
                # Or the ids would be walked down, and of each blog all the words be read.
                assert not [line for line in walk if "Index Scan Backward using pk_blog_text on blog_text blog" in line]
                assert sum("Bitmap Index Scan on ix_blog_text_vector" in line for line in plan) == len(LEVELS) + 1, plan
                assert not [line for line in plan if "BitmapAnd" in line], plan

    async def test_conditions(self, corpus: Corpus) -> None:
        first, second = await corpus.add("Same"), await corpus.add("Same")
        assert await corpus.find("same", col(Blog.id) < second) == [first]
        assert await corpus.find("same", col(Blog.id) < second, col(Blog.id) > first) == []

    async def test_what_is_not_to_be_seen_hides_nothing(self, corpus: Corpus) -> None:
        """However many newer ones that somebody else sees have the words, too."""
        first, second = await corpus.add("Same thing"), await corpus.add("Same thing")
        hider = await corpus.factory.user()
        async with corpus.database.write.begin() as session:
            session.add_all(blog_row(hider.id) for _ in range(LOOKED_THROUGH))
            await session.flush()
            rows = text("INSERT INTO blog_text (blog_id, terms, text) SELECT id, :terms, '' FROM blog"
                        " WHERE creator_id = :creator")  # fmt: skip
            await session.execute(rows, {"terms": terms_of("Same thing", ""), "creator": hider.id})
        for q in ("same", '"same thing"'):
            assert await corpus.find(q, col(Blog.creator_id) != hider.id) == [second, first]

    async def test_a_phrase_behind_many_that_have_its_words(self, corpus: Corpus) -> None:
        found = await corpus.add("Same thing")
        other = await corpus.factory.user()
        async with corpus.database.write.begin() as session:
            session.add_all(blog_row(other.id) for _ in range(CANDIDATES + 1))
            await session.flush()
            rows = text("INSERT INTO blog_text (blog_id, terms, text) SELECT id, :terms, '' FROM blog"
                        " WHERE creator_id = :creator")  # fmt: skip
            await session.execute(rows, {"terms": terms_of("Thing, the same", ""), "creator": other.id})
        assert await corpus.find('"same thing"') == [found]

    async def test_a_phrase_ends_with_a_whole_word(self, corpus: Corpus) -> None:
        found = await corpus.add("New York")
        await corpus.add("New Yorkshire", "is not York")
        assert await corpus.find('"new york"') == [found]

    async def test_marks(self, corpus: Corpus) -> None:
        seven = await corpus.add("Same thing", marks=("author 7", "tag Python"))
        eight = await corpus.add("Same", marks=("author 8", "tag Python"))
        assert await corpus.find("same", marks=("author 7",)) == [seven]
        assert await corpus.find("same", marks=("tag Python",)) == [eight, seven]
        assert await corpus.find("same", marks=("tag Python", "author 9")) == []
        assert await corpus.find("author") == await corpus.find("7") == await corpus.find("python") == []

    async def test_marks_do_not_change_the_order(self, corpus: Corpus) -> None:
        often = await corpus.add("-", "word word word and more of it", marks=("x",))
        once = await corpus.add("-", "word here and more of it it", marks=("x",))
        assert await corpus.find("word", marks=("x",)) == await corpus.find("word") == [often, once]

    async def test_the_longest_body(self, corpus: Corpus) -> None:
        """Is stored, and found: by MariaDB later, which writes so many words to its disk after the answer."""
        body = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(199_995)) + " zuletzt"
        blog_id = await corpus.add("-", body)
        english = await corpus.add("-", " ".join(f"word{number}" for number in range(25_000)))
        if corpus.dialect != "mysql":
            assert await corpus.find(body[100:106]) == [blog_id]
            assert await corpus.find("word24999 word3") == [english]


class TestSQLite:
    @on("sqlite")
    async def test_a_search_is_never_tried_on_the_event_loop(
        self, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blog_id = await corpus.add("Here")
        threads: list[Any] = []
        run = OneTripCursor._run

        def note(cursor: OneTripCursor, execute: Any, sql: str, parameters: Any) -> None:
            if "MATCH" in sql:
                threads.append(threading.current_thread() is cursor._connection._thread)
            run(cursor, execute, sql, parameters)

        monkeypatch.setattr(OneTripCursor, "_run", note)
        assert await corpus.find("here") == [blog_id]
        assert threads == [True]

    def test_the_index_walks_without_counted_steps(self) -> None:
        """Why: two words that are common and never together cost next to no steps of SQLite's machine."""
        database = sqlite3.connect(":memory:")
        database.execute("CREATE VIRTUAL TABLE words USING fts5(terms)")
        rows = ((("even" if number % 2 else "odd"),) for number in range(20_000))
        database.executemany("INSERT INTO words VALUES (?)", rows)
        steps: list[int] = []
        database.set_progress_handler(lambda: steps.append(1), 100)
        assert database.execute("SELECT rowid FROM words WHERE words MATCH 'even odd'").fetchall() == []
        assert len(steps) <= 2
        database.close()


class TestHighlight:
    @pytest.mark.parametrize(
        ("title", "q", "shown"),
        [
            ("All about Cafés", "about cafes", "All <mark>about</mark> <mark>Cafés</mark>"),
            ("Cafe\u0301s at sea", "cafés", "<mark>Cafe\u0301s</mark> at sea"),
            ("x Cafe\u0301, ß", "cafe", "x <mark>Cafe\u0301</mark>, ß"),
            ("Straßen", "STRASSEN", "<mark>Straßen</mark>"),
            ("Eine Straße", "strasse", "Eine <mark>Straße</mark>"),
            ("東京都庁", "京都", "東<mark>京都</mark>庁"),
            ("서울에서", "서울", "<mark>서울</mark>에서"),
            ("ภาษาไทย", "ไทย", "ภาษา<mark>ไทย</mark>"),
            ("שָׁלוֹם עולם", "שלום", "<mark>שָׁלוֹם</mark> עולם"),
            ("नमस्ते", "नमस", "नमस्ते"),
            ("category cat", "cat", "category <mark>cat</mark>"),
            ("C++ or C", "c", "C++ or <mark>C</mark>"),
            ("C++ or C", "c++", "<mark>C++</mark> or C"),
            ('<b>"x" & y</b>', "x", "&lt;b&gt;&quot;<mark>x</mark>&quot; &amp; y&lt;/b&gt;"),
            ("<script>", "script", "&lt;<mark>script</mark>&gt;"),
            ("mark & amp", "amp mark lt", "<mark>mark</mark> &amp; <mark>amp</mark>"),
            ("New York, York", '"new york"', "<mark>New York</mark>, York"),
            ("New York", '""', "New York"),
            ("🎉 party", "🎉", "<mark>🎉</mark> party"),
            ("", "x", ""),
        ],
    )
    def test_marks_what_was_found(self, title: str, q: str, shown: str) -> None:
        assert highlight(title, q) == shown

    @pytest.mark.parametrize("q", HOSTILE)
    def test_nothing_typed_breaks_it(self, q: str) -> None:
        title = "a <i> \u0301 AND ' \" & b c++ 語語 é\0\ud800"
        shown = highlight(title, q)
        assert unescape(shown.replace("<mark>", "").replace("</mark>", "")) == title
        assert shown.count("<") == shown.count("<mark>") * 2


class TestSnippet:
    @pytest.mark.parametrize("word", ["x" * 241, "語" * 500, "a\u0301" * 250, "a" + "\u0301" * 400])
    @pytest.mark.parametrize("before", ["", "before " * 100])
    def test_word_that_is_longer(self, word: str, before: str) -> None:
        shown = snippet(f"{before}{word} after", word)
        assert 100 < len(shown.partition("<mark>")[2].partition("</mark>")[0]) <= SNIPPET

    def test_is_where_most_of_it_is(self) -> None:
        filler = "nothing of interest is said here at all. " * 20
        shown = snippet(
            f"whales once. {filler} Whales eat krill, and krill eat what whales leave. {filler}", "krill whales"
        )
        assert "<mark>Whales</mark> eat <mark>krill</mark>, and <mark>krill</mark> eat" in shown
        assert shown.startswith("… ")
        assert shown.endswith(" …")
        assert len(shown.replace("<mark>", "").replace("</mark>", "")) <= SNIPPET + 4

    def test_begins_and_ends_between_words(self) -> None:
        words = " ".join(f"word{number}" for number in range(500))
        inner = snippet(words, "word250").strip("… ").replace("<mark>", "").replace("</mark>", "")
        assert f" {inner} " in words
        assert SNIPPET / 2 < len(inner) <= SNIPPET

    def test_of_a_text_without_spaces(self) -> None:
        shown = snippet("語" * 600 + "東京" + "語" * 600, "東京")
        assert "語<mark>東京</mark>語" in shown
        assert SNIPPET / 2 < len(shown) < SNIPPET + 20

    def test_begins_where_the_text_does_when_only_the_title_has_it(self) -> None:
        shown = snippet("The beginning. " * 50, "elsewhere")
        assert shown.startswith("The beginning.")
        assert shown.endswith(" …")
        assert snippet("Short & whole", "elsewhere") == "Short &amp; whole"
        assert snippet("", "x") == ""

    def test_escapes_all_of_it(self) -> None:
        text = "<img src=x onerror=alert(1)> & <mark>no</mark> whale </p>" * 20
        shown = snippet(text, "whale onerror mark").replace("<mark>", "").replace("</mark>", "")
        assert "<" not in shown
        assert ">" not in shown

    def test_looks_at_the_beginning_of_a_very_long_text(self) -> None:
        assert "mark" not in snippet("x " * SNIPPED + "whale", "whale")
        assert snippet("whale " * SNIPPED, "whale").count("<mark>") > 20

    @pytest.mark.parametrize("before", [PIECE - 3, PIECE, 2 * PIECE - 1, SNIPPED - 5])
    def test_cuts_no_word_in_two(self, before: int) -> None:
        for filler in ("x", "ß"):
            shown = snippet(f"{filler} " * (before // 2) + "whale " + "y " * 400, "whale")
            assert f"{filler} <mark>whale</mark>" in shown
