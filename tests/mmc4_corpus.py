"""A small MMC4 data set in memory, for tests that write it out, spoil it and read it back."""

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmc4_builder.match import assign
from mmc4_builder.mmc4_format import MatchedDocument, docs_stem, match_images, to_json, write_docs_zip
from mmc4_builder.shards import (
    Format,
    Sample,
    plan_shards,
    sample_key,
    shard_name,
    sizes_json,
    write_shard,
)

REAL_DOCS = Path(__file__).parents[2] / "shared" / "data" / "mmc4_docs.jsonl"


@functools.cache
def jpeg(seed: int = 0, side: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def document(seed: int, *, images: int = 2, sentences: int = 4) -> dict[str, Any]:
    """One document as released; all similarities differ."""
    similarity = np.random.default_rng(seed).uniform(0.16, 0.4, (images, sentences)).astype(np.float32)
    urls = [f"http://example.com/{seed}/{row}.jpg" for row in range(images)]
    return to_json(
        MatchedDocument(
            url=f"http://example.com/page{seed}",
            sentences=tuple(f"Sentence {column} of page {seed} \u2014 na\u00efve." for column in range(sentences)),
            images=match_images(urls, similarity, assign(similarity)),
            similarity=similarity,
        )
    )


def sample(shard: int, position: int, doc: Mapping[str, Any], *, side: int = 24) -> Sample:
    count = len(doc["image_info"])
    return Sample(
        key=sample_key(shard, position),
        doc={**doc, "provenance": {"warc": "crawl.warc.gz", "offset": 100 * position}},
        images=tuple(jpeg(row, side) for row in range(count)),
    )


def write_docs(folder: Path, number: int, docs: Sequence[Mapping[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{docs_stem(number)}.jsonl.zip"
    with path.open("wb") as stream:
        write_docs_zip(stream, docs_stem(number), docs)
    return path


def write_corpus(
    root: Path, docs: Sequence[Sequence[Mapping[str, Any]]], *, per_shard: int = 3, fmt: Format = "mmc4"
) -> Path:
    """docs/, shards/ and shards/sizes.json from the documents of each docs shard."""
    for number, listed in enumerate(docs):
        write_docs(root / "docs", number, listed)
    shards = root / "shards"
    shards.mkdir(parents=True)
    plan = plan_shards([len(listed) for listed in docs], per_shard)
    counts = []
    for number, spans in enumerate(plan):
        chosen = [doc for source, start, stop in spans for doc in docs[source][start:stop]]
        samples = [sample(number, position, doc) for position, doc in enumerate(chosen)]
        with (shards / shard_name(number, fmt)).open("wb") as stream:
            counts.append(write_shard(stream, samples, fmt))
    (shards / "sizes.json").write_text(sizes_json(counts, fmt))
    return root


def released_docs() -> list[dict[str, Any]]:
    """Real documents of core-ff v1.0, or none where they are not beside the checkout."""
    if not REAL_DOCS.exists():
        return []
    return [json.loads(line)["doc"] for line in REAL_DOCS.read_text().splitlines()]
