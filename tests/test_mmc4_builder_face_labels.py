"""The distilled face classifier: fitted on labels, cut at a recall, reported on what it has not seen."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from mmc4_builder import face_labels
from mmc4_builder.face_head import FaceHeadError, Head, probabilities
from mmc4_builder.face_labels import FitError, choose_threshold, fit, is_held_out

DIM = 16


def names(count: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]


def labelled(count: int, *, gap: float = 0.6, share: float = 0.3) -> tuple[Any, npt.NDArray[np.bool_], list[str]]:
    """Unit vectors of two clouds that overlap, whether each shows a face, and hashes."""
    rng = np.random.default_rng(1)
    has_face = rng.random(count) < share
    rows = rng.normal(size=(count, DIM))
    rows[:, 3] += gap * 4 * has_face
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), has_face, names(count)


@pytest.fixture(scope="module")
def fitted() -> Head:
    return fit(*labelled(1500), clip="ViT-L-14:openai", clip_sha256="ab" * 32)[0]


def test_recall_is_what_was_asked_for() -> None:
    """Of pictures that were held out, so only about."""
    vectors, has_face, keys = labelled(1500)
    kept = []
    for recall in (0.6, 0.95):
        head, report = fit(vectors, has_face, keys, clip="x", recall=recall)
        assert head.report == report and report.wanted_recall == recall
        assert abs(report.recall - recall) < 0.1
        kept.append(report.kept)
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[-1]


def test_the_report_counts_the_held_out_pictures(fitted: Head) -> None:
    vectors, has_face, keys = labelled(1500)
    unseen = np.array([is_held_out(key) for key in keys])
    dropped = probabilities(vectors, fitted)[unseen] > fitted.threshold
    report = fitted.report
    assert report.held_out == unseen.sum() and report.fitted_on == (~unseen).sum()
    assert report.fitted_faces == has_face[~unseen].sum()
    assert (report.caught, report.lost) == ((dropped & has_face[unseen]).sum(), (dropped & ~has_face[unseen]).sum())
    assert report.recall == report.caught / (report.caught + report.missed)
    assert report.precision == pytest.approx(report.caught / dropped.sum())
    assert report.kept == pytest.approx(1 - dropped.mean())


def test_the_report_reads_well(fitted: Head) -> None:
    lines = fitted.report.to_text().splitlines()
    assert [line[:11].strip() for line in lines] == ["fitted on", "held out", "recall", "precision", "kept"]
    assert f"{fitted.report.recall:.1%}" in lines[2] and "wanted: 95%" in lines[2]


def test_it_is_the_regression_on_standardised_features(fitted: Head) -> None:
    vectors, has_face, keys = labelled(1500)
    seen = np.array([not is_held_out(key) for key in keys])
    rows = vectors[seen].astype(np.float64)
    model = LogisticRegression(C=fitted.report.strength, max_iter=1000)
    scaled = (vectors - rows.mean(axis=0)) / rows.std(axis=0)
    model.fit(scaled[seen], has_face[seen])
    np.testing.assert_allclose(probabilities(vectors, fitted), model.predict_proba(scaled)[:, 1], atol=1e-4)


def test_order_and_run_change_nothing(fitted: Head) -> None:
    vectors, has_face, keys = labelled(1500)
    order = np.random.default_rng(2).permutation(len(keys))
    again, _ = fit(
        vectors[order], has_face[order], [keys[i] for i in order], clip="ViT-L-14:openai", clip_sha256="ab" * 32
    )
    assert again.to_json() == fitted.to_json()


def test_the_split_is_fixed() -> None:
    keys = names(5000)
    assert [is_held_out(key) for key in keys[:12]] == [is_held_out(key) for key in keys[:12]]
    assert abs(sum(map(is_held_out, keys)) / len(keys) - 0.2) < 0.02
    low = sorted(keys)[:1000]  # a sample drawn by the lowest hashes is split like any other
    assert abs(sum(map(is_held_out, low)) / len(low) - 0.2) < 0.04


def test_a_constant_feature_does_no_harm() -> None:
    vectors, has_face, keys = labelled(800)
    vectors[:, 5] = 0.25
    head, report = fit(vectors, has_face, keys, clip="x")
    assert report.recall > 0.8 and np.isfinite(head.coefficients).all()


@pytest.mark.parametrize(
    ("estimates", "recall", "threshold"),
    [
        ([0.9, 0.8, 0.7, 0.1], 1.0, 0.4),  # halfway between the last face and the first other
        ([0.9, 0.8, 0.7, 0.1], 0.6, 0.75),  # two of three faces, halfway to the third
        ([0.9, 0.8, 0.1, 0.7], 1.0, 0.05),  # nothing lies below the last face
        ([0.9, 0.7, 0.7, 0.7], 1.0, 0.35),  # ties go together
    ],
)
def test_threshold(estimates: list[float], recall: float, threshold: float) -> None:
    labels = np.array([True, True, True, False])
    assert choose_threshold(np.array(estimates), labels, recall) == pytest.approx(threshold)


@pytest.mark.parametrize(
    ("count", "share", "said"),
    [
        (0, 0.5, "of 0 labelled pictures, 0 with a face and 0 without"),
        (300, 0.0, "300 labelled pictures, 0 with a face and 2.. without .* label a larger sample"),
        (300, 1.0, "2.. with a face and 0 without"),
        (60, 0.2, "at least 20, 20 and 1 are needed"),
    ],
)
def test_too_little_to_learn_from(count: int, share: float, said: str) -> None:
    with pytest.raises(FitError, match=said):
        fit(*labelled(count, share=share), clip="x")


def test_broken_vectors_are_counted() -> None:
    vectors, has_face, keys = labelled(300)
    vectors[4, 2] = np.nan
    with pytest.raises(FitError, match="1 of 300 vectors are not finite"):
        fit(vectors, has_face, keys, clip="x")


def test_recall_must_be_a_share() -> None:
    with pytest.raises(ValueError, match="got 95"):
        fit(*labelled(300), clip="x", recall=95)


def test_it_comes_back_from_json(fitted: Head) -> None:
    text = fitted.to_json()
    assert Head.from_json(text) == fitted
    assert Head.from_json(text).to_json() == text


def edit(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: {**data, **changes}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: [], "--fit-faces writes"),
        (edit(format="other"), "--fit-faces writes"),
        (lambda data: {key: data[key] for key in data if key != "threshold"}, "exactly the fields"),
        (edit(extra=1), "exactly the fields"),
        (edit(report={}), "exactly the fields"),
        (edit(coefficients=[]), "finite numbers"),
        (edit(coefficients="1234"), "finite numbers"),
        (edit(coefficients=[1.0, math.nan]), "finite numbers"),
        (edit(intercept=None), "finite numbers"),
        (edit(threshold=math.inf), "finite numbers"),
        (edit(threshold=1.5), "from 0 to below 1, got 1.5"),
    ],
)
def test_other_json_is_refused(fitted: Head, change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(FaceHeadError, match=said):
        Head.from_json(json.dumps(change(json.loads(fitted.to_json()))))


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_no_json_is_refused(text: str) -> None:
    with pytest.raises(FaceHeadError, match="no JSON"):
        Head.from_json(text)


def test_the_recall_of_mmc4() -> None:
    assert face_labels.RECALL == 0.95
