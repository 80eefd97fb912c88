"""The policy of stage 4 as pure functions: which pictures of a document stay, where each goes, and whether it stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from filters import ads, blank, contamination, duplicates, faces, nsfw, optout, size
from filters.ads import AdEngine
from mmc4_builder.key_lists import KeyList
from mmc4_builder.match import assign, core_fraction
from mmc4_builder.mmc4_format import MatchedDocument, match_images
from mmc4_builder.signals import Signal
from pipelines.config import InterleaveConfig

Scored = Mapping[str, Any]  # one picture: `schemas.SCORED_IMAGE`, and `schemas.SCORES` where it is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A document before the decision."""

    url: str
    sentences: Sequence[str]
    images: Sequence[Scored]  # in DOM order
    signals: Sequence[Signal] = ()  # of its headers and <meta>, and of its host's files
    near_duplicate: bool = False  # another document has nearly the same text


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The configuration, and the lists that it names, loaded once a unit."""

    config: InterleaveConfig
    opted_out: KeyList  # of the user
    removed: KeyList  # tombstones of this build
    ad_rules: AdEngine | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """What becomes of one document."""

    reason: str | None  # why it goes
    reasons: tuple[str | None, ...]  # why each of its pictures goes, in DOM order
    document: MatchedDocument | None  # what it becomes where it stays
    kept: tuple[int, ...]  # pictures of `document`, as indices into `reasons`


def decide(subject: Subject, policy: Policy) -> Decision:
    """Apply every rule to one document. Pictures of a document that goes, go with it: `document_dropped`."""
    reasons = judge_images(subject, policy)
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    matrix = similarities(subject.images, kept, len(subject.sentences))
    assignment = assign(matrix)
    sims = [float(matrix[row, index]) for row, index in enumerate(assignment)] if subject.sentences else []
    reason = judge_page(subject, policy) or judge_document(len(subject.sentences), sims, policy.config)
    if reason is not None:
        return Decision(
            reason=reason,
            reasons=tuple(why or "document_dropped" for why in reasons),
            document=None,
            kept=(),
        )
    matched = match_images(
        [subject.images[i]["url"] for i in kept], matrix, assignment, faces=[boxes(subject.images[i]) for i in kept]
    )
    document = MatchedDocument(url=subject.url, sentences=tuple(subject.sentences), images=matched, similarity=matrix)
    return Decision(reason=None, reasons=tuple(reasons), document=document, kept=tuple(kept))


def judge_page(subject: Subject, policy: Policy) -> str | None:
    """Why a document goes for what it is, or None: it was removed, its owner refuses, or another one says the same."""
    if not subject.url or policy.removed.matches_url(subject.url):  # a removed document leaves an empty row
        return "removed"
    if policy.opted_out.matches_url(subject.url):
        return "optout_list"
    reason = optout.reject(subject.signals, rules=policy.config.optout)
    return reason or ("near_duplicate_text" if subject.near_duplicate else None)


def judge_images(subject: Subject, policy: Policy) -> list[str | None]:
    """Why each picture goes, or None; first what it is, then what stands beside it, then what it says (MMC4 §3)."""
    images, config = subject.images, policy.config
    reasons = [judge_image(image, subject.url, policy) for image in images]
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


def judge_image(image: Scored, page_url: str, policy: Policy) -> str | None:
    """Why a picture goes, whatever stands beside it, or None. Owners' and subjects' wishes come first."""
    hashes = [image[name] for name in ("sha256", "original_sha256") if image[name]]
    for reason, keys in (("removed", policy.removed), ("optout_list", policy.opted_out)):
        if keys.matches_url(image["url"]) or keys.matches_hash(*hashes):
            return reason
    if image["reason"] is not None:
        return str(image["reason"])
    config = policy.config
    return (
        optout.reject(((said["name"], said["value"]) for said in image["statements"] or ()), rules=config.optout)
        or size.reject(image["original_width"], image["original_height"], rules=config.size)
        or ads.reject(
            image["url"],
            page_url,
            image["original_width"],
            image["original_height"],
            rules=config.ads,
            engine=policy.ad_rules,
        )
        or blank.reject(image["detail"], min_detail=config.min_detail)
        or duplicates.too_frequent(image["occurrences"], max_count=config.max_occurrences)
        or _judge_content(image, config)
    )


def _judge_content(image: Scored, config: InterleaveConfig) -> str | None:
    """By what the models see. A model that was not asked has no say."""
    if image["nsfw"] is not None and (reason := nsfw.reject(image["nsfw"], max_score=config.max_nsfw)):
        return reason
    if config.drop_faces and (reason := faces.reject(image["face"], image["faces"], max_score=config.max_face)):
        return reason
    if image["evaluation_distance"] is None:
        return None
    return contamination.reject(image["evaluation_distance"], image["evaluation_similarity"], rules=config.evaluation)


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


def boxes(image: Scored) -> tuple[tuple[float, ...], ...] | None:
    """`face_detections`: (x1, y1, x2, y2, score) of each face, px of the stored picture; None without a detector."""
    if image["faces"] is None:
        return None
    return tuple(tuple(face[name] for name in ("x1", "y1", "x2", "y2", "score")) for face in image["faces"])
