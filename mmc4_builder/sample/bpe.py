"""A small byte-pair vocabulary in the file format of open_clip's SimpleTokenizer."""

import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

SPECIALS = 512 + 2  # 256 bytes, the same at a word's end, start and end of text


def learn_merges(sentences: Iterable[str], count: int) -> list[tuple[str, str]]:
    """The `count` most frequent pairs, joined one after the other; ties go to the pair that sorts first."""
    import regex  # the tokenizer's own dependency

    words: Counter[tuple[str, ...]] = Counter()
    for sentence in sentences:
        for word in regex.findall(r"[\p{L}]+", sentence.lower()):
            if word.isascii():
                words[tuple(word[:-1]) + (word[-1] + "</w>",)] += 1
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = _join(words, best)
    return merges


def write_merges(path: Path, merges: list[tuple[str, str]]) -> None:
    """One heading line, then a pair a line; no newline at the end, which would read as an empty pair."""
    text = "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in merges)])
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _join(words: Counter[tuple[str, ...]], pair: tuple[str, str]) -> Counter[tuple[str, ...]]:
    joined: Counter[tuple[str, ...]] = Counter()
    for word, times in words.items():
        parts: list[str] = []
        for part in word:
            if parts and (parts[-1], part) == pair:
                parts[-1] += part
            else:
                parts.append(part)
        joined[tuple(parts)] += times
    return joined
