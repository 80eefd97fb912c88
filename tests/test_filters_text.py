"""C4's text rules: every reason, every edge, and parity with the code that built C4."""

import gzip
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.text import BadWords, CleanPage, TextRules, clean_lines, keep_lines, line_keys, url_key

GOOD = "The old bridge crosses the river. It was built of stone. Boats pass under it."
FIXTURE = Path(__file__).parent / "data" / "c4_parity.json.gz"


def cleaned(*lines: str) -> CleanPage:
    page = clean_lines(lines)
    assert isinstance(page, CleanPage), page
    return page


@pytest.fixture(scope="module")
def parity() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    return loaded


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Too long " + "x" * 1001 + " a word to stay.", "too_long_word"),
        (
            "This one is a thousand and one " + "x" * 998 + "[1].",
            "too_long_word",
        ),  # measured with the citation
        ("A line without an end mark", "no_end_mark"),
        ("A line that is cut off here...", "no_end_mark"),
        ("A line that is cut off here....", "no_end_mark"),
        ("A line with a unicode ellipsis…", "no_end_mark"),
        ("A line that ends in a curly quote.”", "no_end_mark"),
        ("A line with its citation after a blank. [12]", "no_end_mark"),
        ("Only four words here.", "too_few_words"),
        ("You have to enable JavaScript to see this.", "javascript"),
        ("By staying you accept our Privacy Policy today.", "policy"),
        ("This site uses cookies for many good things.", "policy"),
    ],
)
def test_drops_line(line: str, reason: str) -> None:
    page = cleaned(GOOD, line)
    assert page.lines == (GOOD,)
    assert page.dropped == {reason: 1}


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("A word of a thousand letters " + "x" * 1000 + " stays here.", None),
        ('He called it "the bridge of all bridges"', None),
        ("Is this line really long enough?", None),
        ("Exactly five words are enough.", None),
        (
            "Citations go away.[1] They really do.[edit][citation needed]",
            "Citations go away. They really do.",
        ),
        ("A list [a] or [ 1 ] is no citation here.", None),
        ("  white space at both ends goes away. \t", "white space at both ends goes away."),
    ],
)
def test_keeps_line(line: str, kept: str | None) -> None:
    assert cleaned(GOOD, line).lines == (GOOD, kept or line)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((GOOD, "And then lorem Ipsum dolor sit amet."), "lorem_ipsum"),
        ((GOOD, "Lorem ipsum comes before javascript in C4's order."), "lorem_ipsum"),
        ((GOOD, "A brace { is taken for code here."), "curly_bracket"),
        (("One sentence only stands here.", "Another one is down here."), "too_few_sentences"),
        ((), "too_few_sentences"),
        ((GOOD, "x" * 190_000), "too_long"),
    ],
)
def test_rejects_page(lines: tuple[str, ...], reason: str) -> None:
    assert clean_lines(lines) == reason


@pytest.mark.parametrize(
    "line",
    [
        "lorem ipsum without an end mark",
        "lorem ipsum short.",
        "A brace { without an end mark",
        "A brace { beside javascript only drops its line.",
    ],
)
def test_page_rules_see_only_lines_that_get_so_far(line: str) -> None:
    assert cleaned(GOOD, line).lines == (GOOD,)


def test_length_is_that_of_the_stripped_text() -> None:
    rules = TextRules(max_page_chars=len(GOOD) + 1 + 5)
    assert isinstance(clean_lines([GOOD, "", "  ", " right "], rules=rules), CleanPage)
    assert clean_lines([GOOD, "wrong!"], rules=rules) == "too_long"


def test_keeps_the_places_of_lines() -> None:
    page = cleaned(
        "Menu", GOOD, "", "Home", "One more line to keep here.", "A last one\u2028in two whole lines of text."
    )
    assert page.indices == (1, 4, 5)
    assert page.lines[2] == "in two whole lines of text."
    assert page.dropped == {"no_end_mark": 3}


def test_blank_left_by_a_citation_goes_from_the_first_line_only() -> None:
    page = cleaned("[1] " + GOOD, "[2] Here the blank stays in front.")
    assert page.lines == (GOOD, " Here the blank stays in front.")


def test_counts_sentences_with_the_given_function() -> None:
    assert clean_lines([GOOD], sentences=lambda line: 2) == "too_few_sentences"
    assert isinstance(clean_lines(["A line of five words."], sentences=lambda line: 3), CleanPage)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_page_chars": -1}, "max_page_chars.*-1"),
        ({"min_sentences": -2}, "min_sentences.*-2"),
        ({"end_marks": (".", "")}, "empty"),
        ({"policy_phrases": ("",)}, "empty"),
    ],
)
def test_bad_rules_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextRules(**rules)


def test_keep_lines_drops_other_pages_lines_and_repeats() -> None:
    page = cleaned("Elsewhere this line is kept.", GOOD, "menu", " " + GOOD.upper(), "One more line to keep here.")
    left = keep_lines(page, np.array([True, False, False, False]))
    assert isinstance(left, CleanPage)
    assert left.lines == (GOOD, "One more line to keep here.")
    assert left.indices == (1, 4)
    assert left.dropped == {"no_end_mark": 1, "duplicate_elsewhere": 1, "duplicate_on_page": 1}
    assert page.dropped == {"no_end_mark": 1}


def test_a_line_that_another_page_keeps_goes_with_its_repeats() -> None:
    page = cleaned("Elsewhere this line is kept.", GOOD, "elsewhere this line is kept.", "One more line to keep here.")
    left = keep_lines(page, [True, False, False, False])
    assert isinstance(left, CleanPage)
    assert left.lines == (GOOD, "One more line to keep here.")
    assert left.dropped == {"duplicate_elsewhere": 1, "duplicate_on_page": 1}


@pytest.mark.parametrize("drop", [[True, True], [True, False]])
def test_keep_lines_rejects_what_is_too_short_now(drop: list[bool]) -> None:
    page = cleaned(GOOD, "One more line to keep here.")
    assert keep_lines(page, drop) == "too_few_unique_sentences"


def test_keep_lines_wants_one_flag_a_line() -> None:
    with pytest.raises(ValueError, match="2 flags for 1 lines"):
        keep_lines(cleaned(GOOD), [False, True])


def test_line_keys_are_md5_heads() -> None:
    keys = line_keys(["Some Line.", "  some line. ", "another", "\ud800"])
    assert keys.dtype == np.uint64
    assert keys[0] == keys[1] != keys[2]
    assert int(keys[0]) == int(hashlib.md5(b"some line.").hexdigest()[:16], 16)
    assert line_keys([]).shape == (0,)


def test_url_keys_rank_like_the_hexadecimal_md5() -> None:
    urls = [f"http://example.com/{n}" for n in range(50)]
    assert sorted(urls, key=url_key) == sorted(urls, key=lambda url: hashlib.md5(url.encode()).hexdigest())


@pytest.mark.parametrize(
    "text", ["heck", "What the HECK?", "heck\n", "so,heck-no", "the Two words", "a $$$ deal", "c++!"]
)
def test_bad_words_are_found(text: str) -> None:
    assert BadWords.from_text("heck\ntwo words\n\n$$$\nc++\n").reject(text) == "bad_words"


@pytest.mark.parametrize(
    "text", ["", "check", "heckle", "heck_", "éheck", "two  words", "two wordsmiths", "a$$$b", "xc++"]
)
def test_bad_words_are_whole_words(text: str) -> None:
    assert BadWords.from_text("heck\ntwo words\n\n$$$\nc++\n").reject(text) is None


@given(
    st.lists(st.text("ab1_ $-é🖕", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=6),
    st.text("abAB1_ $-éÉ🖕\n", max_size=30),
)
def test_bad_words_are_the_regular_expression(words: list[str], text: str) -> None:
    listed = [word.strip() for word in words]
    pattern = r"(?:\W|^)({})(?:\W|$)".format("|".join(re.escape(word) for word in listed))
    expected = "bad_words" if re.search(pattern, text.lower()) else None
    assert BadWords(listed).reject(text) == expected


def test_empty_bad_word_list_rejects_nothing() -> None:
    assert len(BadWords.from_text("\n \n")) == 0
    assert BadWords.from_text("\n \n").reject("any text at all") is None


def count_marks(text: str) -> int:
    """The fixture's stand-in for a sentence counter, so that it does not depend on the splitter."""
    return len(re.findall(r"[.?!]+", text))


def test_fixture_reaches_every_rule(parity: dict[str, Any]) -> None:
    reasons: Counter[str] = Counter()
    for page in parity["pages"]:
        result = clean_lines(page["text"].splitlines(), sentences=count_marks)
        reasons.update([result] if isinstance(result, str) else dict(result.dropped))
    lines = {"too_long_word", "no_end_mark", "too_few_words", "javascript", "policy"}
    assert set(reasons) == lines | {"lorem_ipsum", "curly_bracket", "too_few_sentences"}
    assert all(any(page[key] for page in parity["pages"]) for key in ("clean", "dedup", "bad_words"))


def test_cleans_as_the_reference_does(parity: dict[str, Any]) -> None:
    for page in parity["pages"]:
        result = clean_lines(page["text"].splitlines(), sentences=count_marks)
        assert (None if isinstance(result, str) else "\n".join(result.lines)) == page["clean"]


def test_page_length_limit_is_the_references(parity: dict[str, Any]) -> None:
    line = "This line is long enough to stay on the page.\n"
    for case in parity["lengths"]:
        text = (line * (case["chars"] // len(line) + 1))[: case["chars"] - 1] + "."
        assert isinstance(clean_lines(text.splitlines()), CleanPage) == case["kept"]


def test_drops_repeats_as_the_reference_does(parity: dict[str, Any]) -> None:
    for case in parity["pages"]:
        if case["clean"] is None:
            continue
        page = clean_lines(case["text"].splitlines(), sentences=count_marks)
        assert isinstance(page, CleanPage)
        # The fixture pretends that another page keeps every third line, chosen by its hash.
        heads = [hashlib.md5(line.strip().lower().encode()).digest() for line in page.lines]
        left = keep_lines(page, [head[15] % 3 == 0 for head in heads], sentences=count_marks)
        assert (None if isinstance(left, str) else "\n".join(left.lines)) == case["dedup"]


def test_rejects_bad_words_as_the_reference_does(parity: dict[str, Any]) -> None:
    words = BadWords(parity["bad_words"])
    for page in parity["pages"]:
        if page["clean"] is not None:
            assert (words.reject(page["clean"]) is not None) == page["bad_words"]


@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_lines_are_accounted_for(lines: list[str]) -> None:
    page = clean_lines(lines, rules=TextRules(min_sentences=0))
    if isinstance(page, str):
        assert page in ("lorem_ipsum", "curly_bracket")
        return
    assert len(page.lines) + sum(page.dropped.values()) == sum(len(line.splitlines()) for line in lines)
    assert list(page.indices) == sorted(page.indices)
    assert all(
        kept in lines[index] or "[" in lines[index] for kept, index in zip(page.lines, page.indices, strict=True)
    )
