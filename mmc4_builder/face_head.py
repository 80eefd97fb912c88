"""The small classifier that tells faces by CLIP vectors, with what it was fitted on, as a JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = "mmc4-build face classifier 1"


class FaceHeadError(ValueError):
    """JSON that is no face classifier: what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How good a classifier is, on pictures that it was not fitted on."""

    fitted_on: int  # pictures, of which
    fitted_faces: int  # show a face
    caught: int  # of the pictures that were held out: with a face, dropped
    missed: int  # with a face, kept
    lost: int  # without a face, dropped
    spared: int  # without a face, kept
    wanted_recall: float
    strength: float  # inverse of the regularisation, as cross-validation chose it

    @property
    def held_out(self) -> int:
        return self.caught + self.missed + self.lost + self.spared

    @property
    def recall(self) -> float:
        """Share of the pictures with a face that are dropped."""
        return _share(self.caught, self.caught + self.missed)

    @property
    def precision(self) -> float:
        """Share of the dropped pictures that show a face."""
        return _share(self.caught, self.caught + self.lost)

    @property
    def kept(self) -> float:
        """Share of the pictures that stay."""
        return _share(self.missed + self.spared, self.held_out)

    def to_text(self) -> str:
        """A small table for people."""
        faces, dropped = self.caught + self.missed, self.caught + self.lost
        found = f"{self.caught:,} of {faces:,} faces dropped (wanted: {self.wanted_recall:.0%})"
        lines = (
            ("fitted on", f"{self.fitted_on:,} pictures, {self.fitted_faces:,} with a face"),
            ("held out", f"{self.held_out:,} pictures, {faces:,} with a face"),
            ("recall", f"{self.recall:.1%}  {found}"),
            ("precision", f"{self.precision:.1%}  {self.caught:,} of {dropped:,} dropped show a face"),
            ("kept", f"{self.kept:.1%}  {self.missed + self.spared:,} of {self.held_out:,} pictures"),
        )
        return "\n".join(f"{name:<11}{text}" for name, text in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Logistic regression on CLIP vectors. A picture whose probability is above `threshold` goes."""

    clip: str  # the model whose vectors it was fitted on, as `--clip` names it
    clip_sha256: str  # of that model's weights; "" where it was not told
    coefficients: tuple[float, ...] = field(repr=False)
    intercept: float
    threshold: float
    report: Report

    def to_json(self) -> str:
        """Text that is the same for the same head, and gives it back exactly."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Head":
        """What `to_json` wrote. Raises FaceHeadError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FaceHeadError(f"no JSON: {error}") from error
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise FaceHeadError(f"no {FORMAT!r}; --fit-faces writes such a file")
        report = Report(**_exactly(Report, data.get("report"), "report"))
        given = _exactly(cls, data, "the classifier")
        head = cls(**{**given, "coefficients": _numbers(given["coefficients"]), "report": report})
        _numbers((head.intercept, head.threshold))
        if not 0 <= head.threshold < 1:
            raise FaceHeadError(f"threshold must be from 0 to below 1, got {head.threshold}")
        return head


def probabilities(vectors: npt.NDArray[np.float32], head: Head) -> npt.NDArray[np.float32]:
    """Probability [n] of a face for vectors [n, dim]; NaN for a row that holds a number that is not finite."""
    if vectors.ndim != 2 or vectors.shape[1] != len(head.coefficients):
        raise ValueError(
            f"the face classifier was fitted on vectors of {len(head.coefficients)} numbers ({head.clip}), "
            f"got {vectors.shape}: fit one on this CLIP's vectors with --fit-faces"
        )
    rows = vectors.astype(np.float64)
    is_finite = np.isfinite(rows).all(axis=1)
    rows[~is_finite] = 0
    logits = rows @ np.array(head.coefficients) + head.intercept
    found = 1 / (1 + np.exp(-np.clip(logits, -500, 500)))
    return np.where(is_finite, found, np.nan).astype(np.float32)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _exactly(kind: type, data: object, what: str) -> Mapping[str, Any]:
    """`data`, if it has the fields of `kind` and no others."""
    names = {one.name for one in fields(kind)}
    if not isinstance(data, dict) or set(data) != names:
        raise FaceHeadError(f"{what} must have exactly the fields {sorted(names)}")
    return data


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = isinstance(values, (list, tuple)) and all(isinstance(one, (int, float)) for one in values)
    if not numbers or not values or not np.isfinite(values).all():
        raise FaceHeadError("coefficients, intercept and threshold must be finite numbers")
    return tuple(float(one) for one in values)
