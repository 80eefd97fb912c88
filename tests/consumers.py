"""How three published loaders read MMC4, in our own words, to hold our output against.

Each follows the contract of the program that it is named after: what it opens, what it drops, what it raises,
and where it puts a picture. Markers stay in the text; pictures come back in the order that the model sees.
"""

import base64
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

MAX_IMAGES = 6
THRESHOLD = 0.24
IMAGE, END_OF_CHUNK = "<image>", "<|endofchunk|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleaved:
    """One training sequence: the text with its markers, and for each picture its place in image_info."""

    url: str
    text: str
    images: tuple[int, ...]
    sentences: tuple[int, ...]  # the sentence that each picture was matched to

    @property
    def swapped(self) -> bool:
        """Whether the k-th marker of the text does not belong to the k-th picture."""
        return list(self.sentences) != sorted(self.sentences)


def tar_samples(path: Path) -> Iterator[dict[str, bytes]]:
    """Members grouped by the name up to the first dot, as WebDataset does; the key is under "__key__"."""
    group: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if group and group["__key__"] != key.encode():
                yield group
                group = {}
            file = tar.extractfile(member)
            group["__key__"] = key.encode()
            group[extension] = file.read() if file else b""
    if group:
        yield group


def openflamingo(
    tars: Sequence[Path], *, threshold: float = THRESHOLD, min_bytes: int = 11_000
) -> Iterator[Interleaved]:
    """OpenFlamingo's loader over tars with base64 in the JSON. Documents that it would drop are left out."""
    for path in tars:
        for sample in tar_samples(path):
            doc = json.loads(sample["json"])
            if (sequence := _openflamingo_sequence(doc, threshold, min_bytes)) is not None:
                yield sequence


def _openflamingo_sequence(doc: Mapping[str, Any], threshold: float, min_bytes: int) -> Interleaved | None:
    assert "is_gpt" not in doc
    valid: list[int] = []
    for row, image in enumerate(doc["image_info"]):
        if "image_base64" not in image:
            continue
        raw = base64.b64decode(image["image_base64"])
        if len(raw) // 1000 <= min_bytes // 1000 - 1:  # its limit of 10 kB counts whole thousands
            continue
        Image.open(io.BytesIO(raw)).convert("RGB")
        valid.append(row)
    if not valid:
        return None
    similarity = np.array(doc["similarity_matrix"])[valid]  # a ragged matrix loses the document here
    pairs = [
        (valid[row], int(column))
        for row, column in zip(*linear_sum_assignment(-similarity), strict=True)
        if similarity[row, column] >= threshold
    ]
    kept = pairs[:MAX_IMAGES]
    if not kept:
        return None
    texts = list(doc["text_list"])
    for _, column in kept:
        texts[column] = f"{END_OF_CHUNK}{IMAGE}{texts[column]}"
    text = " ".join(texts).replace(END_OF_CHUNK, "", 1)
    for marker in (END_OF_CHUNK, IMAGE):
        text = text.replace(f" {marker}", marker).replace(f"{marker} ", marker)
    return Interleaved(
        url=doc["url"],
        text=text + END_OF_CHUNK,
        images=tuple(row for row, _ in kept),
        sentences=tuple(column for _, column in kept),
    )


def mm_interleaved(
    docs_zip: Path, image_folder: Path, *, threshold: float = THRESHOLD, seed: int = 0
) -> Iterator[Interleaved]:
    """MM-Interleaved's reader: the zip's member has the stem's name, pictures lie flat under image_name."""
    chance = random.Random(seed)
    with zipfile.ZipFile(docs_zip) as archive:
        lines = archive.read(docs_zip.name.removesuffix(".zip")).decode().split("\n")
    for line in lines:
        doc = json.loads(line)
        rows = [
            row
            for row, image in enumerate(doc["image_info"])
            if image["matched_sim"] >= threshold and (image_folder / image["image_name"]).exists()
        ]
        if len(rows) > MAX_IMAGES:
            rows = sorted(chance.sample(rows, MAX_IMAGES))
        if not rows:
            continue
        yield _placed(doc, rows, before=chance.random() < 0.5)


def vila(docs: Sequence[Mapping[str, Any]]) -> Iterator[Interleaved]:
    """VILA's reader of pickled documents: all pictures are there, six of them count, markers are escaped."""
    for doc in docs:
        for image in doc["image_info"]:
            extension = image["raw_url"].split(".")[-1]
            assert image["image_name"].endswith(f".{extension}"), image
            Image.open(io.BytesIO(base64.b64decode(image["image_base64"]))).convert("RGB")
        rows = list(range(len(doc["image_info"])))[:MAX_IMAGES]
        rows.sort(key=lambda row: doc["image_info"][row]["matched_text_index"])
        escaped = {**doc, "text_list": [text.replace(IMAGE, "<IMAGE>") for text in doc["text_list"]]}
        yield _placed(escaped, rows, before=True)


def _placed(doc: Mapping[str, Any], rows: Sequence[int], *, before: bool) -> Interleaved:
    """Markers put at the stored matched_text_index of the images at `rows`."""
    sentences = [doc["image_info"][row]["matched_text_index"] for row in rows]
    texts = [
        f"{IMAGE * sentences.count(index)}{text}" if before else f"{text}{IMAGE * sentences.count(index)}"
        for index, text in enumerate(doc["text_list"])
    ]
    return Interleaved(url=doc["url"], text=" ".join(texts), images=tuple(rows), sentences=tuple(sentences))
