"""What every reader of MMC4 relies on in one document, as checks that name what they find.

The same checks serve our own output and the released files. Rules that only we promise (image order, escaped
markers) are left out for the latter.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from mmc4_builder.findings import Breach, shorten
from mmc4_builder.mmc4_format import MARKERS, url_extension

DOC_KEYS = ("url", "text_list", "image_info", "similarity_matrix")
DUPLICATE_KEY = "could_have_url_duplicate"  # v1.1 has it as the fifth key, v1.0 not at all
IMAGE_KEYS = ("image_name", "raw_url", "matched_text_index", "matched_sim", "face_detections")
FORBIDDEN_KEYS = ("is_gpt",)  # sends a document down another path of OpenFlamingo's loader
TOTAL_TOLERANCE = 1e-4  # MMC4's solver resolves costs to about 6e-5 only
IMAGE_NAME = re.compile(r"[0-9a-f]{12}\.([0-9A-Za-z]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which promises hold: `ours` adds those that the released files never made."""

    ours: bool = True
    min_similarity: float | None = None  # every image has a sentence at least this similar, where given


def check_document(doc: Mapping[str, Any], rules: Rules) -> Iterator[Breach]:
    """Every breach of one parsed document. Later checks need earlier ones to hold, and wait for them."""
    breaches = list(_form(doc))
    yield from breaches
    if any(breach.kind != "forbidden_key" for breach in breaches):
        return
    matrix = np.array(doc["similarity_matrix"], dtype=np.float64).reshape(len(doc["image_info"]), len(doc["text_list"]))
    breaches = list(_content(doc, matrix, rules))
    yield from breaches
    if not breaches:
        yield from _optimal(doc["image_info"], matrix)


def _form(doc: Mapping[str, Any]) -> Iterator[Breach]:
    for checks in ((_forbidden, _keys), (_types,), (_shape,)):
        broken = [breach for check in checks for breach in check(doc)]
        yield from broken
        if any(breach.kind != "forbidden_key" for breach in broken):
            return


def _content(doc: Mapping[str, Any], matrix: npt.NDArray[np.float64], rules: Rules) -> Iterator[Breach]:
    yield from _values(matrix)
    yield from _matches(doc["image_info"], matrix)
    yield from _names(doc["image_info"])
    yield from _best(matrix, rules)
    if rules.ours:
        yield from _ours(doc)


def _forbidden(doc: Mapping[str, Any]) -> Iterator[Breach]:
    for key in FORBIDDEN_KEYS:
        if key in doc:
            yield Breach(kind="forbidden_key", found=f"key {key!r}", expected="no such key")


def _keys(doc: Mapping[str, Any]) -> Iterator[Breach]:
    """The released keys come first and in order; further keys may follow, every loader passes them over."""
    expected = (*DOC_KEYS, DUPLICATE_KEY) if DUPLICATE_KEY in doc else DOC_KEYS
    yield from _leading(doc, expected, "document")
    images = doc.get("image_info")
    for row, image in enumerate(images if isinstance(images, list) else ()):
        if isinstance(image, dict):
            yield from _leading(image, IMAGE_KEYS, f"image {row}")


def _leading(value: Mapping[str, Any], expected: Sequence[str], name: str) -> Iterator[Breach]:
    found = tuple(value)[: len(expected)]
    if found != tuple(expected):
        yield Breach(kind="keys", found=f"{name}: {', '.join(found)}", expected=", ".join(expected))


def _types(doc: Mapping[str, Any]) -> Iterator[Breach]:
    texts, images, matrix = doc["text_list"], doc["image_info"], doc["similarity_matrix"]
    yield from _typed("url", type(doc["url"]) is str, doc["url"], "a string")
    yield from _typed("text_list", _list_of(texts, str), texts, "a list of strings")
    rows = isinstance(matrix, list) and all(_list_of(row, float) for row in matrix)
    yield from _typed("similarity_matrix", rows, matrix, "a list of lists of floats")
    flag = doc.get(DUPLICATE_KEY, 0)
    yield from _typed(DUPLICATE_KEY, type(flag) is int and flag in (0, 1), flag, "0 or 1")
    yield from _typed("image_info", _list_of(images, dict), images, "a list of objects")
    for row, image in enumerate(images if _list_of(images, dict) else ()):
        for key, kind in zip(IMAGE_KEYS, (str, str, int, float), strict=False):
            yield from _typed(f"image {row}: {key}", type(image[key]) is kind, image[key], kind.__name__)
        faces = image["face_detections"]
        yield from _typed(f"image {row}: face_detections", faces is None or type(faces) is list, faces, "null")


def _typed(name: str, holds: bool, value: object, expected: str) -> Iterator[Breach]:
    if not holds:
        yield Breach(kind="types", found=f"{name} is {shorten(repr(value), 80)}", expected=expected)


def _list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _shape(doc: Mapping[str, Any]) -> Iterator[Breach]:
    images, sentences = len(doc["image_info"]), len(doc["text_list"])
    expected = f"{images} x {sentences} (images x sentences)"
    matrix = doc["similarity_matrix"]
    if len(matrix) != images:
        yield Breach(kind="matrix_shape", found=f"{len(matrix)} rows", expected=expected)
    for row, values in enumerate(matrix):
        if len(values) != sentences:
            yield Breach(kind="matrix_shape", found=f"row {row} of {len(values)} values", expected=expected)


def _values(matrix: npt.NDArray[np.float64]) -> Iterator[Breach]:
    outside = ~(np.abs(matrix) <= 1.0)
    with np.errstate(over="ignore"):
        inexact = (matrix.astype(np.float32) != matrix) & ~outside
    for kind, wrong, expected in (
        ("similarity_range", outside, "a cosine, -1 to 1"),
        ("similarity_precision", inexact, "a float32 value widened to double"),
    ):
        for row, column in np.argwhere(wrong):
            yield Breach(kind=kind, found=f"matrix[{row}][{column}] = {matrix[row, column]}", expected=expected)


def _matches(images: Sequence[Mapping[str, Any]], matrix: npt.NDArray[np.float64]) -> Iterator[Breach]:
    sentences = matrix.shape[1]
    for row, image in enumerate(images):
        index, sim = image["matched_text_index"], image["matched_sim"]
        if not 0 <= index < sentences:
            found = f"image {row}: matched_text_index {index}"
            yield Breach(kind="matched_index", found=found, expected=f"0 to {sentences - 1}")
        elif sim != matrix[row, index]:
            expected = f"matrix[{row}][{index}] = {matrix[row, index]}"
            yield Breach(kind="matched_sim", found=f"image {row}: matched_sim {sim}", expected=expected)
    taken = Counter(image["matched_text_index"] for image in images)
    if len(taken) < min(len(images), sentences):
        index, count = taken.most_common(1)[0]
        found = f"sentence {index} has {count} images; {sentences - len(taken)} of {sentences} have none"
        yield Breach(kind="one_to_one", found=found, expected="one image a sentence while free ones remain")


def _optimal(images: Sequence[Mapping[str, Any]], matrix: npt.NDArray[np.float64]) -> Iterator[Breach]:
    """The total over the sentences is the greatest possible; v1.0 of MMC4 broke this in many documents.

    A sentence counts with its best image: one that came to it as a left-over is never better than its own.
    """
    found: dict[int, float] = {}
    for image in images:
        index = image["matched_text_index"]
        found[index] = max(found.get(index, -1.0), image["matched_sim"])
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    best, total = float(matrix[rows, columns].sum()), sum(found.values())
    if total < best - TOTAL_TOLERANCE:
        yield Breach(kind="assignment", found=f"total similarity {total:.6f}", expected=f"{best:.6f}")


def _names(images: Sequence[Mapping[str, Any]]) -> Iterator[Breach]:
    for row, image in enumerate(images):
        match = IMAGE_NAME.fullmatch(image["image_name"])
        extension = url_extension(image["raw_url"])
        if not match or match[1] != extension:
            expected = f"12 lower-case hex digits and .{extension}"
            yield Breach(kind="image_name", found=f"image {row}: {image['image_name']!r}", expected=expected)
    for name, count in Counter(image["image_name"] for image in images).items():
        if count > 1:
            yield Breach(kind="image_name_unique", found=f"{count} images named {name!r}", expected="one")


def _best(matrix: npt.NDArray[np.float64], rules: Rules) -> Iterator[Breach]:
    """MMC4 §3: an image without any similar sentence is dropped."""
    if rules.min_similarity is None or not matrix.size:
        return
    for row, best in enumerate(matrix.max(axis=1)):
        if best < rules.min_similarity:
            found = f"image {row}: best similarity {best}"
            yield Breach(kind="min_similarity", found=found, expected=f"at least {rules.min_similarity}")


def _ours(doc: Mapping[str, Any]) -> Iterator[Breach]:
    indices = [image["matched_text_index"] for image in doc["image_info"]]
    if indices != sorted(indices):
        yield Breach(kind="image_order", found=f"sentences {shorten(repr(indices), 80)}", expected="ascending")
    for row, sentence in enumerate(doc["text_list"]):
        for marker, harmless in MARKERS:
            if marker in sentence:
                yield Breach(kind="marker", found=f"sentence {row} holds {marker}", expected=harmless)
