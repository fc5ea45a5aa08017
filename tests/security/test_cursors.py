from blog.security.cursors import Cursors

SECRET = "0123456789abcdef0123456789abcdef"
QUERY = "/blog/?sort=title"


def test_round_trip() -> None:
    cursors = Cursors([SECRET])
    for position in ((7,), ("ﷺ, ünïcode", 7), (1_795_304_011, 2**31 - 1)):
        assert cursors.read(QUERY, cursors.write(QUERY, position)) == position


def test_another_query_another_secret_and_forgeries() -> None:
    cursors = Cursors([SECRET])
    cursor = cursors.write(QUERY, ("a", 7))
    assert cursors.read("/blog/?sort=published_at", cursor) is None
    assert Cursors([SECRET[::-1]]).read(QUERY, cursor) is None
    for forged in ("", ".", "x", cursor[:-1], cursor + "x", "x" + cursor, "é", "\0", cursor.replace(".", "")):
        assert cursors.read(QUERY, forged) is None


def test_a_key_that_was_replaced() -> None:
    old, new = "old" * 11, "new" * 11
    cursor = Cursors([old]).write(QUERY, ("a", 7))
    both = Cursors([new, old])
    assert both.read(QUERY, cursor) == ("a", 7)
    assert Cursors([new]).read(QUERY, cursor) is None
    assert Cursors([new]).read(QUERY, both.write(QUERY, ("a", 7))) == ("a", 7)
