"""The policy of interleaving: a keep case, and a case for every reason, of pictures and of documents."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from filters import ads
from filters.contamination import ContaminationRules
from filters.optout import OptOutRules
from filters.size import SizeRules
from mmc4_builder import key_lists
from pipelines.config import InterleaveConfig
from pipelines.decide import Decision, Policy, Subject, decide

SENTENCES = ("A red boat lies in the harbour.", "The baker opens at six.", "Two goats stand on a hill.")
STORED, FETCHED = "ab" * 32, "cd" * 32
FACE = {"x1": 10, "y1": 20, "x2": 50, "y2": 70, "score": 0.99}


def image(name: str = "a", **changes: Any) -> Mapping[str, Any]:
    """A picture that every rule lets pass, best at the first sentence."""
    return {
        "url": f"http://x.example/{name}.jpg",
        "reason": None,
        "sha256": STORED,
        "original_sha256": FETCHED,
        "phash": 0x0123456789ABCDEF,
        "detail": 0.9,
        "statements": [],
        "original_width": 640,
        "original_height": 480,
        "occurrences": 1,
        "nsfw": 0.01,
        "face": 0.01,
        "faces": None,
        "evaluation_distance": None,
        "evaluation_similarity": None,
        "similarity": np.asarray([0.30, 0.10, 0.20], np.float32),
        **changes,
    }


def far(number: int) -> int:
    """Hashes that differ in many bits."""
    return (0x0123456789ABCDEF ^ (0xFFFF << (16 * number))) & (2**64 - 1)


def said(name: str, value: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value, "source": "http://x.example/robots.txt", "seen": "2026-01-01T00:00:00Z"}]


def policy(*, opted_out: str = "", removed: str = "", rules: str = "", **config: Any) -> Policy:
    return Policy(
        config=replace(InterleaveConfig(), **config),
        opted_out=key_lists.parse(opted_out, "a list"),
        removed=key_lists.parse(removed, "tombstones"),
        ad_rules=ads.load([rules]) if rules else None,
    )


def subject(*images: Mapping[str, Any], **changes: Any) -> Subject:
    return replace(Subject(url="http://x.example/", sentences=SENTENCES, images=images), **changes)


def decided(*images: Mapping[str, Any], **config: Any) -> Decision:
    return decide(subject(*images), policy(**config))


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
        ({"statements": said("robots:mmc-build", "Disallow: /")}, "optout_robots"),
        ({"statements": said("robots:GPTBot", "Disallow: /")}, "optout_robots_agent"),
        ({"statements": said("robots:content-usage", "train-ai=n")}, "optout_content_usage"),
        ({"statements": said("robots:content-usage", "train-ai=y")}, None),
        ({"statements": said("header:x-robots-tag", "noai")}, "optout_header"),
        ({"statements": said("tdmrep:tdm-reservation", "1")}, "optout_tdm"),
        ({"statements": said("xmp:datamining", "DMI-PROHIBITED")}, "optout_metadata"),
        ({"original_width": 300, "original_height": 250, "url": "http://x.example/banner/1.jpg"}, "ad_banner"),
        ({"original_width": 300, "original_height": 250}, None),
        ({"original_width": 640, "original_height": 480, "url": "http://x.example/banner/1.jpg"}, None),
        ({"detail": 0.0}, "blank"),
        ({"nsfw": 0.11}, "nsfw"),
        ({"nsfw": 0.1}, None),
        ({"nsfw": None}, None),
        ({"nsfw": float("nan")}, "nsfw"),
        ({"face": 0.99, "faces": [FACE]}, None),
        ({"evaluation_distance": 10, "evaluation_similarity": 0.2}, "evaluation_image"),
        ({"evaluation_distance": 11, "evaluation_similarity": 0.96}, "evaluation_image"),
        ({"evaluation_distance": 11, "evaluation_similarity": 0.2}, None),
        ({"similarity": [0.149, 0.1, 0.1]}, "low_similarity"),
        ({"similarity": [0.1, 0.1, 0.15]}, None),
    ],
)
def test_pictures(changes: dict[str, Any], reason: str | None) -> None:
    assert decided(image(**changes)).reasons == (reason,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"face": 0.51}, "face"), ({"face": 0.5}, None), ({"face": None}, "face"),
     ({"face": None, "faces": [FACE]}, "face"),
     ({"face": None, "faces": []}, None), ({"face": 0.1, "faces": [FACE]}, "face")],
)  # fmt: skip
def test_fewer_faces(changes: dict[str, Any], reason: str | None) -> None:
    assert decided(image(**changes), drop_faces=True, max_face=0.5).reasons == (reason,)


def test_boxes_of_faces_are_written() -> None:
    document = decided(image(faces=[FACE])).document
    assert document is not None
    assert document.images[0].face_detections == ((10, 20, 50, 70, 0.99),)


@pytest.mark.parametrize(
    ("key", "listed"),
    [("http://x.example/a.jpg", True), ("http://x.example/b.jpg", False), (STORED, True), (FETCHED, True),
     ("x.example", True), ("example", False), ("y.example", False)],
)  # fmt: skip
@pytest.mark.parametrize(("which", "reason"), [("opted_out", "optout_list"), ("removed", "removed")])
def test_lists(which: str, reason: str, key: str, listed: bool) -> None:
    lists: dict[str, Any] = {which: f"{key}\n"} if key != "example" else {which: "w.example\n"}
    assert decided(image(), **lists).reasons[0] == (reason if listed else None)


def test_wishes_of_owners_come_before_what_a_picture_is() -> None:
    spoiled = image(original_width=10, statements=said("robots:GPTBot", "Disallow: /"))
    assert decided(spoiled).reasons == ("optout_robots_agent",)
    assert decided(spoiled, opted_out=STORED).reasons == ("optout_list",)
    assert decided(spoiled, opted_out=STORED, removed=STORED).reasons == ("removed",)


def test_the_policy_on_opt_outs_is_configuration() -> None:
    """What it does not mind, it keeps; the statement is data all the same."""
    asked = image(statements=said("robots:GPTBot", "Disallow: /"))
    assert decided(asked, optout=OptOutRules(agents=())).reasons == (None,)


@pytest.mark.parametrize(
    ("changes", "lists", "reason"),
    [
        ({}, {}, None),
        ({"signals": (("meta:robots", "noai"),)}, {}, "optout_meta"),
        ({"signals": (("header:x-robots-tag", "noimageai"),)}, {}, "optout_header"),
        ({"signals": (("meta:tdm-reservation", "1"),)}, {}, "optout_tdm"),
        ({"signals": (("robots:CCBot", "Disallow: /"),)}, {}, "optout_robots_agent"),
        ({"signals": (("meta:robots", "max-snippet:10"),)}, {}, None),
        ({"near_duplicate": True}, {}, "near_duplicate_text"),
        ({}, {"opted_out": "http://x.example/"}, "optout_list"),
        ({"near_duplicate": True}, {"removed": "http://x.example/"}, "removed"),
    ],
)
def test_pages(changes: dict[str, Any], lists: dict[str, str], reason: str | None) -> None:
    decision = decide(subject(image(url="http://elsewhere.example/a.jpg"), **changes), policy(**lists))
    assert decision.reason == reason
    assert decision.reasons == (reason and "document_dropped",)


def test_networks_of_advertisers() -> None:
    assert decided(image(url="http://ads.net.example/a.jpg"), rules="||ads.net.example^").reasons == ("ad_network",)
    assert decided(image(), rules="||ads.net.example^").reasons == (None,)


def test_evaluation_rules_are_configuration() -> None:
    near = image(evaluation_distance=3, evaluation_similarity=0.99)
    off = ContaminationRules(max_distance=None, min_similarity=None)
    assert (decided(near).reasons, decided(near, evaluation=off).reasons) == (("evaluation_image",), (None,))


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
    assert decide(subject(image(similarity=[]), sentences=()), policy()).reasons == ("low_similarity",)


def test_more_pictures_than_sentences_share() -> None:
    many = [image(str(i), phash=far(i)) for i in range(4)]
    decision = decided(*many, max_distance=0)
    assert decision.document is not None
    indices = [matched.matched_text_index for matched in decision.document.images]
    assert sorted(indices) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "wrong", [{"sentences": (5, 4)}, {"images": (0, 4)}, {"min_core_fraction": 1.5}, {"max_nsfw": 2.0}]
)
def test_configurations_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(InterleaveConfig(), **wrong)
