"""English sentences the way NLTK's Punkt finds them, from fixed tables: no model file, no training.

MMC4 made its `text_list` with NLTK's sentence tokenizer on the whole text of a C4 document (MMC4 §3), so the
decision rules here are Punkt's (Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary Detection",
2006, section 4). A `?` or `!` ends a sentence. A `.` does too, unless the word before it is an abbreviation,
an initial, a number or an ellipsis; then the word after it decides. Closing quotes and brackets stay with the
sentence that they close. A line break is white space like any other.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Abbreviations of English prose. Left out on purpose, because Punkt's English model ends a sentence after
# them, and the released text_list shows it: "etc.", "al.", "Capt.". Left out because they are words too:
# "sat", "ill".
ABBREVIATIONS = _words("""
    mr mrs ms messrs dr drs prof rev gen col lt sgt maj adm cmdr brig gov sen sens rep reps supt atty st ste
    jr sr inc corp co cos ltd bros assn mfg dept univ vs viz cf ca approx ft mt rd ave blvd pp vol fig figs eq
    ref jan feb apr aug sep sept oct nov dec mon tue tues wed thu thurs fri ala ariz ark calif colo conn del
    fla ga ind kan ky md mich minn neb nev okla pa penn tenn tex va vt wis wyo ph.d b.sc m.sc u.s.a u.s.s.r
""")
# Abbreviations only in front of a figure: "No. 5", "Art. 12", but "He said no. Five left."
BEFORE_FIGURES = _words("no nos art sec ch chap para ed mar jun jul par op")
# Ordinary words that often open a sentence: with a capital, after an abbreviation or an ellipsis, they do.
STARTERS = _words("""
    a about according after all also although among an and another any are as at because before besides both
    but by can did do does during each earlier either even every everyone everything few finally first for
    from further furthermore had has have he hence her here his however i if in indeed instead is it its just
    last later let like many maybe meanwhile moreover most much my neither nevertheless next nobody none nor
    nothing now of on once one only or other others our over people perhaps please prices sales second
    separately several she should similarly since so some sometimes soon still such that the their them then
    there therefore these they this those though through thus to today together tomorrow too traders two under
    unfortunately unless until was we well were what whatever when whenever where whereas whether which while
    who whose why yes yesterday yet you your
""")

# A possible end: a mark with white space or closing punctuation after it.
_MARK = re.compile(r"""[.?!](?:\s+(?=\S)|(?=[)";}\]*:@'({\[?!‘’“”«»]))""")
_CLOSERS = re.compile(r"""["')\]}‘’“”«»]+(?:\s+|(?=--)|$)""", re.MULTILINE)
_SPACE = re.compile(r"\s")
_SEPARATORS = re.compile(r"""[)";}\]*:@({\[?!“”«»&#`]|--+""")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*$")
_FIGURE = re.compile(r"""[.,]?\d[\d,.-]*(?=[\s)";}\]*:@'({\[?!‘’“”«»]|$)""")
_INITIALS = re.compile(r"[^\W\d](?:\.[^\W\d])?$")  # the end of "J.-C.", "a.m.", "U.S."
_WORD = re.compile(r"\w+(?:-\w+)*")
# The word before a mark is looked for this far back, in characters; no abbreviation is longer.
_LOOK_BACK = 24


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped, none empty; a line break inside one stays as it is."""
    return [text[start:stop] for start, stop in sentence_spans(text)]


def count_sentences(text: str) -> int:
    """How many sentences `split_sentences` finds."""
    return len(sentence_spans(text))


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Half-open character ranges of the sentences, in order; only white space lies between them."""
    end = len(text.rstrip())
    start = len(text) - len(text.lstrip())
    spans: list[tuple[int, int]] = []
    for mark, after in _candidates(text, end):
        if text[mark] == "." and not _ends_sentence(text, mark, after):
            continue
        stop = mark + 1
        if closers := _CLOSERS.match(text, after, end):
            stop, after = after + len(closers.group().rstrip()), closers.end()
        spans.append((start, stop))
        start = after
    if start < end:
        spans.append((start, end))
    return spans


def positions_in_sentences(
    lines: Sequence[str], indices: Sequence[int], positions: Sequence[int], spans: Sequence[tuple[int, int]]
) -> list[int]:
    """For each picture, how many sentences start before it: the index of the first sentence after it.

    `lines` are the kept lines, whose text is `"\\n".join(lines)`, and `indices` their places on the page,
    ascending. A position is the number of lines of the page, kept or not, before the picture. `spans` are the
    text's sentences.
    """
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    sentence_starts = [start for start, _ in spans]
    return [bisect_left(sentence_starts, starts[bisect_left(indices, position)]) for position in positions]


def _candidates(text: str, end: int) -> Iterator[tuple[int, int]]:
    """(place of the mark, start of what follows) for each mark that may end a sentence.

    In an unbroken run such as `Wow!!!` or `(why not!)?` only the last mark counts.
    """
    waiting = -1
    for found in _MARK.finditer(text, 0, end):
        mark, after = found.span()
        if waiting >= 0 and _SPACE.search(text, waiting, mark):
            yield waiting, waiting + 1
        waiting = -1
        if after > mark + 1:
            yield mark, after
        else:
            waiting = mark
    if waiting >= 0:
        yield waiting, waiting + 1


def _ends_sentence(text: str, mark: int, after: int) -> bool:
    """Whether the full stop at `mark` ends a sentence, with the next token at `after`."""
    words = text[max(0, mark - _LOOK_BACK) : mark].split()
    if not words or text[mark - 1].isspace():
        return True
    word = words[-1].lower()
    if not word.isalpha():
        word = _SEPARATORS.split(word)[-1].lstrip("-,")
    elif len(word) > 1 and word not in ABBREVIATIONS and word not in BEFORE_FIGURES:
        return True
    return _ends_after(word, text, after, spaced=after > mark + 1)


def _ends_after(word: str, text: str, after: int, *, spaced: bool) -> bool:
    """Punkt's second pass: what the token at `after` says of a full stop after the lower-case `word`."""
    first = text[after]
    if word.endswith("."):
        return spaced and _is_starter(text, after)
    if word == "i" or _NUMBER.match(word):
        return not (first.islower() or first in ",;:?!") and (word != "i" or _may_follow_i(text, after))
    if len(word) == 1 and word.isalpha():
        return False
    if word in BEFORE_FIGURES:
        return _FIGURE.match(text, after) is None
    tail = word.rpartition("-")[2]
    if tail in ABBREVIATIONS or _INITIALS.match(tail):
        return spaced and _is_starter(text, after)
    return True


def _is_starter(text: str, after: int) -> bool:
    found = _WORD.match(text, after)
    return found is not None and text[after].isupper() and found.group().lower() in STARTERS


def _may_follow_i(text: str, after: int) -> bool:
    """`So do I. The rest…` ends a sentence, `I. Newton` does not."""
    return not text[after].isupper() or _is_starter(text, after)
