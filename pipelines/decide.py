"""The policy of stage 4 as pure functions: which pictures of a document stay, where each goes, and whether it stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from filters import duplicates, size
from mmc4_builder.match import assign, core_fraction
from mmc4_builder.mmc4_format import MatchedDocument, match_images
from pipelines.config import InterleaveConfig

Scored = Mapping[str, Any]  # one picture as `schemas.SCORED_IMAGE` has it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """What becomes of one document."""

    reason: str | None  # why it goes
    reasons: tuple[str | None, ...]  # why each of its pictures goes, in DOM order
    document: MatchedDocument | None  # what it becomes where it stays
    kept: tuple[int, ...]  # pictures of `document`, as indices into `reasons`


def decide(url: str, sentences: Sequence[str], images: Sequence[Scored], config: InterleaveConfig) -> Decision:
    """Apply every rule to one document. Pictures of a document that goes, go with it: `document_dropped`."""
    reasons = judge_images(images, config)
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    matrix = similarities(images, kept, len(sentences))
    assignment = assign(matrix)
    sims = [float(matrix[row, index]) for row, index in enumerate(assignment)] if sentences else []
    reason = judge_document(len(sentences), sims, config)
    if reason is not None:
        return Decision(
            reason=reason,
            reasons=tuple(why or "document_dropped" for why in reasons),
            document=None,
            kept=(),
        )
    matched = match_images([images[i]["url"] for i in kept], matrix, assignment)
    document = MatchedDocument(url=url, sentences=tuple(sentences), images=matched, similarity=matrix)
    return Decision(reason=None, reasons=tuple(reasons), document=document, kept=tuple(kept))


def judge_images(images: Sequence[Scored], config: InterleaveConfig) -> list[str | None]:
    """Why each picture goes, or None; first what it is, then what stands beside it, then what it says (MMC4 §3)."""
    reasons = [judge_image(image, config) for image in images]
    left = [i for i, reason in enumerate(reasons) if reason is None]
    copies = duplicates.near_duplicates(
        [images[i]["phash"] for i in left],
        pixels=[images[i]["original_width"] * images[i]["original_height"] for i in left],
        max_distance=config.max_distance,
    )
    for i, copy in zip(left, copies, strict=True):
        if copy is not None:
            reasons[i] = "near_duplicate"
        elif max(images[i]["similarity"], default=-1.0) < config.min_similarity:
            reasons[i] = "low_similarity"
    return reasons


def judge_image(image: Scored, config: InterleaveConfig) -> str | None:
    """Why a picture goes, whatever stands beside it, or None."""
    if image["reason"] is not None:
        return str(image["reason"])
    return size.reject(image["original_width"], image["original_height"], rules=config.size) or duplicates.too_frequent(
        image["occurrences"], max_count=config.max_occurrences
    )


def judge_document(sentences: int, sims: Sequence[float], config: InterleaveConfig) -> str | None:
    """Why a document with these matched similarities goes, or None."""
    if not sims:
        return "no_images_left"
    for what, count, (least, most) in (
        ("sentences", sentences, config.sentences),
        ("images", len(sims), config.images),
    ):
        if not least <= count <= most:
            return f"too_few_{what}" if count < least else f"too_many_{what}"
    return "low_core_fraction" if core_fraction(sims) < config.min_core_fraction else None


def similarities(images: Sequence[Scored], kept: Sequence[int], sentences: int) -> npt.NDArray[np.float32]:
    """The similarity matrix [kept pictures, sentences]."""
    rows = [images[i]["similarity"] for i in kept]
    return np.asarray(rows, dtype=np.float32).reshape(len(kept), sentences)
