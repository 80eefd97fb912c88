"""WET's text rules on marked text: white space, character references, <pre>, positions."""

import pytest

from mmc4_builder.wet_lines import BREAK, IMAGE, MARKS, PRE_CLOSE, PRE_OPEN, split_lines, squash, unescape

# As Common Crawl documents its extractor; kept apart from the module's own table on purpose.
BREAKING = (
    "address article aside blockquote body br button canvas caption center col colgroup dd div dl dt embed "
    "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr li map noframes noscript "
    "object ol output p pre progress section table tbody textarea tfoot th thead title tr ul video"
)
SPACING = "cite details datalist iframe img input label legend optgroup q select summary td time"
TRANSPARENT = "a b i span nav main option dialog em strong code head html link meta"


@pytest.mark.parametrize("side", ["", "/"])
def test_marks(side: str) -> None:
    assert all(BREAK in MARKS[side + name] for name in BREAKING.split())
    assert all(MARKS[side + name] in (" ", IMAGE) for name in SPACING.split())
    assert all(side + name not in MARKS for name in TRANSPARENT.split())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        (" \n\t ", []),
        (f"{BREAK}{BREAK}a{BREAK} {BREAK}b", ["a", "b"]),
        (f"  a \r\n\t b  {BREAK}", ["a b"]),
        ("a&nbsp;&#160;\xa0b\x01\x0b\x1f\x7f\x85\u2028\u2029c", ["a b c"]),
        (
            "&lt;b&gt; &amp;amp; &eacute; &copy 2019 &#8217; &notit; &nosuch;",
            ["<b> &amp; é © 2019 ’ ¬it; &nosuch;"],
        ),
        ("a\u3000\u3000b", ["a\u3000\u3000b"]),  # WET keeps other white space
        (f"a&#0;&#1;&#10;b&#{'9' * 5000};c&#x{'f' * 5000};", ["a\ufffd b\ufffdc\ufffd"]),
        (f"a{BREAK}{PRE_OPEN}\n  x  =\t1\n\n    y\n{PRE_CLOSE}{BREAK}b  c", ["a", "x  =\t1", "y", "b c"]),
        (f"{PRE_OPEN}a  b", ["a  b"]),  # never closed
        (f"a  b{PRE_CLOSE}", ["a b"]),  # never opened
        (
            f"{PRE_OPEN}a{BREAK}b  c{PRE_OPEN}d  e{PRE_CLOSE}{BREAK}f  g{PRE_CLOSE}{BREAK}h  i",
            ["a", "b  cd  e", "f  g", "h i"],
        ),
    ],
)
def test_lines(text: str, lines: list[str]) -> None:
    assert split_lines(text, 1000) == (lines, [], False)


@pytest.mark.parametrize(
    ("text", "lines", "positions"),
    [
        (IMAGE, [], [0]),
        (f"{IMAGE}a{BREAK}{IMAGE}{BREAK}b{IMAGE}c{BREAK}{IMAGE}{IMAGE}", ["a", "b c"], [0, 1, 1, 2, 2]),
        (f"a{IMAGE}b", ["a b"], [0]),
        (f"{PRE_OPEN}x  {IMAGE}  \n {IMAGE}\n  {IMAGE}y{PRE_CLOSE}", ["x", "y"], [0, 1, 1]),
    ],
)
def test_positions(text: str, lines: list[str], positions: list[int]) -> None:
    assert split_lines(text, 1000) == (lines, positions, False)


def test_long_lines_are_cut_and_reported() -> None:
    assert split_lines(f"{'word ' * 10}{BREAK}b", 5) == (["word", "b"], [], True)


def test_unescape_leaves_plain_text_alone() -> None:
    text = "no reference here"
    assert unescape(text) is text


def test_squash_is_one_line() -> None:
    assert squash(f"{BREAK} a{IMAGE}b{BREAK}\n c &amp; d ") == "a b c & d"
