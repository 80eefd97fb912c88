"""Which sentence belongs to which picture: MMC4's assignment against four simpler answers, on known truth.

    python benchmarks/alignment.py [--clip tiny]

Measures of MMC4's table 2, on the sample crawl: AUC over all picture-sentence pairs of a document (ties count
half), averaged; p@1 is the share of pictures whose own sentence is chosen. Only pictures that a sentence
describes take part. The pictures are drawn anew and pass through the image stage's own rules.
"""

import argparse
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from timing import report

from mmc4_builder import clip
from mmc4_builder.images import normalise
from mmc4_builder.sample.pictures import Picture, payload
from mmc4_builder.sample.truth import KEPT, Mention, PageTruth
from mmc4_builder.sample.web import build

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One document: described pictures by sentences."""

    page: PageTruth
    mentions: tuple[Mention, ...]
    similarity: Matrix  # [pictures, sentences], CLIP
    answers: NDArray[np.int64]  # index of each picture's own sentence


def stored_picture(mention: Mention, files: Mapping[str, Picture]) -> bytes:
    """The JPEG that the image stage keeps of a picture, redirects followed."""
    file = files[mention.url]
    while 300 <= file.status < 400:
        file = files[dict(file.headers)["Location"]]
    return normalise(payload(file)).data


def cases(model: clip.Clip) -> list[Case]:
    web = build()
    files = {file.url: file for file in web.pictures}
    found = []
    for page in web.truth.kept():
        shown = tuple(m for m in page.mentions if m.verdict == KEPT and m.sentence)
        if not shown or len(page.sentences) < 2:
            continue
        images = model.embed_images([stored_picture(mention, files) for mention in shown])
        similarity = images @ model.embed_texts(page.sentences).T
        answers = np.array([page.sentences.index(mention.sentence) for mention in shown])
        found.append(Case(page=page, mentions=shown, similarity=similarity, answers=answers))
    return found


def from_dom(case: Case) -> Matrix:
    """The nearer in the page the better; the sentence before a picture wins over the one after it."""
    places = np.arange(len(case.page.sentences)) + 0.6
    return np.stack([-np.abs(places - mention.position) for mention in case.mentions]).astype(np.float32)


def from_alt(case: Case) -> Matrix:
    """Words that alt text and sentence share, of the words that either has."""
    sentences = [_words(sentence) for sentence in case.page.sentences]
    rows = [[_jaccard(_words(mention.alt), sentence) for sentence in sentences] for mention in case.mentions]
    return np.array(rows, dtype=np.float32)


def from_chance(case: Case) -> Matrix:
    rng = random.Random(case.page.url)
    rows = [[rng.random() for _ in case.page.sentences] for _ in case.mentions]
    return np.array(rows, dtype=np.float32)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower()))


def _jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    return len(one & two) / max(1, len(one | two))


def assigned(scores: Matrix) -> NDArray[np.int64]:
    """MMC4's one-to-one assignment; pictures beyond the sentences take their maximum."""
    chosen = maximum(scores)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    chosen[rows] = columns
    return chosen


def maximum(scores: Matrix) -> NDArray[np.int64]:
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def auc(scores: Matrix, answers: NDArray[np.int64]) -> float:
    """Chance that a true pair scores above a false one."""
    own = np.zeros(scores.shape, dtype=bool)
    own[np.arange(len(answers)), answers] = True
    difference = scores[own][:, None] - scores[~own][None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def measure(
    found: Sequence[Case], score: Callable[[Case], Matrix], choose: Callable[[Matrix], NDArray[np.int64]]
) -> tuple[float, float]:
    """(mean AUC of the documents, p@1 over all pictures), in per cent."""
    hits, aucs = [], []
    for case in found:
        scores = score(case)
        hits.extend(choose(scores) == case.answers)
        aucs.append(auc(scores, case.answers))
    return 100 * float(np.mean(aucs)), 100 * float(np.mean(hits))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="p@1 and AUC of alignment on the sample's truth.")
    parser.add_argument("--clip", default=clip.TINY, help="as for mmc4-build (default: tiny)")
    found = cases(clip.load(parser.parse_args(arguments).clip))
    contenders = {
        "CLIP, one-to-one (MMC4)": (lambda case: case.similarity, assigned),
        "CLIP, maximum of each picture": (lambda case: case.similarity, maximum),
        "DOM order, nearest sentence": (from_dom, assigned),
        "alt text, shared words": (from_alt, assigned),
        "random": (from_chance, assigned),
    }
    results = {name: measure(found, *contender) for name, contender in contenders.items()}
    pictures = sum(len(case.answers) for case in found)
    print(f"{len(found)} documents, {pictures} pictures{'':<11}{'AUC':>8}{'p@1':>8}", file=sys.stderr)
    for name, (area, precision) in results.items():
        print(f"  {name:<36}{area:>8.1f}{precision:>8.1f}", file=sys.stderr)
    ours, rival = "CLIP, one-to-one (MMC4)", "DOM order, nearest sentence"
    report(
        claim="alignment",
        ours=results[ours][1],
        peer=results[rival][1],
        peer_name=rival,
        unit="p@1, per cent",
    )


if __name__ == "__main__":
    main()
