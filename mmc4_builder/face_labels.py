"""MMC4's cheap way to fewer faces (MMC4 §3): fit a classifier on CLIP vectors to the labels of a real detector.

Cross-validated logistic regression on four fifths of the labelled pictures, a threshold for the wanted recall,
and a report on the fifth that was held out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmc4_builder.face_head import Head, Report, probabilities

RECALL = 0.95
HELD_OUT_ONE_IN = 5
FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # inverse regularisation, on features of unit variance
MIN_OF_EACH = 20  # pictures with and without a face to fit on: fewer settle no share of 95 %

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]


class FitError(Exception):
    """Labels that no classifier can be fitted on: the numbers, and how to go on."""


def is_held_out(sha256: str) -> bool:
    """Whether a picture is for the report only. Not a prefix of the hash itself, by which samples are drawn."""
    digest = hashlib.blake2b(sha256.encode(), digest_size=8, person=b"face labels").digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


def fit(
    vectors: Vectors,
    has_face: Sequence[bool] | Labels,
    sha256s: Sequence[str],
    *,
    clip: str,
    clip_sha256: str = "",
    recall: float = RECALL,
) -> tuple[Head, Report]:
    """A classifier for vectors [n, dim] of the model `clip`, from whether each picture shows a face.

    The order of the rows does not matter. Raises FitError.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be above 0 and at most 1, got {recall}")
    order = sorted(range(len(sha256s)), key=sha256s.__getitem__)
    labels = np.asarray(has_face, dtype=np.bool_)[order]
    rows = np.asarray(vectors, dtype=np.float32)[order] if order else np.zeros((0, 1), np.float32)
    held_out = np.array([is_held_out(sha256s[i]) for i in order], dtype=np.bool_)
    _check(rows, labels, held_out)
    fitted, unseen = labels[~held_out], labels[held_out]
    strength, estimates, coefficients, intercept = _regress(rows[~held_out].astype(np.float64), fitted)
    report = Report(
        fitted_on=len(fitted),
        fitted_faces=int(fitted.sum()),
        caught=0,
        missed=0,
        lost=0,
        spared=0,
        wanted_recall=recall,
        strength=strength,
    )
    head = Head(
        clip=clip,
        clip_sha256=clip_sha256,
        coefficients=tuple(coefficients.tolist()),
        intercept=intercept,
        threshold=choose_threshold(estimates, fitted, recall),
        report=report,
    )
    return _with_report(head, rows[held_out], unseen)


def choose_threshold(estimates: npt.NDArray[np.float64], labels: Labels, recall: float) -> float:
    """The threshold above which at least `recall` of the faces lie: halfway down to the next picture."""
    faces = np.sort(estimates[labels])[::-1]
    last = faces[int(np.ceil(recall * len(faces) - 1e-9)) - 1]
    lower = estimates[estimates < last]
    return float((last + (lower.max() if len(lower) else 0.0)) / 2)


def _check(rows: Vectors, labels: Labels, held_out: Labels) -> None:
    """Raise where there is too little to learn from."""
    broken = int((~np.isfinite(rows).all(axis=1)).sum())
    if broken:
        raise FitError(f"{broken} of {len(rows)} vectors are not finite: embed these pictures again")
    faces, others = int(labels[~held_out].sum()), int((~labels[~held_out]).sum())
    if min(faces, others) < MIN_OF_EACH or not labels[held_out].any():
        raise FitError(
            f"of {len(labels)} labelled pictures, {faces} with a face and {others} without are there to fit on, and "
            f"{int(labels[held_out].sum())} with a face to report on: at least {MIN_OF_EACH}, {MIN_OF_EACH} and 1 are "
            "needed; label a larger sample (--face-sample)"
        )


def _regress(
    rows: npt.NDArray[np.float64], labels: Labels
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """(strength, out-of-fold probabilities [n], coefficients [dim], intercept)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    spread[spread == 0] = 1
    scaled = (rows - mean) / spread
    folds = StratifiedKFold(FOLDS)

    def estimate(strength: float) -> npt.NDArray[np.float64]:
        """Each picture's probability by a model that has not seen it: on its own it would look too good."""
        model = LogisticRegression(C=strength, max_iter=1000)
        found: Any = cross_val_predict(model, scaled, labels, cv=folds, method="predict_proba")
        return np.asarray(found[:, 1], dtype=np.float64)

    with threadpool_limits(1):  # sums do not depend on the number of cores
        tried = {strength: estimate(strength) for strength in STRENGTHS}
        best = min(STRENGTHS, key=lambda strength: log_loss(labels, tried[strength]))
        model = LogisticRegression(C=best, max_iter=1000).fit(scaled, labels)
    coefficients = np.asarray(model.coef_[0], dtype=np.float64) / spread
    return best, tried[best], coefficients, float(model.intercept_[0] - coefficients @ mean)


def _with_report(head: Head, rows: Vectors, labels: Labels) -> tuple[Head, Report]:
    """The head with what it does on pictures that it has not seen."""
    dropped = probabilities(rows, head) > head.threshold
    report = replace(
        head.report,
        caught=int((dropped & labels).sum()),
        missed=int((~dropped & labels).sum()),
        lost=int((dropped & ~labels).sum()),
        spared=int((~dropped & ~labels).sum()),
    )
    return replace(head, report=report), report
