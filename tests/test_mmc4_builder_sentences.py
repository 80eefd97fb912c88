"""Sentences as Punkt finds them: by rule, against NLTK with the same tables, against released documents."""

import json
import string
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.sentences import (
    ABBREVIATIONS,
    BEFORE_FIGURES,
    STARTERS,
    count_sentences,
    positions_in_sentences,
    sentence_spans,
    split_sentences,
)

RELEASED = Path(__file__).parents[2] / "shared" / "data" / "mmc4_docs.jsonl"
SEEN_IN_LOWER_CASE = 1 << 5  # NLTK's flag for a word seen without a capital inside a sentence


@pytest.mark.parametrize(
    "marked",  # sentences, with | where one ends
    [
        "",
        "One sentence without a mark",
        "First one.|Second one?|Third one!|Fourth",
        "no capital is needed.|am down sizing and selling.",
        "A line break\nis only a blank.|So is\u00a0this.\n|Here one ends.",
        "Mr. Smith met Dr. Jones and Lt. Gen. Brown.|They spoke.",
        "It grew in the U.S. economy.|He lives in the U.S.|The rest do not.",
        "Work by J. K. Rowling and G. W. Murray.|It sold.",
        "Call J.-C. Klein and A.-M. Smith now.",
        "Does point 5. belong here?|It is 5.|Then 2.0.|Once more.",
        "Steps:|1.|That is one.|2.|That is two.".replace("Steps:|", "Steps: "),
        "See No. 5 and Fig. 3 for it.|He said no.|Five left.",
        "Tools, paint, etc.|that ensure results.|By Smith et al.|The end.",
        "It went on ... until they left.|He was old.... He said so.".replace("old.... He", "old....|He"),
        "We make kits.... Wood is best.",
        'He said "Go."|Then he left.|(It was late.)|She stayed.|',
        "He said “Go.”|Then he left.|‘Why?’|Nobody knew.",
        "It has a largest (!)|song list in the world.",
        "They are the cutest!|), but they are gone.",
        "Wow!!!|I promise.|Really?!|Yes.",
        "So do I.|The rest wait.|I. Newton came.",
        "Meet at 5 p.m. on Monday.|Doors open at 4 p.m.|We start then.",
        "Visit www.example.com or mail a.b@example.com today.",
        "A herring ….|and even more …..|",
        "Odds of 1.5 or 2,000.5 are fine.|10 matches ended.",
        ". . .",
    ],
)
def test_splits(marked: str) -> None:
    expected = [part.strip() for part in marked.split("|") if part.strip()]
    if marked == ". . .":
        expected = [".", ".", "."]
    assert split_sentences(marked.replace("|", " ")) == expected


def test_last_of_several_marks_stands_alone_at_the_end_as_in_nltk() -> None:
    assert split_sentences("Wow!!! Here it ends!!!") == ["Wow!!!", "Here it ends!!", "!"]


def test_counts() -> None:
    assert [count_sentences(text) for text in ("", " \n", "One.", "One. Two.", " One. Two. Three ")] == [
        0,
        0,
        1,
        2,
        3,
    ]


@given(st.text(st.sampled_from("aB .?!\"')(-1\n\u00a0”…")) | st.text())
def test_spans_cover_all_but_white_space(text: str) -> None:
    spans = sentence_spans(text)
    inside = "".join(text[start:stop] for start, stop in spans)
    assert "".join(inside.split()) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))
    assert split_sentences(text) == [part for start, stop in spans if (part := text[start:stop].strip())]


@pytest.mark.parametrize("piece", ["!", ".", '."', ". ", "a.b", ".)(", "\n.", "Dr. ", "‘.’"])
def test_hostile_repeats_take_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    assert sum(stop - start for start, stop in sentence_spans(text)) <= len(text)


# No token that holds a sentence end before its last character: NLTK lets such a token, as in `Mr. "Why?"`,
# end the sentence before it.
TOKENS = (
    "The river we It house Boston Mr. Dr. U.S. Inc. J. J.-C. e.g. p.m. 5 5. 3.5 2,000. No. Fig. ... .... Oh! "
    "Why? (it's) (fine). end. I. so: and; him, A4. M.U.S.C.L.E. -- etc. x-Inc. .5 30%. $5."
)
WORDS = st.sampled_from(TOKENS.split())


@pytest.fixture(scope="module")
def punkt() -> object:
    """NLTK's own algorithm with our tables."""
    module = pytest.importorskip("nltk.tokenize.punkt")
    letters = string.ascii_lowercase
    tables = module.PunktParameters()
    tables.abbrev_types = {
        *ABBREVIATIONS,
        *(set(letters) - {"i"}),
        *(f"{a}.{b}" for a, b in product(letters, letters)),
    }
    tables.sent_starters = set(STARTERS)
    tables.ortho_context.update(dict.fromkeys(STARTERS, SEEN_IN_LOWER_CASE))
    tables.collocations = {(word, "##number##") for word in BEFORE_FIGURES}
    return module.PunktSentenceTokenizer(tables)


@given(words=st.lists(WORDS, max_size=14), blank=st.sampled_from([" ", "  ", "\n"]))
def test_agrees_with_nltk(punkt: object, words: list[str], blank: str) -> None:
    text = blank.join(words)
    assert split_sentences(text) == punkt.tokenize(text)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def released() -> list[list[str]]:
    if not RELEASED.exists():
        pytest.skip("released MMC4 documents are not here")
    return [json.loads(line)["doc"]["text_list"] for line in RELEASED.read_text().splitlines()]


def test_finds_the_released_boundaries(released: list[list[str]]) -> None:
    true = {(n, end) for n, sentences in enumerate(released) for end in _ends(sentences)}
    found = {(n, end) for n, sentences in enumerate(released) for end in _ends(split_sentences(" ".join(sentences)))}
    assert len(true & found) >= 0.99 * len(true)
    assert len(true & found) >= 0.99 * len(found)


def test_agrees_with_nltk_on_released_text(punkt: object, released: list[list[str]]) -> None:
    for sentences in released:
        text = "\n".join(sentences)
        assert split_sentences(text) == punkt.tokenize(text)  # type: ignore[attr-defined]


def _ends(sentences: list[str]) -> set[int]:
    """Where sentences end, in characters other than white space; the end of the text is no finding."""
    ends, length = set(), 0
    for sentence in sentences:
        length += len("".join(sentence.split()))
        ends.add(length)
    return ends - {length}


@pytest.mark.parametrize(
    ("position", "sentence"),
    [(0, 0), (1, 0), (2, 2), (3, 2), (4, 3), (5, 4), (9, 4), (-1, 0)],
)
def test_positions(position: int, sentence: int) -> None:
    # Page: 0 menu, 1 kept, 2 menu, 3 kept, 4 kept; pictures stand before the line of their position.
    lines = ("The first. The second.", "A third one", "goes on here. The fourth.")
    spans = sentence_spans("\n".join(lines))
    assert len(spans) == 4
    assert positions_in_sentences(lines, (1, 3, 4), [position], spans) == [sentence]


def test_positions_of_an_empty_text() -> None:
    assert positions_in_sentences((), (), [0, 3], []) == [0, 0]


@given(st.lists(st.sampled_from(["One two.", "Three", "four. Five?", " Six!"]), max_size=6), st.data())
def test_positions_are_ordered_and_in_range(lines: list[str], data: st.DataObject) -> None:
    indices = sorted(data.draw(st.sets(st.integers(0, 20), min_size=len(lines), max_size=len(lines))))
    positions = sorted(data.draw(st.lists(st.integers(0, 25))))
    spans = sentence_spans("\n".join(lines))
    found = positions_in_sentences(lines, indices, positions, spans)
    assert found == sorted(found)
    assert all(0 <= sentence <= len(spans) for sentence in found)
