"""C4's rules for the text of a page: which lines stay, and which pages go.

The order and the thresholds are those of the code that built C4 (TFDS `c4_utils.clean_page`), which MMC4
starts from (MMC4 §3). Several rules depend on that order: citations go before the end-mark test, so a line
that ends in "[1]" after a blank loses its end mark; the long-word test comes before that; "lorem ipsum"
rejects the page before "javascript" drops the line, and "{" only after it.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmc4_builder.sentences import count_sentences

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """Thresholds and phrases; the defaults are C4's."""

    max_page_chars: int = 190_000
    max_word_chars: int = 1000
    min_line_words: int = 5
    min_sentences: int = 3
    end_marks: tuple[str, ...] = (".", "?", "!", '"')
    policy_phrases: tuple[str, ...] = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )

    def __post_init__(self) -> None:
        for name in ("max_page_chars", "max_word_chars", "min_line_words", "min_sentences"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if "" in self.end_marks or "" in self.policy_phrases:
            raise ValueError("an empty end mark or policy phrase would match every line; remove it")


C4 = TextRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanPage:
    """The lines that stay. The text of the document is `"\\n".join(lines)`."""

    lines: tuple[str, ...]
    indices: tuple[int, ...]  # the place of each line on the page, ascending
    dropped: Mapping[str, int]  # reason -> how many lines


def clean_lines(
    lines: Sequence[str], *, rules: TextRules = C4, sentences: Callable[[str], int] = count_sentences
) -> CleanPage | str:
    """Apply C4's rules to the lines of one page; a `str` is the reason to reject the page.

    Reasons for a page: too_long, lorem_ipsum, curly_bracket, too_few_sentences. For a line: too_long_word,
    no_end_mark, too_few_words, javascript, policy.
    """
    if _text_length(lines) > rules.max_page_chars:
        return "too_long"
    kept: list[tuple[int, str]] = []
    dropped: Counter[str] = Counter()
    for index, raw in _physical_lines(lines):
        line, reason = _clean_line(raw, rules)
        if reason in ("lorem_ipsum", "curly_bracket"):
            return reason
        if reason:
            dropped[reason] += 1
        else:
            kept.append((index, line))
    if not _has_sentences((line for _, line in kept), rules.min_sentences, sentences):
        return "too_few_sentences"
    return _clean_page(kept, dropped)


def keep_lines(
    page: CleanPage,
    drop: Sequence[bool] | npt.NDArray[np.bool_],
    *,
    keys: Sequence[int] | None = None,
    rules: TextRules = C4,
    sentences: Callable[[str], int] = count_sentences,
) -> CleanPage | str:
    """Drop the lines that another page keeps (`drop`, one flag a line) and repeats within the page.

    `keys` are the lines' own, where they are at hand.

    A page with nothing left, or with fewer than `min_sentences`, is rejected: too_few_unique_sentences.
    """
    if len(drop) != len(page.lines):
        raise ValueError(f"{len(drop)} flags for {len(page.lines)} lines; give one flag a line")
    dropped = Counter(page.dropped)
    kept: list[tuple[int, str]] = []
    seen: set[int] = set()
    keys = line_keys(page.lines).tolist() if keys is None else keys
    for index, line, gone, key in zip(page.indices, page.lines, drop, keys, strict=True):
        if gone:
            dropped["duplicate_elsewhere"] += 1
        elif key in seen:  # also of a line that another page keeps: only the first copy was compared
            dropped["duplicate_on_page"] += 1
        else:
            kept.append((index, line))
        seen.add(key)
    lines = tuple(line for _, line in kept)
    if not lines or not _has_sentences(_beginnings(lines), rules.min_sentences, sentences, together=False):
        return "too_few_unique_sentences"
    return CleanPage(lines=lines, indices=tuple(index for index, _ in kept), dropped=dict(dropped))


def line_keys(lines: Iterable[str]) -> npt.NDArray[np.uint64]:
    """One key a line, the same for lines that are equal when stripped and lower-cased (corpus-wide dedup).

    The first 8 bytes of the MD5, big-endian. Over the 10^10 lines of one whole crawl, about 3 pairs of
    different lines are expected to share a key (n²/2⁶⁵); each costs one page one line.
    """
    digests = b"".join(_md5_head(line.strip().lower()) for line in lines)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def url_key(url: str) -> int:
    """A key for a URL, ordered as its MD5: C4 lets the URL with the smallest one keep a shared line."""
    return int.from_bytes(_md5_head(url), "big")


class BadWords:
    """A list of words that reject a page, as C4 uses LDNOOBW's (CC BY 4.0), one word or phrase a line.

    The rule is the regular expression `(?:\\W|^)(word|...)(?:\\W|$)` searched in the lower-cased text. A word
    of only word characters matches exactly where it is a whole run of them, so single words are looked up in
    the set of the text's runs, and only phrases whose runs all occur are searched for: the same verdict
    without 400 alternatives.
    """

    __slots__ = ("_phrases", "_words")

    def __init__(self, words: Iterable[str]) -> None:
        entries = dict.fromkeys(stripped for word in words if (stripped := word.strip()))
        self._words = frozenset(word for word in entries if _WORD.fullmatch(word))
        self._phrases = tuple(
            (frozenset(_WORD.findall(phrase)), re.compile(rf"(?:\W|^){re.escape(phrase)}(?:\W|$)"))
            for phrase in entries
            if phrase not in self._words
        )

    @classmethod
    def from_text(cls, text: str) -> "BadWords":
        """Read a list with one word or phrase a line; blank lines are no words."""
        return cls(text.splitlines())

    def __len__(self) -> int:
        return len(self._words) + len(self._phrases)

    def reject(self, text: str) -> str | None:
        """`bad_words` where the text of a page holds a listed word, else None."""
        if not len(self):
            return None
        lower = text.lower()
        runs = set(_WORD.findall(lower))
        if not self._words.isdisjoint(runs):
            return "bad_words"
        if any(parts <= runs and pattern.search(lower) for parts, pattern in self._phrases):
            return "bad_words"
        return None


def _has_sentences(texts: Iterable[str], least: int, sentences: Callable[[str], int], *, together: bool = True) -> bool:
    """Whether the texts hold that many sentences, all of them together or any one; no further text is looked at."""
    found = 0
    for text in texts:
        found = sentences(text) + (found if together else 0)
        if found >= least:
            return True
    return found >= least


def _beginnings(lines: Sequence[str]) -> Iterator[str]:
    """The first dozen lines as one text, then all of them: text that follows takes no sentence away."""
    if len(lines) > 12:
        yield "\n".join(lines[:12])
    yield "\n".join(lines)


def _text_length(lines: Sequence[str]) -> int:
    """Characters of the page's text as a WET file has it: lines stripped, none blank, line feeds between."""
    lengths = [length for line in lines if (length := len(line.strip()))]
    return sum(lengths) + max(0, len(lengths) - 1)


def _physical_lines(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """C4 splits at every line boundary that Unicode knows; a line that still holds one becomes several."""
    for index, line in enumerate(lines):
        for part in line.splitlines():
            yield index, part


def _clean_line(line: str, rules: TextRules) -> tuple[str, str | None]:
    """The line without citations, and the reason to drop it or to reject its page."""
    line = line.strip()
    if len(line) > rules.max_word_chars and any(len(word) > rules.max_word_chars for word in line.split()):
        return line, "too_long_word"
    if "[" in line:
        line = _CITATION.sub("", line)
    if not line.endswith(rules.end_marks) or line.endswith("..."):
        return line, "no_end_mark"
    if len(line.split()) < rules.min_line_words:
        return line, "too_few_words"
    return line, _reject_wording(line, rules)


def _reject_wording(line: str, rules: TextRules) -> str | None:
    lower = line.lower()
    if "lorem ipsum" in lower:
        return "lorem_ipsum"
    if "javascript" in lower:
        return "javascript"
    if "{" in line:
        return "curly_bracket"
    if any(phrase in lower for phrase in rules.policy_phrases):
        return "policy"
    return None


def _clean_page(kept: list[tuple[int, str]], dropped: Mapping[str, int]) -> CleanPage:
    """C4 strips the joined text: a citation taken from the front of its first line may leave a blank."""
    lines = [line for _, line in kept]
    lines[:1] = [line.lstrip() for line in lines[:1]]
    return CleanPage(lines=tuple(lines), indices=tuple(index for index, _ in kept), dropped=dict(dropped))


def _md5_head(text: str) -> bytes:
    # Lone surrogates cannot come from valid UTF-8, yet a page may hold them: hash them, do not fail.
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[:8]
