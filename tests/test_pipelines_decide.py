"""The policy of interleaving: a keep case, and a case for every reason, of pictures and of documents."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from filters.size import SizeRules
from pipelines.config import InterleaveConfig
from pipelines.decide import Decision, decide

SENTENCES = ("A red boat lies in the harbour.", "The baker opens at six.", "Two goats stand on a hill.")


def image(name: str = "a", **changes: Any) -> Mapping[str, Any]:
    """A picture that every rule lets pass, best at the first sentence."""
    return {
        "url": f"http://x.example/{name}.jpg",
        "reason": None,
        "phash": 0x0123456789ABCDEF,
        "original_width": 640,
        "original_height": 480,
        "occurrences": 1,
        "similarity": np.asarray([0.30, 0.10, 0.20], np.float32),
        **changes,
    }


def far(number: int) -> int:
    """Hashes that differ in many bits."""
    return (0x0123456789ABCDEF ^ (0xFFFF << (16 * number))) & (2**64 - 1)


def decided(*images: Mapping[str, Any], **config: Any) -> Decision:
    return decide("http://x.example/", SENTENCES, images, replace(InterleaveConfig(), **config))


def test_keep() -> None:
    decision = decided(image())
    assert (decision.reason, decision.reasons, decision.kept) == (None, (None,), (0,))
    assert decision.document is not None
    (matched,) = decision.document.images
    assert (matched.matched_text_index, matched.matched_sim) == (0, float(np.float32(0.3)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reason": "http_404"}, "http_404"),
        ({"original_width": 149}, "too_small"),
        ({"original_width": 150, "original_height": 150}, None),
        ({"original_width": 961}, "bad_aspect"),
        ({"original_width": 960}, None),
        ({"occurrences": 11}, "too_frequent"),
        ({"occurrences": 10}, None),
        ({"similarity": [0.149, 0.1, 0.1]}, "low_similarity"),
        ({"similarity": [0.1, 0.1, 0.15]}, None),
    ],
)
def test_pictures(changes: dict[str, Any], reason: str | None) -> None:
    assert decided(image(**changes)).reasons == (reason,)


@pytest.mark.parametrize(("bits", "distance", "reason"), [(0, 5, "near_duplicate"), (5, 5, "near_duplicate"),
                                                          (6, 5, None), (10, 10, "near_duplicate")])  # fmt: skip
def test_near_duplicates(bits: int, distance: int, reason: str | None) -> None:
    other = image("b", phash=0x0123456789ABCDEF ^ ((1 << bits) - 1))
    assert decided(image(), other, max_distance=distance).reasons == (None, reason)


def test_the_larger_of_two_copies_stays() -> None:
    assert decided(image(original_width=320, original_height=240), image("b")).reasons == (
        "near_duplicate",
        None,
    )


def test_a_picture_that_goes_for_itself_claims_no_copies() -> None:
    assert decided(image(occurrences=50, original_width=900), image("b")).reasons == ("too_frequent", None)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, None),
        ({"sentences": (4, 40)}, "too_few_sentences"),
        ({"sentences": (1, 2)}, "too_many_sentences"),
        ({"images": (3, 15)}, "too_few_images"),
        ({"images": (1, 1)}, "too_many_images"),
        ({"min_core_fraction": 0.75}, "low_core_fraction"),
        ({"min_core_fraction": 0.5}, None),
        ({"size": SizeRules(min_side=2000)}, "no_images_left"),
    ],
)
def test_documents(config: dict[str, Any], reason: str | None) -> None:
    low = image("b", phash=far(1), similarity=np.asarray([0.0, 0.2, 0.1], np.float32))
    decision = decided(image(), low, **config)
    assert decision.reason == reason
    assert (decision.document is None) == (reason is not None)
    assert all((why is None) == (reason is None) for why in decision.reasons)


def test_pictures_of_a_dropped_document_keep_their_own_reason() -> None:
    assert decided(image(), image("b", original_width=10), images=(2, 15)).reasons == (
        "document_dropped",
        "too_small",
    )


def test_no_pictures_and_no_sentences() -> None:
    assert decided().reason == "no_images_left"
    assert decide("u", (), [image(similarity=[])], InterleaveConfig()).reasons == ("low_similarity",)


def test_more_pictures_than_sentences_share() -> None:
    many = [image(str(i), phash=far(i)) for i in range(4)]
    decision = decided(*many, max_distance=0)
    assert decision.document is not None
    indices = [matched.matched_text_index for matched in decision.document.images]
    assert sorted(indices) == [0, 0, 1, 2]


@pytest.mark.parametrize("wrong", [{"sentences": (5, 4)}, {"images": (0, 4)}, {"min_core_fraction": 1.5}])
def test_configurations_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(InterleaveConfig(), **wrong)
